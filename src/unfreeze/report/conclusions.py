"""Draw the conclusions of the original article (docs/article.md) from a study's own numbers.

More data; fine-tuning instead of training from scratch; how much of the network to train; overfitting; time per epoch;
what augmentation is worth. Each conclusion gives the size of the effect, its interval and the number of seeds, and says
so where the study cannot decide.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from unfreeze.metrics import METRICS, change_text
from unfreeze.statistics.augmentation import twins
from unfreeze.statistics.comparisons import Comparison, comparison_of, needed_text
from unfreeze.statistics.intervals import BETTER, NO_DIFFERENCE, TOO_LITTLE, WORSE
from unfreeze.statistics.learning_curve import series_of
from unfreeze.statistics.predictions import Recipe
from unfreeze.statistics.study_results import StudyResults
from unfreeze.text import count_text, join_words, mean_count_text, plural, seconds_text

MOST = 4
"""Effects that one sentence lists; comparisons.csv has them all."""

OVERFITS = 0.02
"""Training accuracy minus validation accuracy above which a recipe counts as overfitting."""

VERDICTS = {
    BETTER: "is better",
    WORSE: "is worse",
    NO_DIFFERENCE: "no difference found",
    TOO_LITTLE: "too little data to tell",
}
"""Each verdict as part of a sentence, in the order in which a sentence lists them."""


@dataclass(frozen=True)
class Conclusion:
    """A conclusion: its topic, one sentence that concludes, and sentences with the numbers behind it."""

    topic: str
    claim: str
    evidence: str

    @property
    def text(self) -> str:
        """Claim and evidence."""
        return f"{self.claim} {self.evidence}".strip()


def conclusions(results: StudyResults, recipe: Recipe | None) -> list[Conclusion]:
    """Return the conclusions of a study in the order of the original article; none where nothing has finished.

    Args:
        results: of the study.
        recipe: the recommended one; strategies are compared in its regime.
    """
    if recipe is None:
        return []
    return [
        *_more_data(results, recipe),
        *_fine_tuning(results, recipe),
        *_depth(results, recipe),
        *_overfitting(results),
        *_time(results, recipe),
        *_augmentation(results, recipe),
    ]


def _more_data(results: StudyResults, recipe: Recipe) -> Iterable[Conclusion]:
    sizes = _sizes(results)
    series: dict[str, list[str]] = {}
    for name, settings in results.regimes.items():
        if name in sizes:
            series.setdefault(series_of(settings), []).append(name)
    several = {key: names for key, names in series.items() if len({sizes[name] for name in names}) > 1}
    names = several.get("plain") or next(iter(several.values()), None)
    if not names:
        yield Conclusion("More data", "This study cannot tell whether more data is better.",
                         "No two of its regimes differ only in the number of training images.")  # fmt: skip
        return
    few, many = min(names, key=sizes.__getitem__), max(names, key=sizes.__getitem__)
    pairs = [(Recipe(strategy, many), Recipe(strategy, few)) for strategy in _strategies(results, recipe)]
    found = _comparisons(results, pairs)
    counts = f"{mean_count_text(sizes[few])} to {mean_count_text(sizes[many])}"
    between = f"From {few} to {many} ({counts} training images per class)"
    strategies = [comparison.recipe.strategy for comparison in found]
    yield concluded("More data", "More data", found, strategies, f"{between}, {_score_name(results)} changes by")


def _fine_tuning(results: StudyResults, recipe: Recipe) -> Iterable[Conclusion]:
    networks = results.plan.get("networks", {})
    from_scratch = [name for name, network in networks.items() if network.get("weights") == "none"]
    fine_tuned = [name for name in _strategies(results, recipe) if name in networks and name not in from_scratch]
    pairs = [
        (Recipe(one, regime), Recipe(other, regime))
        for regime in _regimes(results, recipe)
        for one in fine_tuned
        for other in from_scratch
        if _has_finished(results, Recipe(one, regime)) and _has_finished(results, Recipe(other, regime))
    ]
    if not pairs:
        return
    (one, other), *_ = pairs
    found = _comparisons(results, [(one, other)])
    made = concluded("Fine-tuning", "Fine-tuning instead of training from scratch", found, [""],
                     _difference(results, one, other))  # fmt: skip
    yield Conclusion(made.topic, made.claim, f"{made.evidence} {_convergence(results, one, other)}".strip())


def _convergence(results: StudyResults, recipe: Recipe, other: Recipe) -> str:
    """Return a sentence on which of two recipes reaches its best validation accuracy, less one point, first."""
    rows = {(row["strategy"], row["regime"]): row for row in results.convergence.to_dict("records")}
    one, two = rows.get(recipe), rows.get(other)
    if one is None or two is None or not math.isfinite(one["epochs_to_near_best"] + two["epochs_to_near_best"]):
        return ""
    faster = one["seconds_to_near_best"] < two["seconds_to_near_best"]
    times = [
        f"{row['epochs_to_near_best']:.3g} epochs ({seconds_text(row['seconds_to_near_best'])})" for row in (one, two)
    ]
    return (
        f"It converges {'' if faster else 'no '}faster: it comes within one point of its best validation accuracy "
        f"after {times[0]}, training from scratch after {times[1]}."
    )


def _depth(results: StudyResults, recipe: Recipe) -> Iterable[Conclusion]:
    networks = results.plan.get("networks", {})
    keys = ("backbone", "weights", "image_size")
    start = {name: tuple(network.get(key) for key in keys) for name, network in networks.items()}
    pretrained = [name for name in start if start[name][1] != "none"]
    trained = results.finished.groupby("strategy")["params_trained"].mean().dropna().astype(float).to_dict()
    for regime in _regimes(results, recipe):
        there = [name for name in pretrained if name in trained and _has_finished(results, Recipe(name, regime))]
        alike = [name for name in there if start[name] == start.get(recipe.strategy, start[there[0]])]
        if len({trained[name] for name in alike}) < 2:
            continue
        low, high = min(alike, key=trained.__getitem__), max(alike, key=trained.__getitem__)
        more, less = Recipe(high, regime), Recipe(low, regime)
        parameters = f"{high} trains {count_text(trained[high])} parameters, {low} {count_text(trained[low])}."
        found = _comparisons(results, [(more, less)])
        yield concluded("Depth", "Training more of the network", found, [""],
                        f"{parameters} {_difference(results, more, less)}")  # fmt: skip
        return
    if len(pretrained) > 1:
        return
    yield Conclusion("Depth", "This study cannot tell how much of the network to train.",
                     "That takes two strategies that start from the same pretrained weights.")  # fmt: skip


def _overfitting(results: StudyResults) -> Iterable[Conclusion]:
    rows = [row for row in results.convergence.to_dict("records") if math.isfinite(row["gap_at_best"])]
    if not rows:
        return
    count = sum(row["gap_at_best"] > OVERFITS for row in rows)
    recipes = plural(len(rows), "recipe")
    if len(rows) == 1:
        claim = "The recipe overfits" if count else "The recipe does not overfit"
    elif count in (0, len(rows)):
        claim = f"All {recipes} overfit" if count else f"None of {recipes} overfits"
    else:
        claim = f"{count} of {recipes} {'overfits' if count == 1 else 'overfit'}"
    least, most = (pick(rows, key=lambda row: row["gap_at_best"]) for pick in (min, max))
    gaps = f"ranges from {_gap(least)} to {_gap(most)}" if least is not most else f"is {_gap(least)}"
    yield Conclusion(
        "Overfitting",
        f"{claim} by more than {100 * OVERFITS:.0f} points.",
        f"Training minus validation accuracy at the best epoch {gaps}. Training accuracy is a running mean over the "
        "epoch, with dropout and augmentation on, so the true gap tends to be larger.",
    )


def _gap(row: dict[Any, Any]) -> str:
    bounds = [
        change_text("accuracy", row[name]).removesuffix(" points") for name in ("gap_at_best_low", "gap_at_best_high")
    ]
    runs = f"; {' to '.join(bounds)} over {row['runs']} runs" if row["runs"] > 1 else "; 1 run"
    return f"{change_text('accuracy', row['gap_at_best'])} ({row['strategy']} with {row['regime']}{runs})"


def _time(results: StudyResults, recipe: Recipe) -> Iterable[Conclusion]:
    table = results.convergence[results.convergence["seconds_per_epoch"].notna()]
    orders = {
        str(regime): list(own.sort_values("seconds_per_epoch", ascending=False, kind="stable")["strategy"])
        for regime, own in table.groupby("regime", sort=False)
    }
    if recipe.regime not in orders:
        return
    own = table[table["regime"] == recipe.regime].set_index("strategy")
    order = orders[recipe.regime]
    seconds = [seconds_text(float(own.loc[name, "seconds_per_epoch"])) for name in order]
    runs = plural(int(own["runs"].min()), "run") + (" or more each" if own["runs"].nunique() > 1 else "")
    if len(order) == 1:
        yield Conclusion("Time", f"An epoch with {recipe.regime} takes {seconds[0]}.", f"{runs}.")
        return
    ratio = float(own["seconds_per_epoch"].max() / own["seconds_per_epoch"].min())
    others = [names for regime, names in orders.items() if regime != recipe.regime and set(names) == set(order)]
    same = sum(names == order for names in others)
    also = f" The order is the same in {same} of {plural(len(others), 'other regime')}." if others else ""
    listed = " > ".join(f"{name} {took}" for name, took in zip(order, seconds, strict=True))
    yield Conclusion(
        "Time",
        f"Time per epoch with {recipe.regime}: {listed}.",
        f"{order[0]} takes {ratio:.1f} times as long as {order[-1]}; {runs}.{also}",
    )


def _augmentation(results: StudyResults, recipe: Recipe) -> Iterable[Conclusion]:
    sizes = _sizes(results)
    pairs = [pair for pair in twins(results.regimes) if pair[0] in sizes and pair[1] in sizes]
    if not pairs:
        return
    size = min(sizes[plain] for plain, _ in pairs)
    plain, augmented = next(pair for pair in pairs if sizes[pair[0]] == size)
    strategies = _strategies(results, recipe)
    found = _comparisons(results, [(Recipe(name, augmented), Recipe(name, plain)) for name in strategies])
    opening = (
        f"From {plain} to {augmented} ({mean_count_text(size)} training images per class), {_score_name(results)} "
        "changes by"
    )
    compared = [comparison.recipe.strategy for comparison in found]
    made = concluded("Augmentation", "Augmentation", found, compared, opening)
    table, worth = results.augmentation, []
    for strategy in compared[:MOST]:
        is_own = (table["plain"] == plain) & (table["augmented"] == augmented)
        rows = table[is_own & (table["strategy"] == strategy)].to_dict("records")
        worth += [text for row in rows if (text := equivalent_text(row))]
    further = ""
    if found:
        further = (
            f" Images per class that score the same without augmentation: {join_words(worth)}."
            if worth
            else " What it is worth in images per class takes a learning curve through three sizes."
        )
    yield Conclusion(made.topic, made.claim, made.evidence + further)


def equivalent_text(row: dict[Any, Any]) -> str:
    """Write the images per class that score the same without augmentation; "" without a learning curve."""
    value, low, high = (float(row[name]) for name in ("equivalent", "equivalent_low", "equivalent_high"))
    if math.isnan(value):
        return ""
    notes = [f"{images_text(low)} to {images_text(high)}"] if not math.isnan(low) else []
    notes += [row["reading"]] if row["reading"] else []
    return f"{images_text(value)} for {row['strategy']}" + (f" ({'; '.join(notes)})" if notes else "")


def images_text(count: float) -> str:
    """Write a number of images, ``unlimited`` where no number is enough."""
    return "unlimited" if math.isinf(count) else f"{count:,.0f}"


def concluded(topic: str, subject: str, found: Sequence[Comparison], names: Sequence[str], opening: str) -> Conclusion:
    """Put comparisons into words: what is better for which strategy, and by how much.

    Args:
        topic: of the conclusion.
        subject: of the claim.
        found: one comparison per strategy, each a recipe minus another.
        names: the strategy of each comparison; "" for one comparison that needs no name.
        opening: how the sentence with the numbers begins.
    """
    if not found:
        reason = "there are no test images, or the runs to compare have no seed in common"
        return Conclusion(topic, f"{subject} cannot be judged: {reason}.", "")
    by_verdict: dict[str, list[str]] = {}
    for comparison, name in zip(found, names, strict=True):
        by_verdict.setdefault(comparison.verdict, []).append(name)
    parts = [
        words + _for(by_verdict[verdict], len(by_verdict))
        for verdict, words in VERDICTS.items()
        if verdict in by_verdict
    ]
    colon = "" if by_verdict.keys() & {BETTER, WORSE} else ":"
    pairs = zip(found, names, strict=True)
    effects = [f"{comparison.effect} for {name}" if name else comparison.effect for comparison, name in pairs]
    shown = join_words(effects[:MOST])
    if len(effects) > MOST:
        shown += f"; {len(effects) - MOST} more strategies are in comparisons.csv"
    seeds = sorted({comparison.seeds for comparison in found})
    count = plural(seeds[-1], "seed") if len(seeds) == 1 else f"{seeds[0]} to {plural(seeds[-1], 'seed')}"
    needed = needed_text(found[0]) if len(found) == 1 else ""
    return Conclusion(topic, f"{subject}{colon} {'; '.join(parts)}.", f"{opening} {shown}; {count}{needed}.")


def _for(names: Sequence[str], verdicts: int) -> str:
    """Name the strategies of a verdict, unless it is the only verdict and they are many."""
    named = [name for name in names if name]
    return f" for {join_words(named)}" if named and (verdicts > 1 or len(named) <= MOST) else ""


def _comparisons(results: StudyResults, pairs: Iterable[tuple[Recipe, Recipe]]) -> list[Comparison]:
    """Return the comparisons of those pairs that have seeds in common, on the test images."""
    if results.test is None:
        return []
    found = [comparison_of(results.comparisons, a, b, results.test) for a, b in pairs]
    return [comparison for comparison in found if comparison is not None and comparison.seeds]


def _difference(results: StudyResults, one: Recipe, other: Recipe) -> str:
    """Return the opening of a sentence on two strategies in one regime."""
    return f"With {one.regime}, {_score_name(results)} of {one.strategy} minus that of {other.strategy} is"


def _score_name(results: StudyResults) -> str:
    return f"test {METRICS[results.metric].label}"


def _sizes(results: StudyResults) -> dict[str, float]:
    """Return training images per class of each regime that has finished runs."""
    mean = results.finished.groupby("regime", sort=False)["n_train"].mean().dropna()
    return {str(name): float(size) for name, size in (mean / max(1, len(results.predictions.classes))).items()}


def _has_finished(results: StudyResults, recipe: Recipe) -> bool:
    return not results.finished_runs(recipe).empty


def _strategies(results: StudyResults, recipe: Recipe) -> list[str]:
    """Return the strategies in plan order, the recipe's first."""
    names = list(dict.fromkeys(map(str, results.table["strategy"])))
    return sorted(names, key=lambda name: name != recipe.strategy)


def _regimes(results: StudyResults, recipe: Recipe) -> list[str]:
    """Return the regimes in plan order, the recipe's first."""
    names = list(dict.fromkeys(map(str, results.table["regime"])))
    return sorted(names, key=lambda name: name != recipe.regime)
