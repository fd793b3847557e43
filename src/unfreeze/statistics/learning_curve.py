"""Fit learning curves: the metric as a power law of training images per class, with intervals.

    error(n) = a + b n^-c        a >= 0, b >= 0, 0.02 <= c <= 2

where the error is 1 - metric, or the log loss itself (power laws of learning: Hestness et al., 2017, arXiv:1712.00409;
Viering and Loog, 2022, IEEE PAMI 45). For each c on a grid, a and b are a bounded linear least-squares fit, and the
best c wins (variable projection: Golub and Pereyra, 1973, SIAM J. Numer. Anal. 10), so there is no starting value and
no local minimum. Intervals come from a parametric bootstrap (Efron and Tibshirani, 1993, chapter 6): the mean of each
size is redrawn from a t distribution with the variance between seeds, and the covariance of the sizes over their common
test images; each draw is fitted. The intervals do not cover that a power law may be the wrong model, which matters more
the further one extrapolates.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unfreeze.metrics import METRICS
from unfreeze.seeds import stream_generator
from unfreeze.statistics.intervals import BORROWED, by_unit, crossed_mean
from unfreeze.statistics.predictions import Predictions, Recipe, common_values

DRAWS = 1000
EXPONENTS = np.geomspace(0.02, 2.0, 120)
LEAST_SIZES = 3

USUAL_EXPONENT, LIKELY_EXPONENTS = 0.35, (0.1, 1.0)
"""Exponent of a curve through two sizes, which do not determine it: the upper end of what Hestness et al. found, and
bounds wide enough for other data. The bootstrap draws it log-uniformly within the bounds."""

COLUMNS = (
    "strategy", "series", "test", "metric", "regimes", "sizes", "values", "a", "b", "c", "seeds", "basis", "largest",
    "at_largest", "at_largest_low", "at_largest_high", "doubled", "at_doubled", "at_doubled_low", "at_doubled_high",
    "gain", "gain_low", "gain_high",
)  # fmt: skip

_AMOUNT = ("train_per_class", "train_fraction", "val_per_class", "strict", "sweep")

CurveEstimate = tuple[float, float, float]
"""A value with the bounds of its 95 % interval."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """A fitted learning curve of one strategy.

    Attributes:
        strategy: name of the strategy.
        series: settings that the regimes share: augmentation, and whatever is not the default.
        test: name of the test set.
        metric: name of the metric.
        regimes: names of the regimes, smallest first.
        sizes: (k,) mean training images per class.
        values: (k,) mean metric over seeds.
        seeds: smallest number of seeds of a size; at one, intervals cover the choice of images only.
        fit: (3,) a, b, c of the error.
        draws: (draws, 3) the same of each bootstrap draw.
    """

    strategy: str
    series: str
    test: str
    metric: str
    regimes: tuple[str, ...]
    sizes: Array
    values: Array
    seeds: int
    fit: Array
    draws: Array

    def at(self, size: float) -> CurveEstimate:
        """Return the metric predicted at ``size`` training images per class."""
        return _estimate(float(self._value(self.fit, size)), self._value(self.draws, size))

    def gain(self, size: float, other: float) -> CurveEstimate:
        """Return the predicted change of the metric from ``size`` to ``other`` images per class."""
        changes = self._value(self.draws, other) - self._value(self.draws, size)
        return _estimate(float(self._value(self.fit, other) - self._value(self.fit, size)), changes)

    def doubling(self) -> CurveEstimate:
        """Return the predicted change of the metric from the largest size to twice that."""
        largest = float(self.sizes[-1])
        return self.gain(largest, 2 * largest)

    def size_for(self, change: float, size: float, changes: Array | None = None) -> CurveEstimate:
        """Return the images per class at which the metric differs by ``change`` from that at ``size``; inf if nowhere.

        Args:
            change: in units of the metric.
            size: images per class.
            changes: (draws,) draws of the change, where it is itself an estimate.
        """
        sign = -METRICS[self.metric].sign
        point = _inverse(self.fit, _error(self.fit, size) + sign * change)
        drawn = np.full(len(self.draws), change) if changes is None else changes
        return _estimate(float(point), _inverse(self.draws, _error(self.draws, size) + sign * drawn))

    def _value(self, parameters: Array, size: float) -> Array:
        error = _error(parameters, size)
        kind = METRICS[self.metric]
        return kind.best - kind.sign * error


def fit_power_law(sizes: Array, errors: Array) -> Array:
    """Fit a power law to errors (..., k) at sizes (k,) by least squares; return (..., 3) a, b, c."""
    errors = np.asarray(errors, dtype=np.float64)
    powers = np.asarray(sizes, dtype=np.float64)[None, :] ** -EXPONENTS[:, None]  # exponents, k
    count = powers.shape[1]
    middle = powers.mean(1)
    spread = ((powers - middle[:, None]) ** 2).sum(1)
    level = errors.mean(-1)[..., None]
    slope = (errors @ (powers - middle[:, None]).T) / spread
    start = level - slope * middle
    through_zero = (errors @ powers.T) / (powers**2).sum(1)
    slope, start = np.where(start < 0, through_zero, slope), np.maximum(start, 0)
    slope, start = np.maximum(slope, 0), np.where(slope < 0, np.maximum(level, 0), start)
    squares = ((errors[..., None, :] - start[..., None] - slope[..., None] * powers) ** 2).sum(-1) / count
    best = squares.argmin(-1)
    chosen = [np.take_along_axis(part, best[..., None], -1)[..., 0] for part in (start, slope)]
    return np.stack([*chosen, EXPONENTS[best]], axis=-1)


def through_two(sizes: Array, errors: Array, exponents: Array) -> Array:
    """Return (..., 3) a, b, c of power laws with given exponents (...) through errors (..., 2) at two sizes.

    Where a would be negative, it is 0, and b fits the error at the larger size. Where the error grows with the size, b
    is 0, and a is the error at the larger size.
    """
    small, large = (float(size) ** -exponents for size in sizes)
    slope = np.maximum((errors[..., 0] - errors[..., 1]) / (small - large), 0)
    start = errors[..., 1] - slope * large
    slope = np.where(start < 0, np.maximum(errors[..., 1], 0) / large, slope)
    return np.stack([np.maximum(start, 0), slope, np.broadcast_to(exponents, slope.shape)], axis=-1)


def learning_curves(
    predictions: Predictions,
    results: pd.DataFrame,
    regimes: Mapping[str, Mapping[str, Any]],
    test: str = "test",
    up_to: float = math.inf,
    least: int = LEAST_SIZES,
) -> list[Curve]:
    """Fit the curve of each strategy and series of regimes with enough sizes.

    Args:
        predictions: of the study.
        results: the table of ``results_table``, for the number of training images.
        regimes: the resolved regimes by name.
        test: name of the test set.
        up_to: ignore larger sizes, in images per class, to test a curve against sizes that it has not seen.
        least: smallest number of sizes to fit.
    """
    done = results[results["status"] == "finished"]
    sizes = done.groupby(["strategy", "regime"])["n_train"].mean() / len(predictions.classes)
    found = []
    for strategy in dict.fromkeys(recipe.strategy for recipe in predictions.recipes):
        series: dict[str, dict[float, str]] = {}
        for regime, settings in regimes.items():
            size = float(sizes.get((strategy, regime), math.nan))
            if size <= up_to and predictions.runs(Recipe(strategy, regime), test, predictions.metric):
                series.setdefault(series_of(settings), {}).setdefault(size, regime)
        for name, members in series.items():
            curve = _curve(predictions, strategy, name, members, test, least)
            if curve is not None:
                found.append(curve)
    return found


def series_of(settings: Mapping[str, Any]) -> str:
    """Name a regime's settings other than its amount of data: ``plain``, or augmentation and what else is set."""
    words = [] if settings.get("augment", "none") == "none" else [str(settings["augment"])]
    for key, value in sorted(settings.items()):
        usual = {"augment": value, "views": "fresh", "balance": "none", "examples_per_epoch": None}.get(key, value)
        if key == "validation":
            usual = {"augment": "none", "examples": None}
        if key not in _AMOUNT and value != usual:
            words.append(f"{key} {value}")
    return ", ".join(words) or "plain"


