"""Plan of shared activations: what is stored, the reason for what is not, and predicted seconds."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unfreeze.activations.batches import StoredWork
from unfreeze.activations.costs import PrefixCost, Storable, choose, seconds_of, start_of
from unfreeze.activations.keys import ActivationKey, PrefixKey, bank, label_of, prefix_of
from unfreeze.activations.reads import ReadCounts, Reads, all_reads
from unfreeze.activations.store import MANIFEST_BYTES
from unfreeze.config.resolve import Strategy
from unfreeze.model.cuts import feed_cuts
from unfreeze.model.summary import StageInfo
from unfreeze.storage.shards import Row
from unfreeze.study.cell import CellSpec
from unfreeze.study.lockstep import LockstepReads, reads_of_study
from unfreeze.study.network_plan import NetworkPlan
from unfreeze.text import bytes_text, join_words
from unfreeze.train.step_cost import StepCost, network_key

NAMED = 3
"""Candidates that a reason names; of more it tells the number."""


def why_not(spec: CellSpec, unstored: bool, budget_words: str) -> Iterable[str]:
    """Say of a cell why something is not reused, the most sweeping reason first.

    Args:
        spec: the cell.
        unstored: whether some activations that it takes are not stored.
        budget_words: the disk budget as the study gives it.
    """
    found: dict[str, list[str]] = {}
    for name, network in spec.networks.items():
        for reason in _reasons(network):
            found.setdefault(reason, []).append(name)
    for reason, names in found.items():
        yield reason if len(names) == len(spec.networks) else f"{_candidates(names, len(spec.networks))}: {reason}"
    if bank(spec.regime) is None and any(any(feed_cuts(one.cuts)) for one in spec.networks.values()):
        yield (
            f"augment: {spec.regime.augment} draws new views in every epoch (views: fresh), so the frozen stages "
            "see training images live"
        )
    if unstored:
        yield f"some activations do not fit into the disk budget of {budget_words}, so they are computed live"


def _reasons(network: NetworkPlan) -> Iterable[str]:
    """Compare what each phase freezes with what its inputs have passed: the stages that nothing has trained yet."""
    if not any(network.cuts):
        yield "everything trains, so there is no frozen work to reuse"
        return
    for number, (cut, feed) in enumerate(zip(network.cuts, feed_cuts(network.cuts), strict=True), 1):
        if not cut:
            yield f"phase {number} trains everything, so it runs from pixels"
        elif feed < cut:
            before = network.cuts.index(feed) + 1
            start = f"begins after {network.stages[feed - 1].name}, as that one does" if feed else "runs from pixels"
            yield f"phase {number} freezes stages that phase {before} has trained, so it {start}"


def _candidates(names: list[str], of: int) -> str:
    if len(names) > NAMED:
        return f"{len(names)} of {of} candidates"
    return f"{'candidate' if len(names) == 1 else 'candidates'} {join_words(names)}"


CELL_SECONDS = 0.3
"""Of a cell beside its steps: building the network, writing its files."""


@dataclass(frozen=True)
class PlanCosts:
    """What calibration measured; seconds.

    Attributes:
        prefixes: the frozen stages, by prefix.
        steps: training steps, by ``step_cost.network_key``.
        decode: of an image file into its base picture.
        view: of a base picture into an input.
    """

    prefixes: Mapping[PrefixKey, PrefixCost]
    steps: Mapping[str, StepCost]
    decode: float
    view: float


@dataclass(frozen=True)
class SharedActivations:
    """Activations that cells take.

    Attributes:
        rows: distinct ones, in the order they are met.
        draws: how often one is read in the study, once for all that train in lock-step.
        bytes: of all rows, manifests included.
        held: rows in the cache already.
        stored: whether they are stored; if not they are computed at every draw, and ``why`` says why.
        start: the stored piece that they are computed from; None: from the images.
        cells: that use them.
        taken: rows that each of them takes, all added up.
        seconds: of computing what is missing, or of computing live.
    """

    key: ActivationKey
    rows: dict[Row, None]
    draws: int
    bytes: int
    held: int
    stored: bool
    why: str
    start: ActivationKey | None
    cells: tuple[str, ...]
    taken: int
    seconds: float


@dataclass(frozen=True)
class CellForecast:
    """Forecast of one cell: the stored activations that it reads, why it reads no others, and its seconds.

    Attributes:
        seconds: of its own steps, evaluation and live work; shared pieces are counted once, with the piece.
        seconds_alone: in plain PyTorch on its own: the whole network on every image in every epoch, files decoded anew.
    """

    cell: str
    reuses: tuple[ActivationKey, ...]
    why_not: tuple[str, ...]
    seconds: float
    seconds_alone: float


@dataclass(frozen=True)
class ActivationPlan:
    """The plan of shared work.

    Attributes:
        activations: all that cells read, stored or not.
        cells: by id.
        pixel_bytes: of base pictures, manifests included; 0 where they are not stored.
        pixel_bytes_missing: of those that are not in the cache yet.
        pixel_seconds: of decoding what is not stored yet.
    """

    activations: tuple[SharedActivations, ...]
    cells: Mapping[str, CellForecast]
    pixel_bytes: int
    pixel_bytes_missing: int
    pixel_seconds: float

    @property
    def seconds(self) -> float:
        """Predicted seconds of the whole study."""
        stored = sum(one.seconds for one in self.activations if one.stored)
        return self.pixel_seconds + stored + sum(cell.seconds for cell in self.cells.values())

    @property
    def seconds_alone(self) -> float:
        """Predicted seconds of every cell alone, in plain PyTorch."""
        return sum(cell.seconds_alone for cell in self.cells.values())

    @property
    def bytes(self) -> int:
        """Predicted bytes of the study's entries in the cache."""
        return self.pixel_bytes + sum(one.bytes for one in self.activations if one.stored)

    @property
    def bytes_missing(self) -> int:
        """Predicted bytes that are not in the cache yet."""
        missing = [one.bytes * (1 - one.held / max(1, len(one.rows))) for one in self.activations if one.stored]
        return self.pixel_bytes_missing + int(sum(missing))

    @property
    def stored_work(self) -> StoredWork:
        """What the cells find in the cache, or put there."""
        return StoredWork(
            rows={one.key: one.rows for one in self.activations if one.stored},
            starts={one.key: one.start for one in self.activations if one.stored and one.start},
            shares={one.key: len(one.rows) / max(1, one.taken) for one in self.activations},
            pixels=self.pixel_bytes > 0,
        )


