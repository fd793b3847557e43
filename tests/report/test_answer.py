"""The answer of a study: what it says, and what it admits, for complete, unfinished and imbalanced studies."""

import math
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from tests.support.synthetic import FAILED, MARKUP, shared_results, shared_study, write_study
from unfreeze.report.answer import Answer, answer
from unfreeze.report.answer_text import NOTHING_YET, facts, headline, rate_text, small_pool_text
from unfreeze.report.page import write_side_by_side
from unfreeze.statistics.data_quality import DataSummary
from unfreeze.statistics.predictions import Prediction, Recipe
from unfreeze.statistics.scores import RecipeScore
from unfreeze.statistics.study_results import StudyResults, read_study_results
from unfreeze.storage.records import read_json, read_table, write_json, write_table

IMBALANCED = DataSummary((), {"glass": 130, "metal": 30}, {}, False, 0)


@pytest.fixture(scope="module")
def one_seed() -> StudyResults:
    return shared_results(seeds=1, failed=None)


@pytest.fixture(scope="module")
def two_seeds() -> StudyResults:
    return shared_results(seeds=2, failed=None)


def texts(made: Answer) -> dict[str, tuple[str, str]]:
    return {fact.key: (fact.value, fact.detail) for fact in facts(made)}


def without(results: StudyResults, cells: str) -> StudyResults:
    """Results in which the cells of this pattern have not run."""
    table = results.table.copy()
    table.loc[table["cell"].str.contains(cells), "status"] = "missing"
    return replace(results, table=table)


def test_a_finished_study_names_recipe_score_runner_up_and_worst_class() -> None:
    made = answer(shared_results())
    assert (made.recipe, made.runner_up) == (("head", "full"), ("last_block", "full"))
    found = texts(made)
    assert found["recipe"] == (
        "head with full",
        "mean validation accuracy 90.8 % on 60 images; last_block with full reaches 91.7 %, too small a gain for its "
        "cost (13.4 M trained parameters instead of 6.3 M); recipes were not all run with the same seeds (1 to 2 runs "
        "each)",
    )
    assert found["score"] == ("88.8 %", "95 % interval 80.7 to 93.7; 2 seeds, 120 test images")
    assert found["runner_up"][1].startswith(
        "too little data to tell: recommended recipe minus runner-up -2.1 points (-27.5 to +23.4), 2 seeds; "
        "a verdict needs "
    )
    assert found["worst"][0] == "metal, recall 82.5 %"
    assert found["doubling"] == (
        "+1.4 points (0.0 to +3.0)",
        "predicted change of test accuracy from about 257 to about 513 training images per class, by the learning "
        "curve of head through 2 sizes; two sizes do not determine the curve's shape, and the interval covers that",
    )
    assert found["time"][1].endswith(
        "for one run of the recommended recipe; its network processes 50 images per second"
    )
    assert "beside" not in found
    assert made.failures.startswith(f"1 cell failed: {FAILED} (RuntimeError: ")
    assert made.failures.endswith(". Repeat the run command to try again.")


def test_a_regime_is_one_size_though_its_cells_differ_by_an_image(two_seeds: StudyResults) -> None:
    table = two_seeds.table.copy()
    table.loc[table["cell"] == "head.full.s1", "n_train"] -= 1
    assert " through 2 sizes" in texts(answer(replace(two_seeds, table=table)))["doubling"][1]


def test_a_study_with_one_size_says_how_to_add_more(two_seeds: StudyResults) -> None:
    assert texts(answer(without(two_seeds, ".small")))["doubling"] == (
        "unknown",
        "it takes two training set sizes with otherwise equal settings, and head has 1; a regime with sweep: "
        "{train_per_class: [25, 50, 100]} in the study file adds some",
    )


