"""The new classifier: pooling, hidden layers, one logit a class; heads and poolings are one entry each.

torch and timm are imported where a head is built, so that names are known without them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from unfreeze.config.schema import HeadConfig
from unfreeze.errors import UserError
from unfreeze.registry import Registry
from unfreeze.seeds import stream_seed

if TYPE_CHECKING:
    import torch
    from torch import nn

    from unfreeze.model.backbone import Backbone

VGG_HIDDEN = (4096, 4096)  # Simonyan and Zisserman 2014; without dropout, as in Keras's VGG16


def build_head(head: HeadConfig | str, backbone: Backbone, classes: int, seed: int) -> nn.Sequential:
    """Build a head: last stage's output to logits (N, classes), float32.

    Args:
        head: a name in ``HEADS``, or pooling, hidden widths and dropouts.
        backbone: gives the input's shape.
        classes: number of logits.
        seed: of the stream "init", from which the weights are drawn.

    Raises:
        UserError: another pooling is asked for of a backbone whose last stage pools.
    """
    import torch

    generator = torch.Generator().manual_seed(stream_seed(seed, "init", "head"))
    if isinstance(head, str):
        return HEADS[head](backbone, classes, generator)
    return layered(head, backbone, classes, generator)


def layered(head: HeadConfig, backbone: Backbone, classes: int, generator: torch.Generator) -> nn.Sequential:
    """Build a head of a pooling and dense layers.

    A head of one layer starts at zero. Of others, weights are Glorot-uniform and biases zero, as those of Keras's
    Dense (Glorot and Bengio 2010).
    """
    from torch import nn

    pool, width = POOLINGS[head.pool](backbone)
    layers: OrderedDict[str, nn.Module] = OrderedDict(pool=pool)
    for number, size in enumerate(head.hidden, start=1):
        layers[f"fc{number}"] = _dense(width, size, generator)
        layers[f"relu{number}"] = nn.ReLU(inplace=True)
        if number <= len(head.dropout) and head.dropout[number - 1] > 0:
            layers[f"dropout{number}"] = nn.Dropout(head.dropout[number - 1])
        width = size
    out = _dense(width, classes, generator)
    if not head.hidden:
        # One layer learns a convex problem: a random start is only a disturbance to be unlearned. Measured on frozen
        # EfficientNet-Lite0, 25 images a class: 0.70 test accuracy after ten epochs against 0.57 (docs/defaults.md).
        nn.init.zeros_(out.weight)
    layers["out"] = out
    return nn.Sequential(layers)


def _dense(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    from torch import nn

    # skip_init: PyTorch's own initialisation would draw from the global generator, for 100 million weights in vain.
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, inputs, outputs)
    nn.init.xavier_uniform_(layer.weight, generator=generator)
    nn.init.zeros_(layer.bias)
    return layer


def _linear(backbone: Backbone, classes: int, generator: torch.Generator) -> nn.Sequential:
    """Build the backbone's own pooling and one layer."""
    return layered(HeadConfig(), backbone, classes, generator)


def _native(backbone: Backbone, classes: int, generator: torch.Generator) -> nn.Sequential:
    """Build the shape of the backbone's own classifier: for VGG flatten, 4096, 4096; others have one layer."""
    from timm.models.vgg import VGG

    vgg = isinstance(backbone.model, VGG)
    return layered(HeadConfig(pool="flatten", hidden=VGG_HIDDEN) if vgg else HeadConfig(), backbone, classes, generator)


HEADS: Registry[Callable[[Backbone, int, torch.Generator], nn.Sequential]] = Registry("head")
"""Builders of heads that have a name: they take a backbone, the number of classes and a generator for weights."""
HEADS.register("linear", _linear)
HEADS.register("native", _native)


def _own(backbone: Backbone) -> tuple[nn.Module, int]:
    return backbone.pool, backbone.features


def _pooled(pool: str, backbone: Backbone) -> tuple[nn.Module, int]:
    """Build a pooling of another kind than the backbone's."""
    from timm.layers.adaptive_avgmax_pool import SelectAdaptivePool2d

    from unfreeze.model.adapters import TokenPool

    if backbone.layout == "NC":
        raise UserError(
            f"head: pool: {pool} for {backbone.name}",
            "pool: own, since its last stage already pools (its last norm or convolution comes after the pooling)",
            "say pool: own in the head, or leave it out",
        )
    if backbone.layout == "NLC":
        return TokenPool(pool, backbone.model.num_prefix_tokens), backbone.features
    return SelectAdaptivePool2d(pool_type=pool, flatten=True, input_fmt=backbone.layout), backbone.features


def _flat(backbone: Backbone) -> tuple[nn.Module, int]:
    import torch

    return torch.nn.Flatten(), torch.Size(backbone.stages[-1].output_shape).numel()


POOLINGS: Registry[Callable[[Backbone], tuple[nn.Module, int]]] = Registry("pooling")
"""Builders of poolings: from a backbone to a module from its last stage's output to (N, width), and that width."""
POOLINGS.register("own", _own)
POOLINGS.register("avg", partial(_pooled, "avg"))
POOLINGS.register("max", partial(_pooled, "max"))
POOLINGS.register("flatten", _flat)
