import os
import shutil
import sys
import time
from pathlib import Path

import pytest

from tests.support.pictures import folder, save
from unfreeze.data.sources import open_source
from unfreeze.data.sources.source import Ignored, Item
from unfreeze.errors import UserError

links = pytest.mark.skipif(sys.platform == "win32", reason="Windows lets only administrators make links")


def message(data: str, base: Path, tests: dict[str, str] | None = None) -> str:
    with pytest.raises(UserError) as caught:
        open_source(data, tests or {}, base)
    return str(caught.value)


def test_a_folder_of_class_folders(tmp_path):
    folder(tmp_path / "photos", {"b": 1, "a": 2})
    source = open_source("photos", {}, tmp_path)
    assert source.roots == {"": (tmp_path / "photos").resolve()}
    assert source.classes == ("a", "b")
    assert source.ignored == ()
    assert source.items == (
        Item("a/000.png", "a", "", ""),
        Item("a/001.png", "a", "", ""),
        Item("b/000.png", "b", "", ""),
    )
    assert open_source(str(tmp_path / "photos"), {}, Path("elsewhere")) == source


@pytest.mark.parametrize("name", ["val", "valid", "validation", "Val"])
def test_a_folder_of_split_folders(tmp_path, name):
    for part in ("train", name, "test"):
        folder(tmp_path / part, {"a": 1, "b": 1})
    folder(tmp_path / "unlabelled", {"x": 1})
    for path in ("c/lost.png", "train/lost.png", "lost.png"):
        save(tmp_path / path)
    source = open_source(str(tmp_path), {}, tmp_path)
    assert source.classes == ("a", "b")
    assert {(item.path, item.label, item.given_split) for item in source.items} == {
        (f"{part}/{label}/000.png", label, split)
        for part, split in (("train", "train"), (name, "validation"), ("test", "test"))
        for label in ("a", "b")
    }
    assert source.ignored == (
        Ignored("c/lost.png", "not in a split's folder"),
        Ignored("lost.png", "not in a class folder"),
        Ignored("train/lost.png", "not in a class folder"),
        Ignored("unlabelled/x/000.png", "not in a split's folder"),
    )


@pytest.mark.parametrize("lacking", ["train", "val", "test"])
def test_a_class_that_a_split_lacks_shifts_no_label(tmp_path, lacking):
    for part in ("train", "val", "test"):
        folder(tmp_path / part, {label: 2 for label in "abc" if (part, label) != (lacking, "b")})
    source = open_source(str(tmp_path), {}, tmp_path)
    assert source.classes == ("a", "b", "c")
    assert len(source.items) == 16
    assert all(item.label == item.path.split("/")[1] for item in source.items)


def test_training_and_testing_are_splits_too(tmp_path):
    for part in ("Training", "Testing"):
        folder(tmp_path / part, {"a": 2, "b": 2})
    source = open_source(str(tmp_path), {}, tmp_path)
    assert source.classes == ("a", "b")
    assert {(item.path.split("/")[0], item.given_split) for item in source.items} == {
        ("Training", "train"), ("Testing", "test"),
    }  # fmt: skip


def test_train_and_test_may_be_classes(tmp_path):
    folder(tmp_path, {"bus": 1, "test": 1, "train": 1})
    source = open_source(str(tmp_path), {}, tmp_path)
    assert source.classes == ("bus", "test", "train")
    assert {item.given_split for item in source.items} == {""}


@pytest.mark.parametrize(
    ("parts", "given", "lacking"),
    [
        (("val", "test"), "test/ and val/", "train/"),
        (("Test", "other"), "Test/", "train/"),
        (("train", "more"), "train/", "val/ or test/"),
    ],
)
def test_half_a_split_is_not_taken_for_classes(tmp_path, parts, given, lacking):
    for part in parts:
        folder(tmp_path / part, {"a": 1, "b": 1})
    assert message(str(tmp_path), tmp_path) == (
        f"{tmp_path} has {given} with folders, but no {lacking}\n"
        f"  expected: {FOLDERS}\n"
        f"  fix:      add {lacking}; if the folders in them are the classes, to draw new splits from all: "
        "--set labels_from='^[^/]+/([^/]+)/' (in a study file: labels_from: '^[^/]+/([^/]+)/'); if they are classes "
        "themselves: --set labels_from='^([^/]+)/' (in a study file: labels_from: '^([^/]+)/')"
    )


def test_a_class_of_that_name_may_have_folders_beside_its_files(tmp_path):
    folder(tmp_path, {"bus": 1, "test": 1})
    save(tmp_path / "test/more/1.png")
    assert open_source(str(tmp_path), {}, tmp_path).classes == ("bus", "test")


