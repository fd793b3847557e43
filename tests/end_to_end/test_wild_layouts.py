"""Folders that tools, cameras, laboratories and downloads leave: what is said of each before anything is trained.

Each case has what the version of ``tests/support/kept_study`` said of it, in a line, what is said today, and what its
message says to do, which is done and gets further.
"""

import json
import re
import shlex
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.support import wild_layouts

EXPECTED = "a folder of class folders, or a folder with train/, val/ and test/ of class folders"
OUTER = "--set labels_from='^([^/]+)/' (in a study file: labels_from: '^([^/]+)/')"
SECOND = "--set labels_from='^[^/]+/([^/]+)/' (in a study file: labels_from: '^[^/]+/([^/]+)/')"
FIRST_WORD = r"([^\W\d_][^/._ -]*)[._ -][^/]*$"
WORD = f"--set labels_from='{FIRST_WORD}' (in a study file: labels_from: '{FIRST_WORD}')"
MASKS = "masks or annotations, no photographs"
AGAIN = "the classes once more"
STUDY = """\
backbone: test_resnet
weights: none
image_size: 32
epochs: 1
strategies: {scratch: {train: all}}
regimes: {few: {train_per_class: 2}}
"""


@dataclass(frozen=True)
class Case:
    """A folder and what is said of it.

    Attributes:
        make: writes it.
        before: what the first version said, in a line.
        kind, classes, splits, ignored, guessed: as ``layout`` has them, ``{data}`` for the folder.
        refused: what is said on stderr instead, if it is refused.
        then: by what the message says to do, done, the classes and splits that it leads to.
    """

    make: Callable[[Path], None]
    before: str
    kind: str = "class folders"
    classes: tuple[str, ...] = ()
    splits: tuple[int, int, int] | None = None
    ignored: Mapping[str, int] = field(default_factory=dict)
    guessed: tuple[str, ...] = ()
    refused: str = ""
    then: Mapping[str, tuple[tuple[str, ...], tuple[int, int, int] | None]] = field(default_factory=dict)


