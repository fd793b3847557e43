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

**Standard errors** are those of ``statistics.intervals``: differences are paired by seed and image, and both count.
Over the seeds that both recipes have; where they share none, seeds are set against each other in their order, so that
luck that is not shared counts whole. A recipe that gives the same numbers with each of several seeds is deterministic:
it is one run, set against each seed of the other. At one seed the images alone are counted.

What the rule costs and saves is simulated: docs/statistics.md.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unfreeze.metrics import METRICS, POINT
from unfreeze.statistics.intervals import (
    MOST_IMAGES,
    CrossedMean,
    crossed,
    half_width,
    rounded,
    simultaneous,
    units_of,
    variance,
)
from unfreeze.statistics.predictions import Predictions, Ranking, Recipe

DIGITS = 12
"""Of a mean that count: what sums in another order differ by must not choose, nor hide that two recipes are level."""

AS_CHEAP = 1.1
"""Times the fewest multiply-adds: so many count as no more, since they make no difference that anybody notices."""


@dataclass(frozen=True)
class Contender:
    """A recipe and what its models did on the ranking images.

    Attributes:
        recipe: strategy and regime.
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

    recipe: Recipe
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
    # By regime, since its recipes may lack different folds.
    largest = {one.recipe.regime for one in contenders if one.n_train == most}
    means = [round(float(np.nanmean(one.values)), DIGITS) for one in contenders]
    ranked = sorted(range(len(contenders)), key=lambda place: -means[place])
    order = tuple(place for place in ranked if contenders[place].recipe.regime in largest)
    smaller = tuple(place for place in ranked if contenders[place].recipe.regime not in largest)
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


def _minus(a: Contender, b: Contender, units: NDArray[np.str_]) -> CrossedMean:
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


def _needed(level: Sequence[CrossedMean], images: int) -> int | None:
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


def _at(found: CrossedMean, units: int) -> CrossedMean:
    """Return the analysis to be expected with so many units, if the variances are as estimated."""
    return replace(found, ms_seed=units * found.seed + found.rest, images=units)


def unequal_runs(results: pd.DataFrame) -> tuple[int, int] | None:
    """Return the fewest and the most runs of a ranked recipe where not all were run with the same seeds and folds.

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


@dataclass(frozen=True)
class Standing:
    """The recipes of a study that have finished runs, ranked.

    Attributes:
        contenders: a recipe each, in plan order.
        choice: positions in ``contenders``.
        metric: the study's.
        cell: the model to take away: of the recommended recipe's first seed (and first fold).
        images: of the ranking set, that every candidate predicts; 0 where they have none in common, as directories of
            earlier versions may.
        smallest_class: images of the class with the fewest of these.
    """

    contenders: tuple[Contender, ...]
    choice: Choice
    metric: str
    cell: str
    images: int
    smallest_class: int

    @property
    def recommended(self) -> Recipe:
        """The recipe to use."""
        return self.recipe_at(self.choice.recommended)

    @property
    def value(self) -> float:
        """Its ranking metric, the mean over seeds."""
        return self.value_of(self.choice.recommended)

    def recipe_at(self, place: int) -> Recipe:
        """Return a contender's strategy and regime."""
        return self.contenders[place].recipe

    def value_of(self, place: int) -> float:
        """Return a contender's ranking metric, in the metric's own direction."""
        return METRICS[self.metric].sign * float(np.nanmean(self.contenders[place].values))


def standing(results: pd.DataFrame, ranking: Ranking, networks: Mapping[str, Mapping[str, Any]]) -> Standing | None:
    """Rank the recipes of a study; None where no run of any has finished.

    Args:
        results: the table of ``results_table``.
        ranking: predictions of the ranking set.
        networks: plan.json's, by strategy: for FLOPs that cells of earlier versions did not record.
    """
    done = results[(results["status"] == "finished") & results["val_metric"].notna()]
    if done.empty:
        return None
    recipes = list(dict.fromkeys(map(Recipe, done["strategy"].map(str), done["regime"].map(str))))
    sizes = _sizes(done)
    values, ids, units = _values(ranking.predictions, recipes, sizes)
    if not len(ids):
        values, units = _by_cell(done, recipes, ranking.predictions.metric), np.array(["all"])
    contenders = tuple(
        Contender(
            recipe=recipe,
            n_train=sizes[recipe.regime],
            flops=_flops(_own(done, recipe), networks.get(recipe.strategy, {})),
            params_trained=int(_own(done, recipe)["params_trained"].iloc[0]),
            values=np.array(list(values[recipe].values())),
            seeds=tuple(values[recipe]),
            paid=not len(ids) or recipe not in ranking.unpaid,
        )
        for recipe in recipes
        if values.get(recipe)
    )
    if not contenders:
        return None
    choice = choose(contenders, units)
    if not len(ids):  # nothing to tell them apart by
        choice = replace(choice, level=(), n_needed=None)
    best = contenders[choice.recommended]
    return Standing(
        contenders,
        choice,
        ranking.predictions.metric,
        str(_own(done, best.recipe)["cell"].iloc[0]),
        len(ids),
        _smallest_class(ranking.predictions, ids),
    )


