"""A study whose data grows between two runs: the test set stays as drawn."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.support.worlds import tiny_study
from unfreeze import Results, Study
from unfreeze.errors import UserError
from unfreeze.events import Event, Warned
from unfreeze.storage.records import read_json, read_table

HEAD = {
    "strategies": {"head": {"train": "head", "optimizer": {"lr": 1e-2}}},
    "regimes": {"small": {"train_per_class": 5, "val_per_class": 1}},
}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNFREEZE_CACHE", str(tmp_path / "cache"))


def run(folder: Path, **values: Any) -> tuple[Results, list[str]]:
    events: list[Event] = []
    results = Study(**tiny_study(folder, **(HEAD | values))).run(folder / "out", emit=events.append, workers=0)
    return results, [event.text for event in events if isinstance(event, Warned)]


def add(folder: Path, label: str, count: int, start: int = 0) -> None:
    generator = np.random.default_rng([ord(label[0]), start])
    for number in range(start, start + count):
        pixels = generator.integers(0, 255, (24, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "photographs" / label / f"new{number}.png")


def held_out(results: Results) -> set[str]:
    splits = read_table(results.path / "splits.csv")
    return set(splits.loc[splits["split"] == "test", "id"])


def test_new_removed_and_relabelled_images(tmp_path):
    first, warned = run(tmp_path)
    before = held_out(first)
    assert warned == []
    catalog = read_table(first.path / "catalog.csv").set_index("id")
    splits = read_table(first.path / "splits.csv").set_index("id")["split"]
    trained = [catalog.loc[name, "path"] for name in splits.index[splits == "train"]]
    circles = sorted(path for path in trained if path.startswith("circle"))
    photographs = tmp_path / "photographs"
    for label, count in (("circle", 20), ("square", 20)):
        add(tmp_path, label, count)
    (photographs / circles[0]).unlink()
    shutil.move(photographs / circles[1], photographs / "square" / "relabelled.png")
    second, warned = run(tmp_path)
    assert warned[0].startswith(
        "the images changed since the last run: 40 new, 1 removed, 1 relabelled (listed in study.json); the test set "
        "stays as it was drawn"
    )
    changed = read_json(second.path / "study.json")["changes"]
    assert (len(changed["new"]), changed["removed"], changed["relabelled"]) == (
        40, [circles[0]], ["square/relabelled.png"],
    )  # fmt: skip
    assert held_out(second) == before
    assert (
        "finished with other settings or images (other images), so not part of this study now (another --out keeps "
        "both): head.small.s0" in warned
    )
    assert second.table["status"].tolist() == ["finished"]
    third, warned = run(tmp_path)
    assert warned == []
    assert held_out(third) == before


def test_two_hundred_new_three_relabelled_and_five_removed_in_every_split(tmp_path):
    tiny_study(tmp_path)
    for label in ("circle", "square"):
        add(tmp_path, label, 20)
    first, _ = run(tmp_path)
    before, photographs = held_out(first), tmp_path / "photographs"
    paths = read_table(first.path / "catalog.csv").set_index("id")["path"]
    splits = read_table(first.path / "splits.csv").set_index("id")["split"]
    circles = {
        split: [name for name in splits.index[splits == split] if paths[name].startswith("circle")]
        for split in ("train", "validation", "test")
    }
    removed = [*circles["train"][:3], circles["validation"][0], circles["test"][0]]
    relabelled = [circles[split][-1] for split in circles]
    for name in removed:
        (photographs / paths[name]).unlink()
    for name in relabelled:
        shutil.move(photographs / paths[name], photographs / "square" / f"{name}.png")
    for label in ("circle", "square"):
        add(tmp_path, label, 100, start=20)
    second, warned = run(tmp_path)
    assert warned[0].startswith("the images changed since the last run: 200 new, 5 removed, 3 relabelled")
    changed = read_json(second.path / "study.json")["changes"]
    assert len(changed["new"]) == 200
    assert changed["removed"] == sorted(paths[removed])
    assert changed["relabelled"] == sorted(f"square/{name}.png" for name in relabelled)
    assert held_out(second) == before - {removed[-1]}
    labels = read_table(second.path / "catalog.csv").set_index("id")["label"]
    assert set(labels[relabelled]) == {"square"}
    again = read_table(second.path / "splits.csv").set_index("id")["split"]
    assert (again[relabelled] == splits[relabelled]).all()
    assert second.table["status"].tolist() == ["finished"]
    assert run(tmp_path)[1] == []


def test_a_cell_whose_images_did_not_change_stays(tmp_path):
    regimes = {"small": {"train_per_class": 2, "val_per_class": 1}}
    first, _ = run(tmp_path, regimes=regimes)
    path = first.path / "cells" / "head.small.s0" / "result.json"
    stamp = path.stat().st_mtime_ns
    used = read_table(first.path / "splits.csv").set_index("id")["small.s0"]
    paths = read_table(first.path / "catalog.csv").set_index("id")["path"]
    splits = read_table(first.path / "splits.csv").set_index("id")["split"]
    unused = [name for name in splits.index if splits[name] == "train" and not used[name]]
    (tmp_path / "photographs" / paths[unused[0]]).unlink()
    second, warned = run(tmp_path, regimes=regimes)
    assert [text.split(";")[0] for text in warned] == [
        "the images changed since the last run: 1 removed (listed in study.json)"
    ]
    assert path.stat().st_mtime_ns == stamp
    assert second.table["status"].tolist() == ["finished"]


def test_a_new_copy_of_a_test_image_under_another_label_changes_nothing(tmp_path):
    """Its path comes before the old one's, so that it would be numbered first."""
    first, _ = run(tmp_path, check={"max_set_aside": 0.1})
    before = held_out(first)
    paths = read_table(first.path / "catalog.csv").set_index("id")["path"]
    tested = next(paths[name] for name in sorted(before) if paths[name].startswith("triangle"))
    shutil.copy(tmp_path / "photographs" / tested, tmp_path / "photographs" / "circle" / "0.png")
    second, warned = run(tmp_path, check={"max_set_aside": 0.1})
    rows = read_table(second.path / "catalog.csv").set_index("path")
    assert rows.loc[tested, ["status", "label"]].tolist() == ["used", "triangle"]
    assert rows.loc["circle/0.png", "status"] == "set_aside"
    assert held_out(second) == before
    assert rows.loc[tested, "id"] in before
    changed = read_json(second.path / "study.json")["changes"]
    assert changed == {"new": ["circle/0.png"], "removed": [], "relabelled": [], "classes": []}
    assert warned[0] == (
        f"1 picture has copies with different labels, 2 images, 1 of them set aside, first circle/0.png and {tested} "
        "(--set check.label_conflicts=keep uses them)"
    )
    stamps = [path.stat().st_mtime_ns for path in (first.path / "cells").rglob("result.json")]
    assert stamps and max(stamps) < (second.path / "study.json").stat().st_mtime_ns  # no cell ran again


