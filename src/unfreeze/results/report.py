"""The report: one HTML file that opens offline.

Names of files, classes and strategies are text wherever they appear: the template escapes them, figures travel as
JSON data, and the page's content security policy admits no script but its own two and no request at all.
"""

import base64
import functools
import hashlib
import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup
from plotly.offline import get_plotlyjs
from ruamel.yaml import YAML

from unfreeze.durable import write_text
from unfreeze.results import words
from unfreeze.results.answer import answer, gist
from unfreeze.results.answer_text import NOTHING_YET, ON_TEST, facts
from unfreeze.results.data_found import data_found
from unfreeze.results.data_pictures import curves_figure
from unfreeze.results.evidence import Evidence, record_of
from unfreeze.results.grid_view import HEIGHT, WIDTH, grid_view, records
from unfreeze.results.inside_view import inside_view
from unfreeze.results.learning_curve import curves_table
from unfreeze.results.networks import strategy_pictures
from unfreeze.results.pictures import grid_figures, seconds_figure
from unfreeze.results.shared_work import shared_work
from unfreeze.results.templating import asset, environment


def write_report(evidence: Evidence, path: Path | None = None) -> Path:
    """Write the report of a study, finished or not, and return its path (by default report.html in the directory).

    Raises:
        UserError: a record cannot be read, or the path cannot be written.
    """
    target = path or evidence.study.path / "report.html"
    write_text(target, render_report(evidence))
    return target


def render_report(evidence: Evidence) -> str:
    """Return the report of a study as one HTML document, UTF-8 declared.

    Raises:
        UserError: a record cannot be read.
    """
    study = evidence.study
    found = data_found(study)
    answered = answer(evidence, found)
    results, record, plan, metric = evidence.results, evidence.record, evidence.plan, evidence.metric
    grids = grid_figures(results, evidence.history)
    names = {field: f"grid-{place}" for place, field in enumerate(grids)}
    figures = {names[field]: figure.to_plotly_json() for field, figure in grids.items()}
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
            fields=grid_view(evidence, answered.recipe, names),
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