@dataclass(frozen=True)
class CacheState:
    """What a plan may store, and what the cache has already.

    Attributes:
        budget: bytes of the cache for this study.
        budget_words: the budget as the study gives it.
        bytes_per_row: of stored activations, by prefix and cut.
        held: rows of each key that the cache has.
        pixel_bytes: of the base pictures of all images, manifests included.
        pixels: how many they are.
        pixels_missing: how many of them are not in the cache.
    """

    budget: int
    budget_words: str
    bytes_per_row: Mapping[tuple[PrefixKey, int], int]
    held: Mapping[ActivationKey, int]
    pixel_bytes: int
    pixels: int
    pixels_missing: int

    @property
    def keeps_pixels(self) -> bool:
        """Whether base pictures are stored: before any activations, if they fit."""
        return self.pixel_bytes <= self.budget

    @property
    def room(self) -> int:
        """Bytes for activations."""
        return self.budget - (self.pixel_bytes if self.keeps_pixels else 0)


def plan_shared(specs: Sequence[CellSpec], costs: PlanCosts, cache: CacheState) -> ActivationPlan:
    """Decide which activations are stored, with the reason for each that is not, and predict what everything takes.

    Args:
        specs: the study's cells.
        costs: as calibrated.
        cache: what may be stored.
    """
    reads, lockstep_reads = {spec.id: spec.reads for spec in specs}, reads_of_study(specs)
    view = costs.view + (0 if cache.keeps_pixels else costs.decode)
    activations = _shared_activations(reads, lockstep_reads, costs, cache, view)
    kept = {one.key for one in activations if one.stored}
    live = dict.fromkeys(reads, 0.0)
    for each in lockstep_reads:
        for cell_id in each.cell_ids:
            live[cell_id] += _read_seconds(each.counts, costs, kept, view) / len(each.cell_ids)
    pixel_bytes = cache.pixel_bytes if cache.keeps_pixels else 0
    return ActivationPlan(
        tuple(sorted(activations, key=lambda one: one.key)),
        {spec.id: _forecast(spec, costs, kept, live[spec.id], cache.budget_words) for spec in specs},
        pixel_bytes,
        int(pixel_bytes * cache.pixels_missing / max(1, cache.pixels)),
        cache.pixels_missing * costs.decode,
    )