def test_a_new_class_has_no_image_in_the_test_set_that_stays(tmp_path):
    first, _ = run(tmp_path)
    before = {path: path.read_bytes() for path in first.path.rglob("*.csv")}
    (tmp_path / "photographs" / "oval").mkdir()
    add(tmp_path, "oval", 20)
    with pytest.raises(UserError) as caught:
        run(tmp_path)
    assert str(caught.value) == (
        "new classes since the last run: oval; the test set, which stays as it was drawn, has no image of them\n"
        "  expected: the classes that the study began with: circle, square, triangle\n"
        "  fix:      remove the new classes, or draw the split in another study directory: "
        f"--out {first.path}-2"
    )
    assert {path: path.read_bytes() for path in first.path.rglob("*.csv")} == before
    second, warned = run(tmp_path, split={"test": 0.3})
    assert second.table["status"].tolist() == ["finished"]


def test_a_renamed_class_keeps_its_test_images(tmp_path):
    first, _ = run(tmp_path)
    before = held_out(first)
    (tmp_path / "photographs" / "circle").rename(tmp_path / "photographs" / "ring")
    add(tmp_path, "ring", 2)
    second, warned = run(tmp_path)
    assert warned == [
        "the images changed since the last run: class circle is now called ring: 12 images; 2 new (listed in "
        "study.json); the test set stays as it was drawn, and cells whose images changed run again",
        "finished with other settings or images (other images), so not part of this study now (another --out keeps "
        "both): head.small.s0",
    ]
    assert held_out(second) == before
    labels = read_table(second.path / "catalog.csv").set_index("id")["label"]
    assert "ring" in set(labels[sorted(before)])
    assert second.table["status"].tolist() == ["finished"]
    changed = read_json(second.path / "study.json")["changes"]
    assert (changed["relabelled"], changed["classes"]) == ([], ["class circle is now called ring: 12 images"])
    assert run(tmp_path)[1] == []


def test_classes_that_become_one_keep_their_test_images(tmp_path):
    first, _ = run(tmp_path)
    before, photographs = held_out(first), tmp_path / "photographs"
    (photographs / "round").mkdir()
    for name in ("circle", "triangle"):
        for path in sorted((photographs / name).iterdir()):
            path.rename(photographs / "round" / f"{name}{path.name}")
        (photographs / name).rmdir()
    second, warned = run(tmp_path)
    assert warned[0].startswith(
        "the images changed since the last run: classes circle and triangle are now one class, round: 24 images ("
    )
    assert held_out(second) == before
    assert second.table["status"].tolist() == ["finished"]


def test_the_split_is_drawn_again_when_its_settings_change(tmp_path):
    before = held_out(run(tmp_path)[0])
    second, warned = run(tmp_path, split={"test": 0.4})
    assert warned[0] == "the settings of split changed; the split is drawn again"
    assert len(held_out(second)) > len(before)
