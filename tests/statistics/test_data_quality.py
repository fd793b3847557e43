"""Counts of a study's images, groups that its split tears apart, and the metric that leads the answer."""

from pathlib import Path

import pandas as pd
import pytest

from unfreeze.statistics.data_quality import leading_metric, leak_text, read_data_summary
from unfreeze.storage.records import write_table
from unfreeze.storage.study_dir import StudyDir


def images(count: int) -> pd.DataFrame:
    table = pd.DataFrame({"id": [f"i{number}" for number in range(count)], "label": ["a", "b"] * (count // 2)})
    return table.assign(status="used", reason="", group="", cluster="", pixels=table["id"])


def study_of(folder: Path, catalog: pd.DataFrame, splits: list[str] | None = None) -> StudyDir:
    write_table(folder / "catalog.csv", catalog)
    if splits:
        write_table(folder / "splits.csv", catalog[["id"]].assign(split=splits, fold=""))
    return StudyDir(folder)


@pytest.mark.parametrize("column", ["cluster", "group"])
def test_images_that_belong_together_on_both_sides_of_the_split_are_a_leak(tmp_path: Path, column: str) -> None:
    catalog = images(6)
    catalog.loc[[0, 1, 4], column] = "one"
    catalog.loc[[2, 3], column] = "two"
    data = read_data_summary(study_of(tmp_path, catalog, ["train", "val", "train", "train", "test", "test"]))
    assert data.counts[0] == ("leaks", 1, 3, "groups with images on both sides of the test split")
    assert leak_text(data) == (
        "1 group of copies or related images is on both sides of the test split, so test scores are optimistic."
    )
    data = read_data_summary(study_of(tmp_path, catalog, ["test", "test", "train", "val", "test", "train"]))
    assert (data.split_groups, leak_text(data)) == (0, "")


def test_images_left_out_are_no_leak(tmp_path: Path) -> None:
    catalog = images(4)
    catalog["cluster"] = ["c", "", "c", ""]
    data = read_data_summary(study_of(tmp_path, catalog, ["left_out", "train", "test", "test"]))
    assert data.split_groups == 0
    assert data.counts[0] == ("left out", 1, 1, "copies of test images, given for training or validation")
    assert data.splits == {"left out": 1, "train": 1, "test": 2}


def test_copies_and_groups_are_counted(tmp_path: Path) -> None:
    catalog = images(10)
    catalog.loc[[0, 1], ["cluster", "pixels"]] = ["c1", "same"]
    catalog.loc[[2, 3, 4], "cluster"] = "c2"
    catalog.loc[[5], "cluster"] = "c3"  # its copy is set aside
    catalog.loc[[6, 7, 8, 9], "group"] = ["g1", "g1", "g2", "g2"]
    assert read_data_summary(study_of(tmp_path, catalog)).counts == (
        ("copies", 1, 2, "identical pixels; counted as one in every interval"),
        ("copies", 1, 3, "near duplicates; counted as one in every interval"),
        ("groups", 2, 4, "named by the study; counted as one in every interval"),
    )


def test_files_that_are_not_used_are_counted_by_their_reasons(tmp_path: Path) -> None:
    catalog = images(6)
    catalog.loc[:3, "status"] = ["set_aside", "ignored", "ignored", "ignored"]
    catalog.loc[:3, "reason"] = ["truncated: at byte 12", "hidden", "link out of the folder", "hidden"]
    data = read_data_summary(study_of(tmp_path, catalog))
    assert data.counts == (
        ("set aside", 1, 1, "truncated"), ("ignored", 2, 2, "hidden"), ("ignored", 1, 1, "link out of the folder"),
    )  # fmt: skip
    assert data.classes == {"a": 1, "b": 1}


def test_a_study_without_a_catalog_has_an_empty_summary(tmp_path: Path) -> None:
    data = read_data_summary(StudyDir(tmp_path))
    assert (data.counts, data.classes, data.splits, data.imbalance) == ((), {}, {}, 1)


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
def test_balanced_accuracy_leads_where_classes_are_imbalanced(
    metric: str, given: bool | None, imbalance: float, leads: str
) -> None:
    record = {"metric": metric} | ({} if given is None else {"metric_given": given})
    assert leading_metric(record, imbalance) == leads
