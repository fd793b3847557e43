"""The results of a study as a table for people: a row a strategy and regime, means over seeds."""

import math
from typing import TYPE_CHECKING, Any

from rich.table import Table

from unfreeze.cli.screen import table
from unfreeze.results.words import METRIC_NAMES, MISSING, metric_text, seconds_text, spread_text

if TYPE_CHECKING:
    import pandas as pd


def summary(results: "pd.DataFrame", metric: str) -> Table:
    """Return the table of ``summary_table``, its measures written out with their standard deviations."""
    from unfreeze.results.tables import summary_table

    means = summary_table(results)
    further = [
        column.removesuffix("_metric_mean")
        for column in means.columns
        if column.startswith("test_") and column.endswith("_metric_mean") and column != "test_metric_mean"
    ]
    scores = {"validation": "val_metric", "test": "test_metric"}
    scores |= {name.removeprefix("test_"): f"{name}_metric" for name in further}
    measures = ("cells", "epochs", *scores, "s/epoch", "s/cell")
    made = table("strategy", "regime", *measures, numbers=measures)
    made.title = f"{METRIC_NAMES[metric]}, mean and standard deviation over seeds"
    made.title_justify, made.title_style = "left", "dim"
    for row in means.to_dict("records"):
        made.add_row(
            str(row["strategy"]),
            str(row["regime"]),
            f"{row['finished']}/{row['cells']}",
            _plain(row["epochs_mean"]),
            *(_score(metric, row[f"{column}_mean"], row[f"{column}_std"]) for column in scores.values()),
            seconds_text(row["seconds_per_epoch_mean"]),
            seconds_text(row["seconds_total_mean"]),
        )
    return made


def _plain(value: Any) -> str:
    return MISSING if math.isnan(value) else f"{value:.3g}"


def _score(metric: str, mean: float, deviation: float) -> str:
    if math.isnan(mean):
        return MISSING
    spread = "" if math.isnan(deviation) else f" ± {spread_text(metric, deviation).removesuffix(' points')}"
    return f"{metric_text(metric, mean)}{spread}"
