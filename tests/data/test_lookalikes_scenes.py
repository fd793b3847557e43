"""Pictures of a fixed camera do not count as copies, however similar they are."""

import re
from pathlib import Path

import pytest

from tests.support.photos import TURNED, photo, shot, shots
from unfreeze.config.load import load_yaml
from unfreeze.config.schema import CheckConfig, SplitConfig
from unfreeze.data.catalog import SAFE, Catalog, build_catalog
from unfreeze.data.lookalikes import suggest_group
from unfreeze.data.quality import findings, refuse_losses, warnings_of
from unfreeze.data.sources import open_source
from unfreeze.data.split import draw_split


def others(root: Path, label: str, count: int, start: int = 0) -> Path:
    (root / label).mkdir(parents=True, exist_ok=True)
    for number in range(start, start + count):
        photo(number).save(root / label / f"other{number:03}.png")
    return root


def look(root: Path, check: CheckConfig = SAFE, group: str | None = None) -> Catalog:
    return build_catalog(open_source(str(root), {}, root), group, check=check)


def sides(catalog: Catalog) -> dict[str, set[str]]:
    """The labels of each side of the split."""
    rows = catalog.images.set_index("id").assign(side=draw_split(catalog, SplitConfig()))
    return {side: set(of["label"]) for side, of in rows.groupby("side")}


def in_the_message(text: str) -> str:
    """The group that a message's last line of YAML names."""
    (line,) = re.findall(r"split: \{group: '.*'\}$", text)
    return load_yaml(line, "the message")["split"]["group"]


EVERY = {side: {"defect", "ok"} for side in ("train", "validation", "test")}


@pytest.mark.parametrize("count", [40, 10])
def test_most_of_the_data_is_one_picture(tmp_path, count):
    found = look(shots(tmp_path, {("ok", 0): count, ("defect", 0): count}))
    assert set(found.images["status"]) == {"used"}
    assert set(found.images["cluster"]) == {""}
    refuse_losses(found, 0.05)
    assert sides(found) == EVERY
    told = (
        f"{2 * count} images look like one picture, labelled defect and ok, as from a fixed camera, so they do not "
        "count as copies: all are used and may lie in different splits; to keep images of one time or part together: "
        "split: {group: '(\\d+)\\.\\w+$'}"
    )
    assert warnings_of(found, findings(found, folds=False)) == [told]
    assert [(one.kind, one.severity, len(one.rows), one.note) for one in findings(found)] == [
        ("near_duplicate", "warning", 2 * count, told)
    ]
    grouped = look(tmp_path, group=in_the_message(told))
    assert sides(grouped) == EVERY
    assert grouped.images["group"].nunique() == count
    assert warnings_of(grouped, findings(grouped, folds=False)) == [told[: told.index("; to keep")]]


def test_equal_pixels_stay_copies_in_a_scene(tmp_path):
    shots(tmp_path, {("ok", 0): 12, ("defect", 0): 12})
    shot(0, 0, False).save(tmp_path / "ok/again.png")
    shot(0, 1, False).save(tmp_path / "defect/wrong.png")
    found = look(tmp_path)
    by_path = found.images.set_index("path")
    assert by_path.loc["ok/again.png", "cluster"] == by_path.loc["ok/0_000.png", "cluster"] != ""
    aside = found.images[found.images["status"] == "set_aside"]
    assert set(aside["path"]) == {"defect/wrong.png", "ok/0_001.png"}
    assert [(one.kind, len(one.rows)) for one in findings(found)] == [
        ("label_conflict", 2), ("exact_duplicate", 2), ("near_duplicate", 26),
    ]  # fmt: skip


def test_one_class_alone_is_of_a_fixed_camera(tmp_path):
    found = look(others(shots(tmp_path, {("defect", 0): 12}), "ok", 20))
    assert len(found.scenes) == 1
    assert set(found.images["status"]) == {"used"}
    assert sides(found) == EVERY


@pytest.mark.parametrize("cameras", [2, 3])
def test_few_cameras_are_scenes(tmp_path, cameras):
    counts = {(label, camera): 12 for label in ("ok", "defect") for camera in range(cameras)}
    found = look(shots(tmp_path, counts))
    assert [len(rows) for rows in found.scenes] == [24] * cameras
    assert sides(found) == EVERY


def test_of_many_cameras_each_stays_on_one_side_and_labels_count(tmp_path):
    found = look(shots(tmp_path, {(label, camera): 3 for label in ("ok", "defect") for camera in range(8)}))
    assert found.scenes == []
    assert set(found.images["status"]) == {"used"}
    refuse_losses(found, 0.05)
    rows = found.images.set_index("id").assign(side=draw_split(found, SplitConfig()))
    camera = rows["path"].str.extract(r"/(\d)", expand=False)
    assert rows.groupby(camera)["side"].nunique().max() == 1
    count = len(findings(found)[0].rows)
    assert 30 <= count <= 48
    told = (
        f"{count} images, more than half of all, are nearly equal to one with another label, so labels mark "
        "differences that a comparison of pictures does not see: all are used, and images that look alike stay in one "
        "split, unless check: {near_duplicates: ignore}"
    )
    assert warnings_of(found, findings(found, folds=False)) == [told]
    assert findings(found)[0].note == told
    ignored = look(tmp_path, CheckConfig(near_duplicates="ignore"))
    assert warnings_of(ignored, findings(ignored, folds=False)) == []


def test_the_orientation_of_a_picture_may_be_its_label(tmp_path):
    for number in range(12):
        for label, turn in (("up", None), ("left", "rotate_90"), ("right", "rotate_270"), ("down", "rotate_180")):
            (tmp_path / label).mkdir(exist_ok=True)
            picture = photo(number)
            (TURNED[turn](picture) if turn else picture).save(tmp_path / label / f"{number}.png")
    found = look(tmp_path)
    assert set(found.images["status"]) == {"used"}
    rows = found.images.set_index("id").assign(side=draw_split(found, SplitConfig()))
    assert rows.groupby(rows["path"].str.split("/").str[1])["side"].nunique().max() == 1


def test_a_few_frames_among_other_pictures_are_copies_as_before(tmp_path):
    shots(tmp_path, {("ok", 0): 12, ("defect", 0): 2})
    others(tmp_path, "ok", 20)
    others(tmp_path, "defect", 20, 100)
    found = look(tmp_path)
    assert found.scenes == []
    assert (found.images["status"] == "set_aside").sum() == 14


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([f"cam_2026-05-{day:02}_12{day}.jpg" for day in range(10, 31)], r"(\d{4}[-_]?\d\d[-_]?\d\d)"),
        ([f"frame{number:05}.jpg" for number in range(200)], r"(\d+)\d\.\w+$"),
        ([f"{number}.jpg" for number in range(20)], r"(\d+)\.\w+$"),
        ([f"{letter}.jpg" for letter in "abcdef"], r"([^/]+)\.\w+$"),
        (list("abcdef"), r"([^/]+)$"),
    ],
)
def test_a_group_is_named_that_every_path_has(names, expected):
    assert suggest_group([f"ok/{name}" for name in names], ["ok"] * len(names)) == expected
