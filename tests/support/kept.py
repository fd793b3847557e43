"""The study directory that was kept when the format of 0.1 was fixed: what is on users' disks stays theirs.

``kept_study/`` holds its photographs, its file, its directory ``out`` and its ``cache``. They were made once, on
1 December 2026, by ``python -m tests.support.kept`` at version 0.1.0 (engine PyTorch, float32, one thread), and are
never made again: later versions must go on with them.
"""

import hashlib
import shutil
import sys
from pathlib import Path

import numpy as np
import timm
from safetensors.numpy import save_file

from tests.support.worlds import write_photographs

KEPT = Path(__file__).parent / "kept_study"
STUDY = """\
name: kept
data: photographs
split: {test: 0.25, val: 0.2}
backbone: {name: test_efficientnet, weights: weights.safetensors}
image_size: 32
strategies:
  head: {train: head, optimizer: {lr: 1e-2}}
  last: {train: {last: 1}, head: {hidden: [8], dropout: [0.5]}}
  tuned: {train: head, tune: {"optimizer.lr": [1e-3, 1e-2]}}
  phases:
    phases:
      - {train: head, epochs: 1}
      - {train: all, epochs: 1}
    seeds: [0]
regimes:
  small: {train_per_class: 5, val_per_class: 2}
  bank: {train_per_class: 5, augment: flip_crop, views: 2}
  full: {augment: flip_crop}
seeds: 2
batch_size: 4
epochs: 3
early_stopping: {patience: 1}
"""


def write_weights(path: Path) -> Path:
    """Write the weights that the kept study began with: whole numbers / 4096, the same with every version of NumPy."""
    tensors = {}
    for name, tensor in timm.create_model("test_efficientnet").state_dict().items():
        seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
        drawn = np.random.Generator(np.random.PCG64(seed)).integers(0, 4096, tuple(tensor.shape)) / 4096
        if name.endswith("num_batches_tracked"):
            tensors[name] = np.zeros(tuple(tensor.shape), np.int64)
        elif name.endswith("running_var") or (name.endswith("weight") and tensor.ndim == 1):
            tensors[name] = (drawn + 0.5).astype(np.float32)
        else:
            tensors[name] = ((drawn - 0.5) * 2 / np.sqrt(max(1, tensor[0].numel()))).astype(np.float32)
    save_file(tensors, path)
    return path


def kept_study(folder: Path) -> Path:
    """Copy the kept study into a folder, with its weights; return where it lies, to be run there with its cache."""
    place = folder / "kept_study"
    shutil.copytree(KEPT, place)
    write_weights(place / "weights.safetensors")
    return place


def _make(place: Path) -> None:
    import os

    os.environ["UNFREEZE_CACHE"] = str(place / "cache")
    import torch

    torch.set_num_threads(1)
    from unfreeze import Study
    from unfreeze.activations import engines

    del engines.ENGINES["openvino"]
    write_photographs(place / "photographs", per_class=14)
    (place / "study.yaml").write_text(STUDY, encoding="utf-8")
    write_weights(place / "weights.safetensors")
    Study.from_yaml(place / "study.yaml").run(place / "out", workers=0)
    (place / "weights.safetensors").unlink()


if __name__ == "__main__":
    _make(Path(sys.argv[1]))
