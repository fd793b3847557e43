"""Compare strategies within each regime and regimes within each strategy, with intervals and verdicts."""

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
    SimultaneousInterval,
    by_unit,
    crossed_mean,
    degrees_of_freedom,
    half_width,
    helps_text,
    simultaneous_intervals,
    verdict,
)
from unfreeze.statistics.predictions import Predictions, Recipe, common_values

STRATEGY, REGIME = "strategy", "regime"

COLUMNS = (
    "kind", "within", "a", "b", "test", "metric", "difference", "low", "high", "low_simultaneous", "high_simultaneous",
    "seeds", "images", "groups", "se_seed", "se_image", "df", "verdict", "helps", "basis", "seeds_left_out",
    "family", "value_a", "value_b",
)  # fmt: skip

BOTH, IMAGES_ONLY, NOTHING = "seeds and images", "images only", "nothing"


@dataclass(frozen=True)
class RecipePair:
    """Two recipes that differ in ``kind``, strategy or regime, and share the other, ``within``."""

    kind: str
    within: str
    a: Recipe
    b: Recipe

    @property
    def names(self) -> tuple[str, str]:
        """The names in which a and b differ."""
        place = 0 if self.kind == STRATEGY else 1
        return self.a[place], self.b[place]


@dataclass(frozen=True)
class PairedValues:
    """Differences of two recipes, paired by seed and image.

    Attributes:
        pair: the recipes.
        values: (seeds, images) of a minus b; empty where they share no seed.
        units: (images,) names of the independent units.
        means: mean scores of a and of b over the common seeds.
        left_out: number of seeds that only one of them has, or whose score is not defined.
    """

    pair: RecipePair
    values: NDArray[np.float64]
    units: NDArray[np.str_]
    means: tuple[float, float]
    left_out: int


def recipe_pairs(recipes: Iterable[Recipe]) -> list[RecipePair]:
    """Return all pairs of strategies within a regime, then all pairs of regimes within a strategy, in plan order."""
    known = list(dict.fromkeys(recipes))
    strategies, regimes = (list(dict.fromkeys(names)) for names in zip(*known, strict=True)) if known else ([], [])
    found = [
        RecipePair(STRATEGY, regime, Recipe(a, regime), Recipe(b, regime))
        for regime in regimes
        for a, b in itertools.combinations([name for name in strategies if (name, regime) in known], 2)
    ]
    found += [
        RecipePair(REGIME, strategy, Recipe(strategy, a), Recipe(strategy, b))
        for strategy in strategies
        for a, b in itertools.combinations([name for name in regimes if (strategy, name) in known], 2)
    ]
    return found


def comparisons_table(predictions: Predictions) -> pd.DataFrame:
    """Return one row per comparison and test set, with ``COLUMNS``: the table of comparisons.csv.

    ``difference`` is a minus b in the study's metric. ``low`` and ``high`` bound its single 95 % interval,
    ``low_simultaneous`` and ``high_simultaneous`` the interval that holds for all of the study's comparisons at once;
    the ``verdict`` on a uses the latter. ``se_seed`` and ``se_image`` are the standard errors due to seeds and to
    images, ``df`` the degrees of freedom of the single interval. ``groups`` is the number of independent units among
    the images. ``basis`` is "images only" at one seed: then the interval does not cover other seeds, there is no
    simultaneous one, and the verdict is "too little to tell". ``seeds_left_out`` counts seeds that finished in only one
    of the two recipes, or whose score is not defined; ``family`` is the number of simultaneous comparisons.
    Comparisons without a common seed have no numbers.

    The method is described in ``unfreeze.statistics.intervals``.
    """
    metric, pairs = predictions.metric, recipe_pairs(predictions.recipes)
    values_by_test = {test: _paired_values_of_all(predictions, pairs, test) for test in predictions.tests}
    sizes = {test: sum(map(_allows_verdict, found)) for test, found in values_by_test.items()}
    family = sum(sizes.values())
    rows: list[dict[str, Any]] = []
    for test, found in values_by_test.items():
        tables = [
            crossed_mean(by_unit(paired.values, paired.units)) if paired.values.size else None for paired in found
        ]
        known = [table for table in tables if table is not None]
        recipes = len(
            {recipe for paired in found if _allows_verdict(paired) for recipe in (paired.pair.a, paired.pair.b)}
        )
        # The error level is divided among the test sets by their numbers of comparisons.
        level = LEVEL * sizes[test] / family if family else LEVEL
        parts = iter(simultaneous_intervals(known, recipes, _floor(metric), level))
        for paired, table in zip(found, tables, strict=True):
            part = next(parts) if table is not None else None
            rows.append(_row(metric, test, paired, table, part, family))
    whole_numbers = dict.fromkeys(("seeds", "images", "groups", "seeds_left_out", "family"), "Int64")
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(whole_numbers)


def compare(table: pd.DataFrame, a: str, b: str) -> pd.DataFrame:
    """Return the rows of ``comparisons_table`` that compare two strategies or two regimes, as a minus b.

    Raises:
        UserError: a and b are not two of the study's strategies or two of its regimes.
    """
    for kind in (STRATEGY, REGIME):
        own = table[table["kind"] == kind]
        if {a, b} <= {*own["a"], *own["b"]} and a != b:
            straight, turned = own[(own["a"] == a) & (own["b"] == b)], own[(own["a"] == b) & (own["b"] == a)]
            return pd.concat([straight, swapped(turned)]).sort_index().reset_index(drop=True)
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


