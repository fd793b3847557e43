"""The results of a study for people: a table with a row a strategy and regime, and the answer in a few lines."""

import math
from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from unfreeze.cli.screen import least_width, table
from unfreeze.results.words import METRIC_NAMES, MISSING, metric_text, seconds_text, spread_text

if TYPE_CHECKING:
    import pandas as pd

    from unfreeze.results.answer import Answer

LEAST_TELLING = ("epochs", "a cell", "cells")


def summary(results: "pd.DataFrame", metric: str, console: Console) -> Table:
    """Return the table of ``summary_table``, its measures written out with their standard deviations.

    Where it is wider than the console, it goes without what says least.
    """
    from unfreeze.results.tables import summary_table

    means = summary_table(results)
    scores = {"validation": "val_metric", "test": "test_metric"}
    further = [column for column in means.columns if column.startswith("test_") and column.endswith("_metric_mean")]
    for column in further:
        if column != "test_metric_mean":
            name = column.removesuffix("_metric_mean")
            scores[name.removeprefix("test_")] = f"{name}_metric"
    rows = [_row(row, metric, scores) for row in means.to_dict("records")]
    over = "seeds and folds" if results["fold"].notna().any() else "seeds"
    hidden: tuple[str, ...] = ()
    for hidden in ((), LEAST_TELLING[:1], LEAST_TELLING[:2], LEAST_TELLING):
        made = _table(rows, metric, over, hidden)
        if least_width(console, made) <= console.width:
            break
    return made


def answer_lines(answer: "Answer") -> list[Text]:
    """Return the report's answer: a line a fact, label first."""
    from unfreeze.results.answer_text import NOTHING_YET, ON_TEST, facts

    found = facts(answer)
    if not found:
        return [Text(NOTHING_YET)]
    width = max(len(fact.label) for fact in found)
    lines = [Text(ON_TEST, style="yellow")] if answer.on_test else []
    for fact in found:
        line = Text(f"{fact.label:<{width}}  ", style="dim")
        line.append(fact.value, style="not dim bold")
        line.append(f" ({fact.detail})" if fact.detail else "", style="not dim")
        lines.append(line)
    return lines


def _table(rows: list[dict[str, str]], metric: str, over: str, hidden: tuple[str, ...]) -> Table:
    shown = [name for name in rows[0] if name not in hidden]
    made = table(*shown, numbers=tuple(shown[2:]))
    made.title = f"{METRIC_NAMES[metric]}, mean and standard deviation over {over}"
    made.title_justify, made.title_style = "left", "dim"
    for row in rows:
        made.add_row(*(row[name] for name in shown))
    return made


def _row(row: dict[Hashable, Any], metric: str, scores: dict[str, str]) -> dict[str, str]:
    return {
        "strategy": str(row["strategy"]),
        "regime": str(row["regime"]),
        "cells": f"{row['finished']}/{row['cells']}",
        "epochs": _plain(row["epochs_mean"]),
        **{name: _score(metric, row[f"{column}_mean"], row[f"{column}_std"]) for name, column in scores.items()},
        "an epoch": seconds_text(row["seconds_per_epoch_mean"]),
        "a cell": seconds_text(row["seconds_total_mean"]),
    }


def _plain(value: Any) -> str:
    return MISSING if math.isnan(value) else f"{value:.3g}"


def _score(metric: str, mean: float, deviation: float) -> str:
    if math.isnan(mean):
        return MISSING
    spread = "" if math.isnan(deviation) else f" ± {spread_text(metric, deviation).removesuffix(' points')}"
    return f"{metric_text(metric, mean)}{spread}"
