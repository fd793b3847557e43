"""The study directory: durable writes, records, and what is finished.

A file appears whole or not at all: unique temporary file in the same directory, fsync, rename, fsync of the directory.
A cell is finished when, and only when, its ``result.json`` exists; it is written last.
"""

import contextlib
import csv
import io
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from safetensors import safe_open
from safetensors.numpy import save_file

from unfreeze.errors import UserError

FORMAT = 1
TEXT_COLUMNS = frozenset(
    {"id", "path", "label", "sha256", "mode", "status", "reason", "group", "given_split", "source", "split"}
    | {"pixels", "phash", "cluster", "given_fold"}
    | {"cell", "strategy", "regime", "candidate", "chosen", "backbone", "stopped_by"}
    | {"within", "a", "b", "test", "class", "helps"}
)
"""Columns that hold text in every table: a class or a regime named 007 stays that name."""


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on a clean exit its bytes become ``path``, durably and at once.

    Raises:
        UserError: the directory cannot be written to, or the disk is full.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    except OSError as error:
        raise _unwritable(path, error) from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        _open_to_umask(temporary)
        _sync(temporary)
        temporary.replace(path)
        if os.name == "posix":  # Windows has no handle on a directory to sync
            _sync(path.parent)
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def _open_to_umask(path: Path) -> None:
    """Give a temporary file (made for its owner only) the permissions of any new file, so that a team can read it."""
    umask = os.umask(0)
    os.umask(umask)
    path.chmod(0o666 & ~umask)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _unwritable(path: Path, error: OSError) -> UserError:
    return UserError(
        f"cannot write {path}: {error.strerror or error}",
        "a directory that can be written to, with room on its disk",
        "give another directory with --out DIR, or free space and run the same command again",
    )


def write_text(path: Path, text: str) -> None:
    """Write text as UTF-8, durably; the bytes of file names that are not UTF-8 stay as they are."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="surrogateescape", newline="\n")


def write_json(path: Path, record: Mapping[str, Any]) -> None:
    """Write a record as JSON with the format's version in front."""
    write_text(path, json.dumps({"format": FORMAT, **record}, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a record that ``write_json`` wrote.

    Raises:
        UserError: the file is not JSON, or was written by a newer version.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8", errors="surrogateescape"))
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path} cannot be read: {error}",
            "a JSON file written by unfreeze",
            "delete it and run the study again; only what is missing is computed",
        ) from error
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise UserError(
            f"{path} has format {record.get('format') if isinstance(record, dict) else 'unknown'}",
            f"format {FORMAT}",
            "use the version of unfreeze that wrote it, or a new directory",
        )
    return record


def any_text() -> AbstractContextManager[None]:
    """Within it, new tables can hold names of files that are not UTF-8; pyarrow, which pandas would take, cannot."""
    return pd.option_context("mode.string_storage", "python")


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table as CSV; floats keep all their digits, so that reading gives the same numbers."""

    def text(quoting: Literal[0, 2]) -> str:
        buffer = io.StringIO()
        table.to_csv(buffer, index=False, lineterminator="\n", quoting=quoting)
        return buffer.getvalue()

    plain = text(csv.QUOTE_MINIMAL)  # which leaves a lone carriage return unquoted (Python before 3.13)
    write_text(path, text(csv.QUOTE_NONNUMERIC) if "\r" in plain else plain)


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
    with replacing(path) as temporary:
        # np.ascontiguousarray would turn a scalar, such as a BatchNorm's count of batches, into an array of one.
        save_file({name: np.asarray(array, order="C") for name, array in tensors.items()}, temporary, metadata)


def read_tensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read the arrays and ``about`` that ``write_tensors`` wrote."""
    with safe_open(path, "np") as file:
        about = json.loads(file.metadata()["unfreeze"])
        return {name: file.get_tensor(name) for name in file.keys()}, about


@dataclass(frozen=True)
class StudyDir:
    """Paths and records of one study directory."""

    path: Path

    def cell(self, cell_id: str) -> Path:
        """Return the directory of one cell."""
        return self.path / "cells" / cell_id

    def is_finished(self, cell: Mapping[str, Any]) -> bool:
        """Tell whether a planned cell's files are whole (result.json comes last) and of this very plan.

        A cell that was run with other settings or images has another fingerprint: its files are stale.
        """
        folder = self.cell(cell["cell"])
        whole = (folder / "result.json").is_file() and (folder / "cell.json").is_file()
        return whole and read_json(folder / "cell.json")["fingerprint"] == cell["fingerprint"]

    def is_stale(self, cell: Mapping[str, Any]) -> bool:
        """Tell whether a planned cell was finished with other settings or images."""
        return (self.cell(cell["cell"]) / "result.json").is_file() and not self.is_finished(cell)

    def planned_cells(self) -> list[dict[str, Any]]:
        """Return the cells of plan.json, in plan order.

        Raises:
            UserError: the directory holds no study.
        """
        plan = self.path / "plan.json"
        if not plan.is_file():
            raise UserError(
                f"{self.path} holds no study: plan.json is missing",
                "a directory that 'unfreeze run' wrote",
                "give the directory that --out named, by default runs/NAME",
            )
        return list(read_json(plan)["cells"])
