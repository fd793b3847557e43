"""Load a backbone, divide it into stages, and check the stages against the whole model."""

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

# Errors of timm and PyTorch for an unsupported input size.
SIZE_ERRORS = (RuntimeError, AssertionError, ValueError, ZeroDivisionError)


@dataclass(frozen=True)
class Stage:
    """One of a backbone's ordered units.

    Attributes:
        name: for example "block5".
        module: shares its submodules and tensors with the timm model.
        tensors: timm's names of its parameters and buffers.
        output_shape: shape of the output for one image, without the batch axis, at the backbone's input size.
    """

    name: str
    module: nn.Module
    tensors: tuple[str, ...]
    output_shape: tuple[int, ...]


@dataclass(frozen=True)
class Backbone:
    """A timm model without its classifier, divided into stages.

    Attributes:
        name: timm's name.
        stages: in order; each takes the output of the one before, the first takes float32 images (N, 3, S, S).
        pool: the model's own pooling, without parameters; maps the last stage's output to (N, features).
        layout: axes of the last stage's output: "NCHW", "NHWC", "NLC", or "NC" where the last stage pools.
        features: length of the pooled vector.
        weights: source and preprocessing of the loaded weights.
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
    """Build a timm model, load its weights, divide it into stages and check them.

    Every parameter and buffer has to be in exactly one stage, and the chain of stages has to give the same result as
    timm's own forward, bit for bit, on a random batch of 2 in inference mode.

    Args:
        name: a timm model of a supported family, with or without a tag for its weights.
        weights: "pretrained", "none" (drawn under the stream "init"), or the path of a safetensors file.
        image_size: side of the square input, in pixels.
        seed: seed of the stream "init".

    Raises:
        UserError: the name is unknown, the model has no adapter or does not support the input size, or the weights are
            not available or do not fit.
    """
    config = _config_of(name)
    model = _create(name, config, image_size, seed)
    adapter = ADAPTERS.get(type(model))
    if adapter is None:
        raise _without_stages(name, f"timm's class {type(model).__name__} is not supported")
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
    """Return a copy to train; its first ``frozen`` stages share their tensors with the original."""
    names = {name for stage in backbone.stages[:frozen] for name in stage.tensors}
    shared = {id(tensor): tensor for name, tensor in _tensors(backbone.model) if name in names}
    return copy.deepcopy(backbone, shared)


def reinitialise(backbone: Backbone, first_stage: int, seed: int) -> None:
    """Reset the stages from ``first_stage`` on (counted from 0) to random weights, as for weights "none".

    Works in place, so it changes every network built on this backbone.
    """
    fresh = _create(backbone.name, _config_of(backbone.name), backbone.image_size, seed).state_dict()
    names = {name for stage in backbone.stages[first_stage:] for name in stage.tensors}
    state = backbone.model.state_dict()
    with torch.no_grad():
        for name in names & state.keys():
            state[name].copy_(fresh[name])


def _config_of(name: str) -> PretrainedCfg:
    """Return timm's configuration of a model name: its preprocessing and the location of its weights.

    Raises:
        UserError: timm has no such model, or no weights with this tag.
    """
    architecture, _, tag = name.partition(".")
    if not timm.is_model(name):
        similar = difflib.get_close_matches(architecture.lower(), timm.list_models(), n=LISTED)
        others = f" (or {', '.join(similar[1:])})" if similar[1:] else ""
        raise UserError(
            f"backbone: timm has no model {name}",
            f"a timm model, for example {EXAMPLES}",
            f"set backbone: {similar[0]}{others}" if similar else f"set for example backbone: {EXAMPLE}",
        )
    tags = [pretrained.partition(".")[2] for pretrained in timm.list_pretrained(f"{architecture}.*")]
    if tag and tag not in tags:
        raise UserError(
            f"backbone: {architecture} has no weights tagged {tag}",
            f"one of {', '.join(tags)}" if tags else f"{architecture} without a tag",
            f"set backbone: {architecture}.{tags[0]}" if tags else f"set backbone: {architecture}",
        )
    config = timm.get_pretrained_cfg(name)
    return config if config is not None else PretrainedCfg()


def _create(name: str, config: PretrainedCfg, image_size: int, seed: int) -> Any:
    """Build a timm model without its classifier, with random weights from the stream "init"."""
    options: dict[str, Any] = {"img_size": image_size} if config.fixed_input_size else {}
    if timm.models.is_model_in_modules(name, ["vgg"]):
        # The 4096-wide layers are not part of the backbone: do not allocate and draw their 0.5 GB.
        options["mlp_ratio"] = 1 / 4096
    # Seed only the CPU's generator: torch.manual_seed would also seed those of accelerators, which are not restored.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(stream_seed(seed, "init", name))
        try:
            return timm.create_model(name, pretrained=False, num_classes=0, **options)
        except SIZE_ERRORS as error:
            raise _wrong_size(name, image_size, str(error)) from error


def _owners(name: str, model: nn.Module, anatomy: Anatomy) -> dict[str, tuple[str, ...]]:
    """Return timm's names of each stage's tensors.

    Raises:
        UserError: a tensor is in no stage or in two.
    """
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
    """Check the chain of stages against timm's forward; return the stages' output shapes and the number of features."""
    patch = max(model.patch_embed.patch_size) if hasattr(model, "patch_embed") else 1
    if image_size % patch:  # timm would ignore the last rows and columns
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
            raise _without_stages(name, f"the chain of its stages fails: {error}") from error
    if not torch.equal(pooled, whole):
        raise _without_stages(name, "the chain of its stages does not give the result of the whole model")
    return shapes, pooled.shape[1]


def _wrong_size(
    name: str, image_size: int, reason: str, expected: str = "a size that the backbone supports"
) -> UserError:
    first_line = reason.strip().partition("\n")[0].rstrip(".")
    return UserError(
        f"image_size: {image_size} does not fit {name}" + (f" ({first_line})" if first_line else ""),
        expected,
        f"choose another size, for example the default of {name}: image_size: {_config_of(name).input_size[-1]}",
    )


def _without_stages(name: str, reason: str) -> UserError:
    families = ", ".join(dict.fromkeys(adapter.family for adapter in ADAPTERS.values()))
    return UserError(
        f"backbone: {name} cannot be divided into stages ({reason})",
        f"a timm model of one of the families {families}, for example {EXAMPLES}",
        f"set for example backbone: {EXAMPLE}",
    )
