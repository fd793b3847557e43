"""Score each cell, each recipe, and each value of a column of the data, with 95 % intervals.

The interval of a cell's score is over images, or over groups of images where there are some. It is about this trained
network on other images like these, not about other seeds. The interval of a recipe's mean score is over seeds and
images, like those of comparisons (``unfreeze.statistics.comparisons``).
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from unfreeze.errors import UserError
from unfreeze.metrics import METRICS, per_image, score
from unfreeze.statistics.intervals import proportion_interval, score_interval
from unfreeze.statistics.predictions import Prediction, Predictions, Recipe, common_values
from unfreeze.storage.records import read_json, read_table, read_tensors
from unfreeze.storage.study_dir import StudyDir

SCORE_COLUMNS = (
    "cell", "strategy", "regime", "seed", "fold", "test", "metric", "value", "low", "high", "images", "groups", "class",
)  # fmt: skip


def scores_table(predictions: Predictions) -> pd.DataFrame:
    """Return one row per finished cell, test set and metric, with ``SCORE_COLUMNS``.

    Metrics are those of ``unfreeze.metrics`` and worst_class_recall. ``images`` is the number of images behind a score,
    ``groups`` the number of independent units among them (equal to ``images`` unless images belong together).
    ``class`` names the class of worst_class_recall, whose interval is that of this class's recall; the lowest of many
    recalls is biased downwards. ``value`` is NaN where a metric or a logit is undefined; ``low`` and ``high`` are NaN
    there, and where all images are one unit, so that no variance can be estimated.
    """
    rows: list[dict[str, Any]] = []
    for cell in predictions.cells:
        rows += _rows(cell, predictions.classes)
    table = pd.DataFrame(rows, columns=list(SCORE_COLUMNS))
    return table.astype({"seed": "Int64", "fold": "Int64", "images": "Int64", "groups": "Int64"})


def _rows(cell: Prediction, classes: tuple[str, ...]) -> Iterable[dict[str, Any]]:
    about = {
        "cell": cell.cell, "strategy": cell.strategy, "regime": cell.regime, "seed": cell.seed, "fold": cell.fold,
        "test": cell.test,
    }  # fmt: skip
    support = _support(cell)
    for name, metric in METRICS.items():
        if len(classes) < metric.least_classes:
            continue
        values = per_image(name, cell.logits, cell.labels)
        low, high = score_interval(name, values[None, :], cell.units, support)
        row = {"metric": name, "value": float(values.mean()) if len(values) else math.nan, "low": low, "high": high}
        yield {**about, **row, "images": len(values), "groups": len(np.unique(cell.units)), "class": ""}
    yield {**about, "metric": "worst_class_recall", **_worst_class(cell, classes)}


def _support(cell: Prediction) -> float:
    """Return the effective sample size of a mean over k classes: k² / sum of 1 / units of each class."""
    counts = [len(np.unique(cell.units[cell.labels == label])) for label in np.unique(cell.labels)]
    return len(counts) ** 2 / sum(1 / count for count in counts) if counts else 0.0


def _worst_class(cell: Prediction, classes: tuple[str, ...]) -> dict[str, Any]:
    right = per_image("accuracy", cell.logits, cell.labels)
    if not len(right) or not np.isfinite(right).all():
        return {"value": math.nan, "low": math.nan, "high": math.nan, "images": 0, "groups": 0, "class": ""}
    recalls = {int(label): float(right[cell.labels == label].mean()) for label in np.unique(cell.labels)}
    worst = min(recalls, key=lambda label: recalls[label])
    own = cell.labels == worst
    low, high = proportion_interval(right[own], cell.units[own])
    counts = {"images": int(own.sum()), "groups": len(np.unique(cell.units[own]))}
    return {"value": recalls[worst], "low": low, "high": high, **counts, "class": classes[worst]}


@dataclass(frozen=True)
class RecipeScore:
    """Mean score of a recipe with its interval.

    Attributes:
        value: NaN where the score is undefined.
        low, high: 95 % interval over seeds and images, at one seed over images only; NaN where there is none.
        seeds: number of seeds in the mean.
        images: number of images that all of them predict.
        groups: number of independent units among the images.
    """

    value: float
    low: float
    high: float
    seeds: int
    images: int
    groups: int


def recipe_score(predictions: Predictions, recipe: Recipe, test: str, metric: str) -> RecipeScore | None:
    """Return the mean score of a recipe's runs on a test set; None without a complete run."""
    runs = predictions.runs(recipe, test, metric)
    return _mean_score(metric, runs) if runs else None


