"""Optimisers and schedules, one entry each. The learning rate is a pure function of the step.

torch is imported where an optimiser is built, so that names and defaults are known without it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from unfreeze.config.choices import OptimizerDefaults
from unfreeze.registry import Registry

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from unfreeze.config.resolve import Optimizer
    from unfreeze.config.schema import ScheduleConfig

Schedule = Callable[[int, int], float]
"""Takes a step (from 0) and how many there are after the warm-up; returns the factor on the peak learning rate."""

SCHEDULES: Registry[Schedule] = Registry("schedule")
SCHEDULES.register("constant", lambda step, steps: 1.0)
SCHEDULES.register("cosine", lambda step, steps: 0.5 * (1 + math.cos(math.pi * step / steps)))


@dataclass(frozen=True)
class OptimizerKind:
    """An entry of the registry of optimisers.

    Attributes:
        label: in sentences.
        defaults: where a study says nothing.
        build: takes the groups of ``parameter_groups`` and the settings, and returns the optimiser.
        moments: takes the settings and returns how many numbers the optimiser keeps of each parameter.
        has_momentum: whether it uses the setting ``momentum``.
    """

    label: str
    defaults: OptimizerDefaults
    build: Callable[[list[dict[str, Any]], Optimizer], torch.optim.Optimizer]
    moments: Callable[[Optimizer], int]
    has_momentum: bool = False


def _sgd(groups: list[dict[str, Any]], settings: Optimizer) -> torch.optim.Optimizer:
    import torch

    return torch.optim.SGD(groups, lr=settings.lr, momentum=settings.momentum, fused=True)


def _adam(groups: list[dict[str, Any]], settings: Optimizer) -> torch.optim.Optimizer:
    import torch

    return torch.optim.Adam(groups, lr=settings.lr, fused=True)


def _adamw(groups: list[dict[str, Any]], settings: Optimizer) -> torch.optim.Optimizer:
    import torch

    return torch.optim.AdamW(groups, lr=settings.lr, fused=True)


# Fused: one pass over memory a step. Defaults are measured: docs/defaults.md.
OPTIMIZERS: Registry[OptimizerKind] = Registry("optimiser")
OPTIMIZERS.register(
    "sgd",
    OptimizerKind(
        "SGD",
        OptimizerDefaults(head_lr=1e-2, stages_lr=1e-3, fresh_lr=1e-2, weight_decay=0.0),
        _sgd,
        moments=lambda settings: 1 if settings.momentum else 0,
        has_momentum=True,
    ),
)
OPTIMIZERS.register(
    "adam",
    OptimizerKind(
        "Adam",
        OptimizerDefaults(head_lr=3e-3, stages_lr=1e-4, fresh_lr=1e-3, weight_decay=0.0),
        _adam,
        moments=lambda settings: 2,
    ),
)
OPTIMIZERS.register(
    "adamw",
    OptimizerKind(
        "AdamW",
        OptimizerDefaults(head_lr=3e-3, stages_lr=1e-4, fresh_lr=1e-3, weight_decay=0.05),
        _adamw,
        moments=lambda settings: 2,
    ),
)


def learning_rate(schedule: ScheduleConfig, peak: float, step: int, steps: int) -> float:
    """Return the rate of one step (from 0) of a phase of ``steps``: linear warm-up, then as the schedule says."""
    warmup = round(schedule.warmup * steps)
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * SCHEDULES[schedule.name](step - warmup, max(1, steps - warmup))


def build_optimizer(layers: Iterable[nn.Module], settings: Optimizer) -> torch.optim.Optimizer:
    """Return the optimiser over the trained parameters."""
    return OPTIMIZERS[settings.name].build(parameter_groups(layers, settings), settings)


def parameter_groups(layers: Iterable[nn.Module], settings: Optimizer) -> list[dict[str, Any]]:
    """Group trained parameters by depth and decay.

    Args:
        layers: the trained stages in order, then the head. The head learns at the full rate, the last stage at
            ``layer_decay`` of it, the one before at ``layer_decay ** 2``, and so on (Clark et al. 2020, ELECTRA).
        settings: the optimiser. Weight decay spares what has fewer than two dimensions: norms and biases.

    Returns:
        Groups for a torch optimiser; ``scale`` is the group's factor on the learning rate.
    """
    groups: list[dict[str, Any]] = []
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


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every group its share of the rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["scale"]


def moments(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return what the optimiser remembers, by parameter (counted through its groups) and name: ``7.exp_avg``.

    The tensors are the optimiser's own, not copies.
    """
    import torch

    return {
        f"{number}.{name}": value
        for number, parameter in enumerate(_parameters(optimizer))
        for name, value in optimizer.state.get(parameter, {}).items()
        if isinstance(value, torch.Tensor)
    }


def set_moments(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Let a new optimiser remember what ``moments`` of another one gave: on its parameters' device, in their layout."""
    import torch

    parameters = _parameters(optimizer)
    for key, value in tensors.items():
        number, _, name = key.partition(".")
        parameter = parameters[int(number)]
        like = parameter.detach() if value.shape == parameter.shape else value.to(parameter.device)
        optimizer.state[parameter][name] = torch.empty_like(like, dtype=value.dtype).copy_(value)


def gradient_sum(optimizer: torch.optim.Optimizer) -> Tensor:
    """Return the sum of all gradients, float32 (), on their device: finite only if all of them are.

    A norm would do as well, and takes nearly twice as long.
    """
    import torch

    return torch.stack([gradient.sum(dtype=torch.float32) for gradient in _gradients(optimizer)]).sum()


def gradients_are_finite(optimizer: torch.optim.Optimizer) -> bool:
    """Tell whether every gradient is finite; of huge ones the sum may not be."""
    return all(bool(gradient.isfinite().all()) for gradient in _gradients(optimizer))


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _gradients(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [parameter.grad for parameter in _parameters(optimizer) if parameter.grad is not None]
