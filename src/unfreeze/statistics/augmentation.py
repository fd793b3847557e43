"""What augmentation is worth: in the metric, at the best epoch and at equal examples seen, and in images a class."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from unfreeze.seeds import stream_generator
from unfreeze.statistics.comparisons import REGIME, RecipePair, paired
from unfreeze.statistics.intervals import LEVEL, crossed, degrees, half_width, units_of
from unfreeze.statistics.learning_curve import Curve
from unfreeze.statistics.predictions import Predictions, Recipe
from unfreeze.statistics.tables import chosen_history

COLUMNS = (
    "strategy", "plain", "augmented", "augment", "images_per_class", "test", "metric", "seeds", "difference", "low",
    "high", "examples", "difference_equal_examples", "low_equal_examples", "high_equal_examples", "equivalent",
    "equivalent_low", "equivalent_high", "measured_from", "measured_to", "reading",
)  # fmt: skip

_FREE = ("augment", "views", "examples_per_epoch", "validation", "sweep")
WITHIN, BEYOND, BELOW = "", "beyond the measured range", "below the measured range"
NO_CURVE = "no learning curve to read it off: that takes three sizes without augmentation"


def twins(regimes: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Return each pair of a plain regime and one that differs in augmentation, and what goes with it, alone."""

    def rest(settings: Mapping[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in settings.items() if key not in _FREE}

    plain = [name for name, settings in regimes.items() if settings.get("augment", "none") == "none"]
    return [
        (twin, name)
        for name, settings in regimes.items()
        if name not in plain
        for twin in plain
        if rest(regimes[twin]) == rest(settings)
    ]


def augmentation_table(
    predictions: Predictions,
    results: pd.DataFrame,
    history: pd.DataFrame,
    regimes: Mapping[str, Mapping[str, Any]],
    curves: Sequence[Curve],
    test: str = "test",
) -> pd.DataFrame:
    """Return a row a strategy and pair of regimes that differ in augmentation alone, with ``COLUMNS``.

    ``difference`` is augmented minus plain in the test metric, each at its best epoch, with its interval over seeds and
    images (``statistics.intervals``). ``difference_equal_examples`` is that of the validation metric where both have
    drawn the same number of ``examples``: the last epoch of each that ends by then, paired by seed, with a t interval
    over seeds. A schedule that ends later is then in the middle of its course.

    ``equivalent`` is the number of images a class with which the strategy would do as well without augmentation, read
    off its plain learning curve, with an interval that counts the curve's and the difference's; inf where the curve
    never gets there. ``reading`` says where that is an extrapolation, beyond ``measured_from`` to ``measured_to``.

    Args:
        predictions: of the study.
        results: the table of ``results_table``.
        history: the table of ``history_table``.
        regimes: the resolved regimes by name.
        curves: of ``learning_curves`` on the same test set.
        test: name of the test set.
    """
    epochs = {str(cell): part for cell, part in chosen_history(results, history).groupby("cell", sort=False)}
    done = results[results["status"] == "finished"]
    pairs = twins(regimes)
    rows = []
    for strategy in dict.fromkeys(recipe.strategy for recipe in predictions.recipes):
        for plain, augmented in pairs:
            own = {name: done[(done["strategy"] == strategy) & (done["regime"] == name)] for name in (plain, augmented)}
            if any(group.empty for group in own.values()):
                continue
            size = float(own[plain]["n_train"].astype("float64").mean()) / len(predictions.classes)
            row: dict[str, Any] = dict.fromkeys(COLUMNS, math.nan)
            row |= {"strategy": strategy, "plain": plain, "augmented": augmented, "images_per_class": size}
            row |= {"augment": regimes[augmented]["augment"], "test": test, "metric": predictions.metric}
            row |= _equal_examples(own[plain], own[augmented], epochs)
            row |= _at_best(predictions, strategy, plain, augmented, test, size, curves)
            rows.append(row)
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype({"seeds": "Int64"})


def _at_best(
    predictions: Predictions,
    strategy: str,
    plain: str,
    augmented: str,
    test: str,
    size: float,
    curves: Iterable[Curve],
) -> dict[str, Any]:
    pair = RecipePair(REGIME, strategy, Recipe(strategy, augmented), Recipe(strategy, plain))
    found = paired(predictions, pair, test)
    row: dict[str, Any] = {"seeds": found.values.shape[0], "reading": NO_CURVE}
    if not found.values.size:
        return row
    table = crossed(units_of(found.values, found.units))
    difference, half = float(table.mean), float(half_width(table))
    row |= {"difference": difference, "low": difference - half, "high": difference + half}
    curve = next((one for one in curves if one.strategy == strategy and plain in one.regimes), None)
    if curve is None or not math.isfinite(half):
        return row
    free = float(degrees(table))
    error = half / float(stats.t.ppf(1 - LEVEL / 2, free))
    drawn = stream_generator(0, "bootstrap", strategy, plain, augmented).standard_t(free, len(curve.draws))
    value, low, high = curve.size_for(difference, size, difference + error * drawn)
    least, most = float(curve.sizes[0]), float(curve.sizes[-1])
    reading = BEYOND if value > most else BELOW if value < least else WITHIN
    return row | {
        "equivalent": value,
        "equivalent_low": low,
        "equivalent_high": high,
        "measured_from": least,
        "measured_to": most,
        "reading": reading,
    }


def _equal_examples(plain: pd.DataFrame, augmented: pd.DataFrame, epochs: Mapping[str, pd.DataFrame]) -> dict[str, Any]:
    """Compare validation metrics where both have drawn as many examples; mean over the runs that can be paired."""
    both = plain.merge(augmented, on=["seed", "fold"], suffixes=("_plain", "_augmented"))
    differences: dict[Any, list[float]] = {}
    examples = []
    for run in both.to_dict("records"):
        courses = [epochs.get(run[f"cell_{side}"]) for side in ("plain", "augmented")]
        if any(course is None for course in courses):
            continue
        drawn = min(int(course["examples"].max()) for course in courses if course is not None)
        values = [_value_by(course, drawn) for course in courses if course is not None]
        if np.isfinite(values).all():
            differences.setdefault(run["seed"], []).append(values[1] - values[0])
            examples.append(drawn)
    if not differences:
        return {}
    by_seed = np.array([np.mean(one) for one in differences.values()])
    mean, count = float(by_seed.mean()), len(by_seed)
    half = (
        float(stats.t.ppf(1 - LEVEL / 2, count - 1) * by_seed.std(ddof=1) / math.sqrt(count)) if count > 1 else math.nan
    )
    return {
        "examples": float(np.mean(examples)),
        "difference_equal_examples": mean,
        "low_equal_examples": mean - half,
        "high_equal_examples": mean + half,
    }


def _value_by(course: pd.DataFrame, examples: int) -> float:
    """Return the validation metric of the last epoch that ends by so many examples."""
    seen = course[course["examples"] <= examples]
    return float(seen["val_metric"].iloc[-1]) if len(seen) else math.nan