def curves_table(curves: Sequence[Curve]) -> pd.DataFrame:
    """Return one row per curve, with ``COLUMNS``: its fit, and the prediction for twice the largest size.

    ``sizes`` (images per class), ``values`` and ``regimes`` are lists as text, smallest first; ``gain`` is the change
    in units of the metric: for log loss, below 0 is better.
    """
    rows = []
    for curve in curves:
        largest = float(curve.sizes[-1])
        row: dict[str, Any] = {name: getattr(curve, name) for name in ("strategy", "series", "test", "metric")}
        row |= {"regimes": ", ".join(curve.regimes), "sizes": _listed(curve.sizes), "values": _listed(curve.values)}
        row |= dict(zip("abc", map(float, curve.fit), strict=True))
        row |= {"seeds": curve.seeds, "basis": "seeds and images" if curve.seeds > 1 else "images only"}
        row |= {"largest": largest, "doubled": 2 * largest}
        estimates = {"at_largest": curve.at(largest), "at_doubled": curve.at(2 * largest), "gain": curve.doubling()}
        for name, (value, low, high) in estimates.items():
            row |= {name: value, f"{name}_low": low, f"{name}_high": high}
        rows.append(row)
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _curve(
    predictions: Predictions, strategy: str, series: str, members: Mapping[float, str], test: str, least: int
) -> Curve | None:
    metric = predictions.metric
    known: dict[float, tuple[str, list[pd.DataFrame]]] = {}
    for size in sorted(members):
        runs = predictions.runs(Recipe(strategy, members[size]), test, metric).values()
        good = [run for run in runs if len(run) and np.isfinite(run["value"]).all()]
        if good:
            known[size] = members[size], good
    if len(known) < least:
        return None
    sizes = np.array(list(known))
    values_of_runs, units, _ = common_values([table for _, runs in known.values() for table in runs])
    ends = np.cumsum([len(runs) for _, runs in known.values()])
    by_size = [by_unit(part, units) for part in np.split(values_of_runs, ends[:-1])]
    if by_size[0].shape[1] < 2:
        return None
    values = np.array([table.mean() for table in by_size])
    kind = METRICS[metric]
    errors = kind.sign * (kind.best - values)
    generator = stream_generator(0, "bootstrap", strategy, series, test)
    noise = -kind.sign * _noise(by_size, generator)
    if len(sizes) > 2:
        fit, draws = fit_power_law(sizes, errors), fit_power_law(sizes, errors + noise)
    else:
        fit = through_two(sizes, errors, np.array(USUAL_EXPONENT))
        exponents = np.exp(generator.uniform(math.log(LIKELY_EXPONENTS[0]), math.log(LIKELY_EXPONENTS[1]), DRAWS))
        draws = through_two(sizes, errors + noise, exponents)
    return Curve(
        strategy=strategy,
        series=series,
        test=test,
        metric=metric,
        regimes=tuple(name for name, _ in known.values()),
        sizes=sizes,
        values=values,
        seeds=min(len(table) for table in by_size),
        fit=fit,
        draws=draws,
    )


