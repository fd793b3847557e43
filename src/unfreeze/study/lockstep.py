"""Partition cells into groups that meet the same batches, and candidates into lock-step batches."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol, TypeVar

from unfreeze.activations.keys import (
    ActivationKey,
    PrefixKey,
    Reads,
    bank,
    plain_piece,
    prefix_of,
    training_piece,
    validation_piece,
)
from unfreeze.config.resolve import Strategy, expected_epochs
from unfreeze.config.schema import RegimeConfig
from unfreeze.inputs.loader import evaluation_draws
from unfreeze.inputs.sampler import copies_of, epoch_ends, examples_after, steps_per_pass, view_of
from unfreeze.model.cuts import feed_cuts
from unfreeze.study.cell import CellImages, CellSpec
from unfreeze.study.network_plan import NetworkPlan

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class PhaseReads:
    """A phase as its inputs see it.

    Attributes:
        cut: number of stages that its inputs have passed.
        start, stop: steps.
        epochs: how many, so often validation is looked at.
        examples: training images drawn.
    """

    cut: int
    start: int
    stop: int
    epochs: int
    examples: int


@dataclass
class ReadCounts:
    """How often rows are taken, repeats counted.

    Attributes:
        pieces: of each piece's, whether or not it is stored.
        live: of fresh views, which no piece holds, by prefix and cut.
        pixels: at no cut.
    """

    activations: dict[ActivationKey, int] = field(default_factory=dict)
    live: dict[tuple[PrefixKey, int], int] = field(default_factory=dict)
    pixels: int = 0

    def take(self, key: ActivationKey, draws: int) -> None:
        """Count rows of a key."""
        if key.cut:
            self.activations[key] = self.activations.get(key, 0) + draws
        else:
            self.pixels += draws


def spans_of(strategy: Strategy, cuts: Sequence[int], images: int, regime: RegimeConfig) -> list[PhaseReads]:
    """Return the phases of a candidate with ``cuts`` frozen stages in each, if nothing stops it early."""
    ends = [0, *epoch_ends(images, strategy.batch_size, regime, expected_epochs(strategy))]
    spans, epoch = list[PhaseReads](), 0
    for phase, cut in zip(strategy.phases, feed_cuts(cuts), strict=True):
        start, stop = ends[epoch], ends[epoch + phase.epochs]
        drawn = [examples_after(images, strategy.batch_size, step) for step in (start, stop)]
        spans.append(PhaseReads(cut, start, stop, phase.epochs, drawn[1] - drawn[0]))
        epoch += phase.epochs
    return spans


def needs_of(strategy: Strategy, cuts: Sequence[int], regime: RegimeConfig, seed: int, shas: CellImages) -> Reads:
    """Return what one candidate takes."""
    reads, views = Reads(), bank(regime)
    images, copies = len(shas.train), copies_of(shas.train)
    per_pass = steps_per_pass(images, strategy.batch_size)
    seen = evaluation_draws(len(shas.validation), regime.validation.examples, seed)
    for span in spans_of(strategy, cuts, images, regime):
        if views is not None:
            # Where an earlier phase may stop early, this one may begin at any pass before its planned one.
            first = 0 if strategy.early_stopping is not None else span.start // per_pass
            drawn = range(first, -(-span.stop // per_pass))
            seen_in = {copy: sorted({view_of(number, copy, views) for number in drawn[:views]}) for copy in set(copies)}
            rows = ((sha, view) for sha, copy in zip(shas.train, copies, strict=True) for view in seen_in[copy])
            reads.take(training_piece(strategy, span.cut, regime, seed), rows)
        key = validation_piece(strategy, span.cut, regime, seed)
        plain = key.augment == "none"
        reads.take(key, [(shas.validation[index], 0 if plain else number) for index, number in seen])
    reads.take(plain_piece(strategy, min(cuts)), [(sha, 0) for sha in (*shas.ranking, *shas.tests)])
    return reads


def draws_of(strategy: Strategy, cuts: Sequence[int], regime: RegimeConfig, seed: int, shas: CellImages) -> ReadCounts:
    """Return how often one candidate takes something while it trains."""
    draws, looks = ReadCounts(), regime.validation.examples or len(shas.validation)
    for span in spans_of(strategy, cuts, len(shas.train), regime):
        if bank(regime) is None and span.cut:
            live = prefix_of(strategy), span.cut
            draws.live[live] = draws.live.get(live, 0) + span.examples
        else:
            draws.take(training_piece(strategy, span.cut, regime, seed), span.examples)
        draws.take(validation_piece(strategy, span.cut, regime, seed), span.epochs * looks)
    return draws


def reported_draws(strategy: Strategy, cuts: Sequence[int], shas: CellImages) -> ReadCounts:
    """Return what the candidate that is chosen takes for its cell's predictions."""
    draws = ReadCounts()
    draws.take(plain_piece(strategy, min(cuts)), len(shas.ranking) + len(shas.tests))
    return draws


def together(reads: Iterable[Reads]) -> Reads:
    """Return what several take in all."""
    found = Reads()
    for one in reads:
        for key, rows in one.rows.items():
            found.take(key, rows)
    return found


def in_lockstep(draws: Sequence[ReadCounts]) -> ReadCounts:
    """Return how often something is taken for candidates that train in lock-step: as for the one that takes it most."""
    activations, live = [one.activations for one in draws], [one.live for one in draws]
    return ReadCounts(_most(activations), _most(live), max(one.pixels for one in draws))


