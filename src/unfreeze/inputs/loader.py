"""Load images in batches, in the order given by the study's seeds."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from unfreeze.errors import UserError
from unfreeze.inputs.augment import ViewDataset
from unfreeze.inputs.sampler import DrawOrder, passes

Draw = tuple[int, int]
"""An image's index and the number of its view."""

_DIED = "DataLoader worker (pid"
"""Start of PyTorch's message on a process that died."""

_NOTICED = 1.0  # seconds after which PyTorch has noticed the death and raised, so that it does not raise later


class LoaderDied(RuntimeError):
    """A process that prepares batches died."""


def is_death(error: BaseException) -> bool:
    """Tell whether an error means that a process that prepares batches died.

    PyTorch raises it in the main thread, at any point, as soon as the process is gone.
    """
    return isinstance(error, LoaderDied) or (isinstance(error, RuntimeError) and str(error).startswith(_DIED))


class _Draws(Sampler[list[Draw]]):
    """Batches of draws, generated for each iteration, that a DataLoader asks its workers for."""

    def __init__(self, make: Callable[[], Iterator[list[Draw]]]) -> None:
        self.make = make

    def __iter__(self) -> Iterator[list[Draw]]:
        return self.make()


class BatchLoader:
    """Batches of views, the same in each iteration; its processes live as long as the object.

    Args:
        views: the views.
        make: returns the draws batch by batch, the same at each call.
        workers: number of processes that prepare batches; 0: this process does.
    """

    def __init__(self, views: ViewDataset, make: Callable[[], Iterator[list[Draw]]], workers: int) -> None:
        self._loader: DataLoader[Any] = DataLoader(
            views,  # type: ignore[arg-type]  # needs only a length and items
            batch_sampler=_Draws(make),
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=torch.cuda.is_available(),
        )

    def __iter__(self) -> Iterator[Any]:
        """Yield the views of each batch.

        Raises:
            RuntimeError: a process died, see ``is_death``.
        """
        try:
            yield from self._loader
        except (ConnectionError, EOFError) as error:
            if self._loader.num_workers and not str(error).startswith("Caught "):  # raised by a living process
                time.sleep(_NOTICED)
                raise LoaderDied(f"the connection to it broke ({type(error).__name__})") from error
            raise


EVALUATION_BATCH = 64

Batch = tuple[Tensor, Tensor, Tensor]
"""Inputs (b, 3, s, s) float32, labels (b,) int64, indices of the images (b,) int64."""


@dataclass(frozen=True)
class TimedBatch:
    """A batch, and this model's share of the seconds that preparing it took."""

    batch: Batch
    seconds: float = 0.0


@dataclass(frozen=True)
class ImageSet:
    """Images of one split with their labels, int64 of shape (n,)."""

    views: ViewDataset
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


def training_batches(images: ImageSet, order: DrawOrder, start: int, stop: int, workers: int) -> Iterator[Batch]:
    """Yield the batches of the steps from ``start`` up to ``stop``."""
    return _labelled(images, BatchLoader(images.views, lambda: order.steps(start, stop), workers))


def evaluation_draws(images: int, examples: int | None, seed: int) -> list[Draw]:
    """Return each image once in order, or the first ``examples`` draws of shuffled passes; pass p uses view p."""
    if examples is None:
        return [(index, 0) for index in range(images)]
    return list(islice(chain.from_iterable(passes(images, EVALUATION_BATCH, seed)), examples))


class EvaluationBatches:
    """Batches for evaluation, the same in each iteration; its workers live as long as the object."""

    def __init__(self, images: ImageSet, workers: int, draws: Sequence[Draw] | None = None) -> None:
        """Use the given draws; by default each image once in its plain view, in order."""
        draws = evaluation_draws(len(images), None, 0) if draws is None else draws
        self.images = images
        self.loader = BatchLoader(images.views, lambda: _chunks(draws, EVALUATION_BATCH), workers)

    def __iter__(self) -> Iterator[Batch]:
        return _labelled(self.images, self.loader)


def _chunks(draws: Sequence[Draw], size: int) -> Iterator[list[Draw]]:
    for start in range(0, len(draws), size):
        yield list(draws[start : start + size])


def _labelled(images: ImageSet, loader: BatchLoader) -> Iterator[Batch]:
    try:
        for inputs, indices in loader:
            yield inputs, images.labels[indices], indices
    except UserError as error:
        raise _without_traceback(error) from None


def _without_traceback(error: UserError) -> UserError:
    """Return an error of a worker without the worker's traceback, which PyTorch puts before the text."""
    return UserError(str(error).rpartition(f"{UserError.__module__}.{UserError.__name__}: ")[2].strip())
