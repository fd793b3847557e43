"""Network divided at a cut: frozen prefix, trained suffix, head."""

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
    """Stages in inference mode by construction: BatchNorm statistics, dropout and stochastic depth included.

    No ``train()`` leaves inference mode, that of the container, of a stage or of the timm model that shares it: the
    forward sets it anew. Parameters take no gradient.
    """

    def __init__(self, stages: Iterable[nn.Module]) -> None:
        super().__init__()
        self.stages = nn.Sequential(*stages)
        self.requires_grad_(False)
        self.train(False)

    def train(self, mode: bool = True) -> Self:
        """Stay in inference mode, whatever mode is asked for."""
        return super().train(False)

    def forward(self, x: Tensor) -> Tensor:
        """Map images, or the identity for no stages, to activations without a graph."""
        self.stages.train(False)
        with torch.no_grad():
            return self.stages(x)


class Trained(nn.Module):
    """Stages that train; in those whose mode is "frozen" BatchNorm keeps its statistics (its scale and shift train)."""

    def __init__(self, stages: Iterable[nn.Module], batch_norm: Sequence[BatchNormMode]) -> None:
        super().__init__()
        self.stages = nn.Sequential(*stages)
        self.batch_norm = tuple(batch_norm)
        self.requires_grad_(True)
        self.train()

    def train(self, mode: bool = True) -> Self:
        """Set the mode of all but BatchNorm layers with frozen statistics."""
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
    """Prefix, suffix and head, one after another: images float32 (N, 3, S, S) to logits (N, classes)."""

    def __init__(self, prefix: Frozen, suffix: Trained, head: nn.Module) -> None:
        super().__init__()
        self.prefix, self.suffix, self.head = prefix, suffix, head

    def forward(self, x: Tensor) -> Tensor:
        """Map images to logits."""
        return self.head(self.suffix(self.prefix(x)))


def frozen_stages(train: LastStages | Literal["all", "head"], stages: int, names: Sequence[str] = ()) -> int:
    """Return how many stages are frozen.

    Args:
        train: "all", "head", or the last stages as a number (int) or share (float: at least one, to the nearest).
        stages: how many the backbone has.
        names: theirs, for the message.

    Raises:
        UserError: more stages are asked for than there are.
    """
    if train == "all":
        return 0
    if train == "head":
        return stages
    last = train.last
    trained = max(1, round(last * stages)) if isinstance(last, float) else last
    if not 1 <= trained <= stages:
        raise UserError(
            f"train: {{last: {last}}}, a cut that does not exist",
            f"1 to {stages}, the number of the backbone's stages" + (f" ({', '.join(names)})" if names else ""),
            f"say train: {{last: {stages}}} or less, or train: all",
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
    """Divide a backbone after its first ``frozen`` stages and put a head on it.

    The network shares the backbone's tensors: of several networks on one backbone, the one built last says which
    parameters take a gradient.

    Args:
        backbone: its stages.
        head: last stage's output to logits.
        frozen: number of frozen stages.
        batch_norm: of the trained stages: "frozen" keeps their pretrained statistics.
        fresh_from: number of the first stage with fresh weights; the BatchNorm of the stages from it on has nothing
            to keep and always trains. None if all weights are pretrained.
        start: number of stages before the network, whose output is its input.
    """
    stages = [stage.module for stage in backbone.stages]
    fresh = len(stages) if fresh_from is None else fresh_from
    modes: list[BatchNormMode] = ["train" if stage >= fresh else batch_norm for stage in range(frozen, len(stages))]
    return Network(Frozen(stages[start:frozen]), Trained(stages[frozen:], modes), head)


def tensor_names(backbone: Backbone, network: Network) -> dict[str, str]:
    """Map the network's names of its trained tensors (``suffix.*``, ``head.*``) to timm's names and ``head.*``."""
    timm_names = {id(tensor): name for name, tensor in backbone.model.state_dict(keep_vars=True).items()}
    suffix = network.suffix.state_dict(keep_vars=True, prefix="suffix.")
    names = {name: timm_names[id(tensor)] for name, tensor in suffix.items()}
    return names | {name: name for name in network.head.state_dict(prefix="head.")}


def trained_state(network: Network, backbone: Backbone) -> dict[str, Tensor]:
    """Copy the trained tensors, parameters and buffers, to the CPU, contiguous, under timm's names and ``head.*``."""
    state = network.state_dict()
    return {
        name: state[own].to("cpu", copy=True, memory_format=torch.contiguous_format)
        for own, name in tensor_names(backbone, network).items()
    }


def load_trained_state(network: Network, backbone: Backbone, tensors: Mapping[str, Tensor]) -> None:
    """Copy what ``trained_state`` gave into the network, in place: device and memory format stay the network's.

    Raises:
        UserError: the tensors are those of another network.
    """
    state = network.state_dict()
    names = tensor_names(backbone, network)
    expected = {name: state[own] for own, name in names.items()}
    wrong = sorted(expected.keys() ^ tensors.keys())
    wrong += sorted(name for name in expected.keys() & tensors.keys() if expected[name].shape != tensors[name].shape)
    if wrong:
        raise UserError(
            f"trained tensors of another network: {len(wrong)} differ, the first is {wrong[0]}",
            f"the {len(expected)} tensors that train in this network",
            "load them into the strategy and backbone that they were saved from",
        )
    with torch.no_grad():
        for name, tensor in expected.items():
            tensor.copy_(tensors[name])


def frozen_state(backbone: Backbone, frozen: int) -> dict[str, Tensor]:
    """Return the first stages' own tensors, parameters and all buffers, under timm's names (shared, not copied)."""
    owned = dict([*backbone.model.named_parameters(), *backbone.model.named_buffers()])
    return {name: owned[name].detach() for stage in backbone.stages[:frozen] for name in stage.tensors}


def tensors_hash(tensors: Mapping[str, Tensor]) -> str:
    """Return the sha256, in hexadecimal, over names, dtypes, shapes and bytes, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}\x1f{tensor.dtype}\x1f{list(tensor.shape)}\x1f".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
