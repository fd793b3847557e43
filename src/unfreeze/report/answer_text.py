"""Put a study's answer into words, for the terminal and for the first screen of the report."""

import math
from dataclasses import dataclass

from unfreeze.metrics import METRICS, between_text, difference_text, estimate_text, metric_text
from unfreeze.report.answer import Answer
from unfreeze.statistics.comparisons import Comparison, needed_text
from unfreeze.statistics.intervals import BETTER, NO_DIFFERENCE, WORSE
from unfreeze.statistics.scores import RecipeScore
from unfreeze.statistics.selection import AS_CHEAP, RecipeRanking
from unfreeze.text import MISSING, count_text, join_words, mean_count_text, plural, seconds_text

NOTHING_YET = "No cell has finished yet, so there is nothing to compare."

ON_TEST = (
    "This study validates on its test images: the scores that it reports also stopped the training and selected the "
    "recipe, so every test score here is optimistic."
)

SELECTED = "used for selection, so it is optimistic"

UNDEFINED = "; undefined because a class has no test image (--set metric=balanced_accuracy is defined without one)"


@dataclass(frozen=True)
class Fact:
    """One line of the answer: ``key`` names it to programs, ``label`` to people; ``detail`` may be empty."""

    key: str
    label: str
    value: str
    detail: str


def headline(answer: Answer) -> str:
    """Return the recommended recipe and its score in one sentence."""
    if answer.recipe is None or answer.ranking is None:
        return NOTHING_YET
    use = f"Use {answer.recipe}: {_why_recommended(answer, answer.ranking)}"
    if answer.test_score is None:
        return f"{use}; there is no test set, and the validation score was {SELECTED}."
    score = _estimate(answer.metric, answer.test_score)
    selected = ", which were also used for selection" if answer.validates_on_test else ""
    return f"{use}; its test {METRICS[answer.metric].label} is {score}, {_sample(answer.test_score)}{selected}."


def facts(answer: Answer) -> tuple[Fact, ...]:
    """Return the answer as lines, the most important first; empty where nothing has finished."""
    if answer.recipe is None or answer.ranking is None:
        return ()
    why = f"{_why_recommended(answer, answer.ranking)}{_unequal_runs(answer)}"
    found = (
        Fact("recipe", "Use", str(answer.recipe), why),
        _score(answer),
        _ties(answer, answer.ranking),
        _imbalance(answer),
        _other_tests(answer),
        _runner_up(answer),
        _worst_class(answer),
        _doubling(answer),
        _time(answer),
    )
    return tuple(fact for fact in found if fact is not None)


def _why_recommended(answer: Answer, ranking: RecipeRanking) -> str:
    """Return how the recipe scored on validation, and why it is recommended."""
    value = metric_text(answer.metric, ranking.value)
    if ranking.images:
        value += f" on {plural(ranking.images, 'image')}"
    choice, name = ranking.choice, METRICS[answer.metric].label
    if len(ranking.contenders) == 1:
        return f"the only finished recipe; validation {name} {value}"
    mean = "mean " if max(len(contender.seeds) for contender in ranking.contenders) > 1 else ""
    count = len(choice.order)
    if count == 1:
        return f"the recipe with the most training images; {mean}validation {name} {value}"
    if choice.recommended == choice.order[0]:
        others = f"the {count} recipes with the most training images" if choice.smaller else f"{count} recipes"
        return f"best {mean}validation {name} of {others}, {value}"
    leader = choice.order[0]
    return (
        f"{mean}validation {name} {value}; {ranking.recipe_at(leader)} reaches "
        f"{metric_text(answer.metric, ranking.value_of(leader))}, too small a gain for its cost "
        f"({_extra_cost(ranking, leader)})"
    )


def _extra_cost(ranking: RecipeRanking, leader: int) -> str:
    """Return what the leader costs beside the recommended recipe: the criterion that decided between the two."""
    ours, theirs = ranking.contenders[ranking.choice.recommended], ranking.contenders[leader]
    if theirs.flops > AS_CHEAP * ours.flops:
        return f"{theirs.flops / ours.flops:.1f} times the multiply-adds per image"
    if theirs.params_trained != ours.params_trained:
        return f"{count_text(theirs.params_trained)} trained parameters instead of {count_text(ours.params_trained)}"
    return "the same cost, but later in the study file"


