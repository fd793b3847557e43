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
"""Most candidates that a reason names; of more it gives the number."""


def why_not(spec: CellSpec, unstored: bool, budget_words: str) -> Iterable[str]:
    """Yield the reasons why a cell does not reuse all of its frozen work, the most general first.

    Args:
        spec: the cell.
        unstored: whether some activations that it reads are not stored.
        budget_words: the disk budget as the study file has it.
    """
    found: dict[str, list[str]] = {}
    for name, network in spec.networks.items():
        for reason in _reasons(network):
            found.setdefault(reason, []).append(name)
    for reason, names in found.items():
        yield reason if len(names) == len(spec.networks) else f"{_candidates(names, len(spec.networks))}: {reason}"
    if bank(spec.regime) is None and any(any(feed_cuts(each.cuts)) for each in spec.networks.values()):
        yield (
            f"augment: {spec.regime.augment} draws new views in every epoch (views: fresh), so the frozen stages "
            "see training images live"
        )
    if unstored:
        yield f"some activations do not fit into the disk budget of {budget_words}, so they are computed live"


def _reasons(network: NetworkPlan) -> Iterable[str]:
    """Yield the reasons that follow from the phases: stages that an earlier phase has trained are computed live."""
    if not any(network.cuts):
        yield "everything trains, so there is no frozen work to reuse"
        return
    for number, (cut, feed) in enumerate(zip(network.cuts, feed_cuts(network.cuts), strict=True), 1):
        if not cut:
            yield f"phase {number} trains everything, so it runs from pixels"
        elif feed < cut:
            earlier = network.cuts.index(feed) + 1
            start = f"begins after {network.stages[feed - 1].name}, as that one does" if feed else "runs from pixels"
            yield f"phase {number} freezes stages that phase {earlier} has trained, so it {start}"


def _candidates(names: list[str], of: int) -> str:
    if len(names) > NAMED:
        return f"{len(names)} of {of} candidates"
    return f"{'candidate' if len(names) == 1 else 'candidates'} {join_words(names)}"


CELL_SECONDS = 0.3
"""Seconds of a cell beside its steps: building the network, writing its files."""


@dataclass(frozen=True)
class PlanCosts:
    """Measured costs of a study, in seconds.

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
    """Activations that cells read, stored or not.

    Attributes:
        key: prefix, cut and view.
        rows: the distinct ones, in the order in which they are first read.
        draws: how often a row is read in the study; reads of candidates in lock-step count once.
        bytes: of all rows, manifests included.
        held: number of rows that are in the cache already.
        stored: whether they are stored; if not, they are computed at every read, and ``why`` is the reason.
        why: "" where they are stored.
        start: the stored activations that they are computed from; None: the images.
        cells: ids of the cells that read them.
        taken: sum over these cells of the rows that each reads.
        seconds: of computing the missing rows, or of computing live.
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
    """Forecast of one cell.

    Attributes:
        cell: its id.
        reuses: the stored activations that it reads.
        why_not: the reasons why it does not reuse more.
        seconds: of its own steps, evaluation and live work; shared work is counted once, with the activations.
        seconds_alone: in plain PyTorch without reuse: every epoch decodes each file and runs the whole network.
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
        cells: forecasts by id.
        pixel_bytes: bytes of base pictures, manifests included; 0 where they are not stored.
        pixel_bytes_missing: bytes of those that are not in the cache yet.
        pixel_seconds: seconds of decoding those.
    """

    activations: tuple[SharedActivations, ...]
    cells: Mapping[str, CellForecast]
    pixel_bytes: int
    pixel_bytes_missing: int
    pixel_seconds: float

    @property
    def seconds(self) -> float:
        """Predicted seconds of the whole study."""
        stored = sum(each.seconds for each in self.activations if each.stored)
        return self.pixel_seconds + stored + sum(cell.seconds for cell in self.cells.values())

    @property
    def seconds_alone(self) -> float:
        """Predicted seconds of all cells in plain PyTorch, without reuse."""
        return sum(cell.seconds_alone for cell in self.cells.values())

    @property
    def bytes(self) -> int:
        """Predicted bytes of the study's entries in the cache."""
        return self.pixel_bytes + sum(each.bytes for each in self.activations if each.stored)

    @property
    def bytes_missing(self) -> int:
        """Predicted bytes of what is not in the cache yet."""
        missing = [each.bytes * (1 - each.held / max(1, len(each.rows))) for each in self.activations if each.stored]
        return self.pixel_bytes_missing + int(sum(missing))

    @property
    def stored_work(self) -> StoredWork:
        """Rows that cells find in the cache, or write to it."""
        return StoredWork(
            rows={each.key: each.rows for each in self.activations if each.stored},
            starts={each.key: each.start for each in self.activations if each.stored and each.start},
            shares={each.key: len(each.rows) / max(1, each.taken) for each in self.activations},
            pixels=self.pixel_bytes > 0,
        )


