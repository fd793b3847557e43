"""A synthetic study directory: the article's nine recipes by two seeds with plausible curves, one cell failed."""

import atexit
import functools
import math
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from unfreeze.statistics.study_results import StudyResults, read_study_results
from unfreeze.storage.atomic import write_text
from unfreeze.storage.records import write_json, write_table, write_tensors
from unfreeze.storage.study_dir import StudyDir

MARKUP = "</script><img src=x onerror=alert(1)>"
STRATEGIES = {"scratch": (0.55, 0.9, 12.0), "head": (0.80, 2.5, 1.4), "last_block": (0.87, 2.0, 5.1)}
REGIMES: dict[str, dict[str, Any]] = {
    "small": {"train_per_class": 80, "val_per_class": 20, "augment": "none", "examples_per_epoch": None},
    "small_augmented": {"train_per_class": 80, "val_per_class": 20, "augment": "article", "examples_per_epoch": 2000},
    "full": {"train_per_class": None, "val_per_class": None, "augment": "none", "examples_per_epoch": None},
}
CLASSES = ["cardboard", "glass", "metal", "paper", "plastic", MARKUP]
IMAGES = {"validation": 60, "test": 120}
FAILED = "scratch.full.s1"
ERROR = (
    'Traceback (most recent call last):\n  File "loop.py", line 41, in train\n    loss.backward()\n'
    "RuntimeError: the loss is not a number after step 12 <b>of</b> epoch 3\n"
)
_BLOCKS = [("block1", 64, 38720), ("block2", 128, 221440), ("block3", 256, 1475328), ("block4", 512, 5899776)]
_BLOCKS.append(("block5", 512, 7079424))


def write_study(
    path: Path, seeds: int = 2, name: str = MARKUP, failed: str | None = FAILED, metric: str = "accuracy"
) -> StudyDir:
    """Write the directory, for a test that changes it, and return it."""
    shutil.copytree(_shared_folder(seeds, name, failed, metric), path, dirs_exist_ok=True)
    return StudyDir(path)


def shared_study(seeds: int = 2, failed: str | None = FAILED) -> StudyDir:
    """Return a directory that all tests of this process share and only read."""
    return StudyDir(_shared_folder(seeds, MARKUP, failed, "accuracy"))


@functools.cache
def shared_results(seeds: int = 2, failed: str | None = FAILED) -> StudyResults:
    """Read the shared directory once for all tests of this process; a test changes them by ``dataclasses.replace``."""
    return read_study_results(shared_study(seeds, failed))


@functools.cache
def _shared_folder(seeds: int, name: str, failed: str | None, metric: str) -> Path:
    """Write a directory once for all tests that ask for the same one; it is deleted when the process ends."""
    folder = tempfile.TemporaryDirectory(prefix="unfreeze-synthetic-")
    atexit.register(folder.cleanup)
    path = Path(folder.name)
    cells = [
        {"cell": f"{strategy}.{regime}.s{seed}", "strategy": strategy, "regime": regime, "seed": seed, "fold": None}
        | {"fingerprint": f"{strategy}.{regime}.{seed}"}
        for strategy in STRATEGIES
        for regime in REGIMES
        for seed in range(seeds)
    ]
    study = {
        "name": "trash",
        "data": "photos/trash",
        "split": {"test": 0.2, "val": 0.15},
        "metric": metric,
        "strategies": {"scratch": {"train": "all"}, "head": {"train": "head"}, "last_block": {"train": {"last": 1}}},
        "regimes": REGIMES,
        "seeds": list(range(seeds)),
        "epochs": 30,
    }
    write_json(
        path / "study.json",
        {
            "name": name,
            "metric": metric,
            "data": "photos/trash",
            "study": study,
            "classes": CLASSES,
            "device": "cpu",
            "notes": ["The images that stopped the training also report the score, as in the article."],
        },
    )
    write_text(path / "study.yaml", "name: trash\n")
    write_json(path / "plan.json", {"cells": cells, "networks": {name: _network(name) for name in STRATEGIES}})
    write_json(
        path / "environment.json",
        {"python": "3.11.9", "torch": "2.10.0", "torchvision": "0.25.0", "timm": "1.0.22", "unfreeze": "0.1.0",
         "processor": "Some CPU @ 2.40GHz", "cores": 2, "threads": 2, "device": "cpu", "platform": "Linux-6.1"},
    )  # fmt: skip
    write_table(path / "catalog.csv", _catalog())
    for number, cell in enumerate(cells):
        if cell["cell"] == failed:
            write_json(path / "cells" / cell["cell"] / "error.json", {"error": ERROR})
            write_table(path / "cells" / cell["cell"] / "history.csv", _history(cell, number).iloc[:2])
        else:
            _write_cell(path, cell, number)
    return path


def _catalog() -> pd.DataFrame:
    """Images of every class in turn, each on its own."""
    ids = [f"{split}-{number}" for split, count in IMAGES.items() for number in range(count)]
    labels = [CLASSES[number % len(CLASSES)] for count in IMAGES.values() for number in range(count)]
    table = pd.DataFrame({"id": ids, "path": [f"{name}.jpg" for name in ids], "label": labels})
    return table.assign(status="used", reason="", group="", cluster="")


def _logits(accuracy: float, number: int) -> dict[str, np.ndarray]:
    """Logits whose true class wins in about that share of the images; images are easy or hard for every cell alike."""
    found = {}
    for place, (split, count) in enumerate(IMAGES.items()):
        ease = np.random.default_rng([place, 7]).normal(0, 1, count)
        draws = np.random.default_rng([place, number])
        scores = draws.normal(0, 0.5, (count, len(CLASSES)))
        scores[np.arange(count), np.arange(count) % len(CLASSES)] += 1.2 + 2 * (accuracy - 0.5) + ease
        found[split] = scores.astype(np.float32)
    return found


