"""Tables of files: CSV and Parquet."""

from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.pictures import save
from tests.support.tables import TABLE, after, columns_in, done, labels, put, read_back, refused, source, write
from unfreeze.config.schema import SplitConfig
from unfreeze.data.catalog import build_catalog, preview_catalog
from unfreeze.data.sources import open_source
from unfreeze.data.sources.source import Ignored, Item, Source
from unfreeze.data.split import draw_split
from unfreeze.errors import UserError


def read(folder: Path, text: str) -> Source:
    """Read a table, after its files 1.jpg to 3.jpg, or .png, are there."""
    put(folder, [f"{number}.{end}" for number in range(1, 4) for end in ("jpg", "png")] + ["1", "2", "3"])
    return source(folder, text)


def message(folder: Path, text: str) -> str:
    with pytest.raises(UserError) as caught:
        read(folder, text)
    return str(caught.value)


def test_path_and_label(tmp_path):
    put(tmp_path, ["data/one/1.jpg", "elsewhere/2.jpg"])
    found = source(tmp_path / "data", f"path,label\none/1.jpg,cat\n{tmp_path}/elsewhere/2.jpg,dog\n")
    items = (Item(f"{tmp_path}/elsewhere/2.jpg", "dog", "", ""), Item("one/1.jpg", "cat", "", ""))
    assert found == Source({"": tmp_path / "data"}, items, (), ("cat", "dog"), "table")


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
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
    put(tmp_path, ["1.jpg", "2.jpg"])
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
    put(tmp_path, ["1.jpg", "2.jpg"])
    error = refused(tmp_path, f"path,label,{column}\n1.jpg,a,{one}\n2.jpg,b,{one}\n./1.jpg,a,{other}\n1.jpg,a,{one}\n")
    assert str(error) == (
        f"data: {tmp_path / 'images.csv'}: a file that was listed before with another split, fold or group"
        " in 1 line: 4\n"
        "  expected: one split, fold and group for each file\n"
        f"  fix:      correct these lines, or change a copy: {command(tmp_path, FIRST)}"
    )
    assert labels(after(error)) == {"1.jpg": "a", "2.jpg": "b"}


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
        "  fix:      take split.group out of the study, or the column out of the data"
    )
    assert build_catalog(source, group="group").images["group"].tolist() == ["p1", "p2"]  # its own name says the same


def test_a_column_that_is_not_there_names_those_that_are(tmp_path):
    save(tmp_path / "1.png")
    source = read(tmp_path, "path,label,patient,site\n1.png,a,p1,x\n2.png,b,p2,y\n")
    with pytest.raises(UserError) as caught:
        build_catalog(source, group="patients")
    assert str(caught.value) == (
        "split.group: patients: 2 of 2 paths do not match, first 1.png\n"
        "  expected: an expression that matches the path of every image, or a column of the data: patient, site\n"
        "  fix:      widen the expression; .*(PART)| leaves images without PART in no group"
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
    assert preview_catalog(source, group="patient").images["group"].tolist() == ["007", "", "007"]
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
        "  expected: as many values as folds, one in every row\n"
        "  fix:      say folds: 3, or fix the column"
    )


KEEP = "t = t[~t['label'].str.strip().str.lower().isin(['', '<na>', 'nan', 'null'])]"
FIRST = (
    "t = t.assign(_file=[p.replace(chr(92), '/').removeprefix('./') for p in t['path']])"
    ".drop_duplicates('_file').drop(columns='_file')"
)


def command(folder: Path, change: str) -> str:
    return (
        f"python -c \"import pandas as pd; t = pd.read_csv('{folder}/images.csv', dtype=str, keep_default_na=False); "
        f"{change}; t.to_csv('{folder}/images_fixed.csv', index=False)\", then give {folder}/images_fixed.csv"
    )