@dataclass(frozen=True)
class CacheState:
    """Room for stored activations, and what the cache holds already.

    Attributes:
        budget: bytes of the cache for this study.
        budget_words: the budget as the study file has it.
        bytes_per_row: of stored activations, by prefix and cut.
        held: number of rows in the cache, by key.
        pixel_bytes: bytes of the base pictures of all images, manifests included.
        pixels: number of base pictures.
        pixels_missing: number of them that are not in the cache.
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
        """Whether base pictures are stored; they come before activations, if they fit."""
        return self.pixel_bytes <= self.budget

    @property
    def room(self) -> int:
        """Bytes for activations."""
        return self.budget - (self.pixel_bytes if self.keeps_pixels else 0)


def plan_shared(specs: Sequence[CellSpec], costs: PlanCosts, cache: CacheState) -> ActivationPlan:
    """Decide which activations are stored, with the reason for each that is not, and predict seconds and bytes.

    Args:
        specs: the study's cells.
        costs: measured costs.
        cache: room for stored activations.
    """
    reads, lockstep_reads = {spec.id: spec.reads for spec in specs}, reads_of_study(specs)
    view = costs.view + (0 if cache.keeps_pixels else costs.decode)
    activations = _shared_activations(reads, lockstep_reads, costs, cache, view)
    kept = {each.key for each in activations if each.stored}
    live = dict.fromkeys(reads, 0.0)
    for each in lockstep_reads:
        for cell_id in each.cell_ids:
            live[cell_id] += _read_seconds(each.counts, costs, kept, view) / len(each.cell_ids)
    pixel_bytes = cache.pixel_bytes if cache.keeps_pixels else 0
    return ActivationPlan(
        tuple(sorted(activations, key=lambda each: each.key)),
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
    key_of = {storable: key for key, storable in storables.items()}
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
                key_of[start] if start else None,
                tuple(cell for cell, own in reads.items() if key in own.rows),
                sum(len(own.rows.get(key, ())) for own in reads.values()),
                seconds_of(storable, stored, costs.prefixes[key.prefix], view),
            )
        )
    return found


def _why(storable: Storable, cache: CacheState) -> str:
    if storable.bytes > cache.room:
        return f"{bytes_text(storable.bytes)} do not fit into the disk budget of {cache.budget_words}"
    return f"others save more within the disk budget of {cache.budget_words}"


def _read_seconds(counts: ReadCounts, costs: PlanCosts, kept: set[ActivationKey], view: float) -> float:
    """Return the seconds of preparing pictures and of frozen stages that run live, for some reads."""
    unstored = sum(
        count * (view + costs.prefixes[key.prefix].seconds(0, key.cut))
        for key, count in counts.activations.items()
        if key not in kept
    )
    return counts.pixels * view + unstored + _live_seconds(counts.live, costs, view)


def _live_seconds(live: Mapping[tuple[PrefixKey, int], int], costs: PlanCosts, view: float) -> float:
    """Return the seconds of fresh views: one view serves all cuts, and a cut starts from a shallower one if it can."""
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
    """Return the forecast of a cell; ``live`` is its share of the seconds of live work."""
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
    """Return the seconds of a candidate's training and validation, from its inputs on and without reuse."""
    network, shas, regime = spec.networks[candidate], spec.shas, spec.regime
    own = alone = 0.0
    cost = _step_cost(spec, network, costs)
    spans = spec.phase_spans(candidate)
    for span, frozen in zip(spans, network.cuts, strict=True):
        passed = network.flops_after(span.cut)
        validated = span.epochs * (regime.validation.examples or len(shas.validation))
        steps = span.examples * cost.train(passed, network.flops_after(frozen))
        steps += (span.stop - span.start) * cost.step + validated * cost.evaluate(passed)
        own += steps
        alone += steps + (span.examples + validated) * _seconds_before(network.strategy, span.cut, costs)
    return own, alone


def _reporting(spec: CellSpec, costs: PlanCosts) -> tuple[float, float]:
    """Return the seconds of a cell's predictions, with and without reuse, by the first candidate for the chosen one."""
    network = next(iter(spec.networks.values()))
    cut = min(network.cuts)
    seconds = _step_cost(spec, network, costs).evaluate(network.flops_after(cut))
    reported = len(spec.shas.validation) + len(spec.shas.tests)
    return reported * seconds, reported * (seconds + _seconds_before(network.strategy, cut, costs))


def _step_cost(spec: CellSpec, network: NetworkPlan, costs: PlanCosts) -> StepCost:
    return costs.steps[network_key(network.strategy, len(spec.catalog.classes))]


def _seconds_before(strategy: Strategy, cut: int, costs: PlanCosts) -> float:
    """Return the seconds that plain PyTorch takes for an image from its file to a cut."""
    prefix = costs.prefixes.get(prefix_of(strategy))
    return costs.decode + costs.view + (prefix.seconds_pytorch(cut) if prefix and cut else 0.0)


def as_record(shared: ActivationPlan, stages: Mapping[PrefixKey, Sequence[StageInfo]]) -> dict[str, Any]:
    """Return the plan of shared work in the form of plan.json."""
    return {
        "shared": [
            {
                "name": name_of(each.key, stages),
                "rows": len(each.rows),
                "bytes": each.bytes,
                "held": each.held,
                "stored": each.stored,
                "why_not": each.why,
                "built_from": name_of(each.start, stages) if each.start else "images",
                "cells": list(each.cells),
                "seconds": each.seconds,
            }
            for each in shared.activations
        ],
        "reuse": [
            {
                "cell": each.cell,
                "reuses": [name_of(key, stages) for key in each.reuses],
                "why_not": list(each.why_not),
                "seconds": each.seconds,
                "seconds_alone": each.seconds_alone,
            }
            for each in shared.cells.values()
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
    """Return the name of activations in reports and messages."""
    view = "" if key.augment == "none" else f", {key.augment}, seed {key.seed}"
    return f"{label_of(key.prefix, stages)}, after {stages[key.prefix][key.cut - 1].name}{view}"
