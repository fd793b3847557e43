"""Versions, processor and threads that the numbers of a run depend on."""

import os
import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

import torch

from unfreeze.storage.measurements import processor
from unfreeze.storage.records import read_json
from unfreeze.storage.study_dir import StudyDir
from unfreeze.train.device import Compute

PACKAGES = ("torch", "openvino", "torchvision", "timm", "pillow", "numpy", "unfreeze")


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


def made_otherwise(store: StudyDir, finished: Sequence[str], compute: Compute) -> list[str]:
    """Return a sentence for each set of other conditions that finished cells were made under: what, which cells.

    They stay finished: their numbers are what they were, and new ones may differ from them in the last digits.
    """
    now = conditions(compute)
    cells: dict[str, list[str]] = {}
    for name in finished:
        before = read_json(store.cell(name) / "cell.json").get("made_with", {})
        differing = [f"{key} {before[key]}, now {now[key]}" for key in now if before.get(key, now[key]) != now[key]]
        if differing:
            cells.setdefault("; ".join(differing), []).append(name)
    return [
        f"finished under other conditions ({differing}), which new cells may differ from in the last digits "
        f"(another --out runs all anew): {', '.join(names)}"
        for differing, names in cells.items()
    ]


def versions() -> Mapping[str, str]:
    """Return the versions of the packages that numbers come from."""
    return {name: metadata.version(name) for name in PACKAGES}


def _device(compute: Compute) -> str:
    return torch.cuda.get_device_name() if compute.device.type == "cuda" else str(compute.device)