@pytest.mark.parametrize(
    ("text", "given", "expected", "fix"),
    [
        ("path,label\n", "{file} has no rows", TABLE, "add a row for each image: images/1.jpg,cat"),
        ("path,label\n\n,\n", "{file} has no rows", TABLE, "add a row for each image: images/1.jpg,cat"),
        (
            "path,label\n1,a,x\n2,b,y\n", "{file} has rows with more fields than its first row, which has 2", TABLE,
            "put fields that hold a separator in quotes, or name every column in the first row: path,label,column3",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_manifest(tmp_path, text, given, expected, fix):
    file = tmp_path / "images.csv"
    told = message(tmp_path, text)
    assert told == f"data: {given.format(file=file)}\n  expected: {expected}\n  fix:      {fix}"


@pytest.mark.parametrize(
    ("text", "given", "expected", "change", "left"),
    [
        (
            "path,label\n1,a\n,b\n3,\n2,c\n", "no path in 1 line: 3", "a path in every row",
            "t = t[t['path'].str.strip().ne('')]", [["1", "a"], ["3", ""], ["2", "c"]],
        ),
        (
            "path,label\r\n\r\n1,a\r\n \r\n2,\r\n,\r\n", "no label in 1 line: 5", "a label in every row", KEEP,
            [["1", "a"]],
        ),
        ("path,label\n1,a\n2,nan\n", "no label in 1 line: 3", "a label in every row", KEEP, [["1", "a"]]),
        (
            "path,label\n1,a\n2\0,b\n", "a NUL in the path in 1 line: 3", "paths of files",
            "t = t[~t['path'].str.contains(chr(0), regex=False)]", [["1", "a"]],
        ),
        (
            "path,label,split\n1,a,train\n2,b,x\n", "split x in 1 line: 3", "train, val or test",
            "t = t[~t['split'].str.strip().isin(['x'])]", [["1", "a", "train"]],
        ),
        (
            "path,label,split\n1,a,train\n2,b,\n", "no split, although others have one in 1 line: 3",
            "a split in every row, or in none", "t = t[t['split'].str.strip().ne('')]", [["1", "a", "train"]],
        ),
    ],
)  # fmt: skip
def test_rows_that_are_wrong_are_left_out_by_a_command(tmp_path, text, given, expected, change, left):
    put(tmp_path, ["1", "2", "3"])
    error = refused(tmp_path, text)
    assert str(error) == (
        f"data: {tmp_path / 'images.csv'}: {given}\n"
        f"  expected: {expected}\n"
        f"  fix:      correct these lines, or change a copy: {command(tmp_path, change)}"
    )
    assert read_back(done(error)) == left


@pytest.mark.parametrize("header", ["path,label,label", "path,label, label"])
def test_two_columns_of_one_name_are_refused_and_numbered_by_a_command(tmp_path, header):
    put(tmp_path, ["1", "2"])
    error = refused(tmp_path, f"{header}\n1,a,b\n2,b,a\n")
    assert str(error) == (
        f"data: {tmp_path / 'images.csv'} has two columns label\n"
        f"  expected: {TABLE}\n"
        '  fix:      rename one of them, or number the second one: python -c "import pandas as pd; '
        f"pd.read_csv('{tmp_path}/images.csv', dtype=str, keep_default_na=False, sep=None, engine='python', "
        f"skipinitialspace=True).to_csv('{tmp_path}/images_fixed.csv', index=False)\", then give "
        f"{tmp_path}/images_fixed.csv"
    )
    assert labels(after(error)) == {"1": "a", "2": "b"}


def test_lines_with_other_numbers_of_fields_are_refused_and_left_out_by_a_command(tmp_path):
    put(tmp_path, ["1", "2", "3"])
    error = refused(tmp_path, "path,label\n1,a\n2,b,c,d\n3,b\n")
    assert str(error) == (
        f"data: {tmp_path / 'images.csv'} cannot be read: Error tokenizing data. C error: Expected 2 fields in line 3, "
        "saw 4\n"
        f"  expected: {TABLE}\n"
        '  fix:      correct that line, or leave out such lines: python -c "import pandas as pd; '
        f"pd.read_csv('{tmp_path}/images.csv', dtype=str, keep_default_na=False, on_bad_lines='skip')"
        f".to_csv('{tmp_path}/images_fixed.csv', index=False)\", then give {tmp_path}/images_fixed.csv"
    )
    assert labels(after(error)) == {"1": "a", "3": "b"}


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_unicode_in_any_form_is_read(tmp_path, encoding):
    put(tmp_path, ["1.jpg", "2.jpg"])
    write(tmp_path, "path,label\n1.jpg,dog\n2.jpg,\xe9t\xe9\n", encoding=encoding)
    found = open_source("images.csv", {}, tmp_path)
    assert (found.classes, found.guessed) == (("dog", "\xe9t\xe9"), ())


def test_another_encoding_is_taken_for_cp1252_and_reported(tmp_path):
    put(tmp_path, ["1.jpg", "2.jpg"])
    write(tmp_path, "path,label\n1.jpg,dog\n2.jpg,\xe9t\xe9\n", encoding="cp1252")
    found = open_source("images.csv", {}, tmp_path)
    assert (found.classes, found.guessed) == (("dog", "\xe9t\xe9"), (
        "images.csv is not UTF-8 and is read as cp1252 (Windows, Western European); if names look wrong, save it as "
        "UTF-8",
    ))  # fmt: skip


def test_text_in_no_encoding_is_refused(tmp_path):
    put(tmp_path, ["1.jpg", "2.jpg"])
    (tmp_path / "images.csv").write_bytes(b"path,label\n1.jpg,dog\n2.jpg,\x81\n")
    with pytest.raises(UserError) as caught:
        open_source("images.csv", {}, tmp_path)
    assert str(caught.value) == (
        f"data: {tmp_path}/images.csv is not text in UTF-8, UTF-16 or cp1252\n"
        f"  expected: {TABLE}\n"
        f"  fix:      save it as UTF-8: python -c \"import pathlib; pathlib.Path('{tmp_path}/images_utf8.csv')"
        f".write_text(pathlib.Path('{tmp_path}/images.csv').read_text('latin-1'), 'utf-8')\", then give "
        f"{tmp_path}/images_utf8.csv"
    )
    assert after(caught.value).classes == ("dog", "\x81")


@pytest.mark.parametrize("name", ["images.tsv", "images.TAB", "images.txt"])
def test_tables_with_tabs_by_any_name(tmp_path, name):
    put(tmp_path, ["1.jpg", "2.jpg"])
    assert labels(source(tmp_path, "path\tlabel\n1.jpg\tcat, old\n2.jpg\tdog\n", name)) == {
        "1.jpg": "cat, old", "2.jpg": "dog",
    }  # fmt: skip


def test_json_lines(tmp_path):
    put(tmp_path, ["1.jpg", "2.jpg"])
    text = '{"file_name": "1.jpg", "label": "cat"}\n\n{"file_name": "2.jpg", "label": 3, "box": [1, 2]}\n'
    found = source(tmp_path, text, "metadata.jsonl")
    assert found.items == (
        Item("1.jpg", "cat", "", "", "", "", (("box", ""),)),
        Item("2.jpg", "3", "", "", "", "", (("box", '["1", "2"]'),)),
    )  # fmt: skip
    error = refused(tmp_path, '{"path": "1.jpg"}\n[1]\n', "images.jsonl")
    assert str(error) == (
        f"data: {tmp_path}/images.jsonl cannot be read: line 2 is not an object such as "
        '{"path": "images/1.jpg", "label": "cat"}\n'
        f"  expected: {TABLE}\n"
        "  fix:      write it again, for example as lines such as path,label and images/1.jpg,cat in a .csv file"
    )


def test_a_spreadsheet_is_refused_with_two_ways_to_save_it(tmp_path):
    error = refused(tmp_path, "PK", "images.xlsx")
    assert str(error) == (
        f"data: {tmp_path}/images.xlsx is a table in an unsupported format (.xlsx)\n"
        f"  expected: {TABLE}\n"
        '  fix:      save it as CSV UTF-8 in the spreadsheet, or: pip install openpyxl; python -c "import pandas as pd'
        f"; pd.read_excel('{tmp_path}/images.xlsx', dtype=str).to_csv('{tmp_path}/images.csv', index=False)\", then "
        f"give {tmp_path}/images.csv"
    )


def test_json_is_refused_and_converted_by_a_command(tmp_path):
    put(tmp_path, ["1.jpg", "2.jpg"])
    error = refused(tmp_path, '[{"path": "1.jpg", "label": "a"}, {"path": "2.jpg", "label": "b"}]', "images.json")
    assert labels(after(error)) == {"1.jpg": "a", "2.jpg": "b"}


@pytest.mark.parametrize(("name", "separator"), [("images.csv", ","), ("images.csv", ";"), ("list.txt", " ")])
def test_a_list_without_a_header_loses_no_image(tmp_path, name, separator):
    put(tmp_path, ["a/1.jpg", "a/2.jpg", "a/3.jpg"])
    lines = [f"a/{number}.jpg{separator}{label}" for number, label in ((1, "cat"), (2, "dog"), (3, "dog"))]
    found = source(tmp_path, "\n".join(lines), name)
    assert labels(found) == {"a/1.jpg": "cat", "a/2.jpg": "dog", "a/3.jpg": "dog"}
    assert found.guessed == (
        f"{name} has no header, so its columns are called 1 to 2 and its first line is an image; a first line such as "
        f"path{separator}label names them",
        "the column 1 names the files, and 2 is the label; columns: {path: '1', label: '2'} says otherwise",
    )
    told = source(tmp_path, "\n".join([f"path{separator}label", *lines]), name)
    assert (told.items, told.guessed) == (found.items, ())


def test_what_is_wrong_with_a_parquet_file(tmp_path):
    pd.DataFrame({"path": ["1", "2"], "label": ["a", None]}).to_parquet(tmp_path / "images.parquet")
    with pytest.raises(UserError) as caught:
        open_source("images.parquet", {}, tmp_path)
    change = "t = t[~t['label'].str.strip().str.lower().isin(['', '<na>', 'nan', 'null'])]"
    assert str(caught.value) == (
        f"data: {tmp_path / 'images.parquet'}: no label in 1 row: 2\n"
        "  expected: a label in every row\n"
        "  fix:      correct these rows, or change a copy: "
        + command(tmp_path, change).replace(
            f"read_csv('{tmp_path}/images.csv', dtype=str, keep_default_na=False)",
            f"read_parquet('{tmp_path}/images.parquet').astype(object).fillna('').astype(str)",
        )
    )
    assert read_back(done(caught.value)) == [["1", "a"]]
    (tmp_path / "images.parquet").write_bytes(b"no table")
    with pytest.raises(UserError, match="cannot be read: ") as caught:
        open_source("images.parquet", {}, tmp_path)
    assert caught.value.expected == TABLE


def test_one_class_only(tmp_path):
    file = tmp_path / "images.csv"
    assert message(tmp_path, "path,label\n1,a\n2,a\n") == (
        f"{file} has 1 classes: a\n  expected: at least two\n  fix:      add rows with another label: images/2.jpg,dog"
    )
    error = refused(tmp_path, "path,label,kind\n1,a,x\n2,a,y\n3,a,y\n1.jpg,a,x\n")
    assert str(error) == (
        f"{file} has 1 classes: a\n  expected: at least two\n  fix:      add rows with another label, or name another "
        'column: --set "columns={label: kind}" (in a study file: columns: {label: kind})'
    )
    assert open_source("images.csv", {}, tmp_path, columns=columns_in(error.fix)).classes == ("x", "y")


def test_labels_that_could_be_confused(tmp_path):
    assert message(tmp_path, "path,label\n1,Cat\n2,cat\n").startswith(
        f"the labels 'Cat' and 'cat' in {tmp_path / 'images.csv'} differ only in case, white space or Unicode form"
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


@settings(deadline=None, max_examples=80)
@given(st.data())
def test_a_damaged_table_is_read_or_refused(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("damaged")
    pd.DataFrame({"path": ["1", "2"], "label": ["a", "b"]}).to_parquet(folder / "whole.parquet")
    name, whole = data.draw(st.sampled_from([("m.csv", WHOLE), ("m.parquet", (folder / "whole.parquet").read_bytes())]))
    content = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content)))
        content[place : place + data.draw(st.integers(0, 3))] = data.draw(
            st.sampled_from(PIECES) | st.binary(max_size=2)
        )
    put(folder, ["1.jpg", "2.jpg", "3.jpg", "1", "2"])
    (folder / name).write_bytes(content[: data.draw(st.integers(len(content) // 2, len(content)))])
    try:
        found = open_source(name, {}, folder)
    except UserError as error:
        assert str(error).count("\n  ") >= 2
        return
    assert found.items and len(found.classes) > 1


names = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\x00"), min_size=1, max_size=12)


@settings(deadline=None, max_examples=30)
@given(
    st.lists(
        st.tuples(names, st.sampled_from(["a", "b"])), min_size=2, max_size=8, unique_by=lambda row: row[0].strip()
    )
)
def test_any_name_comes_back(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("any")
    rows = [(path.strip(), label) for path, label in rows if _can_be_a_file(folder, path.strip())]
    if len({label for _, label in rows}) < 2:
        return
    pd.DataFrame(rows, columns=["path", "label"]).to_csv(folder / "images.csv", index=False)
    found = open_source("images.csv", {}, folder)
    assert {(item.path, item.label) for item in found.items} >= {
        (path, label) for path, label in rows if path == Path(path).as_posix()
    }


def _can_be_a_file(folder: Path, name: str) -> bool:
    try:
        (folder / name).touch(exist_ok=False)
    except OSError:
        return False
    return name != "" and name != "images.csv"
