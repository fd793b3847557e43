"""Folders as people have them: each is read as its owner means it, or refused with every reading and its setting."""

import re
import shlex
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.pictures import folder, save
from unfreeze.data.sources import open_source
from unfreeze.data.sources.source import Ignored, Source
from unfreeze.errors import UserError

FOLDERS = "a folder of class folders, or a folder with train/, val/ and test/ of class folders"


def read(root: Path, **settings: object) -> Source:
    return open_source(str(root), {}, root.parent, **settings)  # type: ignore[arg-type]


def refused(root: Path, **settings: object) -> UserError:
    with pytest.raises(UserError) as caught:
        read(root, **settings)
    return caught.value


def settings_in(error: UserError) -> list[str]:
    """What a refusal says to give as ``labels_from``, as the shell and YAML would read it."""
    return [shlex.split(found)[0] for found in re.findall(r"--set labels_from=(\S+) \(", error.fix)]


def labels(source: Source) -> dict[tuple[str, str], int]:
    """How many files each label has in each split."""
    return dict(sorted(Counter((item.label, item.given_split) for item in source.items).items()))


def ignored(source: Source) -> dict[str, int]:
    return dict(Counter(entry.reason for entry in source.ignored))


def split_folders(root: Path, *names: str, classes: str = "ab", count: int = 2) -> Path:
    for number, name in enumerate(names):
        for place, label in enumerate(classes):
            for index in range(count):
                save(root / name / label / f"{index}.png", 100 * number + 10 * place + index)
    return root


GIVEN = {("a", "test"): 2, ("a", "train"): 2, ("b", "test"): 2, ("b", "train"): 2}


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("training_set", "test_set"),
        ("train_data", "test_data"),
        ("seg_train", "seg_test"),
        ("seg_train/seg_train", "seg_test/seg_test"),
        ("train/train", "test/test"),
        ("Train Images", "TEST-images"),
        ("images_train", "images_test"),
        ("trainset", "testset"),
        ("train/images", "test/images"),
        ("Training Data/data", "Testing Data/data"),
        ("train1", "holdout"),
    ],
)
def test_names_of_splits(tmp_path, train, test):
    source = read(split_folders(tmp_path / "p", train, test))
    assert labels(source) == GIVEN
    assert (source.kind, source.ignored, source.guessed) == ("split folders", (), ())
    assert source.split_names == {train.split("/")[0]: "train", test.split("/")[0]: "test"}


@pytest.mark.parametrize(("name", "split"), [("dev", "validation"), ("validation_images", "validation")])
def test_names_of_validation_images(tmp_path, name, split):
    source = read(split_folders(tmp_path / "p", "train", name))
    assert source.split_names == {"train": "train", name: split}


def test_pictures_to_predict_beside_splits_are_unlabelled(tmp_path):
    root = split_folders(tmp_path / "p", "seg_train/seg_train", "seg_test/seg_test")
    for number in range(3):
        save(root / "seg_pred/seg_pred" / f"{number}.png", 500 + number)
    source = read(root)
    assert labels(source) == GIVEN
    assert ignored(source) == {"unlabelled": 3}
    assert source.guessed == (
        "seg_pred/ contains 3 pictures without class folders: unlabelled, not used; to use them, put them into class "
        "folders",
    )


def test_folders_next_to_splits_are_reported(tmp_path):
    root = split_folders(tmp_path / "p", "train", "test", "extra")
    source = read(root)
    assert labels(source) == GIVEN
    assert ignored(source) == {"not in a split's folder": 4}
    assert source.guessed == (
        "test/, train/ are splits, so the content of extra/ is not used; to use it, move it into class folders of one "
        "of them",
    )


def test_splits_within_each_class(tmp_path):
    root = tmp_path / "p"
    for place, label in enumerate(("ok", "broken")):
        for number, (split, count) in enumerate((("train", 3), ("Test", 2), ("raw", 1))):
            for index in range(count):
                save(root / label / split / f"{index}.png", 100 * place + 10 * number + index)
    source = read(root)
    assert labels(source) == {("broken", "test"): 2, ("broken", "train"): 3, ("ok", "test"): 2, ("ok", "train"): 3}
    assert (source.kind, source.split_names) == ("split folders", {"Test": "test", "train": "train"})
    assert ignored(source) == {"not in a split's folder": 2}


