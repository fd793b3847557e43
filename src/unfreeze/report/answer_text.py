"""The answer in words: what the terminal prints and the page's first screen shows."""

import math
from dataclasses import dataclass

from unfreeze.metrics import METRICS, between_text, difference_text, estimate_text, metric_text
from unfreeze.report.answer import Answer
from unfreeze.statistics.comparisons import Comparison, settle_text
from unfreeze.statistics.intervals import BETTER, NO_DIFFERENCE, WORSE
from unfreeze.statistics.scores import RecipeScore
from unfreeze.statistics.selection import AS_CHEAP, Standing
from unfreeze.text import MISSING, count_text, join_words, mean_count_text, plural, seconds_text

NOTHING_YET = "No cell has finished yet, so there is nothing to compare."

ON_TEST = (
    "This study reports on the images that stopped its training: they chose what they report on, so every test score "
    "here is too good."
)

UNDEFINED = "; not defined, since a class has no test image: --set metric=balanced_accuracy leads with one that is"


@dataclass(frozen=True)
class Fact:
    """One line of the answer: ``key`` names it to programs, ``label`` to people; ``detail`` may be empty."""

    key: str
    label: str
    value: str
    detail: str


def headline(answer: Answer) -> str:
    """Return the recipe and its score in one sentence."""
    if answer.recipe is None or answer.standing is None:
        return NOTHING_YET
    name = METRICS[answer.metric].label
    use = f"Use {answer.recipe}: {_validated(answer, answer.standing)}"
    if answer.score is None:
        return f"{use}; there is no test set to report on, and validation chose this recipe, which is optimistic."
    chosen = ", on images that also chose it" if answer.on_test else ""
    return f"{use}; its test {name} is {_text(answer.metric, answer.score)}, {_rests(answer.score)}{chosen}."


def facts(answer: Answer) -> tuple[Fact, ...]:
    """Return the answer as lines, the weightiest first; empty where nothing has finished."""
    if answer.recipe is None:
        return ()
    return tuple(
        Fact(*one)
        for one in (
            _recipe(answer), _score(answer), *_level(answer), *_beside(answer), *_further(answer), _runner_up(answer),
            _worst(answer), _doubling(answer), _time(answer),
        )
    )  # fmt: skip


Line = tuple[str, str, str, str]


def _recipe(answer: Answer) -> Line:
    if answer.recipe is None or answer.standing is None:
        return "recipe", "Use", NOTHING_YET, ""
    return "recipe", "Use", str(answer.recipe), f"{_validated(answer, answer.standing)}{_unequal(answer)}"


def _level(answer: Answer) -> list[Line]:
    """Name the recipes that the ranking set does not tell from the recommended one, and what few images mean."""
    standing = answer.standing
    if standing is None:
        return []
    choice, small = standing.choice, ""
    if standing.images:
        small = small_pool_text(answer.metric, standing.images, standing.smallest_class, answer.can_fold)
    if not choice.level:
        return [("level", "Few images", "one image counts much", small)] if small else []
    needed = ""
    if choice.n_needed:
        needed = (
            f"; about {choice.n_needed:,} would tell, or show that less than {point_text(answer.metric)} lies between"
        )
    detail = f"from the recipe, on {plural(standing.images, 'validation image')}{needed}"
    names = join_words([str(standing.recipe_at(place)) for place in choice.level])
    return [("level", "Not told apart", names, f"{detail}; {small}" if small else detail)]


def _validated(answer: Answer, standing: Standing) -> str:
    """Say how the recipe did on validation, and why it is the one to use."""
    value, images = metric_text(answer.metric, standing.value), ""
    if standing.images:
        images = f" on {plural(standing.images, 'image')}"
    choice, name = standing.choice, METRICS[answer.metric].label
    count = len(choice.order)
    if len(standing.contenders) == 1:
        return f"the only recipe that has finished; validation {name} {value}{images}"
    mean = "mean " if max(len(one.seeds) for one in standing.contenders) > 1 else ""
    of = f"the {count} recipes with the most training images" if choice.smaller else f"{count} recipes"
    if count == 1:
        return f"the recipe with the most training images; {mean}validation {name} {value}{images}"
    if choice.recommended == choice.order[0]:
        return f"best {mean}validation {name} of {of}, {value}{images}"
    leader, gain = choice.order[0], "more" if METRICS[answer.metric].higher_is_better else "less"
    return (
        f"{mean}validation {name} {value}{images}; {standing.recipe_at(leader)} has "
        f"{metric_text(answer.metric, standing.value_of(leader))}, which is too little {gain} to pay for "
        f"({_cost(standing, leader)})"
    )


