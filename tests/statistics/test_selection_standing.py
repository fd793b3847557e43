"""Which recipe a study recommends and which of its models is shipped: by the ranking set, never by test images."""

from pathlib import Path

import numpy as np
import pytest

from tests.support.synthetic import CLASSES, write_study
from unfreeze.report.answer import answer, as_record
from unfreeze.report.answer_text import facts, headline
from unfreeze.statistics.predictions import read_ranking
from unfreeze.statistics.selection import Standing, standing
from unfreeze.statistics.study_results import read_study_results
from unfreeze.statistics.tables import results_table
from unfreeze.storage.records import read_json, read_tensors, write_json, write_tensors
from unfreeze.storage.study_dir import StudyDir

IMAGES = 60


def rank(study: StudyDir, cell: str, right: int, paid: bool = True, first: int = 0) -> None:
    """Let a cell be right on so many of the ranking images."""
    logits = np.zeros((IMAGES, len(CLASSES)), np.float32)
    predicted = np.arange(IMAGES) % len(CLASSES)
    wrong = (first + np.arange(IMAGES - right)) % IMAGES
    predicted[wrong] = (predicted[wrong] + 1) % len(CLASSES)
    logits[np.arange(IMAGES), predicted] = 3
    ids = [f"validation-{place}" for place in range(IMAGES)]
    about = {"ids": {"ranking": ids}, "paid": paid}
    write_tensors(study.cell(cell) / "ranking.safetensors", {"ranking": logits}, about)


def change(study: StudyDir, cell: str, **values: object) -> None:
    path = study.cell(cell) / "result.json"
    write_json(path, {name: value for name, value in read_json(path).items() if name != "format"} | values)


def ranked_recipes(study: StudyDir) -> Standing:
    """Rank a study's recipes without the rest of its statistics."""
    found = standing(results_table(study), read_ranking(study), read_json(study.path / "plan.json")["networks"])
    assert found is not None
    return found


@pytest.fixture
def ranked(tmp_path: Path) -> StudyDir:
    """Give a study of one seed in which every recipe is right on 48 of 60 images, all on the same ones."""
    study = write_study(tmp_path, seeds=1, failed=None)
    for cell in study.planned_cells():
        rank(study, cell["cell"], 48)
    return study


def test_a_smaller_regime_is_never_recommended(ranked: StudyDir) -> None:
    rank(ranked, "head.small.s0", 60)
    found = ranked_recipes(ranked)
    assert found.recommended == ("head", "full")
    assert {found.recipe_at(place).regime for place in found.choice.order} == {"full"}


def test_of_equals_the_fewest_trained_parameters_are_taken(ranked: StudyDir) -> None:
    assert ranked_recipes(ranked).cell == "head.full.s0"


def test_fewer_multiply_adds_come_first(ranked: StudyDir) -> None:
    change(ranked, "scratch.full.s0", flops_per_image=4 * 10**8)
    assert ranked_recipes(ranked).cell == "scratch.full.s0"


def test_an_advantage_beyond_a_point_and_a_standard_error_is_taken(ranked: StudyDir) -> None:
    rank(ranked, "scratch.full.s0", 56)
    change(ranked, "scratch.full.s0", flops_per_image=9 * 10**8)
    made = answer(read_study_results(ranked))
    assert made.recipe == ("scratch", "full")
    assert headline(made).startswith(
        "Use scratch with full: best validation accuracy of the 3 recipes with the most training images, "
        "93.3 % on 60 images; its test accuracy is "
    )


def test_what_chose_unpaid_has_no_advantage_within_a_standard_error(ranked: StudyDir) -> None:
    rank(ranked, "scratch.full.s0", 49, first=5)  # 1.7 points more: within a standard error of 5, beyond a point
    assert ranked_recipes(ranked).cell == "scratch.full.s0"
    rank(ranked, "scratch.full.s0", 49, paid=False, first=5)
    made = answer(read_study_results(ranked))
    assert made.recipe == ("head", "full")
    found = {fact.key: (fact.value, fact.detail) for fact in facts(made)}
    assert found["recipe"] == (
        "head with full",
        "validation accuracy 80.0 % on 60 images; scratch with full has 81.7 %, which is too little more to pay for "
        "(21.0 M trained parameters instead of 6.3 M)",
    )
    value, detail = found["level"]
    assert value == "scratch with full and last_block with full"
    assert detail == (
        "from the recipe, on 60 validation images; validation has 60 images (10 in the smallest class): "
        "one image is 1.7 points; --set split.folds=5 validates on others in each of five turns"
    )


def test_the_model_is_of_the_first_seed_not_the_luckiest(tmp_path: Path) -> None:
    study = write_study(tmp_path, seeds=2, failed=None)
    for cell in study.planned_cells():
        rank(study, cell["cell"], 48 + 6 * cell["seed"])
    assert ranked_recipes(study).cell == "head.full.s0"


