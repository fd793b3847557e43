"""What a study answers: the recipe to use, how good it is, what comes next to it, and what to beware of.

Validation chooses the recipe, the test images report on it. Every number comes with its 95 % interval, and where a
study cannot tell, the answer says so. ``report.answer_text`` puts it into words.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

from unfreeze.metrics import METRICS
from unfreeze.report.conclusions import Conclusion, conclusions
from unfreeze.statistics.comparisons import Comparison, compared
from unfreeze.statistics.convergence import times_alone
from unfreeze.statistics.data_quality import DataSummary, leak_text, read_data_summary
from unfreeze.statistics.learning_curve import Curve, learning_curves, series_of
from unfreeze.statistics.predictions import Predictions, Recipe
from unfreeze.statistics.scores import RecipeScore, class_recalls, recipe_score
from unfreeze.statistics.selection import Standing, unequal_runs
from unfreeze.statistics.study_results import StudyResults
from unfreeze.text import join_words, plural


@dataclass(frozen=True)
class Answer:
    """All that the first screen says.

    Attributes:
        study: its name.
        metric: the one that leads the answer, see ``StudyResults.leading``.
        on_test: the test images also stopped the training.
        cells, finished: how many there are.
        standing: how the recipes stand on validation; None where nothing has finished.
        recipe: strategy and regime to use; None where nothing has finished.
        validation: ranking metric of the recipe with its interval.
        unequal: the fewest and most runs of a recipe, where not all were run with the same seeds and folds.
        score: of the recipe on the test set; None without test images.
        beside: balanced accuracy and recall of the worst class, by name, where classes differ by more than 3 to 1.
        further: its scores on the study's further test sets, by their names; none for a set without a whole run.
        can_fold: whether ``split.folds`` could be asked for: there are none, and the data says no splits.
        on_validation: the scores below are of the validation pool, since there are no test images.
        runner_up: the best recipe on validation that the study compares with the recipe; None where there is none.
        verdict: the recipe minus the runner-up on the test images.
        unmatched: a recipe that is ahead of the runner-up, but differs from the recipe in strategy and regime.
        worst: class with the lowest recall, and the recall.
        doubling: the learning curve that says what twice the labels would bring; None where ``no_curve`` says why not.
        no_curve: why.
        seconds: measured in all; NaN where no run has told.
        alone: of the same cells in plain PyTorch without reuse, from what they took and predicted ratios; NaN where the
            plan does not say, or not all cells have finished.
        recipe_seconds: mean of one run of the recipe.
        image_seconds: measured of one image through its whole network, the mean of its cells; NaN where none was.
        warnings: on data and leaks, on what failed or has not run; ``failed`` is the part of failed cells, "" if none.
        conclusions: sentences in the order of the article's.
    """

    study: str
    metric: str
    on_test: bool
    cells: int
    finished: int
    standing: Standing | None
    recipe: Recipe | None
    validation: RecipeScore | None
    unequal: tuple[int, int] | None
    score: RecipeScore | None
    beside: tuple[tuple[str, RecipeScore], ...]
    further: tuple[tuple[str, RecipeScore], ...]
    can_fold: bool
    on_validation: bool
    runner_up: Recipe | None
    verdict: Comparison | None
    unmatched: Recipe | None
    worst: tuple[str, RecipeScore] | None
    doubling: Curve | None
    no_curve: str
    seconds: float
    alone: float
    recipe_seconds: float
    image_seconds: float
    failed: str
    warnings: tuple[str, ...]
    conclusions: tuple[Conclusion, ...]


def answer(results: StudyResults, found: DataSummary | None = None) -> Answer:
    """Return what a study answers, finished or not.

    Args:
        results: of the study.
        found: what ``read_data_summary`` says, if it has been read.
    """
    found = found or read_data_summary(results.study)
    table, standing = results.table, results.standing
    recipe = standing.recommended if standing else None
    score = worst = validation = None
    if recipe:
        validation = recipe_score(results.ranking.predictions, recipe, "validation", results.leading)
        score = recipe_score(results.predictions, recipe, results.test, results.leading) if results.test else None
        worst = _worst(results, recipe)
    runner_up, verdict, unmatched = _runner_up(results)
    curve = _curve(results, recipe) if recipe else None
    seconds, alone, own = _seconds(results, recipe)
    return Answer(
        study=results.name,
        metric=results.leading,
        on_test=results.validates_on_test,
        cells=len(table),
        finished=int((table["status"] == "finished").sum()),
        standing=standing,
        recipe=recipe,
        validation=validation,
        unequal=unequal_runs(table),
        score=score,
        beside=_beside(results, recipe, worst) if found.uneven else (),
        further=_further(results, recipe),
        can_fold=results.record["study"].get("split", {}).get("folds") is None and not found.given,
        on_validation=results.test is None,
        runner_up=runner_up,
        verdict=verdict,
        unmatched=unmatched,
        worst=worst,
        doubling=curve,
        no_curve="" if curve else _no_curve(results, recipe),
        seconds=seconds,
        alone=alone,
        recipe_seconds=own,
        image_seconds=_image_seconds(results, recipe),
        failed=_failed(results),
        warnings=tuple(_warnings(results, found)),
        conclusions=tuple(conclusions(results, recipe)),
    )


def _reporting(results: StudyResults) -> tuple[Predictions, str]:
    """Return what scores rest on: the test images, else the validation pool."""
    return (results.predictions, results.test) if results.test else (results.ranking.predictions, "validation")


def _worst(results: StudyResults, recipe: Recipe) -> tuple[str, RecipeScore] | None:
    recalls = class_recalls(_reporting(results)[0], recipe, _reporting(results)[1])
    known = [(name, one) for name, one in recalls.items() if math.isfinite(one.value)]
    return min(known, key=lambda item: item[1].value, default=None)


def _beside(
    results: StudyResults, recipe: Recipe | None, worst: tuple[str, RecipeScore] | None
) -> tuple[tuple[str, RecipeScore], ...]:
    if recipe is None or results.test is None or results.metric != "accuracy":
        return ()
    other = "accuracy" if results.leading == "balanced_accuracy" else "balanced_accuracy"
    score = recipe_score(results.predictions, recipe, results.test, other)
    parts = [(METRICS[other].label, score), ("worst-class recall", worst[1] if worst else None)]
    return tuple((name, one) for name, one in parts if one is not None)


def _further(results: StudyResults, recipe: Recipe | None) -> tuple[tuple[str, RecipeScore], ...]:
    if recipe is None:
        return ()
    names = [name for name in results.predictions.tests if name != results.test]
    scores = [(name, recipe_score(results.predictions, recipe, name, results.leading)) for name in names]
    return tuple((name, one) for name, one in scores if one is not None)


def _runner_up(results: StudyResults) -> tuple[Recipe | None, Comparison | None, Recipe | None]:
    """Return the next recipe that shares strategy or regime with the recommended, the comparison, and who is ahead."""
    standing, unmatched = results.standing, None
    if standing is None:
        return None, None, None
    recipe = standing.recommended
    for place in (*standing.choice.order, *standing.choice.smaller):
        other = standing.recipe_at(place)
        if place == standing.choice.recommended:
            continue
        if other.strategy == recipe.strategy or other.regime == recipe.regime:
            found = compared(results.leading_comparisons, recipe, other, results.test) if results.test else None
            return other, found, unmatched
        unmatched = unmatched or other
    return None, None, unmatched


def _curve(results: StudyResults, recipe: Recipe) -> Curve | None:
    """Return the curve through the recipe's regime, else the strategy's first: without augmentation if there is one.

    Through three sizes or more if there are, else through two.
    """
    predictions, test = _reporting(results)
    predictions = replace(predictions, metric=results.leading)
    curves = results.curves
    if results.leading != results.metric:
        curves = tuple(learning_curves(predictions, results.table, results.regimes, test))
    if not any(curve.strategy == recipe.strategy for curve in curves):
        curves = tuple(learning_curves(predictions, results.table, results.regimes, test, least=2))
    own = [curve for curve in curves if curve.strategy == recipe.strategy]
    through = [curve for curve in own if recipe.regime in curve.regimes]
    return next(iter(through or sorted(own, key=lambda curve: curve.series != "plain")), None)


def _no_curve(results: StudyResults, recipe: Recipe | None) -> str:
    if recipe is None:
        return "nothing has finished"
    done = results.finished[results.finished["strategy"] == recipe.strategy]
    series = series_of(results.regimes[recipe.regime]) if recipe.regime in results.regimes else ""
    like = [name for name, regime in results.regimes.items() if series_of(regime) == series]
    # A regime is one size, though it may draw a few images more or fewer from fold to fold.
    sizes = done[done["regime"].isin(like)].groupby("regime")["n_train"].mean().nunique()
    return (
        f"that takes two sizes of training set that differ in nothing else, {recipe.strategy} has {sizes}; a regime "
        "with sweep: {train_per_class: [25, 50, 100]} in the study file makes them"
    )


def _seconds(results: StudyResults, recipe: Recipe | None) -> tuple[float, float, float]:
    done = results.finished
    runs = results.shared.get("runs", [])
    seconds = sum(float(run["seconds"]["total"]) for run in runs) if runs else float(done["seconds_total"].sum())
    times = times_alone(results.plan)
    whole = len(done) == len(results.table) and set(done["cell"]) <= set(times)
    each = zip(done["cell"], done["seconds_total"], strict=True)
    alone = sum(times[cell] * float(own) for cell, own in each) if whole and len(done) else math.nan
    own = math.nan
    if recipe:
        of_recipe = results.finished_runs(recipe)
        own = float((of_recipe["seconds_total"] + of_recipe["seconds_shared"]).mean())
    return (seconds if len(done) else math.nan), alone, own


def _image_seconds(results: StudyResults, recipe: Recipe | None) -> float:
    return float(results.finished_runs(recipe)["seconds_per_image"].mean()) if recipe else math.nan


def as_record(answer: Answer) -> dict[str, Any] | None:
    """Return what is recommended as ``run --json`` has it; None where nothing has finished.

    ``low`` and ``high`` are the bounds of the test score's 95 % interval, or without test images of the validation's.
    """
    standing, shown = answer.standing, answer.score or answer.validation
    if answer.recipe is None or standing is None:
        return None
    numbers = {
        "validation": standing.value,
        "test": None if answer.score is None else answer.score.value,
        "low": None if shown is None else shown.low,
        "high": None if shown is None else shown.high,
    }
    return {
        "strategy": answer.recipe.strategy,
        "regime": answer.recipe.regime,
        "cell": standing.cell,
        **{name: None if value is None or not math.isfinite(value) else value for name, value in numbers.items()},
        "level": [list(standing.recipe_at(place)) for place in standing.choice.level],
        "n_needed": standing.choice.n_needed,
    }


def _failed(results: StudyResults) -> str:
    if not results.errors:
        return ""
    parts = "; ".join(f"{cell} ({gist(error)})" for cell, error in results.errors.items())
    return f"{plural(len(results.errors), 'cell')} failed: {parts}. The same run command tries again."


def _warnings(results: StudyResults, found: DataSummary) -> list[str]:
    table = results.table
    told = [leak_text(found)] if found.straddling else []
    missing = int((table["status"] == "missing").sum())
    if missing:
        verb = "has" if missing == 1 else "have"
        told.append(f"{plural(missing, 'cell')} {verb} not run yet; the same run command continues.")
    if found.uneven:
        large, small = (
            max(found.classes, key=found.classes.__getitem__),
            min(found.classes, key=found.classes.__getitem__),
        )
        told.append(
            f"Classes are uneven: {found.classes[large]:,} images of {large}, {found.classes[small]:,} of {small}. "
            "Accuracy hides the small ones; metric: balanced_accuracy does not, and balance: weights in a regime heeds "
            "them."
        )
    told += _worse_with_more(results.standing)
    done = results.finished
    if len(done) and done["seed"].nunique() == 1:
        told.append(
            "Every number rests on one seed: intervals count the images alone, and no verdict is possible. "
            "seeds: 3 repeats all."
        )
    told += [str(note) for note in results.record.get("notes", [])]
    told += [f"{warning} ({plural(len(cells), 'cell')})" for warning, cells in results.warnings.items()]
    return told


def _worse_with_more(standing: Standing | None) -> list[str]:
    """Warn of recipes with fewer training images that do better than the recommended beyond their intervals."""
    if standing is None or not standing.choice.worse_with_more:
        return []
    better = [str(standing.recipe_at(place)) for place in standing.choice.worse_with_more]
    verb = "does" if len(better) == 1 else "do"
    return [
        f"{join_words(better)} {verb} better on validation than {standing.recommended}, which trains on "
        "more images: more images made it worse, so look at the labels ('unfreeze check DATA')."
    ]


def gist(error: str) -> str:
    """Return the line of an error that says what happened: a traceback's last, otherwise the first."""
    lines = [line.strip() for line in error.splitlines() if line.strip()] or ["no message"]
    return lines[-1] if lines[0].startswith("Traceback") else lines[0]
