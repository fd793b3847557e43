"""Partition cells into groups that meet the same batches, and candidates into lock-step batches."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from unfreeze.activations.keys import bank, prefix_of
from unfreeze.activations.reads import ReadCounts, lockstep_counts
from unfreeze.study.cell import CellSpec
from unfreeze.study.network_plan import NetworkPlan

LOCKSTEP_BYTES = 4 * 10**9
"""Of trained tensors, their gradients, moments and best copies that candidates in lock-step may hold at once."""

BYTES_PER_PARAMETER = 4 * 5  # float32: itself, its gradient, up to two moments, the best so far


class Member(NamedTuple):
    """A candidate of a cell in a group."""

    cell_id: str
    candidate: str


StreamKey = tuple[Any, ...]


def stream_key(spec: CellSpec, candidate: str) -> StreamKey:
    """Return what candidates have in common that can train on the same batches.

    They draw the same images in the same order, seen by one backbone at one size; where views are fresh and stages
    frozen, one live forward serves all their cuts; otherwise they read the same stored activations, or none.
    """
    network = spec.networks[candidate]
    strategy = network.strategy
    live = bank(spec.regime) is None and max(network.cuts) > 0
    cuts = ("live",) if live else tuple(dict.fromkeys(span.cut for span in spec.phase_spans(candidate)))
    order = spec.cell.regime, spec.cell.seed, spec.cell.fold, strategy.batch_size
    return prefix_of(strategy), order, cuts


def groups_of(specs: Mapping[str, CellSpec]) -> list[list[str]]:
    """Return the ids of cells in groups whose candidates all train on the same batches, in the order of their first.

    A cell that trains from pixels alone is its own group: it shares no frozen work.
    """
    groups: dict[StreamKey, list[str]] = {}
    for cell_id, spec in specs.items():
        keys = {stream_key(spec, candidate) for candidate in spec.networks}
        frozen = all(max(network.cuts) > 0 for network in spec.networks.values())
        key = keys.pop() if len(keys) == 1 and frozen else (cell_id,)
        groups.setdefault(key, []).append(cell_id)
    return list(groups.values())


def lockstep_batches(specs: Mapping[str, CellSpec], members: Iterable[Member]) -> list[list[Member]]:
    """Return which candidates of a group train together: on one stream, and no more than fit into memory."""
    streams: dict[StreamKey, list[Member]] = {}
    for member in members:
        streams.setdefault(stream_key(specs[member.cell_id], member.candidate), []).append(member)
    batches = list[list[Member]]()
    for stream in streams.values():
        batches.append([])
        used = 0
        for member in stream:
            size = training_bytes(specs[member.cell_id].networks[member.candidate])
            if batches[-1] and used + size > LOCKSTEP_BYTES:
                batches.append([])
                used = 0
            batches[-1].append(member)
            used += size
    return batches


def training_bytes(network: NetworkPlan) -> int:
    """Return the bytes that a candidate in training holds."""
    stages = sum(stage.params for stage in network.stages[min(network.cuts) :])
    return BYTES_PER_PARAMETER * (stages + network.head.params)


@dataclass(frozen=True)
class LockstepReads:
    """Rows that are read once for several cells, which bear their cost alike."""

    cell_ids: tuple[str, ...]
    counts: ReadCounts


def reads_of_study(specs: Sequence[CellSpec]) -> list[LockstepReads]:
    """Return what a study reads, if nothing stops early: for each lock-step batch, and for each cell's predictions."""
    by_id = {spec.id: spec for spec in specs}
    reads = [LockstepReads((spec.id,), spec.prediction_counts()) for spec in specs]
    for group in groups_of(by_id):
        members = [Member(cell_id, candidate) for cell_id in group for candidate in by_id[cell_id].networks]
        for batch in lockstep_batches(by_id, members):
            counts = [by_id[member.cell_id].training_counts(member.candidate) for member in batch]
            cell_ids = tuple(dict.fromkeys(member.cell_id for member in batch))
            reads.append(LockstepReads(cell_ids, lockstep_counts(counts)))
    return reads