def test_test_images_never_choose(ranked: StudyDir) -> None:
    for path in (ranked.path / "cells").glob("scratch*/logits.safetensors"):
        logits, about = read_tensors(path)
        logits["test"][:, :] = 0
        logits["test"][range(120), [place % len(CLASSES) for place in range(120)]] = 9
        write_tensors(path, logits, about)
    assert ranked_recipes(ranked).cell == "head.full.s0"


def test_a_smaller_regime_that_is_better_beyond_its_interval_is_a_finding(tmp_path: Path) -> None:
    study = write_study(tmp_path, seeds=3, failed=None)
    for cell in study.planned_cells():
        rank(study, cell["cell"], 59 if cell["regime"] == "small" else 30, first=cell["seed"])
    made = answer(read_study_results(study))
    assert made.recipe == ("head", "full")
    assert (
        "scratch with small, head with small and last_block with small do better on validation than head with full, "
        "which trains on more images: more images made it worse, so look at the labels ('unfreeze check DATA')."
    ) in made.warnings


def test_run_as_json_says_what_is_recommended(ranked: StudyDir) -> None:
    record = as_record(answer(read_study_results(ranked)))
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
        about = {name: value for name, value in read_json(folder / "cell.json").items() if name != "format"}
        stopping = {"patience": 5, "monitor": "val_loss"}
        write_json(folder / "cell.json", about | {"candidates": {"": {"early_stopping": stopping}}})
        names = ("ranking_metric", "n_ranking", "flops_per_image", "seconds_per_image")
        record = read_json(folder / "result.json")
        write_json(folder / "result.json", {k: v for k, v in record.items() if k not in ("format", *names)})
    found = ranked_recipes(study)
    assert found.images == 60
    assert found.contenders[0].flops == 5 * 10**8
    assert not found.contenders[0].paid


def only(study: StudyDir, cell: str, places: list[int]) -> None:
    """Let a cell rank by some of its images alone."""
    path = study.cell(cell) / "ranking.safetensors"
    logits, about = read_tensors(path)
    own = [about["ids"]["ranking"][place] for place in places]
    write_tensors(path, {"ranking": logits["ranking"][places]}, about | {"ids": {"ranking": own}})


def test_the_few_validation_images_of_a_smaller_regime_do_not_rank_the_larger(tmp_path: Path) -> None:
    """As in directories of earlier versions, where cells have their own validation images alone."""
    study = write_study(tmp_path, seeds=2, failed=None)
    for cell in study.planned_cells():
        rank(study, cell["cell"], 60 if cell["strategy"] == "last_block" else 30)
        if cell["regime"] != "full":
            only(study, cell["cell"], list(range(54, 60)))  # on which all are right
    found = ranked_recipes(study)
    assert found.images == IMAGES
    assert found.recommended == ("last_block", "full") and found.value == 1
    assert not found.choice.level and not found.choice.worse_with_more
    assert [found.value_of(place) for place in found.choice.smaller] == [1.0] * 6


def test_a_score_of_classes_counts_the_images_in_common_alone(ranked: StudyDir) -> None:
    """A cell that has more images of some classes weighs these less, which is no difference between recipes."""
    record = {name: value for name, value in read_json(ranked.path / "study.json").items() if name != "format"}
    write_json(ranked.path / "study.json", record | {"metric": "balanced_accuracy"})
    some = [place for place in range(IMAGES) if place % len(CLASSES) or place > 30]
    only(ranked, "head.full.s0", some)
    only(ranked, "last_block.full.s0", [place for place in range(IMAGES) if place % len(CLASSES) != 1 or place > 10])
    found = ranked_recipes(ranked)
    assert 0 < found.images < len(some)
    one, *others = [each.values for each in found.contenders if each.recipe.regime == "full"]
    assert all((each == one).all() for each in others)


def test_a_loss_is_too_little_less(tmp_path: Path) -> None:
    study = write_study(tmp_path, seeds=1, failed=None, metric="log_loss")
    for cell in study.planned_cells():
        rank(study, cell["cell"], {"scratch": 49, "head": 48, "last_block": 30}[cell["strategy"]], paid=False)
    recipe, _, level, *_ = facts(answer(read_study_results(study)))
    assert recipe.value == "head with full"
    assert recipe.detail == (
        "validation log loss 0.822 on 60 images; scratch with full has 0.772, which is too little less to pay for "
        "(21.0 M trained parameters instead of 6.3 M)"
    )
    assert level.detail == (
        "from the recipe, on 60 validation images; about 240 would tell, or show that less than 0.01 lies between; "
        "validation has 60 images (10 in the smallest class): one image weighs 1.7 %; "
        "--set split.folds=5 validates on others in each of five turns"
    )


def test_without_images_in_common_the_mean_metric_ranks(ranked: StudyDir) -> None:
    for place, cell in enumerate(ranked.planned_cells()):
        only(ranked, cell["cell"], [place])
        change(ranked, cell["cell"], val_metric=0.9 if cell["strategy"] == "last_block" else 0.8)
    made = answer(read_study_results(ranked))
    assert made.recipe == ("last_block", "full")
    assert headline(made).startswith(
        "Use last_block with full: best validation accuracy of the 3 recipes with the most training images, 90.0 %;"
    )
