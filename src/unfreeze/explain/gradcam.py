"""Grad-CAM on the deepest feature map that has spatial positions.

Grad-CAM: Selvaraju et al. 2017, by captum's LayerGradCam. Tokens are laid out as maps first, so that convolutional
networks, Swin and ViTs are looked at alike.
"""

from dataclasses import dataclass
from math import isqrt
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unfreeze.model.backbone import Backbone

SIDE = 4
"""Positions along a map's side from which it tells places apart."""


class NoFeatureMap(Exception):
    """The network has no feature map to look at; the text says why."""


@dataclass(frozen=True)
class FeatureMap:
    """Where a network is cut for its maps: after ``before`` of the chained modules, in the stage of this name."""

    before: int
    stage: str
    side: int


class MappedNetwork(nn.Module):
    """A network whose features at one place pass through ``map`` as (N, C, H, W), whatever their own layout."""

    def __init__(self, lower: nn.Module, upper: nn.Module, channels_last: bool, prefix_tokens: int) -> None:
        super().__init__()
        self.lower, self.upper, self.map = lower, upper, nn.Identity()
        self.channels_last, self.prefix_tokens = channels_last, prefix_tokens

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, 3, S, S) to logits; the graph begins at the features."""
        with torch.no_grad():
            features = self.lower(images)
        features.requires_grad_()
        if features.ndim == 3:
            tokens, patches = features[:, : self.prefix_tokens], features[:, self.prefix_tokens :]
            side = isqrt(patches.shape[1])
            maps = self.map(patches.transpose(1, 2).unflatten(2, (side, side)))
            return self.upper(torch.cat([tokens, maps.flatten(2).transpose(1, 2)], dim=1))
        if self.channels_last:
            return self.upper(self.map(features.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))
        return self.upper(self.map(features).clone())  # what follows may work in place


def _chain(backbone: Backbone) -> list[tuple[str, nn.Module]]:
    """Return the backbone's modules one after another; a last stage of several parts, such as a pooling, in parts."""
    *first, last = backbone.stages
    parts = list(last.module) if isinstance(last.module, nn.Sequential) else [last.module]
    return [*((stage.name, stage.module) for stage in first), *((last.name, part) for part in parts)]


def find_place(backbone: Backbone, images: Tensor) -> FeatureMap:
    """Return the deepest place whose map has at least ``SIDE`` positions a side, else the deepest with the most.

    Of a ViT the last block is left out: behind it, a class token takes nothing from the patches any more.

    Args:
        backbone: in inference mode.
        images: any one or more, float32 (N, 3, S, S), on its device.

    Raises:
        NoMap: nowhere are features laid out in two dimensions.
    """
    sides: list[int] = []
    chain = _chain(backbone)
    with torch.no_grad():
        x = images[:1]
        for _, module in chain:
            x = module(x)
            sides.append(_side(x, backbone))
    if len(backbone.stages[0].output_shape) == 2:  # tokens
        sides = sides[: len(backbone.stages) - 1]
    wanted = min(SIDE, max(sides, default=0))
    if wanted < 2:
        raise NoFeatureMap(f"{backbone.name} has no feature map of more than one position")
    number = max(number for number, side in enumerate(sides) if side >= wanted)
    return FeatureMap(number + 1, chain[number][0], sides[number])


def _side(features: Tensor, backbone: Backbone) -> int:
    """Return the positions along a side of square features; 0 if they are none."""
    if features.ndim == 3:
        patches = features.shape[1] - _prefix_tokens(backbone.model)
        return isqrt(patches) if patches > 0 and isqrt(patches) ** 2 == patches else 0
    if features.ndim != 4:
        return 0
    high, wide = features.shape[1:3] if backbone.layout == "NHWC" else features.shape[2:4]
    return high if high == wide else 0


def _prefix_tokens(model: Any) -> int:
    return int(getattr(model, "num_prefix_tokens", 0))


def grad_cam(backbone: Backbone, head: nn.Module, place: FeatureMap, images: Tensor, targets: Tensor) -> np.ndarray:
    """Return where each image speaks for a class: float32 (N, side, side), 0 to 1, the strongest place of each is 1.

    Args:
        backbone: in inference mode.
        head: last stage's output to logits.
        place: of the map.
        images: float32 (N, 3, S, S), on the network's device.
        targets: classes, int64 (N,), on the same device.
    """
    # It brings matplotlib, for which no run should wait at its start.
    from captum.attr import LayerGradCam

    modules = [module for _, module in _chain(backbone)]
    lower, upper = nn.Sequential(*modules[: place.before]), nn.Sequential(*modules[place.before :], head)
    mapped = MappedNetwork(lower, upper, backbone.layout == "NHWC", _prefix_tokens(backbone.model)).eval()
    found = LayerGradCam(mapped, mapped.map).attribute(images, targets, relu_attributions=True)
    cams = found.detach()[:, 0].float().cpu().numpy()
    largest = cams.max(axis=(1, 2), keepdims=True)
    return np.divide(cams, largest, out=np.zeros_like(cams), where=largest > 0)
