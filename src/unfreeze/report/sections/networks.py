"""The report's pictures of strategies: which stages are frozen, trained or new in each phase."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unfreeze.text import count_text, plural

_TALLEST, _WIDEST, _SMALLEST = 104, 84, 8  # px


@dataclass(frozen=True)
class Block:
    """One stage or the head in one phase, drawn with a height and width in px by resolution and channels."""

    name: str
    state: str
    shape: str
    params: str
    height: int
    width: int
    layers: tuple[str, ...] = ()


@dataclass(frozen=True)
class PhasePicture:
    """One phase: title, number of trained parameters, and the blocks from the image to the classes."""

    title: str
    trains: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class StrategyPicture:
    """One strategy: its backbone, and a picture of each phase."""

    name: str
    backbone: str
    phases: tuple[PhasePicture, ...]

    @property
    def several_phases(self) -> bool:
        """Whether the curves of this strategy mark the start of another phase."""
        return len(self.phases) > 1


def strategy_pictures(networks: Mapping[str, Mapping[str, Any]]) -> list[StrategyPicture]:
    """Return a picture of each strategy from the ``networks`` of plan.json."""
    return [_picture(name, network) for name, network in networks.items()]


def _picture(name: str, network: Mapping[str, Any]) -> StrategyPicture:
    size, phases, candidates = network["image_size"], network["phases"], network.get("candidates", 1)
    tuned = f", the first of {candidates} tuned candidates" if candidates > 1 else ""
    return StrategyPicture(
        name=name,
        backbone=f"{network['backbone']}, weights: {network['weights']}, images of {size} × {size} pixels{tuned}",
        phases=tuple(_phase(network, number, len(phases)) for number in range(len(phases))),
    )


def _phase(network: Mapping[str, Any], number: int, count: int) -> PhasePicture:
    phase, stages, head = network["phases"][number], network["stages"], network["head"]
    widest = max((_channels(stage["output_shape"]) for stage in stages), default=1)
    blocks = [_block("image", "input", [3, network["image_size"], network["image_size"]], "", network, widest)]
    trained = int(head["params"])
    for stage in stages:
        state = str(stage["states"][number])
        trained += 0 if state == "frozen" else int(stage["params"])
        blocks.append(_block(stage["name"], state, stage["output_shape"], count_text(stage["params"]), network, widest))
    blocks.append(Block("head", "new", "", count_text(head["params"]), 56, 18, tuple(map(str, head["layers"]))))
    total = int(head["params"]) + sum(int(stage["params"]) for stage in stages)
    prefix = f"Phase {number + 1}: " if count > 1 else "Trains "
    return PhasePicture(
        title=f"{prefix}{phase['train']}, up to {plural(int(phase['epochs']), 'epoch')}, {phase['optimizer']}",
        trains=f"{trained:,} of {total:,} parameters train",
        blocks=tuple(blocks),
    )


def _block(name: str, state: str, shape: Sequence[int], params: str, network: Mapping[str, Any], widest: int) -> Block:
    side, channels = _side(shape), _channels(shape)
    # Resolutions and channels span orders of magnitude; square roots keep small ones visible.
    height = _TALLEST * math.sqrt(side / network["image_size"])
    width = _WIDEST * math.sqrt(channels / widest)
    return Block(
        name=str(name),
        state=state,
        shape=" × ".join(map(str, shape)),
        params=params,
        height=max(_SMALLEST, min(_TALLEST, round(height))),
        width=max(_SMALLEST, min(_WIDEST, round(width))),
    )


def _channels(shape: Sequence[int]) -> int:
    """Return the number of channels of an output (C, H, W), (H, W, C), (L, C) or (C,)."""
    return int(shape[0]) if len(shape) == 3 and shape[1] == shape[2] else int(shape[-1])


def _side(shape: Sequence[int]) -> float:
    """Return the side of an output in positions: the square root of L for (L, C), 1 for (C,)."""
    if len(shape) == 3:
        return float(shape[1])
    return math.sqrt(shape[0]) if len(shape) == 2 else 1.0
