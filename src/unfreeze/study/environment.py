"""What the numbers of a run are computed with."""

import os
import platform
from collections.abc import Mapping
from importlib import metadata
from typing import Any

import torch

from unfreeze.study.measure import processor
from unfreeze.train.device import Compute

PACKAGES = ("torch", "ncnn", "openvino", "torchvision", "timm", "pillow", "numpy", "unfreeze")


def environment(compute: Compute) -> dict[str, Any]:
    """Return what the numbers were computed with, as environment.json holds it."""
    return {
        "python": platform.python_version(),
        **versions(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": _device(compute),
        "platform": platform.platform(),
    }


def conditions(compute: Compute) -> dict[str, Any]:
    """Return what training has to have in common to give the same numbers to the last bit."""
    return {
        **versions(),
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "device": _device(compute),
        "precision": compute.precision,
    }


def versions() -> Mapping[str, str]:
    """Return the versions of the packages that numbers come from."""
    return {name: metadata.version(name) for name in PACKAGES}


def _device(compute: Compute) -> str:
    return torch.cuda.get_device_name() if compute.device.type == "cuda" else str(compute.device)
