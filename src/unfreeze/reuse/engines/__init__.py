"""Inference engines for frozen stages. Adding one is a module with the names that are used below."""

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

from unfreeze.model.network import Frozen
from unfreeze.reuse.engines import ncnn, openvino, pytorch, winograd


class Engine(Protocol):
    """Frozen stages, ready to run: rows (n, ...) float32 to rows (n, ...) float32, one by one.

    A row's numbers depend on that row alone: not on n, on its neighbours or on its place among them.
    """

    def __call__(self, rows: Tensor) -> Tensor:
        """Compute the stages' output for each row, contiguous, on the engine's device."""
        ...


Settings = Mapping[str, str | int]
"""An engine and all that its numbers may depend on: name, version, precision, batch, threads. JSON data."""

_MODULES = {"ncnn": ncnn, "openvino": openvino, "winograd": winograd, "pytorch": pytorch}


def offers(device: torch.device, precision: str, threads: int) -> list[Settings]:
    """Return every engine that can run on a device, in the settings worth trying.

    Where another precision than float32 is asked for, PyTorch in float32 comes last: some networks lose too much.
    """
    return [
        settings
        for asked in dict.fromkeys((precision, "float32"))
        for name, module in _MODULES.items()
        for settings in module.offers(device, asked, threads)
        if asked == precision or name == "pytorch"
    ]


def worth_trying(settings: Settings, frozen_seconds: float) -> bool:
    """Say whether an engine could win back what making it costs.

    Args:
        settings: one of ``offers``.
        frozen_seconds: that all frozen work would take in PyTorch.
    """
    return _MODULES[str(settings["name"])].WORTH_SECONDS <= frozen_seconds


def together(settings: Settings) -> bool:
    """Say whether all threads share one batch of rows; else each has a request of its own."""
    return _MODULES[str(settings["name"])].TOGETHER


def build(settings: Settings, stages: Frozen, input_shape: tuple[int, ...], device: torch.device) -> Engine:
    """Make an engine of frozen stages.

    Args:
        settings: one of ``offers``.
        stages: wholly frozen, on any device.
        input_shape: of one row, without the batch axis.
        device: where it runs.

    Raises:
        ValueError: a stage is not frozen, and which tensor says so.
        EngineFailed: the engine cannot run these stages.
    """
    refuse_unfrozen(stages)
    return _MODULES[str(settings["name"])].build(settings, stages, input_shape, device)


def refuse_unfrozen(stages: Frozen) -> None:
    """Refuse stages whose output could change: a parameter that takes a gradient, a module in training mode.

    Raises:
        ValueError: names the first of them.
    """
    for name, parameter in stages.named_parameters():
        if parameter.requires_grad:
            raise ValueError(f"not wholly frozen, so not reused: {name} takes a gradient")
    for name, module in stages.named_modules():
        if module.training:
            raise ValueError(f"not wholly frozen, so not reused: {name or 'the prefix'} is in training mode")
