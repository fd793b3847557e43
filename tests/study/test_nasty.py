"""A whole study on the nasty pack finishes, counts every file once, and changes no file."""

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tests.support.nasty import write_pack
from tests.support.photos import cut_jpegs
from tests.support.watched import tree
from tests.support.worlds import tiny_study
from unfreeze import Study
from unfreeze.data.catalog import CUT
from unfreeze.errors import UserError
from unfreeze.events import Event, Warned
from unfreeze.storage.records import read_json, read_table, read_tensors

ASKED = {"strategies": {"head": {"train": "head"}, "all": {"train": "all"}}, "regimes": {"full": {}}}


@pytest.mark.usefixtures("with_report")
def test_a_study_on_the_nasty_pack(tmp_path: Path) -> None:
    expected = write_pack(tmp_path / "pack")
    before = tree(tmp_path / "pack")
    told: list[Event] = []
    study = tiny_study(tmp_path, data=str(tmp_path / "pack"), check={"max_set_aside": 0.9}, **ASKED)
    results = Study(**study).run(tmp_path / "out", emit=told.append, workers=0)
    assert tree(tmp_path / "pack") == before
    assert set(results.table["status"]) == {"finished"}
    for cell in results.table["cell"]:
        logits, about = read_tensors(results.path / "cells" / cell / "logits.safetensors")
        assert set(logits) == {"validation", "test"}
        assert all(
            np.isfinite(scores).all() and len(scores) == len(about["ids"][split]) for split, scores in logits.items()
        )
    images = read_table(results.path / "catalog.csv")
    assert sorted(map(os.fsencode, images["path"])) == sorted(map(os.fsencode, expected))
    counts = images["status"].value_counts()
    assert counts.sum() == len(expected)
    used = set(images.loc[images["status"] == "used", "id"])
    assert set(read_table(results.path / "splits.csv")["id"]) == used
    record = read_json(results.path / "study.json")
    assert record["study"]["check"]["max_set_aside"] == 0.9  # what the run does about what it finds
    assert record["copies"] == {  # what counted as a copy
        "likeness": 0.97, "one_picture": 0.99, "bits": 10, "nearest": 16,
    }  # fmt: skip
    report = (results.path / "report.html").read_bytes().decode()  # valid UTF-8, whatever the names
    assert f"Set aside: {counts['set_aside']} images; catalog.csv gives the reason for each." in report
    for reason in ("hidden", "not an image", "truncated"):
        count = Counter(expected.values())[reason]
        assert f'<td>{count}</td><td>{count}</td><td class="text error">{reason}</td>' in report
    assert "<script>alert(1)" not in report
    assert not [event for event in told if isinstance(event, Warned) and "no pictures" in event.text]


def test_too_many_unreadable_files_stop_a_study(tmp_path: Path) -> None:
    write_pack(tmp_path / "pack")
    with pytest.raises(UserError) as caught:
        Study(**tiny_study(tmp_path, data=str(tmp_path / "pack"), **ASKED)).run(tmp_path / "out", workers=0)
    assert caught.value.expected == "at most 5% of the files, and no whole class"
    assert not (tmp_path / "out").exists()


def test_a_study_with_truncated_pictures(tmp_path: Path) -> None:
    (cut,) = cut_jpegs(tmp_path / "pack")
    study = tiny_study(
        tmp_path, data=str(tmp_path / "pack"), check={"truncated": "keep", "max_set_aside": 0.1}, **ASKED
    )
    results = Study(**study).run(tmp_path / "out", workers=0)
    assert set(results.table["status"]) == {"finished"}
    images = read_table(results.path / "catalog.csv").set_index("path")
    assert images.loc["a/00.jpg", "note"] == CUT
    assert images.loc["a/00.jpg", "id"] in set(read_table(results.path / "splits.csv")["id"])
    assert read_json(results.path / "study.json")["study"]["check"]["truncated"] == "keep"


@pytest.mark.parametrize("name", ["heic", "avif"])
def test_a_folder_of_pictures_from_a_telephone_says_what_to_do(tmp_path: Path, name: str) -> None:
    for label in "ab":
        (tmp_path / "pack" / label).mkdir(parents=True)
        for number in range(3):
            content = b"\x00\x00\x00\x18ftyp" + name[:4].encode() + b"\x00\x00\x00\x00" + bytes([number, label == "a"])
            (tmp_path / "pack" / label / f"{number}.{name}").write_bytes(content)
    with pytest.raises(UserError) as caught:
        Study(**tiny_study(tmp_path, data=str(tmp_path / "pack"), **ASKED)).run(tmp_path / "out", workers=0)
    assert str(caught.value) == (
        f"all 6 files are set aside (6 {name} is not supported)\n"
        "  expected: at most 5% of the files, and no whole class\n"
        "  fix:      convert it to jpeg or png"
    )
