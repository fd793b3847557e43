"""Read a table of any usual format as text, and write commands that change a copy of it."""

import codecs
import csv
import io
import json
import re
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from unfreeze.data.fixes import python_command
from unfreeze.data.tables.head import HEAD_LINES, PICTURES, SEPARATORS, Head, read_head
from unfreeze.errors import UserError

__all__ = [
    "BYTES",
    "IN_FOLDERS",
    "PICTURES",
    "READ",
    "SUFFIXES",
    "TABLE",
    "Table",
    "key",
    "looks_like_a_table",
    "fix_command",
    "read_table",
    "refuse_rows",
]

TEXT = (".csv", ".tsv", ".tab", ".psv", ".txt")
LINES = (".jsonl", ".ndjson")

CONVERTED = {".xlsx": "read_excel", ".xls": "read_excel", ".ods": "read_excel", ".json": "read_json"}
"""Formats that are not read, and the pandas function that reads them."""

READ = (*TEXT, *LINES, ".parquet")

IN_FOLDERS = tuple(suffix for suffix in READ if suffix != ".txt")
"""Suffixes of tables that are searched in folders."""

SUFFIXES = (*READ, *CONVERTED)
TABLE = "a table (.csv, .tsv, .txt, .jsonl or .parquet) with a column of file paths and a column of labels"

BYTES = "<bytes>"
"""Text for a value of bytes, which is a picture in the table itself."""

_LISTED = 5
_SAMPLE = 2000
_AS_TEXT = ".astype(object).fillna('').astype(str)"


@dataclass(frozen=True)
class Table:
    """A table as text.

    Attributes:
        file: where it is.
        rows: all values as text without surrounding white space, "" if missing; indexed by the row's number in the
            file, from 0; without empty rows. Columns are named as in the file.
        unit, first: "line" or "row", and the number of row 0 in these units, as an editor shows it.
        reader: a Python expression that reads it with pandas, ``pd``.
        guessed: sentences on how it was read.
    """

    file: Path
    rows: pd.DataFrame
    unit: str
    first: int
    reader: str
    guessed: tuple[str, ...] = ()


def read_table(file: Path) -> Table:
    """Read a table as text.

    Raises:
        UserError: it cannot be read, has no rows, or has two columns of the same name.
    """
    suffix = file.suffix.lower()
    if suffix in CONVERTED:
        raise _not_read(file, CONVERTED[suffix])
    if suffix in TEXT or (suffix not in READ and not _are_objects(_sample(file))):
        table = _text_table(file)
    elif suffix == ".parquet":
        table = Table(file, _parquet(file), "row", 1, f"pd.read_parquet({_quoted(file)}){_AS_TEXT}")
    else:
        table = _json_lines(file)
    rows = table.rows.rename(columns=lambda name: str(name).strip())
    _refuse_twice(table, [str(name) for name in rows.columns])
    rows = rows.apply(lambda column: column.map(_text))
    rows = rows[(rows != "").any(axis=1)]
    if rows.empty:
        raise UserError(f"data: {file} has no rows", TABLE, "add a row for each image: images/1.jpg,cat")
    return Table(file, rows, table.unit, table.first, table.reader, table.guessed)


def looks_like_a_table(file: Path) -> bool:
    """Tell whether a file of any name is a text table: its first lines share a separator, or are JSON objects."""
    lines = _sample(file)
    return len(lines) > 1 and (_are_objects(lines) or any(all(sign in text for text in lines) for sign in SEPARATORS))


def _sample(file: Path) -> list[str]:
    """Return the first lines of a file that are not empty; none if it is not text."""
    try:
        with file.open("rb") as opened:
            content = opened.read(_SAMPLE)
        text = content.decode(_encoding(content), "ignore")
    except OSError:
        return []
    return [] if "\0" in text else [entry for entry in re.split(r"[\r\n]+", text)[:HEAD_LINES] if entry.strip()]


def _are_objects(lines: list[str]) -> bool:
    return bool(lines) and all(text.lstrip().startswith("{") for text in lines[:2])


def fix_command(table: Table, change: str) -> str:
    """Return a command that writes a changed copy beside a table, and what to give then.

    Args:
        table: the table.
        change: a Python statement that changes the pandas table ``t``.
    """
    out = table.file.with_name(f"{table.file.stem}_fixed.csv")
    script = f"import pandas as pd; t = {table.reader}; {change}; t.to_csv({_quoted(out)}, index=False)"
    return f"{python_command(script)}, then give {out}"


def refuse_rows(table: Table, rows: Any, what: str, expected: str, change: str) -> None:
    """Refuse a table with wrong rows, if there are any; ``change``: see ``fix_command``."""
    if not len(rows):
        return
    listed = ", ".join(str(row + table.first) for row in rows[:_LISTED]) + (", ..." if len(rows) > _LISTED else "")
    units = table.unit if len(rows) == 1 else f"{table.unit}s"
    raise UserError(
        f"data: {table.file}: {what} in {len(rows)} {units}: {listed}",
        expected,
        f"correct these {table.unit}s, or change a copy: {fix_command(table, change)}",
    )


