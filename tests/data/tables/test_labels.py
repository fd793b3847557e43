"""What a label may be in a table: several of them, numbers, boxes, none; tables beside tables, and in folders."""

import json

import pytest

from tests.support.tables import TABLE, after, done, labels, put, refused, rows, source, write
from unfreeze.config.schema import SplitConfig
from unfreeze.data.catalog import build_catalog
from unfreeze.data.sources import open_source
from unfreeze.data.split import draw_split
from unfreeze.errors import UserError


def names(count: int) -> list[str]:
    return [f"{number:02}.png" for number in range(count)]


def table(folder, values: list, header: str = "path,label") -> str:
    """A table of as many pictures as there are values."""
    put(folder, names(len(values)))
    return f"{header}\n" + rows(names(len(values)), [f'"{value}"' for value in values])


def fix_command(folder, change: str) -> str:
    return (
        f"python -c \"import pandas as pd; t = pd.read_csv('{folder}/images.csv', dtype=str, keep_default_na=False); "
        f"{change}; t.to_csv('{folder}/images_fixed.csv', index=False)\", then give {folder}/images_fixed.csv"
    )


# --- several labels ---


@pytest.mark.parametrize("joined", ["cat dog", "cat|dog", "cat;dog", "cat, dog"])
def test_rows_with_several_labels_are_counted_and_left_out_by_a_command(tmp_path, joined):
    error = refused(tmp_path, table(tmp_path, ["cat", "dog", joined, "polar bear", "cat"]))
    change = f"t = t[~t['label'].str.strip().isin([{joined!r}])]"
    assert str(error) == (
        f"data: {tmp_path}/images.csv: 1 of 5 rows have several labels in label, first {joined}\n"
        "  expected: one label for each image\n"
        f"  fix:      keep the rows with one: {fix_command(tmp_path, change)}"
    )
    assert list(labels(after(error)).values()) == ["cat", "dog", "polar bear", "cat"]


def test_many_combinations(tmp_path):
    kinds = "abcdefgh"
    values = [*kinds, *(f"{one}|{other}" for one, other in zip(kinds, kinds[1:], strict=False))]
    error = refused(tmp_path, table(tmp_path, values))
    assert error.given == f"data: {tmp_path}/images.csv: 7 of 15 rows have several labels in label, first a|b"
    assert set(labels(after(error)).values()) == set(kinds)


def test_combinations_alone_are_classes_after_a_command(tmp_path):
    error = refused(tmp_path, table(tmp_path, ["red|shoe", "red|hat", "blue|shoe", "blue|hat"]))
    change = "t['label'] = t['label'].str.replace('|', ' with ', regex=False)"
    assert str(error) == (
        f"data: {tmp_path}/images.csv: all 4 rows have several labels in label, first blue|hat\n"
        "  expected: one label for each image\n"
        '  fix:      name another column: --set "columns={label: COLUMN}" (in a study file: columns: {label: COLUMN}); '
        f"or take each combination as a class: {fix_command(tmp_path, change)}"
    )
    assert after(error).classes == ("blue with hat", "blue with shoe", "red with hat", "red with shoe")


def test_a_label_that_stands_beside_others_only(tmp_path):
    error = refused(tmp_path, table(tmp_path, ["cat", "cat|wet", "dog", "dog|wet"]))
    assert error.given == f"data: {tmp_path}/images.csv: 2 of 4 rows have several labels in label, first cat|wet"
    assert after(error).classes == ("cat", "dog")


def test_lists_of_one_label_are_labels_and_longer_ones_are_several(tmp_path):
    put(tmp_path, names(3))
    lines = [json.dumps({"path": name, "label": [label]}) for name, label in zip(names(3), "aba", strict=True)]
    assert list(labels(source(tmp_path, "\n".join(lines), "images.jsonl")).values()) == ["a", "b", "a"]
    assert list(labels(source(tmp_path, table(tmp_path, ["['a']", "['b']"]))).values()) == ["a", "b"]
    error = refused(tmp_path, table(tmp_path, ["['a']", "['b']", "['a', 'b']"]))
    assert error.given == f"data: {tmp_path}/images.csv: 1 of 3 rows have several labels in label, first ['a', 'b']"
    assert list(labels(after(error)).values()) == ["a", "b"]


def test_labels_with_spaces_and_marks_are_labels(tmp_path):
    kinds = ["New York", "York", "red, round", "a|b", "x;y"]
    assert list(labels(source(tmp_path, table(tmp_path, kinds))).values()) == kinds


