"""What a finished study directory says of itself: the only place here that knows its files."""

import csv
import json
from pathlib import Path
from typing import Any


def facts(out: Path) -> dict[str, Any]:
    """Return what the plan predicted and what the last run recorded of shared work; None for what is not there.

    Keys: predicted_seconds, predicted_disk (bytes), forwards (rows that frozen stages computed, stored or live),
    study_seconds (without imports and calibration, as predicted ones are), shared (the record).
    """
    predictions = _json(out / "plan.json").get("predictions") or {}
    runs = _json(out / "shared.json").get("runs") or [None]
    last = runs[-1]
    return {
        "predicted_seconds": predictions.get("seconds"),
        "predicted_disk": predictions.get("disk"),
        "forwards": last and last["forwards"],
        "study_seconds": last and last["seconds"]["total"] - last["seconds"]["calibration"],
        "shared": last,
    }


def trained(out: Path) -> float:
    """Return when the last model was trained and saved, in seconds since 1970: a cell's result.json is written last."""
    return max(path.stat().st_mtime for path in out.glob("cells/*/result.json"))


def disk(cache: Path) -> int:
    """Return the bytes of pixels and activations that studies left in a cache folder."""
    kinds = [cache / "pixels", cache / "activations"]
    return sum(path.stat().st_size for kind in kinds for path in kind.rglob("*") if path.is_file())


def val_accuracy(out: Path) -> dict[str, list[float]]:
    """Return the validation accuracy of each epoch by cell; of a cell with candidates, of the last of them."""
    found = {}
    for path in sorted(out.glob("cells/*/history.csv")):
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        last = [row for row in rows if row["candidate"] == rows[-1]["candidate"]]
        found[path.parent.name] = [float(row["val_accuracy"]) for row in last]
    return found


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
