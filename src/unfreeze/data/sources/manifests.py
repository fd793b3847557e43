"""A table of files, CSV or Parquet: columns path and label, if wanted split, fold and group; others are kept."""

import csv
import os
import warnings
from collections import Counter
from pathlib import Path, PurePath
from typing import Any

import pandas as pd

from unfreeze.data.sources.folders import check_names
from unfreeze.data.sources.near import near
from unfreeze.data.sources.source import SPLIT_NAMES, Ignored, Item, Source
from unfreeze.errors import UserError

SUFFIXES = (".csv", ".parquet")
MANIFEST = "a .csv or .parquet file with columns path and label"
_REQUIRED, _KNOWN = ("path", "label"), ("path", "label", "split", "fold", "group")
_LISTED = 5


def read_manifest(file: Path) -> Source:
    """Read a manifest; paths in it are relative to its folder, or absolute.

    Raises:
        UserError: it cannot be read, a column is missing, a path or label is empty, a path has a NUL, a split has
            another name than train, val or test, some rows have a split and some have none, a file is listed again with
            another split, fold or group, or there are fewer than two classes.
    """
    table = _table(file)
    _check_columns(file, list(table.columns))
    for column in _REQUIRED:
        _refuse(file, table.index[table[column] == ""], f"no {column}", f"a {column} in every row")
    _refuse(file, table.index[table["path"].str.contains("\0", regex=False)], "a NUL in the path", "paths of files")
    splits = _splits(file, table)
    items, ignored, seen = [], [], dict[tuple[str, str], int]()
    twice = []
    more = [column for column in table.columns if column not in _KNOWN]
    given = {column: [str(value) for value in table[column]] for column in table.columns}
    nothing = [""] * len(table)
    folds, groups = given.get("fold", nothing), given.get("group", nothing)
    for position, (path, label, split) in enumerate(zip(given["path"], given["label"], splits, strict=True)):
        place = PurePath(path).as_posix()
        whole = os.path.join(file.parent, place)  # so that an absolute path and a relative one are the same file
        first = seen.setdefault((whole, label), position)
        if first != position:
            ignored.append(Ignored(place, "listed twice with the same label"))
            if any(values[first] != values[position] for values in (splits, folds, groups)):
                twice.append(position)
            continue
        values = tuple((column, given[column][position]) for column in more)
        items.append(Item(place, label, split, "", groups[position], folds[position], values))
    what = "a file that is listed before with another split, fold or group"
    _refuse(file, table.index[twice], what, "one split, fold and group for each file")
    classes = set(table["label"])
    if len(classes) < 2:
        raise UserError(
            f"{file} has {len(classes)} classes: {', '.join(classes)}", "at least two", "add rows with another label"
        )
    check_names("label", file, classes)
    return Source({"": file.parent}, tuple(items), tuple(ignored), tuple(sorted(classes)))


def _table(file: Path) -> pd.DataFrame:
    """Return the table with every value as text, "" where there is none."""
    table = _csv(file) if file.suffix.lower() == ".csv" else _parquet(file)
    table = table.rename(columns=lambda name: str(name).strip())
    table = table.apply(lambda column: column.map(_text))
    table = table[(table != "").any(axis=1)]
    if table.empty:
        raise UserError(f"data: {file} has no rows", MANIFEST, "add a row for each image")
    return table


def _csv(file: Path) -> pd.DataFrame:
    try:
        with file.open(encoding="utf-8-sig", newline="") as text:
            header = text.readline()
        separator = max(",;\t", key=header.count)
        names = next(csv.reader([header], delimiter=separator), [])
        _refuse_twice(file, names)  # pandas would number them
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            return pd.read_csv(
                file, dtype=str, keep_default_na=False, encoding="utf-8-sig", sep=separator, index_col=False,
                skip_blank_lines=False,  # they are taken out later, so that the others keep their numbers
            )  # fmt: skip
    except pd.errors.ParserWarning as error:  # of fields beyond the header's, which it would leave out
        raise UserError(
            f"data: {file} has rows with more fields than its first row, which has {len(names)}",
            MANIFEST,
            "name every column in the first row, and put fields that hold a separator in quotes",
        ) from error
    except UnicodeDecodeError as error:
        raise UserError(
            f"data: {file} is not UTF-8 text", f"{MANIFEST}, in UTF-8", "save it as UTF-8 (in a spreadsheet: CSV UTF-8)"
        ) from error
    except (OSError, ValueError, csv.Error) as error:  # what pandas raises on files that are no tables
        raise _unreadable(file, error) from error


def _parquet(file: Path) -> pd.DataFrame:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise UserError(
            f"data: {file}: nothing here reads Parquet", "pyarrow", "pip install pyarrow, or write the table as .csv"
        ) from error
    try:
        # What pandas notes in the file would make row labels of columns.
        table = parquet.read_table(file).to_pandas(ignore_metadata=True)
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        raise _unreadable(file, error) from error
    return table[[name for name in table.columns if not name.startswith("__index_level_")]]


def _unreadable(file: Path, error: Exception) -> UserError:
    return UserError(f"data: {file} cannot be read: {str(error).strip()}", MANIFEST, "write it anew")


def _text(value: Any) -> str:
    if pd.api.types.is_scalar(value) and pd.isna(value):
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()


def _check_columns(file: Path, columns: list[str]) -> None:
    _refuse_twice(file, columns)
    missing = [name for name in _REQUIRED if name not in columns]
    if missing:
        close = [f"{match[0]} to {name}" for name in missing if (match := near(name, columns))]
        raise UserError(
            f"data: {file} has columns {', '.join(columns)}, but not {' and '.join(missing)}",
            MANIFEST,
            f"rename {', '.join(close)}" if close else "name the columns in the first row",
        )
    for name in columns:
        if name not in _KNOWN and name.lower() in _KNOWN:
            raise UserError(
                f"data: {file} has a column {name}, which would not be used",
                f"{name.lower()}, or a name that is not like it",
                "rename the column",
            )


def _refuse_twice(file: Path, columns: list[str]) -> None:
    counts = Counter(name.strip() for name in columns)
    twice = [name for name, count in counts.items() if name and count > 1]
    if twice:
        raise UserError(f"data: {file} has two columns {', '.join(twice)}", MANIFEST, "rename one of them")


def _splits(file: Path, table: pd.DataFrame) -> list[str]:
    if "split" not in table or (table["split"] == "").all():
        return [""] * len(table)
    names = table["split"].str.lower()
    wrong = table.index[(names != "") & ~names.isin(list(SPLIT_NAMES))]
    _refuse(file, wrong, f"split {', '.join(sorted(set(table['split'][wrong]))[:_LISTED])}", "train, val or test")
    _refuse(file, table.index[names == ""], "no split, though others have one", "a split in every row, or in none")
    return [SPLIT_NAMES[name] for name in names]


def _refuse(file: Path, rows: pd.Index, what: str, expected: str) -> None:
    if not len(rows):
        return
    unit, first = ("line", 2) if file.suffix.lower() == ".csv" else ("row", 1)  # a CSV file has a header
    listed = ", ".join(str(row + first) for row in rows[:_LISTED]) + (", ..." if len(rows) > _LISTED else "")
    units = unit if len(rows) == 1 else f"{unit}s"
    raise UserError(f"data: {file}: {what} in {len(rows)} {units}: {listed}", expected, f"correct these {unit}s")
