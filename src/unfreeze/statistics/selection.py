"""Recommend a recipe, by predictions for images that its models were neither trained nor selected on.

**Candidates** are the recipes with the most training images. A recipe with fewer images that scores better is reported,
but never recommended: more images only hurt if their labels are wrong.

**The rule.** The leader has the highest mean. A recipe counts as equally good if its mean is lower by at most min(one
standard error of the paired difference, one point). Of these, the cheapest to use is recommended: the fewest
multiply-adds per image, then the fewest trained parameters, then the first in the plan. All three are the same on every
machine and in every run, unlike measured times. The rule of one standard error is that of Breiman, Friedman, Olshen and
Stone (1984, Classification and Regression Trees, section 3.4.3); the cap of one point keeps a small number of images
from excusing a clearly worse recipe. Where choices were made on the ranking images and could not be cross-fitted, the
mean is optimistic: then there is no cap, so that no advantage within one standard error counts.

**Standard errors** are those of ``statistics.intervals``: differences are paired by seed and image, and both count.
They use the seeds that both recipes have; if there are none, seeds are paired in their order, so that nothing cancels.
A recipe that gives the same values with each of several seeds is deterministic: it counts as one run, paired with each
seed of the other. At one seed only images count.

docs/statistics.md reports what the rule costs and saves in simulated studies.
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
    by_unit,
    crossed_mean,
    half_width,
    round_up,
    simultaneous_intervals,
    variance_of_mean,
)
from unfreeze.statistics.predictions import Predictions, RankingSet, Recipe, common_index

DIGITS = 12
"""Decimals of a mean that count, so that rounding errors neither decide a choice nor break a tie."""

AS_CHEAP = 1.1
"""Up to this multiple of the fewest multiply-adds, recipes count as equally cheap."""


@dataclass(frozen=True)
class Contender:
    """A recipe with its values on the ranking images.

    Attributes:
        recipe: strategy and regime.
        n_train: mean number of training images of its cells.
        flops: multiply-adds per image of the whole network at its input size; NaN, which counts as the most, if
            unknown.
        params_trained: number of trained parameters.
        values: (seeds, images) values whose mean is the ranking metric, negated for losses. Candidates have all images;
            a recipe with fewer training images may lack some, which are NaN, and is then not compared.
        seeds: (seeds,) seed of each row.
        unbiased: whether no choice was made on the ranking images, or the values are cross-fitted.
    """

    recipe: Recipe
    n_train: float
    flops: float
    params_trained: int
    values: NDArray[np.float64]
    seeds: tuple[int, ...]
    unbiased: bool


@dataclass(frozen=True)
class Choice:
    """The recommendation. Recipes are given by their position among the contenders.

    Attributes:
        recommended: the recipe to use, one of ``order``.
        order: the candidates, best mean first, plan order among equals.
        smaller: the recipes with fewer training images, in the same order.
        ties: the other candidates whose 95 % interval of the paired difference to the recommended one contains 0.
        n_needed: about how many ranking images, at the same seeds, would separate the recommended recipe from the
            nearest of ``ties``, or show that they differ by less than one point, if the variances are as estimated.
            None without ties, where these images show it already, or where 100,000 would not.
        smaller_but_better: those of ``smaller`` that are better than the recommended one by simultaneous intervals;
            empty at one seed, which has no such intervals.
    """

    recommended: int
    order: tuple[int, ...]
    smaller: tuple[int, ...]
    ties: tuple[int, ...]
    n_needed: int | None
    smaller_but_better: tuple[int, ...]


def choose(contenders: Sequence[Contender], units: NDArray[np.str_]) -> Choice:
    """Choose the recipe to recommend.

    Args:
        contenders: recipes in plan order, at least one.
        units: (images,) name of each ranking image's independent unit.
    """
    most = max(contender.n_train for contender in contenders)
    # By regime, because a recipe that lacks a fold has another mean.
    largest = {contender.recipe.regime for contender in contenders if contender.n_train == most}
    means = [round(float(np.nanmean(contender.values)), DIGITS) for contender in contenders]
    ranked = sorted(range(len(contenders)), key=lambda position: -means[position])
    order = tuple(position for position in ranked if contenders[position].recipe.regime in largest)
    smaller = tuple(position for position in ranked if contenders[position].recipe.regime not in largest)
    leader = contenders[order[0]]
    as_good = [position for position in order if _as_good(contenders[position], leader, units)]
    recommended = _cheapest(as_good, contenders)

    best = contenders[recommended]
    others = [
        (position, _difference(contenders[position], best, units)) for position in order if position != recommended
    ]
    ties = [(position, found) for position, found in others if not abs(found.mean) > half_width(found)]
    complete = [position for position in smaller if np.isfinite(contenders[position].values).all()]
    family = [_difference(contenders[position], best, units) for position in complete]
    parts = zip(complete, family, simultaneous_intervals(family, len(contenders)), strict=True)
    return Choice(
        recommended=recommended,
        order=order,
        smaller=smaller,
        ties=tuple(position for position, _ in ties),
        n_needed=_images_needed([found for _, found in ties], len(units)),
        smaller_but_better=tuple(
            position for position, found, part in parts if part is not None and found.mean > part.half
        ),
    )


def _as_good(contender: Contender, leader: Contender, units: NDArray[np.str_]) -> bool:
    """Tell whether a recipe counts as equally good as the leader."""
    if contender is leader:
        return True
    found = _difference(leader, contender, units)
    error = math.sqrt(variance_of_mean(found)) if found.images > 1 else math.inf  # unknown for a single unit
    tolerance = min(error, POINT) if contender.unbiased and leader.unbiased else error
    # Where they differ on one image only, the difference equals its standard error up to rounding.
    return round(float(found.mean), DIGITS) <= round(tolerance, DIGITS)


def _cheapest(positions: Sequence[int], contenders: Sequence[Contender]) -> int:
    flops = {
        position: math.inf if math.isnan(contenders[position].flops) else contenders[position].flops
        for position in positions
    }
    cheap = [position for position in positions if flops[position] <= AS_CHEAP * min(flops.values())]
    return min(cheap, key=lambda position: (contenders[position].params_trained, position))


def _difference(a: Contender, b: Contender, units: NDArray[np.str_]) -> CrossedMean:
    """Return the analysis of variance of the paired differences of two recipes."""
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
    return crossed_mean(by_unit(values - others, units))


def _is_deterministic(contender: Contender) -> bool:
    return len(contender.values) > 1 and bool((contender.values == contender.values[0]).all())


def _images_needed(ties: Sequence[CrossedMean], images: int) -> int | None:
    """Return how many images would separate the nearest tie; see ``Choice.n_needed``."""
    if not ties:
        return None
    nearest = min(ties, key=lambda found: abs(found.mean))
    target, least = max(abs(float(nearest.mean)), POINT), nearest.images
    most = max(least, math.ceil(MOST_IMAGES * nearest.images / images))
    if nearest.images == 1 or half_width(nearest) <= target or half_width(_with_units(nearest, most)) > target:
        return None
    while most - least > max(1, least // 100):  # 1 % is precise enough for an estimate
        middle = (least + most) // 2
        least, most = (least, middle) if half_width(_with_units(nearest, middle)) <= target else (middle, most)
    return round_up(math.ceil(most * images / nearest.images))


def _with_units(found: CrossedMean, units: int) -> CrossedMean:
    """Return the analysis to expect with another number of units, if the variances are as estimated."""
    return replace(found, ms_seed=units * found.seed + found.rest, images=units)


def unequal_runs(results: pd.DataFrame) -> tuple[int, int] | None:
    """Return the fewest and the most runs of a recipe if not all have the same seeds and folds, else None.

    Means then differ by seeds and folds as well as by recipes, which a ranking cannot separate.

    Args:
        results: the table of ``results_table``.
    """
    done = results[(results["status"] == "finished") & results["val_metric"].notna()]
    runs = [
        frozenset(zip(group["seed"], group["fold"].fillna(-1), strict=True))
        for _, group in done.groupby(["strategy", "regime"])
    ]
    counts = [len(run) for run in runs]
    return (min(counts), max(counts)) if len(set(runs)) > 1 else None


@dataclass(frozen=True)
class RecipeRanking:
    """The recipes of a study that have finished runs, ranked.

    Attributes:
        contenders: the recipes, in plan order.
        choice: the recommendation, as positions in ``contenders``.
        metric: the metric that ranks.
        cell: the cell whose model is shipped: the first seed (and fold) of the recommended recipe.
        images: number of ranking images that all candidates predict; 0 where they have none in common, which happens in
            directories of earlier versions.
        smallest_class: number of these images in the smallest class.
    """

    contenders: tuple[Contender, ...]
    choice: Choice
    metric: str
    cell: str
    images: int
    smallest_class: int

    @property
    def recommended(self) -> Recipe:
        """The recommended recipe."""
        return self.recipe_at(self.choice.recommended)

    @property
    def value(self) -> float:
        """Mean ranking metric of the recommended recipe."""
        return self.value_of(self.choice.recommended)

    def recipe_at(self, position: int) -> Recipe:
        """Return the recipe of a contender."""
        return self.contenders[position].recipe

    def value_of(self, position: int) -> float:
        """Return the mean ranking metric of a contender, in the metric's own sign."""
        return METRICS[self.metric].sign * float(np.nanmean(self.contenders[position].values))