def _cost(standing: Standing, leader: int) -> str:
    """Say what the leader takes beside the recommended recipe: what decided between the two."""
    ours, theirs = standing.contenders[standing.choice.recommended], standing.contenders[leader]
    if theirs.flops > AS_CHEAP * ours.flops:
        return f"{theirs.flops / ours.flops:.1f} times the multiply-adds an image"
    if theirs.params_trained != ours.params_trained:
        return f"{count_text(theirs.params_trained)} trained parameters instead of {count_text(ours.params_trained)}"
    return "the same cost, and later in the study file"


def _score(answer: Answer) -> Line:
    name = METRICS[answer.metric].label
    chosen = "; these images also stopped the training" if answer.on_test else ""
    if answer.score is None:
        one = answer.validation
        value = math.nan if one is None else one.value
        interval = "" if one is None else _interval(answer.metric, one)
        detail = f"{interval}no test images to report on; validation chose this recipe, which is optimistic"
        return "score", f"Validation {name}", metric_text(answer.metric, value), detail
    interval = _interval(answer.metric, answer.score)
    value_text = metric_text(answer.metric, answer.score.value)
    undefined = "" if math.isfinite(answer.score.value) or not METRICS[answer.metric].every_class else UNDEFINED
    return "score", f"Test {name}", value_text, f"{interval}{_rests(answer.score)}{chosen}{undefined}"


def _interval(metric: str, one: RecipeScore) -> str:
    interval = between_text(metric, one.low, one.high)
    return f"95 % interval {interval}; " if interval else ""


def _beside(answer: Answer) -> list[Line]:
    if not answer.beside:
        return []
    value = "; ".join(f"{name} {_text('accuracy', one)}" for name, one in answer.beside)
    detail = "accuracy alone hides the small classes"
    if answer.metric == "balanced_accuracy":
        detail += ", so balanced accuracy leads (--set metric=accuracy says otherwise)"
    return [("beside", "Classes are uneven", value, detail)]


def _further(answer: Answer) -> list[Line]:
    if not answer.further:
        return []
    value = "; ".join(f"{name} {_text(answer.metric, one)}" for name, one in answer.further)
    undefined = [name for name, one in answer.further if not math.isfinite(one.value)]
    detail = f"test {METRICS[answer.metric].label} of the recipe"
    if undefined and METRICS[answer.metric].every_class:
        verb = "has" if len(undefined) == 1 else "have"
        detail += f", not defined where a class has no image: {join_words(undefined)} {verb} not all classes"
    return [("further", "Further tests", value, detail)]


def _runner_up(answer: Answer) -> Line:
    label, ahead = "Runner-up", ""
    if answer.unmatched:
        ahead = f"{answer.unmatched} comes next on validation, but differs in both, which no comparison covers"
    if answer.runner_up is None:
        return "runner_up", label, "none", ahead or "one recipe alone has finished"
    ahead = f" ({ahead})" if ahead else ""
    if answer.verdict is None:
        return "runner_up", label, str(answer.runner_up), f"no test images to compare them on{ahead}"
    return "runner_up", label, str(answer.runner_up), f"{_verdict(answer.verdict)}{ahead}"


def _verdict(found: Comparison) -> str:
    """Say whether the recipe is better than the runner-up."""
    says = f"{found.effect} for the recipe, {plural(found.seeds, 'seed')}"
    if found.verdict == BETTER:
        return f"the recipe is better: {says}"
    if found.verdict == WORSE:
        return f"the runner-up is better on the test images: {says}; validation chose, and the test set must not"
    if found.verdict == NO_DIFFERENCE:
        return f"no difference found: {says}"
    return f"too little to tell: {says}{settle_text(found)}"


