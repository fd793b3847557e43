"""The studies of golden runs, and the data sets and weights that they name, drawn with the same bytes everywhere."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image
from safetensors.numpy import save_file

HIDDEN = {"hidden": [8, 6], "dropout": [0.5, 0.25]}
SMALL = {"train_per_class": 5, "val_per_class": 2}
PHASES = {"phases": [{"train": "head", "epochs": 1}, {"train": {"last": 1}, "epochs": 2}]}

STUDIES: dict[str, dict[str, Any]] = {
    "strategies": {
        "strategies": {
            "head": {"train": "head", "optimizer": {"lr": 1e-2}},
            "last": {"train": {"last": 1}, "head": HIDDEN},
            "share": {"train": {"last": 0.4}, "optimizer": "sgd", "batch_norm": "train", "label_smoothing": 0.1},
            "all": {"train": "all", "optimizer": {"name": "adam", "lr": 1e-3}, "head": {"pool": "max"}},
            "scratch": {"weights": "none", "train": "all", "head": "native"},
            "native": {"train": "head", "head": "native", "schedule": {"name": "constant", "warmup": 0}},
            "fresh": {  # not AdamW: on fresh weights it enlarges what kernels round differently beyond the tolerance
                "train": {"last": 2},
                "reinit": True,
                "head": {"pool": "flatten", **HIDDEN},
                "optimizer": {"name": "sgd", "lr": 1e-2},
            },
            "two": {
                "phases": [
                    {"train": "head", "epochs": 1, "optimizer": {"name": "sgd", "lr": 1e-2, "momentum": 0.8}},
                    {"train": {"last": 2}, "reinit": True, "epochs": 2},
                ]
            },
            "fine_tune": {"phases": [{"train": "head", "epochs": 1}, {"train": "all", "epochs": 2}]},
        },
        "regimes": {"small": SMALL, "full": {}},
        "seeds": 2,
    },
    "transformer": {
        "backbone": "test_vit",
        "strategies": {
            "head": {"train": "head", "head": "native", "epochs": 1},
            "all": {
                "train": "all",
                "optimizer": {"layer_decay": 0.7, "weight_decay": 0.1},
                "schedule": {"warmup": 0.4},
            },
            "back": {"phases": [{"train": {"last": 2}, "epochs": 1}, {"train": {"last": 1}, "epochs": 1}]},
            "scratch": {"weights": "none", "train": "all"},
        },
        "regimes": {"examples": {**SMALL, "augment": "flip_crop", "examples_per_epoch": 9}, "plain": SMALL},
    },
    "convnext": {
        "backbone": "test_convnext",
        "strategies": {
            "head": {"train": "head"},
            "last": {"train": {"last": 0.25}, "batch_size": 3, "head": HIDDEN},
            "other": {
                "backbone": {"name": "test_efficientnet", "weights": "test_efficientnet"},
                "image_size": 40,
                "resize": "squash",
                "train": {"last": 1},
                "seeds": [1],
            },
        },
        "regimes": {"small": {**SMALL, "augment": "trivial"}},
        "seeds": 2,
    },
    "tune": {
        "metric": "balanced_accuracy",
        "strategies": {
            "rates": {
                "train": "head",
                "tune": {"optimizer.lr": [1e-3, 1e30, 1e-2]},
                "optimizer": {"name": "sgd"},
                "head": HIDDEN,
            },
            "sizes": {"train": {"last": 1}, "tune": {"image_size": [24, 32], "optimizer.lr": [1e-4, 1e-3]}},
            "phases": {**PHASES, "tune": {"phases.1.optimizer.lr": [1e-4, 1e-2], "phases.0.epochs": [1, 2]}},
        },
        "regimes": {"plain": SMALL, "bank": {"train_per_class": 6, "augment": "flip_crop", "views": 2}},
        "early_stopping": {"patience": 1, "monitor": "val_metric"},
        "seeds": 2,
    },
    "fresh": {
        "strategies": {
            "head": {"train": "head", "optimizer": {"lr": 1e-2}},
            "last": {"train": {"last": 1}, "head": HIDDEN},
            "two": PHASES,
        },
        "regimes": {
            "flip_crop": {**SMALL, "augment": "flip_crop"},
            "rand": {"train_per_class": 4, "augment": "rand"},
            "trivial": {"train_per_class": 4, "augment": "trivial", "views": 3},
            "validated": {**SMALL, "augment": "article", "validation": {"augment": "article", "examples": 10}},
        },
    },
    "folds": {
        "metric": "macro_f1",
        "split": {"folds": 3, "group": "g[0-9]+"},
        "strategies": {"head": {"train": "head", "optimizer": {"lr": 1e-2}}, "all": {"train": "all"}},
        "regimes": {"small": {"train_per_class": 4}, "full": {"augment": "flip_crop"}},
        "seeds": 2,
    },
    "balance": {
        "data": "uneven",
        "metric": "log_loss",
        "strategies": {
            "head": {"train": "head", "optimizer": {"lr": 1e-2}},
            "last": {"train": {"last": 1}, "label_smoothing": 0.1},
        },
        "regimes": {
            "plain": {},
            "weights": {"balance": "weights"},
            "oversample": {"balance": "oversample", "augment": "flip_crop"},
            "bank": {"balance": "oversample", "augment": "flip_crop", "views": 2},
        },
    },
    "early": {
        "strategies": {
            "val_loss": {"train": "head", "optimizer": {"lr": 0.3}},
            "val_accuracy": {"train": "head", "early_stopping": {"monitor": "val_accuracy", "patience": 2}},
            "val_metric": {"train": {"last": 1}, "early_stopping": {"monitor": "val_metric", "patience": 1}},
            "train_loss": {
                "train": "head",
                "early_stopping": {"monitor": "train_loss", "patience": 1, "min_delta": 0.2, "restore_best": False},
            },
            "off": {"train": "head", "early_stopping": False, "epochs": 2},
            "two": {
                "phases": [{"train": "head", "epochs": 4, "optimizer": {"lr": 0.1}}, {"train": "all", "epochs": 3}],
                "early_stopping": {"patience": 1, "min_delta": 0.05},
            },
        },
        "regimes": {"small": {"train_per_class": 5}, "fresh": {"train_per_class": 5, "augment": "flip_crop"}},
        "epochs": 6,
        "early_stopping": {"patience": 2},
    },
    "article": {
        "metric": "auroc",
        "split": {"val": "test", "test": 0.3},
        "tests": {"site_b": "site_b", "site_c": "uneven"},
        "resize": "squash",
        "strategies": {
            "head": {"train": "head", "head": {"pool": "flatten", "hidden": [8], "dropout": [0.5]}},
            "last": {"train": {"last": 1}, "optimizer": {"name": "sgd", "lr": 1e-2}},
        },
        "regimes": {
            "plain": {"train_per_class": 6},
            "pattern": {
                "train_per_class": 6,
                "val_per_class": 3,
                "augment": "article",
                "examples_per_epoch": 14,
                "validation": {"augment": "article", "examples": 8},
            },
        },
        "early_stopping": {"patience": 2, "restore_best": False},
        "seeds": 2,
    },
    "given": {
        "data": "given",
        "resize": "pad",
        "strategies": {"head": {"train": "head", "optimizer": {"lr": 1e-2}}, "all": {"train": "all"}},
        "regimes": {"swept": {"sweep": {"train_per_class": [2, 4, 6]}}, "half": {"train_fraction": 0.5}},
        "seeds": 2,
    },
    "parallel": {
        "strategies": {
            "head": {"train": "head", "tune": {"optimizer.lr": [1e-3, 1e-2]}},
            "last": {"train": {"last": 1}, "head": HIDDEN},
            "all": {"train": "all"},
        },
        "regimes": {"fresh": {**SMALL, "augment": "flip_crop"}, "bank": {**SMALL, "augment": "rand", "views": 2}},
    },
    "killed": {
        "strategies": {
            "rates": {
                "train": "head",
                "head": HIDDEN,
                "epochs": 4,
                "tune": {"optimizer.lr": [1e-3, 1e-2]},
                "early_stopping": {"patience": 2},
            },
            "two": {"phases": [{"train": "head", "epochs": 1}, {"train": {"last": 2}, "epochs": 2, "reinit": True}]},
            "all": {"train": "all", "batch_norm": "train", "early_stopping": {"patience": 1}},
        },
        "regimes": {"fresh": {**SMALL, "augment": "flip_crop"}, "bank": {**SMALL, "augment": "rand", "views": 2}},
    },
}


# The world of the studies


def draw(folder: Path, per_class: Mapping[str, int], seed: int) -> None:
    """Draw pictures of noise that differ a little in colour by class, in groups of two; the same bytes everywhere."""
    generator = np.random.Generator(np.random.PCG64(seed))
    for number, (name, count) in enumerate(per_class.items()):
        (folder / name).mkdir(parents=True)
        for index in range(count):
            size = (24 + 4 * (index % 3), 28, 3)
            pixels = generator.integers(0, 160, size)
            pixels[..., number % 3] += 80
            pixels[: 4 + index % 7] //= 2
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"g{number}{index // 2:02}_{index % 2}.bmp")


def draw_weights(path: Path, name: str) -> None:
    """Write random weights of a tiny timm model, drawn as whole numbers: the same on every machine."""
    tensors: dict[str, Any] = {}
    for number, (key, tensor) in enumerate(timm.create_model(name).state_dict().items()):
        drawn = np.random.Generator(np.random.PCG64(number)).integers(0, 4096, tuple(tensor.shape)) / 4096
        if tensor.dtype == torch.int64:
            tensors[key] = np.zeros(tuple(tensor.shape), np.int64)
        elif tensor.ndim > 1:
            tensors[key] = ((drawn - 0.5) * math.sqrt(24 / tensor[0].numel())).astype(np.float32)
        else:  # near 0 and 1, so that what differs between images is not lost beneath what they share
            centre = 1.0 if key.endswith(("weight", "running_var")) else 0.0
            tensors[key] = ((drawn - 0.5) * 0.4 + centre).astype(np.float32)
    save_file(tensors, path)


def draw_world(folder: Path) -> None:
    """Draw all data sets and weights that the studies name."""
    draw(folder / "photographs", {"circle": 16, "square": 16, "triangle": 16}, 0)
    draw(folder / "uneven", {"circle": 24, "square": 12, "triangle": 8}, 1)
    draw(folder / "site_b", {"circle": 4, "square": 5, "triangle": 6}, 2)
    for number, (split, count) in enumerate({"train": 10, "val": 4, "test": 6}.items()):
        draw(folder / "given" / split, {"circle": count, "square": count, "triangle": count}, 3 + number)
    for name in ("test_resnet", "test_vit", "test_convnext", "test_efficientnet"):
        draw_weights(folder / f"{name}.safetensors", name)


def study_values(name: str, world: Path) -> dict[str, Any]:
    """Return the values of a study, with the paths of a world that was drawn."""
    values: dict[str, Any] = {"name": name, "image_size": 32, "batch_size": 4, "epochs": 2, "device": "cpu"}
    values |= {"data": "photographs", "backbone": "test_resnet", "seeds": 1} | json.loads(json.dumps(STUDIES[name]))
    values["data"] = str(world / values["data"])
    values["tests"] = {test: str(world / data) for test, data in values.get("tests", {}).items()}
    if name == "transformer":
        values["image_size"] = 48
    for one in (values, *values["strategies"].values()):
        if "backbone" in one:
            backbone = one["backbone"] if isinstance(one["backbone"], str) else one["backbone"]["name"]
            one["backbone"] = {"name": backbone, "weights": str(world / f"{backbone}.safetensors")}
    return values
