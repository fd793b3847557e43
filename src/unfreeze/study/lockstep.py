"""Partition cells into groups that meet the same batches, and candidates into lock-step batches."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

from unfreeze.activations.keys import ActivationKey, Reads, bank, prefix_of
from unfreeze.study.cell import CellSpec
from unfreeze.study.network_plan import NetworkPlan
from unfreeze.study.reads import (
    PhaseReads,
    ReadCounts,
    draws_of,
    in_lockstep,
    needs_of,
    reported_draws,
    spans_of,
    together,
)

MEMBER_BYTES = 4 * 10**9
"""Of trained tensors, their gradients, moments and best copies that candidates in lock-step may hold at once."""


BYTES_PER_PARAMETER = 4 * 5  # float32: itself, its gradient, up to two moments, the best so far


class Trains(Protocol):
    """A cell as its group depends on it."""

    @property
    def job(self) -> CellSpec:
        """What its numbers depend on."""
        ...

    @property
    def networks(self) -> Mapping[str, NetworkPlan]:
        """Those of its candidates, by name."""
        ...


@dataclass(frozen=True)
class CellTask:
    """A cell of a group.

    Attributes:
        job: what its numbers depend on.
        networks: of its candidates, by name.
        needs: what it takes of shared pieces.
        shares: by piece, the part of its rows' cost that this cell bears, the others that use them the rest.
    """

    job: CellSpec
    networks: Mapping[str, NetworkPlan]
    needs: Reads
    shares: Mapping[ActivationKey, float]


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


def spans_of_candidate(one: Trains, candidate: str) -> list[PhaseReads]:
    """Return what one of a cell's candidates reads of its training stream."""
    network = one.networks[candidate]
    return spans_of(network.strategy, network.cuts, len(one.job.train), one.job.regime)


def trained_bytes(network: NetworkPlan) -> int:
    """Return the bytes that a candidate in training holds."""
    stages = sum(stage.params for stage in network.stages[min(network.cuts) :])
    return BYTES_PER_PARAMETER * (stages + network.head.params)


@dataclass(frozen=True)
class CellWork:
    """A cell and the networks of its candidates, by name."""

    job: CellSpec
    networks: Mapping[str, NetworkPlan]

    @property
    def cell(self) -> str:
        """Its id."""
        return self.job.cell.id

    @cached_property
    def needs(self) -> Reads:
        """What its candidates take in all."""
        known, job = dict[Any, Reads](), self.job
        for network in self.networks.values():
            strategy = network.strategy
            spans = spans_of(strategy, network.cuts, len(job.shas.train), job.regime)
            alike = prefix_of(strategy), strategy.batch_size, tuple(spans), min(network.cuts)
            if alike not in known:  # twenty learning rates ask for the same rows
                known[alike] = needs_of(strategy, network.cuts, job.regime, job.cell.seed, job.shas)
        return together(known.values())

    def draws(self, candidate: str) -> ReadCounts:
        """Return how often one of its candidates takes something while it trains."""
        network, job = self.networks[candidate], self.job
        return draws_of(network.strategy, network.cuts, job.regime, job.cell.seed, job.shas)

    def reported(self) -> ReadCounts:
        """Return what its predictions take; its first candidate stands for the one that will be chosen."""
        first = next(iter(self.networks.values()))
        return reported_draws(first.strategy, first.cuts, self.job.shas)


@dataclass(frozen=True)
class LockstepBatch:
    """Work that is done once for some cells.

    Attributes:
        cells: these; they bear its cost alike.
        draws: how often it takes something.
    """

    cells: tuple[str, ...]
    draws: ReadCounts


def lots_of_study(works: Sequence[CellWork]) -> list[LockstepBatch]:
    """Return the work of a study: of candidates in lock-step, none of them stopped early, and of each cell's end."""
    by_name = {work.cell: work for work in works}
    lots = [LockstepBatch((work.cell,), work.reported()) for work in works]
    for group in groups_of(by_name):
        pairs = [(name, candidate) for name in group for candidate in by_name[name].networks]
        for members in lots_of(by_name, pairs):
            cells = tuple(dict.fromkeys(name for name, _ in members))
            lots.append(
                LockstepBatch(cells, in_lockstep([by_name[name].draws(candidate) for name, candidate in members]))
            )
    return lots