Runs = dict[int, NDArray[np.float64]]
"""Values by image, larger is better, by seed."""


def _own(done: pd.DataFrame, recipe: Recipe) -> pd.DataFrame:
    return done[(done["strategy"] == recipe.strategy) & (done["regime"] == recipe.regime)]


def _values(
    predictions: Predictions, recipes: Sequence[Recipe], sizes: Mapping[str, float]
) -> tuple[dict[Recipe, Runs], list[str], NDArray[np.str_]]:
    """Return each recipe's runs on the images that all candidates predict, these images, and their units.

    Images that a recipe with fewer training images does not predict are NaN: in directories of earlier versions it has
    its own validation images alone, and these few must not rank the others.
    """
    tables = _runs(predictions, recipes)
    most = max((sizes[recipe.regime] for recipe in tables), default=0.0)
    candidates = [table for recipe, runs in tables.items() if sizes[recipe.regime] == most for table in runs.values()]
    if not candidates:
        return {}, [], np.array([], dtype=np.str_)
    common = candidates[0].index
    for table in candidates[1:]:
        common = common[common.isin(table.index)]
    if any(len(table) > len(common) for table in candidates):  # an image's number may depend on the others
        tables = _runs(_only(predictions, common), recipes)
    sign = METRICS[predictions.metric].sign
    found = {
        recipe: {seed: sign * table["value"].reindex(common).to_numpy(np.float64) for seed, table in runs.items()}
        for recipe, runs in tables.items()
        if all(table.index.isin(common).any() for table in runs.values())
    }
    largest = [found[recipe] for recipe in found if sizes[recipe.regime] == most]
    if not all(np.isfinite(run).all() for runs in largest for run in runs.values()):
        return {}, [], np.array([], dtype=np.str_)
    return found, list(map(str, common)), candidates[0].loc[common, "unit"].to_numpy(np.str_)


def _runs(predictions: Predictions, recipes: Sequence[Recipe]) -> dict[Recipe, dict[int, pd.DataFrame]]:
    tables = {recipe: predictions.runs(recipe, "validation", predictions.metric) for recipe in recipes}
    return {recipe: runs for recipe, runs in tables.items() if runs}


def _only(predictions: Predictions, ids: pd.Index) -> Predictions:
    """Return the predictions of some images alone."""
    cells = []
    for one in predictions.cells:
        of = np.isin(one.ids, ids.to_numpy(np.str_))
        parts = {name: getattr(one, name)[of] for name in ("ids", "labels", "logits", "units")}
        cells.append(replace(one, **parts))
    return replace(predictions, cells=tuple(cells))


def _by_cell(done: pd.DataFrame, recipes: Sequence[Recipe], metric: str) -> dict[Recipe, Runs]:
    """Return each seed's mean validation metric as if it were one image: for cells without a common ranking set."""
    sign = METRICS[metric].sign
    return {
        recipe: {
            int(seed): np.array([sign * float(own.loc[own["seed"] == seed, "val_metric"].mean())])
            for own in [_own(done, recipe)]
            for seed in own["seed"].unique()
        }
        for recipe in recipes
    }


def _sizes(done: pd.DataFrame) -> dict[str, float]:
    """Return each regime's mean number of training images, over the seeds and folds that all regimes have if any."""
    each = done.assign(fold=done["fold"].fillna(-1)).groupby(["regime", "seed", "fold"])["n_train"].first()
    by_regime = each.unstack("regime")
    common = by_regime.dropna()
    table = common if len(common) else by_regime
    return {str(regime): float(table[regime].astype(float).mean()) for regime in table.columns}


def _flops(own: pd.DataFrame, network: Mapping[str, Any]) -> float:
    known = own["flops_per_image"].dropna()
    if len(known):
        return float(known.mean())
    return float(sum(stage["flops"] for stage in network.get("stages", []))) or math.nan


def _smallest_class(predictions: Predictions, ids: Sequence[str]) -> int:
    labels: dict[str, int] = {}
    for one in predictions.cells:
        labels.update(zip(map(str, one.ids), map(int, one.labels), strict=True))
    counts = np.bincount([labels[name] for name in ids], minlength=len(predictions.classes)) if ids else np.array([0])
    return int(counts.min())
