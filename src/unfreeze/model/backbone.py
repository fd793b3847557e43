"""Load a pretrained backbone, divide it into stages, and check that they give the whole model's numbers."""

import copy
import difflib
from dataclasses import dataclass
from typing import Any

import timm
import torch
from timm.models import PretrainedCfg
from torch import Tensor, nn

from unfreeze.errors import UserError
from unfreeze.model.adapters import ADAPTERS, EXAMPLE, EXAMPLES, Anatomy, Layout
from unfreeze.model.weights import LISTED, Weights, load_weights
from unfreeze.seeds import stream_seed

# How timm and PyTorch report an input size that a model cannot take.
SIZE_ERRORS = (RuntimeError, AssertionError, ValueError, ZeroDivisionError)


@dataclass(frozen=True)
class Stage:
    """One of a backbone's ordered units.

    Attributes:
        name: for people, for example "block5".
        module: input tensor to output tensor; shares its submodules and tensors with the timm model.
        tensors: timm's names of its parameters and buffers.
        output_shape: of one image's output, without the batch axis, at the backbone's input size.
    """

    name: str
    module: nn.Module
    tensors: tuple[str, ...]
    output_shape: tuple[int, ...]


@dataclass(frozen=True)
class Backbone:
    """A timm model without its classifier, cut into stages.

    Attributes:
        name: timm's name.
        stages: in order; the output of one is the input of the next, images float32 (N, 3, S, S) that of the first.
        pool: the model's own pooling, without parameters: last stage's output to (N, features).
        layout: axes of the last stage's output: "NCHW", "NHWC", "NLC", or "NC" where the last stage pools.
        features: length of the pooled vector.
        weights: what was loaded.
        image_size: S, in pixels.
        model: the timm model; it owns the tensors, under its names.
    """

    name: str
    stages: tuple[Stage, ...]
    pool: nn.Module
    layout: Layout
    features: int
    weights: Weights
    image_size: int
    model: Any


def load_backbone(name: str, weights: str, image_size: int, seed: int) -> Backbone:
    """Build a timm model, load its weights, cut it into stages and check the cut.

    The check: every parameter and buffer lies in exactly one stage, and the stages one after another give, bit for
    bit, what timm's own forward gives, on one random batch of 2 in inference mode.

    Args:
        name: a timm model of a known family, with or without the tag of its weights.
        weights: "pretrained", "none" (drawn under the stream "init"), or the path of a safetensors file.
        image_size: side of the square input, in pixels.
        seed: of the stream "init".

    Raises:
        UserError: unknown name, no known stages, an input size that the model does not take, weights that cannot be
            had or do not fit.
    """
    config = _entry(name)
    model = _create(name, config, image_size, seed)
    adapter = ADAPTERS.get(type(model))
    if adapter is None:
        raise _without_stages(name, f"timm's class {type(model).__name__} has no known stages")
    anatomy = adapter.cut(model)
    owners = _owners(name, model, anatomy)
    loaded = load_weights(model, adapter, name, weights, config)
    model.eval()
    shapes, features = _check(name, model, anatomy, image_size)
    stages = tuple(
        Stage(stage, module, owners[stage], shape)
        for (stage, module), shape in zip(anatomy.stages, shapes, strict=True)
    )
    return Backbone(name, stages, anatomy.pool, anatomy.layout, features, loaded, image_size, model)


def own_copy(backbone: Backbone, frozen: int) -> Backbone:
    """Return a copy whose stages can be trained without changing this one's; the first ``frozen`` share its tensors."""
    names = {name for stage in backbone.stages[:frozen] for name in stage.tensors}
    shared = {id(tensor): tensor for name, tensor in _tensors(backbone.model) if name in names}
    return copy.deepcopy(backbone, shared)


def reinitialise(backbone: Backbone, first_stage: int, seed: int) -> None:
    """Give the stages from first_stage (counted from 0) on fresh weights and statistics, drawn as for weights "none".

    In place: every network built on this backbone sees them.
    """
    fresh = _create(backbone.name, _entry(backbone.name), backbone.image_size, seed).state_dict()
    names = {name for stage in backbone.stages[first_stage:] for name in stage.tensors}
    state = backbone.model.state_dict()
    with torch.no_grad():
        for name in names & state.keys():
            state[name].copy_(fresh[name])


