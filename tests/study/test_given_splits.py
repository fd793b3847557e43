"""Splits that the data gives: two test folders, copies of test images, missing classes."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.worlds import tiny_study, write_photographs
from unfreeze import Results, Study
from unfreeze.data import split as splits
from unfreeze.data.sources import open_source
from unfreeze.events import CellStarted, Event, Warned
from unfreeze.storage.records import read_json, read_table
from unfreeze.study.forecast import forecast

HEAD = {
    "strategies": {"head": {"train": "head", "optimizer": {"lr": 1e-2}}},
    "regimes": {"all": {}},
}
SECOND = (
    "besides training images the data gives one split, validation (9 images): it is the test set, and validation "
    "images are drawn from the training images; --set split.val=given validates on it, without a test set"
)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNFREEZE_CACHE", str(tmp_path / "cache"))


def write(folder: Path, **counts: int) -> None:
    for seed, (split, count) in enumerate(counts.items()):
        write_photographs(folder / "photographs" / split, count, seed=seed)


def run(folder: Path, **values: Any) -> tuple[Results, list[str], list[str]]:
    """Return the results, the warnings, and the cells that ran."""
    events: list[Event] = []
    results = Study(**tiny_study(folder, **(HEAD | values))).run(folder / "out", emit=events.append, workers=0)
    told = [event.text for event in events if isinstance(event, Warned)]
    return results, told, [event.cell for event in events if isinstance(event, CellStarted)]


def used(results: Results) -> dict[str, int]:
    return read_table(results.path / "splits.csv")["split"].value_counts().to_dict()


def foretold(folder: Path, **values: Any) -> list[str]:
    told: list[Event] = []
    study = Study(**tiny_study(folder, **(HEAD | values))).config
    forecast(study, open_source(study.data, {}, folder), folder / "out", told.append)
    return [event.text for event in told if isinstance(event, Warned)]


def test_the_one_split_beside_training_is_the_test_set(tmp_path):
    write(tmp_path, train=20, val=3)
    results, told, ran = run(tmp_path)
    assert told == [SECOND]
    counts = used(results)
    assert counts["test"] == 9 and counts["train"] + counts["validation"] == 60
    row = results.table.iloc[0]
    assert (row["n_train"], row["n_val"], row["n_test"]) == (counts["train"], counts["validation"], 9)
    assert SECOND in read_json(results.path / "study.json")["notes"]
    assert run(tmp_path)[1:] == ([SECOND], [])
    assert foretold(tmp_path) == [SECOND]
    results, told, ran = run(tmp_path, split={"val": "given"})  # as the sentence says
    assert told[0] == "the settings of split changed; the split is drawn again"
    assert used(results) == {"train": 60, "validation": 9}
    assert results.table.iloc[0]["n_test"] == 0


def test_a_directory_of_a_version_that_validated_on_it_still_does(tmp_path, monkeypatch):
    write(tmp_path, train=6, val=3)
    shutil.copy(tmp_path / "photographs/val/circle/000.png", tmp_path / "photographs/train/circle/copy.png")
    with monkeypatch.context() as as_before:
        as_before.setattr(splits, "given_pools", lambda images, *_: images["given_split"].to_numpy(dtype=object))
        first, _, ran = run(tmp_path)
    assert ran == ["head.all.s0"]
    before = (first.path / "splits.csv").read_text()
    assert used(first) == {"train": 19, "validation": 9}
    second, told, ran = run(tmp_path)
    assert ran == []
    assert (second.path / "splits.csv").read_text() == before
    assert told[1] == (
        "besides training images the data gives one split, validation (9 images): it is used as in the first run of "
        "this study, and there is no test set; give another --out DIR to make it the test set"
    )
    assert foretold(tmp_path) == told[1:]


def test_a_directory_of_a_version_that_trained_on_copies_of_test_images_still_does(tmp_path, monkeypatch):
    write(tmp_path, train=12, test=3)
    shutil.copy(tmp_path / "photographs/test/circle/000.png", tmp_path / "photographs/train/circle/copy.png")
    with monkeypatch.context() as as_before:
        as_before.setattr(splits, "_copied", lambda images, of: np.zeros(len(images), dtype=bool))
        first, *_ = run(tmp_path)
    before = (first.path / "splits.csv").read_text()
    second, told, ran = run(tmp_path)
    assert ran == []
    assert (second.path / "splits.csv").read_text() == before
    assert [text[:70] for text in told] == ["1 picture has copies in two splits that the data gives, so test scores"]


@pytest.mark.usefixtures("with_report")
def test_copies_of_test_images_are_left_out_and_counted(tmp_path):
    write(tmp_path, train=12, val=3, test=3)
    photographs = tmp_path / "photographs"
    shutil.copy(photographs / "test/circle/000.png", photographs / "train/circle/copy.png")
    shutil.copy(photographs / "test/square/000.png", photographs / "val/square/copy.png")
    results, told, _ = run(tmp_path)
    assert told == [
        "2 training or validation images are copies of test images and left out (left_out in splits.csv): "
        "train/circle/copy.png of test/circle/000.png is the first"
    ]
    assert used(results) == {"train": 36, "validation": 9, "test": 9, "left_out": 2}
    row = results.table.iloc[0]
    assert (row["n_train"], row["n_val"], row["n_test"]) == (36, 9, 9)
    page = (results.path / "report.html").read_text()
    assert "56 images used: 9 test, 36 train, 2 left out, 9 validation" in page
    assert "copies of test images, given for training or validation" in page
    assert "on both sides of the test split" not in page
    assert run(tmp_path)[1:] == (told, [])
    assert foretold(tmp_path) == told


@pytest.mark.usefixtures("with_report")
def test_a_class_without_test_images_has_no_recall(tmp_path):
    write(tmp_path, train=12, test=3)
    shutil.rmtree(tmp_path / "photographs/test/square")
    results, told, _ = run(tmp_path, metric="auroc")
    missing = (
        "no test image of square: its recall is not known, and AUROC is not defined; add some to the test images to "
        "know it"
    )
    assert told == [missing]
    row = results.table.iloc[0]
    assert np.isnan(row["test_metric"]) and 0 <= row["test_accuracy"] <= 1 and 0 <= row["val_metric"] <= 1
    page = (results.path / "report.html").read_text()
    assert '<tr><th scope="row">square</th><td>0</td><td class="text">– ' in page
    assert missing in page
    assert "undefined because a class has no test image (--set metric=balanced_accuracy is defined without one)" in page
    results, *_ = run(tmp_path, metric="balanced_accuracy")  # as the page says
    assert 0 <= results.table.iloc[0]["test_metric"] <= 1


def test_an_automatic_share_keeps_what_a_share_drew(tmp_path):
    first, *_ = run(tmp_path, split={"val": 0.15})
    before, validation = (first.path / "splits.csv").read_text(), used(first)["validation"]
    second, told, ran = run(tmp_path, split={"val": "auto"})
    assert (told, ran) == ([], [])
    assert (second.path / "splits.csv").read_text() == before
    third, told, ran = run(tmp_path, split={"val": "auto"})
    assert (told, ran) == ([], [])
    shutil.rmtree(third.path)
    fourth, *_ = run(tmp_path, split={"val": "auto"})
    assert used(fourth)["validation"] > validation
