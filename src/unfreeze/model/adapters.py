"""Divide timm models into stages: one adapter per timm class.

A stage consists of timm's own submodules, so it shares timm's tensors. timm's parameter groups cannot be used: they
divide vgg16 into 13 convolutions, and count the last norms of Swin, ConvNeXt and some ViTs, and conv_head of
MobileNetV3, as parts of the classifier.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import timm
import torch
from timm.layers.classifier import ClassifierHead, NormMlpClassifierHead
from timm.layers.pool1d import global_pool_nlc
from timm.models import byobnet, convnext, regnet, swin_transformer, vgg, vision_transformer
from timm.models.byobnet import ByobNet
from timm.models.convnext import ConvNeXt
from timm.models.efficientnet import EfficientNet
from timm.models.mobilenetv3 import MobileNetV3
from timm.models.regnet import RegNet
from timm.models.resnet import ResNet
from timm.models.swin_transformer import SwinTransformer
from timm.models.vgg import VGG
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

Layout = Literal["NCHW", "NHWC", "NLC", "NC"]
State = dict[str, Tensor]

STAGE_RULES = 1
"""Version of this module; raised whenever stages with the same tensors compute something different."""


def stage_versions() -> dict[str, Any]:
    """Return the versions that the stages' forward passes depend on (timm, torch, this module) as JSON data."""
    return {"rules": STAGE_RULES, "timm": timm.__version__, "torch": torch.__version__}


@dataclass(frozen=True)
class Anatomy:
    """The stages and the pooling of a timm model.

    Attributes:
        stages: name and module of each stage, in order; every tensor of the backbone is in exactly one.
        pool: the model's own pooling, without parameters; maps the last stage's output to (N, features).
        layout: axes of the last stage's output; "NC" where a norm or convolution follows the pooling, so that the last
            stage includes the pooling.
    """

    stages: tuple[tuple[str, nn.Module], ...]
    pool: nn.Module
    layout: Layout


class TokenPool(nn.Module):
    """Pool tokens (N, L, C) to (N, C): take the class token, or the mean or maximum of the patch tokens."""

    def __init__(self, kind: str, prefix_tokens: int, include_prefix: bool = False) -> None:
        super().__init__()
        self.kind, self.prefix_tokens, self.include_prefix = kind, prefix_tokens, include_prefix

    def forward(self, tokens: Tensor) -> Tensor:
        """Pool tokens (N, L, C) to (N, C)."""
        return global_pool_nlc(tokens, self.kind, self.prefix_tokens, reduce_include_prefix=self.include_prefix)


class PatchTokens(nn.Module):
    """Remove class and register tokens: (N, L, C) to (N, L - prefix_tokens, C)."""

    def __init__(self, prefix_tokens: int) -> None:
        super().__init__()
        self.prefix_tokens = prefix_tokens

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the patch tokens."""
        return tokens[:, self.prefix_tokens :]


class Embedding(nn.Module):
    """First stage of a ViT: patch embedding, class and register tokens, position embedding.

    cls_token, reg_token and pos_embed are parameters of timm's root module, which a Sequential cannot hold. The forward
    equals VisionTransformer._pos_embed for a fixed input size.
    """

    def __init__(self, vit: VisionTransformer) -> None:
        super().__init__()
        self.patch_embed, self.pos_drop = vit.patch_embed, vit.pos_drop
        self.patch_drop, self.norm_pre = vit.patch_drop, vit.norm_pre
        self.cls_token, self.reg_token, self.pos_embed = vit.cls_token, vit.reg_token, vit.pos_embed
        self.positions_before_tokens = vit.no_embed_class

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, 3, S, S) to tokens (N, L, C)."""
        x = self.patch_embed(images).flatten(1, -2)  # (N, L, C), also where timm returns (N, H, W, C) for dynamic sizes
        tokens = [token.expand(len(x), -1, -1) for token in (self.cls_token, self.reg_token) if token is not None]
        if self.pos_embed is None:
            return self.norm_pre(self.patch_drop(torch.cat([*tokens, x], dim=1)))
        if self.positions_before_tokens:
            x = x + self.pos_embed
        x = torch.cat([*tokens, x], dim=1) if tokens else x
        if not self.positions_before_tokens:
            x = x + self.pos_embed
        return self.norm_pre(self.patch_drop(self.pos_drop(x)))


def _numbered(name: str, modules: Any, *closing: nn.Module) -> list[tuple[str, nn.Module]]:
    """Name modules name1, name2, ...; append the closing modules to the last one."""
    stages = [(f"{name}{number}", module) for number, module in enumerate(modules, start=1)]
    last_name, last = stages[-1]
    return [*stages[:-1], (last_name, nn.Sequential(last, *closing))]


def _vgg(model: VGG) -> Anatomy:
    blocks: list[list[nn.Module]] = [[]]
    for layer in model.features:
        blocks[-1].append(layer)
        if isinstance(layer, nn.MaxPool2d):  # a block ends with its pooling: activations at the cut are smaller
            blocks.append([])
    # The 4096-wide layers are part of the classifier; the head "native" builds new ones.
    model.add_module("pre_logits", nn.Identity())
    return Anatomy(
        tuple((f"block{number}", nn.Sequential(*block)) for number, block in enumerate(blocks[:-1], start=1)),
        model.head.global_pool,
        "NCHW",
    )


