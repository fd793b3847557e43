"""A study of a hundred thousand images comes to its end, in memory that a laptop has."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.worlds import write_weights
from unfreeze.storage.records import read_table

IMAGES, A_FOLDER = 100_000, 1000
STUDY = """\
name: many
data: images.csv
backbone: {name: test_resnet, weights: weights.safetensors}
image_size: 32
epochs: 1
split: {test: 0.01}
strategies: {head: {train: head}}
regimes: {small: {train_per_class: 100, val_per_class: 50}}
seeds: 1
"""

ASKS = """\
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:], stdout=sys.stderr).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)
"""
"""Runs a command and prints its memory. Linux counts to a process what its parent held when it began, and pytest may
have held more than the study."""


def write_images(folder: Path) -> None:
    """Write small pictures, all different, and a manifest of them, two classes in turn."""
    generator = np.random.default_rng(0)
    lines = ["path,label"]
    for number in range(IMAGES):
        path = Path(str(number // A_FOLDER), f"{number}.jpg")
        (folder / path.parent).mkdir(exist_ok=True)
        coarse = generator.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((32, 32), Image.Resampling.BICUBIC).save(folder / path)
        lines.append(f"{path},{'ab'[number % 2]}")
    (folder / "images.csv").write_text("\n".join(lines))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for the memory that a process held")
def test_a_study_of_a_hundred_thousand_images(tmp_path: Path) -> None:
    write_images(tmp_path)
    write_weights(tmp_path / "weights.safetensors")
    (tmp_path / "study.yaml").write_text(STUDY)
    command = [Path(sys.executable).with_name("unfreeze"), "run", "study.yaml", "--out", "out"]
    with (tmp_path / "log").open("wb") as log:
        ran = subprocess.run(
            [sys.executable, "-c", ASKS, *command], cwd=tmp_path, stdout=subprocess.PIPE, stderr=log, check=False
        )
    assert ran.returncode == 0, (tmp_path / "log").read_text()
    # Of the largest process, with the files that it has mapped: 2.2 GB.
    assert int(ran.stdout) * 1024 < 3e9
    assert len(read_table(tmp_path / "out" / "catalog.csv")) == IMAGES
    assert read_table(tmp_path / "out" / "results.csv")["status"].tolist() == ["finished"]
