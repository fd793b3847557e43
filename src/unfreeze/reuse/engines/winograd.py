"""PyTorch with large convolutions by Winograd's way (``model.winograd``), whose filters are transformed once.

Rows go through in batches of one fixed size, as in ``pytorch``, but of half as many: what lies between the steps of a
convolution takes more memory, and batches of 32 are a twentieth faster at most.
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
"""Of frozen work in PyTorch; below, trying this engine (one to two seconds) would cost what it saves."""

TOGETHER = True
"""All threads share one batch."""


def offers(device: torch.device, precision: str, threads: int) -> list[dict[str, str | int]]:
    """Return PyTorch's setting under another name, in float32 where it is known to pay."""
    if precision != "float32" or not winograd.available(device):
        return []
    size = {"batch": pytorch.BATCH // 2}
    version = f"{torch.__version__}, rules {winograd.RULES}"
    return [
        {**one, "name": "winograd", "version": version, **size} for one in pytorch.offers(device, precision, threads)
    ]


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
