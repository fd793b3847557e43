"""Identity of stored activations: everything that a number depends on, except the image, changes the entry."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
from torch import nn

from unfreeze.activations import store as activations
from unfreeze.activations.prefix import Calibration, Prefix
from unfreeze.activations.store import MANIFEST_BYTES, SmallerBatch, activation_store, fill
from unfreeze.inputs import preprocess as pixels
from unfreeze.inputs.augment import Preprocessing
from unfreeze.model import adapters
from unfreeze.model.backbone import Backbone, load_backbone
from unfreeze.storage.array_store import entry

ENGINE = {"name": "pytorch", "version": "1", "precision": "float32", "batch": 32, "threads": 2, "kernels": "AVX2"}
ABOUT: dict[str, Any] = {"cut": 3, "augment": "flip_crop", "seed": 0, "engine_batch": 32, "dtype": "float32"}
MADE: dict[str, Any] = {
    "image_size": 32, "resize": "crop", "mean": (0.5, 0.5, 0.5), "std": (0.2, 0.2, 0.2), "interpolation": "bilinear",
    "crop_share": 0.9,
}  # fmt: skip
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return load_backbone("test_resnet", "none", 32, 0)


def key(backbone: Backbone, **changed: Any) -> str:
    """Return an entry's key; ``changed`` are parts of the engine, of the preprocessing, or of all else."""
    asked = ABOUT | {name: value for name, value in changed.items() if name in ABOUT}
    engine = ENGINE | {name: value for name, value in changed.items() if name in ENGINE}
    made = MADE | {name: value for name, value in changed.items() if name in MADE}
    dtype = asked.pop("dtype")
    prefix = Prefix(backbone, Calibration(engine, 0.0, 0.0, 0.0, 0.0), dtype, CPU)
    folder = activation_store(Path("cache"), prefix, preprocessing=Preprocessing(**made), **asked).folder
    return folder.name.rpartition("-")[2]  # without the words for people


@pytest.mark.parametrize(
    "changed",
    [
        {"name": "openvino"}, {"version": "2"}, {"precision": "bfloat16"}, {"threads": 1}, {"kernels": "AVX512"},
        {"engine_batch": 16}, {"cut": 4}, {"dtype": "float16"}, {"augment": "article"}, {"augment": "none"},
        {"seed": 1}, {"image_size": 48}, {"resize": "squash"}, {"resize": "pad"}, {"mean": (0.5, 0.5, 0.4)},
        {"std": (0.2, 0.2, 0.1)}, {"interpolation": "bicubic"}, {"crop_share": 0.8},
    ],
    ids=str,
)  # fmt: skip
def test_each_setting_changes_the_key(backbone: Backbone, changed: dict[str, Any]) -> None:
    assert key(backbone, **changed) != key(backbone)


@pytest.mark.parametrize(
    ("module", "name", "value"),
    [
        (timm, "__version__", "0.1"), (torch, "__version__", "0.1"), (torchvision, "__version__", "0.1"),
        (pixels.PIL, "__version__", "0.1"), (adapters, "STAGE_RULES", 0), (activations, "VIEW_RULES", 0),
        (pixels, "DECODE_RULES", 0), (pixels, "BASE_FORMAT", 0),
    ],
    ids=["timm", "torch", "torchvision", "pillow", "stages", "views", "decoding", "base pictures"],
)  # fmt: skip
def test_each_version_and_each_rule_changes_the_key(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch, module: Any, name: str, value: Any
) -> None:
    before = key(backbone)
    monkeypatch.setattr(module, name, value)
    assert key(backbone) != before


def first(module: nn.Module) -> nn.Parameter:
    return next(module.parameters())