def test_splits_within_some_classes_only(tmp_path):
    root = folder(tmp_path / "p", {"broken": 2})
    split_folders(root, "ok", classes="")
    for number, split in enumerate(("train", "test")):
        save(root / "ok" / split / "1.png", number + 50)
    error = refused(root)
    assert str(error) == (
        f"{root}: ok/ contains test/, train/, but broken/ does not\n"
        "  expected: splits in every class folder, or in none\n"
        "  fix:      add broken/test/, broken/train/; or draw the split from all pictures of the classes broken, ok: "
        "--set labels_from='^([^/]+)/' (in a study file: labels_from: '^([^/]+)/')"
    )
    source = read(root, labels_from=settings_in(error)[0])
    assert labels(source) == {("broken", ""): 2, ("ok", ""): 2}


def test_folders_that_repeat_are_refused_and_every_reading_works(tmp_path):
    root = tmp_path / "p"
    for number, outer in enumerate(("north", "south")):
        for place, inner in enumerate(("ill", "well")):
            save(root / outer / inner / "1.png", 10 * number + place)
    error = refused(root)
    assert str(error) == (
        f"{root}: each of north/, south/ contains folders ill, well, so either could be the classes\n"
        f"  expected: {FOLDERS}\n"
        "  fix:      if ill, well are the classes: --set labels_from='^[^/]+/([^/]+)/' "
        "(in a study file: labels_from: '^[^/]+/([^/]+)/'), "
        f"or give only one folder: {root / 'north'}; if north, south are the classes: "
        "--set labels_from='^([^/]+)/' (in a study file: labels_from: '^([^/]+)/'); if they are splits, rename them: "
        f"mv {root / 'north'} {root / 'train'} && mv {root / 'south'} {root / 'test'}"
    )
    inner, outer = settings_in(error)
    assert labels(read(root, labels_from=inner)) == {("ill", ""): 2, ("well", ""): 2}
    assert labels(read(root, labels_from=outer)) == {("north", ""): 2, ("south", ""): 2}
    assert labels(read(root / "north")) == {("ill", ""): 1, ("well", ""): 1}


def test_many_outer_folders_of_which_some_lack_a_class(tmp_path):
    root = tmp_path / "p"
    for number in range(6):
        for place, inner in enumerate(("benign", "malignant")[number % 2 :]):
            save(root / f"patient{number}" / inner / "1.png", 10 * number + place)
    inner, _ = settings_in(refused(root))
    assert labels(read(root, labels_from=inner)) == {("benign", ""): 3, ("malignant", ""): 6}


def test_repeating_folders_within_splits(tmp_path):
    root = tmp_path / "p"
    for number, path in enumerate(f"{s}/{o}/{i}" for s in ("train", "test") for o in "AB" for i in "xy"):
        save(root / path / "1.png", number)
    inner, outer = settings_in(refused(root))
    assert labels(read(root, labels_from=inner)) == {
        ("x", "test"): 2, ("x", "train"): 2, ("y", "test"): 2, ("y", "train"): 2,
    }  # fmt: skip
    assert {label for label, _ in labels(read(root, labels_from=outer))} == {"A", "B"}


def test_one_folder_name_in_every_class_is_no_class(tmp_path):
    root = tmp_path / "p"
    for number, label in enumerate("abc"):
        save(root / label / "images" / "1.png", number)
    assert read(root).classes == ("a", "b", "c")


def photograph(path: Path, seed: int, suffix: str = "jpg") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path.with_suffix(f".{suffix}"))


def mask(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 2, (8, 8), dtype=np.uint8) * 255
    Image.fromarray(pixels).save(path.with_suffix(".png"))


@pytest.mark.parametrize(
    ("photos", "masks"), [("images", "segmentations"), ("Images", "ground_truth"), ("rgb", "relief"), ("A", "B")]
)
def test_photographs_beside_their_masks(tmp_path, photos, masks):
    root = tmp_path / "p"
    for number in range(6):
        photograph(root / photos / "ab"[number % 2] / str(number), number)
        mask(root / masks / "ab"[number % 2] / str(number), number)
    source = read(root)
    assert labels(source) == {("a", ""): 3, ("b", ""): 3}
    assert {item.path.split("/")[0] for item in source.items} == {photos}
    assert ignored(source) == {"masks or annotations, no photographs": 6}
    assert source.guessed == (
        f"{masks}/ (6 pictures) seems to contain masks or annotations of {photos}/ and is not used; to use it "
        f"instead, give {root / masks}",
        f"all labelled pictures are in {photos}/, so the folders in it are read and not those around it; if those are "
        "the classes: --set labels_from='^([^/]+)/' (in a study file: labels_from: '^([^/]+)/')",
    )
    assert labels(read(root / masks)) == {("a", ""): 3, ("b", ""): 3}