def rank_recipes(
    results: pd.DataFrame, ranking_set: RankingSet, networks: Mapping[str, Mapping[str, Any]]
) -> RecipeRanking | None:
    """Rank the recipes of a study; None where no run has finished.

    Args:
        results: the table of ``results_table``.
        ranking_set: predictions for the ranking set.
        networks: of plan.json, by strategy, for multiply-adds that cells of earlier versions did not record.
    """
    done = results[(results["status"] == "finished") & results["val_metric"].notna()]
    if done.empty:
        return None
    recipes = list(dict.fromkeys(map(Recipe, done["strategy"].map(str), done["regime"].map(str))))
    sizes = _sizes(done)
    values, ids, units = _values(ranking_set.predictions, recipes, sizes)
    if not len(ids):
        values, units = _by_cell(done, recipes, ranking_set.predictions.metric), np.array(["all"])
    contenders = tuple(
        Contender(
            recipe=recipe,
            n_train=sizes[recipe.regime],
            flops=_flops(_own(done, recipe), networks.get(recipe.strategy, {})),
            params_trained=int(_own(done, recipe)["params_trained"].iloc[0]),
            values=np.array(list(values[recipe].values())),
            seeds=tuple(values[recipe]),
            unbiased=not len(ids) or recipe not in ranking_set.biased,
        )
        for recipe in recipes
        if values.get(recipe)
    )
    if not contenders:
        return None
    choice = choose(contenders, units)
    if not len(ids):  # means alone cannot show a tie
        choice = replace(choice, ties=(), n_needed=None)
    best = contenders[choice.recommended]
    return RecipeRanking(
        contenders,
        choice,
        ranking_set.predictions.metric,
        str(_own(done, best.recipe)["cell"].iloc[0]),
        len(ids),
        _smallest_class(ranking_set.predictions, ids),
    )


