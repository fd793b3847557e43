"""The answer of studies that are whole, half done, uneven, without a test set: what it says, and what it owns up to."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from tests.support.synthetic import FAILED, MARKUP, write_study
from unfreeze.report.answer import Answer, answer
from unfreeze.report.answer_text import NOTHING_YET, facts, headline, small_pool_text
from unfreeze.report.page import write_side_by_side
from unfreeze.statistics.data_quality import leading_metric, leak_text, read_data_summary
from unfreeze.statistics.study_results import read_study_results
from unfreeze.storage.records import read_json, read_table, read_tensors, write_json, write_table, write_tensors
from unfreeze.storage.study_dir import StudyDir


def said(study: StudyDir) -> dict[str, tuple[str, str]]:
    return words(answer(read_study_results(study)))


def words(made: Answer) -> dict[str, tuple[str, str]]:
    return {fact.key: (fact.value, fact.detail) for fact in facts(made)}


def test_a_whole_study_names_recipe_score_runner_up_and_worst_class(study: StudyDir) -> None:
    made = answer(read_study_results(study))
    assert made.recipe == ("head", "full")
    assert made.runner_up == ("last_block", "full")
    assert made.score is not None and made.score.low < made.score.value < made.score.high
    assert (made.score.seeds, made.score.images) == (2, 120)
    found = words(made)
    assert found["recipe"] == (
        "head with full",
        "mean validation accuracy 90.8 % on 60 images; last_block with full has 91.7 %, which is too little more to "
        "pay for (13.4 M trained parameters instead of 6.3 M); not all recipes have the same seeds (1 to 2 runs each)",
    )
    assert found["score"] == ("88.8 %", "95 % interval 80.7 to 93.7; 2 seeds, 120 test images")
    assert found["runner_up"][1].startswith("too little to tell: -2.1 points (-27.5 to +23.4) for the recipe, 2 seeds")
    assert found["worst"][0] == "metal, recall 82.5 %"
    assert found["doubling"] == (
        "+1.4 points (0.0 to +3.0)",
        "test accuracy from about 257 to about 513 images a class, by the learning curve of head through 2 sizes; two "
        "sizes leave the curve's shape open, which the interval counts",
    )
    assert "beside" not in found
    assert made.failed.startswith(f"1 cell failed: {FAILED} (RuntimeError: ")


def test_a_regime_is_one_size_though_its_cells_draw_more_or_fewer(tmp_path: Path) -> None:
    study = write_study(tmp_path, failed=None)
    path = study.cell("head.full.s1") / "result.json"
    record = {name: value for name, value in read_json(path).items() if name != "format"}
    write_json(path, record | {"n_train": record["n_train"] - 1})
    assert " through 2 sizes" in said(study)["doubling"][1]


def test_one_size_says_how_to_make_more(tmp_path: Path) -> None:
    study = write_study(tmp_path, failed=None)
    for path in (tmp_path / "cells").glob("*.small*/*"):
        path.unlink()
    assert said(study)["doubling"] == (
        "cannot be said",
        "that takes two sizes of training set that differ in nothing else, head has 1; a regime with sweep: "
        "{train_per_class: [25, 50, 100]} in the study file makes them",
    )


@pytest.mark.parametrize("metric", ["accuracy", "auroc"])
def test_further_test_sets_are_told_of_the_recipe(tmp_path: Path, metric: str) -> None:
    study = write_study(tmp_path, seeds=1, failed=None, metric=metric)
    for path in (tmp_path / "cells").glob("*/logits.safetensors"):
        logits, about = read_tensors(path)
        few = [place for place in range(30) if place % 6]  # no image of the first class
        ids = about["ids"] | {"site_b": [about["ids"]["test"][place] for place in few]}
        write_tensors(path, {**logits, "site_b": logits["test"][few]}, about | {"ids": ids})
    value, detail = said(study)["further"]
    if metric == "accuracy":
        assert value.startswith("site_b ") and " % (" in value
        assert detail == "test accuracy of the recipe"
    else:
        assert value == "site_b –"
        assert detail == (
            "test AUROC of the recipe, not defined where a class has no image: site_b has not all classes"
        )


def test_one_seed_owns_up_that_no_verdict_is_possible(tmp_path: Path) -> None:
    made = answer(read_study_results(write_study(tmp_path, seeds=1, failed=None)))
    assert made.verdict is not None and made.verdict.verdict == "too little to tell"
    assert (
        "Every number rests on one seed: intervals count the images alone, and no verdict is possible. "
        "seeds: 3 repeats all." in made.warnings
    )


def test_recipes_that_were_run_with_other_seeds_are_ranked_and_it_is_said(tmp_path: Path) -> None:
    study = write_study(tmp_path, seeds=2, failed=None)
    (study.cell("head.full.s1") / "result.json").unlink()
    made = answer(read_study_results(study))
    assert made.unequal == (1, 2)
    assert words(made)["recipe"][1].endswith("; not all recipes have the same seeds (1 to 2 runs each)")
    assert words(replace(made, unequal=(1, 1)))["recipe"][1].endswith("(1 run each)")
    assert not words(replace(made, unequal=None))["recipe"][1].endswith("each)")


def test_nothing_has_run(tmp_path: Path) -> None:
    study = write_study(tmp_path, seeds=1, failed=None)
    for path in (tmp_path / "cells").glob("*/*"):
        path.unlink()
    made = answer(read_study_results(study))
    assert (made.recipe, facts(made), made.conclusions) == (None, (), ())
    assert headline(made) == NOTHING_YET
    assert "9 cells have not run yet; the same run command continues." in made.warnings


def test_without_test_images_validation_is_shown_and_called_flattering(tmp_path: Path) -> None:
    study = write_study(tmp_path, seeds=1, failed=None)
    for path in (tmp_path / "cells").glob("*/logits.safetensors"):
        logits, about = read_tensors(path)
        write_tensors(path, {"validation": logits["validation"]}, about)
    found = said(study)
    assert found["score"] == (
        "90.0 %",
        "95 % interval 79.9 to 95.3; no test images to report on; validation chose this recipe, which is optimistic",
    )
    assert found["runner_up"][1] == "no test images to compare them on"
    assert found["worst"][1].endswith("10 validation images")
    assert "validation accuracy from about 257 to about 513 images a class" in found["doubling"][1]


def test_a_study_that_reports_on_what_stopped_it_says_so(tmp_path: Path) -> None:
    study = write_study(tmp_path, seeds=1, failed=None)
    record = read_json(tmp_path / "study.json")
    record["study"]["split"] = {"val": "test"}
    write_json(tmp_path / "study.json", {name: value for name, value in record.items() if name != "format"})
    made = answer(read_study_results(study))
    assert made.on_test
    assert headline(made).endswith(", on images that also chose it.")


def test_uneven_classes_bring_balanced_accuracy_and_the_worst_recall(tmp_path: Path) -> None:
    study = write_study(tmp_path, seeds=1, failed=None)
    catalog = read_table(tmp_path / "catalog.csv").astype(str)
    more = catalog[catalog["label"] == "glass"].sample(100, replace=True, random_state=0)
    more = more.assign(id=[f"more-{number}" for number in range(100)])
    catalog = catalog.astype(object).where(catalog != "nan", "")
    write_table(tmp_path / "catalog.csv", pd.concat([catalog, more]).fillna(""))
    value, detail = said(study)["beside"]
    assert value.startswith("balanced accuracy ") and "; worst-class recall " in value
    assert detail == "accuracy alone hides the small classes"
    record = {name: value for name, value in read_json(tmp_path / "study.json").items() if name != "format"}
    write_json(tmp_path / "study.json", record | {"metric_given": False})
    made = answer(read_study_results(study))
    assert made.metric == "balanced_accuracy" and "test balanced accuracy is" in headline(made)
    found = words(made)
    assert found["score"][0] == value.split(" ", 2)[2].split(" (")[0]
    assert found["beside"][0].startswith("accuracy ") and "; worst-class recall " in found["beside"][0]
    assert found["beside"][1] == (
        "accuracy alone hides the small classes, so balanced accuracy leads (--set metric=accuracy says otherwise)"
    )


@pytest.mark.parametrize(
    ("metric", "given", "imbalance", "leads"),
    [
        ("accuracy", False, 3.0, "balanced_accuracy"),
        ("accuracy", False, 2.9, "accuracy"),
        ("accuracy", True, 30.0, "accuracy"),
        ("accuracy", None, 30.0, "accuracy"),  # a record of an earlier version
        ("macro_f1", False, 30.0, "macro_f1"),
    ],
)
def test_balanced_accuracy_leads_where_classes_are_uneven(
    metric: str, given: bool | None, imbalance: float, leads: str
) -> None:
    record = {"metric": metric} | ({} if given is None else {"metric_given": given})
    assert leading_metric(record, imbalance) == leads


def test_copies_on_both_sides_of_the_split_are_a_leak(tmp_path: Path) -> None:
    study = write_study(tmp_path, seeds=1, failed=None)
    catalog = read_table(tmp_path / "catalog.csv").astype(object)
    catalog.loc[[0, 1, 100], "cluster"] = "c1"  # validation-0, validation-1, test-40
    write_table(tmp_path / "catalog.csv", catalog.where(catalog.notna(), ""))
    splits = catalog[["id"]].assign(split=catalog["id"].str.split("-").str[0], fold="")
    write_table(tmp_path / "splits.csv", splits)
    found = read_data_summary(study)
    assert found.counts[0][:3] == ("leaks", 1, 3)
    assert leak_text(found) == (
        "1 group of copies or of one group lie both in training and in test images, so test scores flatter."
    )
    write_table(tmp_path / "splits.csv", splits.assign(split="test"))
    assert read_data_summary(study).straddling == 0


def test_copies_and_groups_are_counted(tmp_path: Path) -> None:
    study = write_study(tmp_path, seeds=1, failed=None)
    catalog = read_table(tmp_path / "catalog.csv").astype(object)
    catalog[["cluster", "group", "pixels"]] = ""
    catalog["pixels"] = [f"p{number}" for number in range(len(catalog))]
    catalog.loc[[0, 1], ["cluster", "pixels"]] = ["c1", "p"]  # all in validation: no leak
    catalog.loc[[2, 3, 4], "cluster"] = "c2"
    catalog.loc[[5], "cluster"] = "c3"  # whose copy is set aside
    catalog.loc[[6, 7, 8, 9], "group"] = ["g1", "g1", "g2", "g2"]
    write_table(tmp_path / "catalog.csv", catalog.fillna(""))
    assert read_data_summary(study).counts == (
        ("copies", 1, 2, "the same pixels; counted as one in every interval"),
        ("copies", 1, 3, "nearly the same; counted as one in every interval"),
        ("groups", 2, 4, "named by the study; counted as one in every interval"),
    )


def test_files_that_are_not_used_are_counted_by_their_reasons(tmp_path: Path) -> None:
    study = write_study(tmp_path, seeds=1, failed=None)
    catalog = read_table(tmp_path / "catalog.csv").astype(object)
    rows = catalog.iloc[:4].assign(
        id=list("wxyz"), status=["set_aside", "ignored", "ignored", "ignored"], label="",
        reason=["truncated", "hidden", "link out of the folder", "hidden"],
    )  # fmt: skip
    write_table(tmp_path / "catalog.csv", pd.concat([catalog, rows]).fillna(""))
    assert read_data_summary(study).counts == (
        ("set aside", 1, 1, "truncated"), ("ignored", 2, 2, "hidden"), ("ignored", 1, 1, "link out of the folder"),
    )  # fmt: skip


def test_several_studies_side_by_side(study: StudyDir, tmp_path: Path) -> None:
    other = write_study(tmp_path / "other", seeds=1, name="other", failed=None)
    before = sorted(study.path.rglob("*"))
    text = write_side_by_side([study, other], tmp_path / "side.html").read_text(encoding="utf-8")
    assert text.count("<article") == 2
    assert MARKUP not in text
    assert "88.8 % (80.7 to 93.7)" in text
    assert sorted(study.path.rglob("*")) == before


@pytest.mark.parametrize(
    ("metric", "images", "smallest", "can_fold", "said"),
    [
        ("accuracy", 200, 20, True, ""),
        (
            "accuracy", 37, 5, True,
            "validation has 37 images (5 in the smallest class): one image is 2.7 points; "
            "--set split.folds=5 validates on others in each of five turns",
        ),
        (
            "balanced_accuracy", 2000, 19, False,
            "validation has 2,000 images (19 in the smallest class): one image is 0.1 points; more images tell more",
        ),
        (
            "log_loss", 37, 5, False,
            "validation has 37 images (5 in the smallest class): one image weighs 2.7 %; more images tell more",
        ),
        (
            "accuracy", 1, 1, False,
            "validation has 1 image (1 in the smallest class): one image is 100.0 points; more images tell more",
        ),
    ],
)  # fmt: skip
def test_few_validation_images_are_said(metric: str, images: int, smallest: int, can_fold: bool, said: str) -> None:
    assert small_pool_text(metric, images, smallest, can_fold) == said