def test_several_ones_in_a_row(tmp_path):
    put(tmp_path, names(4))
    error = refused(tmp_path, "path,a,b,c\n" + rows(names(4), ["1,0,0", "0,1,0", "1,1,0", "0,0,0"]))
    count = "t[['a', 'b', 'c']].apply(lambda c: c.str.strip().str.lower().isin(['1', '1.0', 'true'])).sum(axis=1)"
    assert str(error) == (
        f"data: {tmp_path}/images.csv: 1 of 4 rows have several labels; 1 of 4 rows have none\n"
        "  expected: exactly one 1 in each row of a, b, c\n"
        f"  fix:      keep the rows with one label: {fix_command(tmp_path, f't = t[{count} == 1]')}"
    )
    assert list(labels(after(error)).values()) == ["a", "b"]
    error = refused(tmp_path, "path,a,b,c\n" + rows(names(4), ["1,0,0", "0,1,0", "0,0,1", "0,0,0"]))
    change = f"t['none'] = ({count} == 0).astype(int)"
    assert str(error) == (
        f"data: {tmp_path}/images.csv: 1 of 4 rows have none\n"
        "  expected: exactly one 1 in each row of a, b, c\n"
        f"  fix:      make none a class: {fix_command(tmp_path, change)}"
    )
    assert list(labels(after(error)).values()) == ["a", "b", "c", "none"]


# --- numbers ---


def test_grades_are_classes_whose_order_is_not_used(tmp_path):
    found = source(tmp_path, table(tmp_path, [0, 1, 2, 3, 4, 4]))
    assert found.classes == ("0", "1", "2", "3", "4")
    assert found.guessed == (
        "the labels in label are numbers (0, 1, 2, 3, 4): each is a class of its own, and their order is not used",
    )
    assert source(tmp_path, table(tmp_path, [0, 1, 1, 0])).guessed == ()
    halves = source(tmp_path, table(tmp_path, [0.5, 1.0, 1.5, 0.5]))
    assert halves.classes == ("0.5", "1.0", "1.5")