def swapped(table: pd.DataFrame) -> pd.DataFrame:
    """Return comparisons with a and b swapped: b minus a."""
    turned = table.copy()
    turned["a"], turned["b"] = table["b"], table["a"]
    turned["value_a"], turned["value_b"] = table["value_b"], table["value_a"]
    turned["difference"] = -table["difference"]
    for low, high in (("low", "high"), ("low_simultaneous", "high_simultaneous")):
        turned[low], turned[high] = -table[high], -table[low]
    turned["verdict"] = table["verdict"].replace({"better": "worse", "worse": "better"})
    return turned


def paired_values(predictions: Predictions, pair: RecipePair, test: str, metric: str | None = None) -> PairedValues:
    """Return paired differences of two recipes on the test images that all of their common seeds predict."""
    metric = metric or predictions.metric
    return _pair_values(pair, *(predictions.runs(recipe, test, metric) for recipe in (pair.a, pair.b)))


def _paired_values_of_all(predictions: Predictions, pairs: list[RecipePair], test: str) -> list[PairedValues]:
    recipes = {recipe for pair in pairs for recipe in (pair.a, pair.b)}
    runs = {recipe: predictions.runs(recipe, test, predictions.metric) for recipe in recipes}
    return [_pair_values(pair, runs[pair.a], runs[pair.b]) for pair in pairs]


def _pair_values(pair: RecipePair, runs_a: dict[int, pd.DataFrame], runs_b: dict[int, pd.DataFrame]) -> PairedValues:
    all_seeds = sorted({*runs_a, *runs_b})
    seeds = [seed for seed in all_seeds if all(seed in runs and _defined(runs[seed]) for runs in (runs_a, runs_b))]
    left_out = len(all_seeds) - len(seeds)
    if not seeds:
        return PairedValues(pair, np.zeros((0, 0)), np.zeros(0, np.str_), (math.nan, math.nan), left_out)
    tables = [runs[seed] for seed in seeds for runs in (runs_a, runs_b)]
    values, units, _ = common_values(tables)
    a, b = values[0::2], values[1::2]
    means = (float(a.mean()), float(b.mean())) if values.size else (math.nan, math.nan)
    return PairedValues(pair, a - b, units, means, left_out)


def _defined(run: pd.DataFrame) -> bool:
    return len(run) > 0 and bool(np.isfinite(run["value"]).all())


def _allows_verdict(paired: PairedValues) -> bool:
    """Tell whether there are two seeds and two units, so that the comparison belongs to the family."""
    return paired.values.shape[0] > 1 and len(np.unique(paired.units)) > 1


def _floor(metric: str) -> float:
    """Return a lower bound of a standard error times the number of units: one unit changes a share by 1 / units."""
    return 1.0 if METRICS[metric].is_share else 0.0


def _row(
    metric: str,
    test: str,
    paired: PairedValues,
    table: CrossedMean | None,
    part: SimultaneousInterval | None,
    family: int,
) -> dict[str, Any]:
    a, b = paired.pair.names
    row: dict[str, Any] = dict.fromkeys(COLUMNS, math.nan)
    row |= {"kind": paired.pair.kind, "within": paired.pair.within, "a": a, "b": b, "test": test, "metric": metric}
    row |= {"seeds": paired.values.shape[0], "images": paired.values.shape[1], "groups": len(np.unique(paired.units))}
    row |= {"seeds_left_out": paired.left_out, "family": family, "value_a": paired.means[0], "value_b": paired.means[1]}
    if table is None:
        return row | {"verdict": TOO_LITTLE, "helps": "runs of both with the same seeds", "basis": NOTHING}
    difference = float(table.mean)
    half = float(half_width(table, _floor(metric) / table.images))
    joint_half = math.nan if part is None else float(part.half)
    found = verdict(metric, difference, joint_half)
    several_seeds = table.seeds > 1
    unit = "test image" if table.images == paired.values.shape[1] else "test group"
    least, most = METRICS[metric].bounds
    widest = most - least
    return row | {
        "difference": difference,
        "low": max(difference - half, -widest),
        "high": min(difference + half, widest),
        "low_simultaneous": max(difference - joint_half, -widest),
        "high_simultaneous": min(difference + joint_half, widest),
        "se_seed": math.sqrt(float(table.from_seeds)) if part is not None else math.nan,
        "se_image": math.sqrt(float(table.from_images if several_seeds else table.ms_image / table.images)),
        "df": float(degrees_of_freedom(table)) if table.images > 1 else math.nan,
        "verdict": found,
        "helps": helps_text(metric, difference, part, unit) if found == TOO_LITTLE else "",
        "basis": BOTH if several_seeds else IMAGES_ONLY,
    }


@dataclass(frozen=True)
class Comparison:
    """A recipe minus another, on a test set.

    Attributes:
        recipe, other: the two recipes.
        metric: of the study.
        difference: in units of the metric.
        low, high: simultaneous 95 % interval; at one seed the single one, over images; NaN where there is none.
        verdict: on ``recipe``, from ``statistics.intervals``.
        helps: seeds or images that a verdict needs; "" where there is a verdict.
        seeds: number of common seeds.
        images: number of test images that all of their runs predict.
        basis: sources of variation that the interval covers.
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
        """The difference with its interval, as text."""
        covers = ", an interval over images only" if self.basis == IMAGES_ONLY else ""
        return f"{difference_text(self.metric, self.difference, self.low, self.high)}{covers}"


def comparison_of(comparisons: pd.DataFrame, recipe: Recipe, other: Recipe, test: str) -> Comparison | None:
    """Return a study's comparison of two recipes; None unless they share strategy or regime.

    Args:
        comparisons: the table of ``comparisons_table``.
        recipe, other: the two recipes.
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
            row = (found if a == recipe else swapped(found)).iloc[0]
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


def needed_text(found: Comparison) -> str:
    """Return what a verdict needs, as the end of a sentence; "" where there is a verdict."""
    return f"; a verdict needs {found.helps}" if found.verdict == TOO_LITTLE and found.helps else ""
