"""Every comparison that a study makes: strategies within a regime, regimes within a strategy, with intervals."""

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unfreeze.errors import UserError
from unfreeze.metrics import METRICS, difference_text
from unfreeze.statistics.intervals import (
    LEVEL,
    TOO_LITTLE,
    CrossedMean,
    Simultaneous,
    crossed,
    degrees,
    half_width,
    helps,
    simultaneous,
    units_of,
    verdict,
)
from unfreeze.statistics.predictions import Predictions, Recipe

STRATEGY, REGIME = "strategy", "regime"

COLUMNS = (
    "kind", "within", "a", "b", "test", "metric", "difference", "low", "high", "low_simultaneous", "high_simultaneous",
    "seeds", "images", "groups", "se_seed", "se_image", "df", "verdict", "helps", "basis", "seeds_left_out",
    "family", "value_a", "value_b",
)  # fmt: skip

BOTH, IMAGES_ONLY, NOTHING = "seeds and images", "images only", "nothing"


@dataclass(frozen=True)
class RecipePair:
    """Two recipes that differ in one thing. ``kind`` says in what; ``within`` is what they share."""

    kind: str
    within: str
    a: Recipe
    b: Recipe

    @property
    def names(self) -> tuple[str, str]:
        """What differs, of a and of b."""
        place = 0 if self.kind == STRATEGY else 1
        return self.a[place], self.b[place]


@dataclass(frozen=True)
class PairedValues:
    """Differences of two recipes, paired by seed and image.

    Attributes:
        pair: the recipes.
        values: (seeds, images) of a minus b; none where they share no seed.
        units: (images,).
        means: mean scores of a and of b over the seeds that count.
        left_out: seeds of either that have no partner, or whose score is not defined.
    """

    pair: RecipePair
    values: NDArray[np.float64]
    units: NDArray[np.str_]
    means: tuple[float, float]
    left_out: int


def pairs_of(recipes: Iterable[Recipe]) -> list[RecipePair]:
    """Return all pairs of strategies within a regime, then all pairs of regimes within a strategy, in plan order."""
    known = list(dict.fromkeys(recipes))
    strategies, regimes = (list(dict.fromkeys(names)) for names in zip(*known, strict=True)) if known else ([], [])
    found = [
        RecipePair(STRATEGY, regime, Recipe(a, regime), Recipe(b, regime))
        for regime in regimes
        for a, b in itertools.combinations([one for one in strategies if (one, regime) in known], 2)
    ]
    found += [
        RecipePair(REGIME, strategy, Recipe(strategy, a), Recipe(strategy, b))
        for strategy in strategies
        for a, b in itertools.combinations([one for one in regimes if (strategy, one) in known], 2)
    ]
    return found


def comparisons_table(predictions: Predictions) -> pd.DataFrame:
    """Return a row a comparison and test set, with ``COLUMNS``: what comparisons.csv holds.

    ``difference`` is a minus b in the study's metric; ``low`` and ``high`` bound it at 95 % taken alone,
    ``low_simultaneous`` and ``high_simultaneous`` so that all of the study's comparisons hold at once, and the
    ``verdict`` on a rests on those. ``se_seed`` and ``se_image`` are the standard errors from the choice of seeds and
    of images, ``df`` the degrees of freedom of the interval taken alone. ``groups`` counts the independent units among
    the images. ``basis`` is "images only" where there is one seed: then the interval says nothing about other seeds,
    there is no simultaneous one, and the verdict is that there is too little to tell. ``seeds_left_out`` counts seeds
    that finished in one of the two recipes only, or whose score is not defined; ``family`` the comparisons that hold at
    once. Comparisons without a common seed have no numbers.

    Source of the method: ``unfreeze.statistics.intervals``.
    """
    metric, pairs = predictions.metric, pairs_of(predictions.recipes)
    paired = {test: _all_paired(predictions, pairs, test) for test in predictions.tests}
    sizes = {test: sum(_has_seeds(one) for one in found) for test, found in paired.items()}
    whole = sum(sizes.values())
    rows: list[dict[str, Any]] = []
    for test, found in paired.items():
        tables = [crossed(units_of(one.values, one.units)) if one.values.size else None for one in found]
        known = [table for table in tables if table is not None]
        recipes = len({recipe for one in found if _has_seeds(one) for recipe in (one.pair.a, one.pair.b)})
        # Each test set gets its share of what the intervals may leave out.
        level = LEVEL * sizes[test] / whole if whole else LEVEL
        parts = iter(simultaneous(known, recipes, _floor(metric), level))
        for one, table in zip(found, tables, strict=True):
            part = next(parts) if table is not None else None
            rows.append(_row(metric, test, one, table, part, whole))
    whole_numbers = dict.fromkeys(("seeds", "images", "groups", "seeds_left_out", "family"), "Int64")
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(whole_numbers)


