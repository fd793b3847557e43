"""What cells share, decided before anything runs: what is stored, what is built from what, and what it all costs."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from unfreeze.config.study import RegimeConfig
from unfreeze.data.rowstore import Row
from unfreeze.model.describe import StageInfo
from unfreeze.results.words import bytes_text
from unfreeze.reuse.activations import MANIFEST_BYTES
from unfreeze.reuse.costs import PrefixCost, StepCost, Storable, choose, seconds_of, start_of
from unfreeze.study.measure import step_key
from unfreeze.study.needs import Needs, Piece, PrefixKey, Shas, bank, label_of, needs_of, prefix_of, spans_of, together
from unfreeze.study.plan import NetworkPlan

CELL_SECONDS = 0.3
"""Of a cell beside its steps: building the network, writing its files."""


@dataclass(frozen=True)
class Costs:
    """What calibration measured; seconds.

    Attributes:
        prefixes: the frozen stages, by prefix.
        steps: training steps, by ``measure.step_key``.
        decode: of an image file into its base picture.
        view: of a base picture into an input.
    """

    prefixes: Mapping[PrefixKey, PrefixCost]
    steps: Mapping[str, StepCost]
    decode: float
    view: float


@dataclass(frozen=True)
class CellWork:
    """A cell as the plan of shared work sees it."""

    cell: str
    networks: Mapping[str, NetworkPlan]
    regime: RegimeConfig
    seed: int
    shas: Shas
    classes: int

    @cached_property
    def needs(self) -> Needs:
        """What its candidates take in all."""
        known, found = dict[Any, Needs](), list[Needs]()
        for network in self.networks.values():
            strategy = network.strategy
            spans = spans_of(strategy, network.cuts, len(self.shas.train), self.regime)
            alike = prefix_of(strategy), strategy.batch_size, tuple(spans), min(network.cuts)
            if alike not in known:  # twenty learning rates ask for the same rows
                known[alike] = needs_of(strategy, network.cuts, self.regime, self.seed, self.shas)
            found.append(known[alike])
        return together(found)


@dataclass(frozen=True)
class SharedPiece:
    """Activations that cells take.

    Attributes:
        rows: distinct ones, in the order they are met.
        draws: how often one is read in the study.
        bytes: of all rows, manifests included.
        held: rows in the cache already.
        stored: whether they are stored; if not they are computed at every draw, and ``why`` says why.
        start: the stored piece that they are computed from; None: from the images.
        cells: that use them.
        taken: rows that each of them takes, all added up.
        seconds: of computing what is missing, or of computing live.
    """

    piece: Piece
    rows: dict[Row, None]
    draws: int
    bytes: int
    held: int
    stored: bool
    why: str
    start: Piece | None
    cells: tuple[str, ...]
    taken: int
    seconds: float


@dataclass(frozen=True)
class CellForecast:
    """One cell: the stored pieces that it takes, why it takes no others, and its seconds.

    Attributes:
        seconds: of its own steps, evaluation and live work; shared pieces are counted once, with the piece.
        seconds_alone: in plain PyTorch on its own: the whole network on every image in every epoch, files decoded anew.
    """

    cell: str
    reuses: tuple[Piece, ...]
    why_not: tuple[str, ...]
    seconds: float
    seconds_alone: float


@dataclass(frozen=True)
class Shared:
    """The plan of shared work.

    Attributes:
        pieces: all activations that cells take, stored or not.
        cells: by id.
        pixel_bytes: of base pictures, manifests included; 0 where they are not stored.
        pixel_bytes_missing: of those that are not in the cache yet.
        pixel_seconds: of decoding what is not stored yet.
    """

    pieces: tuple[SharedPiece, ...]
    cells: Mapping[str, CellForecast]
    pixel_bytes: int
    pixel_bytes_missing: int
    pixel_seconds: float

    @property
    def seconds(self) -> float:
        """Predicted seconds of the whole study."""
        stored = sum(piece.seconds for piece in self.pieces if piece.stored)
        return self.pixel_seconds + stored + sum(cell.seconds for cell in self.cells.values())

    @property
    def seconds_alone(self) -> float:
        """Predicted seconds of every cell alone, in plain PyTorch."""
        return sum(cell.seconds_alone for cell in self.cells.values())

    @property
    def bytes(self) -> int:
        """Predicted bytes of the study's entries in the cache."""
        return self.pixel_bytes + sum(piece.bytes for piece in self.pieces if piece.stored)

    @property
    def bytes_missing(self) -> int:
        """Predicted bytes that are not in the cache yet."""
        missing = [one.bytes * (1 - one.held / max(1, len(one.rows))) for one in self.pieces if one.stored]
        return self.pixel_bytes_missing + int(sum(missing))

    def shares(self) -> dict[Piece, float]:
        """Return, by piece, the part of its rows' cost that a cell bears, the others that use them the rest."""
        return {one.piece: len(one.rows) / max(1, one.taken) for one in self.pieces}

    def rows(self) -> dict[Piece, dict[Row, None]]:
        """Return the rows of the stored pieces."""
        return {piece.piece: piece.rows for piece in self.pieces if piece.stored}

    def starts(self) -> dict[Piece, Piece]:
        """Return what stored pieces are computed from, but for those computed from images."""
        return {piece.piece: piece.start for piece in self.pieces if piece.stored and piece.start}