def _most(counts: Sequence[Mapping[Key, int]]) -> dict[Key, int]:
    keys = dict.fromkeys(key for one in counts for key in one)
    return {key: max(one.get(key, 0) for one in counts) for key in keys}


MEMBER_BYTES = 4 * 10**9
"""Of trained tensors, their gradients, moments and best copies that candidates in lock-step may hold at once."""

BYTES_PER_PARAMETER = 4 * 5  # float32: itself, its gradient, up to two moments, the best so far


class Trains(Protocol):
    """A cell as its group depends on it."""

    @property
    def spec(self) -> CellSpec:
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

    spec: CellSpec
    networks: Mapping[str, NetworkPlan]
    reads: Reads
    shares: Mapping[ActivationKey, float]


StreamKey = tuple[Any, ...]


def stream_key(one: Trains, candidate: str) -> StreamKey:
    """Return what candidates have in common that can train on the same batches.

    They draw the same images in the same order, seen by one backbone at one size; where views are fresh and stages
    frozen, one live forward serves all their cuts; otherwise they read the same stored pieces, or none.
    """
    network, spec = one.networks[candidate], one.spec
    strategy = network.strategy
    live = bank(spec.regime) is None and max(network.cuts) > 0
    spans = spans_of_candidate(one, candidate)
    cuts = ("live",) if live else tuple(dict.fromkeys(span.cut for span in spans))
    draws = spec.cell.regime, spec.cell.seed, spec.cell.fold, strategy.batch_size
    return prefix_of(strategy), draws, cuts


def groups_of(specs: Mapping[str, Trains]) -> list[list[str]]:
    """Put cells together whose candidates all train on the same batches, in the order of their first ones.

    A cell from pixels alone stands alone: nothing frozen would be saved.
    """
    groups: dict[StreamKey, list[str]] = {}
    for name, one in specs.items():
        keys = {stream_key(one, candidate) for candidate in one.networks}
        frozen = all(max(network.cuts) > 0 for network in one.networks.values())
        key = keys.pop() if len(keys) == 1 and frozen else (name,)
        groups.setdefault(key, []).append(name)
    return list(groups.values())


def lots_of(specs: Mapping[str, Trains], pairs: Iterable[tuple[str, str]]) -> list[list[tuple[str, str]]]:
    """Return which (cell, candidate) pairs of a group train together: one stream, and no more than fit into memory."""
    streams: dict[StreamKey, list[tuple[str, str]]] = {}
    for name, candidate in pairs:
        streams.setdefault(stream_key(specs[name], candidate), []).append((name, candidate))
    lockstep_batches = list[list[tuple[str, str]]]()
    for members in streams.values():
        lockstep_batches.append([])
        used = 0
        for name, candidate in members:
            size = trained_bytes(specs[name].networks[candidate])
            if lockstep_batches[-1] and used + size > MEMBER_BYTES:
                lockstep_batches.append([])
                used = 0
            lockstep_batches[-1].append((name, candidate))
            used += size
    return lockstep_batches


def spans_of_candidate(one: Trains, candidate: str) -> list[PhaseReads]:
    """Return what one of a cell's candidates reads of its training stream."""
    network = one.networks[candidate]
    return spans_of(network.strategy, network.cuts, len(one.spec.train), one.spec.regime)


def trained_bytes(network: NetworkPlan) -> int:
    """Return the bytes that a candidate in training holds."""
    stages = sum(stage.params for stage in network.stages[min(network.cuts) :])
    return BYTES_PER_PARAMETER * (stages + network.head.params)


@dataclass(frozen=True)
class CellWork:
    """A cell and the networks of its candidates, by name."""

    spec: CellSpec
    networks: Mapping[str, NetworkPlan]

    @property
    def cell(self) -> str:
        """Its id."""
        return self.spec.cell.id

    @cached_property
    def reads(self) -> Reads:
        """What its candidates take in all."""
        known, spec = dict[Any, Reads](), self.spec
        for network in self.networks.values():
            strategy = network.strategy
            spans = spans_of(strategy, network.cuts, len(spec.shas.train), spec.regime)
            alike = prefix_of(strategy), strategy.batch_size, tuple(spans), min(network.cuts)
            if alike not in known:  # twenty learning rates ask for the same rows
                known[alike] = needs_of(strategy, network.cuts, spec.regime, spec.cell.seed, spec.shas)
        return together(known.values())

    def draws(self, candidate: str) -> ReadCounts:
        """Return how often one of its candidates takes something while it trains."""
        network, spec = self.networks[candidate], self.spec
        return draws_of(network.strategy, network.cuts, spec.regime, spec.cell.seed, spec.shas)

    def reported(self) -> ReadCounts:
        """Return what its predictions take; its first candidate stands for the one that will be chosen."""
        first = next(iter(self.networks.values()))
        return reported_draws(first.strategy, first.cuts, self.spec.shas)


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
    lockstep_batches = [LockstepBatch((work.cell,), work.reported()) for work in works]
    for group in groups_of(by_name):
        pairs = [(name, candidate) for name in group for candidate in by_name[name].networks]
        for members in lots_of(by_name, pairs):
            cells = tuple(dict.fromkeys(name for name, _ in members))
            lockstep_batches.append(
                LockstepBatch(cells, in_lockstep([by_name[name].draws(candidate) for name, candidate in members]))
            )
    return lockstep_batches
