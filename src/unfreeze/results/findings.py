"""What a study's numbers say, in plain sentences that pretend no statistics.

Validation chooses, the test set reports. Every sentence says on how many seeds it rests.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import pandas as pd

from unfreeze.metrics import HIGHER_IS_BETTER
from unfreeze.results.selection import ranking
from unfreeze.results.tables import chosen_history
from unfreeze.results.words import (
    METRIC_NAMES,
    change_text,
    join_words,
    metric_text,
    plural,
    seconds_text,
    spread_text,
)

_LUCK = "too few to tell a difference from luck"
_RUN = ["seed", "fold"]
Field = tuple[str, str]
Key = TypeVar("Key")


def headline(results: pd.DataFrame, metric: str = "accuracy", validates_on_test: bool = False) -> str:
    """Return one sentence: the strategy and regime with the best mean validation metric, and its test metric.

    Args:
        results: the table of ``results_table``.
        metric: the study's metric, which ``val_metric`` and ``test_metric`` hold.
        validates_on_test: the test images also stopped the training, so that they choose as well as report.
    """
    fields = _fields(results, "val_metric")
    if not fields:
        return "No cell has finished yet, so there is nothing to compare."
    means = {(field.strategy, field.regime): field.mean for field in ranking(results, metric)}
    order = list(means)
    best, name = order[0], METRIC_NAMES[metric]
    group = fields[best]
    level = [_field_text(field) for field in order[1:] if means[field] == means[best]]
    tie = f" (level with {join_words(level)})" if level else ""
    value = metric_text(metric, means[best])
    if len(group) == 1:
        return (
            f"{_field_text(best)} has the best validation {name}, {value}{tie}; {_test_clause(group, metric)}"
            f"{_chooser_clause(group, validates_on_test)}. This is {_runs([group])}, {_LUCK}."
        )
    spread = spread_text(metric, float(group["val_metric"].std(ddof=1)))
    return (
        f"{_field_text(best)} has the best mean validation {name}, {value}{tie}, over {_runs([group])} (standard "
        f"deviation {spread}); {_test_clause(group, metric)}{_chooser_clause(group, validates_on_test)}."
    )


def findings(
    results: pd.DataFrame,
    history: pd.DataFrame,
    metric: str = "accuracy",
    regimes: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[str]:
    """Return what the numbers say: the best strategy of each regime, time, overfitting, more data, augmentation.

    Args:
        results: the table of ``results_table``.
        history: the table of ``history_table``.
        metric: the study's metric.
        regimes: the resolved regimes by name (``augment``, ``train_per_class``, ...); without them nothing is said
            about augmentation and the amount of data, since it cannot be known which regimes differ in what.
    """
    settings = regimes or {}
    sentences = [
        *_best_by_regime(results, metric),
        *_time_order(results),
        *_gaps(results, history),
        *_more_data(results, metric, settings),
        *_augmentation(results, metric, settings),
        *_unfinished(results),
    ]
    fields = _fields(results, "val_metric")
    if fields and all(len(group) == 1 for group in fields.values()):
        sentences.append("Every number rests on one seed: a second seed could turn any of these orders round.")
    return sentences


def _best_by_regime(results: pd.DataFrame, metric: str) -> Iterable[str]:
    fields, name = _fields(results, "val_metric"), METRIC_NAMES[metric]
    for regime in dict.fromkeys(regime for _, regime in fields):
        groups = {strategy: group for (strategy, own), group in fields.items() if own == regime}
        means = {strategy: float(group["val_metric"].mean()) for strategy, group in groups.items()}
        order = _ranked(means, not HIGHER_IS_BETTER[metric])
        best, others = order[0], order[1:]
        mean = "mean " if len(groups[best]) > 1 else ""
        test = _test_clause(groups[best], metric)
        if not others:
            yield (
                f"With {regime}, {best} has a {mean}validation {name} of {metric_text(metric, means[best])}; "
                f"{test}; {_runs(groups.values())}."
            )
            continue
        rest = join_words([f"{strategy} {metric_text(metric, means[strategy])}" for strategy in others])
        ahead = _wins(groups[best], groups[others[0]], "val_metric", not HIGHER_IS_BETTER[metric])
        yield (
            f"With {regime}, {best} has the best {mean}validation {name}: {metric_text(metric, means[best])}, then "
            f"{rest}{f'; it is ahead of {others[0]} in {ahead}' if ahead else ''}; {test}; {_basis(groups.values())}."
        )


def _time_order(results: pd.DataFrame) -> Iterable[str]:
    fields = _fields(results, "seconds_per_epoch")
    orders: dict[str, list[str]] = {}
    clauses = []
    for regime in dict.fromkeys(regime for _, regime in fields):
        means = {
            strategy: float(group["seconds_per_epoch"].mean())
            for (strategy, own), group in fields.items()
            if own == regime
        }
        if len(means) > 1:
            orders[regime] = sorted(means, key=lambda strategy: -means[strategy])
            times = ", ".join(f"{strategy} {seconds_text(means[strategy])}" for strategy in orders[regime])
            clauses.append(f"with {regime}: {times}")
    if not clauses:
        return
    groups = [group for (_, regime), group in fields.items() if regime in orders]
    same = all(order == next(iter(orders.values())) for order in orders.values())
    verdict = f" The order is {'the same' if same else 'not the same'} in every regime." if len(orders) > 1 else ""
    yield f"Time per epoch, longest first, {'; '.join(clauses)}; {_basis(groups)}.{verdict}"


def _gaps(results: pd.DataFrame, history: pd.DataFrame) -> Iterable[str]:
    done = results[results["status"] == "finished"]
    epochs = chosen_history(results, history)[["cell", "epoch", "train_accuracy", "val_accuracy"]]
    best = done[["cell", "strategy", "regime", "status", *_RUN, "best_epoch"]].merge(
        epochs, left_on=["cell", "best_epoch"], right_on=["cell", "epoch"]
    )
    best["gap"] = best["train_accuracy"] - best["val_accuracy"]
    fields = _fields(best, "gap")
    if not fields:
        return
    clauses = []
    for strategy in dict.fromkeys(strategy for strategy, _ in fields):
        gaps = ", ".join(
            f"{100 * float(group['gap'].mean()):+.1f} with {regime}"
            for (own, regime), group in fields.items()
            if own == strategy
        )
        clauses.append(f"{strategy} {gaps}")
    yield (
        "Training minus validation accuracy at the best epoch, in points (a large gap means overfitting): "
        f"{'; '.join(clauses)}; {_basis(fields.values())}. Training accuracy is a running mean over the epoch, with "
        "dropout and augmentation on, so the true gap tends to be larger."
    )


def _more_data(results: pd.DataFrame, metric: str, regimes: Mapping[str, Mapping[str, Any]]) -> Iterable[str]:
    plain = [name for name, regime in regimes.items() if regime.get("augment", "none") == "none"]
    done = results[(results["status"] == "finished") & results["regime"].isin(plain)]
    sizes = done.groupby("regime", sort=False)["n_train"].mean().dropna().sort_values(kind="stable")
    if len(sizes) < 2 or sizes.iloc[0] == sizes.iloc[-1]:
        return
    few, many = str(sizes.index[0]), str(sizes.index[-1])

    def numbers(first: float, second: float) -> str:
        return f"from {metric_text(metric, first)} to {metric_text(metric, second)}"

    images = f"{round(sizes.iloc[0]):,} to {round(sizes.iloc[-1]):,} training images"
    yield from _compared(done, (few, many), metric, f"From {few} to {many} ({images}),", "goes", numbers)


def _augmentation(results: pd.DataFrame, metric: str, regimes: Mapping[str, Mapping[str, Any]]) -> Iterable[str]:
    def pool(regime: Mapping[str, Any]) -> list[Any]:
        return [regime.get(key) for key in ("train_per_class", "val_per_class", "train_fraction", "strict")]

    def numbers(first: float, second: float) -> str:
        return f"by {change_text(metric, second - first)}"

    for name, regime in regimes.items():
        if regime.get("augment", "none") == "none":
            continue
        plain = [
            other
            for other, its in regimes.items()
            if its.get("augment", "none") == "none" and pool(its) == pool(regime)
        ]
        if plain:
            drawn = regime.get("examples_per_epoch")
            caveat = (
                f" An epoch of {name} draws {drawn:,} images, so part of a change may come from longer training."
                if drawn
                else ""
            )
            opening = f"With augmentation ({name} against {plain[0]}),"
            for sentence in _compared(results, (plain[0], name), metric, opening, "changes", numbers):
                yield sentence + caveat


def _compared(
    results: pd.DataFrame,
    regimes: tuple[str, str],
    metric: str,
    opening: str,
    verb: str,
    numbers: Callable[[float, float], str],
) -> Iterable[str]:
    """Compare two regimes, strategy by strategy, over the seeds that finished in both."""
    column, where = ("test_metric", "test") if results["test_metric"].notna().any() else ("val_metric", "validation")
    fields, clauses, pairs = _fields(results, column), [], []
    for strategy in dict.fromkeys(strategy for strategy, _ in fields):
        if any((strategy, regime) not in fields for regime in regimes):
            continue
        both = _paired(fields[strategy, regimes[0]], fields[strategy, regimes[1]], column)
        if len(both):
            wins = _wins_text(both, column, not HIGHER_IS_BETTER[metric])
            change = numbers(float(both[f"{column}_b"].mean()), float(both[f"{column}_a"].mean()))
            clauses.append(f"{change} for {strategy}{f' (better in {wins})' if wins else ''}")
            pairs.append(both)
    if clauses:
        name = METRIC_NAMES[metric]
        yield f"{opening} {where} {name} {verb} {join_words(clauses)}; {_basis(pairs)}."


def _unfinished(results: pd.DataFrame) -> Iterable[str]:
    for status, words in (("failed", "failed"), ("diverged", "diverged"), ("missing", "not run")):
        count = int((results["status"] == status).sum())
        if count:
            verb = ("has " if count == 1 else "have ") if status == "missing" else ""
            yield f"{count} of {plural(len(results), 'cell')} {verb}{words} and {_enter(count)} no mean."


def _enter(count: int) -> str:
    return "enters" if count == 1 else "enter"


def _fields(results: pd.DataFrame, column: str) -> dict[Field, pd.DataFrame]:
    """Return the finished rows that have a number in ``column``, by strategy and regime, in plan order."""
    done = results[(results["status"] == "finished") & results[column].notna()]
    return {
        (str(strategy), str(regime)): group
        for (strategy, regime), group in done.groupby(["strategy", "regime"], sort=False)
    }


def _ranked(means: Mapping[Key, float], lower: bool) -> list[Key]:
    return sorted(means, key=lambda key: means[key] if lower else -means[key])


def _field_text(field: Field) -> str:
    return f"{field[0]} with {field[1]}"


def _paired(first: pd.DataFrame, second: pd.DataFrame, column: str) -> pd.DataFrame:
    """Join two fields by seed and fold: ``column``_b(efore) and ``column``_a(fter)."""
    return first[[*_RUN, column]].merge(second[[*_RUN, column]], on=_RUN, suffixes=("_b", "_a"))


def _wins(better: pd.DataFrame, other: pd.DataFrame, column: str, lower: bool) -> str:
    return _wins_text(_paired(other, better, column), column, lower)


def _wins_text(both: pd.DataFrame, column: str, lower: bool) -> str:
    """Write in how many of the paired seeds the second number is the better one; nothing for a single pair."""
    if len(both) < 2:
        return ""
    change = both[f"{column}_a"] - both[f"{column}_b"]
    wins = int(((change < 0) if lower else (change > 0)).sum())
    return f"{wins} of {_runs([both])}"


def _runs(groups: Iterable[pd.DataFrame]) -> str:
    """Write how many runs each group has: ``3 seeds``, ``2 to 3 seeds``; ``runs`` where folds multiply the seeds."""
    parts = list(groups)
    noun = "run" if any(part["fold"].notna().any() for part in parts) else "seed"
    counts = sorted({len(part) for part in parts})
    return plural(counts[0], noun) if len(counts) == 1 else f"{counts[0]} to {plural(counts[-1], noun)}"


def _basis(groups: Iterable[pd.DataFrame]) -> str:
    parts = list(groups)
    each = f"{_runs(parts)} each" if len(parts) > 1 else _runs(parts)
    return f"{each}, {_LUCK}" if max(len(part) for part in parts) == 1 else each


def _test_clause(group: pd.DataFrame, metric: str) -> str:
    """Write the test metric with its spread; it reports and never chooses."""
    tests, name = group["test_metric"].dropna(), METRIC_NAMES[metric]
    if not len(tests):
        return "there is no test set to report on"
    value = metric_text(metric, float(tests.mean()))
    if len(tests) == 1:
        return f"its test {name} is {value}"
    return f"its test {name} is {value} (standard deviation {spread_text(metric, float(tests.std(ddof=1)))})"


def _chooser_clause(group: pd.DataFrame, validates_on_test: bool) -> str:
    if not group["test_metric"].notna().any():
        return ", and a number that was chosen for being the best flatters"
    return ", on images that also chose it" if validates_on_test else ""
