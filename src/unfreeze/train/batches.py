"""From images on disk to batches of tensors, in the order that the study's streams fix."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from unfreeze.data.order import passes
from unfreeze.data.views import ViewDataset

EVALUATION_BATCH = 64

Batch = tuple[Tensor, Tensor, Tensor]
"""Inputs (b, 3, s, s) float32, labels (b,) int64, indices of the images (b,) int64."""


@dataclass(frozen=True)
class ImageSet:
    """Images of one split with their labels, int64 of shape (n,)."""

    views: ViewDataset
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


class Draws(Sampler[list[tuple[int, int]]]):
    """A fixed list of batches of (image, view): what a DataLoader asks its workers for."""

    def __init__(self, batches: Sequence[list[tuple[int, int]]]) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


def training_batches(
    images: ImageSet, batch_size: int, seed: int, start: int, stop: int, workers: int
) -> Iterator[Batch]:
    """Yield the batches of the steps from ``start`` up to ``stop`` of the endless stream of shuffled passes."""
    draws = list(islice(passes(len(images), batch_size, seed, start), stop - start))
    return _labelled(images, _loader(images, draws, workers))


class EvaluationBatches:
    """The same batches each time it is iterated over; its workers live as long as it does."""

    def __init__(self, images: ImageSet, workers: int, examples: int | None = None) -> None:
        """Show each image once, or as many draws as ``examples`` says: image i, its views in turn."""
        count = len(images) if examples is None else examples
        draws = [(index % len(images), index // len(images)) for index in range(count)]
        self.images = images
        self.count = count
        size = EVALUATION_BATCH
        self.loader = _loader(images, [draws[at : at + size] for at in range(0, count, size)], workers)

    def __iter__(self) -> Iterator[Batch]:
        return _labelled(self.images, self.loader)


def _loader(images: ImageSet, draws: Sequence[list[tuple[int, int]]], workers: int) -> DataLoader:
    return DataLoader(
        images.views,
        batch_sampler=Draws(draws),
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
    )


def _labelled(images: ImageSet, loader: DataLoader) -> Iterator[Batch]:
    for inputs, indices in loader:
        yield inputs, images.labels[indices], indices
