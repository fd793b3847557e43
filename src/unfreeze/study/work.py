"""The work of a study's cells as its plan counts it: rows that they take, and how often, once for all in lock-step."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from unfreeze.study.cell import Job
from unfreeze.study.grouping import groups_of, lots_of
from unfreeze.study.needs import (
    Draws,
    Needs,
    draws_of,
    in_lockstep,
    needs_of,
    prefix_of,
    reported_draws,
    spans_of,
    together,
)
from unfreeze.study.plan import NetworkPlan


@dataclass(frozen=True)
class CellWork:
    """A cell and the networks of its candidates, by name."""

    job: Job
    networks: Mapping[str, NetworkPlan]

    @property
    def cell(self) -> str:
        """Its id."""
        return self.job.cell.id

    @cached_property
    def needs(self) -> Needs:
        """What its candidates take in all."""
        known, job = dict[Any, Needs](), self.job
        for network in self.networks.values():
            strategy = network.strategy
            spans = spans_of(strategy, network.cuts, len(job.shas.train), job.regime)
            alike = prefix_of(strategy), strategy.batch_size, tuple(spans), min(network.cuts)
            if alike not in known:  # twenty learning rates ask for the same rows
                known[alike] = needs_of(strategy, network.cuts, job.regime, job.cell.seed, job.shas)
        return together(known.values())

    def draws(self, candidate: str) -> Draws:
        """Return how often one of its candidates takes something while it trains."""
        network, job = self.networks[candidate], self.job
        return draws_of(network.strategy, network.cuts, job.regime, job.cell.seed, job.shas)

    def reported(self) -> Draws:
        """Return what its predictions take; its first candidate stands for the one that will be chosen."""
        first = next(iter(self.networks.values()))
        return reported_draws(first.strategy, first.cuts, self.job.shas)


@dataclass(frozen=True)
class Lot:
    """Work that is done once for some cells.

    Attributes:
        cells: these; they bear its cost alike.
        draws: how often it takes something.
    """

    cells: tuple[str, ...]
    draws: Draws


def lots_of_study(works: Sequence[CellWork]) -> list[Lot]:
    """Return the work of a study: of candidates in lock-step, none of them stopped early, and of each cell's end."""
    by_name = {work.cell: work for work in works}
    lots = [Lot((work.cell,), work.reported()) for work in works]
    for group in groups_of(by_name):
        pairs = [(name, candidate) for name in group for candidate in by_name[name].networks]
        for members in lots_of(by_name, pairs):
            cells = tuple(dict.fromkeys(name for name, _ in members))
            lots.append(Lot(cells, in_lockstep([by_name[name].draws(candidate) for name, candidate in members])))
    return lots