def _quoted(path: Path) -> str:
    return repr(path.as_posix())


def _not_read(file: Path, reader: str) -> UserError:
    out = file.with_suffix(".csv")
    command = python_command(
        f"import pandas as pd; pd.{reader}({_quoted(file)}, dtype=str).to_csv({_quoted(out)}, index=False)"
    )
    by_hand = "save it as CSV UTF-8 in the spreadsheet, or: pip install openpyxl; " if reader == "read_excel" else ""
    return UserError(
        f"data: {file} is a table in an unsupported format ({file.suffix.lower()})",
        TABLE,
        f"{by_hand}{command}, then give {out}",
    )


def _text_table(file: Path) -> Table:
    try:
        content = file.read_bytes()
    except OSError as error:
        raise _unreadable(file, error) from error
    encoding = _encoding(content)
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        raise UserError(
            f"data: {file} is not text in UTF-8, UTF-16 or cp1252",
            TABLE,
            f"save it as UTF-8: {python_command(_recode(file))}, then give {_recoded(file)}",
        ) from error
    lines = re.split(r"\r\n?|\n", text, maxsplit=HEAD_LINES)[:HEAD_LINES]
    try:
        head = read_head(lines, file.suffix.lower() == ".txt")
    except csv.Error as error:
        raise _unreadable(file, error) from error
    guessed = []
    if encoding == "cp1252":
        guessed.append(
            f"{file.name} is not UTF-8 and is read as cp1252 (Windows, Western European); if names look wrong, save it "
            "as UTF-8"
        )
    if head.above and not head.in_comment:
        count = "line is" if head.above == 1 else f"{head.above} lines are"
        first = lines[0].strip(f"\ufeff{head.separator} ")
        guessed.append(
            f"the first {count} above the table and not read{f', first {first}' if first else ''}; a table whose first "
            "line names the columns has none"
        )
    if not head.named and not head.in_comment:
        guessed.append(
            f"{file.name} has no header, so its columns are called 1 to {len(head.names)} and its first line is an "
            f"image; a first line such as {_header(head)} names them"
        )
    rows = _parsed(file, text, head)
    reader = f"pd.read_csv({_quoted(file)}, dtype=str, keep_default_na=False{_options(encoding, head)})"
    return Table(file, rows, "line", head.above + (2 if head.named else 1), reader, tuple(guessed))


