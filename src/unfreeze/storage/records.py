"""Read and write JSON records, CSV tables and arrays with checksums.

Every file is written durably. A cell is finished if and only if its ``result.json`` exists, which is written last. A
record ends with its own checksum, and contains the checksums of files that belong to it.
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
"""End of a record: the sha256 of the record without this line."""

OS_ERROR = re.compile(r"\(os error (\d+)\)")
"""Number of the operating system's error in messages of the safetensors library."""

FORMULA = re.compile(r"'*(?:[=@\t\r]|[+-](?!(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?\Z))")
"""Start of text that a spreadsheet would run as a formula, numbers excepted; also of such text after shielding."""

TEXT_COLUMNS = frozenset(
    {"id", "path", "label", "sha256", "mode", "status", "reason", "group", "given_split", "source", "split"}
    | {"pixels", "phash", "cluster", "given_fold", "note"}
    | {"cell", "strategy", "regime", "candidate", "chosen", "backbone", "stopped_by"}
    | {"within", "a", "b", "test", "class", "helps"}
)
"""Columns that contain text in every table, so that a class or a regime named 007 keeps its name."""


class Altered(UserError):
    """A file was altered or truncated since it was written, or has another format."""


def write_json(path: Path, record: Mapping[str, Any]) -> None:
    """Write a record as JSON, with the version of the format first and a checksum last."""
    body = json.dumps({"format": FORMAT, **record}, indent=1, ensure_ascii=False, allow_nan=False)
    write_text(path, f'{body[:-2]},\n "checksum": "{_sha256(body)}"\n}}\n')


def read_json(path: Path) -> dict[str, Any]:
    """Return a record that ``write_json`` wrote, without its checksum; records without a checksum are accepted.

    Raises:
        Altered: the file is not JSON, or was altered since it was written.
        UserError: it was written by a newer version.
    """
    text = path.read_text(encoding="utf-8", errors="surrogateescape")
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:  # not JSON, or nested deeper or with longer numbers than Python reads
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
    """Let new tables contain file names that are not UTF-8, which pyarrow, the default of pandas, cannot store."""
    return pd.option_context("mode.string_storage", "python")


def _is_altered(text: str, record: object) -> bool:
    """Tell whether a record does not match its checksum, also if the line of the checksum was altered."""
    end = CHECKSUM.search(text, max(0, len(text) - 128))
    if end and end.end() == len(text):
        return _sha256(text[: end.start()] + "\n}") != end[1]
    last = list(record.values())[-1:] if isinstance(record, dict) else []
    return any(isinstance(value, str) and len(value) == 64 for value in last)  # only a checksum is like this


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def table_text(table: pd.DataFrame) -> str:
    """Return a table as CSV; floats keep all digits, so that reading gives the same numbers.

    Text that a spreadsheet would run as a formula, for example the name of a class or file, gets an apostrophe in front
    (CWE-1236), which ``read_table`` removes.
    """
    texts = table.select_dtypes(exclude=["number", "bool"])
    table = table.assign(
        **{str(name): _shielded(values) for name, values in texts.items() if any(map(_is_formula, values))}
    )

    def text(quoting: Literal[0, 2]) -> str:
        buffer = io.StringIO()
        table.to_csv(buffer, index=False, lineterminator="\n", quoting=quoting)
        return buffer.getvalue()

    plain = text(csv.QUOTE_MINIMAL)  # leaves a lone carriage return unquoted (Python before 3.13)
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
    """Read a table that ``write_table`` wrote; missing numbers are NaN, missing text is empty."""
    with any_text():
        table = pd.read_csv(
            path,
            dtype=str,
            keep_default_na=False,
            encoding_errors="surrogateescape",
            skip_blank_lines=False,  # an empty field of a single column is a blank line
        )
        for name, values in table.items():
            if values.str.startswith("'").any():
                table[name] = values.map(_bare).astype(values.dtype)
    for name in set(table.columns) - TEXT_COLUMNS:
        table[name] = _typed(table[name])
    return table


def _typed(column: pd.Series) -> pd.Series:
    """Convert text to booleans or numbers if all of it is; Python reads every digit back, pandas may not."""
    if column.isin(["True", "False"]).all() and len(column):
        return column == "True"
    for kind in ("int64", "float64"):
        with contextlib.suppress(ValueError, OverflowError):
            return column.replace("", "nan").astype(object).astype(kind)
    return column


def write_tensors(path: Path, tensors: Mapping[str, np.ndarray], about: Mapping[str, Any]) -> None:
    """Write named arrays as safetensors; the same arrays and ``about`` (JSON data) give the same bytes."""
    # A single entry, since the order of several would vary.
    metadata = {"unfreeze": json.dumps({"format": FORMAT, **about}, ensure_ascii=True)}
    # The library writes memory in its layout; np.ascontiguousarray would turn a scalar into an array of one.
    contiguous = {name: np.asarray(array, order="C") for name, array in tensors.items()}
    with replacing(path, sum(array.nbytes for array in contiguous.values())) as temporary:
        try:
            save_file(contiguous, temporary, metadata)
        except SafetensorError as error:
            number = OS_ERROR.search(str(error))
            if number is None:
                raise
            raise OSError(int(number[1]), os.strerror(int(number[1]))) from error


def read_tensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read the arrays and ``about`` that ``write_tensors`` wrote.

    Raises:
        Altered: the file is truncated, or was not written by ``write_tensors``.
        OSError: it cannot be read.
    """
    try:
        # If the file were mapped into memory, truncating it would kill the process.
        with safe_open(path, framework="np", backend="pread") as file:
            about = dict(json.loads(file.metadata()["unfreeze"]))
            return file.get_tensors(), about
    except (SafetensorError, KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
        # Another format, truncated, or with types, shapes or metadata that are never written here.
        raise Altered(
            f"{path} was altered or truncated: its arrays cannot be read",
            "the file as unfreeze wrote it",
            "run the study again; only what is missing is computed",
        ) from error


def sealed(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """Return the sha256 of the existing files among these, by name."""
    return {name: file_sha256(folder / name) for name in names if (folder / name).is_file()}


Accepted = Mapping[str, Sequence[str]]
"""Accepted sha256s by file: of the text about to be written, and of the previous content; "" for no file."""


def accepted(folder: Path, texts: Mapping[str, str], before: Accepted) -> Accepted:
    """Return the accepted contents of files that are about to be written, whether or not writing succeeds.

    Args:
        folder: folder of the files.
        texts: new texts by name.
        before: contents accepted so far; a file with other content was altered.
    """
    now = {name: file_sha256(folder / name) if (folder / name).is_file() else "" for name in texts}
    return {
        name: list(dict.fromkeys([_sha256(text), *[now[name]] * (now[name] in before.get(name, [now[name]]))]))
        for name, text in texts.items()
    }


def is_accepted(path: Path, files: Accepted) -> bool:
    """Tell whether an existing file has accepted content; any content is accepted of other files."""
    return path.name not in files or file_sha256(path) in files[path.name]


def is_whole(path: Path) -> bool:
    """Tell whether a record, and the files whose checksums it contains, are unaltered."""
    try:
        files = dict(read_json(path).get("files", {}))
        return sealed(path.parent, files) == files
    except (Altered, OSError):
        return False


def _not_whole(records: Sequence[tuple[str, Path]]) -> list[tuple[str, Path]]:
    """Return the records of cells that are not whole."""
    with ThreadPoolExecutor() as pool:  # hashing releases the GIL
        whole = list(pool.map(is_whole, [path for _, path in records]))
    return [record for record, good in zip(records, whole, strict=True) if not good]