def test_nested_folders_belong_to_their_class_and_an_empty_class_is_listed(tmp_path):
    for path in ("a/x/1.png", "b/x/1.png", "b/y/z/1.png"):
        save(tmp_path / path)
    (tmp_path / "empty").mkdir()
    source = open_source(str(tmp_path), {}, tmp_path)
    assert {item.path: item.label for item in source.items} == {"a/x/1.png": "a", "b/x/1.png": "b", "b/y/z/1.png": "b"}
    assert source.classes == ("a", "b", "empty")


def test_what_is_hidden_or_lies_in_the_root_is_ignored_and_listed(tmp_path):
    (tmp_path / ".git").mkdir()
    folder(tmp_path, {"a": 1, "b": 1, "__MACOSX": 1, ".ipynb_checkpoints": 1})
    for path in ("a/._000.png", "a/Thumbs.db", "a/.DS_Store", "a/desktop.ini", "a/.hidden/1.png", "lost.png"):
        save(tmp_path / path)
    source = open_source(str(tmp_path), {}, tmp_path)
    assert source.classes == ("a", "b")
    assert len(source.items) == 2
    assert {(entry.path, entry.reason) for entry in source.ignored} == {
        (".git/", "hidden"),
        ("__MACOSX/", "system files"),
        (".ipynb_checkpoints/", "system files"),
        ("a/._000.png", "system files"),
        ("a/Thumbs.db", "system files"),
        ("a/.DS_Store", "system files"),
        ("a/desktop.ini", "system files"),
        ("a/.hidden/", "hidden"),
        ("lost.png", "not in a class folder"),
    }


@links
def test_links_stay_within_the_folder_and_loops_end(tmp_path):
    root = folder(tmp_path / "photos", {"a": 1, "b": 1})
    outside = save(tmp_path / "outside.png")
    (root / "a/inside.png").symlink_to(root / "b/000.png")
    (root / "a/out.png").symlink_to(outside)
    (root / "a/broken.png").symlink_to(root / "gone.png")
    (root / "a/self.png").symlink_to(root / "a/self.png")
    (root / "a/loop").symlink_to(root, target_is_directory=True)
    (root / "c").symlink_to(tmp_path, target_is_directory=True)
    (root / "d").symlink_to(root / "b", target_is_directory=True)
    (tmp_path / "photos2").mkdir()  # its name begins as the root's does
    (root / "a/neighbour.png").symlink_to(save(tmp_path / "photos2/1.png"))
    os.mkfifo(root / "a/pipe.png")
    begun = time.perf_counter()
    source = open_source("photos", {}, tmp_path)
    assert time.perf_counter() - begun < 10  # a link into the root is not followed for ever
    assert [item.path for item in source.items] == ["a/000.png", "a/inside.png", "b/000.png"]
    assert source.classes == ("a", "b")
    assert {entry.path: entry.reason for entry in source.ignored} == {
        "a/out.png": "link out of the folder",
        "a/neighbour.png": "link out of the folder",
        "a/broken.png": "broken link",
        "a/self.png": "broken link",
        "a/loop/": "link to a folder",
        "a/pipe.png": "not a regular file",
        "c/": "link to a folder",
        "d/": "link to a folder",
    }


@links
def test_links_are_followed_where_asked_for_and_loops_still_end(tmp_path):
    root = folder(tmp_path / "photos", {"a": 1, "b": 1})
    folder(tmp_path / "elsewhere", {"deep": 1, "far": 1})
    (root / "a/out.png").symlink_to(save(tmp_path / "outside.png"))
    (root / "a/broken.png").symlink_to(root / "gone.png")
    (root / "a/loop").symlink_to(root, target_is_directory=True)
    (root / "c").symlink_to(tmp_path / "elsewhere/far", target_is_directory=True)
    (root / "a/more").symlink_to(tmp_path / "elsewhere/deep", target_is_directory=True)
    (tmp_path / "elsewhere/far/back").symlink_to(root / "c", target_is_directory=True)
    os.mkfifo(root / "a/pipe.png")
    source = open_source("photos", {"more": "photos"}, tmp_path, follow_symlinks=True)
    main = [item.path for item in source.items if item.source == ""]
    assert main == ["a/000.png", "a/more/000.png", "a/out.png", "b/000.png", "c/000.png"]
    assert [item.path for item in source.items if item.source == "more"] == main
    assert source.classes == ("a", "b", "c")
    assert {entry.path: entry.reason for entry in source.ignored} == {
        "a/broken.png": "broken link",
        "a/loop/": "link to a folder around it",
        "a/pipe.png": "not a regular file",
        "c/back/": "link to a folder around it",
    }