def plan_shared(
    works: Sequence[CellWork],
    costs: Costs,
    bytes_per_row: Mapping[tuple[PrefixKey, int], int],
    held: Mapping[Piece, int],
    pixel_bytes: int,
    pixels: int,
    pixels_missing: int,
    budget: int,
    budget_words: str,
) -> Shared:
    """Decide what is stored.

    Args:
        works: the study's cells.
        costs: as calibrated.
        bytes_per_row: of stored activations, by prefix and cut.
        held: rows of each piece that the cache has.
        pixel_bytes: of the base pictures of all images, manifests included.
        pixels: how many they are.
        pixels_missing: how many of them are not in the cache.
        budget: bytes of the cache for this study.
        budget_words: the budget as the study gives it.
    """
    needs = {work.cell: work.needs for work in works}
    total = together(needs.values())
    keep_pixels = pixel_bytes <= budget
    room = budget - (pixel_bytes if keep_pixels else 0)
    storables = {
        piece: Storable(
            piece.prefix,
            (piece.augment, piece.seed),
            piece.cut,
            len(rows),
            total.draws[piece],
            len(rows) * (bytes_per_row[piece.prefix, piece.cut] + MANIFEST_BYTES),
            held.get(piece, 0),
        )
        for piece, rows in total.rows.items()
    }
    view = costs.view + (0 if keep_pixels else costs.decode)
    stored = choose(list(storables.values()), costs.prefixes, view, room)
    piece_of = {storable: piece for piece, storable in storables.items()}
    pieces = []
    for piece, storable in storables.items():
        start = start_of(storable, stored, costs.prefixes[piece.prefix].chains) if storable in stored else None
        pieces.append(
            SharedPiece(
                piece,
                total.rows[piece],
                storable.draws,
                storable.bytes,
                storable.held,
                storable in stored,
                "" if storable in stored else _why(storable, room, budget_words),
                piece_of[start] if start else None,
                tuple(cell for cell, own in needs.items() if piece in own.rows),
                sum(len(own.rows.get(piece, ())) for own in needs.values()),
                seconds_of(storable, stored, costs.prefixes[piece.prefix], view),
            )
        )
    kept = {piece.piece for piece in pieces if piece.stored}
    partners = _partners(works, needs)
    return Shared(
        tuple(sorted(pieces, key=lambda one: one.piece)),
        {work.cell: _forecast(work, needs[work.cell], costs, kept, partners, view, budget_words) for work in works},
        pixel_bytes if keep_pixels else 0,
        int(pixel_bytes * pixels_missing / max(1, pixels)) if keep_pixels else 0,
        pixels_missing * costs.decode,
    )


def _why(one: Storable, room: int, budget_words: str) -> str:
    if one.bytes > room:
        return f"{bytes_text(one.bytes)} do not fit into the disk budget of {budget_words}"
    return f"others save more within the disk budget of {budget_words}"


def _partners(works: Iterable[CellWork], needs: Mapping[str, Needs]) -> dict[str, int]:
    """Return with how many cells (itself included) each cell shares its live work."""
    groups: dict[Any, list[str]] = {}
    for work in works:
        batch = next(iter(work.networks.values())).strategy.batch_size
        prefixes = tuple(sorted({prefix for prefix, _ in needs[work.cell].live}))
        groups.setdefault((prefixes, work.seed, work.shas.train, work.regime, batch), []).append(work.cell)
    return {cell: len(cells) for cells in groups.values() for cell in cells}