def _network(strategy: str) -> dict[str, Any]:
    states = {"scratch": ["new"] * 5, "head": ["frozen"] * 5, "last_block": ["frozen"] * 4 + ["trained"]}[strategy]
    two = strategy == "last_block"
    phases = [
        {"train": "head" if strategy == "head" else "all", "epochs": 30, "optimizer": "sgd lr 0.0001 momentum 0.9"}
    ]
    if two:
        phases = [{"train": "head", "epochs": 3, "optimizer": "adamw lr 0.001"}, {**phases[0], "train": "last 1"}]
    return {
        "backbone": "vgg16",
        "weights": "none" if strategy == "scratch" else "file vgg16_imagenet_features.safetensors",
        "image_size": 64,
        "phases": phases,
        "stages": [
            {
                "name": name,
                "output_shape": [channels, 32 >> place, 32 >> place],
                "params": params,
                "flops": 10**8,
                "states": ["frozen", states[place]] if two else [states[place]],
            }
            for place, (name, channels, params) in enumerate(_BLOCKS)
        ],
        "head": {
            "layers": [
                "Flatten",
                "Linear 2048 to 2048",
                "ReLU",
                "Dropout 0.5",
                "Linear 2048 to 1024",
                "Linear 1024 to 6",
            ],
            "params": 6300678,
        },
    }


def _history(cell: dict[str, Any], number: int) -> pd.DataFrame:
    """Curves that rise to a ceiling: training towards 1, validation lower, its loss turning up when it overfits."""
    ceiling, speed, seconds = STRATEGIES[cell["strategy"]]
    draws = np.random.default_rng(number)
    few = cell["regime"] != "full"
    ceiling += 0.0 if few else 0.06
    ceiling += 0.02 if cell["regime"] == "small_augmented" else 0.0
    epochs = 30 if cell["strategy"] == "scratch" else 14 + int(draws.integers(0, 6))
    time = np.arange(1, epochs + 1)
    chance = 1 / 6
    rise = 1 - np.exp(-time * speed / 8)
    val = chance + (ceiling - chance) * rise + draws.normal(0, 0.012, epochs)
    train = chance + (min(0.995, ceiling + (0.13 if few else 0.05)) - chance) * rise + draws.normal(0, 0.006, epochs)
    share = {"small": 1.0, "small_augmented": 4.2, "full": 2.8}.get(cell["regime"], 1.0)
    step = 15 if few else 48
    return pd.DataFrame(
        {
            "candidate": "",
            "phase": ["0" if epoch <= 3 and cell["strategy"] == "last_block" else "1" for epoch in time],
            "epoch": time,
            "step": time * step,
            "examples": time * step * 32,
            "lr": 1e-4,
            "train_loss": -np.log(np.clip(train, 0.05, 0.99)) + 0.05,
            "train_accuracy": np.clip(train, 0, 1),
            "val_loss": -np.log(np.clip(val, 0.05, 0.99)) + 0.1 + (0.012 if few else 0.004) * np.maximum(0, time - 9),
            "val_accuracy": np.clip(val, 0, 1),
            "seconds": seconds * share * (1 + draws.normal(0, 0.03, epochs)),
        }
    )


def _write_cell(path: Path, cell: dict[str, Any], number: int) -> None:
    write_json(path / "cells" / cell["cell"] / "cell.json", {"fingerprint": cell["fingerprint"]})
    history = _history(cell, number)
    best = history.loc[history["val_loss"].idxmin()]
    test = float(best["val_accuracy"]) - 0.012
    few = cell["regime"] != "full"
    warnings = [f"class {MARKUP} has 77 training images, fewer than the 80 asked for"] if few else []
    write_table(path / "cells" / cell["cell"] / "history.csv", history)
    ids = {split: [f"{split}-{place}" for place in range(count)] for split, count in IMAGES.items()}
    logits = _logits(test, number)
    write_tensors(path / "cells" / cell["cell"] / "logits.safetensors", logits, {"ids": ids})
    about = {"ids": {"ranking": ids["validation"]}, "paid": True}
    write_tensors(path / "cells" / cell["cell"] / "ranking.safetensors", {"ranking": logits["validation"]}, about)
    write_json(
        path / "cells" / cell["cell"] / "result.json",
        {
            **cell,
            "backbone": "vgg16",
            "image_size": 64,
            "status": "finished",
            "chosen": None,
            "n_train": 477 if few else 1540,
            "n_val": 120 if few else 480,
            "n_test": 507,
            "epochs": len(history),
            "best_epoch": int(best["epoch"]),
            "train_accuracy": float(best["train_accuracy"]),
            "train_loss": float(best["train_loss"]),
            "val_accuracy": float(best["val_accuracy"]),
            "val_loss": float(best["val_loss"]),
            "test_accuracy": test,
            "test_loss": -math.log(test) + 0.1,
            "val_metric": float(best["val_accuracy"]),
            "test_metric": test,
            "seconds_per_epoch": float(history["seconds"].mean()),
            "seconds_total": float(history["seconds"].sum()),
            "seconds_shared": 0.0 if cell["strategy"] == "scratch" else 8.5,
            "params_total": 21015366,
            "params_trained": {"scratch": 21015366, "head": 6300678, "last_block": 13380102}.get(
                cell["strategy"], 1000
            ),
            "stopped_by": "epochs" if cell["strategy"] == "scratch" else "early_stopping",
            "ranking_metric": float((logits["validation"].argmax(1) == np.arange(60) % len(CLASSES)).mean()),
            "n_ranking": IMAGES["validation"],
            "flops_per_image": 5 * 10**8,
            "seconds_per_image": 0.02,
            "warnings": warnings,
        },
    )
