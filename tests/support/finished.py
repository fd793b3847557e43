"""What a study directory holds but for times, to compare what two runs end with."""

import json
from pathlib import Path
from typing import Any

import pandas as pd

from unfreeze import Results
from unfreeze.storage.records import read_json, read_table

CLOCK = ["seconds_per_epoch", "seconds_total", "seconds_shared", "seconds_per_image"]


def ends(out: Path) -> dict[str, Any]:
    """Return all that a study directory holds of its cells but for times: weights and predictions as bytes."""
    found: dict[str, Any] = {}
    for path in sorted((out / "cells").rglob("*")):
        name = str(path.relative_to(out))
        if path.name == "history.csv":
            found[name] = read_table(path).drop(columns="seconds").to_csv()
        elif path.name == "result.json":
            record = json.loads(path.read_text())
            files = {file: sha for file, sha in record.pop("files").items() if file != "history.csv"}
            timed = (*CLOCK, "checksum")
            found[name] = {key: value for key, value in record.items() if key not in timed} | {"files": files}
        elif path.is_file():
            found[name] = path.read_bytes()
    return found


def all_but_times(out: Path) -> dict[str, Any]:
    """Return all that a finished study directory holds but for times: cells and tables."""
    results = Results(out).table.drop(columns=CLOCK).to_csv()
    tables = {name: (out / name).read_bytes() for name in ("comparisons.csv", "catalog.csv", "splits.csv")}
    return {**ends(out), **tables, "results": results}


def tables(out: Path) -> tuple[Any, ...]:
    """Return what the cells of a study hold and its table of results, but for times."""
    return ends(out), read_table(out / "results.csv").drop(columns=CLOCK).to_csv()


def computed(results: Results) -> int:
    """Return the rows of frozen stages that the last run computed."""
    return read_json(results.path / "shared.json")["runs"][-1]["forwards"]


def numbers(results: Results, cell: str) -> tuple[Any, ...]:
    """Return what one cell of a study holds but for times."""
    folder = results.path / "cells" / cell
    history = pd.read_csv(folder / "history.csv").drop(columns="seconds").to_csv(index=False)
    files = [(folder / name).read_bytes() for name in ("logits.safetensors", "model.safetensors")]
    record = read_json(folder / "result.json")
    del record["files"]  # history.csv holds seconds
    row = {name: value for name, value in record.items() if not name.startswith("seconds")}
    return history, *files, json.dumps(row)
