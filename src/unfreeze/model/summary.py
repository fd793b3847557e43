"""Shapes, parameters and FLOPs of a backbone and a head."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from unfreeze.model.backbone import Backbone, Stage

HEADER_BYTES = 120
"""Largest size of a tensor's entry in the header of a safetensors file."""


@dataclass(frozen=True)
class StageInfo:
    """Size and cost of a stage.

    Attributes:
        name: name of the stage.
        output_shape: shape of the output for one image, without the batch axis.
        params: number of parameters.
        flops: FLOPs of one image, a multiply-add counted as two (convolutions, matrix products and attention, as
            counted by torch.utils.flop_counter).
        file_bytes: largest size of its parameters and buffers in a safetensors file.
    """

    name: str
    output_shape: tuple[int, ...]
    params: int
    flops: int
    file_bytes: int


@dataclass(frozen=True)
class HeadInfo:
    """A head: descriptions of its layers, its number of parameters, and its FLOPs for one image."""

    layers: list[str]
    params: int
    flops: int


def describe(backbone: Backbone) -> list[StageInfo]:
    """Return the size and cost of each stage at the backbone's input size."""
    device = next(backbone.model.parameters()).device
    x = torch.zeros(1, 3, backbone.image_size, backbone.image_size, device=device)
    infos = []
    for stage in backbone.stages:
        x, flops = _run(stage.module, x)
        infos.append(_info(stage, flops))
    return infos


def _info(stage: Stage, flops: int) -> StageInfo:
    tensors = stage.module.state_dict().values()
    stored = sum(tensor.nbytes + HEADER_BYTES for tensor in tensors)
    return StageInfo(stage.name, stage.output_shape, count_parameters(stage.module), flops, stored)


def describe_head(head: nn.Sequential, backbone: Backbone) -> HeadInfo:
    """Return the layers, size and cost of a head on a backbone's last stage."""
    parameter = next(head.parameters())
    _, flops = _run(head, torch.zeros(1, *backbone.stages[-1].output_shape, device=parameter.device))
    layers = [text for layer in head if (text := _description(layer))]
    return HeadInfo(layers, count_parameters(head), flops)


def count_parameters(module: nn.Module) -> int:
    """Return the number of parameters of a module."""
    return sum(parameter.numel() for parameter in module.parameters())


def _run(module: nn.Module, x: Tensor) -> tuple[Tensor, int]:
    """Return a module's output in inference mode and its FLOPs; training modes are restored."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    # Detached, since the counter's hooks fail on parameters that are passed to a submodule without a graph.
    tensors = {name: tensor.detach() for name, tensor in module.state_dict(keep_vars=True).items()}
    # The counter has no formula for the CPU's fused attention; the plain one has the same matrix products.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        x = functional_call(module, tensors, (x,))
    for part, mode in modes.items():
        part.training = mode
    return x, counter.get_total_flops()


def _description(layer: nn.Module) -> str:
    if isinstance(layer, nn.Linear):
        return f"Linear {layer.in_features} to {layer.out_features}"
    if isinstance(layer, nn.Dropout):
        return f"Dropout {layer.p:g}"
    if isinstance(layer, nn.Identity):
        return ""  # the last stage has pooled
    if isinstance(layer, nn.Flatten | nn.ReLU):
        return type(layer).__name__
    return f"Pool ({getattr(layer, 'pool_type', getattr(layer, 'kind', 'own'))})"