def test_versions_of_the_same_photographs_are_refused(tmp_path):
    root = tmp_path / "p"
    for number in range(6):
        for version in range(2):
            photograph(root / ("color", "filtered")[version] / "ab"[number % 2] / str(number), 10 * version + number)
    error = refused(root)
    assert error.given == (f"{root}: each of color/, filtered/ contains folders a, b, so either could be the classes")
    assert f"or give only one folder: {root / 'color'}" in error.fix


def test_a_container_beside_annotations_without_suffix(tmp_path):
    root = tmp_path / "p"
    for label in ("n01-Pug", "n02-Chow"):
        save(root / "Images" / label / "1.png", ord(label[2]))
        (root / "Annotation" / label).mkdir(parents=True)
        (root / "Annotation" / label / "1").write_text("<annotation/>")
    source = read(root)
    assert source.classes == ("n01-Pug", "n02-Chow")
    assert ignored(source) == {"no picture: no suffix": 2}
    assert source.guessed[0] == (
        "Annotation/ contains files but no pictures, so it is not a class; put pictures into it to make it one"
    )


def test_a_folder_that_wraps_everything(tmp_path):
    folder(tmp_path / "p/photos/photos", {"cat": 2, "dog": 2})
    (tmp_path / "p/README.md").write_text("...")
    source = read(tmp_path / "p")
    assert labels(source) == {("cat", ""): 2, ("dog", ""): 2}
    assert source.ignored == (Ignored("README.md", "no picture: .md"),)
    assert source.guessed == (
        "all labelled pictures are in photos/photos/, so the folders in it are read and not those around it",
    )
    split_folders(tmp_path / "q/archive/data", "train", "test")
    assert labels(read(tmp_path / "q")) == GIVEN


def test_folders_around_the_classes_are_offered_where_there_are_several(tmp_path):
    root = tmp_path / "p"
    folder(root / "archive/birds/images", {"a": 2, "b": 2})
    folder(root / "archive/birds/masks", {"a": 2, "b": 2})
    (told,) = [sentence for sentence in read(root).guessed if sentence.startswith("all labelled")]
    assert told == (
        "all labelled pictures are in archive/birds/images/, so the folders in it are read and not those around it; if "
        "those are the classes: --set labels_from='^[^/]+/[^/]+/([^/]+)/' (in a study file: labels_from: "
        "'^[^/]+/[^/]+/([^/]+)/')"
    )
    assert read(root, labels_from="^[^/]+/[^/]+/([^/]+)/").classes == ("images", "masks")


def test_the_classes_once_more(tmp_path):
    root = folder(tmp_path / "p", {"cat": 2, "dog": 2})
    folder(root / "dataset", {"cat": 2, "dog": 2})
    source = read(root)
    assert labels(source) == {("cat", ""): 2, ("dog", ""): 2}
    assert ignored(source) == {"the classes once more": 4}
    assert source.guessed == (
        "dataset/ (4 pictures) contains cat, dog again and is not used; to use it instead of the folders next to it, "
        f"give {root / 'dataset'}",
    )
    assert labels(read(root / "dataset")) == labels(source)


def test_classes_beside_the_same_in_splits(tmp_path):
    root = split_folders(folder(tmp_path / "p", {"a": 1, "b": 1}), "train", "test")
    source = read(root)
    assert labels(source) == GIVEN
    assert ignored(source) == {"not in a split's folder": 2}
    again = split_folders(folder(tmp_path / "q", {"a": 1, "b": 1}), "split/train", "split/test")
    assert ignored(read(again)) == {"the classes once more": 8}