def class_recalls(predictions: Predictions, recipe: Recipe, test: str) -> dict[str, RecipeScore]:
    """Return the mean recall over a recipe's runs of each class that has test images, by class."""
    runs = predictions.runs(recipe, test, "accuracy")
    labels: dict[str, int] = {}
    for cell in predictions.cells:
        if cell.recipe == recipe and cell.test == test:
            labels.update(zip(map(str, cell.ids), map(int, cell.labels), strict=True))
    found = {}
    for number, name in enumerate(predictions.classes):
        own = {seed: run[[labels[image] == number for image in run.index]] for seed, run in runs.items()}
        if own and all(len(run) for run in own.values()):
            found[name] = _mean_score("accuracy", own)
    return found


def _mean_score(metric: str, runs: Mapping[int, pd.DataFrame]) -> RecipeScore:
    values, units, ids = common_values(list(runs.values()))
    value = float(values.mean()) if values.size else math.nan
    low, high = score_interval(metric, values, units)
    return RecipeScore(value, low, high, len(values), len(ids), len(np.unique(units)))


COLUMN_PREFIX = "data_"
"""Prefix of the data's own columns in catalog.csv."""
BY_COLUMN_COLUMNS = (
    "cell", "strategy", "regime", "seed", "fold", "test", "value", "images", "accuracy", "balanced_accuracy", "metric",
)  # fmt: skip


def by_column(study: StudyDir, column: str) -> pd.DataFrame:
    """Return test scores for each value of a column of the data, such as each camera or site.

    There is one row per finished cell, test set and value, with ``BY_COLUMN_COLUMNS``. ``test`` names the test set;
    ``metric`` is the study's metric, NaN where it is undefined.

    Raises:
        UserError: the data has no column of this name.
    """
    catalog = read_table(study.path / "catalog.csv")
    own = [name.removeprefix(COLUMN_PREFIX) for name in catalog.columns if name.startswith(COLUMN_PREFIX)]
    if column not in own:
        raise UserError(
            f"--by {column}: the data has no such column",
            f"one of {', '.join(own)}" if own else "a column of a manifest beside path, label, split, fold and group",
            f"for example --by {own[0]}" if own else "leave --by out, or add a column to the manifest",
        )
    record = read_json(study.path / "study.json")
    numbers = {label: number for number, label in enumerate(record["classes"])}
    images = catalog.drop_duplicates("id").set_index("id")
    images = images.assign(number=images["label"].map(numbers))
    rows: list[dict[str, Any]] = []
    for cell in study.planned_cells():
        if study.is_finished(cell):
            rows += _rows_by_column(study, cell, images, f"{COLUMN_PREFIX}{column}", record["metric"])
    return pd.DataFrame(rows, columns=list(BY_COLUMN_COLUMNS)).astype({"seed": "Int64", "fold": "Int64"})


def _rows_by_column(
    study: StudyDir, cell: Mapping[str, Any], images: pd.DataFrame, column: str, metric: str
) -> Iterable[dict[str, Any]]:
    about = {name: cell.get(name) for name in ("cell", "strategy", "regime", "seed", "fold")}
    tensors, stored = read_tensors(study.cell(cell["cell"]) / "logits.safetensors")
    for test, logits in tensors.items():
        if test == "validation":
            continue
        own = images.loc[stored["ids"][test]]
        labels = own["number"].to_numpy()
        for value, places in sorted(own.reset_index().groupby(column).indices.items()):
            names = {"accuracy": "accuracy", "balanced_accuracy": "balanced_accuracy", "metric": metric}
            scores = {key: score(name, logits[places], labels[places]) for key, name in names.items()}
            yield {**about, "test": test, "value": value, "images": len(places), **scores}
