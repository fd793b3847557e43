"""Tables of files: CSV and Parquet."""

from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.pictures import save
from unfreeze.config.study import SplitConfig
from unfreeze.data.catalog import build_catalog, glance
from unfreeze.data.sources import Ignored, Item, Source, open_source
from unfreeze.data.splits import draw_split
from unfreeze.errors import UserError

NAME_THEM = "name the columns in the first row"
EXPECTED = "a .csv or .parquet file with columns path and label"


def write(folder: Path, text: str, name: str = "images.csv") -> str:
    (folder / name).write_text(text, encoding="utf-8")
    return name


def read(folder: Path, text: str) -> Source:
    return open_source(write(folder, text), {}, folder)


def message(folder: Path, text: str) -> str:
    with pytest.raises(UserError) as caught:
        read(folder, text)
    return str(caught.value)


def test_path_and_label(tmp_path):
    found = read(tmp_path, "path,label\none/1.jpg,cat\n/elsewhere/2.jpg,dog\n")
    assert found == Source(
        {"": tmp_path}, (Item("/elsewhere/2.jpg", "dog", "", ""), Item("one/1.jpg", "cat", "", "")), (), ("cat", "dog")
    )


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_all_columns_and_every_separator(tmp_path, separator):
    rows = [
        ["path", "label", "split", "fold", "group", "camera"],
        ["1.jpg", "007", "train", "", "g1", "Nikon"],
        ["2.jpg", "NA", "Val", "", "", "NaN"],
        ["3.jpg", "NA", "test", "", "g2", ""],
    ]
    found = read(tmp_path, "\ufeff" + "\n".join(separator.join(row) for row in rows))
    assert found.classes == ("007", "NA")
    assert found.items == (
        Item("1.jpg", "007", "train", "", "g1", "", (("camera", "Nikon"),)),
        Item("2.jpg", "NA", "validation", "", "", "", (("camera", "NaN"),)),
        Item("3.jpg", "NA", "test", "", "g2", "", (("camera", ""),)),
    )


def test_parquet_says_the_same(tmp_path):
    table = pd.DataFrame({"path": ["1.jpg", "2.jpg"], "label": [3, 4], "fold": [0.0, 1.0], "site": ["x", None]})
    table.to_parquet(tmp_path / "images.parquet")
    found = open_source("images.parquet", {}, tmp_path)
    assert found.items == (
        Item("1.jpg", "3", "", "", "", "0", (("site", "x"),)), Item("2.jpg", "4", "", "", "", "1", (("site", ""),)),
    )  # fmt: skip

    table.set_index("path").to_parquet(tmp_path / "indexed.parquet")
    assert set(open_source("indexed.parquet", {}, tmp_path).items) == set(found.items)
    table.iloc[[1, 0]].to_parquet(tmp_path / "sorted.parquet")  # keeps where its rows came from
    assert open_source("sorted.parquet", {}, tmp_path).items == found.items


@pytest.mark.parametrize("again", ["1.jpg", "./1.jpg", "{folder}/1.jpg"])
def test_a_file_listed_twice_counts_once(tmp_path, again):
    again = again.format(folder=tmp_path)
    found = read(tmp_path, f"path,label\n1.jpg,a\n{again},a\n2.jpg,b\n")
    assert [item.path for item in found.items] == ["1.jpg", "2.jpg"]
    assert found.ignored == (Ignored(Path(again).as_posix(), "listed twice with the same label"),)


@pytest.mark.parametrize(("column", "values"), [("split", "train test"), ("group", "p1 p2"), ("fold", "0 1")])
def test_a_file_listed_twice_with_another_split_group_or_fold_is_refused(tmp_path, column, values):
    one, other = values.split()
    with pytest.raises(UserError) as caught:
        read(tmp_path, f"path,label,{column}\n1.jpg,a,{one}\n2.jpg,b,{one}\n./1.jpg,a,{other}\n1.jpg,a,{one}\n")
    assert str(caught.value) == (
        f"data: {tmp_path / 'images.csv'}: a file that is listed before with another split, fold or group"
        " in 1 line: 4\n"
        "  expected: one split, fold and group for each file\n"
        "  to mend:  correct these lines"
    )


@pytest.mark.parametrize("column", ["Split", "GROUP", "Fold", "Path"])
def test_a_column_that_would_count_but_for_its_case_is_refused(tmp_path, column):
    with pytest.raises(UserError) as caught:
        read(tmp_path, f"path,label,{column}\n1.jpg,a,train\n2.jpg,b,test\n")
    assert str(caught.value) == (
        f"data: {tmp_path / 'images.csv'} has a column {column}, which would not be used\n"
        f"  expected: {column.lower()}, or a name that is not like it\n"
        "  to mend:  rename the column"
    )


def test_a_file_listed_under_two_labels_is_a_conflict(tmp_path):
    save(tmp_path / "1.png")
    save(tmp_path / "2.png", 1)
    images = build_catalog(read(tmp_path, "path,label\n1.png,a\n1.png,b\n2.png,b\n")).images
    assert images["status"].tolist() == ["set_aside", "set_aside", "used"]
    assert set(images["reason"][:2]) == {"copies have different labels: a and b"}


