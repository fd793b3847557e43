"""Which cells share their batches, and what each of them brings along."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from unfreeze.study.cell import Job
from unfreeze.study.needs import Needs, Piece, Span, bank, prefix_of, spans_of
from unfreeze.study.plan import NetworkPlan

MEMBER_BYTES = 4 * 10**9
"""Of trained tensors, their gradients, moments and best copies that candidates in lock-step may hold at once."""

BYTES_PER_PARAMETER = 4 * 5  # float32: itself, its gradient, up to two moments, the best so far


class Trains(Protocol):
    """A cell as its group depends on it."""

    @property
    def job(self) -> Job:
        """What its numbers depend on."""
        ...

    @property
    def networks(self) -> Mapping[str, NetworkPlan]:
        """Those of its candidates, by name."""
        ...


@dataclass(frozen=True)
class GroupJob:
    """A cell of a group.

    Attributes:
        job: what its numbers depend on.
        networks: of its candidates, by name.
        needs: what it takes of shared pieces.
        shares: by piece, the part of its rows' cost that this cell bears, the others that use them the rest.
    """

    job: Job
    networks: Mapping[str, NetworkPlan]
    needs: Needs
    shares: Mapping[Piece, float]


StreamKey = tuple[Any, ...]


def stream_key(one: Trains, candidate: str) -> StreamKey:
    """Return what candidates have in common that can train on the same batches.

    They draw the same images in the same order, seen by one backbone at one size; where views are fresh and stages
    frozen, one live forward serves all their cuts; otherwise they read the same stored pieces, or none.
    """
    network, job = one.networks[candidate], one.job
    strategy = network.strategy
    live = bank(job.regime) is None and max(network.cuts) > 0
    spans = spans_of_candidate(one, candidate)
    cuts = ("live",) if live else tuple(dict.fromkeys(span.cut for span in spans))
    draws = job.cell.regime, job.cell.seed, job.cell.fold, strategy.batch_size
    return prefix_of(strategy), draws, cuts


def groups_of(jobs: Mapping[str, Trains]) -> list[list[str]]:
    """Put cells together whose candidates all train on the same batches, in the order of their first ones.

    A cell from pixels alone stands alone: nothing frozen would be saved.
    """
    groups: dict[StreamKey, list[str]] = {}
    for name, one in jobs.items():
        keys = {stream_key(one, candidate) for candidate in one.networks}
        frozen = all(max(network.cuts) > 0 for network in one.networks.values())
        key = keys.pop() if len(keys) == 1 and frozen else (name,)
        groups.setdefault(key, []).append(name)
    return list(groups.values())


def lots_of(jobs: Mapping[str, Trains], pairs: Iterable[tuple[str, str]]) -> list[list[tuple[str, str]]]:
    """Return which (cell, candidate) pairs of a group train together: one stream, and no more than fit into memory."""
    streams: dict[StreamKey, list[tuple[str, str]]] = {}
    for name, candidate in pairs:
        streams.setdefault(stream_key(jobs[name], candidate), []).append((name, candidate))
    lots = list[list[tuple[str, str]]]()
    for members in streams.values():
        lots.append([])
        used = 0
        for name, candidate in members:
            size = trained_bytes(jobs[name].networks[candidate])
            if lots[-1] and used + size > MEMBER_BYTES:
                lots.append([])
                used = 0
            lots[-1].append((name, candidate))
            used += size
    return lots


def spans_of_candidate(one: Trains, candidate: str) -> list[Span]:
    """Return what one of a cell's candidates reads of its training stream."""
    network = one.networks[candidate]
    return spans_of(network.strategy, network.cuts, len(one.job.train), one.job.regime)


def trained_bytes(network: NetworkPlan) -> int:
    """Return the bytes that a candidate in training holds."""
    stages = sum(stage.params for stage in network.stages[min(network.cuts) :])
    return BYTES_PER_PARAMETER * (stages + network.head.params)