def _worst(answer: Answer) -> Line:
    images = "validation image" if answer.on_validation else "test image"
    if answer.worst is None:
        return "worst", "Worst class", MISSING, f"no {images} has a label"
    name, recall = answer.worst
    detail = f"{_interval('accuracy', recall)}{plural(recall.images, images)}"
    return "worst", "Worst class", f"{name}, recall {metric_text('accuracy', recall.value)}", detail


def _doubling(answer: Answer) -> Line:
    label, curve = "Twice the labels", answer.doubling
    if curve is None:
        return "doubling", label, "cannot be said", answer.no_curve
    role, largest = "validation" if answer.on_validation else "test", float(curve.sizes[-1])
    series = "" if curve.series == "plain" else f" ({curve.series})"
    rests = "" if curve.seeds > 1 else "; counts the images alone, since a size has one seed"
    if len(curve.sizes) == 2:
        rests += "; two sizes leave the curve's shape open, which the interval counts"
    return (
        "doubling",
        label,
        difference_text(answer.metric, *curve.doubling()),
        f"{role} {METRICS[answer.metric].label} from {mean_count_text(largest)} to {mean_count_text(2 * largest)} "
        f"images a class, by the learning curve of {curve.strategy}{series} through {len(curve.sizes)} sizes{rests}",
    )


def _time(answer: Answer) -> Line:
    value = f"{seconds_text(answer.seconds)} in all"
    cells = f"{answer.finished} of {plural(answer.cells, 'cell')}" if answer.finished < answer.cells else ""
    parts = [cells or plural(answer.cells, "cell")]
    if math.isfinite(answer.alone):
        parts.append(f"without reuse about {seconds_text(answer.alone)}, predicted")
    if math.isfinite(answer.recipe_seconds):
        parts.append(f"one run of the recipe {seconds_text(answer.recipe_seconds)}")
    if math.isfinite(answer.image_seconds):
        parts.append(f"one image through its network {seconds_text(answer.image_seconds)}")
    return "time", "Time", value, "; ".join(parts)


def _unequal(answer: Answer) -> str:
    if answer.unequal is None:
        return ""
    few, many = answer.unequal
    runs = plural(many, "run") if few == many else f"{few} to {plural(many, 'run')}"
    return f"; not all recipes have the same seeds ({runs} each)"


def _text(metric: str, one: RecipeScore) -> str:
    return estimate_text(metric, one.value, one.low, one.high)


def _rests(one: RecipeScore) -> str:
    groups = "" if one.groups == one.images else f" in {plural(one.groups, 'independent group')}"
    return f"{plural(one.seeds, 'seed')}, {plural(one.images, 'test image')}{groups}"


FEW_IMAGES, FEW_IN_A_CLASS = 200, 20
"""Validation images below which a choice among recipes rests on few, in all and in the smallest class."""


def small_pool_text(metric: str, images: int, smallest: int, can_fold: bool = True) -> str:
    """Say how coarse a ranking on few validation images is, and what makes it finer; "" where there are enough.

    Args:
        metric: that they rank by.
        images: validation images in all, at least 1.
        smallest: validation images of the class that has the fewest.
        can_fold: whether the study may draw folds: has none, and no splits that the data gives.
    """
    if images >= FEW_IMAGES and smallest >= FEW_IN_A_CLASS:
        return ""
    way = "--set split.folds=5 validates on others in each of five turns" if can_fold else "more images tell more"
    share = 100 / images
    weight = f"is {share:.1f} points" if METRICS[metric].percent else f"weighs {share:.1f} %"
    return f"validation has {plural(images, 'image')} ({smallest:,} in the smallest class): one image {weight}; {way}"


def point_text(metric: str) -> str:
    """Name the difference below which recipes count as alike: 0.01 of any metric."""
    return "a point" if METRICS[metric].percent else "0.01"
