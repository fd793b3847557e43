"""Consoles and tables that fit the width of a terminal, or a pipe."""

import math
import sys
from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from unfreeze.data.summary import Pools
from unfreeze.metrics import METRICS, metric_text, spread_text
from unfreeze.report.sections.shared_work import built_from, reuse_text
from unfreeze.text import MISSING, bytes_text, count_text, plural, seconds_text

PIPE_WIDTH = 1000
"""Width in a pipe, so that nothing is cut or wrapped."""

GAP = 3
"""Columns between two columns of a table."""


def stdout() -> Console:
    """Return a console on stdout that prints brackets as text, not as markup."""
    width = None if sys.stdout.isatty() else PIPE_WIDTH
    return Console(width=width, markup=False, highlight=False, emoji=False)


def stderr() -> Console:
    """Return a console on stderr."""
    return Console(stderr=True, markup=False, highlight=False, emoji=False)


def one_line(text: str) -> str:
    """Escape unprintable characters, so that no file name moves the cursor or reverses the text."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in text
    )


def new_table(*columns: str, numbers: tuple[str, ...] = ()) -> Table:
    """Return an empty table; columns named in ``numbers`` are aligned right and never wrapped or cut."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
    for column in columns:
        if column in numbers:
            table.add_column(column, justify="right", no_wrap=True)
        else:
            table.add_column(column, overflow="fold")
    return table


def show(console: Console, table: Table) -> None:
    """Print a table; on a terminal too narrow for its numbers, lines overflow rather than lose digits."""
    width = console.width
    console.width = max(width, least_width(console, table))
    with console.capture() as written:
        console.print(table)
    console.width = width
    text = written.get()
    # In a pipe, strip the padding on the right.
    console.file.write(text if console.is_terminal else "\n".join(line.rstrip() for line in text.split("\n")))
    console.print()


def least_width(console: Console, table: Table) -> int:
    """Return the least width of a table: its numbers unwrapped, and the longest word of each other column."""
    measures = [[console.measure(cell) for cell in (column.header, *column.cells)] for column in table.columns]
    parts = [
        max(measure.maximum if column.no_wrap else measure.minimum for measure in measured)
        for column, measured in zip(table.columns, measures, strict=True)
    ]
    return sum(parts) + GAP * len(parts)


if TYPE_CHECKING:
    from unfreeze.config.schema import RegimeConfig, StudyConfig
    from unfreeze.data.sources.source import Source
    from unfreeze.study.network_plan import NetworkPlan, Plan


def data_lines(study: "StudyConfig", source: "Source | None") -> tuple[str, ...]:
    """Return lines that say how the data was read: its classes, splits and guesses."""
    from unfreeze.data.summary import lines

    if source is None:
        return (f"data: {study.data} (not on this machine)",)
    return lines(study.data, source, study.split, study.tests)