def test_a_flat_test_folder_is_unlabelled(tmp_path):
    root = split_folders(tmp_path / "p", "train")
    for number in range(3):
        save(root / "test1" / f"{number}.png", 900 + number)
    source = read(root)
    assert labels(source) == {("a", ""): 2, ("b", ""): 2}
    assert (source.kind, source.split_names, ignored(source)) == ("class folders", {}, {"unlabelled": 3})
    assert source.guessed[0] == (
        "test1/ contains 3 pictures without class folders: unlabelled, not used; to use them, put them into class "
        "folders"
    )


def test_a_flat_test_folder_beside_classes(tmp_path):
    root = folder(tmp_path / "p", {"cat": 2, "dog": 2, "test": 1})
    source = read(root)
    assert (source.classes, ignored(source)) == (("cat", "dog"), {"unlabelled": 1})
    assert source.guessed == (
        "test/ contains 1 picture without class folders: unlabelled, not used; if test is a class: "
        "--set labels_from='^([^/]+)/' (in a study file: labels_from: '^([^/]+)/')",
    )
    assert read(root, labels_from="^([^/]+)/").classes == ("cat", "dog", "test")


@pytest.mark.parametrize(
    ("paths", "said", "classes"),
    [
        (["train/cat.0.jpg", "train/cat.1.jpg", "train/dog.0.jpg", "train/dog.1.jpg"], "begin with", ("cat", "dog")),
        (
            ["Great_Dane_1.jpg", "Great_Dane_2.jpg", "pug_1.jpg", "pug_22.jpg"],
            "begin with",
            ("Great_Dane", "pug"),
        ),
        (["all/001_ok.jpg", "all/002_ok.jpg", "all/003_bad.jpg", "all/4_bad.jpg"], "end in", ("bad", "ok")),
    ],
)
def test_names_that_say_the_label(tmp_path, paths, said, classes):
    for number, path in enumerate(paths):
        save(tmp_path / "p" / path, number)
    error = refused(tmp_path / "p")
    assert f"if the classes are what the file names {said}, {classes[0]} (2), {classes[1]} (2)" in error.fix
    (way,) = settings_in(error)
    source = read(tmp_path / "p", labels_from=way)
    assert (source.classes, source.kind, len(source.items)) == (classes, "labels in paths", 4)


def test_names_that_say_the_label_beside_unlabelled_ones(tmp_path):
    for number, path in enumerate(["train/cat.0.png", "train/dog.0.png", "train/cat.1.png", "train/dog.1.png"]):
        save(tmp_path / "p" / path, number)
    save(tmp_path / "p/test1/1.png", 9)
    error = refused(tmp_path / "p")
    assert str(error) == (
        f"{tmp_path / 'p'}: test1/, train/ contain pictures but no class folders\n"
        f"  expected: {FOLDERS}\n"
        "  fix:      if the classes are what the file names begin with, cat (2), dog (2): --set labels_from=name "
        "(in a study file: labels_from: name); else put the pictures into one folder per class, or list their paths "
        "and labels in a .csv file"
    )
    source = read(tmp_path / "p", labels_from="name")
    assert labels(source) == {("cat", ""): 2, ("dog", ""): 2}
    assert ignored(source) == {"unlabelled": 1}
    assert source.guessed == (
        "no label is found in the 1 paths in test1/, so they count as unlabelled; to use them, widen the expression in "
        "labels_from",
    )


def test_names_that_say_nothing(tmp_path):
    for number in range(4):
        save(tmp_path / "p/all" / f"IMG_{number}.png", number)
    assert str(refused(tmp_path / "p")) == (
        f"{tmp_path / 'p'} holds one class only: all\n"
        "  expected: at least two class folders\n"
        "  fix:      add a folder for each class"
    )


def test_labels_from_with_split_folders(tmp_path):
    for number, path in enumerate(["train/x/cat1.png", "train/y/dog1.png", "val/cat2.png", "val/dog2.png"]):
        save(tmp_path / "p" / path, number)
    source = read(tmp_path / "p", labels_from="(cat|dog)")
    assert labels(source) == {("cat", "train"): 1, ("cat", "validation"): 1, ("dog", "train"): 1,
                              ("dog", "validation"): 1}  # fmt: skip
    assert source.split_names == {"train": "train", "val": "validation"}


