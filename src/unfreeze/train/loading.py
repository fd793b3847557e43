"""Batches that processes prepare, by PyTorch's DataLoader."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Sampler

from unfreeze.data.views import ViewDataset

Draw = tuple[int, int]
"""An image's index and the number of its view."""

_DIED = "DataLoader worker (pid"
"""How PyTorch's sentence about a process that died begins."""
_NOTICED = 1.0  # seconds in which PyTorch notices the death and raises, so that it does not do so later


class LoaderDied(RuntimeError):
    """A process that prepares batches died."""


def is_death(error: BaseException) -> bool:
    """Tell whether an error means that a process that prepares batches died.

    PyTorch raises it in the main thread, wherever that is, as soon as the process is gone.
    """
    return isinstance(error, LoaderDied) or (isinstance(error, RuntimeError) and str(error).startswith(_DIED))


class _Draws(Sampler[list[Draw]]):
    """Batches of draws, made anew for each iteration: what a DataLoader asks its workers for."""

    def __init__(self, make: Callable[[], Iterator[list[Draw]]]) -> None:
        self.make = make

    def __iter__(self) -> Iterator[list[Draw]]:
        return self.make()


class Loading:
    """Batches of draws of some views, the same at each iteration; its processes live as long as it does.

    Args:
        views: what is drawn from.
        make: gives the draws, batch by batch, the same at each call.
        workers: processes that prepare them; 0: this one does.
    """

    def __init__(self, views: ViewDataset, make: Callable[[], Iterator[list[Draw]]], workers: int) -> None:
        self._loader = DataLoader(
            views,
            batch_sampler=_Draws(make),
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=torch.cuda.is_available(),
        )

    def __iter__(self) -> Iterator[Any]:
        """Yield what the views give for each batch.

        Raises:
            RuntimeError: a process died, see ``is_death``.
        """
        try:
            yield from self._loader
        except (ConnectionError, EOFError) as error:
            if self._loader.num_workers and not str(error).startswith("Caught "):  # which a living process raised
                time.sleep(_NOTICED)
                raise LoaderDied(f"the connection to it broke ({type(error).__name__})") from error
            raise
