"""Scores of a strategy with a regime: means over seeds, with 95 % intervals over seeds and images."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unfreeze.results.crossed import crossed, half_width, units_of
from unfreeze.results.predictions import Field, Predictions
from unfreeze.results.scores import PROPORTIONS, SHARES, log_interval, logit_interval, wilson, wilson_of


@dataclass(frozen=True)
class Estimate:
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


def field_score(predictions: Predictions, field: Field, test: str, metric: str) -> Estimate | None:
    """Return the mean of a field's runs on a test set; None where no run is whole.

    The interval is that of a mean of numbers crossed by seed and image (``unfreeze.results.crossed``), carried over to
    log odds for shares and to the logarithm for losses so that it keeps within bounds (delta method). One seed's
    proportion, and a share that is 0 or 1, have Wilson's.
    """
    runs = predictions.runs(field, test, metric)
    return _estimate(metric, runs) if runs else None


def class_recalls(predictions: Predictions, field: Field, test: str) -> dict[str, Estimate]:
    """Return the recall of each class that has test images, mean over the field's runs, by class."""
    runs = predictions.runs(field, test, "accuracy")
    labels: dict[str, int] = {}
    for one in predictions.cells:
        if (one.strategy, one.regime) == field and one.test == test:
            labels.update(zip(map(str, one.ids), map(int, one.labels), strict=True))
    found = {}
    for number, name in enumerate(predictions.classes):
        own = {seed: run[[labels[image] == number for image in run.index]] for seed, run in runs.items()}
        if own and all(len(run) for run in own.values()):
            found[name] = _estimate("accuracy", own)
    return found


def _estimate(metric: str, runs: Mapping[int, pd.DataFrame]) -> Estimate:
    tables = list(runs.values())
    common = tables[0].index
    for table in tables[1:]:
        common = common[common.isin(table.index)]
    values = np.array([table.loc[common, "value"].to_numpy(np.float64) for table in tables])
    units = tables[0].loc[common, "unit"].to_numpy(np.str_)
    value = float(values.mean()) if values.size else math.nan
    low, high = _interval(metric, value, values, units) if math.isfinite(value) else (math.nan, math.nan)
    return Estimate(value, low, high, len(tables), len(common), len(np.unique(units)))


def _interval(metric: str, value: float, values: NDArray[np.float64], units: NDArray[np.str_]) -> tuple[float, float]:
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
