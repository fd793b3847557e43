"""Training batches at any cut, read from stored activations or computed live from pixels."""

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
    """Stored activations of some images, in as many views each.

    Attributes:
        rows: opened for reading.
        places: int64 (images, views), each row's index in ``rows``, -1 where a view is never drawn; one column
            stands for every view (the plain one).
        dtype: of the tensors that are read, the store's.
    """

    rows: Rows
    places: np.ndarray
    dtype: torch.dtype

    def read(self, draws: Sequence[Draw]) -> Tensor:
        """Return the activations of (index, view) draws, float32, shape (len(draws), ...)."""
        at = [int(self.places[index, view % self.places.shape[1]]) for index, view in draws]
        if min(at) < 0:
            raise RuntimeError(f"{at.count(-1)} of {len(at)} rows of a batch were never stored; this is a bug")
        inputs = torch.empty(len(at), *self.rows.shape(at[0]), dtype=self.dtype, pin_memory=torch.cuda.is_available())
        self.rows.read_many(at, inputs.numpy())
        return inputs.float()


class TrainingStream:
    """What the members of a group draw, step after step; each cut's inputs are made once a step.

    Args:
        labels: of the training images, int64 (n,).
        pixels: gives the training images as pixels; asked only if some cut is not stored.
        order: in which they are drawn.
        stored: by cut, what is stored.
        prefix: computes what is not; None where nothing is frozen.
        stop: the last step of the longest member.
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
        self._sources: dict[int, Iterator[Batch]] = {}  # by cut, or 0 for pixels; each stands at the current step
        self._made: dict[int, Batch] = {}

    def turn_to(self, step: int, cuts: Sequence[int]) -> None:
        """Begin a step; sources that none of its cuts needs are closed."""
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
        """Let go of workers and files."""
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
        raise ValueError("activations are asked for where nothing is frozen")
    return prefix


def _stored_batches(stored: StoredInputs, draws: Iterable[Sequence[Draw]], labels: Tensor) -> Iterator[Batch]:
    """Yield batches of stored rows; a thread reads the next one meanwhile."""

    def read(drawn: Sequence[Draw]) -> Batch:
        indices = torch.tensor([index for index, _ in drawn])
        return stored.read(drawn), labels[indices], indices

    with ThreadPoolExecutor(1) as reader:
        coming: Future[Batch] | None = None
        for drawn in draws:
            ready, coming = coming, reader.submit(read, drawn)
            if ready is not None:
                yield ready.result()
        if coming is not None:
            yield coming.result()


class StoredEvaluation:
    """Stored activations of evaluation draws, in batches; may be iterated over again and again."""

    def __init__(self, stored: StoredInputs, draws: Sequence[Draw], labels: Tensor) -> None:
        self.stored, self.draws, self.labels = stored, draws, labels

    def __iter__(self) -> Iterator[Batch]:
        chunks = [self.draws[start : start + EVALUATION_BATCH] for start in range(0, len(self.draws), EVALUATION_BATCH)]
        return _stored_batches(self.stored, chunks, self.labels)


class LiveEvaluation:
    """Evaluation batches after frozen stages that are computed anew each time."""

    def __init__(self, batches: EvaluationBatches, run: Callable[[Tensor], Tensor]) -> None:
        self.batches, self.run = batches, run

    def __iter__(self) -> Iterator[Batch]:
        for inputs, labels, indices in self.batches:
            yield self.run(inputs).float(), labels, indices
