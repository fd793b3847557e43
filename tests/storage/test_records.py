"""Records, tables and tensors are read as they were written, or refused as altered."""

import csv
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from unfreeze.errors import UserError
from unfreeze.storage.array_store import entry
from unfreeze.storage.records import (
    Altered,
    read_json,
    read_table,
    read_tensors,
    write_json,
    write_table,
    write_tensors,
)
from unfreeze.storage.study_dir import StudyDir


def test_a_record_says_its_format_first_and_its_checksum_last(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"name": "café", "n": 1})
    assert (tmp_path / "a.json").read_text("utf-8") == (
        '{\n "format": 1,\n "name": "café",\n "n": 1,\n '
        '"checksum": "ce0a66776b9fb320ce3d03be748ea5dfc6390395ed8049038affb6ac0a9be0b0"\n}\n'
    )
    assert read_json(tmp_path / "a.json") == {"format": 1, "name": "café", "n": 1}


def test_a_record_never_holds_what_is_not_json(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"loss": 1.0})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"loss": math.nan})
    assert read_json(tmp_path / "a.json") == {"format": 1, "loss": 1.0}
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [('{"format": 2}', "2"), ('{"a": 1}', "None"), ("[1]", "unknown"), ('{"format": "1"}', "1")],
)
def test_a_record_of_another_format(tmp_path: Path, text: str, shown: str) -> None:
    path = tmp_path / "plan.json"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        read_json(path)
    assert str(caught.value) == (
        f"{path} has format {shown}\n  expected: format 1\n"
        "  fix:      use the version of unfreeze that wrote it, or give another --out DIR"
    )


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b'{"format": 1, "a"', "Expecting ':' delimiter: line 1 column 18 (char 17)"),
        (b"", "Expecting value: line 1 column 1 (char 0)"),
        (b"\xff\x00", "Expecting value: line 1 column 1 (char 0)"),
    ],
)
def test_a_broken_record(tmp_path: Path, content: bytes, problem: str) -> None:
    path = tmp_path / "plan.json"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_json(path)
    assert str(caught.value) == (
        f"{path} cannot be read: {problem}\n  expected: a JSON file written by unfreeze\n"
        "  fix:      delete it and run the study again; only what is missing is computed"
    )


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.text().filter(lambda key: key not in ("format", "checksum")), JSON, max_size=3))
def test_any_record_comes_back(tmp_path: Path, record: dict[str, Any]) -> None:
    write_json(tmp_path / "a.json", record)
    assert read_json(tmp_path / "a.json") == {"format": 1, **record}


def back(path: Path, table: pd.DataFrame) -> pd.DataFrame:
    write_table(path, table)
    return read_table(path)


def test_a_table_is_plain_csv(tmp_path: Path) -> None:
    write_table(tmp_path / "a.csv", pd.DataFrame({"cell": ["a.b.s0", ""], "loss": [0.1, math.nan], "n": [1, 2]}))
    assert (tmp_path / "a.csv").read_bytes() == b"cell,loss,n\na.b.s0,0.1,1\n,,2\n"


def test_types_survive_a_table(tmp_path: Path) -> None:
    text = pd.StringDtype("python", na_value=math.nan)  # whatever pandas would take where pyarrow is installed
    table = pd.DataFrame(
        {
            "cell": pd.Series(["head.small.s0", "head.full.s0"], dtype=text),
            "chosen": pd.Series(["", ""], dtype=text),
            "n_train": [80, 400],
            "test_accuracy": [math.nan, math.nan],
            "val_loss": [0.1 + 0.2, 1e-300],
            "fold": [math.nan, 1.0],
            "used": [True, False],
        }
    )
    read = back(tmp_path / "a.csv", table)
    pd.testing.assert_frame_equal(read, table, check_exact=True, check_column_type=False)
    assert [dtype.kind for dtype in read.dtypes[2:]] == ["i", "f", "f", "f", "b"]


@pytest.mark.parametrize("column", ["label", "strategy", "regime", "id", "group", "reason", "candidate"])
def test_text_that_looks_like_something_else_stays_text(tmp_path: Path, column: str) -> None:
    words = ["007", "1e5", "12e4567890123456", "NA", "nan", "None", "True", "inf", "", " a ", "1_000", "-", "0x10"]
    for table in (pd.DataFrame({column: words}), *(pd.DataFrame({column: [word], "n": [1]}) for word in words)):
        assert back(tmp_path / "a.csv", table)[column].tolist() == table[column].tolist()


@pytest.mark.parametrize(
    ("text", "formula"),
    [
        ("=1+1", True), ("=cmd|' /C calc'!A0", True), ("+1+1", True), ("-1+1", True), ("@SUM(A1)", True),
        ("\t=1", True), ("\r=1", True), ("-rf", True), ("'=1", True), ("-1", False), ("+1.5e-3", False),
        ("-.5", False), ("a=1", False), ("'tis", False), ("'", False), ("", False),
    ],
)  # fmt: skip
def test_what_a_spreadsheet_would_run_is_shielded_and_comes_back(tmp_path: Path, text: str, formula: bool) -> None:
    table = pd.DataFrame({"label": [text, "b"], "data_site": ["b", text], "n": [-1, 2]})
    assert back(tmp_path / "a.csv", table)[["label", "data_site"]].to_numpy().tolist() == [[text, "b"], ["b", text]]
    shown = pd.read_csv(tmp_path / "a.csv", keep_default_na=False, dtype=str)
    assert shown["label"].tolist() == [f"'{text}" if formula else text, "b"]
    assert shown["n"].tolist() == ["-1", "2"]


