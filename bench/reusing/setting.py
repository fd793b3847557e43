"""The setting that every side of the comparison shares: folders of images, and the studies that unfreeze runs."""

import json
import random
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

TRAIN, VALIDATION, SIZE, BATCH = 100, 25, 128, 32  # images a class; pixels; images a step
POOL_SHARE = 0.2  # of each class is for validation: the smallest, 137 images, has 27 and 110
HEAD = {"pool": "flatten", "hidden": [2048, 1024], "dropout": [0.5, 0.0]}
SGD = {"name": "sgd", "lr": 1e-4, "momentum": 0.9}
CONSTANT = {"name": "constant", "warmup": 0}
STRATEGIES: Mapping[str, Mapping[str, Any]] = {
    "head": {"train": "head", "head": HEAD, "optimizer": SGD, "schedule": CONSTANT},
    "last_block": {"train": {"last": 1}, "head": HEAD, "optimizer": SGD, "schedule": CONSTANT},
}
RATES = [float(f"{1e-5 * 10 ** (number * 2 / 19):.2g}") for number in range(20)]  # 1e-5 to 1e-3: none diverges
OTHER_HEADS: Mapping[str, Mapping[str, Any]] = {
    "wide": {**STRATEGIES["head"], "head": {"pool": "flatten", "hidden": [512], "dropout": [0.2]}},
    "linear": {"train": "head"},
}


def pools(data: Path) -> dict[str, dict[str, list[Path]]]:
    """Divide every class into images for training and for validation, the same for every seed.

    Returns:
        Files by class by "train" and "val".
    """
    found: dict[str, dict[str, list[Path]]] = {"train": {}, "val": {}}
    for folder in sorted(entry for entry in data.iterdir() if entry.is_dir()):
        files = sorted(folder.iterdir())
        random.Random(f"pools {folder.name}").shuffle(files)
        held_out = round(POOL_SHARE * len(files))
        found["val"][folder.name], found["train"][folder.name] = files[:held_out], files[held_out:]
    return found


def subset_folder(data: Path, seed: int, out: Path) -> Path:
    """Copy a seed's 100 training and 25 validation images of each class into train/CLASS and val/CLASS."""
    wanted = {"train": TRAIN, "val": VALIDATION}
    for part, classes in pools(data).items():
        for name, files in classes.items():
            chosen = random.Random(f"subset {seed} {name} {part}").sample(files, wanted[part])
            _copy(chosen, out / part / name)
    return out


def pool_folder(data: Path, out: Path) -> Path:
    """Copy all images into train/CLASS and val/CLASS, from which each seed of a study draws its own."""
    for part, classes in pools(data).items():
        for name, files in classes.items():
            _copy(files, out / part / name)
    return out


def _copy(files: Sequence[Path], folder: Path) -> None:
    folder.mkdir(parents=True)
    for path in files:
        shutil.copyfile(path, folder / path.name)


def small_pictures(images: int, out: Path) -> Path:
    """Draw small JPEGs, every one different, into train/CLASS and val/CLASS of two classes, a tenth for validation."""
    import numpy as np
    from PIL import Image

    generator = np.random.default_rng(images)
    for number in range(images):
        folder = out / ("val" if number % 10 == 0 else "train") / ("even" if number // 10 % 2 else "odd")
        folder.mkdir(parents=True, exist_ok=True)
        coarse = generator.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((64, 48)).save(folder / f"{number}.jpg", quality=85)
    return out


def small_weights(out: Path) -> Path:
    """Write weights, drawn at random, of timm's test_resnet."""
    import timm
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    save_file(timm.create_model("test_resnet", pretrained=False).state_dict(), out)
    return out


def study(
    data: Path,
    backbone: str,
    weights: Path,
    strategies: Mapping[str, Mapping[str, Any]],
    seeds: Sequence[int],
    epochs: int,
    subsets: bool = False,
    size: int = SIZE,
) -> dict[str, Any]:
    """Return a study; with `subsets` each seed draws its own 100 and 25 images a class."""
    return {
        "name": "reuse",
        "data": str(data),
        "backbone": {"name": backbone, "weights": str(weights)},
        "image_size": size,
        "batch_size": BATCH,
        "epochs": epochs,
        "early_stopping": False,
        "seeds": list(seeds),
        "strategies": {name: dict(strategy) for name, strategy in strategies.items()},
        "regimes": {"small": {"train_per_class": TRAIN, "val_per_class": VALIDATION} if subsets else {}},
    }


def write_study(asked: Mapping[str, Any], path: Path) -> Path:
    """Write a study file; JSON is YAML."""
    path.write_text(json.dumps(asked, indent=1))
    return path
