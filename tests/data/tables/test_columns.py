"""Which column of a table says what."""

import pytest

from tests.support.choices import parse_study
from tests.support.tables import TABLE, after, columns_in, labels, put, refused, source, splits
from unfreeze.config.identity import study_record
from unfreeze.config.schema import ColumnsConfig
from unfreeze.data.sources import open_source
from unfreeze.errors import UserError

NAMES = ["1.jpg", "2.jpg", "3.jpg", "4.jpg"]
KINDS = ["cat", "dog", "cat", "dog"]


@pytest.fixture(autouse=True)
def pictures(tmp_path):
    put(tmp_path, NAMES)


def table(header: str, *columns: list) -> str:
    """A table with the four pictures in its first column."""
    return "\n".join([header, *(",".join(map(str, row)) for row in zip(NAMES, *columns, strict=True))])


@pytest.mark.parametrize(
    "path", ["image", "filename", "file_name", "Image Index", "img", "IMAGE_ID", "id", "filepaths"]
)
@pytest.mark.parametrize("label", ["class", "diagnosis", "Target", "category", "species", "y", "class name"])
def test_usual_names_are_known_in_any_form(tmp_path, path, label):
    found = source(tmp_path, table(f"{path},{label}", KINDS))
    assert (found.kind, list(labels(found).values())) == ("table", KINDS)
    (told,) = found.guessed
    assert told == (
        f"the column {path} names the files, and {label} is the label; columns: {{path: {path}, label: {label}}} says "
        "otherwise"
    )
    assert open_source("images.csv", {}, tmp_path, columns=columns_in(told)).guessed == ()


def test_what_is_called_path_and_label_is_taken_whatever_else_there_is(tmp_path):
    found = source(tmp_path, table("path,label,image,kind", KINDS, NAMES[::-1], ["x", "y", "y", "x"]))
    assert (list(labels(found).values()), found.guessed) == (KINDS, ())
    found = source(tmp_path, table("path,label,class", KINDS, ["x", "y", "y", "x"]))
    assert list(labels(found).values()) == KINDS
    assert found.guessed == (
        "the column class is not used as the label, but label is; columns: {label: class} says otherwise",
    )
    assert list(
        labels(source(tmp_path, table("path,label,class", KINDS, ["x", "y", "y", "x"]), label="class")).values()
    )[:2] == ["x", "y"]


def test_columns_of_no_usual_name_are_known_by_their_values(tmp_path):
    assert list(labels(source(tmp_path, table("photograph of,what", KINDS))).values()) == KINDS
    found = source(tmp_path, table("Image,Id", KINDS))  # Id names the animal here
    assert list(labels(found).values()) == KINDS
    put(tmp_path, ["a1.png", "a2.png"])
    found = source(tmp_path, "thing,kind\na1,x\na2,y\n")  # which need not look like names of files
    assert labels(found) == {"a1.png": "x", "a2.png": "y"}


def test_names_and_numbers_of_the_same_classes_are_one_label(tmp_path):
    found = source(tmp_path, table("filepaths,class id,labels", [0, 1, 0, 1], KINDS))
    assert list(labels(found).values()) == KINDS
    assert found.guessed == (
        "the column filepaths names the files, and labels is the label; columns: {path: filepaths, label: labels} says "
        "otherwise",
        "the column class id is not used as the label, but labels is; columns: {label: class id} says otherwise",
    )


def test_several_labels_are_refused_with_the_readings(tmp_path):
    error = refused(tmp_path, table("image,diagnosis,target", ["x", "y", "y", "x"], KINDS))
    assert str(error) == (
        f"data: {tmp_path}/images.csv has columns image, diagnosis, target, diagnosis and target could each be "
        f"the label\n"
        f"  expected: {TABLE}\n"
        '  fix:      name the right one: --set "columns={path: image, label: diagnosis}" (in a study file: columns: '
        '{path: image, label: diagnosis}); or --set "columns={path: image, label: target}" (in a study file: columns: '
        "{path: image, label: target})"
    )
    found = open_source("images.csv", {}, tmp_path, columns=columns_in(error.fix))
    assert list(labels(found).values()) == ["x", "y", "y", "x"]


def test_columns_that_may_be_labels_are_named_those_first_that_many_images_share(tmp_path):
    error = refused(tmp_path, table("image,note,who's it", ["a", "b", "c", "d"], KINDS))
    assert error.given == (
        f"data: {tmp_path}/images.csv has columns image, note, who's it, and which of them is the label is not clear"
    )
    assert error.fix.startswith(
        "name the right one: --set \"columns={path: image, label: 'who''s it'}\" (in a study file: "
    )
    assert list(labels(open_source("images.csv", {}, tmp_path, columns=columns_in(error.fix))).values()) == KINDS


