"""Write the report: one HTML file that opens offline.

Names of files, classes and strategies are never interpreted as markup: the template escapes them, figures are JSON
data, and the page's content security policy allows only its own two scripts and no requests.
"""

import base64
import functools
import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from markupsafe import Markup
from plotly.offline import get_plotlyjs
from ruamel.yaml import YAML

from unfreeze.metrics import METRICS, difference_text, estimate_text, metric_text
from unfreeze.report.answer import Answer, answer, error_summary
from unfreeze.report.answer_text import NOTHING_YET, ON_TEST, Fact, facts
from unfreeze.report.conclusions import images_text
from unfreeze.report.figures import curves_figure, grid_figures, seconds_figure
from unfreeze.report.sections.best_model import best_model_view
from unfreeze.report.sections.grid import HEIGHT, WIDTH, plain_records, recipe_views
from unfreeze.report.sections.networks import strategy_pictures
from unfreeze.report.sections.shared_work import shared_work
from unfreeze.report.templating import asset, environment
from unfreeze.statistics.data_quality import DataSummary, read_data_summary
from unfreeze.statistics.learning_curve import curves_table
from unfreeze.statistics.predictions import Recipe
from unfreeze.statistics.study_results import StudyResults, read_study_results, record_of
from unfreeze.storage.atomic import write_text
from unfreeze.storage.study_dir import StudyDir
from unfreeze.text import MISSING, plural


def write_report(results: StudyResults, path: Path | None = None) -> Path:
    """Write the report of a study, finished or not, and return its path.

    Args:
        results: of the study.
        path: of the file; by default report.html in the study directory.

    Raises:
        UserError: a record cannot be read, or the path cannot be written.
    """
    target = path or results.study.path / "report.html"
    write_text(target, render_report(results))
    return target


def render_report(results: StudyResults) -> str:
    """Return the report of a study as one HTML document.

    Raises:
        UserError: a record cannot be read.
    """
    data = read_data_summary(results.study)
    found = answer(results, data)
    model = best_model_view(results.study, results.cell, results.table, results.record)
    grids = grid_figures(results.table, results.history)
    figures = _figures(results, grids) | (model.figures if model else {})
    return environment().get_template("report.html.j2").render(
        **_top(results, found),
        **_grid(results, found, grids),
        **_data_and_cost(results, data),
        **_how(results),
        **_scripts(),
        inside=model,
        figures=figures,
        css=_style("report.css", "answer.css", "inside.css"),
    )  # fmt: skip


def _figures(results: StudyResults, grids: Mapping[Recipe, go.Figure]) -> dict[str, dict[str, Any]]:
    """Return the figures of the grid, the learning curves and the times as JSON data, by name."""
    figures = {_figure_name(place): figure for place, figure in enumerate(grids.values())}
    more = {"curves": curves_figure(results.curves), "seconds": seconds_figure(results.table)}
    figures |= {name: figure for name, figure in more.items() if figure is not None}
    return {name: figure.to_plotly_json() for name, figure in figures.items()}


def _figure_name(place: int) -> str:
    return f"grid-{place}"


def _top(results: StudyResults, found: Answer) -> dict[str, Any]:
    """Return the template's values for the first screen."""
    return {
        "name": results.name,
        "answer": found,
        "facts": facts(found),
        "nothing_yet": NOTHING_YET,
        "on_test": ON_TEST if found.validates_on_test else "",
        "size": study_size(results.record, results.table),
    }


def _grid(results: StudyResults, found: Answer, grids: Mapping[Recipe, go.Figure]) -> dict[str, Any]:
    """Return the template's values for the grid of recipes and their runs."""
    table, metric = results.table, results.metric
    names = {recipe: _figure_name(place) for place, recipe in enumerate(grids)}
    return {
        "strategies": list(dict.fromkeys(table["strategy"])),
        "regimes": list(dict.fromkeys(table["regime"])),
        "recipes": recipe_views(results, found.recipe, names),
        "spark": (WIDTH, HEIGHT),
        "log_loss_axis": any(figure.layout.yaxis2.type == "log" for figure in grids.values()),
        "metric_name": METRICS[metric].label,
        "metric_is_accuracy": metric == "accuracy",
        "metric_text": functools.partial(metric_text, metric),
        "folds": bool(table["fold"].notna().any()),
        "errors": {cell: (error_summary(error), error) for cell, error in results.errors.items()},
    }