@pytest.mark.parametrize(
    ("change", "same"),
    [
        (lambda one: first(one.stages[2].module).data.add_(1), False),
        (lambda one: next(one.stages[2].module.buffers()).add_(1), False),
        (lambda one: first(one.stages[3].module).data.add_(1), True),
    ],
    ids=["a weight", "a statistic", "a weight behind the cut"],
)
def test_each_frozen_tensor_changes_the_key(backbone: Backbone, change: Callable[[Backbone], Any], same: bool) -> None:
    other = load_backbone("test_resnet", "none", 32, 0)
    assert key(other) == key(backbone)
    change(other)
    assert (key(other) == key(backbone)) == same


def test_another_architecture_changes_the_key(backbone: Backbone) -> None:
    assert key(replace(backbone, name="test_vit")) != key(backbone)


def test_plain_views_have_no_seed(backbone: Backbone) -> None:
    assert key(backbone, augment="none", seed=1) == key(backbone, augment="none", seed=0)


@pytest.mark.parametrize(
    ("cut", "resize", "augment", "seed", "dtype", "name"),
    [
        (2, "crop", "none", 0, "float32", "test_resnet.r160-stage-1-32-none-41aeffe1278bfabe"),
        (1, "pad", "article", 3, "float16", "test_resnet.r160-stem-32-article-0ee5cbd66b2c8f0e"),
        (2, "squash", "flip_crop", 0, "float32", "test_resnet.r160-stage-1-32-flip_crop-7365a68fb859ad0f"),
    ],
)
def test_the_name_of_an_entry_never_changes(
    monkeypatch: pytest.MonkeyPatch, cut: int, resize: Any, augment: str, seed: int, dtype: str, name: str
) -> None:
    """As computed at 0.1.0; another name would leave what is stored on people's disks unread."""
    monkeypatch.setattr(pixels.PIL, "__version__", "12.0.0")
    monkeypatch.setattr(torchvision, "__version__", "0.25.0")
    monkeypatch.setattr(activations, "stage_versions", lambda: {"rules": 1, "timm": "1.0.22", "torch": "2.10.0"})
    engine = {"name": "pytorch", "version": "2.10.0", "precision": "float32", "batch": 16, "threads": 2}
    prefix: Any = SimpleNamespace(
        backbone=SimpleNamespace(
            name="test_resnet.r160", stages=[SimpleNamespace(name="stem"), SimpleNamespace(name="stage 1")]
        ),
        calibration=SimpleNamespace(engine=engine),
        dtype=dtype,
        sha256=lambda cut: str(cut) * 64,
    )
    made = Preprocessing(32, resize, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "bicubic", 0.875)
    assert activation_store(Path("cache"), prefix, cut, made, augment, seed, 8).folder.name == name


def test_a_row_takes_the_bytes_of_its_numbers_and_of_its_line_in_the_manifest(tmp_path: Path) -> None:
    """What plans count for a row, 72 bytes beside its numbers, is what it takes on disk, to a few bytes."""
    store = entry(tmp_path, "activations", "rows", {}, "float32")
    rows = [(f"{number:064x}", number % 3) for number in range(500)]
    with store.writer() as writer:
        for row in rows:
            writer.add(row, np.zeros(4, np.float32))
    taken = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) / len(rows)
    assert taken - 16 == pytest.approx(MANIFEST_BYTES, abs=8)


def test_rows_of_a_smaller_engine_batch_do_not_enter_an_entry_of_a_larger_one(tmp_path: Path) -> None:
    """The engine's numbers may depend on its batch, so an entry holds rows of one batch only."""

    def run(inputs: torch.Tensor, start: int, cut: int) -> torch.Tensor:
        prefix.batch = 16 if len(batches_run) else 32  # memory runs short at the second batch
        batches_run.append(inputs)
        return inputs

    batches_run: list[torch.Tensor] = []
    prefix: Any = SimpleNamespace(batch=32, run=run)
    store = entry(tmp_path, "activations", "rows", {}, "float32")
    batches = [([(str(number), 0)], torch.zeros(1, 4)) for number in range(3)]
    with store.writer() as writer, pytest.raises(SmallerBatch):
        list(fill(writer, prefix, 0, 1, 32, batches))
    assert store.held() == {("0", 0)}