def _unequal_runs(answer: Answer) -> str:
    if answer.unequal_runs is None:
        return ""
    few, many = answer.unequal_runs
    runs = plural(many, "run") if few == many else f"{few} to {plural(many, 'run')}"
    return f"; recipes were not all run with the same seeds ({runs} each)"


def _score(answer: Answer) -> Fact:
    name = METRICS[answer.metric].label
    if answer.test_score is None:
        score = answer.validation_score
        value = math.nan if score is None else score.value
        interval = "" if score is None else _interval(answer.metric, score)
        detail = f"{interval}there are no test images, and this score was {SELECTED}"
        return Fact("score", f"Validation {name}", metric_text(answer.metric, value), detail)
    detail = f"{_interval(answer.metric, answer.test_score)}{_sample(answer.test_score)}"
    if answer.validates_on_test:
        detail += f"; {SELECTED}"
    if not math.isfinite(answer.test_score.value) and METRICS[answer.metric].every_class:
        detail += UNDEFINED
    return Fact("score", f"Test {name}", metric_text(answer.metric, answer.test_score.value), detail)


def _ties(answer: Answer, ranking: RecipeRanking) -> Fact | None:
    """Name the recipes that the ranking set cannot distinguish from the recommended one; warn of a small set."""
    choice, small = ranking.choice, ""
    if ranking.images:
        small = small_pool_text(answer.metric, ranking.images, ranking.smallest_class, answer.can_fold)
    if not choice.ties:
        return Fact("level", "Few validation images", "a coarse ranking", small) if small else None
    detail = f"not distinguishable from the recommended recipe on {plural(ranking.images, 'validation image')}"
    if choice.n_needed:
        detail += (
            f"; about {choice.n_needed:,} would separate them, or show that they differ by less than "
            f"{point_text(answer.metric)}"
        )
    names = join_words([str(ranking.recipe_at(place)) for place in choice.ties])
    return Fact("level", "Too close to call", names, f"{detail}; {small}" if small else detail)


def _imbalance(answer: Answer) -> Fact | None:
    if not answer.imbalance_scores:
        return None
    value = "; ".join(f"{name} {_estimate('accuracy', score)}" for name, score in answer.imbalance_scores)
    detail = "accuracy hides errors in small classes"
    if answer.metric == "balanced_accuracy":
        detail += ", so balanced accuracy leads (--set metric=accuracy changes that)"
    return Fact("beside", "Imbalanced classes", value, detail)


def _other_tests(answer: Answer) -> Fact | None:
    if not answer.other_test_scores:
        return None
    value = "; ".join(f"{name} {_estimate(answer.metric, score)}" for name, score in answer.other_test_scores)
    undefined = [name for name, score in answer.other_test_scores if not math.isfinite(score.value)]
    detail = f"test {METRICS[answer.metric].label} of the recommended recipe"
    if undefined and METRICS[answer.metric].every_class:
        verb = "lacks" if len(undefined) == 1 else "lack"
        detail += f"; undefined where a class has no image: {join_words(undefined)} {verb} some classes"
    return Fact("further", "Other test sets", value, detail)


def _runner_up(answer: Answer) -> Fact:
    ahead = ""
    if answer.incomparable:
        ahead = (
            f"{answer.incomparable} ranks next on validation, but differs in strategy and regime, and the study "
            "compares recipes that differ in one of them"
        )
    if answer.runner_up is None:
        return Fact("runner_up", "Runner-up", "none", ahead or "only one recipe has finished")
    says = "no test images to compare them on" if answer.comparison is None else _verdict(answer.comparison)
    return Fact("runner_up", "Runner-up", str(answer.runner_up), f"{says} ({ahead})" if ahead else says)


def _verdict(found: Comparison) -> str:
    """Return the verdict on the recommended recipe against the runner-up, with the numbers."""
    if not found.seeds:
        return f"too little data to tell{needed_text(found)}"
    numbers = f"recommended recipe minus runner-up {found.effect}, {plural(found.seeds, 'seed')}"
    if found.verdict == BETTER:
        return f"the recommended recipe is better: {numbers}"
    if found.verdict == WORSE:
        return (
            f"the runner-up is better on the test images: {numbers}; validation selects, because a score that was "
            "used for selection would be optimistic"
        )
    if found.verdict == NO_DIFFERENCE:
        return f"no difference found: {numbers}"
    return f"too little data to tell: {numbers}{needed_text(found)}"


