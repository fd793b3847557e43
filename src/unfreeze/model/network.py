"""Network divided at a cut into frozen prefix, trained suffix and head."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, Self

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from unfreeze.errors import UserError
from unfreeze.model.backbone import Backbone

if TYPE_CHECKING:
    from unfreeze.config.schema import LastStages


BatchNormMode = Literal["frozen", "train"]


class Frozen(nn.Module):
    """Frozen stages, always in inference mode, which includes BatchNorm, dropout and stochastic depth.

    ``train()`` has no effect, neither on this module nor on a stage or the timm model that shares it: the forward sets
    inference mode again. Parameters take no gradient.
    """

    def __init__(self, stages: Iterable[nn.Module]) -> None:
        super().__init__()
        self.stages = nn.Sequential(*stages)
        self.requires_grad_(False)
        self.train(False)

    def train(self, mode: bool = True) -> Self:
        """Stay in inference mode, whatever ``mode`` is."""
        return super().train(False)

    def forward(self, x: Tensor) -> Tensor:
        """Map images to activations without a graph; the identity without stages."""
        self.stages.train(False)
        with torch.no_grad():
            return self.stages(x)


class Trained(nn.Module):
    """Trained stages; in those of mode "frozen", BatchNorm keeps its statistics, but its scale and shift train."""

    def __init__(self, stages: Iterable[nn.Module], batch_norm: Sequence[BatchNormMode]) -> None:
        super().__init__()
        self.stages = nn.Sequential(*stages)
        self.batch_norm = tuple(batch_norm)
        self.requires_grad_(True)
        self.train()

    def train(self, mode: bool = True) -> Self:
        """Set the mode of all layers except BatchNorm with frozen statistics."""
        super().train(mode)
        for stage, batch_norm in zip(self.stages, self.batch_norm, strict=True):
            if batch_norm == "frozen":
                for module in stage.modules():
                    if isinstance(module, _BatchNorm):
                        module.train(False)
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Map activations at the cut to the last stage's output."""
        return self.stages(x)


class Network(nn.Module):
    """Chain of prefix, suffix and head: float32 images (N, 3, S, S) to logits (N, classes)."""

    def __init__(self, prefix: Frozen, suffix: Trained, head: nn.Module) -> None:
        super().__init__()
        self.prefix, self.suffix, self.head = prefix, suffix, head

    def forward(self, x: Tensor) -> Tensor:
        """Map images to logits."""
        return self.head(self.suffix(self.prefix(x)))


def frozen_stages(train: LastStages | Literal["all", "head"], stages: int, names: Sequence[str] = ()) -> int:
    """Return the number of frozen stages.

    Args:
        train: "all", "head", or the last stages as a number (int) or a share (float, rounded, at least one stage).
        stages: number of stages of the backbone.
        names: names of the stages, for the message.

    Raises:
        UserError: there are fewer stages.
    """
    if train == "all":
        return 0
    if train == "head":
        return stages
    last = train.last
    trained = max(1, round(last * stages)) if isinstance(last, float) else last
    if not 1 <= trained <= stages:
        raise UserError(
            f"train: {{last: {last}}}, but the backbone has {stages} stages",
            f"1 to {stages} stages" + (f" ({', '.join(names)})" if names else ""),
            f"set train: {{last: {stages}}} or less, or train: all",
        )
    return stages - trained


def build_network(
    backbone: Backbone,
    head: nn.Module,
    frozen: int,
    batch_norm: BatchNormMode,
    fresh_from: int | None = None,
    start: int = 0,
) -> Network:
    """Divide a backbone after its first ``frozen`` stages and add a head.

    The network shares the backbone's tensors: of several networks on one backbone, the one built last determines which
    parameters take a gradient.

    Args:
        backbone: the stages.
        head: maps the last stage's output to logits.
        frozen: number of frozen stages.
        batch_norm: mode of BatchNorm in trained stages; "frozen" keeps the pretrained statistics.
        fresh_from: number of the first stage with random weights; BatchNorm always trains from there on. None if all
            weights are pretrained.
        start: number of stages that the network's inputs have already passed.
    """
    stages = [stage.module for stage in backbone.stages]
    fresh = len(stages) if fresh_from is None else fresh_from
    modes: list[BatchNormMode] = ["train" if stage >= fresh else batch_norm for stage in range(frozen, len(stages))]
    return Network(Frozen(stages[start:frozen]), Trained(stages[frozen:], modes), head)


def tensor_names(backbone: Backbone, network: Network) -> dict[str, str]:
    """Return a mapping of the network's trained tensors (``suffix.*``, ``head.*``) to timm's names and ``head.*``."""
    timm_names = {id(tensor): name for name, tensor in backbone.model.state_dict(keep_vars=True).items()}
    suffix = network.suffix.state_dict(keep_vars=True, prefix="suffix.")
    names = {name: timm_names[id(tensor)] for name, tensor in suffix.items()}
    return names | {name: name for name in network.head.state_dict(prefix="head.")}


def trained_state(network: Network, backbone: Backbone) -> dict[str, Tensor]:
    """Return contiguous CPU copies of the trained parameters and buffers, under timm's names and ``head.*``."""
    state = network.state_dict()
    return {
        name: state[own].to("cpu", copy=True, memory_format=torch.contiguous_format)
        for own, name in tensor_names(backbone, network).items()
    }


def load_trained_state(network: Network, backbone: Backbone, tensors: Mapping[str, Tensor]) -> None:
    """Copy tensors of ``trained_state`` into the network in place; its device and memory format are kept.

    Raises:
        UserError: names or shapes differ from those of the network.
    """
    state = network.state_dict()
    names = tensor_names(backbone, network)
    expected = {name: state[own] for own, name in names.items()}
    wrong = sorted(expected.keys() ^ tensors.keys())
    wrong += sorted(name for name in expected.keys() & tensors.keys() if expected[name].shape != tensors[name].shape)
    if wrong:
        raise UserError(
            f"trained tensors of a different network: {len(wrong)} differ, first {wrong[0]}",
            f"the {len(expected)} trained tensors of this network",
            "load them into the strategy and backbone that they were saved from",
        )
    with torch.no_grad():
        for name, tensor in expected.items():
            tensor.copy_(tensors[name])


def frozen_state(backbone: Backbone, frozen: int) -> dict[str, Tensor]:
    """Return the parameters and buffers of the first stages, under timm's names (shared, not copied)."""
    owned = dict([*backbone.model.named_parameters(), *backbone.model.named_buffers()])
    return {name: owned[name].detach() for stage in backbone.stages[:frozen] for name in stage.tensors}


def tensors_hash(tensors: Mapping[str, Tensor]) -> str:
    """Return the sha256, in hexadecimal, of names, dtypes, shapes and bytes, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}\x1f{tensor.dtype}\x1f{list(tensor.shape)}\x1f".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
