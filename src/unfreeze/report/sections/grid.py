"""The report's grid of strategies by regimes: score, interval, a small learning curve and the runs of each recipe."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from unfreeze.metrics import METRICS, between_text, metric_text
from unfreeze.statistics.predictions import Recipe
from unfreeze.statistics.scores import recipe_score
from unfreeze.statistics.study_results import StudyResults
from unfreeze.statistics.tables import chosen_history
from unfreeze.text import plural

WIDTH, HEIGHT = 92, 26
"""Size of a small curve in pixels."""

POINTS = 40
"""Most points of a small curve."""


@dataclass(frozen=True)
class RecipeView:
    """One recipe of the grid.

    Attributes:
        id: of its dialog.
        strategy, regime: names of the recipe's parts.
        figure: name of its figure of curves; "" where no epoch has finished.
        value, interval: of the test metric, or of the validation metric without test images.
        role: "test" or "validation", whichever ``value`` is.
        state: numbers of runs that finished, failed or have not run.
        recommended: whether it is the recommended recipe.
        lines: points of the small curves, one per run, as the points of an SVG polyline.
        alt: alternative text of the curves.
        rows: its runs, as rows of results.csv.
    """

    id: str
    strategy: str
    regime: str
    figure: str
    value: str
    interval: str
    role: str
    state: str
    recommended: bool
    lines: tuple[str, ...]
    alt: str
    rows: tuple[Mapping[str, Any], ...]


def recipe_views(results: StudyResults, recommended: Recipe | None, figures: Mapping[Recipe, str]) -> list[RecipeView]:
    """Return all recipes in plan order.

    Args:
        results: of the study.
        recommended: the recipe to use.
        figures: name of each recipe's figure of curves.
    """
    epochs = chosen_history(results.table, results.history)
    known = epochs["val_accuracy"].dropna()
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)
    last = int(epochs["epoch"].max()) if len(epochs) else 1
    histories = dict(list(epochs.groupby("cell", sort=False)))
    views = []
    for place, ((strategy, regime), group) in enumerate(results.table.groupby(["strategy", "regime"], sort=False)):
        recipe = Recipe(str(strategy), str(regime))
        value, interval, role = _score(results, recipe, group)
        name = METRICS[results.metric].label
        views.append(
            RecipeView(
                id=f"recipe-{place}",
                strategy=recipe.strategy,
                regime=recipe.regime,
                figure=figures.get(recipe, ""),
                value=value,
                interval=interval,
                role=role,
                state=_state(group),
                recommended=recipe == recommended,
                lines=tuple(_line(histories[cell], low, high, last) for cell in group["cell"] if cell in histories),
                alt=f"Accuracy and loss by epoch of {strategy} with {regime}; {role} {name}: {value or 'none'}",
                rows=tuple(plain_records(group)),
            )
        )
    return views


def plain_records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a table as dicts; missing numbers become NaN, which the template's filters show as a dash."""
    plain = table.copy()
    for column in plain.columns:
        if pd.api.types.is_numeric_dtype(plain[column].dtype):
            plain[column] = plain[column].astype("float64")
    return [{str(key): value for key, value in row.items()} for row in plain.to_dict("records")]


def _score(results: StudyResults, recipe: Recipe, group: pd.DataFrame) -> tuple[str, str, str]:
    score = recipe_score(results.predictions, recipe, results.test, results.metric) if results.test else None
    if score is not None:
        interval = between_text(results.metric, score.low, score.high)
        return metric_text(results.metric, score.value), interval, "test"
    validation = group.loc[group["status"] == "finished", "val_metric"].dropna()
    return (metric_text(results.metric, float(validation.mean())) if len(validation) else ""), "", "validation"


def _state(group: pd.DataFrame) -> str:
    noun = "run" if group["fold"].notna().any() else "seed"
    done = int((group["status"] == "finished").sum())
    parts = [plural(done, noun)] if done else []
    for status, text in (("failed", "failed"), ("diverged", "diverged"), ("missing", "not run")):
        count = int((group["status"] == status).sum())
        parts += [f"{count} {text}"] if count else []
    return ", ".join(parts)


def _line(epochs: pd.DataFrame, low: float, high: float, last: int) -> str:
    """Return the validation accuracy by epoch as points of an SVG polyline; all small curves share their axes."""
    step = max(1, math.ceil(len(epochs) / POINTS))
    numbers = list(zip(epochs["epoch"], epochs["val_accuracy"], strict=True))
    shown: Sequence[Any] = [*numbers[::step], *([numbers[-1]] if (len(numbers) - 1) % step else [])]
    points = [
        (2 + (WIDTH - 4) * (epoch - 1) / max(1, last - 1), 2 + (HEIGHT - 4) * (high - value) / ((high - low) or 1.0))
        for epoch, value in shown
        if math.isfinite(value)
    ]
    points = points * 2 if len(points) == 1 else points
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
