"""Which recipe a study recommends: the best mean validation metric. Test scores never choose."""

from dataclasses import dataclass

import pandas as pd

from unfreeze.metrics import HIGHER_IS_BETTER

DIGITS = 12
"""Of a mean that count: what sums in another order differ by must not choose, nor hide that two fields are level."""


@dataclass(frozen=True)
class Ranked:
    """A strategy with a regime, and how it did on validation: mean and runs (seeds x folds) that finished."""

    strategy: str
    regime: str
    mean: float
    runs: int


def ranking(results: pd.DataFrame, metric: str) -> list[Ranked]:
    """Return the fields that have a validation metric, best mean first, plan order among equals.

    Args:
        results: the table of ``results_table``.
        metric: the study's metric, which ``val_metric`` holds.
    """
    done = results[(results["status"] == "finished") & results["val_metric"].notna()]
    fields = [
        Ranked(str(strategy), str(regime), round(float(group["val_metric"].mean()), DIGITS), len(group))
        for (strategy, regime), group in done.groupby(["strategy", "regime"], sort=False)
    ]
    return sorted(fields, key=lambda field: -field.mean if HIGHER_IS_BETTER[metric] else field.mean)


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


def recommended(results: pd.DataFrame, metric: str) -> Ranked | None:
    """Return the field to use, or None where nothing has finished."""
    fields = ranking(results, metric)
    return fields[0] if fields else None


def best_cell(results: pd.DataFrame, metric: str) -> str | None:
    """Return the id of the recommended field's cell with the best validation metric: the model to take away."""
    field = recommended(results, metric)
    if field is None:
        return None
    done = results[(results["status"] == "finished") & results["val_metric"].notna()]
    own = done[(done["strategy"] == field.strategy) & (done["regime"] == field.regime)]
    place = int((own["val_metric"].argmax if HIGHER_IS_BETTER[metric] else own["val_metric"].argmin)())
    return str(own["cell"].iloc[place])