def compare(table: pd.DataFrame, a: str, b: str) -> pd.DataFrame:
    """Return the rows of ``comparisons_table`` that compare two strategies, or two regimes, a minus b in each.

    Raises:
        UserError: they are not two of the study's strategies or two of its regimes.
    """
    for kind in (STRATEGY, REGIME):
        own = table[table["kind"] == kind]
        if {a, b} <= {*own["a"], *own["b"]} and a != b:
            straight, turned = own[(own["a"] == a) & (own["b"] == b)], own[(own["a"] == b) & (own["b"] == a)]
            return pd.concat([straight, turn(turned)]).sort_index().reset_index(drop=True)
    known = [
        ", ".join(dict.fromkeys([*table.loc[table["kind"] == kind, "a"], *table.loc[table["kind"] == kind, "b"]]))
        for kind in (STRATEGY, REGIME)
    ]
    kinds = zip(("strategies", "regimes"), known, strict=True)
    listed = " or ".join(f"two of the {kind} {names}" for kind, names in kinds if names)
    raise UserError(
        f"compare: {a!r} and {b!r} are not two of the study's strategies or two of its regimes",
        listed or "finished cells of two strategies or of two regimes",
        "name two of them" if listed else "run more of it",
    )


def turn(table: pd.DataFrame) -> pd.DataFrame:
    """Return comparisons seen from the other side: b minus a."""
    turned = table.copy()
    turned["a"], turned["b"] = table["b"], table["a"]
    turned["value_a"], turned["value_b"] = table["value_b"], table["value_a"]
    turned["difference"] = -table["difference"]
    for low, high in (("low", "high"), ("low_simultaneous", "high_simultaneous")):
        turned[low], turned[high] = -table[high], -table[low]
    turned["verdict"] = table["verdict"].replace({"better": "worse", "worse": "better"})
    return turned


def paired(predictions: Predictions, pair: RecipePair, test: str, metric: str | None = None) -> PairedValues:
    """Return the differences of two recipes on a test set, for the images that all of their common seeds predict."""
    metric = metric or predictions.metric
    return _paired(pair, *(predictions.runs(recipe, test, metric) for recipe in (pair.a, pair.b)))


def _all_paired(predictions: Predictions, pairs: list[RecipePair], test: str) -> list[PairedValues]:
    recipes = {recipe for pair in pairs for recipe in (pair.a, pair.b)}
    runs = {recipe: predictions.runs(recipe, test, predictions.metric) for recipe in recipes}
    return [_paired(pair, runs[pair.a], runs[pair.b]) for pair in pairs]


def _paired(pair: RecipePair, runs_a: dict[int, pd.DataFrame], runs_b: dict[int, pd.DataFrame]) -> PairedValues:
    every = sorted({*runs_a, *runs_b})
    seeds = [seed for seed in every if all(seed in runs and _defined(runs[seed]) for runs in (runs_a, runs_b))]
    left_out = len(every) - len(seeds)
    if not seeds:
        return PairedValues(pair, np.zeros((0, 0)), np.zeros(0, np.str_), (math.nan, math.nan), left_out)
    tables = [runs[seed] for seed in seeds for runs in (runs_a, runs_b)]
    first = tables[0]
    if not all(table.index.equals(first.index) for table in tables):
        common = first.index
        for table in tables[1:]:
            common = common[common.isin(table.index)]
        tables = [table.loc[common] for table in tables]
        first = tables[0]
    numbers = np.array([table["value"].to_numpy(np.float64) for table in tables])
    a, b = numbers[0::2], numbers[1::2]
    means = (float(a.mean()), float(b.mean())) if len(first) else (math.nan, math.nan)
    return PairedValues(pair, a - b, first["unit"].to_numpy(np.str_), means, left_out)


def _defined(run: pd.DataFrame) -> bool:
    return len(run) > 0 and bool(np.isfinite(run["value"]).all())


def _has_seeds(one: PairedValues) -> bool:
    """Tell whether a verdict is possible: the comparison then belongs to the family."""
    return one.values.shape[0] > 1 and len(np.unique(one.units)) > 1


def _floor(metric: str) -> float:
    """One image that changes moves a share by 1 / images; nothing is known to be more certain than that."""
    return 1.0 if METRICS[metric].is_share else 0.0


