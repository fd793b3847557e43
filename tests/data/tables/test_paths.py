"""Files that do not lie where a table says."""

import os
import unicodedata

import pytest

from tests.support.tables import columns_in, labels, put, refused, rows, source
from unfreeze.data.sources import open_source

NAMES = ["a1", "a2", "b1", "b2"]
KINDS = ["cat", "cat", "dog", "dog"]


def lies(names: list[str]) -> dict[str, str]:
    return dict(zip(names, KINDS, strict=True))


def told(how: str, first: str, real: str, says: str) -> tuple[str]:
    return (
        f"4 of 4 files are not where the table says, and were found ({how}): {first} is {real}; columns: "
        f"{{{says}}} says "
        "otherwise",
    )


@pytest.mark.parametrize(
    ("written", "real", "how", "says"),
    [
        ("images\\{}.png", "images/{}.png", "\\ read as /", "root: FOLDER"),
        (".\\images\\{}.png", "images/{}.png", "\\ read as /", "root: FOLDER"),
        ("{}.png", "images/{}.png", "in the folder images", "root: images"),
        ("{}.png", "data/all/photos/{}.png", "in the folder data/all/photos", "root: data/all/photos"),
        ("{}", "{}.png", "with .png added", "root: FOLDER, suffix: .png"),
        ("{}", "train_images/{}.JPG", "in the folder train_images; with .JPG added",
         "root: train_images, suffix: .JPG"),
        ("x/{}.png", "img/x/{}.png", "in the folder img", "root: img"),
        ("Images/{}.PNG", "images/{}.png", "with different case or Unicode form", "root: FOLDER"),
        ("{}.jpg", "{}.png", "with another suffix", "root: FOLDER"),
        ("/home/me/data/x/{}.png", "x/{}.png", "without the first 3 parts of the path", "root: FOLDER"),
        ("C:\\Users\\me\\x\\{}.png", "x/{}.png", "\\ read as /; without the first 2 parts of the path",
         "root: FOLDER"),
        ("https://host/x/{}.png", "x/{}.png", "without the first 2 parts of the path", "root: FOLDER"),
        ("data/x/{}", "pictures/x/{}.png",
         "without the first part of the path; in the folder pictures; with .png added",
         "root: pictures, suffix: .png"),
    ],
)  # fmt: skip
def test_one_rule_finds_all_files_and_is_reported(tmp_path, written, real, how, says):
    files = [real.format(name) for name in NAMES]
    put(tmp_path, files)
    found = source(tmp_path, "path,label\n" + rows([written.format(name) for name in NAMES], KINDS))
    assert labels(found) == lies(files)
    assert found.guessed == told(how, written.format("a1"), files[0], says)
    if "FOLDER" not in says:
        again = open_source("images.csv", {}, tmp_path, columns=columns_in(found.guessed[0]))
        assert labels(again) == lies(files)


def test_another_unicode_form(tmp_path):
    files = [f"é{name}.png" for name in NAMES]
    put(tmp_path, [unicodedata.normalize("NFD", name) for name in files])
    found = source(tmp_path, "path,label\n" + rows(files, KINDS))
    assert [unicodedata.normalize("NFC", path) for path in labels(found)] == files
    assert set(os.listdir(tmp_path)) >= set(labels(found))


def test_different_suffixes_are_one_way(tmp_path):
    files = ["images/a1.png", "images/a2.jpg", "images/b1.png", "images/b2.JPEG"]
    put(tmp_path, [*files, "images/a1.xml", "images/a1.txt"])
    found = source(tmp_path, "image_id,label\n" + rows(NAMES, KINDS))
    assert labels(found) == lies(files)
    assert "in the folder images; with .JPEG or .jpg or .png added" in found.guessed[1]


def test_files_in_several_folders_are_found_by_name(tmp_path):
    files = ["part_1/a1.jpg", "part_1/a2.jpg", "part_2/b1.jpg", "part_2/b2.jpg"]
    put(tmp_path, files)
    found = source(tmp_path, "image_id,dx\n" + rows(NAMES, KINDS))
    assert labels(found) == lies(files)
    assert (
        "found (by name, in any folder; with .jpg added): a1 is part_1/a1.jpg; columns: {root: FOLDER, suffix: "
        in (found.guessed[1])
    )


def test_a_table_in_a_folder_of_tables(tmp_path):
    put(tmp_path, [f"images/{name}.png" for name in NAMES])
    (tmp_path / "annotations").mkdir()
    found = source(tmp_path / "annotations", "image,label\n" + rows(NAMES, KINDS))
    assert labels(found) == lies([f"../images/{name}.png" for name in NAMES])
    assert "(in the folder ../images; with .png added)" in found.guessed[1]