def _resnet(model: ResNet) -> Anatomy:
    stem = nn.Sequential(model.conv1, model.bn1, model.act1, model.maxpool)
    layers = [(layer, model.get_submodule(layer)) for layer in ("layer1", "layer2", "layer3", "layer4")]
    return Anatomy((("stem", stem), *layers), model.global_pool, "NCHW")


def _efficientnet(model: EfficientNet) -> Anatomy:
    stem = nn.Sequential(model.conv_stem, model.bn1)
    stages = _numbered("stage", model.blocks, model.conv_head, model.bn2)
    return Anatomy((("stem", stem), *stages), model.global_pool, "NCHW")


def _mobilenetv3(model: MobileNetV3) -> Anatomy:
    stem = nn.Sequential(model.conv_stem, model.bn1)
    closing = [model.global_pool, model.conv_head, model.norm_head, model.act2, model.flatten]
    return Anatomy((("stem", stem), *_numbered("stage", model.blocks, *closing)), nn.Identity(), "NC")


def _convnext(model: ConvNeXt) -> Anatomy:
    return _with_head((("stem", model.stem),), model.stages, [model.norm_pre], model.head)


def _regnet(model: RegNet) -> Anatomy:
    stages = [model.s1, model.s2, model.s3, model.s4]
    return _with_head((("stem", model.stem),), stages, [model.final_conv], model.head)


def _byobnet(model: ByobNet) -> Anatomy:
    return _with_head((("stem", model.stem),), model.stages, [model.final_conv], model.head)


def _with_head(first: Any, stages: Any, closing: list[nn.Module], head: nn.Module) -> Anatomy:
    """Append closing modules to the last stage, and the head's pooling and norm where the norm follows the pooling."""
    if isinstance(head, NormMlpClassifierHead):
        closing = [*closing, head.global_pool, head.norm, head.flatten, head.pre_logits]
        return Anatomy((*first, *_numbered("stage", stages, *closing)), nn.Identity(), "NC")
    if isinstance(head, ClassifierHead):
        return Anatomy((*first, *_numbered("stage", stages, *closing)), head.global_pool, "NCHW")
    # Attention pooling is not supported: the check in load_backbone lists its parameters.
    return Anatomy((*first, *_numbered("stage", stages, *closing)), nn.Identity(), "NCHW")


def _vision_transformer(model: VisionTransformer) -> Anatomy:
    embedding, prefix = ("embed", Embedding(model)), model.num_prefix_tokens
    pool: nn.Module = TokenPool(model.global_pool, prefix, model.pool_include_prefix)
    if model.attn_pool is not None:
        tokens = nn.Identity() if model.pool_include_prefix else PatchTokens(prefix)
        pool = nn.Sequential(tokens, model.attn_pool)
    if model.attn_pool is None and isinstance(model.fc_norm, nn.Identity):
        return Anatomy((embedding, *_numbered("block", model.blocks, model.norm)), pool, "NLC")
    stages = _numbered("block", model.blocks, model.norm, pool, model.fc_norm)
    return Anatomy((embedding, *stages), nn.Identity(), "NC")


def _swin(model: SwinTransformer) -> Anatomy:
    stages = _numbered("stage", model.layers, model.norm)
    return Anatomy((("embed", model.patch_embed), *stages), model.head.global_pool, "NHWC")


def _unchanged(state: State, model: nn.Module) -> State:
    return state


@dataclass(frozen=True)
class Adapter:
    """How a timm class is divided into stages, and how its published weights become timm's names and input size."""

    family: str
    cut: Callable[[Any], Anatomy]
    convert: Callable[[State, Any], State] = _unchanged


# Looked up by exact class, since a subclass may compute something different.
ADAPTERS: dict[type[nn.Module], Adapter] = {
    VGG: Adapter("VGG", _vgg, lambda state, _: vgg._filter_fn(state)),
    ResNet: Adapter("ResNet", _resnet),
    EfficientNet: Adapter("EfficientNet", _efficientnet),
    MobileNetV3: Adapter("MobileNetV3", _mobilenetv3),
    ConvNeXt: Adapter("ConvNeXt", _convnext, convnext.checkpoint_filter_fn),
    RegNet: Adapter("RegNet", _regnet, lambda state, _: regnet._filter_fn(state)),
    ByobNet: Adapter("ByobNet", _byobnet, byobnet.checkpoint_filter_fn),
    VisionTransformer: Adapter("ViT", _vision_transformer, vision_transformer.checkpoint_filter_fn),
    SwinTransformer: Adapter("Swin", _swin, swin_transformer.checkpoint_filter_fn),
}

EXAMPLE = "resnet50"


# One model of each family, for messages.
EXAMPLES = (
    "vgg16, resnet50, tf_efficientnet_lite0, mobilenetv3_large_100, convnext_tiny, regnety_008, "
    "vit_small_patch16_224, swin_tiny_patch4_window7_224"
)
