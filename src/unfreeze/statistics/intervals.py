"""Confidence intervals for means over seeds and images, and verdicts on differences.

Every seed predicts the same test images, and both are random samples: other seeds and other images would have given
another mean. Let ``D[s, i]`` be the value (such as a difference of two recipes) of seed s and image i. With all effects
random,

    D[s, i] = mean + seed[s] + image[i] + rest[s, i]

    variance of the mean = seed / S + image / I + rest / (S I) = (MS_seed + MS_image - MS_rest) / (S I)

with the mean squares of the analysis of variance with two crossed factors (Cornfield and Tukey, 1956, Annals of
Mathematical Statistics 27; Brennan, 2001, Generalizability Theory). An interval over images alone ignores the first
term and covers the true mean only half of the time at three seeds; a bootstrap over seeds and images underestimates the
variance between seeds when there are few.

**One interval.** A t interval with the degrees of freedom of Satterthwaite (1946, Biometrics Bulletin 2). No variance
component is negative: MS_seed and MS_image count as at least MS_rest.

**Simultaneous intervals.** A study makes many comparisons. By Bonferroni's correction each is made at level 0.05
divided by their number. At such levels Satterthwaite's degrees of freedom are too many when few seeds happen to agree,
so each variance keeps its own quantile: the half-width is the square root of the sum of (t² x variance) over seeds and
images, which covers at least at its level (Banerjee, 1960, Sankhya 22). With S - 1 degrees of freedom that is far too
wide at three seeds. So the variance between seeds is pooled with that of the study's other comparisons, with a weight
of at most four degrees of freedom and only where that makes it larger, as in the moderated t statistics of Smyth (2004,
Statistical Applications in Genetics 3), but with a fixed weight. docs/statistics.md reports simulated coverage.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from unfreeze.metrics import METRICS, Metric

LEVEL = 0.05
"""One minus the confidence level: all intervals are 95 % intervals."""

BORROWED = 4
"""Most degrees of freedom that the variance between seeds borrows from a study's other comparisons."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class CrossedMean:
    """Two-way analysis of variance of one or more tables of seeds x units.

    All arrays have one shape, () for a single table.

    Attributes:
        mean: mean over seeds and units.
        ms_seed: mean square between seeds, S - 1 degrees of freedom; NaN at one seed.
        ms_image: mean square between units, I - 1 degrees of freedom; NaN at one unit.
        ms_rest: residual mean square, (S - 1)(I - 1) degrees of freedom; NaN at one seed or one unit.
        seeds: S.
        images: I, the number of units.
    """

    mean: Array
    ms_seed: Array
    ms_image: Array
    ms_rest: Array
    seeds: int
    images: int

    @property
    def rest(self) -> Array:
        """Residual variance (seed x unit), at least 0."""
        return np.maximum(self.ms_rest, 0)

    @property
    def seed(self) -> Array:
        """Variance between seeds, at least 0."""
        return np.maximum(self.ms_seed - self.rest, 0) / self.images

    @property
    def image(self) -> Array:
        """Variance between units, at least 0."""
        return np.maximum(self.ms_image - self.rest, 0) / self.seeds

    @property
    def from_seeds(self) -> Array:
        """Variance of the mean due to seeds: seed / S + rest / (S I)."""
        return np.maximum(self.ms_seed, self.rest) / (self.seeds * self.images)

    @property
    def from_images(self) -> Array:
        """Variance of the mean due to units: image / I."""
        return self.image / self.images


def crossed_mean(values: Array) -> CrossedMean:
    """Return the analysis of variance of values (..., seeds, units)."""
    values = np.asarray(values, dtype=np.float64)
    seeds, images = values.shape[-2:]
    by_seed, by_image = values.mean(-1), values.mean(-2)
    mean = by_seed.mean(-1)
    around_seeds = images * ((by_seed - mean[..., None]) ** 2).sum(-1)
    around_images = seeds * ((by_image - mean[..., None]) ** 2).sum(-1)
    total = ((values - mean[..., None, None]) ** 2).sum((-1, -2))
    rest = np.maximum(total - around_seeds - around_images, 0)  # negative only by rounding
    return CrossedMean(
        mean=mean,
        ms_seed=_mean_square(around_seeds, seeds - 1),
        ms_image=_mean_square(around_images, images - 1),
        ms_rest=_mean_square(rest, (seeds - 1) * (images - 1)),
        seeds=seeds,
        images=images,
    )


