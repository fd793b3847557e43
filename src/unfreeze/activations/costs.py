"""Cost model of frozen work: seconds stored and live, and what to store within a disk budget."""

from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class PrefixCost:
    """Seconds of frozen stages on one row, as calibrated at the deepest cut and shared out by FLOPs.

    Attributes:
        engine, pytorch: seconds of a row up to the deepest cut, by the engine and in plain PyTorch.
        build: seconds of making an engine.
        deepest: that cut.
        flops: of each stage of the backbone, for one image.
        chains: pairs of cuts of which the deeper one may be computed from the shallower one.
    """

    engine: float
    pytorch: float
    build: float
    deepest: int
    flops: tuple[int, ...]
    chains: tuple[tuple[int, int], ...] = ()

    def seconds(self, start: int, stop: int) -> float:
        """Return the engine's seconds for one row from ``start`` to ``stop`` stages."""
        return self.engine * self._share(start, stop)

    def seconds_pytorch(self, stop: int) -> float:
        """Return PyTorch's seconds for one image up to ``stop`` stages."""
        return self.pytorch * self._share(0, stop)

    def _share(self, start: int, stop: int) -> float:
        return sum(self.flops[start:stop]) / max(1, sum(self.flops[: self.deepest]))


@dataclass(frozen=True)
class Storable:
    """Activations that could be stored.

    Attributes:
        prefix, view: what they are of; a deeper cut may start from a shallower one of the same two.
        cut: number of frozen stages.
        rows: distinct ones.
        draws: how often one is read in the study.
        bytes: of all rows, manifests included.
        held: rows that are stored already.
    """

    prefix: Hashable
    view: Hashable
    cut: int
    rows: int
    draws: int
    bytes: int
    held: int = 0


def start_of(one: Storable, stored: Collection[Storable], chains: Collection[tuple[int, int]]) -> Storable | None:
    """Return the deepest stored activations that ``one`` may be computed from; None: from the image."""
    able = [
        other
        for other in stored
        if (other.prefix, other.view) == (one.prefix, one.view) and (other.cut, one.cut) in chains
    ]
    return max(able, key=lambda other: other.cut, default=None)


def seconds_of(one: Storable, stored: Collection[Storable], cost: PrefixCost, view_seconds: float) -> float:
    """Return the seconds that activations cost a study, if ``stored`` are stored.

    What is stored and not held yet is computed once, from the image or as far as there are rows from a shallower cut;
    what is not is computed at every draw.
    """
    whole = cost.seconds(0, one.cut) + view_seconds
    if one not in stored:
        return cost.build + one.draws * whole
    missing = one.rows - one.held
    if not missing:
        return 0.0
    start = start_of(one, stored, cost.chains)
    if start is None:
        return cost.build + missing * whole
    near = min(missing, start.rows)
    return cost.build + near * cost.seconds(start.cut, one.cut) + (missing - near) * whole


def choose(
    storables: Sequence[Storable], costs: Mapping[Any, PrefixCost], view_seconds: float, budget: int
) -> tuple[Storable, ...]:
    """Choose what to store: again and again the activations that save most a byte, while they fit the budget.

    What saves nothing now is stored too if there is room, since the next study may use it.

    Args:
        storables: what could be.
        costs: by prefix.
        view_seconds: of preparing one image.
        budget: bytes for all of them, those already held included.
    """
    stored: list[Storable] = []

    def total(chosen: Collection[Storable]) -> float:
        return sum(seconds_of(one, chosen, costs[one.prefix], view_seconds) for one in storables)

    while True:
        used, now = sum(one.bytes for one in stored), total(stored)
        fitting = [one for one in storables if one not in stored and used + one.bytes <= budget]
        gains = [((now - total([*stored, one])) / max(1, one.bytes), -one.cut, one) for one in fitting]
        if not gains:
            return tuple(one for one in storables if one in stored)
        gain, _, best = max(gains, key=lambda entry: entry[:2])
        if gain < 0:
            return tuple(one for one in storables if one in stored)
        stored.append(best)
