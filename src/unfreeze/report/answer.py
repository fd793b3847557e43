"""Compute what a study answers: which recipe to use, how good it is, the runner-up, and what to beware of.

Validation selects the recipe, the test images report on it. Every number has its 95 % interval, and where the data
cannot decide, the answer says so. ``report.answer_text`` puts it into words.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

from unfreeze.metrics import METRICS
from unfreeze.report.conclusions import Conclusion, conclusions
from unfreeze.statistics.comparisons import Comparison, comparison_of
from unfreeze.statistics.convergence import reuse_factors
from unfreeze.statistics.data_quality import DataSummary, leak_text, read_data_summary
from unfreeze.statistics.learning_curve import Curve, learning_curves, series_of
from unfreeze.statistics.predictions import Predictions, Recipe
from unfreeze.statistics.scores import RecipeScore, class_recalls, recipe_score
from unfreeze.statistics.selection import RecipeRanking, unequal_runs
from unfreeze.statistics.study_results import StudyResults
from unfreeze.text import join_words, plural

NamedScores = tuple[tuple[str, RecipeScore], ...]


@dataclass(frozen=True)
class Answer:
    """What the first screen of the report shows. "The recipe" is the recommended one.

    Attributes:
        study: name of the study.
        metric: the metric that leads the answer, see ``StudyResults.leading``.
        validates_on_test: whether the test images also stopped the training.
        cells, finished: number of planned and of finished cells.
        ranking: the recipes, ranked on validation; None where nothing has finished.
        recipe: the recommended recipe; None where nothing has finished.
        validation_score: of the recipe on the ranking set.
        unequal_runs: fewest and most runs of a recipe, where not all were run with the same seeds and folds.
        test_score: of the recipe; None without test images.
        imbalance_scores: the other of accuracy and balanced accuracy, and the recall of the worst class, by name; empty
            unless the classes are imbalanced.
        other_test_scores: of the recipe on the study's further test sets that a whole run predicts, by name.
        can_fold: whether the study could draw folds: it has none, and the data gives no splits.
        on_validation: whether worst class and learning curve rest on validation, for lack of test images.
        runner_up: the best other recipe that shares strategy or regime with the recipe; None where there is none.
        comparison: the recipe minus the runner-up on the test images.
        incomparable: a recipe that ranks above the runner-up, but shares neither strategy nor regime with the recipe.
        worst_class: name and recall of the class with the lowest recall.
        learning_curve: the curve that predicts what twice as many labels bring; None for the reason ``why_no_curve``.
        why_no_curve: "" where there is a curve.
        seconds: measured time of the study; NaN where no run has recorded it.
        seconds_without_reuse: predicted for the same cells in plain PyTorch; NaN without a prediction, or where cells
            are missing.
        recipe_seconds: mean of one run of the recipe.
        image_seconds: measured for one image through the recipe's whole network; NaN where it was not.
        failures: which cells failed, and why; "" where none did.
        warnings: about data, leaks, missing cells and single seeds.
        conclusions: sentences, in the order of the original article.
    """

    study: str
    metric: str
    validates_on_test: bool
    cells: int
    finished: int
    ranking: RecipeRanking | None
    recipe: Recipe | None
    validation_score: RecipeScore | None
    unequal_runs: tuple[int, int] | None
    test_score: RecipeScore | None
    imbalance_scores: NamedScores
    other_test_scores: NamedScores
    can_fold: bool
    on_validation: bool
    runner_up: Recipe | None
    comparison: Comparison | None
    incomparable: Recipe | None
    worst_class: tuple[str, RecipeScore] | None
    learning_curve: Curve | None
    why_no_curve: str
    seconds: float
    seconds_without_reuse: float
    recipe_seconds: float
    image_seconds: float
    failures: str
    warnings: tuple[str, ...]
    conclusions: tuple[Conclusion, ...]


def answer(results: StudyResults, data: DataSummary | None = None) -> Answer:
    """Return what a study answers, finished or not.

    Args:
        results: of the study.
        data: what ``read_data_summary`` returns, if it has been read.
    """
    data = data or read_data_summary(results.study)
    table, recipe = results.table, results.ranking.recommended if results.ranking else None
    test_score = validation_score = worst_class = None
    if recipe:
        validation_score = recipe_score(results.ranking_set.predictions, recipe, "validation", results.leading)
        test_score = recipe_score(results.predictions, recipe, results.test, results.leading) if results.test else None
        worst_class = _worst_class(results, recipe)
    runner_up, comparison, incomparable = _runner_up(results)
    curve = _curve(results, recipe) if recipe else None
    return Answer(
        study=results.name,
        metric=results.leading,
        validates_on_test=results.validates_on_test,
        cells=len(table),
        finished=int((table["status"] == "finished").sum()),
        ranking=results.ranking,
        recipe=recipe,
        validation_score=validation_score,
        unequal_runs=unequal_runs(table),
        test_score=test_score,
        imbalance_scores=_imbalance_scores(results, recipe, worst_class) if data.is_imbalanced else (),
        other_test_scores=_other_test_scores(results, recipe),
        can_fold=results.record["study"].get("split", {}).get("folds") is None and not data.given,
        on_validation=results.test is None,
        runner_up=runner_up,
        comparison=comparison,
        incomparable=incomparable,
        worst_class=worst_class,
        learning_curve=curve,
        why_no_curve="" if curve else _why_no_curve(results, recipe),
        seconds=_seconds(results),
        seconds_without_reuse=_seconds_without_reuse(results),
        recipe_seconds=_recipe_seconds(results, recipe),
        image_seconds=float(results.finished_runs(recipe)["seconds_per_image"].mean()) if recipe else math.nan,
        failures=_failures(results),
        warnings=tuple(_warnings(results, data)),
        conclusions=tuple(conclusions(results, recipe)),
    )


def _reporting(results: StudyResults) -> tuple[Predictions, str]:
    """Return the predictions and the set that scores are reported on: the test images, else the validation pool."""
    if results.test:
        return results.predictions, results.test
    return results.ranking_set.predictions, "validation"


def _worst_class(results: StudyResults, recipe: Recipe) -> tuple[str, RecipeScore] | None:
    predictions, test = _reporting(results)
    recalls = class_recalls(predictions, recipe, test)
    known = [(name, recall) for name, recall in recalls.items() if math.isfinite(recall.value)]
    return min(known, key=lambda item: item[1].value, default=None)


def _imbalance_scores(
    results: StudyResults, recipe: Recipe | None, worst_class: tuple[str, RecipeScore] | None
) -> NamedScores:
    if recipe is None or results.test is None or results.metric != "accuracy":
        return ()
    other = "accuracy" if results.leading == "balanced_accuracy" else "balanced_accuracy"
    score = recipe_score(results.predictions, recipe, results.test, other)
    parts = [(METRICS[other].label, score), ("worst-class recall", worst_class[1] if worst_class else None)]
    return tuple((name, part) for name, part in parts if part is not None)


def _other_test_scores(results: StudyResults, recipe: Recipe | None) -> NamedScores:
    if recipe is None:
        return ()
    names = [name for name in results.predictions.tests if name != results.test]
    scores = [(name, recipe_score(results.predictions, recipe, name, results.leading)) for name in names]
    return tuple((name, score) for name, score in scores if score is not None)


def _runner_up(results: StudyResults) -> tuple[Recipe | None, Comparison | None, Recipe | None]:
    """Return runner-up, comparison with it, and the recipe above it that the study does not compare; see ``Answer``."""
    ranking, incomparable = results.ranking, None
    if ranking is None:
        return None, None, None
    recipe = ranking.recommended
    for place in (*ranking.choice.order, *ranking.choice.smaller):
        other = ranking.recipe_at(place)
        if place == ranking.choice.recommended:
            continue
        if other.strategy == recipe.strategy or other.regime == recipe.regime:
            found = comparison_of(results.leading_comparisons, recipe, other, results.test) if results.test else None
            return other, found, incomparable
        incomparable = incomparable or other
    return None, None, incomparable


def _curve(results: StudyResults, recipe: Recipe) -> Curve | None:
    """Return the learning curve through the recipe's regime, else another of its strategy, without augmentation first.

    A strategy without a curve through three sizes gets one through two.
    """
    predictions, test = _reporting(results)
    predictions = replace(predictions, metric=results.leading)
    curves = results.curves
    if results.leading != results.metric:
        curves = tuple(learning_curves(predictions, results.table, results.regimes, test))
    if not any(curve.strategy == recipe.strategy for curve in curves):
        curves = tuple(learning_curves(predictions, results.table, results.regimes, test, least=2))
    own = [curve for curve in curves if curve.strategy == recipe.strategy]
    through_regime = [curve for curve in own if recipe.regime in curve.regimes]
    return next(iter(through_regime or sorted(own, key=lambda curve: curve.series != "plain")), None)


def _why_no_curve(results: StudyResults, recipe: Recipe | None) -> str:
    if recipe is None:
        return "nothing has finished"
    done = results.finished[results.finished["strategy"] == recipe.strategy]
    series = series_of(results.regimes[recipe.regime]) if recipe.regime in results.regimes else ""
    alike = [name for name, regime in results.regimes.items() if series_of(regime) == series]
    # A regime counts as one size, even where its folds differ by a few images.
    sizes = done[done["regime"].isin(alike)].groupby("regime")["n_train"].mean().nunique()
    return (
        f"it takes two training set sizes with otherwise equal settings, and {recipe.strategy} has {sizes}; a regime "
        "with sweep: {train_per_class: [25, 50, 100]} in the study file adds some"
    )


def _seconds(results: StudyResults) -> float:
    done, runs = results.finished, results.shared.get("runs", [])
    if not len(done):
        return math.nan
    return sum(float(run["seconds"]["total"]) for run in runs) if runs else float(done["seconds_total"].sum())


def _seconds_without_reuse(results: StudyResults) -> float:
    done, factors = results.finished, reuse_factors(results.plan)
    if not len(done) or len(done) < len(results.table) or not set(done["cell"]) <= set(factors):
        return math.nan
    return sum(factors[cell] * float(own) for cell, own in zip(done["cell"], done["seconds_total"], strict=True))


def _recipe_seconds(results: StudyResults, recipe: Recipe | None) -> float:
    if recipe is None:
        return math.nan
    runs = results.finished_runs(recipe)
    return float((runs["seconds_total"] + runs["seconds_shared"]).mean())


def as_record(answer: Answer) -> dict[str, Any] | None:
    """Return the recommendation as ``run --json`` prints it; None where nothing has finished.

    ``low`` and ``high`` bound the 95 % interval of the test score, or without test images of the validation score.
    """
    ranking, shown = answer.ranking, answer.test_score or answer.validation_score
    if answer.recipe is None or ranking is None:
        return None
    numbers = {
        "validation": ranking.value,
        "test": None if answer.test_score is None else answer.test_score.value,
        "low": None if shown is None else shown.low,
        "high": None if shown is None else shown.high,
    }
    return {
        "strategy": answer.recipe.strategy,
        "regime": answer.recipe.regime,
        "cell": ranking.cell,
        **{name: None if value is None or not math.isfinite(value) else value for name, value in numbers.items()},
        "level": [list(ranking.recipe_at(place)) for place in ranking.choice.ties],
        "n_needed": ranking.choice.n_needed,
    }


def _failures(results: StudyResults) -> str:
    if not results.errors:
        return ""
    parts = "; ".join(f"{cell} ({error_summary(error)})" for cell, error in results.errors.items())
    return f"{plural(len(results.errors), 'cell')} failed: {parts}. Repeat the run command to try again."


def _warnings(results: StudyResults, data: DataSummary) -> list[str]:
    warnings = [leak_text(data)] if data.split_groups else []
    missing = int((results.table["status"] == "missing").sum())
    if missing:
        verb = "has" if missing == 1 else "have"
        warnings.append(f"{plural(missing, 'cell')} {verb} not run yet; repeat the run command to resume.")
    if data.is_imbalanced:
        largest, smallest = (pick(data.classes, key=data.classes.__getitem__) for pick in (max, min))
        warnings.append(
            f"Classes are imbalanced: {data.classes[largest]:,} images of {largest}, {data.classes[smallest]:,} of "
            f"{smallest}. Accuracy hides errors in small classes; metric: balanced_accuracy counts all classes "
            "equally, and balance: weights in a regime weights the loss."
        )
    warnings += _smaller_but_better(results.ranking)
    done = results.finished
    if len(done) and done["seed"].nunique() == 1:
        warnings.append(
            "All numbers come from one seed: intervals cover the choice of images only, and comparisons have no "
            "verdict. With seeds: 3 in the study file, every run is repeated with three seeds."
        )
    warnings += [str(note) for note in results.record.get("notes", [])]
    warnings += [f"{warning} ({plural(len(cells), 'cell')})" for warning, cells in results.warnings.items()]
    return warnings


def _smaller_but_better(ranking: RecipeRanking | None) -> list[str]:
    """Warn of recipes with fewer training images that beat the recommended one beyond their intervals."""
    if ranking is None or not ranking.choice.smaller_but_better:
        return []
    better = [str(ranking.recipe_at(place)) for place in ranking.choice.smaller_but_better]
    verb = "does" if len(better) == 1 else "do"
    return [
        f"{join_words(better)} {verb} better on validation than {ranking.recommended}, which trains on more images. "
        "Labels of the additional images may be wrong: look at them ('unfreeze check DATA')."
    ]


def error_summary(error: str) -> str:
    """Return the line of an error that says what happened: the last of a traceback, else the first."""
    lines = [line.strip() for line in error.splitlines() if line.strip()] or ["no message"]
    return lines[-1] if lines[0].startswith("Traceback") else lines[0]
