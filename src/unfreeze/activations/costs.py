"""Cost model of frozen work: seconds if stored or live, and the choice of what to store in a disk budget."""

from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class PrefixCost:
    """Seconds of frozen stages per row, measured at the deepest cut and scaled by FLOPs.

    Attributes:
        engine, pytorch: seconds per row up to the deepest cut, by the engine and in plain PyTorch.
        build: seconds of building the engine.
        deepest: the deepest cut.
        flops: FLOPs of each stage for one image.
        chains: pairs of cuts of which the deeper one can be computed from the shallower one.
    """

    engine: float
    pytorch: float
    build: float
    deepest: int
    flops: tuple[int, ...]
    chains: tuple[tuple[int, int], ...] = ()

    def seconds(self, start: int, stop: int) -> float:
        """Return the engine's seconds per row from ``start`` to ``stop`` stages."""
        return self.engine * self._share(start, stop)

    def seconds_pytorch(self, stop: int) -> float:
        """Return PyTorch's seconds per image up to ``stop`` stages."""
        return self.pytorch * self._share(0, stop)

    def _share(self, start: int, stop: int) -> float:
        return sum(self.flops[start:stop]) / max(1, sum(self.flops[: self.deepest]))


@dataclass(frozen=True)
class Storable:
    """Activations that can be stored.

    Attributes:
        prefix, view: frozen network and view; a deeper cut may start from a shallower one of the same two.
        cut: number of frozen stages.
        rows: number of distinct rows.
        draws: number of reads in the study.
        bytes: size of all rows, including manifests.
        held: rows that are already stored.
    """

    prefix: Hashable
    view: Hashable
    cut: int
    rows: int
    draws: int
    bytes: int
    held: int = 0


def start_of(wanted: Storable, stored: Collection[Storable], chains: Collection[tuple[int, int]]) -> Storable | None:
    """Return the deepest stored activations that others can be computed from; None: from the image."""
    able = [
        other
        for other in stored
        if (other.prefix, other.view) == (wanted.prefix, wanted.view) and (other.cut, wanted.cut) in chains
    ]
    return max(able, key=lambda other: other.cut, default=None)


def seconds_of(read: Storable, stored: Collection[Storable], cost: PrefixCost, view_seconds: float) -> float:
    """Return the seconds that a study needs for activations, if ``stored`` are stored.

    Missing rows of stored activations are computed once, from a shallower cut where it has rows, else from the image.
    Activations that are not stored are computed at every draw.
    """
    from_image = cost.seconds(0, read.cut) + view_seconds
    if read not in stored:
        return cost.build + read.draws * from_image
    missing = read.rows - read.held
    if not missing:
        return 0.0
    start = start_of(read, stored, cost.chains)
    if start is None:
        return cost.build + missing * from_image
    chained = min(missing, start.rows)
    return cost.build + chained * cost.seconds(start.cut, read.cut) + (missing - chained) * from_image


def choose(
    storables: Sequence[Storable], costs: Mapping[Any, PrefixCost], view_seconds: float, budget: int
) -> tuple[Storable, ...]:
    """Choose what to store, greedily by seconds saved per byte, within a disk budget.

    Activations that save nothing in this study are stored too if they fit, since the next study may use them.

    Args:
        storables: activations that can be stored.
        costs: costs by prefix.
        view_seconds: seconds of preparing one image.
        budget: bytes for all of them, including those already stored.
    """
    stored: list[Storable] = []

    def total(chosen: Collection[Storable]) -> float:
        return sum(seconds_of(each, chosen, costs[each.prefix], view_seconds) for each in storables)

    while True:
        used, now = sum(each.bytes for each in stored), total(stored)
        fitting = [each for each in storables if each not in stored and used + each.bytes <= budget]
        gains = [((now - total([*stored, each])) / max(1, each.bytes), -each.cut, each) for each in fitting]
        if not gains:
            return tuple(each for each in storables if each in stored)
        gain, _, best = max(gains, key=lambda entry: entry[:2])
        if gain < 0:
            return tuple(each for each in storables if each in stored)
        stored.append(best)