def _worst_class(answer: Answer) -> Fact:
    images = "validation image" if answer.on_validation else "test image"
    if answer.worst_class is None:
        return Fact("worst", "Worst class", MISSING, f"no {images} has a label")
    name, recall = answer.worst_class
    detail = f"{_interval('accuracy', recall)}{plural(recall.images, images)}"
    return Fact("worst", "Worst class", f"{name}, recall {metric_text('accuracy', recall.value)}", detail)


def _doubling(answer: Answer) -> Fact:
    label, curve = "Twice as many labels", answer.learning_curve
    if curve is None:
        return Fact("doubling", label, "unknown", answer.why_no_curve)
    role, largest = "validation" if answer.on_validation else "test", float(curve.sizes[-1])
    series = "" if curve.series == "plain" else f" ({curve.series})"
    detail = (
        f"predicted change of {role} {METRICS[answer.metric].label} from {mean_count_text(largest)} to "
        f"{mean_count_text(2 * largest)} training images per class, by the learning curve of {curve.strategy}{series} "
        f"through {len(curve.sizes)} sizes"
    )
    if curve.seeds == 1:
        detail += "; the interval does not cover other seeds, because a size has only one"
    if len(curve.sizes) == 2:
        detail += "; two sizes do not determine the curve's shape, and the interval covers that"
    return Fact("doubling", label, difference_text(answer.metric, *curve.doubling()), detail)


def _time(answer: Answer) -> Fact:
    cells = plural(answer.cells, "cell")
    parts = [f"{answer.finished} of {cells}" if answer.finished < answer.cells else cells]
    if math.isfinite(answer.seconds_without_reuse):
        parts.append(f"without reuse about {seconds_text(answer.seconds_without_reuse)}, predicted")
    if math.isfinite(answer.recipe_seconds):
        parts.append(f"{seconds_text(answer.recipe_seconds)} for one run of the recommended recipe")
    if math.isfinite(answer.image_seconds) and answer.image_seconds > 0:
        parts.append(f"its network processes {rate_text(1 / answer.image_seconds)} images per second")
    return Fact("time", "Time", f"{seconds_text(answer.seconds)} in total", "; ".join(parts))


def rate_text(rate: float) -> str:
    """Write a rate with two significant digits, e.g. ``0.53``, ``7.1``, ``2,300``."""
    return f"{float(f'{rate:.2g}'):,g}"


def _estimate(metric: str, score: RecipeScore) -> str:
    return estimate_text(metric, score.value, score.low, score.high)


def _interval(metric: str, score: RecipeScore) -> str:
    interval = between_text(metric, score.low, score.high)
    return f"95 % interval {interval}; " if interval else ""


def _sample(score: RecipeScore) -> str:
    groups = "" if score.groups == score.images else f" in {plural(score.groups, 'independent group')}"
    return f"{plural(score.seeds, 'seed')}, {plural(score.images, 'test image')}{groups}"


FEW_IMAGES, FEW_IN_A_CLASS = 200, 20
"""Validation images, in total and of the smallest class, below which the report calls a ranking coarse."""


def small_pool_text(metric: str, images: int, smallest: int, can_fold: bool = True) -> str:
    """Say how much one image weighs in a ranking on few validation images; "" where there are enough.

    Args:
        metric: the metric that ranks.
        images: number of validation images, at least 1.
        smallest: number of validation images of the smallest class.
        can_fold: whether the study could draw folds: it has none, and the data gives no splits.
    """
    if images >= FEW_IMAGES and smallest >= FEW_IN_A_CLASS:
        return ""
    way = "--set split.folds=5 cross-validates over five folds" if can_fold else "more images rank more finely"
    share = 100 / images
    weight = (
        f"one image is {share:.1f} points" if METRICS[metric].percent else f"one image has {share:.1f} % of the weight"
    )
    return f"validation has {plural(images, 'image')} ({smallest:,} in the smallest class), so {weight}; {way}"


def point_text(metric: str) -> str:
    """Write the difference below which recipes count as equally good: 0.01 of any metric."""
    return "1 point" if METRICS[metric].percent else "0.01"
