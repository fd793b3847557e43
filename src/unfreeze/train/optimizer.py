"""Optimisers and their schedules. The learning rate is a pure function of the step."""

import math
from collections.abc import Iterable

import torch
from torch import nn

from unfreeze.config.resolve import Optimizer
from unfreeze.config.study import ScheduleConfig


def learning_rate(schedule: ScheduleConfig, peak: float, step: int, steps: int) -> float:
    """Return the rate of one step (from 0) of a phase of ``steps``: linear warm-up, then constant or cosine to zero."""
    warmup = round(schedule.warmup * steps)
    if step < warmup:
        return peak * (step + 1) / warmup
    if schedule.name == "constant":
        return peak
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def parameter_groups(layers: Iterable[nn.Module], settings: Optimizer) -> list[dict]:
    """Group trained parameters by depth and decay.

    Args:
        layers: the trained stages in order, then the head. The head learns at the full rate, the last stage at
            ``layer_decay`` of it, the one before at ``layer_decay ** 2``, and so on (Clark et al. 2020, ELECTRA).
        settings: the optimiser. Weight decay spares what has fewer than two dimensions: norms and biases.

    Returns:
        Groups for a torch optimiser; ``scale`` is the group's factor on the learning rate.
    """
    groups: list[dict] = []
    for depth, layer in enumerate(reversed(list(layers))):
        trained = [parameter for parameter in layer.parameters() if parameter.requires_grad]
        for decay, parameters in (
            (settings.weight_decay, [parameter for parameter in trained if parameter.ndim >= 2]),
            (0.0, [parameter for parameter in trained if parameter.ndim < 2]),
        ):
            if parameters:
                scale = settings.layer_decay**depth
                groups.append({"params": parameters, "weight_decay": decay, "scale": scale, "lr": settings.lr * scale})
    return groups


def build_optimizer(layers: Iterable[nn.Module], settings: Optimizer) -> torch.optim.Optimizer:
    """Return the optimiser over the trained parameters, in its fused form: one pass over memory a step."""
    groups = parameter_groups(layers, settings)
    match settings.name:
        case "sgd":
            return torch.optim.SGD(groups, lr=settings.lr, momentum=settings.momentum, fused=True)
        case "adam":
            return torch.optim.Adam(groups, lr=settings.lr, fused=True)
        case "adamw":
            return torch.optim.AdamW(groups, lr=settings.lr, fused=True)
    raise ValueError(f"unknown optimiser {settings.name!r}")


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every group its share of the rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["scale"]