def _entry(name: str) -> PretrainedCfg:
    """Return timm's entry for a name: preprocessing and where its weights lie."""
    architecture, _, tag = name.partition(".")
    if not timm.is_model(name):
        near = difflib.get_close_matches(architecture.lower(), timm.list_models(), n=LISTED)
        others = f" (or {', '.join(near[1:])})" if near[1:] else ""
        raise UserError(
            f"backbone: timm has no model named {name}",
            f"a timm model, for example {EXAMPLES}",
            f"say backbone: {near[0]}{others}" if near else f"say for example backbone: {EXAMPLE}",
        )
    tags = [pretrained.partition(".")[2] for pretrained in timm.list_pretrained(f"{architecture}.*")]
    if tag and tag not in tags:
        raise UserError(
            f"backbone: {architecture} has no weights tagged {tag}",
            f"one of {', '.join(tags)}" if tags else f"{architecture} without a tag",
            f"say backbone: {architecture}.{tags[0]}" if tags else f"say backbone: {architecture}",
        )
    config = timm.get_pretrained_cfg(name)
    return config if config is not None else PretrainedCfg()


def _create(name: str, config: PretrainedCfg, image_size: int, seed: int) -> Any:
    """Build the timm model without its classifier, its weights drawn under the stream "init"."""
    options: dict[str, Any] = {"img_size": image_size} if config.fixed_input_size else {}
    if timm.models.is_model_in_modules(name, ["vgg"]):
        # Its 4096-wide layers are not part of the backbone: keep 0.5 GB from being allocated and drawn.
        options["mlp_ratio"] = 1 / 4096
    # Only the CPU's generator: torch.manual_seed would also seed the accelerators', which the fork does not restore.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(stream_seed(seed, "init", name))
        try:
            return timm.create_model(name, pretrained=False, num_classes=0, **options)
        except SIZE_ERRORS as error:
            raise _wrong_size(name, image_size, str(error)) from error


def _owners(name: str, model: nn.Module, anatomy: Anatomy) -> dict[str, tuple[str, ...]]:
    """Return timm's names of each stage's tensors, or list those that are in no stage or in two."""
    names = {id(tensor): tensor_name for tensor_name, tensor in _tensors(model)}
    owners = {
        stage: tuple(names.pop(id(tensor), f"(twice) {local}") for local, tensor in _tensors(module))
        for stage, module in anatomy.stages
    }
    wrong = [*names.values(), *(tensor for tensors in owners.values() for tensor in tensors if " " in tensor)]
    if wrong:
        listed = ", ".join(wrong[:LISTED]) + (", ..." if len(wrong) > LISTED else "")
        raise _without_stages(name, f"{len(wrong)} of its tensors are not in exactly one stage: {listed}")
    return owners


def _tensors(module: nn.Module) -> list[tuple[str, Tensor]]:
    return [*module.named_parameters(), *module.named_buffers()]


def _check(name: str, model: Any, anatomy: Anatomy, image_size: int) -> tuple[list[tuple[int, ...]], int]:
    """Compare the chain of stages with timm's own forward; return the stages' output shapes and the feature count."""
    patch = max(model.patch_embed.patch_size) if hasattr(model, "patch_embed") else 1
    if image_size % patch:  # timm would leave out the last rows and columns
        raise _wrong_size(name, image_size, f"its patches are {patch} pixels wide", f"a multiple of {patch}")
    images = torch.randn(2, 3, image_size, image_size, generator=torch.Generator().manual_seed(0))
    shapes = []
    with torch.no_grad():
        try:
            whole = model.forward_head(model.forward_features(images), pre_logits=True)
        except SIZE_ERRORS as error:
            raise _wrong_size(name, image_size, str(error)) from error
        x = images
        try:
            for _, module in anatomy.stages:
                x = module(x)
                shapes.append(tuple(x.shape[1:]))
            pooled = anatomy.pool(x)
        except SIZE_ERRORS as error:
            raise _without_stages(name, f"its stages one after another fail: {error}") from error
    if not torch.equal(pooled, whole):
        raise _without_stages(name, "its stages one after another do not give what the whole model gives")
    return shapes, pooled.shape[1]


def _wrong_size(name: str, image_size: int, reason: str, expected: str = "a size that the backbone takes") -> UserError:
    first_line = reason.strip().partition("\n")[0].rstrip(".")
    return UserError(
        f"image_size: {image_size} does not fit {name}" + (f" ({first_line})" if first_line else ""),
        expected,
        f"choose another, for example the one that {name} was made for: image_size: {_entry(name).input_size[-1]}",
    )


def _without_stages(name: str, reason: str) -> UserError:
    families = ", ".join(dict.fromkeys(adapter.family for adapter in ADAPTERS.values()))
    return UserError(
        f"backbone: {name} cannot be cut into stages ({reason})",
        f"a timm model of one of the families {families}, for example {EXAMPLES}",
        f"say for example backbone: {EXAMPLE}",
    )