CASES = [
    Case(
        wild_layouts.masks_in_each_class,
        "classes COVID, Normal, Viral Pneumonia with the masks among their images, 21 of them set aside as conflicts",
        classes=("COVID", "Normal", "Viral Pneumonia"),
        ignored={MASKS: 36, "no picture: .xlsx": 3, "no picture: .txt": 1},
        guessed=(
            "masks/ in COVID/, Normal/, Viral Pneumonia/ (36 pictures) seems to contain masks or annotations and is "
            f"not used; to use all pictures: {OUTER}",
        ),
        then={"labels_from=^([^/]+)/": (("COVID", "Normal", "Viral Pneumonia"), None)},
    ),
    Case(
        wild_layouts.masks_among_the_images,
        "masks trained on as images of their class, 21 of them set aside as conflicts",
        classes=("benign", "malignant", "normal"),
        ignored={MASKS: 37},
        guessed=(
            "37 pictures seem to be masks of other pictures in the same folder and are not used (first "
            f"benign/benign (1)_mask.png of benign (1).png); to use all pictures: {OUTER}",
        ),
        then={"labels_from=^([^/]+)/": (("benign", "malignant", "normal"), None)},
    ),
    Case(
        wild_layouts.depth_beside_colour,
        "colour, depth and mask of each object trained on as three images of it, 38 of 64 files set aside",
        classes=("apple", "ball"),
        ignored={MASKS: 32, "no picture: .txt": 16},
        guessed=(
            "32 pictures seem to be masks of other pictures in the same folder and are not used (first "
            f"apple/apple_1/apple_1_1_1_depthcrop.png of apple_1_1_1_crop.png); to use all pictures: {OUTER}",
        ),
        then={"labels_from=^([^/]+)/": (("apple", "ball"), None)},
    ),
    Case(
        wild_layouts.labels_in_names_of_splits,
        "trained testing against training, exit 0",
        refused=(
            "unfreeze: {data}: testing/, training/ contain pictures but no class folders\n"
            f"  expected: {EXPECTED}\n"
            "  fix:      if the classes are what the file names begin with, lamp (16), plant (16), unknown (16): "
            f"{WORD}; else put the pictures into one folder per class, or list their paths and labels in a .csv file\n"
        ),
        then={r"labels_from=([^\W\d_][^/._ -]*)[._ -][^/]*$": (("lamp", "plant", "unknown"), (36, 0, 12))},
    ),
    Case(
        wild_layouts.defects_in_test_only,
        "train has no image of broken_large, contamination; nothing to do about it",
        kind="split folders",
        classes=("broken_large", "contamination", "good"),
        splits=(20, 0, 18),
        ignored={"not in a split's folder": 12, "no picture: .txt": 1},
        guessed=(
            "test/, train/ are splits, so the content of ground_truth/ is not used; to use it, move it into class "
            "folders of one of them",
            "there is no training image of broken_large, contamination, so they cannot be learned; to draw new splits "
            "from all images: --set columns.split=false (in a study file: columns: {{split: false}})",
        ),
        then={"columns.split=false": (("broken_large", "contamination", "good"), None)},
    ),
    Case(
        wild_layouts.spanish_splits,
        "trained entrenamiento against prueba and validacion, exit 0",
        kind="split folders",
        classes=("gato", "perro"),
        splits=(24, 8, 8),
    ),
    Case(
        wild_layouts.training_in_parts,
        "refused: 'has test/ with folders in, but no train/', add train/",
        kind="split folders",
        classes=("crack", "sound"),
        splits=(30, 0, 10),
    ),
    Case(
        wild_layouts.archives_not_unpacked,
        "refused: 'holds no class folders', put the images into one folder per class",
        refused=(
            "unfreeze: {data} holds no pictures: 2 no picture: .zip\n"
            f"  expected: {EXPECTED}\n"
            "  fix:      unpack them: python -m zipfile -e {data}/mug-20240301T101112Z-001.zip {data}, and "
            "likewise the other 1\n"
        ),
        then={"unpack": (("mug", "plate"), None)},
    ),
    Case(
        wild_layouts.snapshots_of_the_server,
        "classes #snapshot, @Recently-Snapshot, @Recycle, Backup, ok, scratch, ~snapshot; nearly all in conflict",
        classes=("ok", "scratch"),
        ignored={AGAIN: 20, "system files": 4},
        guessed=(
            "Backup/ (20 pictures) contains ok, scratch again and is not used; to use it instead of the folders next "
            "to it, give {data}/Backup",
        ),
        then={"give {data}/Backup": (("ok", "scratch"), None)},
    ),
    Case(
        wild_layouts.not_yet_sorted,
        "_unsorted trained on as the largest of four classes, exit 0",
        classes=("daisy", "rose", "tulip"),
        ignored={"unlabelled": 30},
        guessed=(
            "_unsorted/ contains 30 pictures without class folders: unlabelled, not used; if _unsorted is a class: "
            f"{OUTER}",
        ),
        then={"labels_from=^([^/]+)/": (("_unsorted", "daisy", "rose", "tulip"), None)},
    ),
    Case(
        wild_layouts.camera_cards,
        "thumbnails of videos trained on, videos 'damaged', 4 of 30 files set aside",
        classes=("beech", "oak"),
        ignored={"no picture: .mp4": 2, "no picture: .thm": 2, "no picture: .ctg": 2},
    ),
    Case(
        wild_layouts.albums_taken_out,
        "refused: 'holds one class only: Takeout', add a folder for each class",
        classes=("Bees", "Wasps"),
        ignored={"no picture: .json": 50, AGAIN: 24, "no picture: .html": 1},
        guessed=(
            "Takeout/Google Photos/Photos from 2023/ (24 pictures) contains the pictures of Bees, Wasps again and is "
            "not used; if Photos from 2023 is a class of its own: --set labels_from='^[^/]+/[^/]+/([^/]+)/' (in a "
            "study file: labels_from: '^[^/]+/[^/]+/([^/]+)/')",
            "all labelled pictures are in Takeout/Google Photos/, so the folders in it are read and not those around "
            "it",
        ),
    ),
    Case(
        wild_layouts.copies_of_folders,
        "classes cat, cat - Copy, dog, dog (1), dog copy; 40 of 44 files set aside as conflicts",
        classes=("cat", "dog"),
        ignored={AGAIN: 24},
        guessed=tuple(
            f"{copy}/ (8 pictures) contains the pictures of {name} again and is not used; if {copy} is a class of its "
            f"own: {OUTER}"
            for name, copy in (("cat", "cat - Copy"), ("dog", "dog (1)"), ("dog", "dog copy"))
        ),
    ),
    Case(
        wild_layouts.frames_of_clips,
        "frames of one clip in training and test, without a word",
        classes=("Archery", "Biking"),
        guessed=(
            "the folders within the classes (v_Archery_g01_c01, v_Archery_g02_c01, v_Archery_g03_c01 and 5 more) "
            "belong to them; if one is a patient, clip, slide or day, whose pictures must stay together: "
            "--set split.group='^[^/]+/([^/]+)/' (in a study file: split: {{group: '^[^/]+/([^/]+)/'}}); if they are "
            f"the classes: {SECOND}",
        ),
        then={
            "split.group=^[^/]+/([^/]+)/": (("Archery", "Biking"), None),
            "labels_from=^[^/]+/([^/]+)/": (
                tuple(f"v_{k}_g0{n}_c01" for k in ("Archery", "Biking") for n in range(1, 5)),
                None,
            ),
        },
    ),
]