def _row(
    metric: str, test: str, one: PairedValues, table: CrossedMean | None, part: Simultaneous | None, family: int
) -> dict[str, Any]:
    a, b = one.pair.names
    row: dict[str, Any] = dict.fromkeys(COLUMNS, math.nan)
    row |= {"kind": one.pair.kind, "within": one.pair.within, "a": a, "b": b, "test": test, "metric": metric}
    row |= {"seeds": one.values.shape[0], "images": one.values.shape[1], "groups": len(np.unique(one.units))}
    row |= {"seeds_left_out": one.left_out, "family": family, "value_a": one.means[0], "value_b": one.means[1]}
    if table is None:
        return row | {"verdict": TOO_LITTLE, "helps": "runs of both with the same seeds", "basis": NOTHING}
    difference = float(table.mean)
    half = float(half_width(table, _floor(metric) / table.images))
    whole = math.nan if part is None else float(part.half)
    said = verdict(metric, difference, whole)
    seeds = table.seeds > 1
    unit = "test image" if table.images == one.values.shape[1] else "test group"
    least, most = METRICS[metric].bounds
    widest = most - least
    return row | {
        "difference": difference,
        "low": max(difference - half, -widest),
        "high": min(difference + half, widest),
        "low_simultaneous": max(difference - whole, -widest),
        "high_simultaneous": min(difference + whole, widest),
        "se_seed": math.sqrt(float(table.from_seeds)) if part is not None else math.nan,
        "se_image": math.sqrt(float(table.from_images if seeds else table.ms_image / table.images)),
        "df": float(degrees(table)) if table.images > 1 else math.nan,
        "verdict": said,
        "helps": helps(metric, difference, part, unit) if said == TOO_LITTLE else "",
        "basis": BOTH if seeds else IMAGES_ONLY,
    }


@dataclass(frozen=True)
class Comparison:
    """A recipe minus another, on a test set.

    Attributes:
        recipe, other: strategy and regime of both.
        metric: the study's.
        difference: in units of the metric.
        low, high: simultaneous 95 % interval; at one seed the one taken alone, over images; NaN where there is none.
        verdict: on ``recipe``, of ``statistics.intervals``.
        helps: what would settle it; "" where it is settled.
        seeds: that both have.
        images: test images that all of them predict.
        basis: of ``statistics.comparisons``.
    """

    recipe: Recipe
    other: Recipe
    metric: str
    difference: float
    low: float
    high: float
    verdict: str
    helps: str
    seeds: int
    images: int
    basis: str

    @property
    def effect(self) -> str:
        """The difference with its interval and what it rests on."""
        if self.basis == NOTHING:
            return "no seed in common"
        rests = ", over images alone" if self.basis == IMAGES_ONLY else ""
        return f"{difference_text(self.metric, self.difference, self.low, self.high)}{rests}"


def compared(comparisons: pd.DataFrame, recipe: Recipe, other: Recipe, test: str) -> Comparison | None:
    """Return the study's comparison of two recipes; None where it makes none, as where they differ in both.

    Args:
        comparisons: the table of ``comparisons_table``.
        recipe, other: strategy and regime.
        test: name of the test set.
    """
    if (recipe.strategy == other.strategy) == (recipe.regime == other.regime):
        return None
    kind, place = (STRATEGY, 0) if recipe.regime == other.regime else (REGIME, 1)
    of_kind = (
        (comparisons["kind"] == kind) & (comparisons["within"] == recipe[1 - place]) & (comparisons["test"] == test)
    )
    own = comparisons[of_kind]
    for a, b in ((recipe, other), (other, recipe)):
        found = own[(own["a"] == a[place]) & (own["b"] == b[place])]
        if len(found):
            row = (found if a == recipe else turn(found)).iloc[0]
            bounds = ("low_simultaneous", "high_simultaneous")
            if not math.isfinite(row["low_simultaneous"]):
                bounds = ("low", "high")
            return Comparison(
                recipe=recipe,
                other=other,
                metric=str(row["metric"]),
                difference=float(row["difference"]),
                low=float(row[bounds[0]]),
                high=float(row[bounds[1]]),
                verdict=str(row["verdict"]),
                helps=str(row["helps"]),
                seeds=int(row["seeds"]),
                images=int(row["images"]),
                basis=str(row["basis"]),
            )
    return None


def settle_text(found: Comparison) -> str:
    """Say what would settle a comparison, as a clause that ends a sentence; "" where it is settled."""
    return f"; to settle it: {found.helps}" if found.verdict == TOO_LITTLE and found.helps else ""
