"""What a cell asks of the frozen stages: which rows of which activations, and how often. Pure: nothing is computed."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from unfreeze.config.resolve import Strategy, expected_epochs
from unfreeze.config.study import RegimeConfig, Resize
from unfreeze.data.order import copies_of, epoch_ends, examples_after, steps_per_pass, view_of
from unfreeze.data.rowstore import Row
from unfreeze.model.cuts import feed_cuts
from unfreeze.train.batches import evaluation_draws

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True, order=True)
class PrefixKey:
    """A pretrained backbone at one input size: what its frozen stages are shared by."""

    backbone: str
    weights: str
    image_size: int
    resize: Resize

    @property
    def label(self) -> str:
        """Its name for people: of weights in a file with the file's name, of another resizing than a crop with that."""
        return self.named(Path(self.weights).stem)

    def named(self, file: str) -> str:
        """Return its name for people, with a name for the file of its weights if they are in one."""
        file = "" if self.weights in ("pretrained", "none") else f" ({file})"
        resize = "" if self.resize == "crop" else f" ({self.resize})"
        return f"{self.backbone}{file}, {self.image_size} pixels{resize}"


def label_of(key: PrefixKey, keys: Iterable[PrefixKey]) -> str:
    """Return a prefix's name for people among those of a study: the file's whole path where its name is another's."""
    collides = any(one.label == key.label for one in keys if one != key)
    return key.named(key.weights) if collides else key.label


@dataclass(frozen=True, order=True)
class Piece:
    """Activations that cells may share.

    Attributes:
        prefix: the frozen network.
        cut: number of its stages.
        augment: how its views are made; "none" for the plain view.
        seed: of augmented views, -1 for the plain one, which has none.
    """

    prefix: PrefixKey
    cut: int
    augment: str
    seed: int


@dataclass(frozen=True)
class Span:
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


@dataclass(frozen=True)
class Shas:
    """The contents (sha256) of a cell's images; ``ranking`` holds those of ``validation`` too."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    tests: tuple[str, ...]
    ranking: tuple[str, ...]


@dataclass
class Needs:
    """Rows that a candidate or a cell takes of each piece; pixels, which have passed no stage, belong to none."""

    rows: dict[Piece, dict[Row, None]] = field(default_factory=dict)

    def take(self, piece: Piece, rows: Iterable[Row]) -> None:
        """Note that rows are taken."""
        if piece.cut:
            self.rows.setdefault(piece, {}).update(dict.fromkeys(rows))


@dataclass
class Draws:
    """How often rows are taken, repeats counted.

    Attributes:
        pieces: of each piece's, whether or not it is stored.
        live: of fresh views, which no piece holds, by prefix and cut.
        pixels: at no cut.
    """

    pieces: dict[Piece, int] = field(default_factory=dict)
    live: dict[tuple[PrefixKey, int], int] = field(default_factory=dict)
    pixels: int = 0

    def take(self, piece: Piece, draws: int) -> None:
        """Count rows of a piece."""
        if piece.cut:
            self.pieces[piece] = self.pieces.get(piece, 0) + draws
        else:
            self.pixels += draws


def prefix_of(strategy: Strategy) -> PrefixKey:
    """Return what a strategy's frozen stages are shared by."""
    return PrefixKey(strategy.backbone.name, strategy.backbone.weights, strategy.image_size, strategy.resize)


def spans_of(strategy: Strategy, cuts: Sequence[int], images: int, regime: RegimeConfig) -> list[Span]:
    """Return the phases of a candidate with ``cuts`` frozen stages in each, if nothing stops it early."""
    ends = [0, *epoch_ends(images, strategy.batch_size, regime, expected_epochs(strategy))]
    spans, epoch = list[Span](), 0
    for phase, cut in zip(strategy.phases, feed_cuts(cuts), strict=True):
        start, stop = ends[epoch], ends[epoch + phase.epochs]
        drawn = [examples_after(images, strategy.batch_size, step) for step in (start, stop)]
        spans.append(Span(cut, start, stop, phase.epochs, drawn[1] - drawn[0]))
        epoch += phase.epochs
    return spans


def bank(regime: RegimeConfig) -> int | None:
    """Return how many views of an image there are; None: new ones for ever."""
    if regime.augment == "none":
        return 1
    return None if regime.views == "fresh" else int(regime.views)


def training_piece(strategy: Strategy, cut: int, regime: RegimeConfig, seed: int) -> Piece:
    """Return the activations that training images are drawn from."""
    plain = regime.augment == "none"
    return Piece(prefix_of(strategy), cut, regime.augment, -1 if plain else seed)


def validation_piece(strategy: Strategy, cut: int, regime: RegimeConfig, seed: int) -> Piece:
    """Return the activations that validation images are looked at in, each epoch."""
    seen = regime.validation
    plain = seen.augment == "none"
    return Piece(prefix_of(strategy), cut, seen.augment, -1 if plain else seed)


def plain_piece(strategy: Strategy, cut: int) -> Piece:
    """Return the activations of plain views."""
    return Piece(prefix_of(strategy), cut, "none", -1)


def needs_of(strategy: Strategy, cuts: Sequence[int], regime: RegimeConfig, seed: int, shas: Shas) -> Needs:
    """Return what one candidate takes."""
    needs, views = Needs(), bank(regime)
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


def draws_of(strategy: Strategy, cuts: Sequence[int], regime: RegimeConfig, seed: int, shas: Shas) -> Draws:
    """Return how often one candidate takes something while it trains."""
    draws, looks = Draws(), regime.validation.examples or len(shas.validation)
    for span in spans_of(strategy, cuts, len(shas.train), regime):
        if bank(regime) is None and span.cut:
            live = prefix_of(strategy), span.cut
            draws.live[live] = draws.live.get(live, 0) + span.examples
        else:
            draws.take(training_piece(strategy, span.cut, regime, seed), span.examples)
        draws.take(validation_piece(strategy, span.cut, regime, seed), span.epochs * looks)
    return draws


def reported_draws(strategy: Strategy, cuts: Sequence[int], shas: Shas) -> Draws:
    """Return what the candidate that is chosen takes for its cell's predictions."""
    draws = Draws()
    draws.take(plain_piece(strategy, min(cuts)), len(shas.ranking) + len(shas.tests))
    return draws


def together(needs: Iterable[Needs]) -> Needs:
    """Return what several take in all."""
    found = Needs()
    for one in needs:
        for piece, rows in one.rows.items():
            found.take(piece, rows)
    return found


def in_lockstep(draws: Sequence[Draws]) -> Draws:
    """Return how often something is taken for candidates that train in lock-step: as for the one that takes it most."""
    pieces, live = [one.pieces for one in draws], [one.live for one in draws]
    return Draws(_most(pieces), _most(live), max(one.pixels for one in draws))


def _most(counts: Sequence[Mapping[Key, int]]) -> dict[Key, int]:
    keys = dict.fromkeys(key for one in counts for key in one)
    return {key: max(one.get(key, 0) for one in counts) for key in keys}