def test_several_columns_of_files_are_refused_with_the_readings(tmp_path):
    put(tmp_path, [f"b{name}" for name in NAMES])
    error = refused(tmp_path, table("image,file,label", [f"b{name}" for name in NAMES], KINDS))
    assert str(error) == (
        f"data: {tmp_path}/images.csv has columns image, file, label, image and file could each name the files\n"
        f"  expected: {TABLE}\n"
        '  fix:      name the columns: --set "columns={path: image, label: label}" (in a study file: columns: '
        '{path: image, label: label}); or --set "columns={path: file, label: label}" (in a study file: columns: {path: '
        "file, label: label})"
    )
    assert set(labels(open_source("images.csv", {}, tmp_path, columns=columns_in(error.fix)))) == set(NAMES)


def test_no_column_of_files(tmp_path):
    error = refused(tmp_path, "a,b\nx,cat\ny,dog\n")
    assert error.given == f"data: {tmp_path}/images.csv has columns a, b, and none of them names files"
    assert error.fix.startswith('name the columns: --set "columns={path: a, label: b}" (in a study file: ')


def test_a_column_that_was_asked_for_and_is_not_there(tmp_path):
    error = refused(tmp_path, table("image,diagnosis", KINDS), label="diagnoses")
    assert str(error) == (
        f"columns.label: diagnoses: {tmp_path}/images.csv has no such column\n"
        "  expected: one of image, diagnosis\n"
        '  fix:      name one that is there: --set "columns={label: diagnosis}" (in a study file: columns: {label: '
        "diagnosis})"
    )
    assert list(labels(open_source("images.csv", {}, tmp_path, columns=columns_in(error.fix))).values()) == KINDS


def test_a_column_of_0_and_1_for_each_class(tmp_path):
    one_hot = [[1, 0, 0, 1], [0, "1.0", 0, 0], [0, 0, 1, 0]]
    found = source(tmp_path, table("image_id,cat,dog,owl", *one_hot))
    assert list(labels(found).values()) == ["cat", "dog", "owl", "cat"]
    (told,) = found.guessed
    assert told == (
        "the column image_id names the files, and the label is that of cat, dog, owl which is 1; columns: {path: "
        "image_id, label: [cat, dog, owl]} says otherwise"
    )
    assert open_source("images.csv", {}, tmp_path, columns=columns_in(told)).items == found.items
    more = source(tmp_path, table("image_id,cat,dog,owl,age", *one_hot, [3, 4, 5, 6]), label=["cat", "dog", "owl"])
    assert [(item.label, item.more) for item in more.items][:2] == [("cat", (("age", "3"),)), ("dog", (("age", "4"),))]


# --- splits ---


@pytest.mark.parametrize(("yes", "no"), [("True", "False"), ("1", "0"), ("yes", "no")])
def test_is_valid_is_the_split(tmp_path, yes, no):
    found = source(tmp_path, table("path,label,is_valid", KINDS, [no, no, yes, yes]))
    assert splits(found) == dict(zip(NAMES, ["train", "train", "validation", "validation"], strict=True))
    assert found.split_names == {f"is_valid={yes}": "validation", f"is_valid={no}": "train"}
    assert found.guessed == ("the column is_valid gives the splits; columns: {split: false} draws them instead",)
    drawn = open_source("images.csv", {}, tmp_path, columns=columns_in(found.guessed[0]))
    assert (set(splits(drawn).values()), drawn.split_names, drawn.guessed) == ({""}, {}, ())


def test_several_columns_of_true_and_false_are_one_split(tmp_path):
    found = source(tmp_path, table("path,label,is_valid,is_test", KINDS, [0, 0, 1, 0], [0, 0, 0, 1]))
    assert list(splits(found).values()) == ["train", "train", "validation", "test"]
    assert found.split_names == {
        "is_valid=true": "validation", "is_test=true": "test", "no is_valid nor is_test": "train",
    }  # fmt: skip
    alone = source(tmp_path, table("path,label,is_train", KINDS, [1, 1, 1, 0]))
    assert list(splits(alone).values()) == ["train", "train", "train", "test"]
    error = refused(tmp_path, table("path,label,is_valid,is_test", KINDS, [0, 0, 1, 1], [0, 0, 0, 1]))
    assert str(error).startswith(f"data: {tmp_path}/images.csv: is_valid and is_test at once in 1 line: 5\n")
    assert list(splits(after(error)).values()) == ["train", "train", "validation"]