def grid(study: "StudyConfig", planned: "Plan") -> Table:
    """Return a table of the seeds that run, with a row per strategy and a column per regime."""
    table = new_table("cells", *study.regimes)
    for strategy in study.strategies:
        row = []
        for regime in study.regimes:
            own = [cell for cell in planned.cells if (cell.strategy, cell.regime) == (strategy, regime)]
            seeds = sorted({cell.seed for cell in own})
            row.append(f"seed{'s' if len(seeds) > 1 else ''} {_short(seeds)}" + _folds(len(own) // len(seeds)))
        table.add_row(strategy, *row)
    return table


def _short(seeds: list[int]) -> str:
    if len(seeds) > 2 and seeds == list(range(seeds[0], seeds[-1] + 1)):
        return f"{seeds[0]} to {seeds[-1]}"
    return ", ".join(map(str, seeds))


def _folds(count: int) -> str:
    return f" x {count} folds" if count > 1 else ""


def regimes(study: "StudyConfig", pools: dict[str, Pools]) -> Table:
    """Return a table of the regimes: files per class for training and validation, and augmentation."""
    table = new_table("regime", "training", "validation", "augmentation", "epoch")
    table.caption = "files per class" + ("" if pools else " (as requested; the data is not on this machine)")
    table.caption_justify, table.caption_style = "left", "dim"
    for name, regime in study.regimes.items():
        seen = regime.validation
        shown = "" if seen.augment == "none" else f", {seen.augment}"
        shown += f", {seen.examples:,} drawn" if seen.examples else ""
        table.add_row(
            name,
            _training(regime, pools),
            _asked(regime.val_per_class, [pool.validation for pool in pools.values()], _exact(pools)) + shown,
            regime.augment,
            plural(regime.examples_per_epoch, "example") if regime.examples_per_epoch else "one pass",
        )
    return table


def _exact(pools: dict[str, Pools]) -> bool:
    return all(pool.exact for pool in pools.values())


def _training(regime: "RegimeConfig", pools: dict[str, Pools]) -> str:
    sizes = [pool.train for pool in pools.values()]
    if regime.train_fraction is not None:
        text = _asked(None, [size * regime.train_fraction for size in sizes], exact=False)
        return f"{regime.train_fraction:.0%}: {text}" if sizes else f"{regime.train_fraction:.0%}"
    strict = " or refuse" if regime.strict else ""
    return _asked(regime.train_per_class, sizes, _exact(pools)) + strict


def _asked(asked: int | None, sizes: list[float], exact: bool) -> str:
    """Write ``up to 80``, ``all: about 89 to 386``, or where some have fewer ``up to 100: about 89 to 100``."""
    if not sizes:
        return "all" if asked is None else f"up to {asked}"
    taken = [size if asked is None else min(size, asked) for size in sizes]
    if asked is not None and min(taken) == asked:
        return str(asked)
    about = "" if exact else "about "
    least, most = f"{min(taken):.0f}", f"{max(taken):.0f}"
    span = least if least == most else f"{least} to {most}"
    return f"{'all' if asked is None else f'up to {asked}'}: {about}{span}"


def strategies(planned: "Plan") -> str:
    """Describe each strategy: its network, its head, and what each phase trains and how."""
    return "\n\n".join(
        f"{name}\n" + "\n".join(f"    {line}" for line in _settings(network, len(planned.candidates[name])))
        for name, network in planned.networks.items()
    )


def _settings(network: "NetworkPlan", candidates: int) -> list[str]:
    strategy = network.strategy
    weights = {"none": "random weights", "pretrained": "pretrained"}.get(
        strategy.backbone.weights, f"weights {strategy.backbone.weights}"
    )
    lines = [
        f"{strategy.backbone.name}, {weights}, {strategy.image_size} pixels ({strategy.resize}), "
        f"batches of {strategy.batch_size}",
        f"head: {', '.join(network.head.layers)}",
    ]
    for number in range(len(strategy.phases)):
        lines += _phase(network, number)
    stopping = strategy.early_stopping
    if stopping:
        lines.append(
            f"stops early after {plural(stopping.patience, 'epoch')} without a better {stopping.monitor}"
            + (", restores the best epoch" if stopping.restore_best else "")
        )
    if candidates > 1:
        lines.append(f"tuned: {candidates} candidates per cell, chosen on validation; the first is shown")
    return lines


def _phase(network: "NetworkPlan", number: int) -> list[str]:
    from unfreeze.study.network_plan import optimizer_words, train_words

    phase, cut, stages = network.strategy.phases[number], network.cuts[number], network.stages
    total = sum(stage.params for stage in stages) + network.head.params
    trained = sum(stage.params for stage in stages[cut:]) + network.head.params
    where = f"cut after {stages[cut - 1].name} ({cut} of {len(stages)} stages frozen)" if cut else "nothing frozen"
    opening = f"phase {number + 1} trains" if len(network.strategy.phases) > 1 else "trains"
    further = [
        "fresh weights" if phase.reinit else "",
        "BatchNorm trains" if phase.batch_norm == "train" else "",
        f"label smoothing {phase.label_smoothing:g}" if phase.label_smoothing else "",
    ]
    warmup = f" after {phase.schedule.warmup:.0%} warm-up" if phase.schedule.warmup else ""
    return [
        f"{opening} {train_words(phase.train)}: {count_text(trained)} of {count_text(total)} parameters; {where}",
        ", ".join(
            [
                f"{plural(phase.epochs, 'epoch')} of {optimizer_words(phase.optimizer)}",
                f"{phase.schedule.name} schedule{warmup}",
                *filter(None, further),
            ]
        ),
    ]


ROWS = 20
"""Largest number of rows of a table; its last row sums up the rest."""

NAMED = 2
"""Largest number of cells that are listed by name."""


def activations(record: Mapping[str, Any]) -> Table:
    """Return a table of activations computed once: their size, source, cells, and whether they are stored.

    Args:
        record: from ``study.activation_plan.as_record``.
    """
    table = new_table(
        "computed once", "rows", "size", "built from", "stored", "for", "time", numbers=("rows", "size", "time")
    )
    shared, pixels = record["shared"], record["predictions"]["pixel_bytes"]
    if pixels:
        table.add_row("decoded pictures", "", bytes_text(pixels), "files", "yes", "all cells", "")
    shown = shared if len(shared) <= ROWS else shared[: ROWS - 1]
    for entry in shown:
        table.add_row(
            entry["name"],
            f"{entry['rows']:,}",
            bytes_text(entry["bytes"]),
            built_from(entry),
            _stored(entry),
            _cells(entry["cells"]),
            seconds_text(entry["seconds"]),
        )
    rest = shared[len(shown) :]
    if rest:
        table.add_row(
            f"{len(rest):,} more",
            f"{sum(entry['rows'] for entry in rest):,}",
            bytes_text(sum(entry["bytes"] for entry in rest)),
            "",
            f"{sum(entry['stored'] for entry in rest):,} of them",
            plural(len({cell for entry in rest for cell in entry["cells"]}), "cell"),
            seconds_text(sum(entry["seconds"] for entry in rest)),
        )
    return table


def _stored(entry: Mapping[str, Any]) -> str:
    if not entry["stored"]:
        return f"no: {entry['why_not']}"
    if entry["held"] == entry["rows"]:
        return "yes, already there"
    return f"yes, {entry['held']:,} rows already there" if entry["held"] else "yes"


def _cells(cells: Sequence[str]) -> str:
    return ", ".join(cells) if len(cells) <= NAMED else plural(len(cells), "cell")


def reuse(record: Mapping[str, Any], cells: Sequence[Mapping[str, Any]]) -> Table:
    """Return a table of what cells reuse, or why they do not; equal cells of a strategy share a row.

    Args:
        record: from ``study.activation_plan.as_record``.
        cells: the cells of the plan's record.
    """
    table = new_table("cells", "reuse", "time", "without reuse", numbers=("time", "without reuse"))
    of = {cell["cell"]: cell for cell in cells}
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for entry in record["reuse"]:
        groups.setdefault((of[entry["cell"]]["strategy"], reuse_text(entry)), []).append(entry)
    listed = list(groups.items())
    shown = listed if len(listed) <= ROWS else listed[: ROWS - 1]
    for (strategy, text), alike in shown:
        regimes = dict.fromkeys(of[entry["cell"]]["regime"] for entry in alike)
        table.add_row(f"{strategy} x {', '.join(regimes)} ({plural(len(alike), 'cell')})", text, *_times(alike))
    rest = [entry for _, alike in listed[len(shown) :] for entry in alike]
    if rest:
        table.add_row(f"{plural(len(rest), 'more cell')}", "see --json", *_times(rest))
    return table


def _times(cells: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    return (
        seconds_text(sum(entry["seconds"] for entry in cells)),
        seconds_text(sum(entry["seconds_alone"] for entry in cells)),
    )


def prediction(record: Mapping[str, Any]) -> str:
    """Return the predicted time and disk use of the whole study."""
    found = record["predictions"]
    return (
        f"predicted: {seconds_text(found['seconds'])}, {bytes_text(found['disk'])} of disk; without reuse, in plain "
        f"PyTorch, {seconds_text(found['seconds_alone'])}, {found['ratio']:.1f} times as long\n"
        f"written to {found['directory']}: up to {bytes_text(found['directory_bytes'])}, "
        f"{bytes_text(found['models_bytes'])} of it for models and predictions; "
        f"{bytes_text(found['directory_free'])} available"
    )


if TYPE_CHECKING:
    import pandas as pd

    from unfreeze.report.answer import Answer


LEAST_IMPORTANT = ("epochs", "a cell", "cells")


def summary(results: "pd.DataFrame", metric: str, console: Console) -> Table:
    """Return the results of each recipe, scores with their standard deviation.

    Where it is wider than the console, the least important columns are left out.
    """
    from unfreeze.statistics.tables import summary_table

    means = summary_table(results)
    scores = {"validation": "val_metric", "test": "test_metric"}
    further = [column for column in means.columns if column.startswith("test_") and column.endswith("_metric_mean")]
    for column in further:
        if column != "test_metric_mean":
            name = column.removesuffix("_metric_mean")
            scores[name.removeprefix("test_")] = f"{name}_metric"
    rows = [_row(row, metric, scores) for row in means.to_dict("records")]
    over = "seeds and folds" if results["fold"].notna().any() else "seeds"
    hidden: tuple[str, ...] = ()
    for hidden in ((), LEAST_IMPORTANT[:1], LEAST_IMPORTANT[:2], LEAST_IMPORTANT):
        table = _summary_table(rows, metric, over, hidden)
        if least_width(console, table) <= console.width:
            break
    return table


def answer_lines(answer: "Answer") -> list[Text]:
    """Return the report's answer, one line per fact with its label first."""
    from unfreeze.report.answer_text import NOTHING_YET, ON_TEST, facts

    found = facts(answer)
    if not found:
        return [Text(NOTHING_YET)]
    width = max(len(fact.label) for fact in found)
    lines = [Text(ON_TEST, style="yellow")] if answer.validates_on_test else []
    for fact in found:
        line = Text(f"{fact.label:<{width}}  ", style="dim")
        line.append(fact.value, style="not dim bold")
        line.append(f" ({fact.detail})" if fact.detail else "", style="not dim")
        lines.append(line)
    return lines


def _summary_table(rows: list[dict[str, str]], metric: str, over: str, hidden: tuple[str, ...]) -> Table:
    shown = [name for name in rows[0] if name not in hidden]
    table = new_table(*shown, numbers=tuple(shown[2:]))
    table.title = f"{METRICS[metric].label}, mean and standard deviation over {over}"
    table.title_justify, table.title_style = "left", "dim"
    for row in rows:
        table.add_row(*(row[name] for name in shown))
    return table


def _row(row: dict[Hashable, Any], metric: str, scores: dict[str, str]) -> dict[str, str]:
    return {
        "strategy": str(row["strategy"]),
        "regime": str(row["regime"]),
        "cells": f"{row['finished']}/{row['cells']}",
        "epochs": _plain(row["epochs_mean"]),
        **{name: _score(metric, row[f"{column}_mean"], row[f"{column}_std"]) for name, column in scores.items()},
        "an epoch": seconds_text(row["seconds_per_epoch_mean"]),
        "a cell": seconds_text(row["seconds_total_mean"]),
    }


def _plain(value: Any) -> str:
    return MISSING if math.isnan(value) else f"{value:.3g}"


def _score(metric: str, mean: float, deviation: float) -> str:
    if math.isnan(mean):
        return MISSING
    spread = "" if math.isnan(deviation) else f" ± {spread_text(metric, deviation).removesuffix(' points')}"
    return f"{metric_text(metric, mean)}{spread}"
