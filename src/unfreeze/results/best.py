"""Which field and cell a study recommends: validation chooses, the test set never does."""

import pandas as pd

from unfreeze.metrics import HIGHER_IS_BETTER


def best_cell(results: pd.DataFrame, metric: str) -> str | None:
    """Return the cell that stands for the study's best model; None where no finished cell has a validation metric.

    It is the seed (or fold) with the best validation metric of the strategy and regime with the best mean one; of
    equals the first in plan order.

    Args:
        results: the table of ``results_table``.
        metric: the study's metric, which ``val_metric`` holds.
    """
    done = results[(results["status"] == "finished") & results["val_metric"].notna()]
    if done.empty:
        return None
    sign = 1 if HIGHER_IS_BETTER[metric] else -1
    means = sign * done.groupby(["strategy", "regime"], sort=False)["val_metric"].transform("mean")
    best = done.iloc[int(means.argmax())]
    field = done[(done["strategy"] == best["strategy"]) & (done["regime"] == best["regime"])]
    return str(field["cell"].iloc[int((sign * field["val_metric"]).argmax())])
