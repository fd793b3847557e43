"""Rows of activations that a candidate or a cell reads, and how often, if nothing stops training early."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from unfreeze.activations.keys import (
    ActivationKey,
    PrefixKey,
    bank,
    plain_key,
    prefix_of,
    training_key,
    validation_key,
)
from unfreeze.config.resolve import Strategy, expected_epochs
from unfreeze.config.schema import RegimeConfig
from unfreeze.inputs.loader import evaluation_draws
from unfreeze.inputs.sampler import copies_of, epoch_ends, examples_after, steps_per_pass, view_of
from unfreeze.model.cuts import feed_cuts
from unfreeze.storage.shards import Row

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class CellImages:
    """The contents (sha256) of a cell's images; ``ranking`` holds those of ``validation`` too."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    tests: tuple[str, ...]
    ranking: tuple[str, ...]


@dataclass
class Reads:
    """Distinct rows that are read, by key; pixels, which have passed no stage, have no key."""

    rows: dict[ActivationKey, dict[Row, None]] = field(default_factory=dict)

    def add(self, key: ActivationKey, rows: Iterable[Row]) -> None:
        """Add rows of a key."""
        if key.cut:
            self.rows.setdefault(key, {}).update(dict.fromkeys(rows))


@dataclass
class ReadCounts:
    """How many rows are read, repeats counted.

    Attributes:
        activations: by key, whether or not it is stored.
        live: of fresh views, which are never stored, by prefix and cut.
        pixels: at no cut.
    """

    activations: dict[ActivationKey, int] = field(default_factory=dict)
    live: dict[tuple[PrefixKey, int], int] = field(default_factory=dict)
    pixels: int = 0

    def add(self, key: ActivationKey, count: int) -> None:
        """Count rows of a key."""
        if key.cut:
            self.activations[key] = self.activations.get(key, 0) + count
        else:
            self.pixels += count


@dataclass(frozen=True)
class PhaseSpan:
    """The steps of a phase, and what its inputs have passed.

    Attributes:
        cut: number of stages that the inputs have passed.
        start, stop: steps.
        epochs: their number; validation images are read once in each.
        examples: training images drawn.
    """

    cut: int
    start: int
    stop: int
    epochs: int
    examples: int


def phase_spans(strategy: Strategy, cuts: Sequence[int], images: int, regime: RegimeConfig) -> list[PhaseSpan]:
    """Return the phases of a candidate, if nothing stops it early.

    Args:
        strategy: its settings.
        cuts: number of frozen stages in each phase.
        images: number of training images.
        regime: gives the length of an epoch.
    """
    ends = [0, *epoch_ends(images, strategy.batch_size, regime, expected_epochs(strategy))]
    spans, epoch = list[PhaseSpan](), 0
    for phase, cut in zip(strategy.phases, feed_cuts(cuts), strict=True):
        start, stop = ends[epoch], ends[epoch + phase.epochs]
        first, last = (examples_after(images, strategy.batch_size, step) for step in (start, stop))
        spans.append(PhaseSpan(cut, start, stop, phase.epochs, last - first))
        epoch += phase.epochs
    return spans


def candidate_reads(
    strategy: Strategy, cuts: Sequence[int], regime: RegimeConfig, seed: int, images: CellImages
) -> Reads:
    """Return the rows that a candidate reads while it trains and for its cell's predictions."""
    reads, views = Reads(), bank(regime)
    count, copies = len(images.train), copies_of(images.train)
    per_pass = steps_per_pass(count, strategy.batch_size)
    validation = evaluation_draws(len(images.validation), regime.validation.examples, seed)
    for span in phase_spans(strategy, cuts, count, regime):
        if views is not None:
            # Where an earlier phase may stop early, this one may begin at any pass before its planned one.
            first = 0 if strategy.early_stopping is not None else span.start // per_pass
            passes = range(first, -(-span.stop // per_pass))
            seen = {copy: sorted({view_of(number, copy, views) for number in passes[:views]}) for copy in set(copies)}
            rows = ((sha, view) for sha, copy in zip(images.train, copies, strict=True) for view in seen[copy])
            reads.add(training_key(strategy, span.cut, regime, seed), rows)
        key = validation_key(strategy, span.cut, regime, seed)
        plain = key.augment == "none"
        reads.add(key, [(images.validation[index], 0 if plain else number) for index, number in validation])
    reads.add(plain_key(strategy, min(cuts)), [(sha, 0) for sha in (*images.ranking, *images.tests)])
    return reads


def training_counts(
    strategy: Strategy, cuts: Sequence[int], regime: RegimeConfig, seed: int, images: CellImages
) -> ReadCounts:
    """Return how many rows a candidate reads while it trains."""
    counts, validation = ReadCounts(), regime.validation.examples or len(images.validation)
    for span in phase_spans(strategy, cuts, len(images.train), regime):
        if bank(regime) is None and span.cut:
            live = prefix_of(strategy), span.cut
            counts.live[live] = counts.live.get(live, 0) + span.examples
        else:
            counts.add(training_key(strategy, span.cut, regime, seed), span.examples)
        counts.add(validation_key(strategy, span.cut, regime, seed), span.epochs * validation)
    return counts


def prediction_counts(strategy: Strategy, cuts: Sequence[int], images: CellImages) -> ReadCounts:
    """Return how many rows the chosen candidate reads for its cell's predictions."""
    counts = ReadCounts()
    counts.add(plain_key(strategy, min(cuts)), len(images.ranking) + len(images.tests))
    return counts


def all_reads(reads: Iterable[Reads]) -> Reads:
    """Return the union of several reads."""
    union = Reads()
    for each in reads:
        for key, rows in each.rows.items():
            union.add(key, rows)
    return union


def lockstep_counts(counts: Sequence[ReadCounts]) -> ReadCounts:
    """Return how many rows are read for candidates in lock-step: of each key what the one that reads most reads."""
    activations, live = [each.activations for each in counts], [each.live for each in counts]
    return ReadCounts(_largest(activations), _largest(live), max(each.pixels for each in counts))


def _largest(counts: Sequence[Mapping[Key, int]]) -> dict[Key, int]:
    keys = dict.fromkeys(key for each in counts for key in each)
    return {key: max(each.get(key, 0) for each in counts) for key in keys}
