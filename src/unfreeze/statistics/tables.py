"""Read a study directory as tables: one row per cell, per epoch, or per recipe.

Cells that failed or have not run keep their rows; their numbers are empty and do not count in means.
"""

import re
from collections.abc import Mapping
from typing import Any

import pandas as pd

from unfreeze.storage.records import read_json, read_table
from unfreeze.storage.study_dir import StudyDir

TEXT_COLUMNS = ("cell", "strategy", "regime", "backbone", "status", "chosen", "stopped_by")

WHOLE_COLUMNS = (
    "seed", "fold", "image_size", "n_train", "n_val", "n_test", "epochs", "best_epoch", "params_total",
    "params_trained",
)  # fmt: skip

MEASURED_COLUMNS = (
    "train_accuracy", "train_loss", "val_accuracy", "val_loss", "test_accuracy", "test_loss", "val_metric",
    "test_metric", "seconds_per_epoch", "seconds_total", "seconds_shared",
)  # fmt: skip

RESULT_COLUMNS = (
    "cell", "strategy", "regime", "seed", "fold", "backbone", "image_size", "status", "chosen", "n_train", "n_val",
    "n_test", "epochs", "best_epoch", *MEASURED_COLUMNS, "params_total", "params_trained", "stopped_by",
)  # fmt: skip

ADDED_COLUMNS = {
    "ranking_metric": "float64", "n_ranking": "Int64", "flops_per_image": "Int64", "seconds_per_image": "float64",
}  # fmt: skip
"""Columns of later versions, with their types; they come after those of further test sets."""

CELL_COLUMNS = ("cell", "strategy", "regime", "seed", "fold")

HISTORY_COLUMNS = (
    "candidate", "phase", "epoch", "step", "examples", "lr", "train_loss", "train_accuracy", "val_loss", "val_accuracy",
    "seconds", "val_metric",
)  # fmt: skip

_FURTHER_TEST = re.compile(r"test_.+_(accuracy|metric)")


def results_table(study: StudyDir) -> pd.DataFrame:
    """Return one row per planned cell, in plan order, with exactly the columns of results.csv.

    ``status`` is ``finished``, ``failed``, ``diverged`` or, without a record, ``missing``; numbers are empty unless the
    cell finished. Whole numbers are ``Int64``, measured ones ``float64`` (shares, seconds), the rest text.

    Raises:
        UserError: no plan.json, or a record that cannot be read.
    """
    backbones = {name: str(record["backbone"]) for name, record in _networks(study).items()}
    rows = [_row(study, cell, backbones) for cell in study.planned_cells()]
    further = dict.fromkeys(column for row in rows for column in row if _FURTHER_TEST.fullmatch(column))
    table = pd.DataFrame(rows, columns=[*RESULT_COLUMNS, *further, *ADDED_COLUMNS])
    for column in TEXT_COLUMNS:
        table[column] = table[column].map(_text)
    for column in WHOLE_COLUMNS:
        table[column] = table[column].astype("Int64")
    for column in (*MEASURED_COLUMNS, *further):
        table[column] = table[column].astype("float64")
    return table.astype(ADDED_COLUMNS)


def history_table(study: StudyDir) -> pd.DataFrame:
    """Return one row per epoch and candidate of every cell with a history, in plan order.

    The columns are cell, strategy, regime, seed and fold, then those of history.csv. ``candidate`` and ``phase`` are
    text, counts ``Int64``, the rest ``float64``. A failed cell's epochs before its failure are included.
    """
    parts = []
    for cell in study.planned_cells():
        path = study.cell(cell["cell"]) / "history.csv"
        if path.is_file() and (study.is_finished(cell) or study.failure(cell) is not None):
            part = read_table(path).reindex(columns=list(HISTORY_COLUMNS))
            for place, column in enumerate(CELL_COLUMNS):
                part.insert(place, column, [cell.get(column)] * len(part))
            parts.append(part.astype(object))
    table = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=[*CELL_COLUMNS, *HISTORY_COLUMNS])
    for column in table.columns:
        if column in ("cell", "strategy", "regime", "candidate", "phase"):
            table[column] = table[column].map(_text)
        else:
            whole = column in ("seed", "fold", "epoch", "step", "examples")
            numbers = pd.to_numeric(table[column].map(lambda value: None if value == "" else value))
            table[column] = numbers.astype("Int64" if whole else "float64")
    return table


