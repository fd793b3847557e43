"""Store activations in the cache: their identity, and filling in missing rows."""

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
"""Of a row in a shard's manifest: its sha256 and its view number."""


class SmallerBatch(Exception):
    """Memory got short: rows went through the frozen stages fewer at once than the entry's, so are not stored there."""


def activation_store(
    cache: Path, prefix: Prefix, cut: int, preprocessing: Preprocessing, augment: str, seed: int, at_once: int
) -> ArrayStore:
    """Return the cache's entry for a prefix's output in one kind of view; the disk is not looked at.

    Whatever a number depends on but the image and the view's number is part of its identity.

    Args:
        cache: the folder of the cache.
        prefix: of the network; its first ``cut`` stages count.
        cut: number of stages.
        preprocessing: how a base picture becomes an input.
        augment: the kind of view.
        seed: of augmented views.
        at_once: rows that the engine takes at once: the calibrated number, or fewer where memory has got short.
    """
    backbone = prefix.backbone
    augmented: dict[str, Any] = {"seed": seed, "torchvision": torchvision.__version__} if augment != "none" else {}
    stage = backbone.stages[cut - 1].name
    identity = {
        "architecture": backbone.name.partition(".")[0],
        "cut": cut,
        "prefix_sha256": prefix.sha256(cut),
        "stages": stage_versions(),  # every engine computes what they say, in words of its own
        "picture": preprocessing.base.identity(),
        "input": {
            "image_size": preprocessing.image_size,
            "resize": preprocessing.resize,
            "mean": list(preprocessing.mean),
            "std": list(preprocessing.std),
        },
        "view": {"augment": augment, "rules": VIEW_RULES, **augmented},
        "engine": {**prefix.calibration.engine, "batch": at_once},
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
    writer: Writer, prefix: Prefix, start: int, cut: int, at_once: int, batches: Iterable[tuple[list[Row], Tensor]]
) -> Iterator[int]:
    """Compute rows and write them; yield the number of rows after each batch.

    Args:
        writer: of the entry.
        prefix: computes them.
        start: number of stages that the inputs have passed.
        cut: number of stages to pass.
        at_once: the entry's, see ``activation_store``.
        batches: rows with their inputs, (n, *prefix.shape(start)).

    Raises:
        FewerAtOnce: memory does not suffice for so many; what was not written yet belongs to another entry.
    """
    for rows, inputs in batches:
        outputs = prefix.run(inputs, start, cut)
        if prefix.batch != at_once:
            raise SmallerBatch
        for row, found in zip(rows, outputs.cpu().numpy(), strict=True):
            writer.add(row, found)
        yield len(rows)
