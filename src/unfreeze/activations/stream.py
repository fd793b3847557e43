"""Batches at any cut, read from stored activations or computed live from pixels."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from unfreeze.activations.prefix import Prefix
from unfreeze.inputs.loader import EVALUATION_BATCH, Batch, Draw, EvaluationBatches, ImageSet, training_batches
from unfreeze.inputs.sampler import DrawOrder
from unfreeze.storage.shards import Rows


@dataclass(frozen=True)
class StoredInputs:
    """Stored activations of a set of images.

    Attributes:
        rows: rows opened for reading.
        places: int64 (images, views), index of each row in ``rows``; -1 for a view that is never drawn. With one
            column, it serves every view (the plain view).
        dtype: stored type of the rows.
    """

    rows: Rows
    places: np.ndarray
    dtype: torch.dtype

    def read(self, draws: Sequence[Draw]) -> Tensor:
        """Return the activations of draws (index, view), float32 (len(draws), ...)."""
        at = [int(self.places[index, view % self.places.shape[1]]) for index, view in draws]
        if min(at) < 0:
            raise RuntimeError(f"{at.count(-1)} of {len(at)} rows of a batch are not stored; this is a bug")
        inputs = torch.empty(len(at), *self.rows.shape(at[0]), dtype=self.dtype, pin_memory=torch.cuda.is_available())
        self.rows.read_many(at, inputs.numpy())
        return inputs.float()


class TrainingStream:
    """Training batches of a group, step by step; the inputs at each cut are computed once per step.

    Args:
        labels: labels of the training images, int64 (n,).
        pixels: returns the training images as pixels; called only if a cut is not stored.
        order: order in which images are drawn.
        stored: stored inputs by cut.
        prefix: computes inputs that are not stored; None where nothing is frozen.
        stop: last step of the longest member.
        workers: processes that prepare pixels.
    """

    def __init__(
        self,
        labels: Tensor,
        pixels: Callable[[], ImageSet],
        order: DrawOrder,
        stored: Mapping[int, StoredInputs],
        prefix: Prefix | None,
        stop: int,
        workers: int,
    ) -> None:
        self.labels, self.pixels, self.stored, self.prefix, self.workers = labels, pixels, stored, prefix, workers
        self.order, self.stop = order, stop
        self._step = -1
        self._sources: dict[int, Iterator[Batch]] = {}  # by cut, 0 for pixels; each is at the current step
        self._made: dict[int, Batch] = {}

    def turn_to(self, step: int, cuts: Sequence[int]) -> None:
        """Start a step, and close sources that none of its cuts needs."""
        needed = {self._source(cut) for cut in cuts}
        for source in [source for source in self._sources if source not in needed or step != self._step + 1]:
            self._close(source)
        self._step, self._made = step, {}

    def batch(self, cut: int) -> Batch:
        """Return the current step's batch after ``cut`` frozen stages."""
        if cut not in self._made:
            self._made[cut] = self._make(cut)
        return self._made[cut]

    def close(self) -> None:
        """Close workers and files."""
        for source in list(self._sources):
            self._close(source)

    def _source(self, cut: int) -> int:
        return cut if cut in self.stored else 0

    def _make(self, cut: int) -> Batch:
        source = self._source(cut)
        if source == cut:
            if source not in self._sources:
                self._sources[source] = self._open(source)
            return next(self._sources[source])
        prefix = _needed(self.prefix)
        start = next(low for low in prefix.starts(cut) if low in self._made or low == 0)
        inputs, labels, indices = self.batch(start)
        return prefix.run(inputs, start, cut).float(), labels, indices

    def _open(self, source: int) -> Iterator[Batch]:
        if source == 0:
            return training_batches(self.pixels(), self.order, self._step, self.stop, self.workers)
        return _stored_batches(self.stored[source], self.order.steps(self._step, self.stop), self.labels)

    def _close(self, source: int) -> None:
        iterator = self._sources.pop(source)
        if hasattr(iterator, "close"):
            iterator.close()


def _needed(prefix: Prefix | None) -> Prefix:
    if prefix is None:
        raise ValueError("activations are requested where nothing is frozen")
    return prefix


def _stored_batches(stored: StoredInputs, draws: Iterable[Sequence[Draw]], labels: Tensor) -> Iterator[Batch]:
    """Yield batches of stored rows; a thread reads one batch ahead."""

    def read(drawn: Sequence[Draw]) -> Batch:
        indices = torch.tensor([index for index, _ in drawn])
        return stored.read(drawn), labels[indices], indices

    with ThreadPoolExecutor(1) as reader:
        upcoming: Future[Batch] | None = None
        for drawn in draws:
            ready, upcoming = upcoming, reader.submit(read, drawn)
            if ready is not None:
                yield ready.result()
        if upcoming is not None:
            yield upcoming.result()


class StoredEvaluation:
    """Batches of stored activations for evaluation; can be iterated repeatedly."""

    def __init__(self, stored: StoredInputs, draws: Sequence[Draw], labels: Tensor) -> None:
        self.stored, self.draws, self.labels = stored, draws, labels

    def __iter__(self) -> Iterator[Batch]:
        chunks = [self.draws[start : start + EVALUATION_BATCH] for start in range(0, len(self.draws), EVALUATION_BATCH)]
        return _stored_batches(self.stored, chunks, self.labels)


class LiveEvaluation:
    """Batches for evaluation whose frozen stages are computed live at each iteration."""

    def __init__(self, batches: EvaluationBatches, run: Callable[[Tensor], Tensor]) -> None:
        self.batches, self.run = batches, run

    def __iter__(self) -> Iterator[Batch]:
        for inputs, labels, indices in self.batches:
            yield self.run(inputs).float(), labels, indices
