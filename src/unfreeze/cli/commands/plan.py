"""``unfreeze plan``: show what a study will run, without running it."""

import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from unfreeze.cli.options import AsJson, BackboneName, Out, Overrides, Preset, Seeds, Target, asked_study

if TYPE_CHECKING:
    from unfreeze.config.schema import StudyConfig
    from unfreeze.data.sources.source import Source
    from unfreeze.data.summary import Pools
    from unfreeze.study.network_plan import Plan


def plan(
    target: Target,
    preset: Preset = None,
    backbone: BackboneName = None,
    seeds: Seeds = None,
    out: Out = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Show what a study will run, and predict its time and disk.

    Lists the cells, what each strategy trains, and which frozen activations are computed once and shared. Nothing is
    trained.
    """
    study, _ = asked_study(target, preset, backbone, seeds, overrides)
    from unfreeze.data.sources import known_classes
    from unfreeze.data.summary import pools_by_class
    from unfreeze.study.network_plan import make_plan

    source, missing = _source(study)
    pools = pools_by_class(source, study.split) if source else {}
    planned = make_plan(study, len(source.classes) if source else known_classes(study, Path.cwd()))
    forecast, further = _forecast(study, source, out or Path("runs") / study.name) if source else (None, [])
    warnings = [*missing, *study_warnings(study, pools), *further]
    if as_json:
        typer.echo(
            json.dumps(_as_json(study, planned, source, pools, forecast, warnings), ensure_ascii=False, indent=1)
        )
    else:
        _print(study, planned, source, pools, forecast, warnings)


def _source(study: "StudyConfig") -> "tuple[Source | None, list[str]]":
    """Return the images; or None and a warning where they are absent but the number of classes is known."""
    from unfreeze.data.sources import known_classes, source_of
    from unfreeze.data.summary import refuse_unusable
    from unfreeze.errors import UserError

    try:
        source = source_of(study, Path.cwd())
    except UserError as error:
        if not known_classes(study, Path.cwd()):
            raise
        return None, [f"{error.given}; before the study can run: {error.fix}"]
    refuse_unusable(source, study.check)
    return source, []


def _forecast(study: "StudyConfig", source: "Source", out: Path) -> tuple[dict[str, Any] | None, list[str]]:
    """Return the predictions as plan.json will hold them, or None where they fail, and warnings."""
    from unfreeze.cli import tables
    from unfreeze.data.summary import NothingUsable
    from unfreeze.errors import UserError
    from unfreeze.events import Event, Scanning, Warned
    from unfreeze.study.activation_plan import as_record
    from unfreeze.study.disk import as_record as disk_record
    from unfreeze.study.disk import refusal
    from unfreeze.study.forecast import forecast
    from unfreeze.study.images import LoneBatch

    warnings: list[str] = []
    console = tables.stderr()
    with console.status("reading the files") if console.is_terminal else contextlib.nullcontext() as status:

        def emit(event: Event) -> None:
            if isinstance(event, Warned):
                warnings.append(event.text)
            elif status:
                counting = (
                    f"reading the files: {event.done:,} of {event.total:,}" if isinstance(event, Scanning) else ""
                )
                status.update(counting or "timing training steps")

        try:
            found = forecast(study, source, out, emit)
        except (NothingUsable, LoneBatch):
            raise
        except UserError as error:
            return None, [*warnings, f"shared work, time and disk cannot be predicted: {error}"]
    refused = refusal(out, found.writes)
    warnings += [f"the study cannot run: {refused}"] if refused else []
    record = as_record(found.shared, found.stages)
    record["predictions"] |= disk_record(out, found.writes)
    return record, warnings


def _as_json(
    study: "StudyConfig",
    planned: "Plan",
    source: "Source | None",
    pools: "dict[str, Pools]",
    forecast: dict[str, Any] | None,
    warnings: list[str],
) -> dict[str, Any]:
    from unfreeze.config.identity import regime_record
    from unfreeze.data.summary import layout
    from unfreeze.study.network_plan import as_record

    return {
        "study": study.name,
        "data": study.data,
        "files": {label: pool.files for label, pool in pools.items()},
        **as_record(planned),
        "regimes": {name: regime_record(regime) for name, regime in study.regimes.items()},
        **(forecast or {"shared": None, "reuse": None, "predictions": None}),
        "warnings": warnings,
        "layout": layout(source, study.split) if source else None,
    }


def _print(
    study: "StudyConfig",
    planned: "Plan",
    source: "Source | None",
    pools: "dict[str, Pools]",
    forecast: dict[str, Any] | None,
    warnings: list[str],
) -> None:
    from rich.text import Text

    from unfreeze.cli import tables
    from unfreeze.study.network_plan import as_record
    from unfreeze.text import plural

    console = tables.stdout()
    folds = f" x {study.split.folds} folds" if study.split.folds else ""
    fewer = "up to " if any(strategy.seeds for strategy in study.strategies.values()) else ""
    console.print(
        f"{study.name}: {plural(len(study.strategies), 'strategy', 'strategies')} x "
        f"{plural(len(study.regimes), 'regime')} x {fewer}{plural(len(study.seeds), 'seed')}{folds} = "
        f"{plural(len(planned.cells), 'cell')}"
    )
    for line in tables.data_lines(study, source):
        console.print(tables.one_line(line))
    console.print()
    tables.show(console, tables.grid(study, planned))
    tables.show(console, tables.regimes(study, pools))
    console.print(tables.strategies(planned) + "\n")
    if forecast:
        if forecast["shared"]:
            tables.show(console, tables.activations(forecast))
        tables.show(console, tables.reuse(forecast, as_record(planned)["cells"]))
        console.print(tables.prediction(forecast) + "\n")
    for warning in warnings:
        console.print(Text(f"warning: {warning}", style="yellow"))


def study_warnings(study: "StudyConfig", pools: "dict[str, Pools]") -> list[str]:
    """Return warnings about a study's settings: reused test images, classes smaller than a regime asks for."""
    found = []
    if study.split.val == "test":
        found.append(
            "the test images are also the validation images, which stop training and choose candidates, so test "
            "scores are optimistic; split: {val: 0.15} draws separate ones"
        )
    for name, regime in study.regimes.items():
        for word, asked in (("training", regime.train_per_class), ("validation", regime.val_per_class)):
            sizes = {label: pool.train if word == "training" else pool.validation for label, pool in pools.items()}
            short = {label: size for label, size in sizes.items() if asked is not None and size < asked}
            if short:
                about = "" if all(pools[label].exact for label in short) else "about "
                listed = ", ".join(f"{label} {about}{size:.0f}" for label, size in list(short.items())[:5])
                more = f" and {len(short) - 5} more classes" if len(short) > 5 else ""
                key, least = "train_per_class" if word == "training" else "val_per_class", int(min(short.values()))
                enough = f"; regimes.{name}.{key}: {least} is what each has" if least else ""
                found.append(f"regime {name} asks for {asked} {word} files a class; fewer: {listed}{more}{enough}")
    return found