def _data_and_cost(results: StudyResults, data: DataSummary) -> dict[str, Any]:
    """Return the template's values for the sections on data and cost."""
    return {
        "curves": plain_records(curves_table(results.curves)),
        "augmentation": plain_records(results.augmentation),
        "estimate_text": functools.partial(estimate_text, results.metric),
        "difference_text": functools.partial(difference_text, results.metric),
        "images_text": images_text,
        "found": data,
        "costs": plain_records(results.convergence),
        "shared": bool((results.table["seconds_shared"] > 0).any()),
        "once": shared_work(results.record, results.plan, results.shared),
    }


def _how(results: StudyResults) -> dict[str, Any]:
    """Return the template's values for the section on how it was done."""
    record, folder = results.record, results.study.path
    return {
        "networks": strategy_pictures(results.plan.get("networks", {})),
        "has_study_file": (folder / "study.yaml").is_file(),
        "environment": record_of(folder / "environment.json"),
        "notes": record.get("notes", []),
        "warnings": results.warnings,
        "classes": [str(label) for label in record.get("classes", [])],
        "settings_text": _yaml(record["study"]),
    }


def _scripts() -> dict[str, Any]:
    """Return the page's two scripts, and their hashes for its content security policy."""
    scripts = {"plotly": get_plotlyjs(), "page": asset("report.js")}
    return {
        "scripts": {name: Markup(text) for name, text in scripts.items()},  # noqa: S704 - plotly's and our own file
        "script_hashes": " ".join(_source_hash(text) for text in scripts.values()),
    }


def _style(*names: str) -> Markup:
    return Markup("".join(map(asset, names)))  # noqa: S704 - our own files


def study_size(record: Mapping[str, Any], table: pd.DataFrame) -> list[str]:
    """Return the numbers of strategies, regimes, seeds, classes and test images, as text."""
    size = [
        plural(table["strategy"].nunique(), "strategy", "strategies"),
        plural(table["regime"].nunique(), "regime"),
        plural(table["seed"].nunique(), "seed"),
        plural(len(record.get("classes", [])), "class", "classes"),
    ]
    tests = table[table["n_test"].notna()]
    if len(tests):  # each fold has its own test images
        count = tests.groupby(tests["fold"].fillna(-1))["n_test"].max().sum()
        size.append(plural(int(count), "test image"))
    return size


def _yaml(settings: dict[str, Any]) -> str:
    stream = io.StringIO()
    yaml = YAML(typ="safe")
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.dump(settings, stream)
    return stream.getvalue()


def _source_hash(script: str) -> str:
    """Return the hash of a script for a content security policy (https://www.w3.org/TR/CSP3/#grammardef-hash-source)."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


@dataclass(frozen=True)
class StudyColumn:
    """One study on a page of several: its answer, as facts and as a row of the table."""

    path: str
    data: str
    answer: Answer
    facts: tuple[Fact, ...]
    metric_name: str
    validation: str
    score: str


def write_side_by_side(studies: Sequence[StudyDir], path: Path) -> Path:
    """Write one page with the answers of several studies, and return its path; their directories are only read.

    Studies are not compared statistically, because their runs are not paired by seed and image.

    Raises:
        UserError: a directory holds no study, a record cannot be read, or the path cannot be written.
    """
    columns = [_column(read_study_results(study)) for study in studies]
    page = environment().get_template("side_by_side.html.j2").render(
        columns=columns,
        metrics=len({column.metric_name for column in columns}),
        data=len({column.data for column in columns}),
        nothing_yet=NOTHING_YET,
        on_test=ON_TEST,
        css=_style("report.css", "answer.css"),
    )  # fmt: skip
    write_text(path, page)
    return path


def _column(results: StudyResults) -> StudyColumn:
    found = answer(results)
    score = found.test_score
    return StudyColumn(
        path=str(results.study.path),
        data=str(results.record.get("data", "")),
        answer=found,
        facts=facts(found),
        metric_name=METRICS[found.metric].label,
        validation=metric_text(found.metric, found.ranking.value) if found.ranking else MISSING,
        score=estimate_text(found.metric, score.value, score.low, score.high) if score else "no test images",
    )
