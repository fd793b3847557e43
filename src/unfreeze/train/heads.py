"""The new classifier: pooling, hidden layers, one logit a class."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Literal

import torch
from timm.layers.adaptive_avgmax_pool import SelectAdaptivePool2d
from timm.models.vgg import VGG
from torch import nn

from unfreeze.errors import UserError
from unfreeze.model.adapters import TokenPool
from unfreeze.model.backbone import Backbone
from unfreeze.seeds import stream_seed

if TYPE_CHECKING:
    from unfreeze.config.schema import HeadConfig


VGG_HIDDEN = (4096, 4096)  # Simonyan and Zisserman 2014; without dropout, as in Keras's VGG16


def build_head(
    head: HeadConfig | Literal["linear", "native"], backbone: Backbone, classes: int, seed: int
) -> nn.Sequential:
    """Build a head: last stage's output to logits (N, classes), float32.

    A head of one layer starts at zero. Of others, weights are Glorot-uniform and biases zero, as those of Keras's
    Dense (Glorot and Bengio 2010), drawn under the stream "init".

    Args:
        head: "linear" (the backbone's pooling and one layer), "native" (VGG: flatten, 4096, 4096; others: linear), or
            pooling, hidden widths and dropouts.
        backbone: gives the input's shape.
        classes: number of logits.
        seed: of the stream "init".

    Raises:
        UserError: another pooling is asked for of a backbone whose last stage pools.
    """
    pool, hidden, dropout = _shape(head, backbone)
    layers: OrderedDict[str, nn.Module] = OrderedDict(pool=_pool(pool, backbone))
    generator = torch.Generator().manual_seed(stream_seed(seed, "init", "head"))
    width = backbone.features
    if pool == "flatten":
        width = int(torch.Size(backbone.stages[-1].output_shape).numel())
    for number, size in enumerate(hidden, start=1):
        layers[f"fc{number}"] = _dense(width, size, generator)
        layers[f"relu{number}"] = nn.ReLU(inplace=True)
        if number <= len(dropout) and dropout[number - 1] > 0:
            layers[f"dropout{number}"] = nn.Dropout(dropout[number - 1])
        width = size
    out = _dense(width, classes, generator)
    if not hidden:
        # One layer learns a convex problem: a random start is only a disturbance to be unlearned. Measured on frozen
        # EfficientNet-Lite0, 25 images a class: 0.70 test accuracy after ten epochs against 0.57 (docs/defaults.md).
        nn.init.zeros_(out.weight)
    layers["out"] = out
    return nn.Sequential(layers)


def _shape(
    head: HeadConfig | Literal["linear", "native"], backbone: Backbone
) -> tuple[str, tuple[int, ...], tuple[float, ...]]:
    if head == "native" and isinstance(backbone.model, VGG):
        return "flatten", VGG_HIDDEN, ()
    if isinstance(head, str):
        return "own", (), ()
    return head.pool, head.hidden, head.dropout


def _pool(pool: str, backbone: Backbone) -> nn.Module:
    if pool == "flatten":
        return nn.Flatten()
    if pool == "own":
        return backbone.pool
    if backbone.layout == "NC":
        raise UserError(
            f"head: pool: {pool} for {backbone.name}",
            "pool: own, since its last stage already pools (its last norm or convolution comes after the pooling)",
            "say pool: own in the head, or leave it out",
        )
    if backbone.layout == "NLC":
        return TokenPool(pool, backbone.model.num_prefix_tokens)
    return SelectAdaptivePool2d(pool_type=pool, flatten=True, input_fmt=backbone.layout)


def _dense(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    # skip_init: PyTorch's own initialisation would draw from the global generator, for 100 million weights in vain.
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, inputs, outputs)
    nn.init.xavier_uniform_(layer.weight, generator=generator)
    nn.init.zeros_(layer.bias)
    return layer