def chosen_history(results: pd.DataFrame, history: pd.DataFrame) -> pd.DataFrame:
    """Return the epochs of each cell's selected candidate, and all epochs of cells without one."""
    chosen = history["cell"].map(results.set_index("cell")["chosen"]).fillna("")
    return history[(chosen == "") | (history["candidate"] == chosen)].reset_index(drop=True)


def summary_table(results: pd.DataFrame) -> pd.DataFrame:
    """Return mean and sample standard deviation over seeds (and folds), one row per recipe, in plan order.

    Columns: strategy, regime, cells (planned), finished, then ``NAME_mean`` and ``NAME_std`` of every measured column
    and of epochs and best_epoch. Only finished cells count; the standard deviation of fewer than two is empty.
    """
    further = [column for column in results.columns if _FURTHER_TEST.fullmatch(column)]
    rows = []
    for (strategy, regime), group in results.groupby(["strategy", "regime"], sort=False):
        done = group[group["status"] == "finished"]
        row: dict[str, Any] = {"strategy": strategy, "regime": regime, "cells": len(group), "finished": len(done)}
        for column in ("epochs", "best_epoch", *MEASURED_COLUMNS, *further):
            numbers = done[column].astype("float64")
            row[f"{column}_mean"], row[f"{column}_std"] = numbers.mean(), numbers.std(ddof=1)
        rows.append(row)
    return pd.DataFrame(rows)


def cell_errors(study: StudyDir) -> dict[str, str]:
    """Return each failed cell's error text, followed by its traceback if there is one, by cell."""
    errors = {}
    for cell in study.planned_cells():
        record = None if study.is_finished(cell) else study.failure(cell)
        if record is not None:
            errors[cell["cell"]] = "\n\n".join(filter(None, (str(record["error"]), str(record.get("traceback", "")))))
    return errors


def cell_warnings(study: StudyDir) -> dict[str, list[str]]:
    """Return each distinct warning of the finished cells with the cells that gave it, in plan order."""
    cells: dict[str, list[str]] = {}
    for cell in study.planned_cells():
        if study.is_finished(cell):
            record = read_json(study.cell(cell["cell"]) / "result.json")
            for warning in dict.fromkeys(map(str, record.get("warnings", []))):
                cells.setdefault(warning, []).append(cell["cell"])
    return cells


def _networks(study: StudyDir) -> Mapping[str, Mapping[str, Any]]:
    study.planned_cells()  # raises a UserError if this is no study directory
    networks: Mapping[str, Mapping[str, Any]] = read_json(study.path / "plan.json").get("networks", {})
    return networks


def _row(study: StudyDir, cell: Mapping[str, Any], backbones: Mapping[str, str]) -> dict[str, Any]:
    row = {column: cell.get(column) for column in CELL_COLUMNS}
    if study.is_finished(cell):
        record = read_json(study.cell(cell["cell"]) / "result.json")
        known = {column: value for column, value in record.items() if column not in ("format", "warnings", "files")}
        return {**known, **row, "status": "finished"}
    failure = study.failure(cell)
    status = "missing" if failure is None else failure.get("status", "failed")
    return {**row, "backbone": backbones.get(cell["strategy"], ""), "status": status}


def _text(value: object) -> str:
    if value is None or value is pd.NA or (isinstance(value, float) and value != value):
        return ""
    if isinstance(value, float) and value.is_integer():  # a column of whole numbers with gaps comes back as floats
        return str(int(value))
    return str(value)
