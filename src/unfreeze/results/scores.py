"""Scores of each cell on each test set, each with a 95 % interval over images, or groups where there are some.

These intervals answer for this one trained network and other images like these. What another seed would have given is
no part of them: comparisons have that (``unfreeze.results.comparisons``).
"""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from unfreeze.results.crossed import LEVEL, crossed, half_width, units_of
from unfreeze.results.influence import Values, per_image
from unfreeze.results.predictions import Prediction, Predictions

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
    classes on; ``unfreeze.results.influence`` says what they are. ``images`` are those that the score rests on,
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
