"""The conclusions of the article that the product follows, drawn anew from a study's own numbers.

More data; fine-tuning against training from scratch; deeper against shallower; overfitting; time per epoch; what
augmentation is worth. Each rests on the study's comparisons, says how large the effect is, between which bounds and on
how many seeds, and where a study cannot tell, says that.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from unfreeze.metrics import METRICS, change_text
from unfreeze.statistics.augmentation import twins
from unfreeze.statistics.comparisons import Comparison, compared, settle_text
from unfreeze.statistics.intervals import BETTER, NO_DIFFERENCE, TOO_LITTLE, WORSE
from unfreeze.statistics.learning_curve import series_of
from unfreeze.statistics.predictions import Recipe
from unfreeze.statistics.study_results import StudyResults
from unfreeze.text import count_text, join_words, mean_count_text, plural, seconds_text

MOST = 4
"""Effects that one sentence lists; the grid has them all."""

AHEAD = 0.02
"""Training ahead of validation by more than this counts as overfitting: the margin of ``statistics.intervals``."""

NO_TEST = "there are no test images to compare on"


@dataclass(frozen=True)
class Conclusion:
    """A conclusion: its topic, what it says, and the numbers that it rests on."""

    topic: str
    says: str
    rests: str

    @property
    def text(self) -> str:
        """Both sentences."""
        return f"{self.says} {self.rests}".strip()


def conclusions(results: StudyResults, recipe: Recipe | None) -> list[Conclusion]:
    """Return the conclusions of a study in the article's order; none where nothing has finished.

    Args:
        results: of the study.
        recipe: the recommended one; strategies are compared in its regime.
    """
    if recipe is None:
        return []
    return [
        *_more_data(results, recipe),
        *_scratch(results, recipe),
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
        yield Conclusion("More data", "Whether more data is better, this study cannot tell.",
                         "No two of its regimes differ in the amount of training images alone.")  # fmt: skip
        return
    few, many = min(names, key=sizes.__getitem__), max(names, key=sizes.__getitem__)
    pairs = [(Recipe(one, many), Recipe(one, few)) for one in _strategies(results, recipe)]
    found = _all(results, pairs)
    counts = f"{mean_count_text(sizes[few])} to {mean_count_text(sizes[many])}"
    between = f"From {few} to {many} ({counts} training images a class)"
    strategies = [one.recipe.strategy for one in found]
    yield _concluded("More data", "More data", found, strategies, f"{between}, {_scored(results)} changes by")


def _scratch(results: StudyResults, recipe: Recipe) -> Iterable[Conclusion]:
    networks = results.plan.get("networks", {})
    fresh = [name for name, network in networks.items() if network.get("weights") == "none"]
    tuned = [name for name in _strategies(results, recipe) if name in networks and name not in fresh]
    pairs = [
        (Recipe(one, regime), Recipe(other, regime))
        for regime in _regimes(results, recipe)
        for one in tuned
        for other in fresh
        if _finished(results, Recipe(one, regime)) and _finished(results, Recipe(other, regime))
    ]
    if not pairs:
        return
    (one, other), *_ = pairs
    found = _all(results, [(one, other)])
    rests = f"{one.strategy} against {other.strategy} with {one.regime}: {_scored(results)}"
    made = _concluded("Fine-tuning", "Fine-tuning against training from scratch", found, [""], rests)
    yield Conclusion(made.topic, made.says, f"{made.rests} {_sooner(results, one, other)}".strip())


def _sooner(results: StudyResults, recipe: Recipe, other: Recipe) -> str:
    """Say which of two recipes comes within one point of its best validation accuracy first."""
    rows = {(row["strategy"], row["regime"]): row for row in results.convergence.to_dict("records")}
    (one, two) = rows.get(recipe), rows.get(other)
    if one is None or two is None or not math.isfinite(one["epochs_to_near_best"] + two["epochs_to_near_best"]):
        return ""
    sooner = one["seconds_to_near_best"] < two["seconds_to_near_best"]
    times = [
        f"epoch {row['epochs_to_near_best']:.3g} ({seconds_text(row['seconds_to_near_best'])})" for row in (one, two)
    ]
    first = "It takes less time to converge" if sooner else "It takes no less time to converge"
    return f"{first}: within one point of its best validation accuracy after {times[0]}, from scratch after {times[1]}."


def _depth(results: StudyResults, recipe: Recipe) -> Iterable[Conclusion]:
    networks = results.plan.get("networks", {})
    kind = {name: (one.get("backbone"), one.get("weights"), one.get("image_size")) for name, one in networks.items()}
    tuned = [name for name in kind if kind[name][1] != "none"]
    done = results.table[results.table["status"] == "finished"]
    trained = done.groupby("strategy")["params_trained"].mean().dropna().astype(float).to_dict()
    for regime in _regimes(results, recipe):
        there = [name for name in tuned if name in trained and _finished(results, Recipe(name, regime))]
        own = [name for name in there if kind[name] == kind.get(recipe.strategy, kind[there[0]])]
        if len({trained[name] for name in own}) < 2:
            continue
        low, high = min(own, key=trained.__getitem__), max(own, key=trained.__getitem__)
        rests = (
            f"{high} trains {count_text(trained[high])} parameters, {low} {count_text(trained[low])}; with {regime}, "
            f"{_scored(results)}"
        )
        found = _all(results, [(Recipe(high, regime), Recipe(low, regime))])
        yield _concluded("Depth", "Training more of the network", found, [""], rests)
        return
    if len(tuned) > 1:
        return
    yield Conclusion("Depth", "How much of the network to train, this study cannot tell.",
                     "That takes two strategies that start from the same pretrained weights.")  # fmt: skip


def _overfitting(results: StudyResults) -> Iterable[Conclusion]:
    rows = [row for row in results.convergence.to_dict("records") if math.isfinite(row["gap_at_best"])]
    if not rows:
        return
    ahead = [row for row in rows if row["gap_at_best"] > AHEAD]
    recipes = plural(len(rows), "recipe")
    if len(ahead) == len(rows):
        says = f"All {recipes} overfit" if len(rows) > 1 else "The recipe overfits"
    elif ahead:
        says = f"{len(ahead)} of {recipes} {'overfits' if len(ahead) == 1 else 'overfit'}"
    else:
        says = f"None of {recipes} overfits" if len(rows) > 1 else "The recipe does not overfit"
    least, most = (pick(rows, key=lambda row: row["gap_at_best"]) for pick in (min, max))
    gaps = [_gap(row) for row in ([least, most] if least is not most else [least])]
    yield Conclusion(
        "Overfitting",
        f"{says} by more than {100 * AHEAD:.0f} points.",
        f"Training minus validation accuracy at the best epoch: {' up to '.join(gaps)}. Training accuracy is a running "
        "mean with dropout and augmentation on; the true gap tends to be larger.",
    )


def _gap(row: dict[Any, Any]) -> str:
    bounds = [
        change_text("accuracy", row[name]).removesuffix(" points") for name in ("gap_at_best_low", "gap_at_best_high")
    ]
    between = f" ({' to '.join(bounds)} over {plural(int(row['runs']), 'run')})" if row["runs"] > 1 else " (1 run)"
    return f"{change_text('accuracy', row['gap_at_best'])}{between} with {row['strategy']}, {row['regime']}"


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
    seconds = [f"{name} {seconds_text(float(own.loc[name, 'seconds_per_epoch']))}" for name in order]
    runs = plural(int(own["runs"].min()), "run") + (" or more each" if own["runs"].nunique() > 1 else "")
    if len(order) == 1:
        yield Conclusion(
            "Time", f"An epoch with {recipe.regime} takes {seconds[0].removeprefix(order[0] + ' ')}.", f"{runs}."
        )
        return
    ratio = float(own["seconds_per_epoch"].max() / own["seconds_per_epoch"].min())
    others = [names for regime, names in orders.items() if regime != recipe.regime and set(names) == set(order)]
    same = sum(names == order for names in others)
    also = f" The order is the same in {same} of {plural(len(others), 'other regime')}." if others else ""
    yield Conclusion(
        "Time",
        f"Time per epoch with {recipe.regime}: {' > '.join(seconds)}.",
        f"{order[0]} takes {ratio:.1f} times as long as {order[-1]}; {runs}.{also}",
    )


def _augmentation(results: StudyResults, recipe: Recipe) -> Iterable[Conclusion]:
    sizes = _sizes(results)
    pairs = [pair for pair in twins(results.regimes) if pair[0] in sizes and pair[1] in sizes]
    if not pairs:
        return
    small = min(sizes[plain] for plain, _ in pairs)
    plain, augmented = next(pair for pair in pairs if sizes[pair[0]] == small)
    found = _all(results, [(Recipe(one, augmented), Recipe(one, plain)) for one in _strategies(results, recipe)])
    rests = f"{augmented} against {plain} ({mean_count_text(small)} images a class): {_scored(results)} changes by"
    made = _concluded("Augmentation", "Augmentation", found, [one.recipe.strategy for one in found], rests)
    worth = []
    for one in found[:MOST]:
        own = results.augmentation
        rows = own[(own["strategy"] == one.recipe.strategy) & (own["plain"] == plain) & (own["augmented"] == augmented)]
        worth += [text for row in rows.to_dict("records") if (text := equivalent_text(row))]
    says = f" It is worth as much as {join_words(worth)}." if worth else " In images a class: too few sizes to say."
    yield Conclusion(made.topic, made.says, made.rests + (says if found else ""))


def equivalent_text(row: dict[Any, Any]) -> str:
    """Write the images a class without augmentation that do as well as fewer with it; "" without a learning curve."""
    value, low, high = (float(row[name]) for name in ("equivalent", "equivalent_low", "equivalent_high"))
    if math.isnan(value):
        return ""
    between = f" ({_images(low)} to {_images(high)})" if not math.isnan(low) else ""
    reading = f", {row['reading']}" if row["reading"] else ""
    return f"{_images(value)} images a class without it for {row['strategy']}{between}{reading}"


def _images(count: float) -> str:
    return "any number of" if math.isinf(count) else f"{count:,.0f}"


def _concluded(topic: str, what: str, found: Sequence[Comparison], names: Sequence[str], rests: str) -> Conclusion:
    """Put comparisons into words: what is better for whom, and by how much.

    Args:
        topic: of the conclusion.
        what: subject of the sentence.
        found: recipe minus other, each.
        names: for whom each of them is; "" where there is one and it needs no name.
        rests: opening of the sentence with the numbers.
    """
    if not found:
        return Conclusion(topic, f"{what} cannot be judged: {NO_TEST}, or no two runs to set side by side.", "")
    said: dict[str, list[str]] = {}
    for one, name in zip(found, names, strict=True):
        said.setdefault(one.verdict, []).append(name)
    words = {
        BETTER: "is better", WORSE: "is worse", NO_DIFFERENCE: "makes no difference that was found",
        TOO_LITTLE: "too little to tell",
    }  # fmt: skip
    parts = [words[verdict] + _for(said[verdict], len(said)) for verdict in words if verdict in said]
    colon = ":" if set(said) == {TOO_LITTLE} else ""
    effects = [f"{one.effect}{f' for {name}' if name else ''}" for one, name in zip(found, names, strict=True)]
    shown = join_words(effects[:MOST]) + (f", {len(effects) - MOST} more in the grid" if len(effects) > MOST else "")
    seeds = sorted({one.seeds for one in found})
    count = plural(seeds[-1], "seed") if len(seeds) == 1 else f"{seeds[0]} to {plural(seeds[-1], 'seed')}"
    settle = settle_text(found[0]) if len(found) == 1 else ""
    return Conclusion(topic, f"{what}{colon} {'; '.join(parts)}.", f"{rests} {shown}; {count}{settle}.")


def _for(names: Sequence[str], kinds: int) -> str:
    named = [name for name in names if name]
    return f" for {join_words(named)}" if named and (kinds > 1 or len(named) <= MOST) else ""


def _all(results: StudyResults, pairs: Iterable[tuple[Recipe, Recipe]]) -> list[Comparison]:
    """Return the comparisons of pairs that have been made: those with seeds in common."""
    if results.test is None:
        return []
    found = [compared(results.comparisons, a, b, results.test) for a, b in pairs]
    return [one for one in found if one is not None and one.seeds]


def _scored(results: StudyResults) -> str:
    return f"test {METRICS[results.metric].label}"


def _sizes(results: StudyResults) -> dict[str, float]:
    """Return training images a class of each regime that has finished runs."""
    done = results.table[results.table["status"] == "finished"]
    sizes = done.groupby("regime", sort=False)["n_train"].mean().dropna() / max(1, len(results.predictions.classes))
    return {str(name): float(size) for name, size in sizes.items()}


def _finished(results: StudyResults, recipe: Recipe) -> bool:
    return not results.finished_runs(recipe).empty


def _strategies(results: StudyResults, recipe: Recipe) -> list[str]:
    """Return the strategies in plan order, the recipe's first."""
    names = list(dict.fromkeys(map(str, results.table["strategy"])))
    return sorted(names, key=lambda name: name != recipe.strategy)


def _regimes(results: StudyResults, recipe: Recipe) -> list[str]:
    """Return the regimes in plan order, the recipe's first."""
    names = list(dict.fromkeys(map(str, results.table["regime"])))
    return sorted(names, key=lambda name: name != recipe.regime)
