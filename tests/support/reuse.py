"""Studies whose frozen work is reused, run in this process."""

from pathlib import Path
from typing import Any

from tests.support.worlds import tiny_study
from unfreeze import Results, Study

NO_ROOM = {"disk": "1KB"}
HEAD = {"train": "head", "optimizer": {"lr": 1e-2}}
LAST = {"train": {"last": 1}, "head": {"hidden": [8], "dropout": [0.5]}}
PHASES = {"phases": [{"train": "head", "epochs": 1}, {"train": "all", "epochs": 1}]}
TUNED = {"train": "head", "tune": {"optimizer.lr": [1e-3, 1e-2]}}
PLAIN = {"small": {"train_per_class": 5, "val_per_class": 2}}
BANK = {"small": {"train_per_class": 5, "val_per_class": 2, "augment": "flip_crop", "views": 3}}
FRESH = {"small": {"train_per_class": 5, "val_per_class": 2, "augment": "flip_crop", "views": "fresh"}}
SEEN = {"small": {"train_per_class": 5, "val_per_class": 2, "validation": {"augment": "article", "examples": 9}}}


def run(folder: Path, out: str = "out", **values: Any) -> Results:
    return Study(**tiny_study(folder, **values)).run(folder / out, workers=0)