Runs = dict[int, NDArray[np.float64]]
"""Values of each image, larger is better, by seed."""


def _own(done: pd.DataFrame, recipe: Recipe) -> pd.DataFrame:
    return done[(done["strategy"] == recipe.strategy) & (done["regime"] == recipe.regime)]


def _values(
    predictions: Predictions, recipes: Sequence[Recipe], sizes: Mapping[str, float]
) -> tuple[dict[Recipe, Runs], list[str], NDArray[np.str_]]:
    """Return each recipe's runs on the images that all candidates predict, the ids of these images, and their units.

    Images that a recipe with fewer training images does not predict are NaN: in directories of earlier versions, it
    predicts only its own validation images, and these few must not rank the candidates.
    """
    tables = _runs(predictions, recipes)
    most = max((sizes[recipe.regime] for recipe in tables), default=0.0)
    candidates = [table for recipe, runs in tables.items() if sizes[recipe.regime] == most for table in runs.values()]
    if not candidates:
        return {}, [], np.array([], dtype=np.str_)
    common = common_index(candidates)
    if any(len(table) > len(common) for table in candidates):  # an image's value may depend on the other images
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
    """Return the predictions for some of the images."""
    cells = []
    for cell in predictions.cells:
        of = np.isin(cell.ids, ids.to_numpy(np.str_))
        parts = {name: getattr(cell, name)[of] for name in ("ids", "labels", "logits", "units")}
        cells.append(replace(cell, **parts))
    return replace(predictions, cells=tuple(cells))


def _by_cell(done: pd.DataFrame, recipes: Sequence[Recipe], metric: str) -> dict[Recipe, Runs]:
    """Return each seed's mean validation metric as the value of a single image, for want of common ranking images."""
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
    """Return each regime's mean number of training images, over the seeds and folds that all regimes share, if any."""
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
    for cell in predictions.cells:
        labels.update(zip(map(str, cell.ids), map(int, cell.labels), strict=True))
    counts = np.bincount([labels[name] for name in ids], minlength=len(predictions.classes)) if ids else np.array([0])
    return int(counts.min())
