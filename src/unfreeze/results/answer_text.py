"""The answer in words: what the terminal prints and the page's first screen shows."""

import math
from dataclasses import dataclass

from unfreeze.results.answer import Answer
from unfreeze.results.compared import Compared, settle_text
from unfreeze.results.field_scores import Estimate
from unfreeze.results.predictions import Field
from unfreeze.results.verdicts import BETTER, NO_DIFFERENCE, WORSE
from unfreeze.results.words import (
    METRIC_NAMES,
    between_text,
    difference_text,
    estimate_text,
    join_words,
    mean_count_text,
    metric_text,
    plural,
    seconds_text,
)

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
    if answer.recipe is None:
        return NOTHING_YET
    name = METRIC_NAMES[answer.metric]
    best = f"{field_text(answer.recipe)} has the best {_mean(answer)}validation {name}, "
    best += metric_text(answer.metric, answer.validation) + _level(answer)
    if answer.score is None:
        return f"{best}; there is no test set to report on, and a number that was chosen for being the best flatters."
    chosen = ", on images that also chose it" if answer.on_test else ""
    return f"{best}; its test {name} is {_text(answer.metric, answer.score)}, {_rests(answer.score)}{chosen}."


def facts(answer: Answer) -> tuple[Fact, ...]:
    """Return the answer as lines, the weightiest first; empty where nothing has finished."""
    if answer.recipe is None:
        return ()
    return tuple(
        Fact(*one)
        for one in (
            _recipe(answer), _score(answer), *_beside(answer), *_further(answer), _runner_up(answer), _worst(answer),
            _doubling(answer), _time(answer),
        )
    )  # fmt: skip


def field_text(field: Field) -> str:
    """Name a field in a sentence."""
    return f"{field[0]} with {field[1]}"


Line = tuple[str, str, str, str]


def _recipe(answer: Answer) -> Line:
    name = METRIC_NAMES[answer.metric]
    of = f" of {answer.fields} recipes" if answer.fields > 1 else ""
    detail = (
        f"best {_mean(answer)}validation {name}{of}, {metric_text(answer.metric, answer.validation)}{_level(answer)}"
        f"{_unequal(answer)}"
    )
    if answer.fields == 1:
        detail = f"the only recipe that has finished; validation {name} {metric_text(answer.metric, answer.validation)}"
    return "recipe", "Use", field_text(answer.recipe or ("", "")), detail


def _score(answer: Answer) -> Line:
    name = METRIC_NAMES[answer.metric]
    if answer.score is None:
        detail = "no test images to report on; validation chose this number for being the best, which flatters"
        return "score", f"Validation {name}", metric_text(answer.metric, answer.validation), detail
    interval = between_text(answer.metric, answer.score.low, answer.score.high)
    interval = f"95 % interval {interval}; " if interval else ""
    chosen = "; these images also stopped the training" if answer.on_test else ""
    value = metric_text(answer.metric, answer.score.value)
    undefined = "" if math.isfinite(answer.score.value) or answer.metric != "auroc" else UNDEFINED
    return "score", f"Test {name}", value, f"{interval}{_rests(answer.score)}{chosen}{undefined}"


def _beside(answer: Answer) -> list[Line]:
    if not answer.beside:
        return []
    value = "; ".join(f"{name} {_text('accuracy', one)}" for name, one in answer.beside)
    return [("beside", "Classes are uneven", value, "accuracy alone hides the small classes")]


def _further(answer: Answer) -> list[Line]:
    if not answer.further:
        return []
    value = "; ".join(f"{name} {_text(answer.metric, one)}" for name, one in answer.further)
    undefined = [name for name, one in answer.further if not math.isfinite(one.value)]
    detail = f"test {METRIC_NAMES[answer.metric]} of the recipe"
    if undefined and answer.metric == "auroc":
        verb = "has" if len(undefined) == 1 else "have"
        detail += f", not defined where a class has no image: {join_words(undefined)} {verb} not all classes"
    return [("further", "Further tests", value, detail)]


