"""Batches for a group of cells, from stored activations or computed live."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from unfreeze.activations.keys import (
    ActivationKey,
    PrefixKey,
    bank,
    label_of,
    plain_key,
    prefix_of,
    training_key,
    validation_key,
)
from unfreeze.activations.prefix import Prefix
from unfreeze.activations.reads import Reads
from unfreeze.activations.store import SmallerBatch, activation_store, fill
from unfreeze.activations.stream import LiveEvaluation, StoredEvaluation, StoredInputs, TrainingStream
from unfreeze.config.identity import fingerprint
from unfreeze.config.resolve import Strategy
from unfreeze.config.schema import RegimeConfig
from unfreeze.data.catalog import Catalog, keys_of, paths_of, rows_of
from unfreeze.events import Emit, Preparing, Warned
from unfreeze.inputs.augment import Preprocessing, ViewDataset
from unfreeze.inputs.loader import EVALUATION_BATCH, Batch, Draw, EvaluationBatches, ImageSet, evaluation_draws
from unfreeze.inputs.preprocess import (
    BaseTransform,
    DecodedPictures,
    Pictures,
    StoredPictures,
    pixel_store,
    store_pictures,
)
from unfreeze.inputs.sampler import DrawOrder, copies_of
from unfreeze.model.network import tensors_hash
from unfreeze.storage.array_store import ArrayStore, CacheFull
from unfreeze.storage.cache import filling
from unfreeze.storage.locks import waiting
from unfreeze.storage.shards import MissingRows, Row, Rows

ALTERED = "{count} chunks of the cache were damaged or could not be read; their rows were computed again"

UNSTORED = (
    "nothing more is stored in the cache, so frozen stages run live: {why}; free space there, or set UNFREEZE_CACHE to "
    "another folder"
)


@dataclass
class CacheStats:
    """Statistics of shared work: seconds and computed rows by key, and problems of the cache."""

    seconds: dict[ActivationKey, float] = field(default_factory=dict)
    computed: dict[ActivationKey, int] = field(default_factory=dict)
    altered_chunks: int = 0
    unstored: str = ""
    """Why the run stopped storing rows; "" if it did not."""


OPEN_SETS = 8
"""Largest number of image sets whose stored pictures stay open, since the number of open files is limited."""


@dataclass(frozen=True)
class ImageRefs:
    """Images of a cell: their ids, content keys, and labels as class numbers."""

    ids: tuple[str, ...]
    shas: tuple[str, ...]
    labels: Tensor


@dataclass(frozen=True)
class _Opened:
    """Opened rows of a key: the index of each row, and the engine batch that they were computed with."""

    places: Mapping[Row, int]
    rows: Rows
    engine_batch: int


@dataclass(frozen=True)
class StoredWork:
    """What a study stores in the cache.

    Attributes:
        rows: rows of the whole study, by key of stored activations.
        starts: the shallower stored activations that a key is computed from; no entry: from the images.
        shares: by key, the part of the cost of its rows that falls on each cell that reads them.
        pixels: whether decoded pictures are stored.
    """

    rows: Mapping[ActivationKey, Mapping[Row, None]]
    starts: Mapping[ActivationKey, ActivationKey]
    shares: Mapping[ActivationKey, float]
    pixels: bool


class BatchSource:
    """Source of batches for the cells of a run.

    Args:
        catalog: the images.
        preprocessing: preprocessing by prefix.
        prefixes: frozen networks; none for cut 0.
        stored: what the cache stores.
        cache: folder of the cache.
        workers: processes that prepare pixels.
        emit: called with events.
    """

    def __init__(
        self,
        catalog: Catalog,
        preprocessing: Mapping[PrefixKey, Preprocessing],
        prefixes: Mapping[PrefixKey, Prefix],
        stored: StoredWork,
        cache: Path,
        workers: int,
        emit: Emit,
    ) -> None:
        self.catalog, self.preprocessing, self.prefixes = catalog, preprocessing, prefixes
        self.rows, self.starts, self.stored_pixels = stored.rows, stored.starts, stored.pixels
        self._shares = stored.shares
        self.cache, self.workers, self.emit = cache, workers, emit
        self.facts = CacheStats()
        self._numbers = {label: number for number, label in enumerate(catalog.classes)}
        used = catalog.images[catalog.images["sha256"] != ""].drop_duplicates("sha256")["id"].tolist()
        self._id_of = dict(zip(keys_of(catalog, used), used, strict=True))
        self._unstored: CacheFull | None = None
        self._open: dict[ActivationKey, _Opened] = {}
        self._pictures_of: dict[tuple[str, tuple[str, ...]], StoredPictures] = {}

    def images(self, ids: Sequence[str]) -> ImageRefs:
        """Return ids, content keys and labels of images, without reading their files."""
        found = rows_of(self.catalog, ids)
        labels = torch.tensor([self._numbers[label] for label in found["label"]], dtype=torch.int64)
        return ImageRefs(tuple(ids), tuple(keys_of(self.catalog, ids)), labels)

    def missing(self, key: ActivationKey, rows: Sequence[Row]) -> list[Row]:
        """Return the rows that the cache does not have."""
        return self._store(key, self._engine_batch_for(key, rows)).missing(rows)

    def _store(self, key: ActivationKey, engine_batch: int) -> ArrayStore:
        prefix, made = self.prefixes[key.prefix], self.preprocessing[key.prefix]
        return activation_store(self.cache, prefix, key.cut, made, key.augment, key.seed, engine_batch)

    def _engine_batches(self, key: ActivationKey) -> list[int]:
        """Return the engine batches used so far: the calibrated one first, the current one last."""
        prefix = self.prefixes[key.prefix]
        numbers = [int(prefix.calibration.engine["batch"])]
        while numbers[-1] > prefix.batch:
            numbers.append(max(prefix.batch, numbers[-1] // 2))
        return numbers

    def _engine_batch_for(self, key: ActivationKey, rows: Sequence[Row]) -> int:
        """Return the engine batch of rows: the largest with which the cache has all of them, else the current one.

        So a resumed cell reads the same rows as before memory became short.
        """
        *before, now = self._engine_batches(key)
        return next((number for number in before if not self._store(key, number).missing(rows)), now)

    def prepare(self, reads: Reads) -> None:
        """Open the stored rows that a group reads, after computing missing ones.

        Activations that cannot be stored, for example because the disk is full, are computed live, with the same
        numbers.

        Raises:
            UserError: an image file is missing.
        """
        for key in sorted(reads.rows, key=lambda key: key.cut):
            if key in self.rows:
                try:
                    self._ensure(key, reads.rows[key])
                except CacheFull as error:
                    self._open.pop(key, None)
                    self.store_no_more(error)

    def shared_seconds(self, reads: Reads) -> float:
        """Return a cell's share of the seconds that the stored rows took which it reads."""
        computed = self.facts.computed
        return sum(
            self.facts.seconds[key] / computed[key] * len(rows) * self._shares.get(key, 0.0)
            for key, rows in reads.rows.items()
            if computed.get(key)
        )

    def store_no_more(self, error: CacheFull) -> None:
        """Stop writing to the cache, but keep reading from it; warn once."""
        if self._unstored is None:
            self._unstored, self.facts.unstored = error, error.given
            self.emit(Warned(UNSTORED.format(why=error.given)))

    def _check_stored(self) -> None:
        if self._unstored is not None:
            raise self._unstored

    def stream(
        self, strategy: Strategy, regime: RegimeConfig, seed: int, train: ImageRefs, cuts: Iterable[int], stop: int
    ) -> TrainingStream:
        """Return the training stream of a group of cells.

        Args:
            strategy: strategy of any cell; its backbone, size and batch size are the group's.
            regime, seed: regime and seed of the group.
            train: the training images.
            cuts: cuts at which batches may be requested.
            stop: last step of the longest member.
        """
        views = bank(regime)

        def pixels() -> ImageSet:
            return ImageSet(self._views(prefix_of(strategy), train, regime.augment, seed), train.labels)

        stored = {
            cut: inputs
            for cut in set(cuts)
            if views is not None
            and (inputs := self._stored(training_key(strategy, cut, regime, seed), train, views)) is not None
        }
        prefix = self.prefixes.get(prefix_of(strategy))
        order = DrawOrder(len(train.ids), strategy.batch_size, seed, views, copies_of(train.shas))
        return TrainingStream(train.labels, pixels, order, stored, prefix, stop, self.workers)

    def validation(
        self, strategy: Strategy, regime: RegimeConfig, seed: int, refs: ImageRefs, cut: int
    ) -> Iterable[Batch]:
        """Return the validation batches of an epoch, after ``cut`` frozen stages."""
        key = validation_key(strategy, cut, regime, seed)
        return self._evaluation(key, refs, evaluation_draws(len(refs.ids), regime.validation.examples, seed))

    def plain(self, strategy: Strategy, refs: ImageRefs, cut: int) -> Iterable[Batch]:
        """Return batches of each image once in its plain view, after ``cut`` frozen stages."""
        return self._evaluation(plain_key(strategy, cut), refs, evaluation_draws(len(refs.ids), None, 0))

    def prefix_sha256(self, key: PrefixKey, cut: int) -> str:
        """Return the hash of the tensors of the first ``cut`` stages; that of no tensors without a prefix."""
        return self.prefixes[key].sha256(cut) if key in self.prefixes else tensors_hash({})

    def _evaluation(self, key: ActivationKey, refs: ImageRefs, draws: list[Draw]) -> Iterable[Batch]:
        stored = self._stored(key, refs, 1 + max((view for _, view in draws), default=0))
        if stored is not None:
            return StoredEvaluation(stored, draws, refs.labels)
        images = ImageSet(self._views(key.prefix, refs, key.augment, max(0, key.seed)), refs.labels)
        batches = EvaluationBatches(images, self.workers, draws)
        if not key.cut:
            return batches
        prefix = self.prefixes[key.prefix]
        return LiveEvaluation(batches, lambda inputs: prefix.run(inputs, 0, key.cut))

    def _stored(self, key: ActivationKey, refs: ImageRefs, views: int) -> StoredInputs | None:
        """Return stored inputs of images in their first ``views`` views, or None if the key is not stored."""
        if key not in self.rows or key not in self._open:
            return None
        places, rows = self._open[key].places, self._open[key].rows
        numbers = range(1 if key.augment == "none" else views)
        at = np.array([[places.get((sha, view), -1) for view in numbers] for sha in refs.shas], dtype=np.int64)
        return StoredInputs(rows, at.reshape(len(refs.shas), len(numbers)), getattr(torch, rows.dtype.name))

    def _views(self, key: PrefixKey, refs: ImageRefs, augment: str, seed: int) -> ViewDataset:
        return ViewDataset(self._pictures(key, refs), refs.shas, self.preprocessing[key], augment, seed)

    def _pictures(self, key: PrefixKey, refs: ImageRefs) -> Pictures:
        base = self.preprocessing[key].base
        paths = paths_of(self.catalog, refs.ids)
        if not self.stored_pixels:
            return DecodedPictures(paths, refs.shas, base)
        known = (fingerprint(base.identity()), refs.shas)
        if known not in self._pictures_of:
            while len(self._pictures_of) >= OPEN_SETS:
                del self._pictures_of[next(iter(self._pictures_of))]
            try:
                self._pictures_of[known] = self._stored_pictures(base, paths, refs)
            except CacheFull as error:
                self.store_no_more(error)
                return DecodedPictures(paths, refs.shas, base)
        return self._pictures_of[known]

    def _stored_pictures(self, base: BaseTransform, paths: Sequence[Path], refs: ImageRefs) -> StoredPictures:
        store = pixel_store(self.cache, base)
        wanted = [(sha, 0) for sha in refs.shas]
        if store.missing(wanted):
            with filling(store, waiting(self.emit, "decodes images")):
                missing = set(store.missing(wanted))  # another process may have decoded some
                self._decode(store, [(path, row) for path, row in zip(paths, wanted, strict=True) if row in missing])
        while True:
            try:
                return StoredPictures(store.open(wanted, self._altered))
            except MissingRows as error:
                gone = set(error.rows)
                self._decode(store, [(path, row) for path, row in zip(paths, wanted, strict=True) if row in gone])

    def _decode(self, store: ArrayStore, images: Sequence[tuple[Path, Row]]) -> None:
        if not images:
            return
        self._check_stored()
        store_pictures(
            store,
            [path for path, _ in images],
            [sha for _, (sha, _) in images],
            lambda done, total: self.emit(Preparing("decoding images", done, total)),
        )

    def _ensure(self, key: ActivationKey, rows: Mapping[Row, None]) -> Rows:
        """Open stored rows, after computing those that are missing or altered."""
        engine_batch = self._engine_batch_for(key, list(rows))
        while True:
            try:
                return self._opened(key, engine_batch, rows)
            except SmallerBatch:  # compute all rows with the same engine batch
                engine_batch = self.prefixes[key.prefix].batch

    def _opened(self, key: ActivationKey, engine_batch: int, rows: Mapping[Row, None]) -> Rows:
        opened = self._open.get(key)
        if opened is not None and opened.engine_batch != engine_batch:
            opened = None
        if opened is not None and rows.keys() <= opened.places.keys():
            return opened.rows
        wanted = list(dict.fromkeys([*(opened.places if opened else ()), *rows]))
        found = self._filled(key, engine_batch, wanted)
        self._open[key] = _Opened({row: index for index, row in enumerate(wanted)}, found, engine_batch)
        return found

    def _filled(self, key: ActivationKey, engine_batch: int, wanted: Sequence[Row]) -> Rows:
        store = self._store(key, engine_batch)
        if store.missing(wanted):
            with filling(store, waiting(self.emit, f"computes {self._words(key)}")):
                self._compute(key, engine_batch, store.missing(wanted))  # another process may have computed some
        while True:
            try:
                return store.open(wanted, self._altered)
            except MissingRows as error:
                self._compute(key, engine_batch, error.rows)

    def _words(self, key: ActivationKey) -> str:
        stage = self.prefixes[key.prefix].backbone.stages[key.cut - 1].name
        return f"frozen stages of {label_of(key.prefix, self.prefixes)}, after {stage}"

    def _compute(self, key: ActivationKey, engine_batch: int, missing: Sequence[Row]) -> None:
        if not missing:
            return
        self._check_stored()
        prefix, start = self.prefixes[key.prefix], self.starts.get(key)
        if prefix.batch != engine_batch:
            raise SmallerBatch
        if engine_batch != self._engine_batches(key)[0]:  # the opened shallower rows may have another engine batch
            start = None
        from_rows = [row for row in missing if start is not None and row in self.rows[start]]
        from_images = [row for row in missing if start is None or row not in self.rows[start]]
        if start is not None and from_rows:
            self._opened(start, engine_batch, dict.fromkeys(from_rows))
        began, done = time.perf_counter(), 0
        words = self._words(key)
        self.emit(Preparing(words, 0, len(missing)))
        with self._store(key, engine_batch).writer() as writer:
            for low, batches in (
                (start, self._from_rows(start, from_rows)),
                (None, self._from_images(key, from_images)),
            ):
                for count in fill(writer, prefix, low.cut if low else 0, key.cut, engine_batch, batches):
                    done += count
                    self.emit(Preparing(words, done, len(missing)))
        self.facts.seconds[key] = self.facts.seconds.get(key, 0.0) + time.perf_counter() - began
        self.facts.computed[key] = self.facts.computed.get(key, 0) + done

    def _from_rows(self, start: ActivationKey | None, rows: Sequence[Row]) -> Iterator[tuple[list[Row], Tensor]]:
        if start is None or not rows:
            return
        places, stored = self._open[start].places, self._open[start].rows
        for first in range(0, len(rows), EVALUATION_BATCH):
            batch = list(rows[first : first + EVALUATION_BATCH])
            inputs = torch.empty(len(batch), *stored.shape(0), dtype=getattr(torch, stored.dtype.name))
            stored.read_many([places[row] for row in batch], inputs.numpy())
            yield batch, inputs

    def _from_images(self, key: ActivationKey, rows: Sequence[Row]) -> Iterator[tuple[list[Row], Tensor]]:
        if not rows:
            return
        shas = list(dict.fromkeys(sha for sha, _ in rows))
        refs = self.images([self._id_of[sha] for sha in shas])
        position = {sha: index for index, sha in enumerate(shas)}
        images = ImageSet(self._views(key.prefix, refs, key.augment, max(0, key.seed)), refs.labels)
        batches = EvaluationBatches(images, self.workers, [(position[sha], view) for sha, view in rows])
        first = 0
        for inputs, _, _ in batches:
            yield list(rows[first : first + len(inputs)]), inputs
            first += len(inputs)

    def _altered(self, count: int) -> None:
        self.facts.altered_chunks += count
        self.emit(Warned(ALTERED.format(count=count)))