def numbers(splits: tuple[int, int, int] | None) -> dict[str, int] | None:
    return dict(zip(("train", "val", "test"), splits, strict=True)) if splits else None


def ways(text: str) -> set[str]:
    """What a text says to give with --set, as a shell reads it."""
    return {shlex.split(found)[0] for found in re.findall(r"--set ((?:'[^']*'|\S)+)", text)}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.make.__name__)
def test_a_folder_is_read_as_its_owner_means_it(case, unfreeze, tmp_path):
    data = tmp_path / "data"
    case.make(data)
    code, out, err = unfreeze("check", "data", "--json")
    if case.refused:
        assert (code, out, err) == (2, "", case.refused.format(data=data))
        (tmp_path / "study.yaml").write_text(f"data: data\n{STUDY}")
        for command in (("init", "data", "--out", "x.yaml"), ("plan", "study.yaml"), ("run", "study.yaml")):
            code, _, said = unfreeze(*command)
            assert (code, said) == (2, case.refused.format(data=data))
        guessed = err
    else:
        assert code == 0
        assert json.loads(out)["layout"] == {
            "kind": case.kind,
            "classes": list(case.classes),
            "splits": numbers(case.splits),
            "ignored": case.ignored,
            "guessed": [sentence.format(data=data) for sentence in case.guessed],
        }
        guessed = "\n".join(json.loads(out)["layout"]["guessed"])
    for way, (classes, splits) in case.then.items():
        code, out, err = follow(way.format(data=data), guessed, data, unfreeze)
        assert code == 0, err
        assert json.loads(out)["layout"]["classes"] == list(classes)
        assert json.loads(out)["layout"]["splits"] == numbers(splits)


def follow(way: str, told: str, data: Path, unfreeze: Callable[..., Any]) -> tuple[int, str, str]:
    """Do what was told, and check again."""
    if way == "unpack":
        assert "python -m zipfile -e" in told
        for archive in sorted(data.glob("*.zip")):
            zipfile.main(["-e", str(archive), str(data)])
        return unfreeze("check", "data", "--json")
    if way.startswith("give "):
        assert way in told
        return unfreeze("check", way.removeprefix("give "), "--json")
    assert way in ways(told)
    return unfreeze("check", "data", "--json", "--set", way)


def test_defects_of_which_no_good_part_was_trained_on_can_be_planned(unfreeze, tmp_path):
    wild_layouts.defects_in_test_only(tmp_path / "data")
    (tmp_path / "study.yaml").write_text(f"data: data\n{STUDY}")
    code, out, err = unfreeze("plan", "study.yaml", "--set", "columns.split=false")
    assert (code, "too few" in out + err) == (0, False), err
    assert "split: drawn: 20% test" in out


def test_frames_of_a_clip_stay_together(unfreeze, tmp_path):
    wild_layouts.frames_of_clips(tmp_path / "data")
    (tmp_path / "study.yaml").write_text(f"data: data\n{STUDY}")
    code, out, err = unfreeze("plan", "study.yaml", "--set", "split.group=^[^/]+/([^/]+)/")
    assert code == 0, err
    assert "groups by ^[^/]+/([^/]+)/" in out


def test_classes_named_as_masks_stay_classes(unfreeze, tmp_path):
    """People with a mask and without, photographed under the same file names, in colour or grey."""
    for colour, name in enumerate(("mask", "no_mask")):
        wild_layouts.pictures(tmp_path / "data" / name, [f"{n}.jpg" for n in range(8)], colour)
    wild_layouts.pictures(tmp_path / "data/mask", [f"{n}_mask.jpg" for n in range(8)], 0)
    code, out, _ = unfreeze("check", "data", "--json")
    layout = json.loads(out)["layout"]
    assert (code, layout["classes"], layout["ignored"], layout["guessed"]) == (0, ["mask", "no_mask"], {}, [])


def test_folders_that_may_be_splits_are_so_once_renamed(unfreeze, tmp_path):
    for folder, count in (("opetus", 6), ("testaus", 3)):
        for colour, name in enumerate(("kissa", "koira")):
            wild_layouts.pictures(tmp_path / "data" / folder / name, [f"{n}.jpg" for n in range(count)], colour)
    code, _, err = unfreeze("check", "data", "--json")
    assert code == 2
    for old, new in re.findall(r"mv (\S+) (\S+)", err):
        Path(old).rename(new)
    code, out, err = unfreeze("check", "data", "--json")
    assert (code, json.loads(out)["layout"]["splits"]) == (0, numbers((12, 0, 6)))
