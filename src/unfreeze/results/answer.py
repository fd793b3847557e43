"""What a study answers: the recipe to use, how good it is, what comes next to it, and what to beware of.

Validation chooses the recipe, the test images report on it. Every number comes with its 95 % interval, and where a
study cannot tell, the answer says so. ``results.answer_text`` puts it into words.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from unfreeze.results.compared import Compared, compared
from unfreeze.results.conclusions import Conclusion, conclusions
from unfreeze.results.convergence import times_alone
from unfreeze.results.data_found import UNEVEN, DataFound, data_found, leak_text
from unfreeze.results.evidence import Evidence
from unfreeze.results.field_scores import Estimate, class_recalls, field_score
from unfreeze.results.learning_curve import LEAST_SIZES, Curve, series_of
from unfreeze.results.predictions import Field
from unfreeze.results.selection import Ranked, ranking, unequal_runs
from unfreeze.results.words import plural


@dataclass(frozen=True)
class Answer:
    """All that the first screen says.

    Attributes:
        study: its name.
        metric: the study's.
        on_test: the test images also stopped the training.
        cells, finished: how many there are.
        fields: strategies x regimes that have a validation metric.
        recipe: strategy and regime to use; None where nothing has finished.
        validation: mean validation metric of the recipe, over ``runs`` seeds x folds.
        level: further fields with the same validation metric.
        unequal: the fewest and most runs of a field, where not all were run with the same seeds and folds.
        score: of the recipe on the test set; None without test images.
        beside: balanced accuracy and recall of the worst class, by name, where classes differ by more than 3 to 1.
        further: its scores on the study's further test sets, by their names; none for a set without a whole run.
        runner_up: the best field on validation that the study compares with the recipe; None where there is none.
        verdict: the recipe minus the runner-up on the test images.
        unmatched: a field that is ahead of the runner-up, but differs from the recipe in strategy and regime.
        worst: class with the lowest recall, and the recall.
        doubling: the learning curve that says what twice the labels would bring; None where ``no_curve`` says why not.
        no_curve: why.
        seconds: measured in all; NaN where no run has told.
        alone: of the same cells in plain PyTorch without reuse, from what they took and predicted ratios; NaN where the
            plan does not say, or not all cells have finished.
        recipe_seconds: mean of one run of the recipe.
        warnings: on data and leaks, on what failed or has not run; ``failed`` is the part of failed cells, "" if none.
        conclusions: sentences in the order of the article's.
    """

    study: str
    metric: str
    on_test: bool
    cells: int
    finished: int
    fields: int
    recipe: Field | None
    validation: float
    runs: int
    level: tuple[Field, ...]
    unequal: tuple[int, int] | None
    score: Estimate | None
    beside: tuple[tuple[str, Estimate], ...]
    further: tuple[tuple[str, Estimate], ...]
    runner_up: Field | None
    verdict: Compared | None
    unmatched: Field | None
    worst: tuple[str, Estimate] | None
    doubling: Curve | None
    no_curve: str
    seconds: float
    alone: float
    recipe_seconds: float
    failed: str
    warnings: tuple[str, ...]
    conclusions: tuple[Conclusion, ...]


def answer(evidence: Evidence, found: DataFound | None = None) -> Answer:
    """Return what a study answers, finished or not.

    Args:
        evidence: of the study.
        found: what ``data_found`` says, if it has been read.
    """
    found = found or data_found(evidence.study)
    results, metric, test = evidence.results, evidence.metric, evidence.test
    order = ranking(results, metric)
    recipe = _field(order[0]) if order else None
    score, recalls = None, {}
    if recipe and test:
        score = field_score(evidence.predictions, recipe, test, metric)
        recalls = class_recalls(evidence.predictions, recipe, test)
    worst = min(
        ((name, one) for name, one in recalls.items() if math.isfinite(one.value)),
        key=lambda item: item[1].value,
        default=None,
    )
    runner_up, verdict, unmatched = _runner_up(evidence, order)
    curve = _curve(evidence, recipe) if recipe else None
    seconds, alone, own = _seconds(evidence, recipe)
    return Answer(
        study=evidence.name,
        metric=metric,
        on_test=evidence.validates_on_test,
        cells=len(results),
        finished=int((results["status"] == "finished").sum()),
        fields=len(order),
        recipe=recipe,
        validation=order[0].mean if order else math.nan,
        runs=order[0].runs if order else 0,
        level=tuple(_field(one) for one in order[1:] if one.mean == order[0].mean),
        unequal=unequal_runs(results),
        score=score,
        beside=_beside(evidence, recipe, worst) if found.unevenness > UNEVEN else (),
        further=_further(evidence, recipe),
        runner_up=runner_up,
        verdict=verdict,
        unmatched=unmatched,
        worst=worst,
        doubling=curve,
        no_curve="" if curve else _no_curve(evidence, recipe),
        seconds=seconds,
        alone=alone,
        recipe_seconds=own,
        failed=_failed(evidence),
        warnings=tuple(_warnings(evidence, found)),
        conclusions=tuple(conclusions(evidence, recipe)),
    )


def _field(one: Ranked) -> Field:
    return one.strategy, one.regime


def _beside(
    evidence: Evidence, recipe: Field | None, worst: tuple[str, Estimate] | None
) -> tuple[tuple[str, Estimate], ...]:
    if recipe is None or evidence.test is None or evidence.metric != "accuracy":
        return ()
    balanced = field_score(evidence.predictions, recipe, evidence.test, "balanced_accuracy")
    parts = [("balanced accuracy", balanced), ("worst-class recall", worst[1] if worst else None)]
    return tuple((name, one) for name, one in parts if one is not None)


def _further(evidence: Evidence, recipe: Field | None) -> tuple[tuple[str, Estimate], ...]:
    if recipe is None:
        return ()
    names = [name for name in evidence.predictions.tests if name != evidence.test]
    scores = [(name, field_score(evidence.predictions, recipe, name, evidence.metric)) for name in names]
    return tuple((name, one) for name, one in scores if one is not None)


def _runner_up(evidence: Evidence, order: Sequence[Ranked]) -> tuple[Field | None, Compared | None, Field | None]:
    """Return the next field that shares strategy or regime with the first, the comparison, and who is ahead of it."""
    unmatched = None
    for one in order[1:]:
        if one.strategy == order[0].strategy or one.regime == order[0].regime:
            found = None
            if evidence.test:
                found = compared(evidence.comparisons, _field(order[0]), _field(one), evidence.test)
            return _field(one), found, unmatched
        unmatched = unmatched or _field(one)
    return None, None, unmatched


def _curve(evidence: Evidence, recipe: Field) -> Curve | None:
    """Return the curve through the recipe's regime, else the strategy's first: without augmentation if there is one."""
    own = [curve for curve in evidence.curves if curve.strategy == recipe[0]]
    through = [curve for curve in own if recipe[1] in curve.regimes]
    return next(iter(through or sorted(own, key=lambda curve: curve.series != "plain")), None)


def _no_curve(evidence: Evidence, recipe: Field | None) -> str:
    if recipe is None or evidence.test is None:
        return "there are no test images to measure it on" if recipe else "nothing has finished"
    done = evidence.results[(evidence.results["status"] == "finished") & (evidence.results["strategy"] == recipe[0])]
    series = series_of(evidence.regimes[recipe[1]]) if recipe[1] in evidence.regimes else ""
    like = [name for name, regime in evidence.regimes.items() if series_of(regime) == series]
    # A regime is one size, though it may draw a few images more or fewer from fold to fold.
    sizes = done[done["regime"].isin(like)].groupby("regime")["n_train"].mean().nunique()
    return (
        f"that takes {LEAST_SIZES} sizes of training set that differ in nothing else, {recipe[0]} has {sizes} "
        "(regimes: sweep in the study file makes them)"
    )


def _seconds(evidence: Evidence, recipe: Field | None) -> tuple[float, float, float]:
    done = evidence.results[evidence.results["status"] == "finished"]
    runs = evidence.shared.get("runs", [])
    seconds = sum(float(run["seconds"]["total"]) for run in runs) if runs else float(done["seconds_total"].sum())
    times = times_alone(evidence.plan)
    whole = len(done) == len(evidence.results) and set(done["cell"]) <= set(times)
    each = zip(done["cell"], done["seconds_total"], strict=True)
    alone = sum(times[cell] * float(own) for cell, own in each) if whole and len(done) else math.nan
    own = math.nan
    if recipe:
        of_recipe = done[(done["strategy"] == recipe[0]) & (done["regime"] == recipe[1])]
        own = float((of_recipe["seconds_total"] + of_recipe["seconds_shared"]).mean())
    return (seconds if len(done) else math.nan), alone, own


def _failed(evidence: Evidence) -> str:
    if not evidence.errors:
        return ""
    parts = "; ".join(f"{cell} ({gist(error)})" for cell, error in evidence.errors.items())
    return f"{plural(len(evidence.errors), 'cell')} failed: {parts}. The same run command tries again."


def _warnings(evidence: Evidence, found: DataFound) -> list[str]:
    results = evidence.results
    told = [leak_text(found)] if found.straddling else []
    missing = int((results["status"] == "missing").sum())
    if missing:
        verb = "has" if missing == 1 else "have"
        told.append(f"{plural(missing, 'cell')} {verb} not run yet; the same run command continues.")
    if found.unevenness > UNEVEN:
        large, small = (
            max(found.classes, key=found.classes.__getitem__),
            min(found.classes, key=found.classes.__getitem__),
        )
        told.append(
            f"Classes are uneven: {found.classes[large]:,} images of {large}, {found.classes[small]:,} of {small}. "
            "Accuracy hides the small ones."
        )
    done = results[results["status"] == "finished"]
    if len(done) and done["seed"].nunique() == 1:
        told.append("Every number rests on one seed: intervals count the images alone, and no verdict is possible.")
    told += [str(note) for note in evidence.record.get("notes", [])]
    told += [f"{warning} ({plural(len(cells), 'cell')})" for warning, cells in evidence.warnings.items()]
    return told


def gist(error: str) -> str:
    """Return the line of an error that says what happened: a traceback's last, otherwise the first."""
    lines = [line.strip() for line in error.splitlines() if line.strip()] or ["no message"]
    return lines[-1] if lines[0].startswith("Traceback") else lines[0]