def _forecast(
    work: CellWork,
    needs: Needs,
    costs: Costs,
    kept: set[Piece],
    partners: Mapping[str, int],
    view: float,
    budget_words: str,
) -> CellForecast:
    seconds = alone = CELL_SECONDS
    for network in work.networks.values():
        own, plain = _training(work, network, costs)
        seconds, alone = seconds + own, alone + plain
    live = sum(draws * (view + costs.prefixes[key].seconds(0, cut)) for (key, cut), draws in needs.live.items())
    unstored = sum(
        draws * (view + costs.prefixes[piece.prefix].seconds(0, piece.cut))
        for piece, draws in needs.draws.items()
        if piece not in kept
    )
    seconds += needs.pixels * view + live / partners[work.cell] + unstored
    return CellForecast(
        work.cell,
        tuple(sorted(piece for piece in needs.rows if piece in kept)),
        tuple(_reasons(work, needs, kept, budget_words)),
        seconds,
        alone,
    )


def _training(work: CellWork, network: NetworkPlan, costs: Costs) -> tuple[float, float]:
    """Return the seconds of a candidate's steps and evaluations from its inputs on, and of all of it alone."""
    strategy = network.strategy
    prefix = costs.prefixes.get(prefix_of(strategy))
    pixels = costs.decode + costs.view
    seen = work.regime.validation.examples or len(work.shas.validation)
    reported = len(work.shas.validation) + len(work.shas.tests)
    own = alone = 0.0
    spans = spans_of(strategy, network.cuts, len(work.shas.train), work.regime)
    for number, span in enumerate(spans):
        step = costs.steps[step_key(strategy, network.cuts[number], number, span.cut, work.classes)]
        before = pixels + (prefix.seconds_pytorch(span.cut) if prefix and span.cut else 0.0)
        looks = span.epochs * seen
        steps = span.examples * step.example + (span.stop - span.start) * step.update + looks * step.look
        own += steps
        alone += steps + (span.examples + looks) * before
    last = costs.steps[step_key(strategy, network.cuts[-1], len(spans) - 1, spans[-1].cut, work.classes)]
    before = pixels + (prefix.seconds_pytorch(spans[-1].cut) if prefix and spans[-1].cut else 0.0)
    return own + reported * last.look, alone + reported * (last.look + before)


def _reasons(work: CellWork, needs: Needs, kept: set[Piece], budget_words: str) -> Iterable[str]:
    """Say of a cell why something is not reused, the most sweeping reason first."""
    network = next(iter(work.networks.values()))
    spans = spans_of(network.strategy, network.cuts, len(work.shas.train), work.regime)
    if not any(span.cut for span in spans):
        yield "everything trains, so there is no frozen work to reuse"
        return
    for number, span in enumerate(spans):
        if not span.cut:
            yield f"phase {number + 1} trains everything, so it runs from pixels"
    if bank(work.regime) is None:
        yield (
            f"augment: {work.regime.augment} draws new views in every epoch (views: fresh), so the frozen stages see "
            "training images live"
        )
    if any(piece not in kept for piece in needs.rows):
        yield f"some activations do not fit into the disk budget of {budget_words}, so they are computed live"


def as_record(shared: Shared, stages: Mapping[PrefixKey, Sequence[StageInfo]]) -> dict[str, Any]:
    """Return the plan of shared work as plan.json holds it."""
    return {
        "shared": [
            {
                "name": name_of(one.piece, stages),
                "rows": len(one.rows),
                "bytes": one.bytes,
                "held": one.held,
                "stored": one.stored,
                "why_not": one.why,
                "built_from": name_of(one.start, stages) if one.start else "images",
                "cells": list(one.cells),
                "seconds": one.seconds,
            }
            for one in shared.pieces
        ],
        "reuse": [
            {
                "cell": one.cell,
                "reuses": [name_of(piece, stages) for piece in one.reuses],
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


def name_of(piece: Piece, stages: Mapping[PrefixKey, Sequence[StageInfo]]) -> str:
    """Return a piece's name for people."""
    view = "" if piece.augment == "none" else f", {piece.augment}, seed {piece.seed}"
    return f"{label_of(piece.prefix, stages)}, after {stages[piece.prefix][piece.cut - 1].name}{view}"