def test_the_folder_of_the_tables_split_is_meant_and_masks_are_not(tmp_path):
    put(tmp_path, [f"{folder}/{name}.png" for folder in ("train", "test", "masks/train") for name in NAMES])
    found = source(tmp_path, "id,label\n" + rows(NAMES, KINDS), "train.csv")
    assert labels(found) == lies([f"train/{name}.png" for name in NAMES])
    put(tmp_path / "b", [f"{folder}/{name}.png" for folder in ("images", "segmentations") for name in NAMES])
    found = source(tmp_path / "b", "id,label\n" + rows(NAMES, KINDS))
    assert labels(found) == lies([f"images/{name}.png" for name in NAMES])


def test_two_folders_that_may_be_meant_are_refused_with_both(tmp_path):
    put(tmp_path, [f"{folder}/{name}.png" for folder in ("left", "right") for name in NAMES])
    error = refused(tmp_path, "id,label\n" + rows(NAMES, KINDS))
    assert str(error) == (
        f"data: {tmp_path}/images.csv: the files are in several folders: left, right\n"
        "  expected: one file for each row\n"
        '  fix:      name the right folder: --set "columns={root: left}" (in a study file: columns: {root: left})'
    )
    found = open_source("images.csv", {}, tmp_path, columns=columns_in(error.fix))
    assert labels(found) == lies([f"left/{name}.png" for name in NAMES])


def test_two_files_of_one_name_are_refused_with_the_suffixes(tmp_path):
    put(tmp_path, [name + end for name in NAMES for end in (".jpg", ".png")])
    error = refused(tmp_path, "id,label\n" + rows(NAMES, KINDS))
    assert str(error) == (
        f"data: {tmp_path}/images.csv: 4 of 4 files do not exist, first a1 (the nearest is a1.jpg)\n"
        f"  expected: paths or names of files below {tmp_path}, or absolute paths\n"
        '  fix:      say which of .jpg, .png is right: --set "columns={suffix: .jpg}" (in a study file: columns: '
        "{suffix: .jpg})"
    )
    found = open_source("images.csv", {}, tmp_path, columns=columns_in(error.fix))
    assert labels(found) == lies([f"{name}.jpg" for name in NAMES])
    assert labels(source(tmp_path, "id,label\n" + rows(NAMES, KINDS), suffix="png")) == lies(
        [f"{name}.png" for name in NAMES]
    )


def test_no_file_at_all_is_one_message(tmp_path):
    put(tmp_path, [f"images/x{name}.png" for name in NAMES])
    error = refused(tmp_path, "path,label\n" + rows([f"old/{name}.png" for name in NAMES], KINDS))
    assert str(error) == (
        f"data: {tmp_path}/images.csv: 4 of 4 files do not exist, first old/a1.png (the nearest is images/xa1.png)\n"
        f"  expected: paths or names of files below {tmp_path}, or absolute paths\n"
        '  fix:      name their folder: --set "columns={root: FOLDER}" (in a study file: columns: {root: FOLDER})'
    )
    put(tmp_path / "elsewhere", [f"old/{name}.png" for name in NAMES])
    text = error.fix.replace("FOLDER", str(tmp_path / "elsewhere"))
    found = open_source("images.csv", {}, tmp_path, columns=columns_in(text))
    assert labels(found) == lies([f"{tmp_path}/elsewhere/old/{name}.png" for name in NAMES])


def test_web_addresses_are_reported_as_such(tmp_path):
    error = refused(tmp_path, "path,label\n" + rows([f"https://host/{name}.png" for name in NAMES], KINDS))
    assert error.fix.startswith("nothing is downloaded: download the files, then name their folder: --set ")


def test_a_few_lost_files_are_reported_and_stay(tmp_path):
    put(tmp_path, [f"images/{name}.png" for name in NAMES[:3]])
    found = source(tmp_path, "path,label\n" + rows([f"images/{name}.png" for name in NAMES], KINDS))
    assert labels(found) == lies([f"images/{name}.png" for name in NAMES])
    assert found.guessed == (
        "1 of 4 files do not exist, first images/b2.png (the nearest is images/b1.png); columns: {root: FOLDER} "
        "says which "
        "folder the paths are relative to",
    )


def test_files_that_are_there_are_taken_as_written(tmp_path):
    put(tmp_path, [f"{name}.png" for name in NAMES] + [f"images/{name}.png" for name in NAMES])
    found = source(tmp_path, "path,label\n" + rows([f"{name}.png" for name in NAMES], KINDS))
    assert (labels(found), found.guessed) == (lies([f"{name}.png" for name in NAMES]), ())
    found = source(tmp_path, "path,label\n" + rows([f"{name}.png" for name in NAMES], KINDS), root="images")
    assert (labels(found), found.guessed) == (lies([f"images/{name}.png" for name in NAMES]), ())


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_linked_folders_are_looked_through_and_loops_end(tmp_path):
    put(tmp_path / "disk", [f"{name}.png" for name in NAMES])
    (tmp_path / "data").mkdir()
    os.symlink(tmp_path / "disk", tmp_path / "data" / "images")
    os.symlink(tmp_path / "data", tmp_path / "data" / "again")
    found = source(tmp_path / "data", "path,label\n" + rows(NAMES, KINDS))
    assert labels(found) == lies([f"images/{name}.png" for name in NAMES])