@pytest.mark.parametrize(
    ("expression", "given", "expected"),
    [
        ("(cat", "labels_from: (cat: missing ), unterminated subpattern at position 0",
         "the word name, or a regular expression such as (cat|dog)"),
        ("cat", "labels_from: cat: no label is found in 1 of 2 paths, first all/dog1.png",
         "the word name, or an expression that matches all paths in a folder or none"),
        ("mouse", "labels_from: mouse: no label is found in 2 of 2 paths, first all/cat1.png",
         "the word name, or an expression that matches all paths in a folder or none"),
        ("^(all)", "labels_from: ^(all) finds one class only: all", "at least two classes"),
    ],
)  # fmt: skip
def test_labels_from_that_does_not_fit(tmp_path, expression, given, expected):
    for number, name in enumerate(("cat1.png", "dog1.png")):
        save(tmp_path / "p/all" / name, number)
    error = refused(tmp_path / "p", labels_from=expression)
    assert (error.given, error.expected) == (given, expected)
    assert error.fix.endswith("--set labels_from=name")


def test_labels_from_with_data_that_says_its_labels(tmp_path):
    (tmp_path / "t.csv").write_text("path,label\n1.png,a\n2.png,b\n")
    with pytest.raises(UserError) as caught:
        open_source("t.csv", {}, tmp_path, labels_from="name")
    assert str(caught.value) == (
        "labels_from: name: data: t.csv gives the labels itself\n"
        "  expected: labels_from only with a folder of pictures\n"
        "  fix:      remove labels_from from the study"
    )


def test_further_test_sets_by_their_names(tmp_path):
    for number, path in enumerate(["p/cat1.png", "p/dog1.png", "q/cat2.png"]):
        save(tmp_path / path, number)
    source = open_source("p", {"site": "q"}, tmp_path, labels_from="name")
    assert [(item.source, item.path, item.label) for item in source.items][-1] == ("site", "cat2.png", "cat")


def test_a_hidden_class(tmp_path):
    root = folder(tmp_path / "p", {".NET": 3, "C++": 2, "Java": 2})
    source = read(root)
    assert source.classes == ("C++", "Java")
    assert source.ignored == (Ignored(".NET/", "hidden folder with pictures"),)
    command = f"mv {root / '.NET'} {root / 'dot-NET'}"
    assert source.guessed == (
        f".NET/ is hidden, so its 3 pictures are not used; rename it to make it a class: {command}",
    )
    root.joinpath(".NET").rename(shlex.split(command)[2])
    assert read(root).classes == ("C++", "Java", "dot-NET")


def test_hidden_classes_alone(tmp_path):
    root = folder(tmp_path / "p", {".a": 1, ".b": 1})
    assert str(refused(root)) == (
        f"{root} holds no pictures: 2 hidden\n"
        f"  expected: {FOLDERS}\n"
        f"  fix:      rename hidden folders: mv {root / '.a'} {root / 'dot-a'}"
    )


LITTER = (
    "@eaDir/x.jpg", "lost+found/x.jpg", "$RECYCLE.BIN/x.jpg", "System Volume Information/x", ".Trashes/x.jpg",
    ".thumbnails/x.png", "__MACOSX/._x.jpg", ".ipynb_checkpoints/x.png", "Thumbs.db", "desktop.ini", ".DS_Store",
    "._000.png", "#recycle/x.jpg", ".Trash-1000/x.jpg",
)  # fmt: skip


@pytest.mark.parametrize("place", ["", "train/", "train/a/", "train/a/deep/"])
def test_system_files_at_any_depth(tmp_path, place):
    root = split_folders(tmp_path / "p", "train", "test")
    save(root / "train/a/deep/9.png", 77)
    for path in LITTER:
        save(root / place / path)
    source = read(root)
    assert source.classes == ("a", "b")
    assert ignored(source) == {"system files": len(LITTER)}
    assert source.guessed == ()