def _shared_activations(
    reads: Mapping[str, Reads],
    lockstep_reads: Sequence[LockstepReads],
    costs: PlanCosts,
    cache: CacheState,
    view: float,
) -> list[SharedActivations]:
    """Return all activations that cells read, each stored or not; ``view`` is the seconds of making one input."""
    rows_of = all_reads(reads.values()).rows
    storables = {
        key: Storable(
            key.prefix,
            (key.augment, key.seed),
            key.cut,
            len(rows),
            sum(each.counts.activations.get(key, 0) for each in lockstep_reads),
            len(rows) * (cache.bytes_per_row[key.prefix, key.cut] + MANIFEST_BYTES),
            cache.held.get(key, 0),
        )
        for key, rows in rows_of.items()
    }
    stored = choose(list(storables.values()), costs.prefixes, view, cache.room)
    piece_of = {storable: key for key, storable in storables.items()}
    found = []
    for key, storable in storables.items():
        start = start_of(storable, stored, costs.prefixes[key.prefix].chains) if storable in stored else None
        found.append(
            SharedActivations(
                key,
                rows_of[key],
                storable.draws,
                storable.bytes,
                storable.held,
                storable in stored,
                "" if storable in stored else _why(storable, cache),
                piece_of[start] if start else None,
                tuple(cell for cell, own in reads.items() if key in own.rows),
                sum(len(own.rows.get(key, ())) for own in reads.values()),
                seconds_of(storable, stored, costs.prefixes[key.prefix], view),
            )
        )
    return found


def _why(one: Storable, cache: CacheState) -> str:
    if one.bytes > cache.room:
        return f"{bytes_text(one.bytes)} do not fit into the disk budget of {cache.budget_words}"
    return f"others save more within the disk budget of {cache.budget_words}"


def _read_seconds(counts: ReadCounts, costs: PlanCosts, kept: set[ActivationKey], view: float) -> float:
    """Return the seconds of preparing pictures and of frozen stages that run live."""
    unstored = sum(
        count * (view + costs.prefixes[key.prefix].seconds(0, key.cut))
        for key, count in counts.activations.items()
        if key not in kept
    )
    return counts.pixels * view + unstored + _live_seconds(counts.live, costs, view)


def _live_seconds(live: Mapping[tuple[PrefixKey, int], int], costs: PlanCosts, view: float) -> float:
    """Return the seconds of fresh views: one picture serves every cut, and a deeper one starts from one it may."""
    seconds = max(live.values(), default=0) * view
    for (key, cut), count in live.items():
        cost = costs.prefixes[key]
        start = max((low for low, high in cost.chains if high == cut and (key, low) in live), default=0)
        near = min(count, live[key, start]) if start else 0
        seconds += near * cost.seconds(start, cut) + (count - near) * cost.seconds(0, cut)
    return seconds