def test_files_that_are_not_there_are_set_aside_and_columns_kept(tmp_path):
    save(tmp_path / "1.png")
    images = build_catalog(read(tmp_path, "path,label,group,site\n1.png,a,p1,north\ngone.png,b,p2,south\n")).images
    assert images["reason"].tolist() == ["", "cannot be read: no such file or directory"]
    assert images["group"].tolist() == ["p1", "p2"]
    assert images["data_site"].tolist() == ["north", "south"]


def test_a_group_column_and_a_group_expression_are_one_too_many(tmp_path):
    source = read(tmp_path, "path,label,group\n1.png,a,p1\n2.png,b,p2\n")
    with pytest.raises(UserError) as caught:
        build_catalog(source, group="x")
    assert str(caught.value) == (
        "split.group: x: the data has a column group already\n"
        "  expected: one way to say which images belong together\n"
        "  to mend:  take split.group out of the study, or the column out of the data"
    )
    assert build_catalog(source, group="group").images["group"].tolist() == ["p1", "p2"]  # its own name says the same


def test_a_column_that_is_not_there_names_those_that_are(tmp_path):
    save(tmp_path / "1.png")
    source = read(tmp_path, "path,label,patient,site\n1.png,a,p1,x\n2.png,b,p2,y\n")
    with pytest.raises(UserError) as caught:
        build_catalog(source, group="patients")
    assert str(caught.value) == (
        "split.group: patients: 1 of 1 paths do not match, first 1.png\n"
        "  expected: an expression that matches the path of every image, or a column of the data: patient, site\n"
        "  to mend:  widen the expression; .*(PART)| leaves images without PART in no group"
    )


def test_a_column_of_the_data_names_the_groups(tmp_path):
    save(tmp_path / "1.png")
    save(tmp_path / "2.png", 1)
    save(tmp_path / "3.png", 2)
    source = read(tmp_path, "path,label,patient\n1.png,a,007\n2.png,b,\n3.png,a,007\n")
    assert build_catalog(source, group="patient").images["group"].tolist() == ["007", "", "007"]
    assert build_catalog(read(tmp_path, "path,label,c++\n1.png,a,x\n2.png,b,y\n"), group="c++").images[
        "group"
    ].tolist() == ["x", "y"]  # which is no expression
    assert glance(source, group="patient").images["group"].tolist() == ["007", "", "007"]
    assert build_catalog(source, group=r"\d").images["group"].tolist() == ["1", "2", "3"]


def test_folds_that_the_data_gives(tmp_path):
    lines = ["path,label,fold"]
    for number in range(30):
        save(tmp_path / f"{number}.png", number)
        lines.append(f"{number}.png,{'ab'[number % 2]},{'xyz'[number // 10]}")
    catalog = build_catalog(read(tmp_path, "\n".join(lines)))
    rows = catalog.images.set_index("id")
    for fold, name in enumerate("xyz"):
        drawn = draw_split(catalog, SplitConfig(folds=3, val=0.2), fold)
        assert set(rows.loc[drawn.index[drawn == "test"], "given_fold"]) == {name}
        assert (drawn == "test").sum() == 10
        assert set(drawn) == {"train", "validation", "test"}
    with pytest.raises(UserError) as caught:
        draw_split(catalog, SplitConfig(folds=4), 0)
    assert str(caught.value) == (
        "split.folds: 4: the data's column fold has 3 values: x, y, z\n"
        "  expected: as many as there are folds, one in every row\n"
        "  to mend:  say folds: 3, or mend the column"
    )