def test_what_is_no_picture_is_ignored_and_what_may_be_one_is_kept(tmp_path):
    root = folder(tmp_path / "p", {"a": 1, "b": 1})
    for name in ("1.xml", "1.jpg.metadata.json", "1.AAE", "1.mov", "labels", "notes. of mine"):
        (root / "a" / name).write_text("BMW is a text")
    for number, name in enumerate(("odd.dat", "no_suffix", "photo.JPG_original")):
        save(root / "a" / name, 60 + number)
    (root / "a/cut.png").write_text("no picture by its content")
    (root / "b/old").write_bytes(b"\0" * 128 + b"DICM")
    source = read(root)
    assert {item.path for item in source.items} == {
        "a/000.png", "a/odd.dat", "a/no_suffix", "a/photo.JPG_original", "a/cut.png", "b/000.png", "b/old",
    }  # fmt: skip
    assert ignored(source) == {
        "no picture: .aae": 1, "no picture: .json": 1, "no picture: .mov": 1, "no picture: .xml": 1,
        "no picture: no suffix": 2,
    }  # fmt: skip


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "JPEG2000", "AVIF"])
def test_pictures_are_known_by_their_content(tmp_path, form):
    root = folder(tmp_path / "p", {"a": 1, "b": 1})
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(root / "a/one", format=form)
    assert "a/one" in {item.path for item in read(root).items}


def test_folders_without_pictures_are_no_classes(tmp_path):
    root = folder(tmp_path / "p", {"a": 1, "b": 1, "empty": 0})
    (root / "meta").mkdir()
    (root / "meta/list.txt").write_text("a/000.png")
    source = read(root)
    assert source.classes == ("a", "b", "empty")
    assert source.guessed == (
        "meta/ contains files but no pictures, so it is not a class; put pictures into it to make it one",
    )


def links(root: Path, store: Path, labels: str = "ab") -> None:
    for number, label in enumerate(labels):
        target = save(store / f"{label}.png", number)
        (root / label).mkdir(parents=True, exist_ok=True)
        (root / label / "1.png").symlink_to(target)


FOLLOW = "--set check.follow_symlinks=true (in a study file: check: {follow_symlinks: true})"


def test_pictures_that_are_all_links_into_one_store(tmp_path):
    links(tmp_path / "p", tmp_path / "blobs")
    assert str(refused(tmp_path / "p")) == (
        f"{tmp_path / 'p'} holds no pictures but links (first a/1.png -> {tmp_path / 'blobs/a.png'})\n"
        "  expected: pictures in the folder, or the setting to follow links out of it\n"
        f"  fix:      all lead into {tmp_path / 'blobs'}: follow them with {FOLLOW}, or copy the pictures into the "
        "folder"
    )
    assert read(tmp_path / "p", follow_symlinks=True).classes == ("a", "b")


def test_a_store_beside_the_links_into_it(tmp_path):
    links(tmp_path / "p/snapshots/main", tmp_path / "p/blobs")
    source = read(tmp_path / "p")
    assert source.classes == ("a", "b")
    assert ignored(source) == {"what links lead to": 2}
    assert source.guessed[0] == (
        "blobs/ (2 pictures) contains the targets of links in snapshots/ and is not used; to use it instead, give "
        f"{tmp_path / 'p/blobs'}"
    )
    links(tmp_path / "q", tmp_path / "q/all")
    assert read(tmp_path / "q").classes == ("a", "b")


def test_a_class_that_another_links_to_stays_one(tmp_path):
    root = folder(tmp_path / "p", {"cat": 2, "dog": 2})
    (root / "best").mkdir()
    for number, picture in enumerate(sorted((root / "cat").iterdir())):
        (root / f"best/{number}.png").symlink_to(picture)
    assert read(root).classes == ("best", "cat", "dog")


def test_one_class_that_is_all_links(tmp_path):
    root = folder(tmp_path / "p", {"a": 1, "c": 1})
    links(root, tmp_path / "blobs", "b")
    assert refused(root).given == (
        f"{root}: all pictures of b (1) are links out of the folder (first b/1.png -> {tmp_path / 'blobs/b.png'})"
    )
    assert read(root, follow_symlinks=True).classes == ("a", "b", "c")


def test_some_links_are_reported(tmp_path):
    root = folder(tmp_path / "p", {"a": 1, "b": 1})
    links(root, tmp_path / "blobs")
    assert read(root).guessed == (
        f"2 links are not followed (first a/1.png -> {tmp_path / 'blobs/a.png'}); to follow: {FOLLOW}",
    )


def test_pointers_of_git_lfs_without_a_suffix(tmp_path):
    root = tmp_path / "p"
    (root / "a").mkdir(parents=True)
    (root / "a/1").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    assert str(refused(root)) == (
        f"{root} holds no pictures: 1 Git LFS pointer\n"
        f"  expected: {FOLDERS}\n"
        f"  fix:      download the pictures: git -C {root} lfs pull"
    )


