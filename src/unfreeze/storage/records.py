"""Read and write JSON records, CSV tables and arrays with checksums.

Every file is written durably. A cell is finished when, and only when, its ``result.json`` exists; it is written last.
Records end with a checksum of themselves, and those that speak of other files hold the checksums of these.
"""

import contextlib
import csv
import hashlib
import io
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from unfreeze.errors import UserError
from unfreeze.storage.atomic import replacing, write_text

FORMAT = 1
ALTERED = ".altered"

CHECKSUM = re.compile(r',\n "checksum": "([0-9a-f]{64})"\n}\n', re.ASCII)
"""The end of a record: the sha256 of what it would be without this line."""

OS_ERROR = re.compile(r"\(os error (\d+)\)")
"""How the safetensors library says that a file cannot be written."""

FORMULA = re.compile(r"'*(?:[=@\t\r]|[+-](?!(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?\Z))")
"""How text begins that a spreadsheet takes for a formula and runs, numbers aside; and such text shielded from that."""

TEXT_COLUMNS = frozenset(
    {"id", "path", "label", "sha256", "mode", "status", "reason", "group", "given_split", "source", "split"}
    | {"pixels", "phash", "cluster", "given_fold", "note"}
    | {"cell", "strategy", "regime", "candidate", "chosen", "backbone", "stopped_by"}
    | {"within", "a", "b", "test", "class", "helps"}
)
"""Columns that hold text in every table: a class or a regime named 007 stays that name."""


class Altered(UserError):
    """A file is not as it was written: cut short, altered, or no file of its kind."""


def write_json(path: Path, record: Mapping[str, Any]) -> None:
    """Write a record as JSON with the format's version in front and a checksum at the end."""
    body = json.dumps({"format": FORMAT, **record}, indent=1, ensure_ascii=False, allow_nan=False)
    write_text(path, f'{body[:-2]},\n "checksum": "{_sha256(body)}"\n}}\n')


def read_json(path: Path) -> dict[str, Any]:
    """Read a record that ``write_json`` wrote, without its checksum. One that never had a checksum is read, too.

    Raises:
        Altered: the file is not JSON, or was altered since it was written.
        UserError: it was written by a newer version.
    """
    text = path.read_text(encoding="utf-8", errors="surrogateescape")
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:  # no JSON, or deeper or of longer numbers than Python reads
        raise Altered(
            f"{path} cannot be read: {error}",
            "a JSON file written by unfreeze",
            "delete it and run the study again; only what is missing is computed",
        ) from error
    if _is_altered(text, record):
        raise Altered(
            f"{path} was altered after it was written: its checksum does not hold",
            "the file as unfreeze wrote it",
            "delete it and run the study again; only what is missing is computed",
        )
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise UserError(
            f"{path} has format {record.get('format') if isinstance(record, dict) else 'unknown'}",
            f"format {FORMAT}",
            "use the version of unfreeze that wrote it, or give another --out DIR",
        )
    record.pop("checksum", None)
    return record


def any_text() -> AbstractContextManager[None]:
    """Within it, new tables can hold names of files that are not UTF-8; pyarrow, which pandas would take, cannot."""
    return pd.option_context("mode.string_storage", "python")


def _is_altered(text: str, record: object) -> bool:
    """Tell whether a record's text is not what its last line says, even if that line itself was altered."""
    end = CHECKSUM.search(text, max(0, len(text) - 128))
    if end and end.end() == len(text):
        return _sha256(text[: end.start()] + "\n}") != end[1]
    last = list(record.values())[-1:] if isinstance(record, dict) else []
    return any(isinstance(value, str) and len(value) == 64 for value in last)  # no other record ends so


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def table_text(table: pd.DataFrame) -> str:
    """Return a table as CSV; floats keep all their digits, so that reading gives the same numbers.

    Text that a spreadsheet would run as a formula, as the name of a class or a file may be, has an apostrophe in front
    (CWE-1236); ``read_table`` takes it away again.
    """
    texts = table.select_dtypes(exclude=["number", "bool"])
    table = table.assign(
        **{str(name): _shielded(values) for name, values in texts.items() if any(map(_is_formula, values))}
    )

    def text(quoting: Literal[0, 2]) -> str:
        buffer = io.StringIO()
        table.to_csv(buffer, index=False, lineterminator="\n", quoting=quoting)
        return buffer.getvalue()

    plain = text(csv.QUOTE_MINIMAL)  # which leaves a lone carriage return unquoted (Python before 3.13)
    return text(csv.QUOTE_NONNUMERIC) if "\r" in plain else plain


def _is_formula(value: object) -> bool:
    return isinstance(value, str) and FORMULA.match(value) is not None


