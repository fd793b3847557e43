"""Store activations in the cache: the identity of their entry, and computing missing rows."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torchvision
from torch import Tensor

from unfreeze.activations.prefix import Prefix
from unfreeze.inputs.augment import VIEW_RULES, Preprocessing
from unfreeze.model.adapters import stage_versions
from unfreeze.storage.array_store import ArrayStore, Writer, entry
from unfreeze.storage.shards import Row

MANIFEST_BYTES = 72
"""Size of a row's entry in a shard's manifest: its sha256 and its view number."""


class SmallerBatch(Exception):
    """Memory became short, so rows were computed with a smaller engine batch than the entry's and are not stored."""


def activation_store(
    cache: Path, prefix: Prefix, cut: int, preprocessing: Preprocessing, augment: str, seed: int, engine_batch: int
) -> ArrayStore:
    """Return the cache entry for a prefix's output in one kind of view, without accessing the disk.

    Its identity contains everything that a number depends on, except the image and the number of the view.

    Args:
        cache: folder of the cache.
        prefix: the frozen network.
        cut: number of its stages.
        preprocessing: preprocessing of decoded pictures.
        augment: augmentation of the views.
        seed: seed of augmented views.
        engine_batch: rows that the engine computes at once: as calibrated, or fewer where memory became short.
    """
    backbone = prefix.backbone
    augmented: dict[str, Any] = {"seed": seed, "torchvision": torchvision.__version__} if augment != "none" else {}
    stage = backbone.stages[cut - 1].name
    identity = {
        "architecture": backbone.name.partition(".")[0],
        "cut": cut,
        "prefix_sha256": prefix.sha256(cut),
        "stages": stage_versions(),  # engines compute the same, whatever their implementation
        "picture": preprocessing.base.identity(),
        "input": {
            "image_size": preprocessing.image_size,
            "resize": preprocessing.resize,
            "mean": list(preprocessing.mean),
            "std": list(preprocessing.std),
        },
        "view": {"augment": augment, "rules": VIEW_RULES, **augmented},
        "engine": {**prefix.calibration.engine, "batch": engine_batch},
        "about": {
            "backbone": backbone.name,
            "cut": f"after {stage}, {cut} of {len(backbone.stages)} stages",
            "size": f"{preprocessing.image_size} pixels, {preprocessing.resize}",
            "view": "plain" if augment == "none" else f"{augment}, seed {seed}",
        },
    }
    return entry(
        cache, "activations", f"{backbone.name}-{stage}-{preprocessing.image_size}-{augment}", identity, prefix.dtype
    )


def fill(
    writer: Writer, prefix: Prefix, start: int, cut: int, engine_batch: int, batches: Iterable[tuple[list[Row], Tensor]]
) -> Iterator[int]:
    """Compute rows and write them to the cache; yield the number of rows after each batch.

    Args:
        writer: writer of the entry.
        prefix: computes the rows.
        start: number of stages that the inputs have passed.
        cut: number of stages of the rows.
        engine_batch: engine batch of the entry, see ``activation_store``.
        batches: rows with their inputs, (n, *prefix.shape(start)).

    Raises:
        SmallerBatch: memory is too short for the engine batch; the remaining rows belong to another entry.
    """
    for rows, inputs in batches:
        outputs = prefix.run(inputs, start, cut)
        if prefix.batch != engine_batch:
            raise SmallerBatch
        for row, found in zip(rows, outputs.cpu().numpy(), strict=True):
            writer.add(row, found)
        yield len(rows)