def food101(root: Path) -> Path:
    for label in ("apple_pie", "pizza"):
        for number in range(3):
            save(root / "images" / label / f"{number}.jpg", ord(label[0]) + number)
    (root / "meta").mkdir()
    (root / "meta/train.txt").write_text("apple_pie/0\npizza/0\n")
    (root / "meta/test.txt").write_text("apple_pie/1\npizza/1\n")
    (root / "README.txt").write_text("...")
    return root


@pytest.mark.parametrize("place", [".", "food-101"])
def test_food101_as_it_is_unpacked(tmp_path, place):
    food101(tmp_path / "p" / place)
    source = read(tmp_path / "p")
    assert (source.kind, source.classes) == ("Food-101", ("apple_pie", "pizza"))
    assert labels(source) == {
        ("apple_pie", "test"): 1, ("apple_pie", "train"): 1, ("pizza", "test"): 1, ("pizza", "train"): 1,
    }  # fmt: skip
    assert source.split_names == {"meta/train.txt": "train", "meta/test.txt": "test"}
    assert ignored(source) == {"in no list": 2}


def test_names_with_spaces_in_the_lists_of_food101(tmp_path):
    root = food101(tmp_path / "p")
    (root / "images/apple_pie").rename(root / "images/apple pie")
    (root / "meta/train.txt").write_text("apple pie/0\r\npizza/0\r\n")
    (root / "meta/test.txt").write_text("apple pie/1\npizza/1\n\n")
    assert [item.path for item in read(root).items] == [
        "images/apple pie/0.jpg", "images/apple pie/1.jpg", "images/pizza/0.jpg", "images/pizza/1.jpg",
    ]  # fmt: skip


def test_images_beside_other_lists_are_class_folders(tmp_path):
    root = food101(tmp_path / "p")
    (root / "meta/train.txt").write_text("1 0\n2 1\n")
    assert read(root).kind == "class folders"


def test_folders_within_one_class_are_reported(tmp_path):
    root = folder(tmp_path / "p", {"cat": 2, "dog/big": 1, "dog/small": 1})
    source = read(root)
    assert labels(source) == {("cat", ""): 2, ("dog", ""): 2}
    assert source.guessed == (
        f"the folders in dog/ (big, small) belong to the class dog; if they are the classes, give {root / 'dog'}",
    )


def test_a_table_that_lies_deeper_is_named(tmp_path):
    folder(tmp_path / "p/pics/raw", {".": 2})
    table = tmp_path / "p/lists/my labels.csv"
    table.parent.mkdir()
    table.write_text("name,label\n")
    assert refused(tmp_path / "p").fix == (
        f"add a folder for each class; or if a table lists the pictures: unfreeze check '{table}'"
    )


def test_the_command_for_a_table_of_the_folder_is_quoted(tmp_path):
    root = folder(tmp_path / "my photos", {"images": 2})
    names = sorted(path.name for path in (root / "images").iterdir())
    rows = "".join(f"images/{name},{label}\n" for name, label in zip(names, "ab", strict=True))
    (root / "labels.csv").write_text(f"path,label\n{rows}")
    assert refused(root).fix == f"give the table: unfreeze check '{root / 'labels.csv'}'"


def test_detection_data_without_class_folders(tmp_path):
    for number, split in enumerate(("train", "valid")):
        for index in range(2):
            save(tmp_path / "p" / split / "images" / f"{index}.png", 10 * number + index)
            (tmp_path / "p" / split / "labels").mkdir(exist_ok=True)
            (tmp_path / "p" / split / "labels" / f"{index}.txt").write_text("0 0.5 0.5 1 1")
    assert refused(tmp_path / "p").given == f"{tmp_path / 'p'}: train/, valid/ contain pictures but no class folders"


def test_labelled_training_images_beside_unlabelled_others(tmp_path):
    """As in Tiny ImageNet: train/CLASS/images/, but val/images/ and test/images/."""
    root = tmp_path / "p"
    for number, path in enumerate(("train/n01/images/1", "train/n02/images/1", "val/images/1", "test/images/1")):
        save(root / f"{path}.png", number)
    source = read(root)
    assert labels(source) == {("n01", ""): 1, ("n02", ""): 1}
    assert ignored(source) == {"unlabelled": 2}
