"""Rebuild a finished cell's model from its files, and check it against its stored logits."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter
from torch import Tensor

from unfreeze.config.resolve import Strategy
from unfreeze.errors import UserError
from unfreeze.inputs.augment import Preprocessing
from unfreeze.metrics import Logits
from unfreeze.model.backbone import Backbone, load_backbone
from unfreeze.model.cuts import cuts_of
from unfreeze.model.network import Network, build_network, frozen_state, load_trained_state, tensors_hash
from unfreeze.storage.records import read_json, read_tensors
from unfreeze.storage.study_dir import StudyDir
from unfreeze.train.device import Compute
from unfreeze.train.heads import build_head

TOLERANCE = {"float32": 0.01, "bfloat16": 0.1}
"""Largest difference of recomputed logits, as a share of the largest stored one, by precision.

Frozen stages ran on another engine and in other batches.
"""


@dataclass(frozen=True)
class FinishedModel:
    """Model of a finished cell, the chosen candidate, in inference mode.

    Attributes:
        network: images float32 (N, 3, S, S), normalised, to logits (N, classes).
        backbone: whose tensors the network shares.
        strategy: how it was trained.
        preprocessing: how a picture becomes its input.
        classes: in the order of the logits.
        about: the content of cell.json.
    """

    network: Network
    backbone: Backbone
    strategy: Strategy
    preprocessing: Preprocessing
    classes: tuple[str, ...]
    about: dict[str, Any]


def load_finished(store: StudyDir, cell: str) -> FinishedModel:
    """Rebuild the model of a finished cell from its initial weights and its trained tensors.

    Raises:
        UserError: the initial weights cannot be loaded or have changed since training, or the tensors are those of
            another network.
    """
    folder = store.cell(cell)
    about, chosen = read_json(folder / "cell.json"), read_json(folder / "result.json")["chosen"]
    strategy = TypeAdapter(Strategy).validate_python(about["candidates"][chosen or ""])
    asked, seed = strategy.backbone, int(about["seed"])
    backbone = load_backbone(asked.name, asked.weights, strategy.image_size, seed)
    if backbone.weights.sha256 != about["weights"]["sha256"]:
        raise _other_weights(cell, f"{backbone.weights.source} has the sha256 {backbone.weights.sha256}", about)
    frozen = min(cuts_of(strategy, backbone))
    head = build_head(strategy.head, backbone, len(about["classes"]), seed)
    network = build_network(backbone, head, frozen, "frozen")
    tensors, metadata = read_tensors(folder / "model.safetensors")
    found = tensors_hash(frozen_state(backbone, frozen))
    if found != metadata["prefix_sha256"]:
        raise _other_weights(cell, f"the frozen stages have the sha256 {found}", about)
    load_trained_state(network, backbone, {name: torch.from_numpy(array) for name, array in tensors.items()})
    network.eval()
    weights = backbone.weights
    preprocessing = Preprocessing(
        strategy.image_size, strategy.resize, weights.mean, weights.std, weights.interpolation, weights.crop_share
    )
    return FinishedModel(network, backbone, strategy, preprocessing, tuple(about["classes"]), about)


def check_logits(finished: FinishedModel, images: Tensor, stored: Logits, compute: Compute) -> None:
    """Check the model's logits against those that its cell stored for the same images.

    Args:
        finished: the model, on the device of ``compute``.
        images: plain views, float32 (N, 3, S, S).
        stored: logits (N, classes).
        compute: device and precision.

    Raises:
        UserError: they differ by more than another engine's rounding explains.
    """
    with torch.inference_mode(), compute.forward_pass():
        logits = finished.network(compute.move(images)).float().cpu().numpy()
    largest = max(1.0, float(np.abs(stored).max()))
    difference = float(np.abs(logits - stored).max())
    if not difference <= TOLERANCE[compute.precision] * largest:
        raise UserError(
            f"the model of {finished.about['cell']} now gives logits that differ by {difference:.3g} from the stored",
            f"at most {TOLERANCE[compute.precision]:.0%} of the largest, {largest:.3g}",
            "restore the versions that environment.json names, or delete the cell and run the study again",
        )


def _other_weights(cell: str, found: str, about: dict[str, Any]) -> UserError:
    weights = about["weights"]
    return UserError(
        f"the weights that {cell} was trained from have changed: {found}",
        f"those it began with, {weights['source']}" + (f", sha256 {weights['sha256']}" if weights["sha256"] else ""),
        "restore them, or run the study again with what is there now",
    )
