"""Predictions and pictures for a cell of the synthetic study: classes and files named like markup among them."""

from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from tests.support.synthetic import MARKUP
from unfreeze.storage.records import read_json, write_json, write_table, write_tensors
from unfreeze.storage.study_dir import StudyDir

CELL = "head.full.s0"
FILE = "paper/<img src=x onerror=alert(2)>.jpg"


def add_predictions(study: StudyDir, cell: str, classes: list[str], images: int = 240, seed: int = 0) -> None:
    """Give a cell logits of so many test and validation images, and the study the catalog that they stand in.

    The other cells get the same, so that all of them predict images of the catalog.
    """
    draws = np.random.default_rng(seed)
    ids = [f"{number:016x}" for number in range(2 * images)]
    labels = np.arange(2 * images) % len(classes)
    logits = draws.normal(0, 1, (2 * images, len(classes)))
    logits[np.arange(2 * images), labels] += 2
    logits = (3 * logits).astype(np.float32)  # surer than it should be
    tensors = {"test": logits[:images], "validation": logits[images:]}
    about = {"ids": {"test": ids[:images], "validation": ids[images:]}}
    others = [one["cell"] for one in study.planned_cells() if study.is_finished(one)]
    for name in dict.fromkeys([cell, *others]):
        write_tensors(study.cell(name) / "logits.safetensors", tensors, about)
        ranked = {"ids": {"ranking": about["ids"]["validation"]}, "paid": True}
        write_tensors(study.cell(name) / "ranking.safetensors", {"ranking": tensors["validation"]}, ranked)
    paths = [f"{classes[label]}/{number}.jpg" for number, label in enumerate(labels)]
    catalog = pd.DataFrame({"id": ids, "path": paths, "label": [classes[label] for label in labels]})
    write_table(study.path / "catalog.csv", catalog)


def picture(**values: Any) -> dict[str, Any]:
    """Return a record of explain.json."""
    return {
        "id": "0" * 16,
        "path": FILE,
        "label": "paper",
        "predicted": MARKUP,
        "label_probability": 0.004,
        "probability": 0.987,
        "picture": "wrong-01.webp",
        "overlay": "wrong-01-cam.webp",
        "split": "test",
    } | values


def add_explanation(study: StudyDir, cell: str, **values: Any) -> None:
    """Write explain.json of a cell with one mistake, one doubtful label and their pictures."""
    folder = study.path / "explain"
    folder.mkdir(exist_ok=True)
    for name in ("wrong-01.webp", "wrong-01-cam.webp", "suspects-01.webp"):
        Image.new("RGB", (8, 8), "green").save(folder / name)
    suspect = picture(picture="suspects-01.webp", overlay="", split="validation")
    record = {
        "rules": 1,
        "cell": cell,
        "fingerprint": read_json(study.cell(cell) / "cell.json")["fingerprint"],
        "complete": True,
        "note": "",
        "map": {"stage": "block5", "side": 7},
        "wrong": [picture()],
        "suspects": [suspect],
    }
    write_json(folder / "explain.json", record | values)