def _encoding(content: bytes) -> str:
    """Return the encoding of a table's bytes: UTF-8, UTF-16 by its mark or its zeros, else cp1252."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    head = content[:_SAMPLE]
    for zeros, encoding in ((head[1::2], "utf-16-le"), (head[::2], "utf-16-be")):
        if len(zeros) > 3 and zeros.count(0) > 0.8 * len(zeros):
            return encoding
    try:
        content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return "cp1252"
    return "utf-8-sig"


def _recoded(file: Path) -> Path:
    return file.with_name(f"{file.stem}_utf8{file.suffix}")


def _recode(file: Path) -> str:
    path, text = f"pathlib.Path({_quoted(_recoded(file))})", f"pathlib.Path({_quoted(file)}).read_text('latin-1')"
    return f"import pathlib; {path}.write_text({text}, 'utf-8')"


def _options(encoding: str, head: Head) -> str:
    separator, names = head.separator, _numbered(head)
    options = "" if separator == "," else f", sep={'chr(9)' if separator == chr(9) else repr(separator)}"
    options += "" if encoding == "utf-8-sig" else f", encoding={encoding!r}"
    options += f", skiprows={head.above}" if head.above else ""
    return options if names is None else f"{options}, names={names}"


def _header(head: Head) -> str:
    """Return a header for rows without one: the column of files, as the first row has it, and one beside it."""
    names = [f"column{number}" for number in range(1, len(head.names) + 1)]
    path = next((place for place, name in enumerate(head.names) if name.strip().lower().endswith(PICTURES)), 0)
    if len(names) > 1:
        names[path + 1 if path + 1 < len(names) else path - 1] = "label"
    names[path] = "path"
    return head.separator.join(names)


def _numbered(head: Head) -> list[str] | None:
    """Return the names of the columns where no header names them."""
    if head.named:
        return None
    return [name if head.in_comment else str(number) for number, name in enumerate(head.names, 1)]


def _parsed(file: Path, text: str, head: Head) -> pd.DataFrame:
    separator, names, named = head.separator, list(head.names), head.named
    if named:
        _refuse_twice(Table(file, pd.DataFrame(), "line", 2, ""), [name.strip() for name in names])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            return pd.read_csv(
                io.StringIO(text), dtype=str, keep_default_na=False, sep=separator, index_col=False,
                skipinitialspace=separator == " ", header=0 if named else None, names=_numbered(head),
                skip_blank_lines=False,  # removed later, so that other lines keep their numbers
                skiprows=head.above,
            )  # fmt: skip
    except pd.errors.ParserWarning as error:  # on fields beyond those of the header, which pandas would drop
        more = max(line.count(separator) for line in text.splitlines()) + 1 - len(names)
        header = separator.join([*names, *(f"column{len(names) + number}" for number in range(1, more + 1))]).strip()
        raise UserError(
            f"data: {file} has rows with more fields than its first row, which has {len(names)}",
            TABLE,
            f"put fields that hold a separator in quotes, or name every column in the first row: {header}",
        ) from error
    except (OSError, ValueError, OverflowError, csv.Error) as error:  # raised by pandas on files that are not tables
        if isinstance(error, pd.errors.ParserError) and named and "Expected" in str(error):
            command = python_command(
                f"import pandas as pd; pd.read_csv({_quoted(file)}, dtype=str, keep_default_na=False, "
                f"on_bad_lines='skip'{_options(_encoding(file.read_bytes()), head)})"
                f".to_csv({_quoted(file.with_name(f'{file.stem}_fixed.csv'))}, index=False)"
            )
            raise UserError(
                f"data: {file} cannot be read: {str(error).strip()}",
                TABLE,
                f"correct that line, or leave out such lines: {command}, then give "
                f"{file.with_name(f'{file.stem}_fixed.csv')}",
            ) from error
        raise _unreadable(file, error) from error


def _json_lines(file: Path) -> Table:
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(file, error) from error
    rows = []
    for number, text in enumerate(lines, 1):
        try:
            row = json.loads(text) if text.strip() else {}
        except (ValueError, RecursionError) as error:
            raise _unreadable(file, ValueError(f"line {number}: {error}")) from error
        if not isinstance(row, dict):
            raise _unreadable(file, ValueError(f"line {number} is not an object such as {_EXAMPLE}"))
        rows.append(row)
    reader = f"pd.read_json({_quoted(file)}, lines=True)"
    if not any(isinstance(value, dict) for row in rows for value in row.values()):
        return Table(file, pd.DataFrame(rows, dtype=object), "line", 1, reader + _AS_TEXT)
    # Entries of nested objects become columns: meta.label.
    reader = f"pd.json_normalize({reader}.to_dict('records'))"
    return Table(file, pd.json_normalize(rows).astype(object), "line", 1, reader + _AS_TEXT)


_EXAMPLE = '{"path": "images/1.jpg", "label": "cat"}'


def _parquet(file: Path) -> pd.DataFrame:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise UserError(
            f"data: {file}: reading Parquet needs pyarrow",
            "pyarrow installed",
            "pip install pyarrow, or write the table as .csv",
        ) from error
    try:
        # Metadata of pandas would turn columns into row labels.
        table = parquet.read_table(file).to_pandas(ignore_metadata=True)
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        raise _unreadable(file, error) from error
    return table[[name for name in table.columns if not str(name).startswith("__index_level_")]]


def _unreadable(file: Path, error: Exception) -> UserError:
    return UserError(
        f"data: {file} cannot be read: {str(error).strip()}",
        TABLE,
        "write it again, for example as lines such as path,label and images/1.jpg,cat in a .csv file",
    )


def _text(value: Any) -> str:
    if isinstance(value, dict) and set(value) == {"bytes", "path"}:  # a picture as written by the package datasets
        value = value["path"] if value["bytes"] is None else value["bytes"]
    if isinstance(value, bytes):
        return BYTES
    if isinstance(value, list | tuple | np.ndarray):
        return json.dumps([_text(entry) for entry in value], ensure_ascii=False)
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False, default=str)
    if pd.api.types.is_scalar(value) and pd.isna(value):
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()


def _refuse_twice(table: Table, columns: list[str]) -> None:
    counts = Counter(name.strip() for name in columns)
    twice = [name for name, count in counts.items() if name and count > 1]
    if twice:
        out = table.file.with_name(f"{table.file.stem}_fixed.csv")
        command = python_command(
            f"import pandas as pd; pd.read_csv({_quoted(table.file)}, dtype=str, keep_default_na=False, sep=None, "
            f"engine='python', skipinitialspace=True).to_csv({_quoted(out)}, index=False)"
        )
        raise UserError(
            f"data: {table.file} has two columns {', '.join(twice)}",
            TABLE,
            f"rename one of them, or number the second one: {command}, then give {out}",
        )


def key(name: str) -> str:
    """Return a column's name in folded case without spaces and marks: ``Image Index`` becomes imageindex."""
    return re.sub(r"[\W_]+", "", name.casefold())
