"""The mean of numbers crossed by seed and image, and intervals that count both sources of variation.

A study sees the same test images in every seed, and draws both by chance: other seeds and other images would have given
another mean. With ``D[s, i]`` the number (a difference of two recipes) of seed s and image i, all effects random,

    D[s, i] = mean + seed[s] + image[i] + rest[s, i]

    variance of the mean = seed / S + image / I + rest / (S I) = (MS_seed + MS_image - MS_rest) / (S I)

with the mean squares of the analysis of variance with two crossed factors (Cornfield and Tukey, 1956, Annals of
Mathematical Statistics 27; Brennan, 2001, Generalizability Theory). An interval over images alone leaves out the first
term, and covers half the time at three seeds; a bootstrap over seeds and images takes three seeds for all there are.

**One interval.** A t interval with the degrees of freedom of Satterthwaite (1946, Biometrics Bulletin 2). No variance
is let fall below zero: MS_seed and MS_image count as at least MS_rest.

**Many at once.** A study makes many comparisons, and each may be wrong. Bonferroni's level is 0.05 over their number.
At that level Satterthwaite's degrees of freedom are too many where few seeds happen to agree, so each variance keeps
its own quantile: the half-width is the root of the sum of (t² x variance) over the seeds and over the images, which
covers at least at its level (Banerjee, 1960, Sankhya 22). With S - 1 degrees of freedom alone that is hopelessly wide
at three seeds; so the variance between seeds borrows from the other comparisons of the study, at the weight of at most
four degrees of freedom and never so as to become smaller, as genes borrow from each other in Smyth (2004, Statistical
Applications in Genetics 3) though with a weight that is fixed, not fitted. What this holds is measured:
docs/statistics.md.
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
"""What intervals leave out: they are 95 % intervals."""

BORROWED = 4
"""Degrees of freedom that the variance between seeds takes at most from a study's other comparisons."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class CrossedMean:
    """Means and mean squares of one or more tables of seeds x units; arrays of one shape, which may be ().

    Attributes:
        mean: mean over seeds and units.
        ms_seed: mean square between seeds, S - 1 degrees of freedom; NaN at one seed.
        ms_image: mean square between units, I - 1 degrees of freedom; NaN at one unit.
        ms_rest: mean square of what is left, (S - 1)(I - 1) degrees of freedom; NaN where there is none.
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
        """Variance of seed x image, at least 0."""
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
        """Variance of the mean that other seeds would bring: seed / S + rest / (S I)."""
        return np.maximum(self.ms_seed, self.rest) / (self.seeds * self.images)

    @property
    def from_images(self) -> Array:
        """Variance of the mean that other images would bring beside that: image / I."""
        return self.image / self.images


def crossed(values: Array) -> CrossedMean:
    """Return the analysis of variance of numbers (..., seeds, units)."""
    values = np.asarray(values, dtype=np.float64)
    seeds, images = values.shape[-2:]
    by_seed, by_image = values.mean(-1), values.mean(-2)
    mean = by_seed.mean(-1)
    around_seeds = images * ((by_seed - mean[..., None]) ** 2).sum(-1)
    around_images = seeds * ((by_image - mean[..., None]) ** 2).sum(-1)
    total = ((values - mean[..., None, None]) ** 2).sum((-1, -2))
    rest = np.maximum(total - around_seeds - around_images, 0)  # below only by rounding
    return CrossedMean(
        mean=mean,
        ms_seed=_mean_square(around_seeds, seeds - 1),
        ms_image=_mean_square(around_images, images - 1),
        ms_rest=_mean_square(rest, (seeds - 1) * (images - 1)),
        seeds=seeds,
        images=images,
    )


def units_of(values: Array, units: Sequence[Any] | NDArray[Any]) -> Array:
    """Return (..., seeds, units) of numbers (..., seeds, images): an entry a unit, with the same mean over all.

    A unit with more images weighs more; entries are those of the ratio estimator, to first order (Cochran, 1977,
    Sampling Techniques, section 6.4): mean + U / I x the sum over the unit's images of (number - mean).
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


def degrees(found: CrossedMean) -> Array:
    """Return Satterthwaite's degrees of freedom of the variance of the mean, at least S - 1 and 1."""
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


def variance(found: CrossedMean) -> Array:
    """Return the variance of the mean, from seeds and units; at one seed from the units alone; NaN at one unit."""
    if found.seeds == 1:
        return found.ms_image / found.images
    return found.from_seeds + found.from_images