def test_many_whole_numbers_are_classes_and_how_to_make_fewer_is_reported(tmp_path):
    found = source(tmp_path, table(tmp_path, [number // 3 for number in range(66)]))
    assert len(found.classes) == 22
    (told,) = found.guessed
    change = "t['label'] = pd.qcut(t['label'].astype(float), 4, duplicates='drop').astype(str)"
    assert told == (
        "the labels in label are numbers (0, 1, 2, 3, 4, ..., 21): each is a class of its own, and their order "
        "is not used; "
        f"if they are a quantity, make classes of it: {fix_command(tmp_path, change)}"
    )
    assert len(after(UserError("", "-", told)).classes) == 4


@pytest.mark.parametrize("values", [[number / 7 for number in range(30)], [number * 3 for number in range(30)]])
def test_quantities_are_refused_and_made_classes_by_a_command(tmp_path, values):
    error = refused(tmp_path, table(tmp_path, values, "image,price"))
    change = "t['price'] = pd.qcut(t['price'].astype(float), 4, duplicates='drop').astype(str)"
    assert str(error) == (
        f"data: {tmp_path}/images.csv: price has 30 different numbers in 30 rows: a quantity\n"
        "  expected: a label that many images share\n"
        f"  fix:      make 4 classes of equal size of it: {fix_command(tmp_path, change)}"
    )
    assert len(after(error).classes) == 4


# --- boxes ---


@pytest.mark.parametrize("box", ["xmin,ymin,xmax,ymax", "x,y,width,height", "X1,Y1,X2,Y2", "left,top,right,bottom"])
def test_boxes_of_one_label_an_image_count_once_and_are_reported(tmp_path, box):
    put(tmp_path, names(2))
    lines = ["00.png,cat,1,1,5,5", "00.png,cat,2,2,5,5", "01.png,dog,1,1,5,5"]
    found = source(tmp_path, f"filename,class,{box}\n" + "\n".join(lines))
    assert (labels(found), len(found.ignored)) == ({"00.png": "cat", "01.png": "dog"}, 1)
    assert found.guessed[1] == (
        f"{', '.join(sorted(box.split(',')))} give positions within an image, which are not used: each whole "
        "image has one label; if the boxes are the images, cut them out into files of their own"
    )


def test_boxes_with_different_labels_are_refused_and_left_out_by_a_command(tmp_path):
    put(tmp_path, names(3))
    lines = ["00.png,cat,1", "00.png,dog,2", "01.png,dog,3", "02.png,cat,4"]
    error = refused(tmp_path, "filename,class,bbox\n" + "\n".join(lines))
    change = "t = t[t.groupby('filename')['class'].transform('nunique') == 1]"
    assert str(error) == (
        f"data: {tmp_path}/images.csv: 1 of 3 images have boxes with different labels, first 00.png\n"
        "  expected: one label for each image; boxes are not used\n"
        "  fix:      cut each box out into a file of its own, or leave these images out: "
        + fix_command(tmp_path, change)
    )
    assert labels(after(error)) == {"01.png": "dog", "02.png": "cat"}


# --- tables beside tables, further test sets, folders ---


@pytest.fixture
def kaggle(tmp_path):
    """train.csv, test.csv and images/."""
    put(tmp_path / "images", names(12))
    kinds = ["cat", "dog"] * 6
    write(tmp_path, "image,label\n" + rows([f"images/{name}" for name in names(9)], kinds[:9]), "train.csv")
    write(tmp_path, "image,label\n" + rows([f"images/{name}" for name in names(12)[9:]], kinds[9:]), "test.csv")
    return tmp_path


def test_a_test_table_beside_it_is_reported_and_tests_takes_it(kaggle):
    found = open_source("train.csv", {}, kaggle)
    assert found.guessed[1:] == (
        "test.csv lies beside it and is not used; tests: {test_csv: test.csv} in the study file, or --set "
        f"tests.test_csv={kaggle}/test.csv, tests on it as well, and with split: {{test: 0}} on it alone",
    )
    both = open_source("train.csv", {"test_csv": "test.csv"}, kaggle)
    assert [(item.path, item.label) for item in both.items if item.source == "test_csv"] == [
        ("images/09.png", "dog"), ("images/10.png", "cat"), ("images/11.png", "dog"),
    ]  # fmt: skip
    assert both.roots == {"": kaggle, "test_csv": kaggle}
    drawn = draw_split(build_catalog(both), SplitConfig(test=0))
    assert set(drawn) == {"train", "validation", "test_test_csv"}
    assert not [told for told in open_source("test.csv", {}, kaggle).guessed if "lies beside" in told]


def test_a_validation_table_beside_it_is_put_into_one_by_a_command(kaggle):
    (kaggle / "test.csv").rename(kaggle / "val.csv")
    told = open_source("train.csv", {}, kaggle).guessed[1]
    assert told.startswith("val.csv lies beside it and is not used; to validate on it: python -c ")
    found = after(UserError("", "-", told))
    assert [item.given_split for item in found.items] == ["train"] * 9 + ["validation"] * 3


def test_labels_of_a_test_table_must_be_classes(kaggle):
    write(kaggle, "image,label\nimages/09.png,dog\nimages/10.png,owl\n", "test.csv")
    with pytest.raises(UserError) as caught:
        open_source("train.csv", {"site": "test.csv"}, kaggle)
    assert str(caught.value).startswith(
        f"tests.site: {kaggle}/test.csv has labels that the main data lacks: owl\n"
        "  expected: classes of the main data: cat, dog\n"
        "  fix:      leave these rows out: python -c "
    )
    fixed_table = done(caught.value)
    found = open_source("train.csv", {"site": str(fixed_table)}, kaggle)
    assert [item.path for item in found.items if item.source] == ["images/09.png"]


def test_tables_as_test_sets_of_folders(kaggle):
    for kind in ("cat", "dog"):
        put(kaggle / "photos" / kind, names(3))
    found = open_source("photos", {"site": "test.csv"}, kaggle)
    assert [item.source for item in found.items].count("site") == 3


def test_a_table_without_labels_is_refused_and_names_the_one_with(kaggle):
    write(kaggle, "image\nimages/09.png\nimages/10.png\n", "test.csv")
    error = refused(kaggle, (kaggle / "test.csv").read_text(), "test.csv")
    assert str(error) == (
        f"data: {kaggle}/test.csv has no labels, only image\n"
        f"  expected: {TABLE}\n"
        f"  fix:      give the table with labels: unfreeze check {kaggle}/train.csv"
    )
    assert open_source("train.csv", {}, kaggle).guessed[1:] == (
        "test.csv lies beside it and has no labels that can be read, so it is not used",
    )
    with pytest.raises(UserError) as caught:
        open_source("train.csv", {"site": "test.csv"}, kaggle)
    assert str(caught.value) == (
        f"tests.site: {kaggle}/test.csv has no labels, only image\n"
        f"  expected: {TABLE}\n"
        "  fix:      take tests.site out of the study, or add a column of labels: image,label"
    )
    (kaggle / "train.csv").unlink()
    error = refused(kaggle, "image\nimages/09.png\n", "test.csv")
    assert error.fix == "add a column of labels: image,label"


def test_a_folder_with_a_table_of_its_images_is_refused_with_the_command(kaggle):
    with pytest.raises(UserError) as caught:
        open_source(str(kaggle), {}, kaggle)
    assert str(caught.value) == (
        f"data: {kaggle} contains a table of its images with labels that are not those of folders: test.csv (3 "
        "images), train.csv (9 images)\n"
        "  expected: the table, or a folder of class folders\n"
        f"  fix:      give the table: unfreeze check {kaggle}/train.csv"
    )


def test_two_parts_of_a_data_set_are_not_its_classes(tmp_path):
    put(tmp_path, [f"part_{number % 2}/{name}" for number, name in enumerate(names(8))])
    write(tmp_path, "image_id,dx\n" + rows([name[:2] for name in names(8)], list("aabbaabb")), "metadata.csv")
    with pytest.raises(UserError, match="metadata.csv"):
        open_source(str(tmp_path), {}, tmp_path)


@pytest.mark.parametrize(
    "text",
    ["file,class\ncat/00.png,cat\ndog/00.png,dog\n", "file,camera\ncat/00.png,x\ncat/01.png,y\ndog/00.png,x\n",
     "a,b\n1,2\n", "", "class,count\ncat,2\n"],
)  # fmt: skip
def test_a_folder_of_class_folders_stays_one_whatever_table_is_in_it(tmp_path, text):
    for kind in ("cat", "dog"):
        put(tmp_path / kind, names(2))
    write(tmp_path, text, "about.csv")
    assert open_source(str(tmp_path), {}, tmp_path).classes == ("cat", "dog")
