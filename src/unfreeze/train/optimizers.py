"""Optimisers and their schedules. The learning rate is a pure function of the step."""

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from unfreeze.config.resolve import Optimizer
from unfreeze.config.schema import ScheduleConfig


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


def moments(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return what the optimiser remembers, by parameter (counted through its groups) and name: ``7.exp_avg``.

    The tensors are the optimiser's own, not copies.
    """
    return {
        f"{number}.{name}": value
        for number, parameter in enumerate(_parameters(optimizer))
        for name, value in optimizer.state.get(parameter, {}).items()
        if isinstance(value, Tensor)
    }


def set_moments(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Let a new optimiser remember what ``moments`` of another one gave: on its parameters' device, in their layout."""
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
    return torch.stack([gradient.sum(dtype=torch.float32) for gradient in _gradients(optimizer)]).sum()


def gradients_are_finite(optimizer: torch.optim.Optimizer) -> bool:
    """Tell whether every gradient is finite; of huge ones the sum may not be."""
    return all(bool(gradient.isfinite().all()) for gradient in _gradients(optimizer))


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _gradients(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [parameter.grad for parameter in _parameters(optimizer) if parameter.grad is not None]
