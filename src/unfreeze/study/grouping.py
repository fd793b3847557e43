"""Which cells share their batches, and what each of them brings along."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from unfreeze.study.cell import Job
from unfreeze.study.needs import Needs, Piece, Span, bank, prefix_of, spans_of
from unfreeze.study.plan import NetworkPlan

MEMBER_BYTES = 4 * 10**9
"""Of trained tensors, their gradients, moments and best copies that candidates in lock-step may hold at once."""

BYTES_PER_PARAMETER = 4 * 5  # float32: itself, its gradient, up to two moments, the best so far


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


def stream_key(one: GroupJob, candidate: str) -> StreamKey:
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


def groups_of(jobs: Mapping[str, GroupJob]) -> list[list[str]]:
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


def spans_of_candidate(one: GroupJob, candidate: str) -> list[Span]:
    """Return what one of a cell's candidates reads of its training stream."""
    network = one.networks[candidate]
    return spans_of(network.strategy, network.cuts, len(one.job.train), one.job.regime)


def trained_bytes(network: NetworkPlan) -> int:
    """Return the bytes that a candidate in training holds."""
    stages = sum(stage.params for stage in network.stages[min(network.cuts) :])
    return BYTES_PER_PARAMETER * (stages + network.head.params)
