"""Whether the engine of the frozen stages, or rows kept as float16, change what a study finds (docs/reuse.md).

    python bench/engines.py [--data FOLDER] [--weights FILE]

VGG16 at 128 pixels on TrashNet, 100 training images a class, a linear head, three seeds: the same study once with each
engine alone on offer, and once with float16. Prints test accuracy by seed, and how many of the test images get another
class than with PyTorch.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors.numpy import load_file

SEEDS, EPOCHS = 3, 10
VARIANTS = {
    "PyTorch": ("pytorch", "float32"),
    "OpenVINO": ("openvino", "float32"),
    "PyTorch, float16": ("pytorch", "float16"),
}


def run_with(engine: str, study: Path, out: Path) -> None:
    """Run a study in this process with one engine on offer."""
    from unfreeze.cli.tuning import tune_process

    tune_process()
    from unfreeze.activations import engines
    from unfreeze.config.load import read_study
    from unfreeze.study.registries import registered
    from unfreeze.study.run import run_study

    engines.ENGINES = {engine: replace(engines.ENGINES[engine], worth_seconds=0.0)}
    run_study(read_study(study, choices=registered()), out, lambda event: None)


def found(engine: str, dtype: str, data: Path, weights: Path, folder: Path) -> tuple[list[float], list[np.ndarray]]:
    """Return test accuracy and the classes that test images get, by seed."""
    asked = {
        "data": str(data.resolve()),
        "backbone": {"name": "vgg16", "weights": str(weights.resolve())},
        "image_size": 128,
        "epochs": EPOCHS,
        "activations": dtype,
        "strategies": {"linear": {"train": "head"}},
        "regimes": {"small": {"train_per_class": 100}},
        "seeds": SEEDS,
    }
    folder.mkdir()
    (folder / "study.yaml").write_text(json.dumps(asked))
    command = [sys.executable, __file__, "--one", engine, "--out", folder / "out", "--study", folder / "study.yaml"]
    subprocess.run(command, env=os.environ | {"UNFREEZE_CACHE": str(folder / "cache")}, check=True)
    used = [
        one["engine"]["name"] for one in json.loads((folder / "out" / "study.json").read_text())["engines"].values()
    ]
    if used != [engine]:
        raise SystemExit(f"asked for {engine}, the study used {used}")
    table = pd.read_csv(folder / "out" / "results.csv").sort_values("seed")
    logits = [load_file(folder / "out" / "cells" / cell / "logits.safetensors")["test"] for cell in table["cell"]]
    return table["test_metric"].tolist(), [one.argmax(1) for one in logits]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/trashnet"))
    parser.add_argument("--weights", type=Path, default=Path("../shared/weights/vgg16_imagenet_features.safetensors"))
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--study", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        run_with(asked.one, asked.study, asked.out)
        return
    classes: list[np.ndarray] = []
    with tempfile.TemporaryDirectory(prefix="unfreeze-engines-") as work:
        for number, (name, (engine, dtype)) in enumerate(VARIANTS.items()):
            scores, mine = found(engine, dtype, asked.data, asked.weights, Path(work) / str(number))
            classes = classes or mine
            others = [int((theirs != ours).sum()) for theirs, ours in zip(classes, mine, strict=True)]
            listed = ", ".join(f"{100 * score:.1f}" for score in scores)
            print(f"{name}: {100 * np.mean(scores):.1f} % ({listed}); other classes than PyTorch {others}", flush=True)


if __name__ == "__main__":
    main()
