"""Which recipe a study recommends, by what its models do on images that neither trained nor chose them.

**Candidates** are the recipes with the most training images. Of two sizes the larger one is taken unless the labels are
wrong: a smaller one that did better is told, never recommended.

**The rule.** The leader has the highest mean. A recipe whose mean is at most min(one standard error of the paired
difference, one point) lower counts as equally good; of those the cheapest to use is recommended: the fewest
multiply-adds an image, then the fewest trained parameters, then the first in the plan. All three are the same on every
machine and in every run, which measured times are not. The rule of one standard error is that of Breiman, Friedman,
Olshen and Stone (1984, Classification and Regression Trees, section 3.4.3); the cap of one point keeps few images from
excusing a recipe that is plainly worse. Where something was chosen by the very images that rank, and could not be
cross-fitted, the mean is flattered: then no advantage within one standard error counts, and there is no cap.

**Standard errors** are those of ``unfreeze.results.crossed``: differences are paired by seed and image, and both count.
Over the seeds that both recipes have; where they share none, seeds are set against each other in their order, so that
luck that is not shared counts whole. A recipe that gives the same numbers with each of several seeds is deterministic:
it is one run, set against each seed of the other. At one seed the images alone are counted.

What the rule costs and saves is simulated: docs/statistics.md.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unfreeze.results.crossed import Crossed, crossed, half_width, simultaneous, units_of, variance
from unfreeze.results.verdicts import MOST_IMAGES, rounded

DIGITS = 12
"""Of a mean that count: what sums in another order differ by must not choose, nor hide that two fields are level."""
POINT = 0.01
"""One point of a share, 0.01 nats of log loss: what a recipe may be worse by, at most, to be taken for its cost."""
AS_CHEAP = 1.1
"""Times the fewest multiply-adds: so many count as no more, since they make no difference that anybody notices."""


@dataclass(frozen=True)
class Contender:
    """A recipe and what its models did on the ranking images.

    Attributes:
        strategy, regime: its names.
        n_train: mean number of training images of its cells.
        flops: multiply-adds an image, of the whole network at its input size; NaN where they are not known, which
            counts as the most.
        params_trained: number of trained parameters.
        values: (seeds, images) numbers, larger is better (a loss is negated), whose mean is the ranking metric. All
            candidates have all images; a recipe with fewer training images may lack some, which are NaN, and is then
            compared with none.
        seeds: (seeds,) of the rows.
        paid: whether nothing was chosen by the ranking images, or the values are cross-fitted.
    """

    strategy: str
    regime: str
    n_train: float
    flops: float
    params_trained: int
    values: NDArray[np.float64]
    seeds: tuple[int, ...]
    paid: bool


@dataclass(frozen=True)
class Choice:
    """What is recommended, and what was found on the way; recipes by their position among the contenders.

    Attributes:
        recommended: the recipe to use, one of ``order``.
        order: the candidates, best mean first, plan order among equals.
        smaller: the recipes with fewer training images, likewise.
        level: candidates, but for the recommended, in ``order``, whose 95 % interval of the paired difference to it
            holds 0: they are not told apart.
        n_needed: about how many ranking images, at the same seeds, would tell the recommended from the nearest of
            ``level``, or show that less than one point lies between them, if the variances are as estimated. None
            where none is level, where these images show it, or where 100,000 would not.
        worse_with_more: those of ``smaller`` that are better than the recommended beyond intervals that hold for all of
            them at once: more images made it worse. None at one seed, which has no such intervals.
    """

    recommended: int
    order: tuple[int, ...]
    smaller: tuple[int, ...]
    level: tuple[int, ...]
    n_needed: int | None
    worse_with_more: tuple[int, ...]


def choose(contenders: Sequence[Contender], units: NDArray[np.str_]) -> Choice:
    """Choose a recipe.

    Args:
        contenders: recipes in plan order, at least one.
        units: (images,) of the ranking images; those of one unit are no independent evidence.
    """
    most = max(one.n_train for one in contenders)
    largest = {one.regime for one in contenders if one.n_train == most}  # whole: its recipes may lack different folds
    means = [round(float(np.nanmean(one.values)), DIGITS) for one in contenders]
    ranked = sorted(range(len(contenders)), key=lambda place: -means[place])
    order = tuple(place for place in ranked if contenders[place].regime in largest)
    smaller = tuple(place for place in ranked if contenders[place].regime not in largest)
    leader = contenders[order[0]]
    as_good = [place for place in order if _as_good(contenders[place], leader, units)]
    recommended = _cheapest(as_good, contenders)

    used = contenders[recommended]
    others = [(place, _minus(contenders[place], used, units)) for place in order if place != recommended]
    level = [(place, found) for place, found in others if not abs(found.mean) > half_width(found)]
    whole = [place for place in smaller if np.isfinite(contenders[place].values).all()]
    family = [_minus(contenders[place], used, units) for place in whole]
    parts = zip(whole, family, simultaneous(family, len(contenders)), strict=True)
    return Choice(
        recommended=recommended,
        order=order,
        smaller=smaller,
        level=tuple(place for place, _ in level),
        n_needed=_needed([found for _, found in level], len(units)),
        worse_with_more=tuple(place for place, found, part in parts if part is not None and found.mean > part.half),
    )


def _as_good(one: Contender, leader: Contender, units: NDArray[np.str_]) -> bool:
    """Tell whether a recipe counts as equally good as the leader."""
    if one is leader:
        return True
    found = _minus(leader, one, units)
    error = math.sqrt(variance(found)) if found.images > 1 else math.inf  # one unit tells nothing of others
    tolerance = min(error, POINT) if one.paid and leader.paid else error
    # Where they differ on one image alone, the difference is its own standard error, whatever the last digit says.
    return round(float(found.mean), DIGITS) <= round(tolerance, DIGITS)


def _cheapest(places: Sequence[int], contenders: Sequence[Contender]) -> int:
    flops = {place: math.inf if math.isnan(contenders[place].flops) else contenders[place].flops for place in places}
    cheap = [place for place in places if flops[place] <= AS_CHEAP * min(flops.values())]
    return min(cheap, key=lambda place: (contenders[place].params_trained, place))


def _minus(a: Contender, b: Contender, units: NDArray[np.str_]) -> Crossed:
    """Return the analysis of the paired differences of two recipes."""
    values, others = a.values, b.values
    if _is_deterministic(a) or _is_deterministic(b):
        values = values[:1] if _is_deterministic(a) else values
        others = others[:1] if _is_deterministic(b) else others
    elif common := [seed for seed in a.seeds if seed in b.seeds]:
        values = values[[a.seeds.index(seed) for seed in common]]
        others = others[[b.seeds.index(seed) for seed in common]]
    else:
        runs = min(len(values), len(others))
        values, others = values[:runs], others[:runs]
    return crossed(units_of(values - others, units))


def _is_deterministic(one: Contender) -> bool:
    return len(one.values) > 1 and bool((one.values == one.values[0]).all())


def _needed(level: Sequence[Crossed], images: int) -> int | None:
    """Return how many images would settle the smallest of some differences; see ``Choice``."""
    if not level:
        return None
    nearest = min(level, key=lambda found: abs(found.mean))
    target, least = max(abs(float(nearest.mean)), POINT), nearest.images
    most = max(least, math.ceil(MOST_IMAGES * nearest.images / images))
    if nearest.images == 1 or half_width(nearest) <= target or half_width(_at(nearest, most)) > target:
        return None
    while most - least > max(1, least // 100):  # to a hundredth: it is an estimate
        middle = (least + most) // 2
        least, most = (least, middle) if half_width(_at(nearest, middle)) <= target else (middle, most)
    return rounded(math.ceil(most * images / nearest.images))


def _at(found: Crossed, units: int) -> Crossed:
    """Return the analysis to be expected with so many units, if the variances are as estimated."""
    return replace(found, ms_seed=units * found.seed + found.rest, images=units)


def unequal_runs(results: pd.DataFrame) -> tuple[int, int] | None:
    """Return the fewest and the most runs of a ranked field where not all were run with the same seeds and folds.

    Their means then rest on other splits and initial weights, too, which a ranking cannot tell from the recipes.

    Args:
        results: the table of ``results_table``.
    """
    done = results[(results["status"] == "finished") & results["val_metric"].notna()]
    runs = [
        frozenset(zip(group["seed"], group["fold"].fillna(-1), strict=True))
        for _, group in done.groupby(["strategy", "regime"], sort=False)
    ]
    counts = [len(one) for one in runs]
    return (min(counts), max(counts)) if len(set(runs)) > 1 else None