@links
def test_the_data_folder_may_itself_be_a_link(tmp_path):
    folder(tmp_path / "photos", {"a": 1, "b": 1})
    (tmp_path / "here").symlink_to(tmp_path / "photos", target_is_directory=True)
    assert len(open_source("here", {}, tmp_path).items) == 2


def test_a_folder_that_cannot_be_read_is_listed(tmp_path, monkeypatch):
    folder(tmp_path, {"a": 1, "b": 1})
    (tmp_path / "a/locked").mkdir()
    scandir = os.scandir

    def refusing(path):
        if os.fspath(path).rstrip("/").endswith("locked"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    assert open_source(str(tmp_path), {}, tmp_path).ignored == (Ignored("a/locked/", "folder cannot be read"),)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux takes any bytes as a name")
def test_odd_names_are_kept(tmp_path):
    folder(tmp_path, {"a": 1, "b": 1})
    names = [
        b"caf\xe9.png",
        "café\U0001f600\n.png".encode(),
        b"-rf.png",
        b"CON",
        b"dot.",
        b"x" * 251 + b".png",
        b"a\\b",
    ]
    for name in names:
        save(tmp_path / "a" / os.fsdecode(name))
    found = {os.fsencode(item.path) for item in open_source(str(tmp_path), {}, tmp_path).items}
    assert found == {b"a/000.png", b"b/000.png"} | {b"a/" + name for name in names}


def test_nothing_is_written(tmp_path):
    folder(tmp_path, {"a": 1, "b": 1})
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    open_source(str(tmp_path), {}, tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_further_test_sets(tmp_path):
    folder(tmp_path / "main", {"a": 1, "b": 1})
    folder(tmp_path / "site", {"b": 2})
    save(tmp_path / "site/lost.png")
    source = open_source("main", {"site_b": "site"}, tmp_path)
    assert source.roots == {"": (tmp_path / "main").resolve(), "site_b": (tmp_path / "site").resolve()}
    assert source.classes == ("a", "b")
    assert source.items[2:] == (Item("b/000.png", "b", "", "site_b"), Item("b/001.png", "b", "", "site_b"))
    assert source.ignored == (Ignored("lost.png", "not in a class folder", "site_b"),)


def write_food101(cache: Path) -> None:
    for label in ("apple_pie", "waffles"):
        for number in range(2):
            save(cache / f"food-101/images/{label}/{number}.jpg")
    meta = cache / "food-101/meta"
    meta.mkdir()
    (meta / "train.txt").write_text("apple_pie/0\nwaffles/0\n", encoding="utf-8")
    (meta / "test.txt").write_text("apple_pie/1\nwaffles/1\n", encoding="utf-8")


def test_food101_has_its_official_split(tmp_path, monkeypatch):
    monkeypatch.setenv("UNFREEZE_CACHE", str(tmp_path))
    write_food101(tmp_path)
    source = open_source("food101", {}, tmp_path)
    assert source.classes == ("apple_pie", "waffles")
    assert [(item.path, item.given_split) for item in source.items] == [
        ("images/apple_pie/0.jpg", "train"),
        ("images/apple_pie/1.jpg", "test"),
        ("images/waffles/0.jpg", "train"),
        ("images/waffles/1.jpg", "test"),
    ]
    assert all((source.roots[""] / item.path).is_file() for item in source.items)


def test_food101_that_is_not_there_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("UNFREEZE_CACHE", str(tmp_path))
    root = tmp_path / "food-101"
    assert message("food101", tmp_path) == (
        f"data: food101: Food-101 is not in {tmp_path}\n"
        f"  expected: {root} with images/, meta/train.txt and meta/test.txt\n"
        "  fix:      download it once (5 GB): "
        f'python -c "from torchvision.datasets import Food101; Food101({str(tmp_path)!r}, download=True)"; '
        "or set UNFREEZE_CACHE to the folder that holds food-101"
    )


SUPPORTED = (
    "a folder of class folders, a folder with train/, val/ and test/ of class folders, a .csv or .parquet manifest, "
    "hf:owner/name, or food101"
)


FOLDERS = "a folder of class folders, or a folder with train/, val/ and test/ of class folders"


def test_a_missing_folder(tmp_path):
    assert message("photos", tmp_path) == (
        f"data: photos: the folder {tmp_path / 'photos'} does not exist\n"
        f"  expected: {SUPPORTED}\n"
        "  fix:      correct the path"
    )
    (tmp_path / "photo").mkdir()
    assert message("photos", tmp_path).endswith(f"\n  fix:      correct the path; did you mean {tmp_path / 'photo'}?")


def test_a_missing_further_test_set(tmp_path):
    folder(tmp_path / "main", {"a": 1, "b": 1})
    assert message("main", tmp_path, {"site": "gone"}) == (
        f"tests.site: gone: the folder {tmp_path / 'gone'} does not exist\n"
        f"  expected: {FOLDERS}, or a table\n"
        "  fix:      correct the path"
    )


def test_a_file_in_place_of_a_folder(tmp_path):
    save(tmp_path / "photos.zip")
    assert message("photos.zip", tmp_path) == (
        f"data: photos.zip: the folder {tmp_path / 'photos.zip'} is a file\n"
        f"  expected: {SUPPORTED}\n"
        "  fix:      correct the path"
    )


def test_one_class_only(tmp_path):
    folder(tmp_path, {"cats": 2})
    assert message(str(tmp_path), tmp_path) == (
        f"{tmp_path} holds one class only: cats\n"
        "  expected: at least two class folders\n"
        "  fix:      add a folder for each class"
    )


def test_class_folders_that_are_links_are_named(tmp_path):
    folder(tmp_path / "elsewhere", {"dogs": 2})
    folder(tmp_path / "photos", {"cats": 2})
    (tmp_path / "photos/dogs").symlink_to(tmp_path / "elsewhere/dogs")
    (tmp_path / "photos/cats/more").symlink_to(tmp_path / "elsewhere/dogs")
    follow = (
        "; or follow links to folders (dogs): --set check.follow_symlinks=true "
        "(in a study file: check: {follow_symlinks: true})"
    )
    assert message("photos", tmp_path) == (
        f"{tmp_path / 'photos'} holds one class only: cats\n"
        "  expected: at least two class folders\n"
        f"  fix:      add a folder for each class{follow}"
    )
    shutil.rmtree(tmp_path / "photos/cats")
    follow = "--set check.follow_symlinks=true (in a study file: check: {follow_symlinks: true})"
    assert message("photos", tmp_path) == (
        f"{tmp_path / 'photos'} holds no pictures but links (first dogs -> {tmp_path / 'elsewhere/dogs'})\n"
        "  expected: pictures in the folder, or the setting to follow links out of it\n"
        f"  fix:      all lead into {tmp_path / 'elsewhere'}: follow them with {follow}, or copy the pictures into the "
        "folder"
    )


def test_no_class_folders(tmp_path):
    save(tmp_path / "1.png")
    assert message(str(tmp_path), tmp_path) == (
        f"{tmp_path} holds no class folders\n"
        f"  expected: {FOLDERS}\n"
        "  fix:      put the images into one folder per class"
    )


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell such names apart")
@pytest.mark.parametrize(
    ("first", "second", "shown"),
    [
        ("Cat", "cat", "'Cat' and 'cat'"),
        ("cat ", "cat", "'cat' and 'cat '"),
        ("a  b", "a b", "'a  b' and 'a b'"),
        ("cafe\u0301", "caf\u00e9", "'cafe\\u0301' and 'caf\\xe9'"),
    ],
)
def test_class_names_that_could_be_confused(tmp_path, first, second, shown):
    folder(tmp_path, {first: 1, second: 1})
    assert message(str(tmp_path), tmp_path) == (
        f"the class folders {shown} in {tmp_path} differ only in case, white space or Unicode form\n"
        "  expected: class names that differ in more than that\n"
        "  fix:      rename one of them, or merge the two"
    )


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux takes any bytes as a name")
def test_a_class_name_that_is_not_utf8(tmp_path):
    folder(tmp_path, {os.fsdecode(b"caf\xe9"): 1, "b": 1})
    assert message(str(tmp_path), tmp_path) == (
        f"the class folder b'caf\\xe9' in {tmp_path} has a name that is not UTF-8\n"
        "  expected: class names in UTF-8\n"
        "  fix:      rename the folder"
    )


def test_a_further_test_set_with_other_classes(tmp_path):
    folder(tmp_path / "main", {"cats": 1, "dogs": 1})
    folder(tmp_path / "site", {"Cats": 1, "mice": 1, "dogs": 1})
    assert message("main", tmp_path, {"site": "site"}) == (
        f"tests.site: {tmp_path / 'site'} has class folders that the main data lacks: Cats, mice\n"
        "  expected: folders named like the classes of the main data: cats, dogs\n"
        "  fix:      rename the folders (Cats to cats) or remove them"
    )


def test_a_further_test_set_without_files(tmp_path):
    folder(tmp_path / "main", {"cats": 1, "dogs": 1})
    folder(tmp_path / "site", {"cats": 0})
    assert message("main", tmp_path, {"site": "site"}) == (
        f"tests.site: {tmp_path / 'site'} holds no class folders with files\n"
        "  expected: a folder of class folders\n"
        "  fix:      correct the path"
    )