HOSTILE = st.text(st.sampled_from("'=+-@\t\r\n1.e,\" a"), max_size=6)


@settings(deadline=None, max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(HOSTILE, min_size=1, max_size=4))
def test_no_field_of_a_table_begins_as_a_formula_and_all_come_back(tmp_path: Path, texts: list[str]) -> None:
    table = pd.DataFrame({"label": texts})
    assert back(tmp_path / "a.csv", table)["label"].tolist() == texts
    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as file:
        fields = [row[0] for row in csv.reader(file) if row][1:]
    for field in fields:
        assert not field.startswith(("=", "@", "\t", "\r"))
        if field.startswith(("+", "-")):
            float(field)  # raises on a formula


def test_bytes_of_a_file_name_that_is_not_utf_8_stay(tmp_path: Path) -> None:
    path = os.fsdecode(b"caf\xe9.jpg")
    table = pd.DataFrame({"path": [path]}, dtype=object)
    assert back(tmp_path / "a.csv", table)["path"].tolist() == [path]
    write_json(tmp_path / "a.json", {"path": path})
    assert read_json(tmp_path / "a.json")["path"] == path


def test_a_table_without_rows_keeps_its_columns(tmp_path: Path) -> None:
    assert list(back(tmp_path / "a.csv", pd.DataFrame(columns=["cell", "n"])).columns) == ["cell", "n"]


FIELDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=8)
ROWS = st.lists(st.tuples(FIELDS, st.floats(), st.integers(-(2**63), 2**63 - 1)), min_size=1, max_size=5)


@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ROWS)
def test_any_table_comes_back(tmp_path: Path, rows: list[tuple[str, float, int]]) -> None:
    table = pd.DataFrame(rows, columns=["label", "val_loss", "n"])
    read = back(tmp_path / "a.csv", table)
    assert read["label"].tolist() == table["label"].tolist()
    assert read["n"].tolist() == table["n"].tolist()
    np.testing.assert_array_equal(read["val_loss"], table["val_loss"])  # every bit, and NaN where NaN was


def test_a_cell_is_finished_when_its_result_is_there_and_of_this_plan(tmp_path: Path) -> None:
    study, cell = StudyDir(tmp_path), {"cell": "head.small.s0", "fingerprint": "ab"}
    folder = study.cell("head.small.s0")
    assert folder == tmp_path / "cells" / "head.small.s0"
    write_json(folder / "cell.json", {"fingerprint": "ab"})
    assert not study.is_finished(cell) and not study.is_stale(cell)
    write_json(folder / "result.json", {})
    assert study.is_finished(cell) and not study.is_stale(cell)
    changed = cell | {"fingerprint": "cd"}
    assert not study.is_finished(changed) and study.is_stale(changed)
    (folder / "cell.json").unlink()
    assert not study.is_finished(cell)


def test_planned_cells_come_from_the_plan(tmp_path: Path) -> None:
    study = StudyDir(tmp_path)
    with pytest.raises(UserError) as caught:
        study.planned_cells()
    assert str(caught.value) == (
        f"{tmp_path} does not contain a study: plan.json is missing\n"
        "  expected: a directory that 'unfreeze run' wrote\n"
        "  fix:      give the directory that --out named, by default runs/NAME"
    )
    write_json(tmp_path / "plan.json", {"cells": [{"cell": "b"}, {"cell": "a"}]})
    assert [cell["cell"] for cell in study.planned_cells()] == ["b", "a"]


def test_scalars_stay_scalars(tmp_path: Path) -> None:
    write_tensors(tmp_path / "a.safetensors", {"count": np.array(7), "row": np.arange(3)[::-1]}, {})
    tensors, _ = read_tensors(tmp_path / "a.safetensors")
    assert tensors["count"].shape == () and tensors["count"] == 7
    assert tensors["row"].tolist() == [2, 1, 0]


@pytest.mark.parametrize("about", ["5", "[1]", "{", "[" * 100_000, "1" * 5000], ids=lambda about: about[:3])
def test_what_is_said_of_arrays_is_read_or_refused(tmp_path: Path, about: str) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"count": np.array(7)}, path, {"unfreeze": about})
    with pytest.raises(Altered) as caught:
        read_tensors(path)
    assert str(caught.value) == (
        f"{path} was altered or truncated: its arrays cannot be read\n  expected: the file as unfreeze wrote it\n"
        "  fix:      run the study again; only what is missing is computed"
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["arrays", "rows"])
def test_more_bytes_than_a_system_writes_or_reads_at_once(tmp_path: Path, kind: str) -> None:
    """Linux moves no more than 2,147,479,552 bytes a call."""
    array = np.zeros(2**31 + 10**6, np.uint8)
    array[[0, 2**31 - 1, 2**31, -1]] = 1, 2, 3, 4
    if kind == "arrays":
        write_tensors(tmp_path / "a.safetensors", {"small": np.ones(3), "large": array}, {})
        back = read_tensors(tmp_path / "a.safetensors")[0]["large"]
    else:
        rows = entry(tmp_path, "pixels", "x", {}, "uint8")
        with rows.writer() as writer:
            writer.add(("ab", 0), array)
        back = rows.open([("ab", 0)], lambda count: pytest.fail(f"{count} chunks altered")).read(0)
    assert np.array_equal(back, array)
