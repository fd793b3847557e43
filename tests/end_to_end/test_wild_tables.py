"""Ten tables as other programs leave them: what is understood, or refused with a command that works."""

import json
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support import wild_tables as wild
from unfreeze.cli.app import main

GIVEN = {"train": 14, "val": 4, "test": 6}
TABLE = "a table (.csv, .tsv, .txt, .jsonl or .parquet) with a column of file paths and a column of labels"


@dataclass(frozen=True)
class Case:
    """A table, and what came and must come of it.

    Attributes:
        make: writes it into a folder, and returns what its owner gives.
        before: what commit d6bbf66 did with it; it documents only.
        classes, splits, guessed: what is understood, at once or once it is fixed; ``splits`` None: they are drawn.
        given, expected: the refusal, "" where there is none; its way out starts with ``fix``.
    """

    make: Callable[[Path], Path]
    before: str
    classes: list[str]
    splits: dict[str, int] | None = None
    guessed: list[str] = field(default_factory=list)
    given: str = ""
    expected: str = TABLE
    fix: str = ""


CASES = [
    Case(
        wild.automl,
        "refused: 'has columns TRAIN, gs://..., daisy, but not path and label', 'name the columns in the first row'",
        ["daisy", "tulip"],
        GIVEN,
        [
            "import.csv has no header, so its columns are called 1 to 3 and its first line is an image; a first line "
            "such as column1,path,label names them",
            "the column 2 names the files, and 3 is the label; columns: {path: '2', label: '3'} says otherwise",
            "the column 1 gives the splits; columns: {split: false} draws them instead",
            "24 of 24 files are not where the table says, and were found (without the first 2 parts of the path): "
            "gs://my-project-vcm/flowers/daisy/IMG_0000.jpg is flowers/daisy/IMG_0000.jpg; columns: {root: FOLDER} "
            "says otherwise",
        ],
    ),
    Case(
        wild.ground_truth,
        "refused: 'is neither a study file nor images'",
        ["clean", "scratch"],
        None,
        [
            "the column source-ref names the files, and surface-metadata.class-name is the label; columns: {path: "
            "source-ref, label: surface-metadata.class-name} says otherwise",
            "24 of 24 files are not where the table says, and were found (without the first 2 parts of the path): "
            "s3://acme-line-4/images/part-0000.jpg is images/part-0000.jpg; columns: {root: FOLDER} says otherwise",
        ],
    ),
    Case(
        wild.mxnet,
        "refused: 'is neither a study file nor images'",
        ["0.000000", "1.000000", "2.000000"],
        None,
        [
            "parts_train.lst has no header, so its columns are called 1 to 3 and its first line is an image; a first "
            "line such as column1\tlabel\tpath names them",
            "the column 3 names the files, and 2 is the label; columns: {path: '3', label: '2'} says otherwise",
            "the labels in 2 are numbers (0.000000, 1.000000, 2.000000): each is a class of its own, and their order "
            "is not used",
        ],
    ),
    Case(
        wild.timelapse,
        "refused: 'has columns RootFolder, File, ..., but not path and label', 'name the columns in the first row'",
        ["Boar", "Fox"],
        None,
        [
            "the column File names the files, and Species is the label; columns: {path: File, label: Species} says "
            "otherwise",
            "the column RelativePath names the folder of each file in File; columns: {root: FOLDER} says otherwise",
            "24 of 24 files are not where the table says, and were found (\\ read as /): "
            "Station1\\100RECNX/RCNX0001.JPG is Station1/100RECNX/RCNX0001.JPG; columns: {root: FOLDER} says otherwise",
        ],
    ),
    Case(
        wild.faces,
        "refused: 'has columns emotion, pixels, Usage, but not path and label', 'name the columns in the first row'",
        ["0", "3"],
        GIVEN,
        [
            "the column path names the files, and emotion is the label; columns: {path: path, label: emotion} says "
            "otherwise",
            "the column Usage gives the splits; columns: {split: false} draws them instead",
        ],
        "data: {file}: pixels holds 576 numbers in each row: the pictures are in the table itself, which names no "
        "files",
        fix="write each picture as a file, and a table of them: python -c ",
    ),
    Case(
        wild.hub,
        "refused: 'has columns image, label, but not path', 'name the columns in the first row'",
        ["bean rust", "healthy"],
        given="data: {file}: image holds bytes: the pictures are in the table itself, which names no files",
        fix="write each picture as a file, and a table of them: python -c ",
    ),
    Case(
        wild.roboflow,
        "trained on it: the classes were test, train and valid, and the tables 'not an image'",
        ["crack", "hole", "ok"],
        {"train": 21, "val": 6, "test": 9},
        [
            "the column filename names the files, and the label is that of crack, hole, ok which is 1; columns: {path: "
            "filename, label: [crack, hole, ok]} says otherwise",
        ],
        "data: {file} contains a table of images in each split's folder: test/_classes.csv, train/_classes.csv, "
        "valid/_classes.csv",
        "one table of all splits, or a folder of class folders",
        "make one of them: python -c ",
    ),
    Case(
        wild.pets,
        "refused: 'is neither a study file nor images'",
        ["1", "2", "3"],
        None,
        [
            "the first 3 lines are above the table and not read, first #Image CLASS-ID SPECIES BREED ID; a table whose "
            "first line names the columns has none",
            "list.txt has no header, so its columns are called 1 to 4 and its first line is an image; a first line "
            "such as path label column3 column4 names them",
            "the labels in 2 are numbers (1, 2, 3): each is a class of its own, and their order is not used",
            "36 of 36 files are not where the table says, and were found (in the folder ../images; with .jpg added): "
            "Abyssinian_0 is ../images/Abyssinian_0.jpg; columns: {root: ../images, suffix: .jpg} says otherwise",
        ],
        "data: {file} has columns 1, 2, 3, 4, and which of them is the label is not clear",
        fix="name the right one: --set \"columns={path: '1', label: '2'}\" (in a study file: columns: {path: '1', "
        "label: '2'}); or --set \"columns={path: '1', label: '3'}\" (in a study file: ",
    ),
    Case(
        wild.votes,
        "refused: 'has columns classification_id, ..., but not path and label', 'name the columns in the first row'",
        ["smooth", "spiral"],
        None,
        [
            "the column filename names the files, and annotation is the label; columns: {path: filename, label: "
            "annotation} says otherwise",
            "24 of 24 files are not where the table says, and were found (in the folder subjects): 0000.jpg is "
            "subjects/0000.jpg; columns: {root: subjects} says otherwise",
        ],
        "data: {file}: 6 of 24 images have rows with different labels, first subjects/0000.jpg, and most images have "
        "several rows",
        "one label for each image",
        "take the most frequent label, and leave out images without one: python -c ",
    ),
    Case(
        wild.report,
        "refused: 'has columns Inspection report line 4, Unnamed: 1, ...', 'name the columns in the first row'",
        ["NOK", "OK"],
        None,
        [
            "the column Image file names the files, and Result is the label; columns: {path: Image file, label: "
            "Result} says otherwise",
            "24 of 24 files are not where the table says, and were found (in the folder Images): L4_0000.bmp is "
            "Images/L4_0000.bmp; columns: {root: Images} says otherwise",
        ],
        "data: {file}: no Image file in 1 line: 49",
        "a Image file in every row",
        "correct these lines, or change a copy: python -c ",
    ),
]


