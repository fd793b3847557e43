"""The report: one HTML file that opens offline.

Names of files, classes and strategies are text wherever they appear: the template escapes them, figures travel as
JSON data, and the page's content security policy admits no script but its own two and no request at all.
"""

import base64
import functools
import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup
from plotly.offline import get_plotlyjs
from ruamel.yaml import YAML

from unfreeze.results import words
from unfreeze.results.findings import findings, headline
from unfreeze.results.inside_view import inside_view
from unfreeze.results.networks import strategy_pictures
from unfreeze.results.pictures import grid_figures, seconds_figure
from unfreeze.results.shared_work import shared_work
from unfreeze.results.tables import cell_errors, cell_warnings, history_table, results_table, summary_table
from unfreeze.results.templating import asset, environment
from unfreeze.store import StudyDir, read_json, write_text


@dataclass(frozen=True)
class FieldView:
    """One field of the grid: a strategy with a regime."""

    strategy: str
    regime: str
    figure: str
    score: str
    state: str
    alt: str
    failed: tuple[tuple[str, str], ...]


def write_report(study: StudyDir, path: Path | None = None) -> Path:
    """Write the report of a study, finished or not, and return its path (by default report.html in the directory).

    Raises:
        UserError: the directory holds no study, a record cannot be read, or the path cannot be written.
    """
    target = path or study.path / "report.html"
    write_text(target, render_report(study))
    return target


def render_report(study: StudyDir) -> str:
    """Return the report of a study as one HTML document, UTF-8 declared.

    Raises:
        UserError: the directory holds no study, or a record cannot be read.
    """
    results, history = results_table(study), history_table(study)
    record, plan = read_json(study.path / "study.json"), read_json(study.path / "plan.json")
    settings, metric, errors = record["study"], str(record["metric"]), cell_errors(study)
    on_test = (settings.get("split") or {}).get("val") == "test"
    grids, seconds = grid_figures(results, history), seconds_figure(results)
    fields = _fields(results, metric, errors, {field: f"grid-{place}" for place, field in enumerate(grids)})
    figures = {f"grid-{place}": figure.to_plotly_json() for place, figure in enumerate(grids.values())}
    if seconds is not None:
        figures["seconds"] = seconds.to_plotly_json()
    inside = inside_view(study, results, record)
    if inside is not None:
        figures |= inside.figures
    scripts = {"plotly": get_plotlyjs(), "page": asset("report.js")}
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            name=record["name"],
            answer=headline(results, metric, on_test),
            findings=findings(results, history, metric, settings.get("regimes")),
            notes=record.get("notes", []),
            warnings=cell_warnings(study),
            counts=_counts(results),
            facts=_facts(record, results),
            classes=[str(label) for label in record.get("classes", [])],
            strategies=list(dict.fromkeys(results["strategy"])),
            regimes=list(dict.fromkeys(results["regime"])),
            fields=fields,
            log_loss_axis=any(figure.layout.yaxis2.type == "log" for figure in grids.values()),
            metric_name=words.METRIC_NAMES[metric],
            metric_is_accuracy=metric == "accuracy",
            summary=_records(summary_table(results)),
            rows=_records(results),
            folds=bool(results["fold"].notna().any()),
            shared=bool((results["seconds_shared"] > 0).any()),
            errors={cell: (_gist(error), error) for cell, error in errors.items()},
            has_study_file=(study.path / "study.yaml").is_file(),
            networks=strategy_pictures(plan.get("networks", {})),
            has_seconds=seconds is not None,
            inside=inside,
            once=shared_work(record, plan, _without_format(study.path / "shared.json")),
            settings_text=_yaml(settings),
            environment=_without_format(study.path / "environment.json"),
            metric_text=functools.partial(words.metric_text, metric),
            spread_text=lambda value: words.spread_text(metric, value).removesuffix(" points"),
            figures=figures,
            css=Markup(asset("report.css") + asset("inside.css")),  # noqa: S704 - our own files
            scripts={name: Markup(text) for name, text in scripts.items()},  # noqa: S704 - plotly's and our own file
            script_hashes=" ".join(_source_hash(text) for text in scripts.values()),
        )
    )


def _fields(
    results: pd.DataFrame, metric: str, errors: dict[str, str], figures: dict[tuple[str, str], str]
) -> list[FieldView]:
    views = []
    name = words.METRIC_NAMES[metric]
    for (strategy, regime), group in results.groupby(["strategy", "regime"], sort=False):
        done = group[group["status"] == "finished"]
        scores = [
            f"{role} {words.metric_text(metric, float(done[column].mean()))}"
            for role, column in (("validation", "val_metric"), ("test", "test_metric"))
            if done[column].notna().any()
        ]
        noun = "run" if group["fold"].notna().any() else "seed"
        state = [words.plural(len(done), noun)] if len(done) else []
        state += [
            f"{int((group['status'] == status).sum())} {text}"
            for status, text in (("failed", "failed"), ("diverged", "diverged"), ("missing", "not run"))
            if (group["status"] == status).any()
        ]
        views.append(
            FieldView(
                strategy=str(strategy),
                regime=str(regime),
                figure=figures.get((str(strategy), str(regime)), ""),
                score=", ".join(scores),
                state=", ".join(state),
                alt=f"Accuracy and loss by epoch of {strategy} with {regime}; {name}: {', '.join(scores) or 'none'}",
                failed=tuple((cell, _gist(errors[cell])) for cell in group["cell"] if cell in errors),
            )
        )
    return views


def _counts(results: pd.DataFrame) -> dict[str, int]:
    kinds = {"finished": ("finished",), "failed": ("failed", "diverged"), "missing": ("missing",)}
    return {kind: int(results["status"].isin(statuses).sum()) for kind, statuses in kinds.items()}


def _facts(record: dict[str, Any], results: pd.DataFrame) -> list[str]:
    """Return what the study is about, as short facts for the line under the title."""
    seeds = results["seed"].nunique()
    facts = [
        words.plural(results["strategy"].nunique(), "strategy").replace("strategys", "strategies"),
        words.plural(results["regime"].nunique(), "regime"),
        words.plural(seeds, "seed"),
        words.plural(len(record.get("classes", [])), "class").replace("classs", "classes"),
    ]
    tests = results["n_test"].dropna()
    if len(tests):
        facts.append(words.plural(int(tests.max()), "test image"))
    return facts


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return rows as plain values; every empty number becomes NaN, which the formats show as a dash."""
    plain = table.copy()
    for column in plain.columns:
        if pd.api.types.is_numeric_dtype(plain[column].dtype):
            plain[column] = plain[column].astype("float64")
    return [{str(key): value for key, value in row.items()} for row in plain.to_dict("records")]


def _gist(error: str) -> str:
    """Return the line of an error that says what happened: a traceback's last, otherwise the first."""
    lines = [line.strip() for line in error.splitlines() if line.strip()] or ["no message"]
    return lines[-1] if lines[0].startswith("Traceback") else lines[0]


def _yaml(settings: dict[str, Any]) -> str:
    stream = io.StringIO()
    yaml = YAML(typ="safe")
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.dump(settings, stream)
    return stream.getvalue()


def _without_format(path: Path) -> dict[str, Any]:
    """Return a record's values; a study that has not run yet has no environment, and no facts of shared work."""
    return {key: value for key, value in read_json(path).items() if key != "format"} if path.is_file() else {}


def _source_hash(script: str) -> str:
    """Return a script's hash as a content security policy names it (https://www.w3.org/TR/CSP3/#grammardef-hash-source)."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
