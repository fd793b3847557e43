"""Measure what augmentation is worth: in the metric, and in additional training images per class."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from unfreeze.seeds import stream_generator
from unfreeze.statistics.comparisons import REGIME, RecipePair, paired_values
from unfreeze.statistics.intervals import LEVEL, by_unit, crossed_mean, degrees_of_freedom, half_width
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
    """Return each pair of a regime without augmentation and one that differs only in augmentation settings."""

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
    """Return one row per strategy and pair of regimes that differ only in augmentation, with ``COLUMNS``.

    ``difference`` is augmented minus plain in the test metric, each at its best epoch, with a single interval over
    seeds and images (``statistics.intervals``). ``difference_equal_examples`` is that of the validation metric after
    equal numbers of ``examples``: of the last epoch that each has finished by then, paired by seed, with a t interval
    over seeds. The longer schedule of the two is then unfinished.

    ``equivalent`` is the number of images per class at which the strategy scores the same without augmentation, by its
    plain learning curve, with an interval that includes the uncertainty of curve and difference; inf where the curve
    never reaches that score. ``reading`` says where this extrapolates beyond ``measured_from`` to ``measured_to``.

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
            row |= _at_best_epoch(predictions, strategy, plain, augmented, test, size, curves)
            rows.append(row)
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype({"seeds": "Int64"})


def _at_best_epoch(
    predictions: Predictions,
    strategy: str,
    plain: str,
    augmented: str,
    test: str,
    size: float,
    curves: Iterable[Curve],
) -> dict[str, Any]:
    pair = RecipePair(REGIME, strategy, Recipe(strategy, augmented), Recipe(strategy, plain))
    found = paired_values(predictions, pair, test)
    row: dict[str, Any] = {"seeds": found.values.shape[0], "reading": NO_CURVE}
    if not found.values.size:
        return row
    table = crossed_mean(by_unit(found.values, found.units))
    difference, half = float(table.mean), float(half_width(table))
    row |= {"difference": difference, "low": difference - half, "high": difference + half}
    curve = next((curve for curve in curves if curve.strategy == strategy and plain in curve.regimes), None)
    if curve is None or not math.isfinite(half):
        return row
    free = float(degrees_of_freedom(table))
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
    """Compare validation metrics after equal numbers of examples; mean over the runs that can be paired."""
    both = plain.merge(augmented, on=["seed", "fold"], suffixes=("_plain", "_augmented"))
    differences: dict[Any, list[float]] = {}
    examples = []
    for run in both.to_dict("records"):
        histories = [epochs.get(run[f"cell_{side}"]) for side in ("plain", "augmented")]
        if any(history is None for history in histories):
            continue
        drawn = min(int(history["examples"].max()) for history in histories if history is not None)
        values = [_value_by(history, drawn) for history in histories if history is not None]
        if np.isfinite(values).all():
            differences.setdefault(run["seed"], []).append(values[1] - values[0])
            examples.append(drawn)
    if not differences:
        return {}
    by_seed = np.array([np.mean(values) for values in differences.values()])
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


def _value_by(history: pd.DataFrame, examples: int) -> float:
    """Return the validation metric of the last epoch that ends within this number of examples."""
    seen = history[history["examples"] <= examples]
    return float(seen["val_metric"].iloc[-1]) if len(seen) else math.nan