def some_classes(cell: Prediction) -> Prediction:
    """The cell's predictions for some images of a further test set, none of the first class."""
    rows = [place for place in range(30) if place % 6]
    parts = {name: getattr(cell, name)[rows] for name in ("ids", "labels", "logits", "units")}
    return replace(cell, test="site_b", **parts)


def test_other_test_sets_have_scores_of_the_recipe(one_seed: StudyResults) -> None:
    cells = one_seed.predictions.cells
    predictions = replace(one_seed.predictions, cells=(*cells, *map(some_classes, cells)))
    made = answer(replace(one_seed, predictions=predictions))
    value, detail = texts(made)["further"]
    assert value.startswith("site_b ") and " % (" in value
    assert detail == "test accuracy of the recommended recipe"
    undefined = RecipeScore(math.nan, math.nan, math.nan, 1, 25, 25)
    assert texts(replace(made, metric="auroc", other_test_scores=(("site_b", undefined),)))["further"] == (
        "site_b –",
        "test AUROC of the recommended recipe; undefined where a class has no image: site_b lacks some classes",
    )


def test_one_seed_allows_no_verdict(one_seed: StudyResults) -> None:
    made = answer(one_seed)
    assert made.comparison is not None and made.comparison.verdict == "too little to tell"
    assert (
        "All numbers come from one seed: intervals cover the choice of images only, and comparisons have no verdict. "
        "With seeds: 3 in the study file, every run is repeated with three seeds." in made.warnings
    )


def test_recipes_with_different_seeds_are_ranked_with_a_note(two_seeds: StudyResults) -> None:
    made = answer(without(two_seeds, r"head\.full\.s1"))
    assert made.unequal_runs == (1, 2)
    assert texts(made)["recipe"][1].endswith("; recipes were not all run with the same seeds (1 to 2 runs each)")
    assert texts(replace(made, unequal_runs=(1, 1)))["recipe"][1].endswith("(1 run each)")
    assert not texts(replace(made, unequal_runs=None))["recipe"][1].endswith("each)")


def test_a_study_of_which_nothing_has_finished_has_no_answer(one_seed: StudyResults) -> None:
    made = answer(replace(without(one_seed, "."), ranking=None))
    assert (made.recipe, facts(made), made.conclusions) == (None, (), ())
    assert headline(made) == NOTHING_YET
    assert "9 cells have not run yet; repeat the run command to resume." in made.warnings


def test_without_test_images_the_validation_score_is_called_optimistic(one_seed: StudyResults) -> None:
    made = answer(replace(one_seed, predictions=replace(one_seed.predictions, cells=())))
    found = texts(made)
    assert found["score"] == (
        "90.0 %",
        "95 % interval 79.9 to 95.3; there are no test images, and this score was used for selection, so it is "
        "optimistic",
    )
    assert headline(made).endswith("; there is no test set, and the validation score was used for selection, so it is "
                                   "optimistic.")  # fmt: skip
    assert found["runner_up"][1] == "no test images to compare them on"
    assert found["worst"][1].endswith("10 validation images")
    assert "validation accuracy from about 257 to about 513 training images per class" in found["doubling"][1]


def test_a_study_that_validates_on_its_test_images_says_so(one_seed: StudyResults) -> None:
    study = one_seed.record["study"] | {"split": {"val": "test"}}
    made = answer(replace(one_seed, record={**one_seed.record, "study": study}))
    assert made.validates_on_test
    assert headline(made).endswith("120 test images, which were also used for selection.")
    assert texts(made)["score"][1].endswith("; used for selection, so it is optimistic")


def test_imbalanced_classes_add_balanced_accuracy_and_the_worst_recall(one_seed: StudyResults) -> None:
    made = answer(one_seed, IMBALANCED)
    value, detail = texts(made)["beside"]
    assert value.startswith("balanced accuracy ") and "; worst-class recall " in value
    assert detail == "accuracy hides errors in small classes"
    assert made.warnings[0].startswith("Classes are imbalanced: 130 images of glass, 30 of metal. Accuracy hides ")