def half_width(found: CrossedMean, floor: float = 0.0, level: float = LEVEL) -> Array:
    """Return half of the width of one interval; NaN where a single unit leaves no variance to estimate.

    At one seed it counts the images alone: nothing is known about other seeds.

    Args:
        found: the analysis of variance.
        floor: a standard error that the mean's is never taken to be below.
        level: what the interval leaves out.
    """
    if found.images == 1:
        return np.full(found.mean.shape, math.nan)
    return stats.t.ppf(1 - level / 2, degrees(found)) * np.sqrt(np.maximum(variance(found), floor**2))


@dataclass(frozen=True)
class Simultaneous:
    """One comparison's part of a family of intervals that all cover at once.

    Attributes:
        half: half of its width, of the shape of the analysis of variance.
        found: the analysis of variance.
        spread: variance of one seed's mean, with what it borrowed.
        lent: degrees of freedom that it borrowed.
        level: what its interval leaves out.
        floor: times 1 / units, the standard error that its mean's is never taken to be below.
    """

    half: Array
    found: CrossedMean
    spread: Array
    lent: int
    level: float
    floor: float

    def at(self, seeds: int, images: int) -> Array:
        """Return the half-width to be expected with so many seeds and units, if the variances are as estimated."""
        rest = self.found.rest
        seed = (np.maximum(self.spread - rest / self.found.images, 0) + rest / images) / seeds
        image = np.maximum(self.found.image / images, (self.floor / images) ** 2 - seed)
        free = seeds - 1 + self.lent
        return np.sqrt(_quantile(self.level, free) ** 2 * seed + _quantile(self.level, images - 1) ** 2 * image)


def simultaneous(
    family: Sequence[CrossedMean], recipes: int, floor: float = 0.0, level: float = LEVEL
) -> list[Simultaneous | None]:
    """Return intervals that all cover at once, each at least as wide as its own alone; None where there is one seed.

    Args:
        family: the comparisons on one test set.
        recipes: how many strategies x regimes they compare, which bounds what they can lend each other.
        floor: times 1 / units, the standard error that a mean's is never taken to be below.
        level: what the intervals leave out together; divide it where there is more than one family.
    """
    usable = [one for one in family if one.seeds > 1 and one.images > 1]
    spreads = [(one.seeds - 1, one.from_seeds * one.seeds) for one in usable]
    weight = sum(free for free, _ in spreads)
    total = sum((free * spread for free, spread in spreads), np.zeros(()))
    found: list[Simultaneous | None] = []
    for one in family:
        if one.seeds == 1 or one.images == 1:
            found.append(None)
            continue
        own, free = one.from_seeds * one.seeds, one.seeds - 1
        lent = min(BORROWED, max(0, recipes - 2) * free) if weight > free else 0
        others = (total - free * own) / (weight - free) if lent else own
        spread = np.maximum(own, (lent * others + free * own) / (lent + free))
        part = Simultaneous(np.full(one.mean.shape, math.nan), one, spread, lent, level / len(usable), floor)
        half = np.maximum(part.at(one.seeds, one.images), half_width(one, floor / one.images, level))
        found.append(replace(part, half=half))
    return found


def _quantile(level: float, free: int) -> float:
    return float(stats.t.ppf(1 - level / 2, free))


def _mean_square(sum_of_squares: Array, free: int) -> Array:
    return sum_of_squares / free if free else np.full(sum_of_squares.shape, math.nan)


Interval = tuple[float, float]
"""Lower and upper bound; NaN where there is no interval."""


