"""Scores of each cell on each test set, each with a 95 % interval over images, or groups where there are some.

These intervals answer for this one trained network and other images like these. What another seed would have given is
no part of them: comparisons have that (``unfreeze.statistics.comparisons``).
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from unfreeze import metrics
from unfreeze.errors import UserError
from unfreeze.metrics import Values, per_image
from unfreeze.statistics.intervals import LEVEL, crossed, half_width, units_of
from unfreeze.statistics.predictions import Prediction, Predictions, Recipe
from unfreeze.storage.records import read_json, read_table, read_tensors
from unfreeze.storage.study_dir import StudyDir

COLUMNS = (
    "cell", "strategy", "regime", "seed", "fold", "test", "metric", "value", "low", "high", "images", "groups", "class",
)  # fmt: skip


PROPORTIONS = ("accuracy", "top5")


SHARES = ("balanced_accuracy", "macro_f1", "auroc", "ece")


LOSSES = ("log_loss", "brier")


TOP_FROM = 11
"""Top 5 of fewer classes says little."""


Interval = tuple[float, float]


def scores_table(predictions: Predictions) -> pd.DataFrame:
    """Return a row a finished cell, test set and metric, with ``COLUMNS``.

    Metrics: accuracy, balanced_accuracy, macro_f1, auroc, log_loss, brier, ece, worst_class_recall, and top5 from 11
    classes on; ``unfreeze.metrics`` says what they are. ``images`` are those that the score rests on,
    ``groups`` the independent units among them (as many as images where each stands alone). ``class`` names the class
    of worst_class_recall, whose interval is that class's own: the lowest of many recalls is too low by some luck.
    ``value`` is NaN where a metric is not defined or a logit is no number; ``low`` and ``high`` are NaN there and,
    but for proportions, where all images are one unit.
    """
    rows: list[dict[str, Any]] = []
    for one in predictions.cells:
        rows += _rows(one, predictions.classes)
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    return table.astype({"seed": "Int64", "fold": "Int64", "images": "Int64", "groups": "Int64"})


def wilson(values: Values, units: NDArray[np.str_]) -> Interval:
    """Return Wilson's interval (1927, JASA 22) of the share of ones among 0/1 numbers (n,).

    Where images come in groups, n is the effective sample size: n over the design effect, which is the variance of the
    share by groups over that of n independent images, and never below 1 (Korn and Graubard, 1998, Survey Methodology
    24, whose t quantile takes the place of the normal one). A share of 0 or 1 has no variance to show what groups do:
    each then counts as one image.
    """
    share, images, groups = float(values.mean()), len(values), len(np.unique(units))
    size, quantile = float(images), float(stats.norm.ppf(1 - LEVEL / 2))
    if groups < images:
        if groups == 1 or share in (0.0, 1.0):
            size = float(groups)
        else:
            variance = float(np.var(units_of(values, units), ddof=1)) / groups
            size = min(size, share * (1 - share) / variance) if variance > 0 else size
        if groups > 1:
            quantile = float(stats.t.ppf(1 - LEVEL / 2, groups - 1))
    return _wilson(share, size, quantile)


def wilson_of(share: float, size: float) -> Interval:
    """Return Wilson's interval of a share of ``size`` independent units."""
    return _wilson(share, size, float(stats.norm.ppf(1 - LEVEL / 2)))


def _wilson(share: float, size: float, quantile: float) -> Interval:
    square = quantile**2 / size
    middle = (share + square / 2) / (1 + square)
    half = quantile / (1 + square) * math.sqrt(share * (1 - share) / size + square / (4 * size))
    low = 0.0 if share == 0 else middle - half
    high = 1.0 if share == 1 else middle + half
    return max(0.0, low), min(1.0, high)


def _rows(one: Prediction, classes: tuple[str, ...]) -> Iterable[dict[str, Any]]:
    about = {
        "cell": one.cell, "strategy": one.strategy, "regime": one.regime, "seed": one.seed, "fold": one.fold,
        "test": one.test,
    }  # fmt: skip
    names = [*PROPORTIONS, *SHARES, *LOSSES]
    for metric in names:
        if metric == "top5" and len(classes) < TOP_FROM:
            continue
        values = per_image(metric, one.logits, one.labels)
        low, high = _interval(metric, values, one)
        yield {
            **about,
            "metric": metric,
            "value": _mean(values),
            "low": low,
            "high": high,
            "images": len(values),
            "groups": len(np.unique(one.units)),
            "class": "",
        }
    yield {**about, "metric": "worst_class_recall", **_worst(one, classes)}


