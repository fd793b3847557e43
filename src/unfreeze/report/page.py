"""The report: one HTML file that opens offline.

Names of files, classes and strategies are text wherever they appear: the template escapes them, figures travel as
JSON data, and the page's content security policy admits no script but its own two and no request at all.
"""

import base64
import functools
import hashlib
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup
from plotly.offline import get_plotlyjs
from ruamel.yaml import YAML

from unfreeze import text as words
from unfreeze.report.answer import Answer, answer, gist
from unfreeze.report.answer_text import NOTHING_YET, ON_TEST, Fact, facts
from unfreeze.report.figures import curves_figure, grid_figures, seconds_figure
from unfreeze.report.sections.best_model import inside_view
from unfreeze.report.sections.grid import HEIGHT, WIDTH, grid_view, records
from unfreeze.report.sections.networks import strategy_pictures
from unfreeze.report.sections.shared_work import shared_work
from unfreeze.report.templating import asset, environment
from unfreeze.statistics.data_quality import data_found
from unfreeze.statistics.learning_curve import curves_table
from unfreeze.statistics.study_results import StudyResults, read_evidence, record_of
from unfreeze.storage.atomic import write_text
from unfreeze.storage.study_dir import StudyDir
from unfreeze.text import METRIC_NAMES, MISSING, estimate_text, metric_text


def write_report(evidence: StudyResults, path: Path | None = None) -> Path:
    """Write the report of a study, finished or not, and return its path (by default report.html in the directory).

    Raises:
        UserError: a record cannot be read, or the path cannot be written.
    """
    target = path or evidence.study.path / "report.html"
    write_text(target, render_report(evidence))
    return target


def render_report(evidence: StudyResults) -> str:
    """Return the report of a study as one HTML document, UTF-8 declared.

    Raises:
        UserError: a record cannot be read.
    """
    study = evidence.study
    found = data_found(study)
    answered = answer(evidence, found)
    results, record, plan, metric = evidence.results, evidence.record, evidence.plan, evidence.metric
    grids = grid_figures(results, evidence.history)
    names = {recipe: f"grid-{place}" for place, recipe in enumerate(grids)}
    figures = {names[recipe]: figure.to_plotly_json() for recipe, figure in grids.items()}
    for name, figure in (("curves", curves_figure(evidence.curves)), ("seconds", seconds_figure(results))):
        if figure is not None:
            figures[name] = figure.to_plotly_json()
    inside = inside_view(study, evidence.cell, results, record)
    if inside is not None:
        figures |= inside.figures
    scripts = {"plotly": get_plotlyjs(), "page": asset("report.js")}
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            name=record["name"],
            answer=answered,
            facts=facts(answered),
            nothing_yet=NOTHING_YET,
            on_test=ON_TEST if answered.on_test else "",
            about=_facts(record, results),
            notes=record.get("notes", []),
            warnings=evidence.warnings,
            classes=[str(label) for label in record.get("classes", [])],
            strategies=list(dict.fromkeys(results["strategy"])),
            regimes=list(dict.fromkeys(results["regime"])),
            recipes=grid_view(evidence, answered.recipe, names),
            spark=(WIDTH, HEIGHT),
            log_loss_axis=any(figure.layout.yaxis2.type == "log" for figure in grids.values()),
            metric_name=words.METRIC_NAMES[metric],
            metric_is_accuracy=metric == "accuracy",
            folds=bool(results["fold"].notna().any()),
            shared=bool((results["seconds_shared"] > 0).any()),
            errors={cell: (gist(error), error) for cell, error in evidence.errors.items()},
            curves=records(curves_table(evidence.curves)),
            augmentation=records(evidence.augmentation),
            images_text=lambda value: "any number" if math.isinf(value) else f"{value:,.0f}",
            found=found,
            costs=records(evidence.convergence),
            has_study_file=(study.path / "study.yaml").is_file(),
            networks=strategy_pictures(plan.get("networks", {})),
            inside=inside,
            once=shared_work(record, plan, evidence.shared),
            settings_text=_yaml(record["study"]),
            environment=record_of(study.path / "environment.json"),
            metric_text=functools.partial(words.metric_text, metric),
            estimate_text=functools.partial(words.estimate_text, metric),
            difference_text=functools.partial(words.difference_text, metric),
            figures=figures,
            css=Markup(asset("report.css") + asset("answer.css") + asset("inside.css")),  # noqa: S704 - our own files
            scripts={name: Markup(text) for name, text in scripts.items()},  # noqa: S704 - plotly's and our own file
            script_hashes=" ".join(_source_hash(text) for text in scripts.values()),
        )
    )


def _facts(record: Mapping[str, Any], results: pd.DataFrame) -> list[str]:
    """Return what the study is about, as short facts for the line under the title."""
    seeds = results["seed"].nunique()
    facts = [
        words.plural(results["strategy"].nunique(), "strategy").replace("strategys", "strategies"),
        words.plural(results["regime"].nunique(), "regime"),
        words.plural(seeds, "seed"),
        words.plural(len(record.get("classes", [])), "class").replace("classs", "classes"),
    ]
    tests = results[results["n_test"].notna()]
    if len(tests):  # folds take turns, so each has test images of its own
        count = tests.groupby(tests["fold"].fillna(-1))["n_test"].max().sum()
        facts.append(words.plural(int(count), "test image"))
    return facts


def _yaml(settings: dict[str, Any]) -> str:
    stream = io.StringIO()
    yaml = YAML(typ="safe")
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.dump(settings, stream)
    return stream.getvalue()


def _source_hash(script: str) -> str:
    """Return a script's hash as a content security policy names it (https://www.w3.org/TR/CSP3/#grammardef-hash-source)."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


@dataclass(frozen=True)
class StudyColumn:
    """One study of the page: its answer, the same in words, and the row of the table."""

    path: str
    data: str
    answer: Answer
    facts: tuple[Fact, ...]
    metric_name: str
    validation: str
    score: str


def write_side_by_side(studies: Sequence[StudyDir], path: Path) -> Path:
    """Write the page of several studies and return its path; nothing is written into their directories.

    Their numbers stand beside each other without a verdict: studies that share no seed and image cannot be paired.

    Raises:
        UserError: a directory holds no study, a record cannot be read, or the path cannot be written.
    """
    columns = [_column(read_evidence(study)) for study in studies]
    page = environment().get_template("side_by_side.html.j2").render(
        columns=columns,
        metrics=len({column.metric_name for column in columns}),
        data=len({column.data for column in columns}),
        nothing_yet=NOTHING_YET,
        on_test=ON_TEST,
        css=Markup(asset("report.css") + asset("answer.css")),  # noqa: S704 - our own files
    )  # fmt: skip
    write_text(path, page)
    return path


def _column(evidence: StudyResults) -> StudyColumn:
    made = answer(evidence)
    score = made.score
    return StudyColumn(
        path=str(evidence.study.path),
        data=str(evidence.record.get("data", "")),
        answer=made,
        facts=facts(made),
        metric_name=METRIC_NAMES[made.metric],
        validation=metric_text(made.metric, made.standing.value) if made.standing else MISSING,
        score=estimate_text(made.metric, score.value, score.low, score.high) if score else "no test images",
    )
