"""Registry of inference engines for frozen stages; a new engine is a module with an entry, registered here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unfreeze.activations import openvino_engine as openvino
from unfreeze.activations import pytorch_engine as pytorch
from unfreeze.activations.engine import Engine, EngineKind, Settings
from unfreeze.registry import Registry

if TYPE_CHECKING:
    import torch

    from unfreeze.model.network import Frozen

ENGINES: Registry[EngineKind] = Registry("engine")
"""Engines, the preferred one first."""
ENGINES.register(openvino.ENTRY.name, openvino.ENTRY)
ENGINES.register(pytorch.ENTRY.name, pytorch.ENTRY)


def kind_of(settings: Settings) -> EngineKind:
    """Return the registry entry for an engine's settings."""
    return ENGINES[str(settings["name"])]


def offers(device: torch.device, precision: str, threads: int) -> list[Settings]:
    """Return the settings of every engine that runs on a device, the preferred one first.

    For other precisions than float32, PyTorch in float32 comes last, for networks that lose too much accuracy.
    """
    asked = [settings for entry in ENGINES.values() for settings in entry.offers(device, precision, threads)]
    if precision == "float32":
        return asked
    return [*asked, *ENGINES[pytorch.ENTRY.name].offers(device, "float32", threads)]


def build(settings: Settings, stages: Frozen, input_shape: tuple[int, ...], device: torch.device) -> Engine:
    """Build an engine of frozen stages.

    Args:
        settings: one of ``offers``.
        stages: frozen stages, on any device.
        input_shape: shape of one row, without the batch axis.
        device: device that it runs on.

    Raises:
        ValueError: a stage is not frozen; the message names the tensor.
        EngineFailed: the engine cannot run these stages.
    """
    refuse_unfrozen(stages)
    return kind_of(settings).build(settings, stages, input_shape, device)


def refuse_unfrozen(stages: Frozen) -> None:
    """Reject stages whose output could change.

    Raises:
        ValueError: a parameter takes a gradient, or a module is in training mode; names the first one.
    """
    for name, parameter in stages.named_parameters():
        if parameter.requires_grad:
            raise ValueError(f"not wholly frozen, so not reused: {name} takes a gradient")
    for name, module in stages.named_modules():
        if module.training:
            raise ValueError(f"not wholly frozen, so not reused: {name or 'the prefix'} is in training mode")