def _mean(values: Values) -> float:
    return float(values.mean()) if len(values) else math.nan


def _interval(metric: str, values: Values, one: Prediction) -> Interval:
    mean = _mean(values)
    if not math.isfinite(mean):
        return math.nan, math.nan
    if metric in PROPORTIONS:
        return wilson(values, one.units)
    units = units_of(values, one.units)
    if len(units) == 1:
        return math.nan, math.nan
    if metric in SHARES and metric != "ece" and (mean >= 1 or mean <= 0):  # a bound: no variance to go by
        return wilson_of(min(1.0, max(0.0, mean)), _support(one))
    half = float(half_width(crossed(units[None, :]), 1 / len(units) if metric in SHARES else 0.0))
    return logit_interval(mean, half) if metric in SHARES else log_interval(mean, half)


def logit_interval(share: float, half: float) -> Interval:
    """Carry mean +- half over to the scale of log odds and back, so that it stays within 0 and 1 (delta method)."""
    if not 0 < share < 1:
        return max(0.0, share - half), min(1.0, share + half)
    middle, width = math.log(share / (1 - share)), half / (share * (1 - share))
    return _logistic(middle - width), _logistic(middle + width)


def _logistic(value: float) -> float:
    return float(0.5 * (1 + math.tanh(value / 2)))


def log_interval(loss: float, half: float) -> Interval:
    """Carry mean +- half over to the logarithm and back, so that it stays above 0 (delta method)."""
    if loss <= 0:
        return 0.0, half
    return loss * math.exp(-half / loss), loss * math.exp(min(half / loss, 700.0))


def _support(one: Prediction) -> float:
    """Return how many units a mean over classes rests on: k² / sum of 1 / units of each of k classes."""
    counts = [len(np.unique(one.units[one.labels == label])) for label in np.unique(one.labels)]
    return len(counts) ** 2 / sum(1 / count for count in counts)


def _worst(one: Prediction, classes: tuple[str, ...]) -> dict[str, Any]:
    right = per_image("accuracy", one.logits, one.labels)
    nothing = {"value": math.nan, "low": math.nan, "high": math.nan, "images": 0, "groups": 0, "class": ""}
    if not len(right) or not np.isfinite(right).all():
        return nothing
    recalls = {int(label): float(right[one.labels == label].mean()) for label in np.unique(one.labels)}
    worst = min(recalls, key=lambda label: recalls[label])
    own = one.labels == worst
    low, high = wilson(right[own], one.units[own])
    return {
        "value": recalls[worst],
        "low": low,
        "high": high,
        "images": int(own.sum()),
        "groups": len(np.unique(one.units[own])),
        "class": classes[worst],
    }


@dataclass(frozen=True)
class RecipeScore:
    """A mean score with its interval.

    Attributes:
        value: NaN where the score is not defined.
        low, high: of the 95 % interval over seeds and images (at one seed over images alone); NaN where there is none.
        seeds: that it rests on.
        images: test images that all of them predict.
        groups: independent units among the images.
    """

    value: float
    low: float
    high: float
    seeds: int
    images: int
    groups: int


def recipe_score(predictions: Predictions, recipe: Recipe, test: str, metric: str) -> RecipeScore | None:
    """Return the mean of a recipe's runs on a test set; None where no run is whole.

    The interval is that of a mean of numbers crossed by seed and image (``statistics.intervals``), carried over to
    log odds for shares and to the logarithm for losses so that it keeps within bounds (delta method). One seed's
    proportion, and a share that is 0 or 1, have Wilson's.
    """
    runs = predictions.runs(recipe, test, metric)
    return _estimate(metric, runs) if runs else None


def class_recalls(predictions: Predictions, recipe: Recipe, test: str) -> dict[str, RecipeScore]:
    """Return the recall of each class that has test images, mean over the recipe's runs, by class."""
    runs = predictions.runs(recipe, test, "accuracy")
    labels: dict[str, int] = {}
    for one in predictions.cells:
        if one.recipe == recipe and one.test == test:
            labels.update(zip(map(str, one.ids), map(int, one.labels), strict=True))
    found = {}
    for number, name in enumerate(predictions.classes):
        own = {seed: run[[labels[image] == number for image in run.index]] for seed, run in runs.items()}
        if own and all(len(run) for run in own.values()):
            found[name] = _estimate("accuracy", own)
    return found


