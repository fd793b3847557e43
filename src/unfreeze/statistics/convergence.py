"""Measure how fast each recipe converges, how much it overfits, and its cost with and without reuse."""

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from unfreeze.statistics.tables import chosen_history

NEAR = 0.01
"""A run has converged within one point of its best validation accuracy."""

COLUMNS = (
    "strategy", "regime", "runs", "epochs", "best_epoch", "epochs_to_near_best", "seconds_to_near_best",
    "examples_to_near_best", "gap_at_best", "gap_at_best_low", "gap_at_best_high", "seconds_per_epoch",
    "seconds_total", "seconds_shared", "seconds_alone",
)  # fmt: skip

_MEANS = tuple(name for name in COLUMNS[3:] if name not in ("gap_at_best_low", "gap_at_best_high"))


def convergence_table(results: pd.DataFrame, history: pd.DataFrame, plan: Mapping[str, Any]) -> pd.DataFrame:
    """Return one row per recipe with finished cells, means over its runs, with ``COLUMNS``.

    ``epochs_to_near_best`` is the first epoch whose validation accuracy is within one point of the run's best, with the
    seconds and the examples up to its end (of the chosen candidate, without shared work). ``gap_at_best`` is training
    minus validation accuracy at the best epoch, ``_low`` and ``_high`` its range over the runs; training accuracy is a
    running mean over the epoch with dropout and augmentation on, so the true gap tends to be larger. ``seconds_total``
    and ``seconds_shared`` (the run's part of work that several runs use) are measured. ``seconds_alone`` is the
    measured time multiplied by how much longer the run is predicted to take in plain PyTorch without reuse
    (``reuse_factors``); NaN without a prediction. Numbers that no run has are NaN.

    Args:
        results: the table of ``results_table``.
        history: the table of ``history_table``.
        plan: plan.json.
    """
    factors = reuse_factors(plan)
    epochs = dict(list(chosen_history(results, history).groupby("cell", sort=False)))
    done = results[results["status"] == "finished"]
    rows = []
    for (strategy, regime), group in done.groupby(["strategy", "regime"], sort=False):
        runs = pd.DataFrame([_run(row, epochs.get(row["cell"]), factors) for row in group.to_dict("records")])
        means = {name: float(runs[name].astype("float64").mean()) for name in _MEANS}
        low, high = float(runs["gap_at_best"].min()), float(runs["gap_at_best"].max())
        rows.append(
            {"strategy": strategy, "regime": regime, "runs": len(group), **means}
            | {"gap_at_best_low": low, "gap_at_best_high": high}
        )
    return pd.DataFrame(rows, columns=list(COLUMNS))


def reuse_factors(plan: Mapping[str, Any]) -> dict[str, float]:
    """Return how many times as long each cell takes without reuse, by the predictions in plan.json.

    Both predictions come from the same measured steps, so their ratio is less sensitive to a busy machine than either.
    """
    return {
        str(cell["cell"]): float(cell["seconds_alone"]) / float(cell["seconds"])
        for cell in plan.get("reuse", [])
        if cell["seconds"] > 0
    }


def _run(row: dict[Any, Any], epochs: pd.DataFrame | None, factors: dict[str, float]) -> dict[str, float]:
    found = {name: math.nan for name in _MEANS}
    for name in ("epochs", "best_epoch", "seconds_per_epoch", "seconds_total", "seconds_shared"):
        found[name] = math.nan if pd.isna(row[name]) else float(row[name])
    found["seconds_alone"] = factors.get(str(row["cell"]), math.nan) * found["seconds_total"]
    if epochs is None or epochs["val_accuracy"].isna().all():
        return found
    near = epochs["val_accuracy"] >= epochs["val_accuracy"].max() - NEAR - 1e-12
    first = near.to_numpy().argmax()
    found["epochs_to_near_best"] = float(first + 1)
    found["seconds_to_near_best"] = float(epochs["seconds"].iloc[: first + 1].sum())
    found["examples_to_near_best"] = float(epochs["examples"].iloc[first])
    best = epochs[epochs["epoch"] == row["best_epoch"]]
    if len(best):
        found["gap_at_best"] = float((best["train_accuracy"] - best["val_accuracy"]).iloc[0])
    return found