def test_balanced_accuracy_leads_where_accuracy_is_only_the_default(tmp_path: Path) -> None:
    study = write_study(tmp_path, seeds=1, failed=None)
    catalog = read_table(tmp_path / "catalog.csv").astype(object)
    more = catalog[catalog["label"] == "glass"].sample(100, replace=True, random_state=0)
    more = more.assign(id=[f"more-{number}" for number in range(100)])
    write_table(tmp_path / "catalog.csv", pd.concat([catalog, more]).fillna(""))
    record = {name: value for name, value in read_json(tmp_path / "study.json").items() if name != "format"}
    write_json(tmp_path / "study.json", record | {"metric_given": False})
    results = read_study_results(study)
    made = answer(results)
    assert made.metric == "balanced_accuracy" and "test balanced accuracy is" in headline(made)
    assert set(results.leading_comparisons["metric"]) == {"balanced_accuracy"}
    value, detail = texts(made)["beside"]
    assert value.startswith("accuracy ") and "; worst-class recall " in value
    assert detail == (
        "accuracy hides errors in small classes, so balanced accuracy leads (--set metric=accuracy changes that)"
    )


def test_a_recipe_that_no_comparison_covers_is_named(one_seed: StudyResults) -> None:
    made = replace(answer(one_seed), incomparable=Recipe("scratch", "small"))
    ahead = (
        "scratch with small ranks next on validation, but differs in strategy and regime, and the study compares "
        "recipes that differ in one of them"
    )
    assert texts(made)["runner_up"][1].endswith(f" ({ahead})")
    assert texts(replace(made, runner_up=None))["runner_up"] == ("none", ahead)


def test_recipes_without_a_common_seed_have_no_numbers(one_seed: StudyResults) -> None:
    made = answer(one_seed)
    assert made.comparison is not None
    apart = replace(made.comparison, seeds=0, helps="runs of both with the same seeds")
    assert texts(replace(made, comparison=apart))["runner_up"][1] == (
        "too little data to tell; a verdict needs runs of both with the same seeds"
    )


def test_several_studies_side_by_side(tmp_path: Path) -> None:
    study, other = shared_study(), shared_study(seeds=1, failed=None)
    before = sorted(study.path.rglob("*"))
    text = write_side_by_side([study, other], tmp_path / "side.html").read_text(encoding="utf-8")
    assert text.count("<article") == 2
    assert MARKUP not in text
    assert "88.8 % (80.7 to 93.7)" in text
    assert sorted(study.path.rglob("*")) == before


@pytest.mark.parametrize(("rate", "text"), [(0.526, "0.53"), (7.12, "7.1"), (50.0, "50"), (2345.0, "2,300")])
def test_rates_have_two_digits(rate: float, text: str) -> None:
    assert rate_text(rate) == text


FOLDS = "--set split.folds=5 cross-validates over five folds"


@pytest.mark.parametrize(
    ("metric", "images", "smallest", "can_fold", "text"),
    [
        ("accuracy", 200, 20, True, ""),
        ("accuracy", 37, 5, True, f"37 images (5 in the smallest class), so one image is 2.7 points; {FOLDS}"),
        (
            "balanced_accuracy", 2000, 19, False,
            "2,000 images (19 in the smallest class), so one image is 0.1 points; more images rank more finely",
        ),
        (
            "log_loss", 37, 5, False,
            "37 images (5 in the smallest class), so one image has 2.7 % of the weight; more images rank more finely",
        ),
        ("accuracy", 1, 1, True, f"1 image (1 in the smallest class), so one image is 100.0 points; {FOLDS}"),
    ],
)  # fmt: skip
def test_few_validation_images_make_a_coarse_ranking(
    metric: str, images: int, smallest: int, can_fold: bool, text: str
) -> None:
    assert small_pool_text(metric, images, smallest, can_fold) == (f"validation has {text}" if text else "")