def _estimate(metric: str, runs: Mapping[int, pd.DataFrame]) -> RecipeScore:
    tables = list(runs.values())
    common = tables[0].index
    for table in tables[1:]:
        common = common[common.isin(table.index)]
    values = np.array([table.loc[common, "value"].to_numpy(np.float64) for table in tables])
    units = tables[0].loc[common, "unit"].to_numpy(np.str_)
    value = float(values.mean()) if values.size else math.nan
    low, high = _recipe_interval(metric, value, values, units) if math.isfinite(value) else (math.nan, math.nan)
    return RecipeScore(value, low, high, len(tables), len(common), len(np.unique(units)))


def _recipe_interval(
    metric: str, value: float, values: NDArray[np.float64], units: NDArray[np.str_]
) -> tuple[float, float]:
    if metric in PROPORTIONS and len(values) == 1:
        return wilson(values[0], units)
    groups = len(np.unique(units))
    share = metric in PROPORTIONS or metric in SHARES
    if share and not 0 < value < 1:  # a bound: no variance to go by
        return wilson_of(min(1.0, max(0.0, value)), groups)
    if groups == 1:
        return math.nan, math.nan
    half = float(half_width(crossed(units_of(values, units)), 1 / groups if share else 0.0))
    return logit_interval(value, half) if share else log_interval(value, half)


PREFIX = "data_"
"""Begins the names of the data's own columns in catalog.csv."""


BY_COLUMN_COLUMNS = (
    "cell", "strategy", "regime", "seed", "fold", "test", "value", "images", "accuracy", "balanced_accuracy", "metric",
)  # fmt: skip


def by_column(study: StudyDir, column: str) -> pd.DataFrame:
    """Return a row a finished cell, test set and value of the column.

    Columns: ``COLUMNS``; ``test`` names the test set, ``metric`` is the study's metric, NaN where it is not defined.

    Raises:
        UserError: the data has no such column, or nothing has finished.
    """
    catalog = read_table(study.path / "catalog.csv")
    own = [name.removeprefix(PREFIX) for name in catalog.columns if name.startswith(PREFIX)]
    if column not in own:
        raise UserError(
            f"--by {column}: the data has no such column",
            f"one of {', '.join(own)}" if own else "a column of a manifest beside path, label, split, fold and group",
            f"for example --by {own[0]}" if own else "leave --by out, or add a column to the manifest",
        )
    record = read_json(study.path / "study.json")
    numbers = {label: number for number, label in enumerate(record["classes"])}
    about = catalog.drop_duplicates("id").set_index("id")
    rows: list[dict[str, Any]] = []
    for cell in study.planned_cells():
        if study.is_finished(cell):
            rows += _rows_by_column(study, cell, about, f"{PREFIX}{column}", numbers, record["metric"])
    return pd.DataFrame(rows, columns=list(BY_COLUMN_COLUMNS)).astype({"seed": "Int64", "fold": "Int64"})


def _rows_by_column(
    study: StudyDir, cell: dict[str, Any], about: pd.DataFrame, column: str, numbers: dict[str, int], metric: str
) -> list[dict[str, Any]]:
    scores, told = read_tensors(study.cell(cell["cell"]) / "logits.safetensors")
    rows = []
    for test, logits in scores.items():
        if test == "validation":
            continue
        images = about.loc[told["ids"][test]]
        labels = images["label"].map(numbers).to_numpy()
        for value, places in sorted(images.reset_index().groupby(column).indices.items()):
            chosen, right = logits[places], labels[places]
            rows.append(
                {
                    **{name: cell.get(name) for name in ("cell", "strategy", "regime", "seed", "fold")},
                    "test": test,
                    "value": value,
                    "images": len(places),
                    "accuracy": metrics.score("accuracy", chosen, right),
                    "balanced_accuracy": metrics.score("balanced_accuracy", chosen, right),
                    "metric": metrics.score(metric, chosen, right),
                }
            )
    return rows
