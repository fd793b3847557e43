"""Grad-CAM on the deepest feature map with enough spatial positions.

Grad-CAM (Selvaraju et al. 2017) is computed by captum's LayerGradCam. Tokens are arranged as maps first, so that
convolutional networks, Swin and ViTs are treated alike.
"""

from dataclasses import dataclass
from math import isqrt
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unfreeze.model.backbone import Backbone

SIDE = 4
"""Smallest useful side of a feature map, in positions."""


class NoFeatureMap(Exception):
    """The network has no feature map with spatial positions; the message says why."""


@dataclass(frozen=True)
class FeatureMap:
    """A feature map: the output of the first ``before`` chained modules, the last of them in ``stage``."""

    before: int
    stage: str
    side: int


class MappedNetwork(nn.Module):
    """A network whose feature map passes through the module ``map`` as (N, C, H, W), whatever its own layout."""

    def __init__(self, lower: nn.Module, upper: nn.Module, channels_last: bool, prefix_tokens: int) -> None:
        super().__init__()
        self.lower, self.upper, self.map = lower, upper, nn.Identity()
        self.channels_last, self.prefix_tokens = channels_last, prefix_tokens

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, 3, S, S) to logits; gradients are recorded from the feature map on."""
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
        return self.upper(self.map(features).clone())  # the next module may work in place


def _chain(backbone: Backbone) -> list[tuple[str, nn.Module]]:
    """Return the backbone's modules in order, with their stages' names; a sequential last stage is split up."""
    *first, last = backbone.stages
    parts = list(last.module) if isinstance(last.module, nn.Sequential) else [last.module]
    return [*((stage.name, stage.module) for stage in first), *((last.name, part) for part in parts)]


def find_feature_map(backbone: Backbone, images: Tensor) -> FeatureMap:
    """Return the deepest feature map with at least ``SIDE`` positions per side, else the deepest of the largest ones.

    The last block of a ViT is skipped, because after it the class token no longer depends on the patches.

    Args:
        backbone: in inference mode.
        images: one or more of any content, float32 (N, 3, S, S), on the backbone's device.

    Raises:
        NoFeatureMap: no feature map has more than one position.
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
    """Return the side of square features in positions; 0 if they are not square."""
    if features.ndim == 3:
        patches = features.shape[1] - _prefix_tokens(backbone.model)
        return isqrt(patches) if patches > 0 and isqrt(patches) ** 2 == patches else 0
    if features.ndim != 4:
        return 0
    high, wide = features.shape[1:3] if backbone.layout == "NHWC" else features.shape[2:4]
    return high if high == wide else 0


def _prefix_tokens(model: Any) -> int:
    return int(getattr(model, "num_prefix_tokens", 0))


def grad_cam(
    backbone: Backbone, head: nn.Module, feature_map: FeatureMap, images: Tensor, targets: Tensor
) -> np.ndarray:
    """Return the Grad-CAM of each image for a class: float32 (N, side, side), scaled so that its maximum is 1.

    Args:
        backbone: in inference mode.
        head: maps the last stage's output to logits.
        feature_map: from ``find_feature_map``.
        images: float32 (N, 3, S, S), on the network's device.
        targets: classes, int64 (N,), on the same device.
    """
    # Imports matplotlib, which would slow down the start of every run.
    from captum.attr import LayerGradCam

    modules = [module for _, module in _chain(backbone)]
    lower, upper = nn.Sequential(*modules[: feature_map.before]), nn.Sequential(*modules[feature_map.before :], head)
    mapped = MappedNetwork(lower, upper, backbone.layout == "NHWC", _prefix_tokens(backbone.model)).eval()
    found = LayerGradCam(mapped, mapped.map).attribute(images, targets, relu_attributions=True)
    cams = found.detach()[:, 0].float().cpu().numpy()
    largest = cams.max(axis=(1, 2), keepdims=True)
    return np.divide(cams, largest, out=np.zeros_like(cams), where=largest > 0)
