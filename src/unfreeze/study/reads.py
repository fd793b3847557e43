"""Activations that a cell reads: which rows, and how often."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

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
from unfreeze.study.cell import CellImages

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

    pieces: dict[ActivationKey, int] = field(default_factory=dict)
    live: dict[tuple[PrefixKey, int], int] = field(default_factory=dict)
    pixels: int = 0

    def take(self, piece: ActivationKey, draws: int) -> None:
        """Count rows of a piece."""
        if piece.cut:
            self.pieces[piece] = self.pieces.get(piece, 0) + draws
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
    needs, views = Reads(), bank(regime)
    images, copies = len(shas.train), copies_of(shas.train)
    per_pass = steps_per_pass(images, strategy.batch_size)
    seen = evaluation_draws(len(shas.validation), regime.validation.examples, seed)
    for span in spans_of(strategy, cuts, images, regime):
        if views is not None:
            drawn = range(span.start // per_pass, -(-span.stop // per_pass))
            seen_in = {copy: sorted({view_of(number, copy, views) for number in drawn[:views]}) for copy in set(copies)}
            rows = ((sha, view) for sha, copy in zip(shas.train, copies, strict=True) for view in seen_in[copy])
            needs.take(training_piece(strategy, span.cut, regime, seed), rows)
        piece = validation_piece(strategy, span.cut, regime, seed)
        plain = piece.augment == "none"
        needs.take(piece, [(shas.validation[index], 0 if plain else number) for index, number in seen])
    needs.take(plain_piece(strategy, min(cuts)), [(sha, 0) for sha in (*shas.ranking, *shas.tests)])
    return needs


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


def together(needs: Iterable[Reads]) -> Reads:
    """Return what several take in all."""
    found = Reads()
    for one in needs:
        for piece, rows in one.rows.items():
            found.take(piece, rows)
    return found


def in_lockstep(draws: Sequence[ReadCounts]) -> ReadCounts:
    """Return how often something is taken for candidates that train in lock-step: as for the one that takes it most."""
    pieces, live = [one.pieces for one in draws], [one.live for one in draws]
    return ReadCounts(_most(pieces), _most(live), max(one.pixels for one in draws))


def _most(counts: Sequence[Mapping[Key, int]]) -> dict[Key, int]:
    keys = dict.fromkeys(key for one in counts for key in one)
    return {key: max(one.get(key, 0) for one in counts) for key in keys}
