"""The small world: tiny photographs in class folders, and a tiny backbone with weights in a file."""

from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

CLASSES = ("circle", "square", "triangle")
SHARED = Path(__file__).parents[3] / "shared"
TRASHNET = SHARED / "data" / "trashnet"


def write_photographs(
    folder: Path, per_class: int = 12, size: int = 24, classes: tuple[str, ...] = CLASSES, seed: int = 0
) -> Path:
    """Write noisy pictures that differ in colour by class, each with bytes of its own; the same at every call."""
    generator = np.random.default_rng(seed)
    for number, name in enumerate(classes):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for index in range(per_class):
            pixels = generator.integers(0, 120, (size, size, 3))
            pixels[..., number % 3] += 100
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{index:03}.png")
    return folder


def write_weights(path: Path, name: str = "test_resnet") -> Path:
    """Write random weights of a tiny timm model as a file that serves as pretrained ones."""
    torch.manual_seed(0)
    save_file(timm.create_model(name).state_dict(), path)
    return path


def tiny_study(folder: Path, **values: object) -> dict[str, object]:
    """Return a study of two strategies x one regime x one seed on tiny photographs, which runs in a second."""
    photographs = folder / "photographs"
    if not photographs.exists():
        write_photographs(photographs)
    weights = folder / "weights.safetensors"
    if not weights.exists():
        write_weights(weights)
    study: dict[str, object] = {
        "name": "tiny",
        "data": str(photographs),
        "backbone": {"name": "test_resnet", "weights": str(weights)},
        "image_size": 32,
        "strategies": {
            "head": {"train": "head", "optimizer": {"lr": 1e-2}},
            "last": {"train": {"last": 1}, "head": {"hidden": [8], "dropout": [0.5]}},
        },
        "regimes": {"small": {"train_per_class": 5, "val_per_class": 2, "augment": "flip_crop"}},
        "seeds": 1,
        "batch_size": 4,
        "epochs": 2,
    }
    return study | values