def _shielded(column: pd.Series) -> pd.Series:
    values = [f"'{value}" if _is_formula(value) else value for value in column]
    return pd.Series(values, index=column.index, dtype=object)


def _bare(value: str) -> str:
    return value[1:] if value.startswith("'") and FORMULA.match(value) else value


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table as CSV, durably."""
    write_text(path, table_text(table))


def read_table(path: Path) -> pd.DataFrame:
    """Read a table that ``write_table`` wrote: empty numbers are NaN, empty text is empty text."""
    with any_text():
        table = pd.read_csv(
            path,
            dtype=str,
            keep_default_na=False,
            encoding_errors="surrogateescape",
            skip_blank_lines=False,  # a lone column's empty field is a blank line
        )
        for name, values in table.items():
            if values.str.startswith("'").any():
                table[name] = values.map(_bare).astype(values.dtype)
    for name in set(table.columns) - TEXT_COLUMNS:
        table[name] = _typed(table[name])
    return table


def _typed(column: pd.Series) -> pd.Series:
    """Turn text into truth values or numbers if all of it is such; Python reads every digit back, pandas may not."""
    if column.isin(["True", "False"]).all() and len(column):
        return column == "True"
    for kind in ("int64", "float64"):
        with contextlib.suppress(ValueError, OverflowError):
            return column.replace("", "nan").astype(object).astype(kind)
    return column


def write_tensors(path: Path, tensors: Mapping[str, np.ndarray], about: Mapping[str, Any]) -> None:
    """Write named arrays as safetensors; the same arrays and ``about`` (JSON data) give the same bytes."""
    # One entry: the order of several would differ from run to run.
    metadata = {"unfreeze": json.dumps({"format": FORMAT, **about}, ensure_ascii=True)}
    # The library writes memory as it lies; np.ascontiguousarray would turn a scalar into an array of one.
    whole = {name: np.asarray(array, order="C") for name, array in tensors.items()}
    with replacing(path, sum(array.nbytes for array in whole.values())) as temporary:
        try:
            save_file(whole, temporary, metadata)
        except SafetensorError as error:
            number = OS_ERROR.search(str(error))
            if number is None:
                raise
            raise OSError(int(number[1]), os.strerror(int(number[1]))) from error


def read_tensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read the arrays and ``about`` that ``write_tensors`` wrote.

    Raises:
        Altered: the file is cut short, or none that ``write_tensors`` wrote.
        OSError: it cannot be read.
    """
    try:
        # Mapped into memory, a file that is cut short meanwhile would end the process.
        with safe_open(path, framework="np", backend="pread") as file:
            about = dict(json.loads(file.metadata()["unfreeze"]))
            return file.get_tensors(), about
    except (SafetensorError, KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
        # Not of the format, cut short, or of types, shapes or metadata that nothing here writes.
        raise Altered(
            f"{path} was altered or cut short: its arrays cannot be read",
            "the file as unfreeze wrote it",
            "run the study again; only what is missing is computed",
        ) from error


def sealed(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """Return the sha256 of those of a folder's files that are there, by name."""
    return {name: file_sha256(folder / name) for name in names if (folder / name).is_file()}


Accepted = Mapping[str, Sequence[str]]
"""By file, the sha256 of what it may hold: what is about to be written, and what was there before; "" for no file."""


def accepted(folder: Path, texts: Mapping[str, str], before: Accepted) -> Accepted:
    """Return what some files of a folder may hold from now on, whether or not their new texts come to be written.

    Args:
        folder: theirs.
        texts: about to be written, by name.
        before: what they could hold before; a file that holds something else was altered.
    """
    now = {name: file_sha256(folder / name) if (folder / name).is_file() else "" for name in texts}
    return {
        name: list(dict.fromkeys([_sha256(text), *[now[name]] * (now[name] in before.get(name, [now[name]]))]))
        for name, text in texts.items()
    }


def is_accepted(path: Path, files: Accepted) -> bool:
    """Tell whether a file that is there holds what it may; one that nothing is said about may hold anything."""
    return path.name not in files or file_sha256(path) in files[path.name]


def is_whole(path: Path) -> bool:
    """Tell whether a record, and the files whose checksums it holds, are as they were written."""
    try:
        files = dict(read_json(path).get("files", {}))
        return sealed(path.parent, files) == files
    except (Altered, OSError):
        return False


def _not_whole(records: Sequence[tuple[str, Path]]) -> list[tuple[str, Path]]:
    """Return those of some cells' records that are not whole."""
    with ThreadPoolExecutor() as pool:  # hashing leaves the GIL
        whole = list(pool.map(is_whole, [path for _, path in records]))
    return [record for record, good in zip(records, whole, strict=True) if not good]