def wilson_interval(share: float, size: float, quantile: float | None = None) -> Interval:
    """Return Wilson's interval (1927, JASA 22) of a share of ``size`` independent units; NaN where size is 0.

    Args:
        share: between 0 and 1.
        size: number of units; an effective number need not be whole.
        quantile: half-width in standard errors; by default that of a 95 % interval of the normal distribution.
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
    """Return Wilson's interval of the share of ones among values (n,) of 0 and 1, by independent units (n,).

    Where several images form a unit, the number of units is the effective sample size: n over the design effect, which
    is the variance of the share by units over that of n independent images, and never below 1 (Korn and Graubard, 1998,
    Survey Methodology 24, whose t quantile replaces the normal one). A share of 0 or 1 has no variance to show what
    grouping does: each unit then counts as one image.
    """
    share, images, groups = float(values.mean()), len(values), len(np.unique(units))
    size, quantile = float(images), None
    if groups < images:
        if groups == 1 or share in (0.0, 1.0):
            size = float(groups)
        else:
            by_unit = float(np.var(units_of(values, units), ddof=1)) / groups
            size = min(size, share * (1 - share) / by_unit) if by_unit > 0 else size
        if groups > 1:
            quantile = float(stats.t.ppf(1 - LEVEL / 2, groups - 1))
    return wilson_interval(share, size, quantile)


def score_interval(metric: str, values: Array, units: NDArray[np.str_], support: float | None = None) -> Interval:
    """Return the 95 % interval of a score, the mean of values (seeds, images) of a metric; NaN where there is none.

    A proportion of one seed has Wilson's interval. Otherwise the interval of a mean crossed by seed and unit is carried
    over to log odds for shares, and to the logarithm for scores without an upper bound, so that it stays within the
    metric's bounds (delta method). A share of 0 or 1 has no variance to go by, and gets Wilson's interval as well.

    Args:
        metric: name of the metric.
        values: (seeds, images).
        units: (images,), the independent units.
        support: number of units that a share of 0 or 1 rests on; by default all.
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
    half = float(half_width(crossed(units_of(values, units)), 1 / groups if kind.is_share else 0.0))
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
MOST_SEEDS = 50
MOST_IMAGES = 100_000
FIRST_SEEDS = "at least two more seeds: one says nothing about others"


def verdict(metric: str, difference: float, half: float) -> str:
    """Return what the simultaneous interval ``difference`` +- ``half`` of a minus b says about a.

    Args:
        metric: decides whether more is better, and the margin.
        difference: a minus b, in units of the metric.
        half: half of the interval's width; NaN where there is none.
    """
    if not math.isfinite(difference) or not math.isfinite(half):
        return TOO_LITTLE
    if abs(difference) > half:
        return BETTER if (difference > 0) == METRICS[metric].higher_is_better else WORSE
    return NO_DIFFERENCE if half <= METRICS[metric].margin else TOO_LITTLE


def needed(metric: str, difference: float, part: Simultaneous) -> tuple[int | None, int | None]:
    """Return how many seeds, or else how many test units, would settle it; None where more than the most would not.

    Settled: the interval leaves out 0 if the difference is what it looks like, or is no wider than the margin on each
    side, whichever takes less. It rests on variances that are themselves estimates: read it as an order of size.
    """
    target = max(abs(difference), METRICS[metric].margin)
    seeds, images = part.found.seeds, part.found.images
    more_seeds = next((count for count in range(seeds + 1, MOST_SEEDS + 1) if part.at(count, images) < target), None)
    least, most = images, max(MOST_IMAGES, images)
    if part.at(seeds, most) >= target:
        return more_seeds, None
    while most - least > max(1, least // 100):  # to a hundredth: it is an estimate
        middle = (least + most) // 2
        least, most = (least, middle) if part.at(seeds, middle) < target else (middle, most)
    return more_seeds, most


def helps(metric: str, difference: float, part: Simultaneous | None, unit: str = "test image") -> str:
    """Say what would settle a comparison that is too little to tell: more seeds, more test images, and how many.

    Args:
        metric: the study's.
        difference: a minus b.
        part: its interval; None where there is one seed.
        unit: what a unit is called.
    """
    if part is None:
        return FIRST_SEEDS
    seeds, images = needed(metric, difference, part)
    now_seeds, now_images = part.found.seeds, part.found.images
    ways = []
    if seeds is not None:
        ways.append(f"about {seeds} seeds (now {now_seeds})")
    if images is not None:
        ways.append(f"about {rounded(images):,} {unit}s (now {now_images:,})")
    if len(ways) == 2:
        return " or ".join(ways)
    if seeds is not None:
        return f"{ways[0]}; more {unit}s alone would not do"
    if images is not None:
        return f"{ways[0]}; more seeds alone would not do"
    return f"more seeds and more {unit}s: neither {MOST_SEEDS} seeds nor {MOST_IMAGES:,} {unit}s alone would do"


def rounded(count: int) -> int:
    """Return the count rounded up to two digits: an estimate of an order of size pretends no more."""
    size = 10 ** max(0, len(str(count)) - 2)
    return -(-count // size) * size