def _noise(by_size: Sequence[Array], generator: np.random.Generator) -> Array:
    """Draw (draws, k) errors of the means of k sizes, each with values (seeds, units)."""
    images = by_size[0].shape[1]
    covariance = np.atleast_2d(np.cov(np.array([table.mean(0) for table in by_size]))) / images
    free = [len(table) - 1 for table in by_size]
    if sum(free):
        variances = np.array(
            [float(crossed_mean(table).from_seeds) * len(table) if len(table) > 1 else 0.0 for table in by_size]
        )
        pooled = float(np.average(variances, weights=free))
        own = np.array([(BORROWED * pooled + df * s) / (BORROWED + df) for df, s in zip(free, variances, strict=True)])
        covariance = covariance + np.diag(own / np.array([len(table) for table in by_size]))
    df = float(sum(free) or images - 1)
    drawn = generator.multivariate_normal(np.zeros(len(by_size)), covariance, DRAWS, method="eigh")
    return drawn * np.sqrt(df / generator.chisquare(df, DRAWS))[:, None]


def _error(parameters: Array, size: float) -> Array:
    return parameters[..., 0] + parameters[..., 1] * size ** -parameters[..., 2]


def _inverse(parameters: Array, errors: Array) -> Array:
    """Return the size at which a power law has these errors: inf where they are never reached."""
    above = np.asarray(errors - parameters[..., 0])
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        sizes = (parameters[..., 1] / above) ** (1 / parameters[..., 2])
    return np.where(above > 0, sizes, math.inf)


def _estimate(value: float, draws: Array) -> CurveEstimate:
    low, high = np.quantile(draws, [0.025, 0.975], method="nearest")
    return value, float(low), float(high)


def _listed(numbers: Array) -> str:
    return ", ".join(f"{number:.4g}" for number in numbers)