def _runner_up(answer: Answer) -> Line:
    label, ahead = "Runner-up", ""
    if answer.unmatched:
        ahead = (
            f"{field_text(answer.unmatched)} comes next on validation, but differs in both, which no comparison covers"
        )
    if answer.runner_up is None:
        return "runner_up", label, "none", ahead or "one recipe alone has finished"
    ahead = f" ({ahead})" if ahead else ""
    if answer.verdict is None:
        return "runner_up", label, field_text(answer.runner_up), f"no test images to compare them on{ahead}"
    return "runner_up", label, field_text(answer.runner_up), f"{_verdict(answer.verdict)}{ahead}"


def _verdict(found: Compared) -> str:
    """Say whether the recipe (``field``) really is better than the runner-up (``other``)."""
    says = f"{found.effect} for the recipe, {plural(found.seeds, 'seed')}"
    if found.verdict == BETTER:
        return f"the recipe is better: {says}"
    if found.verdict == WORSE:
        return f"the runner-up is better on the test images: {says}; validation chose, and the test set must not"
    if found.verdict == NO_DIFFERENCE:
        return f"no difference found: {says}"
    return f"too little to tell: {says}{settle_text(found)}"


def _worst(answer: Answer) -> Line:
    if answer.worst is None:
        return "worst", "Worst class", "not known", "no test images"
    name, recall = answer.worst
    interval = between_text("accuracy", recall.low, recall.high)
    detail = f"{'95 % interval ' + interval + '; ' if interval else ''}{plural(recall.images, 'test image')}"
    return "worst", "Worst class", f"{name}, recall {metric_text('accuracy', recall.value)}", detail


def _doubling(answer: Answer) -> Line:
    label, curve = "Twice the labels", answer.doubling
    if curve is None:
        return "doubling", label, "cannot be said", answer.no_curve
    largest = float(curve.sizes[-1])
    series = "" if curve.series == "plain" else f" ({curve.series})"
    rests = "" if curve.seeds > 1 else "; counts the images alone, since a size has one seed"
    return (
        "doubling",
        label,
        difference_text(answer.metric, *curve.doubling()),
        f"test {METRIC_NAMES[answer.metric]} from {mean_count_text(largest)} to {mean_count_text(2 * largest)} images "
        f"a class, by the learning curve of {curve.strategy}{series} through {len(curve.sizes)} sizes{rests}",
    )


def _time(answer: Answer) -> Line:
    value = f"{seconds_text(answer.seconds)} in all"
    cells = f"{answer.finished} of {plural(answer.cells, 'cell')}" if answer.finished < answer.cells else ""
    parts = [cells or plural(answer.cells, "cell")]
    if math.isfinite(answer.alone):
        parts.append(f"without reuse about {seconds_text(answer.alone)}, predicted")
    if math.isfinite(answer.recipe_seconds):
        parts.append(f"one run of the recipe {seconds_text(answer.recipe_seconds)}")
    return "time", "Time", value, "; ".join(parts)


def _mean(answer: Answer) -> str:
    return "mean " if answer.runs > 1 else ""


def _unequal(answer: Answer) -> str:
    if answer.unequal is None:
        return ""
    few, many = answer.unequal
    runs = plural(many, "run") if few == many else f"{few} to {plural(many, 'run')}"
    return f"; not all recipes have the same seeds ({runs} each)"


def _level(answer: Answer) -> str:
    return f" (level with {join_words([field_text(one) for one in answer.level])})" if answer.level else ""


def _text(metric: str, one: Estimate) -> str:
    return estimate_text(metric, one.value, one.low, one.high)


def _rests(one: Estimate) -> str:
    groups = "" if one.groups == one.images else f" in {plural(one.groups, 'independent group')}"
    return f"{plural(one.seeds, 'seed')}, {plural(one.images, 'test image')}{groups}"