@pytest.mark.parametrize(
    ("text", "given", "expected", "mend"),
    [
        ("file,label\n1,a\n", "{file} has columns file, label, but not path", EXPECTED, NAME_THEM),
        ("paths,label\n1,a\n", "{file} has columns paths, label, but not path", EXPECTED, "rename paths to path"),
        ("a,b\n1,a\n", "{file} has columns a, b, but not path and label", EXPECTED, NAME_THEM),
        ("path,label\n", "{file} has no rows", EXPECTED, "add a row for each image"),
        ("path,label\n1,a\n,b\n3,\n", "{file}: no path in 1 line: 3", "a path in every row", "correct these lines"),
        (
            "path,label\r\n\r\n1,a\r\n \r\n2,\r\n,\r\n", "{file}: no label in 1 line: 5", "a label in every row",
            "correct these lines",
        ),
        ("path,label,label\n1,a,b\n2,b,a\n", "{file} has two columns label", EXPECTED, "rename one of them"),
        ("path,label, label\n1,a,b\n2,b,a\n", "{file} has two columns label", EXPECTED, "rename one of them"),
        (
            "path,label\n1,a,x\n2,b,y\n", "{file} has rows with more fields than its first row, which has 2", EXPECTED,
            "name every column in the first row, and put fields that hold a separator in quotes",
        ),
        ("path,label\n\n,\n", "{file} has no rows", EXPECTED, "add a row for each image"),
        ("path,label\n1,a\n2\0,b\n", "{file}: a NUL in the path in 1 line: 3", "paths of files", "correct these lines"),
        (
            "path,label\n1,a\n2,b,c,d\n",
            "{file} cannot be read: Error tokenizing data. C error: Expected 2 fields in line 3, saw 4", EXPECTED,
            "write it anew",
        ),
        (
            "path,label,split\n1,a,train\n2,b,dev\n", "{file}: split dev in 1 line: 3", "train, val or test",
            "correct these lines",
        ),
        (
            "path,label,split\n1,a,train\n2,b,\n", "{file}: no split, though others have one in 1 line: 3",
            "a split in every row, or in none", "correct these lines",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_manifest(tmp_path, text, given, expected, mend):
    file = tmp_path / "images.csv"
    told = message(tmp_path, text)
    assert told == f"data: {given.format(file=file)}\n  expected: {expected}\n  to mend:  {mend}"


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16"])
def test_a_manifest_in_another_encoding(tmp_path, encoding):
    (tmp_path / "images.csv").write_bytes("path,label\n1.jpg,dog\n2.jpg,\xe9t\xe9\n".encode(encoding))
    with pytest.raises(UserError) as caught:
        open_source("images.csv", {}, tmp_path)
    assert str(caught.value) == (
        f"data: {tmp_path / 'images.csv'} is not UTF-8 text\n"
        f"  expected: {EXPECTED}, in UTF-8\n"
        "  to mend:  save it as UTF-8 (in a spreadsheet: CSV UTF-8)"
    )


def test_what_is_wrong_with_a_parquet_file(tmp_path):
    pd.DataFrame({"path": ["1", "2"], "label": ["a", None]}).to_parquet(tmp_path / "images.parquet")
    with pytest.raises(UserError) as caught:
        open_source("images.parquet", {}, tmp_path)
    assert str(caught.value) == (
        f"data: {tmp_path / 'images.parquet'}: no label in 1 row: 2\n"
        "  expected: a label in every row\n"
        "  to mend:  correct these rows"
    )
    (tmp_path / "images.parquet").write_bytes(b"no table")
    with pytest.raises(UserError, match="cannot be read: ") as caught:
        open_source("images.parquet", {}, tmp_path)
    assert caught.value.expected == EXPECTED


def test_one_class_only(tmp_path):
    assert message(tmp_path, "path,label\n1,a\n2,a\n") == (
        f"{tmp_path / 'images.csv'} has 1 classes: a\n  expected: at least two\n  to mend:  add rows with another label"
    )


def test_labels_that_could_be_confused(tmp_path):
    assert message(tmp_path, "path,label\n1,Cat\n2,cat\n").startswith(
        f"the labels 'Cat' and 'cat' in {tmp_path / 'images.csv'} differ only in case or Unicode form"
    )


def test_a_manifest_that_is_not_there(tmp_path):
    write(tmp_path, "path,label\n", "imagess.csv")
    with pytest.raises(UserError) as caught:
        open_source("images.csv", {}, tmp_path)
    text = str(caught.value)
    assert text.startswith(f"data: images.csv: the file {tmp_path / 'images.csv'} does not exist\n")
    assert text.endswith(f"correct the path; did you mean {tmp_path / 'imagess.csv'}?")


PIECES = [
    b'"',
    b",",
    b";",
    b"\t",
    b"\n",
    b"\r",
    b"\0",
    b"\xff",
    b"path",
    b"label",
    b"split",
    b"NaN",
    b"1e9",
    b"\xef\xbb\xbf",
]
WHOLE = b"path,label,split,fold,group,camera\n1.jpg,a,train,0,g,x\n2.jpg,b,val,1,g,y\n3.jpg,a,test,2,h,z\n"


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_a_damaged_manifest_is_read_or_refused(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("damaged")
    pd.DataFrame({"path": ["1", "2"], "label": ["a", "b"]}).to_parquet(folder / "whole.parquet")
    name, whole = data.draw(st.sampled_from([("m.csv", WHOLE), ("m.parquet", (folder / "whole.parquet").read_bytes())]))
    content = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content)))
        content[place : place + data.draw(st.integers(0, 3))] = data.draw(
            st.sampled_from(PIECES) | st.binary(max_size=2)
        )
    (folder / name).write_bytes(content[: data.draw(st.integers(len(content) // 2, len(content)))])
    try:
        found = open_source(name, {}, folder)
    except UserError as error:
        assert str(error).count("\n  ") >= 2
        return
    assert found.items and len(found.classes) > 1


names = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\x00"), min_size=1, max_size=12)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.tuples(names, st.sampled_from(["a", "b"])), min_size=2, max_size=8, unique_by=lambda row: row[0].strip()
    )
)
def test_any_name_comes_back(tmp_path_factory, rows):
    rows = [(path.strip(), label) for path, label in rows if path.strip()]
    if len({label for _, label in rows}) < 2:
        return
    folder = tmp_path_factory.mktemp("any")
    pd.DataFrame(rows, columns=["path", "label"]).to_csv(folder / "images.csv", index=False)
    found = open_source("images.csv", {}, folder)
    assert {(item.path, item.label) for item in found.items} >= {
        (path, label) for path, label in rows if path == Path(path).as_posix()
    }