def by_unit(values: Array, units: Sequence[Any] | NDArray[Any]) -> Array:
    """Aggregate values (..., seeds, images) to (..., seeds, units) with the same mean.

    A unit with more images weighs more. Entries are those of the ratio estimator, to first order (Cochran, 1977,
    Sampling Techniques, section 6.4): mean + U / I x the sum over the unit's images of (value - mean).
    """
    values = np.asarray(values, dtype=np.float64)
    names, codes = np.unique(np.asarray(units), return_inverse=True)
    if len(names) == values.shape[-1]:
        return values
    mean = values.mean(-1, keepdims=True)
    order = np.argsort(codes, kind="stable")
    starts = np.searchsorted(codes[order], np.arange(len(names)))
    summed = np.add.reduceat((values - mean)[..., order], starts, axis=-1)
    return mean + len(names) / values.shape[-1] * summed


def degrees_of_freedom(found: CrossedMean) -> Array:
    """Return Satterthwaite's degrees of freedom for the variance of the mean, at least S - 1 and at least 1."""
    if found.seeds == 1:
        return np.full(found.mean.shape, found.images - 1.0)
    seed, image = np.maximum(found.ms_seed, found.rest), np.maximum(found.ms_image, found.rest)
    spread = (
        seed**2 / (found.seeds - 1)
        + image**2 / (found.images - 1)
        + found.rest**2 / ((found.seeds - 1) * (found.images - 1))
    )
    least = float(max(1, found.seeds - 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        df = (seed + image - found.rest) ** 2 / spread
    return np.where(spread > 0, np.maximum(df, least), found.images - 1.0)


def variance_of_mean(found: CrossedMean) -> Array:
    """Return the variance of the mean due to seeds and units; at one seed due to units alone; NaN at one unit."""
    if found.seeds == 1:
        return found.ms_image / found.images
    return found.from_seeds + found.from_images


def half_width(found: CrossedMean, floor: float = 0.0, level: float = LEVEL) -> Array:
    """Return the half-width of a single interval; NaN at one unit, where no variance can be estimated.

    At one seed the interval covers the choice of images only.

    Args:
        found: the analysis of variance.
        floor: lower bound of the standard error.
        level: one minus the confidence level.
    """
    if found.images == 1:
        return np.full(found.mean.shape, math.nan)
    return stats.t.ppf(1 - level / 2, degrees_of_freedom(found)) * np.sqrt(
        np.maximum(variance_of_mean(found), floor**2)
    )


@dataclass(frozen=True)
class SimultaneousInterval:
    """One of several intervals that hold simultaneously.

    Attributes:
        half: half-width, of the shape of the analysis of variance.
        found: the analysis of variance.
        seed_variance: variance of one seed's mean, after pooling with the other comparisons.
        borrowed: degrees of freedom that pooling added.
        level: one minus the confidence level of this interval.
        floor: lower bound of the standard error, times the number of units.
    """

    half: Array
    found: CrossedMean
    seed_variance: Array
    borrowed: int
    level: float
    floor: float

    def half_width_at(self, seeds: int, images: int) -> Array:
        """Return the half-width to expect with other numbers of seeds and units, if the variances are as estimated."""
        rest = self.found.rest
        seed = (np.maximum(self.seed_variance - rest / self.found.images, 0) + rest / images) / seeds
        image = np.maximum(self.found.image / images, (self.floor / images) ** 2 - seed)
        free = seeds - 1 + self.borrowed
        return np.sqrt(_quantile(self.level, free) ** 2 * seed + _quantile(self.level, images - 1) ** 2 * image)


def simultaneous_intervals(
    family: Sequence[CrossedMean], recipes: int, floor: float = 0.0, level: float = LEVEL
) -> list[SimultaneousInterval | None]:
    """Return intervals that hold simultaneously, each at least as wide as the single one; None at one seed or unit.

    Args:
        family: the comparisons on one test set.
        recipes: number of recipes that they compare, which limits the degrees of freedom to borrow.
        floor: lower bound of the standard errors, times the number of units.
        level: one minus the joint confidence level; divide it among several families.
    """
    usable = [comparison for comparison in family if comparison.seeds > 1 and comparison.images > 1]
    seed_variances = [(comparison.seeds - 1, comparison.from_seeds * comparison.seeds) for comparison in usable]
    weight = sum(free for free, _ in seed_variances)
    total = sum((free * variance for free, variance in seed_variances), np.zeros(()))
    found: list[SimultaneousInterval | None] = []
    for comparison in family:
        if comparison.seeds == 1 or comparison.images == 1:
            found.append(None)
            continue
        own, free = comparison.from_seeds * comparison.seeds, comparison.seeds - 1
        borrowed = min(BORROWED, max(0, recipes - 2) * free) if weight > free else 0
        others = (total - free * own) / (weight - free) if borrowed else own
        pooled = np.maximum(own, (borrowed * others + free * own) / (borrowed + free))
        part = SimultaneousInterval(
            np.full(comparison.mean.shape, math.nan), comparison, pooled, borrowed, level / len(usable), floor
        )
        single = half_width(comparison, floor / comparison.images, level)
        half = np.maximum(part.half_width_at(comparison.seeds, comparison.images), single)
        found.append(replace(part, half=half))
    return found


def _quantile(level: float, free: int) -> float:
    return float(stats.t.ppf(1 - level / 2, free))


def _mean_square(sum_of_squares: Array, free: int) -> Array:
    return sum_of_squares / free if free else np.full(sum_of_squares.shape, math.nan)


Interval = tuple[float, float]
"""Lower and upper bound; NaN where there is no interval."""


def wilson_interval(share: float, size: float, quantile: float | None = None) -> Interval:
    """Return Wilson's interval (1927, JASA 22) for a proportion of ``size`` independent units; NaN where size is 0.

    Args:
        share: between 0 and 1.
        size: number of units, or an effective sample size, which need not be whole.
        quantile: half-width in standard errors; by default the normal quantile of a 95 % interval.
    """
    if size == 0:
        return math.nan, math.nan
    quantile = float(stats.norm.ppf(1 - LEVEL / 2)) if quantile is None else quantile
    square = quantile**2 / size
    middle = (share + square / 2) / (1 + square)
    half = quantile / (1 + square) * math.sqrt(share * (1 - share) / size + square / (4 * size))
    low = 0.0 if share == 0 else middle - half
    high = 1.0 if share == 1 else middle + half
    return max(0.0, low), min(1.0, high)


def proportion_interval(values: Array, units: NDArray[np.str_]) -> Interval:
    """Return Wilson's interval for the share of ones among values (n,) of 0 and 1, with independent units (n,).

    Where units hold several images, n is divided by the design effect: the variance of the share by units over that of
    n independent images, at least 1. The quantile is then that of a t distribution (Korn and Graubard, 1998, Survey
    Methodology 24). A share of 0 or 1 has no variance to estimate the design effect from: each unit counts as one
    image.
    """
    share, images, groups = float(values.mean()), len(values), len(np.unique(units))
    size, quantile = float(images), None
    if groups < images:
        if groups == 1 or share in (0.0, 1.0):
            size = float(groups)
        else:
            variance = float(np.var(by_unit(values, units), ddof=1)) / groups
            size = min(size, share * (1 - share) / variance) if variance > 0 else size
        if groups > 1:
            quantile = float(stats.t.ppf(1 - LEVEL / 2, groups - 1))
    return wilson_interval(share, size, quantile)


def score_interval(metric: str, values: Array, units: NDArray[np.str_], support: float | None = None) -> Interval:
    """Return the 95 % interval of a score, the mean of values (seeds, images); NaN where it cannot be estimated.

    A proportion at one seed has Wilson's interval. Other intervals over seeds and units are computed on log odds for
    scores between 0 and 1, and on the logarithm for scores without an upper bound, so that they stay within the
    metric's bounds (delta method). A score of exactly 0 or 1 has no variance to estimate, and gets Wilson's interval,
    too.

    Args:
        metric: name of the metric.
        values: (seeds, images).
        units: (images,), the independent units.
        support: sample size for a score of exactly 0 or 1; by default the number of units.
    """
    kind = METRICS[metric]
    mean = float(values.mean()) if values.size else math.nan
    if not math.isfinite(mean):
        return math.nan, math.nan
    if kind.proportion and len(values) == 1:
        return proportion_interval(values[0], units)
    groups = len(np.unique(units))
    if kind.is_share and not 0 < mean < 1:
        return wilson_interval(min(1.0, max(0.0, mean)), groups if support is None else support)
    if groups == 1:
        return math.nan, math.nan
    half = float(half_width(crossed_mean(by_unit(values, units)), 1 / groups if kind.is_share else 0.0))
    return _within_bounds(kind, mean, half)


def _within_bounds(metric: Metric, mean: float, half: float) -> Interval:
    least, most = metric.bounds
    if metric.is_share:
        middle, width = math.log(mean / (1 - mean)), half / (mean * (1 - mean))
        return _logistic(middle - width), _logistic(middle + width)
    if least == 0 and mean > 0:
        low, high = mean * math.exp(-half / mean), mean * math.exp(min(half / mean, 700.0))
    else:
        low, high = mean - half, mean + half
    return max(least, low), min(most, high)


def _logistic(value: float) -> float:
    return float(0.5 * (1 + math.tanh(value / 2)))


BETTER, WORSE = "better", "worse"
NO_DIFFERENCE, TOO_LITTLE = "no difference found", "too little to tell"
MOST_SEEDS, MOST_IMAGES = 50, 100_000
"""Largest numbers of seeds and of test units that are suggested."""

FIRST_SEEDS = "at least two more seeds: one says nothing about others"


def verdict(metric: str, difference: float, half: float) -> str:
    """Return the verdict on a, from the simultaneous interval ``difference`` +- ``half`` of a minus b.

    Args:
        metric: gives the direction and the margin.
        difference: a minus b, in units of the metric.
        half: half-width; NaN where there is no interval.
    """
    if not math.isfinite(difference) or not math.isfinite(half):
        return TOO_LITTLE
    if abs(difference) > half:
        return BETTER if (difference > 0) == METRICS[metric].higher_is_better else WORSE
    return NO_DIFFERENCE if half <= METRICS[metric].margin else TOO_LITTLE


def sample_size_needed(metric: str, difference: float, part: SimultaneousInterval) -> tuple[int | None, int | None]:
    """Return the number of seeds, or of test units, that would give a verdict; None for more than the limits.

    There is a verdict when the interval excludes 0, supposing the difference is as estimated, or is no wider than the
    margin on each side, whichever takes less. As the variances are estimates, so is the result.
    """
    target = max(abs(difference), METRICS[metric].margin)
    seeds, images = part.found.seeds, part.found.images
    more_seeds = next(
        (count for count in range(seeds + 1, MOST_SEEDS + 1) if part.half_width_at(count, images) < target), None
    )
    least, most = images, max(MOST_IMAGES, images)
    if part.half_width_at(seeds, most) >= target:
        return more_seeds, None
    while most - least > max(1, least // 100):  # 1 % is precise enough for an estimate
        middle = (least + most) // 2
        least, most = (least, middle) if part.half_width_at(seeds, middle) < target else (middle, most)
    return more_seeds, most


def helps_text(metric: str, difference: float, part: SimultaneousInterval | None, unit: str = "test image") -> str:
    """Return the seeds or test images that a comparison without a verdict needs, as text.

    Args:
        metric: of the study.
        difference: a minus b.
        part: its interval; None at one seed.
        unit: name of a unit.
    """
    if part is None:
        return FIRST_SEEDS
    seeds, images = sample_size_needed(metric, difference, part)
    now_seeds, now_images = part.found.seeds, part.found.images
    ways = []
    if seeds is not None:
        ways.append(f"about {seeds} seeds (now {now_seeds})")
    if images is not None:
        ways.append(f"about {round_up(images):,} {unit}s (now {now_images:,})")
    if len(ways) == 2:
        return " or ".join(ways)
    if seeds is not None:
        return f"{ways[0]}; more {unit}s alone would not do"
    if images is not None:
        return f"{ways[0]}; more seeds alone would not do"
    return f"more seeds and more {unit}s: neither {MOST_SEEDS} seeds nor {MOST_IMAGES:,} {unit}s alone would do"


def round_up(count: int) -> int:
    """Round a count up to two significant digits."""
    size = 10 ** max(0, len(str(count)) - 2)
    return -(-count // size) * size