def _forecast(
    spec: CellSpec, costs: PlanCosts, kept: set[ActivationKey], live: float, budget_words: str
) -> CellForecast:
    """Return what a cell is predicted to take; ``live`` is its part of the live work's seconds."""
    seconds, alone = _reporting(spec, costs)
    for name in spec.networks:
        own, plain = _training(spec, name, costs)
        seconds, alone = seconds + own, alone + plain
    return CellForecast(
        spec.id,
        tuple(sorted(key for key in spec.reads.rows if key in kept)),
        tuple(why_not(spec, any(key not in kept for key in spec.reads.rows), budget_words)),
        CELL_SECONDS + live + seconds,
        CELL_SECONDS + alone,
    )


def _training(spec: CellSpec, candidate: str, costs: PlanCosts) -> tuple[float, float]:
    """Return the seconds of a candidate's steps and looks at validation from its inputs on, and of all of it alone."""
    network, shas, regime = spec.networks[candidate], spec.shas, spec.regime
    own = alone = 0.0
    cost = _step_cost(spec, network, costs)
    spans = spec.phase_spans(candidate)
    for span, frozen in zip(spans, network.cuts, strict=True):
        passed = network.flops_after(span.cut)
        looks = span.epochs * (regime.validation.examples or len(shas.validation))
        steps = span.examples * cost.train(passed, network.flops_after(frozen))
        steps += (span.stop - span.start) * cost.step + looks * cost.evaluate(passed)
        own += steps
        alone += steps + (span.examples + looks) * _seconds_before(network.strategy, span.cut, costs)
    return own, alone


def _reporting(spec: CellSpec, costs: PlanCosts) -> tuple[float, float]:
    """Return the same of the predictions of a cell's end; its first candidate stands for the chosen one."""
    network = next(iter(spec.networks.values()))
    cut = min(network.cuts)
    look = _step_cost(spec, network, costs).evaluate(network.flops_after(cut))
    reported = len(spec.shas.validation) + len(spec.shas.tests)
    return reported * look, reported * (look + _seconds_before(network.strategy, cut, costs))


def _step_cost(spec: CellSpec, network: NetworkPlan, costs: PlanCosts) -> StepCost:
    return costs.steps[network_key(network.strategy, len(spec.catalog.classes))]


def _seconds_before(strategy: Strategy, cut: int, costs: PlanCosts) -> float:
    """Return the seconds of an image's way to a cut in plain PyTorch, from its file on."""
    prefix = costs.prefixes.get(prefix_of(strategy))
    return costs.decode + costs.view + (prefix.seconds_pytorch(cut) if prefix and cut else 0.0)


def as_record(shared: ActivationPlan, stages: Mapping[PrefixKey, Sequence[StageInfo]]) -> dict[str, Any]:
    """Return the plan of shared work as plan.json holds it."""
    return {
        "shared": [
            {
                "name": name_of(one.key, stages),
                "rows": len(one.rows),
                "bytes": one.bytes,
                "held": one.held,
                "stored": one.stored,
                "why_not": one.why,
                "built_from": name_of(one.start, stages) if one.start else "images",
                "cells": list(one.cells),
                "seconds": one.seconds,
            }
            for one in shared.activations
        ],
        "reuse": [
            {
                "cell": one.cell,
                "reuses": [name_of(key, stages) for key in one.reuses],
                "why_not": list(one.why_not),
                "seconds": one.seconds,
                "seconds_alone": one.seconds_alone,
            }
            for one in shared.cells.values()
        ],
        "predictions": {
            "seconds": shared.seconds,
            "seconds_alone": shared.seconds_alone,
            "ratio": shared.seconds_alone / max(shared.seconds, 1e-9),
            "disk": shared.bytes,
            "pixel_bytes": shared.pixel_bytes,
        },
    }


def name_of(key: ActivationKey, stages: Mapping[PrefixKey, Sequence[StageInfo]]) -> str:
    """Return the name of stored activations for people."""
    view = "" if key.augment == "none" else f", {key.augment}, seed {key.seed}"
    return f"{label_of(key.prefix, stages)}, after {stages[key.prefix][key.cut - 1].name}{view}"
