"""Test scores apart for each value of a column of the data: each camera, each site."""

from typing import Any

import pandas as pd

from unfreeze import metrics
from unfreeze.errors import UserError
from unfreeze.store import StudyDir, read_json, read_table, read_tensors

PREFIX = "data_"
"""Begins the names of the data's own columns in catalog.csv."""
COLUMNS = (
    "cell", "strategy", "regime", "seed", "fold", "test", "value", "images", "accuracy", "balanced_accuracy", "metric",
)  # fmt: skip


def by_column(study: StudyDir, column: str) -> pd.DataFrame:
    """Return a row a finished cell, test set and value of the column.

    Columns: ``COLUMNS``; ``test`` names the test set, ``metric`` is the study's metric, NaN where it is not defined.

    Raises:
        UserError: the data has no such column, or nothing has finished.
    """
    catalog = read_table(study.path / "catalog.csv")
    own = [name.removeprefix(PREFIX) for name in catalog.columns if name.startswith(PREFIX)]
    if column not in own:
        raise UserError(
            f"--by {column}: the data has no such column",
            f"one of {', '.join(own)}" if own else "a column of a manifest beside path, label, split, fold and group",
            f"for example --by {own[0]}" if own else "leave --by out, or add a column to the manifest",
        )
    record = read_json(study.path / "study.json")
    numbers = {label: number for number, label in enumerate(record["classes"])}
    about = catalog.drop_duplicates("id").set_index("id")
    rows: list[dict[str, Any]] = []
    for cell in study.planned_cells():
        if study.is_finished(cell):
            rows += _rows(study, cell, about, f"{PREFIX}{column}", numbers, record["metric"])
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype({"seed": "Int64", "fold": "Int64"})


def _rows(
    study: StudyDir, cell: dict[str, Any], about: pd.DataFrame, column: str, numbers: dict[str, int], metric: str
) -> list[dict[str, Any]]:
    scores, told = read_tensors(study.cell(cell["cell"]) / "logits.safetensors")
    rows = []
    for test, logits in scores.items():
        if test == "validation":
            continue
        images = about.loc[told["ids"][test]]
        labels = images["label"].map(numbers).to_numpy()
        for value, places in sorted(images.reset_index().groupby(column).indices.items()):
            chosen, right = logits[places], labels[places]
            rows.append(
                {
                    **{name: cell.get(name) for name in ("cell", "strategy", "regime", "seed", "fold")},
                    "test": test,
                    "value": value,
                    "images": len(places),
                    "accuracy": metrics.score("accuracy", chosen, right),
                    "balanced_accuracy": metrics.score("balanced_accuracy", chosen, right),
                    "metric": metrics.score(metric, chosen, right),
                }
            )
    return rows
