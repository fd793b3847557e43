"""How a study's recipes are ranked and which model is shipped: by the ranking set, never by test images."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.support.synthetic import CLASSES, shared_results, write_study
from unfreeze.report.answer import answer, as_record
from unfreeze.report.answer_text import facts, headline
from unfreeze.statistics.predictions import Prediction, RankingSet, Recipe, read_ranking_set
from unfreeze.statistics.selection import RecipeRanking, rank_recipes
from unfreeze.statistics.study_results import StudyResults
from unfreeze.statistics.tables import results_table
from unfreeze.storage.records import read_json, write_json

IMAGES = 60
Change = Callable[[Prediction], Prediction]


def correct(count: int, first: int = 0) -> Change:
    """Predictions that are right on so many ranking images, and wrong from the ``first`` on."""
    labels = np.arange(IMAGES) % len(CLASSES)
    predicted, wrong = labels.copy(), (first + np.arange(IMAGES - count)) % IMAGES
    predicted[wrong] = (predicted[wrong] + 1) % len(CLASSES)
    logits = (3 * np.eye(len(CLASSES), dtype=np.float32))[predicted]
    return lambda cell: replace(cell, logits=logits)


def only(places: Sequence[int]) -> Change:
    """Predictions for some of the ranking images."""

    def change(cell: Prediction) -> Prediction:
        rows = list(places)
        return replace(cell, ids=cell.ids[rows], labels=cell.labels[rows], logits=cell.logits[rows],
                       units=cell.units[rows])  # fmt: skip

    return change


def ranked(
    changes: Mapping[str, Change],
    seeds: int = 1,
    biased: Sequence[Recipe] = (),
    metric: str = "accuracy",
    **columns: Mapping[str, object],
) -> StudyResults:
    """Results in which every recipe is right on the same 48 of 60 images, but for changes.

    Args:
        changes: of predictions, by part of a cell's id; applied in order.
        seeds: of the study.
        biased: recipes whose choices on validation are not cross-fitted.
        metric: that ranks.
        columns: values of the table of results, by column and cell.
    """
    results = shared_results(seeds, failed=None)
    cells = []
    for cell in results.ranking_set.predictions.cells:
        for part, change in {"": correct(48), **changes}.items():
            cell = change(cell) if part in cell.cell else cell
        cells.append(cell)
    table = results.table.copy()
    for column, values in columns.items():
        for cell_id, value in values.items():
            table.loc[table["cell"].str.contains(cell_id, regex=False), column] = value
    predictions = replace(results.ranking_set.predictions, cells=tuple(cells), metric=metric)
    ranking_set = RankingSet(predictions, frozenset(biased))
    found = rank_recipes(table, ranking_set, results.plan["networks"])
    return replace(results, table=table, ranking_set=ranking_set, ranking=found, leading=metric)


def ranking(*args: object, **values: object) -> RecipeRanking:
    found = ranked(*args, **values).ranking  # type: ignore[arg-type]
    assert found is not None
    return found


def test_a_smaller_regime_is_never_recommended() -> None:
    found = ranking({"head.small.s0": correct(60)})
    assert found.recommended == ("head", "full")
    assert {found.recipe_at(place).regime for place in found.choice.order} == {"full"}


def test_a_single_run_is_recommended() -> None:
    results = shared_results(1, failed=None)
    table = results.table[results.table["cell"] == "head.full.s0"]
    predictions = results.ranking_set.predictions
    cells = tuple(cell for cell in predictions.cells if cell.cell == "head.full.s0")
    ranking_set = RankingSet(replace(predictions, cells=cells), frozenset())
    found = rank_recipes(table, ranking_set, results.plan["networks"])
    assert found is not None
    assert (found.recommended, found.cell, found.images) == (("head", "full"), "head.full.s0", IMAGES)


def test_among_equals_the_fewest_trained_parameters_win() -> None:
    assert ranking({}).cell == "head.full.s0"


def test_fewer_multiply_adds_come_before_fewer_parameters() -> None:
    assert ranking({}, flops_per_image={"scratch.full.s0": 4 * 10**8}).cell == "scratch.full.s0"


def test_an_advantage_beyond_a_point_and_a_standard_error_wins() -> None:
    made = answer(ranked({"scratch.full.s0": correct(56)}, flops_per_image={"scratch.full.s0": 9 * 10**8}))
    assert made.recipe == ("scratch", "full")
    assert headline(made).startswith(
        "Use scratch with full: best validation accuracy of the 3 recipes with the most training images, "
        "93.3 % on 60 images; its test accuracy is "
    )


def test_a_biased_recipe_has_no_advantage_within_a_standard_error() -> None:
    better = {"scratch.full.s0": correct(49, first=5)}  # 1.7 points: within a standard error of 5, beyond one point
    assert ranking(better).cell == "scratch.full.s0"
    made = answer(ranked(better, biased=[Recipe("scratch", "full")]))
    assert made.recipe == ("head", "full")
    found = {fact.key: (fact.value, fact.detail) for fact in facts(made)}
    assert found["recipe"] == (
        "head with full",
        "validation accuracy 80.0 % on 60 images; scratch with full reaches 81.7 %, too small a gain for its cost "
        "(21.0 M trained parameters instead of 6.3 M)",
    )
    assert found["level"] == (
        "scratch with full and last_block with full",
        "not distinguishable from the recommended recipe on 60 validation images; validation has 60 images (10 in the "
        "smallest class), so one image is 1.7 points; --set split.folds=5 cross-validates over five folds",
    )


def test_the_model_is_of_the_first_seed_not_the_best_one() -> None:
    assert ranking({".s1": correct(54)}, seeds=2).cell == "head.full.s0"


def test_test_images_never_select() -> None:
    results = ranked({})
    cells = tuple(
        replace(cell, logits=np.eye(len(CLASSES), dtype=np.float32)[cell.labels])
        if cell.strategy == "scratch"
        else cell
        for cell in results.predictions.cells
    )
    made = answer(replace(results, predictions=replace(results.predictions, cells=cells)))
    assert made.recipe == ("head", "full")


def test_a_smaller_regime_beyond_its_interval_is_a_warning() -> None:
    changes = {f".s{seed}": correct(30, first=seed) for seed in range(3)}
    changes |= {f".small.s{seed}": correct(59, first=seed) for seed in range(3)}
    made = answer(ranked(changes, seeds=3))
    assert made.recipe == ("head", "full")
    assert (
        "scratch with small, head with small and last_block with small do better on validation than head with full, "
        "which trains on more images. Labels of the additional images may be wrong: look at them "
        "('unfreeze check DATA')."
    ) in made.warnings


def test_the_json_record_of_the_recommendation() -> None:
    record = as_record(answer(ranked({})))
    assert record is not None
    assert list(record) == ["strategy", "regime", "cell", "validation", "test", "low", "high", "level", "n_needed"]
    assert (record["strategy"], record["regime"], record["cell"]) == ("head", "full", "head.full.s0")
    assert record["validation"] == pytest.approx(0.8)
    assert record["low"] < record["test"] < record["high"]
    assert record["level"] == [["scratch", "full"], ["last_block", "full"]]


def test_a_directory_of_an_earlier_version_is_ranked_by_its_validation_images(tmp_path: Path) -> None:
    study = write_study(tmp_path, seeds=1, failed=None)
    for cell in study.planned_cells():
        folder = study.cell(cell["cell"])
        (folder / "ranking.safetensors").unlink()
        identity = {name: value for name, value in read_json(folder / "cell.json").items() if name != "format"}
        stopping = {"patience": 5, "monitor": "val_loss"}
        write_json(folder / "cell.json", identity | {"candidates": {"": {"early_stopping": stopping}}})
        names = ("ranking_metric", "n_ranking", "flops_per_image", "seconds_per_image")
        record = read_json(folder / "result.json")
        write_json(folder / "result.json", {k: v for k, v in record.items() if k not in ("format", *names)})
    networks = read_json(study.path / "plan.json")["networks"]
    found = rank_recipes(results_table(study), read_ranking_set(study), networks)
    assert found is not None
    assert found.images == 60
    assert found.contenders[0].flops == 5 * 10**8
    assert not found.contenders[0].unbiased


def test_the_few_validation_images_of_a_smaller_regime_do_not_rank_the_larger() -> None:
    """In directories of earlier versions, cells have their own validation images only."""
    few = only(range(54, 60))  # on which all are right
    found = ranking({"": correct(30), "last_block": correct(60), ".small": few}, seeds=2)
    assert found.images == IMAGES
    assert found.recommended == ("last_block", "full") and found.value == 1
    assert not found.choice.ties and not found.choice.smaller_but_better
    assert [found.value_of(place) for place in found.choice.smaller] == [1.0] * 6


def test_a_score_over_classes_uses_only_common_images() -> None:
    """A cell with more images of a class weights each of them less, which is no difference between recipes."""
    some = [place for place in range(IMAGES) if place % len(CLASSES) or place > 30]
    others = [place for place in range(IMAGES) if place % len(CLASSES) != 1 or place > 10]
    found = ranking({"head.full.s0": only(some), "last_block.full.s0": only(others)}, metric="balanced_accuracy")
    assert 0 < found.images < len(some)
    one, *rest = [each.values for each in found.contenders if each.recipe.regime == "full"]
    assert all((each == one).all() for each in rest)


def test_a_loss_is_ranked_with_its_own_units() -> None:
    changes = {"scratch": correct(49), "last_block": correct(30)}
    biased = [Recipe(strategy, "full") for strategy in ("scratch", "head", "last_block")]
    recipe, _, level, *_ = facts(answer(ranked(changes, biased=biased, metric="log_loss")))
    assert recipe.value == "head with full"
    assert recipe.detail == (
        "validation log loss 0.822 on 60 images; scratch with full reaches 0.772, too small a gain for its cost "
        "(21.0 M trained parameters instead of 6.3 M)"
    )
    assert level.detail == (
        "not distinguishable from the recommended recipe on 60 validation images; about 240 would separate them, or "
        "show that they differ by less than 0.01; validation has 60 images (10 in the smallest class), so one image "
        "has 1.7 % of the weight; --set split.folds=5 cross-validates over five folds"
    )


def test_without_common_images_the_mean_metric_ranks() -> None:
    cells = shared_results(1, failed=None).ranking_set.predictions.cells
    changes = {cell.cell: only([place]) for place, cell in enumerate(cells)}
    made = answer(ranked(changes, val_metric={"": 0.8, "last_block": 0.9}))
    assert made.recipe == ("last_block", "full")
    assert headline(made).startswith(
        "Use last_block with full: best validation accuracy of the 3 recipes with the most training images, 90.0 %;"
    )
