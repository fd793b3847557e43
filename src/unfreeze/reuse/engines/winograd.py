"""PyTorch with large convolutions by Winograd's way (``model.winograd``), whose filters are transformed once.

Rows go through in batches of one fixed size, as in ``pytorch``.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch

from unfreeze.model import winograd
from unfreeze.model.network import Frozen
from unfreeze.reuse.engines import pytorch
from unfreeze.reuse.engines.failed import EngineFailed

WORTH_SECONDS = 5.0
"""In PyTorch: it saves a quarter of them with VGG16, and trying it takes two batches."""

TOGETHER = True
"""All threads share one batch."""


def offers(device: torch.device, precision: str, threads: int) -> list[dict[str, str | int]]:
    """Return PyTorch's setting under another name, in float32 where it is known to pay."""
    if precision != "float32" or not winograd.available(device):
        return []
    version = f"{torch.__version__}, rules {winograd.RULES}"
    return [{**one, "name": "winograd", "version": version} for one in pytorch.offers(device, precision, threads)]


def build(
    settings: Mapping[str, Any], stages: Frozen, input_shape: tuple[int, ...], device: torch.device
) -> pytorch.Batched:
    """Return the stages as an engine.

    Raises:
        EngineFailed: no convolution of theirs is large enough.
    """
    if not winograd.worth_trying(stages):
        raise EngineFailed("winograd: no large 3 x 3 convolution")
    return pytorch.Batched(stages, device, settings["batch"], partial(winograd.Winograd, {}))
