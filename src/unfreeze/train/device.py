"""Device and precision of all computation, and the conditions that numbers and seconds depend on."""

import contextlib
import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import torch

from unfreeze.errors import UserError
from unfreeze.model.adapters import stage_versions
from unfreeze.storage.measurements import processor

PACKAGES = ("torch", "openvino", "torchvision", "timm", "pillow", "numpy", "unfreeze")
"""Packages that numbers come from."""


@dataclass(frozen=True)
class Compute:
    """A device and the precision of its forward passes."""

    device: torch.device
    precision: str

    @property
    def device_name(self) -> str:
        """The name of a GPU, else the type of the device."""
        return torch.cuda.get_device_name() if self.device.type == "cuda" else str(self.device)

    def forward_pass(self) -> contextlib.AbstractContextManager:
        """Return the context of a forward pass: bfloat16 where it was asked for, else float32."""
        if self.precision == "bfloat16":
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return contextlib.nullcontext()

    def move(self, inputs: torch.Tensor, channels_last: bool = True) -> torch.Tensor:
        """Bring inputs to the device; (n, c, h, w) in channels-last order, in which convolutions are fastest."""
        layout = torch.channels_last if channels_last and inputs.ndim == 4 else torch.preserve_format
        return inputs.to(self.device, non_blocking=True, memory_format=layout)


def pick(device: str, precision: str) -> Compute:
    """Choose the device: CUDA, then MPS, then CPU for ``auto``.

    Raises:
        UserError: the device asked for is not there, or cannot compute in that precision.
    """
    there = ["cpu"]
    if torch.backends.mps.is_available():
        there.insert(0, "mps")
    if torch.cuda.is_available():
        there.insert(0, "cuda")
    chosen = there[0] if device == "auto" else device
    if chosen not in there:
        raise UserError(
            f"device: {device} is not available here",
            "one of auto, " + ", ".join(there),
            "set device: auto, or install the build of torch for that device",
        )
    if precision == "bfloat16" and chosen == "cuda" and not torch.cuda.is_bf16_supported():
        raise UserError("precision: bfloat16 is not supported by this GPU", "float32", "set precision: float32")
    if chosen == "cuda":
        _same_numbers_always()
    return Compute(torch.device(chosen), precision)


def _same_numbers_always() -> None:
    """Let CUDA's kernels sum in one fixed order; without, hardly any network trains to the same weights twice.

    An operation that has no such kernel raises a RuntimeError that names it (https://docs.pytorch.org/docs/stable/
    generated/torch.use_deterministic_algorithms.html).
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS is first used
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # nothing reads it
    torch.backends.cuda.matmul.allow_tf32 = False  # float32 means float32: TF32 keeps ten bits of it
    torch.backends.cudnn.allow_tf32 = False


@contextlib.contextmanager
def settings_restored() -> Iterator[None]:
    """Restore torch's settings that ``pick`` and studies change, for work that only plans."""
    variable, threads = os.environ.get("CUBLAS_WORKSPACE_CONFIG"), torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    filled = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    tf32 = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    try:
        yield
    finally:
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic[0], warn_only=deterministic[1])
        torch.utils.deterministic.fill_uninitialized_memory = filled  # type: ignore[attr-defined]
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = tf32
        os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)
        if variable is not None:
            os.environ["CUBLAS_WORKSPACE_CONFIG"] = variable


def machine(compute: Compute) -> dict[str, Any]:
    """Return what measured seconds depend on beside the network, as JSON data."""
    return {
        "processor": processor(),
        "device": compute.device_name,
        "precision": compute.precision,
        "threads": torch.get_num_threads(),
        "stages": stage_versions(),
    }


def conditions(compute: Compute) -> dict[str, Any]:
    """Return what must be the same for training to give the same numbers to the last bit, as JSON data."""
    return {
        **versions(),
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "device": compute.device_name,
        "precision": compute.precision,
    }


def environment(compute: Compute) -> dict[str, Any]:
    """Return the content of environment.json: versions, processor, threads, device and platform."""
    return {
        "python": platform.python_version(),
        **versions(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": compute.device_name,
        "platform": platform.platform(),
    }


def versions() -> dict[str, str]:
    """Return the versions of the packages that numbers come from."""
    return {name: metadata.version(name) for name in PACKAGES}