def fix_command(complaint: str) -> list[str]:
    """Do what a refusal says first: run its command, or take its option; what to give then."""
    if command := re.search(r"(python -c .*?), then give (\S+?)(?:;|$)", complaint, re.MULTILINE):
        exec(shlex.split(command[1])[2], {})
        return [command[2]]
    option = re.search(r'--set "(.*?)"', complaint)
    assert option, complaint
    return ["", "--set", option[1]]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.make.__name__)
def test_what_was_understood(tmp_path, monkeypatch, capsys, case):
    (tmp_path / "data").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("UNFREEZE_CACHE", str(tmp_path / "cache"))
    arguments = [str(case.make(tmp_path / "data"))]
    if case.given:
        for command in ("init", "plan", "run", "check"):
            assert main([command, *arguments]) == 2
            said = capsys.readouterr()
            assert said.out == ""
            given, expected, fix = said.err.splitlines()
            assert given == f"unfreeze: {case.given.format(file=arguments[0])}"
            assert expected == f"  expected: {case.expected}"
            assert fix.startswith(f"  fix:      {case.fix}")
        first, *others = fix_command(fix)
        arguments = [first or arguments[0], *others]
    assert main(["check", *arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    number = sum((case.splits or {"all": 12 * len(case.classes)}).values())
    assert found["layout"] == {
        "kind": "table", "classes": case.classes, "splits": case.splits, "ignored": {}, "guessed": case.guessed,
    }  # fmt: skip
    assert found["used"] == number
    assert main(["init", *arguments]) == 0