@pytest.mark.parametrize("name", ["set", "Subset", "usage", "partition", "data set", "phase", "fold", "bucket"])
def test_a_column_whose_values_are_splits_is_the_split(tmp_path, name):
    found = source(tmp_path, table(f"path,label,{name}", KINDS, ["Training", "train", "PublicTest", "test"]))
    assert list(splits(found).values()) == ["train", "train", "validation", "test"]
    assert found.split_names == {
        f"{name}=Training": "train", f"{name}=train": "train", f"{name}=PublicTest": "validation",
        f"{name}=test": "test",
    }  # fmt: skip
    assert found.guessed == (f"the column {name} gives the splits; columns: {{split: false}} draws them instead",)


@pytest.mark.parametrize(("name", "values"), [("set", "a a b b"), ("partition", "0 0 1 2"), ("is_test", "x y x y")])
def test_a_column_that_only_looks_like_a_split_is_reported(tmp_path, name, values):
    found = source(tmp_path, table(f"path,label,{name}", KINDS, values.split()))
    assert set(splits(found).values()) == {""}
    assert found.guessed == (
        f"the column {name} looks like a split, but is not used, since its values are "
        f"{', '.join(sorted(set(values.split())))}; once they are train, val and test, columns: {{split: {name}}} "
        f"uses it",
    )


def test_columns_that_say_different_splits_are_refused_unless_one_is_called_split(tmp_path):
    values = [["train", "train", "val", "val"], ["train", "val", "train", "val"]]
    error = refused(tmp_path, table("path,label,set,phase", KINDS, *values))
    assert str(error) == (
        f"data: {tmp_path}/images.csv: set and phase contradict each other\n"
        "  expected: one column that says which split a row is in\n"
        '  fix:      name the right one: --set "columns={split: set}" (in a study file: columns: {split: set}); or '
        '--set "columns={split: phase}" (in a study file: columns: {split: phase})'
    )
    found = open_source("images.csv", {}, tmp_path, columns=columns_in(error.fix))
    assert list(splits(found).values()) == ["train", "train", "validation", "validation"]
    found = source(tmp_path, table("path,label,Split,phase", KINDS, *values))
    assert list(splits(found).values()) == ["train", "train", "validation", "validation"]
    assert found.guessed == (
        "the column phase looks like a split, but Split is used; columns: {split: phase} says otherwise",
    )


@pytest.mark.parametrize("header", ["Path,Label,Group", " path , label,GROUP", "path,label,group"])
def test_groups_in_any_case(tmp_path, header):
    found = source(tmp_path, table(header, KINDS, ["p", "q", "p", ""]))
    assert [item.group for item in found.items] == ["p", "q", "p", ""]
    assert found.guessed == ()
    found = source(tmp_path, table("path,label,patient", KINDS, ["p", "q", "p", ""]), group="patient")
    assert [item.group for item in found.items] == ["p", "q", "p", ""]


def test_folds_are_reported(tmp_path):
    found = source(tmp_path, table("path,label,Fold", KINDS, [0, 1, 0, 1]))
    assert [item.fold for item in found.items] == ["0", "1", "0", "1"]
    assert found.guessed == (
        "the column Fold gives the folds of a study with split: {folds: 2}, and is not used otherwise",
    )


# --- what the study says ---


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({"label": ["cat"]}, "columns.label: ['cat'] is neither the name of a column nor a list of two or more"),
        ({"label": 3}, "columns.label: 3 is neither the name of a column nor a list of two or more"),
        ({"split": True}, "columns.split: True is neither the name of a column nor false"),
        ({"paths": "x"}, "columns.paths: unknown key; did you mean 'path'?"),
    ],
)
def test_columns_in_a_study_file_that_are_not_understood(columns, told):
    study = {"data": "x", "backbone": "y", "strategies": {"a": {"train": "head"}}, "regimes": {"full": {}}}
    assert parse_study({**study, "columns": {"label": ["a", "b"]}}, "x").columns == ColumnsConfig(label=("a", "b"))
    with pytest.raises(UserError) as caught:
        parse_study({**study, "columns": columns}, "study.yaml")
    assert f"\n  - {told}" in caught.value.given


def test_columns_enter_the_record_of_a_study_only_if_something_is_said():
    study = {"data": "x", "backbone": "y", "strategies": {"a": {"train": "head"}}, "regimes": {"full": {}}}
    assert "columns" not in study_record(parse_study(study, "x"))
    said_so = parse_study({**study, "columns": {"path": "file"}}, "x")
    assert study_record(said_so)["columns"]["path"] == "file"
