"""Processes that prepare batches, of which one may be killed: half as many prepare the rest."""

import multiprocessing
import signal
import threading
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import torch
from torch.utils.data import DataLoader, Sampler
from torch.utils.data._utils import signal_handling

from unfreeze.data.views import ViewDataset
from unfreeze.errors import UserError

Draw = tuple[int, int]
"""An image's index and the number of its view."""

OnKilled = Callable[[str, int], None]
"""Is told of a process that was killed: by what, and how many prepare the rest."""

KILLED = "DataLoader worker (pid"
"""How PyTorch's sentence about it begins; it looks every five seconds whether its processes live."""

_ENDING = 1.0  # seconds until the end of a killed process is known, at most


class Draws(Sampler[list[Draw]]):
    """Batches of draws, made anew for each iteration: what a DataLoader asks its workers for; ``done`` are left out."""

    def __init__(self, make: Callable[[], Iterator[list[Draw]]]) -> None:
        self.make, self.done = make, 0

    def __iter__(self) -> Iterator[list[Draw]]:
        return islice(self.make(), self.done, None)


class Loading:
    """Batches of draws of some views, the same at each iteration; its processes live as long as it does.

    Args:
        views: what is drawn from.
        make: gives the draws, batch by batch, the same at each call.
        workers: processes that prepare them; 0: this one does.
        on_killed: is told the first time that one is killed.
    """

    def __init__(
        self, views: ViewDataset, make: Callable[[], Iterator[list[Draw]]], workers: int, on_killed: OnKilled
    ) -> None:
        self._views, self._draws, self._workers, self._on_killed = views, Draws(make), workers, on_killed
        self._lost = False
        self._processes: set[Any] = set()
        self._loader = self._new()

    def __iter__(self) -> Iterator[Any]:
        """Yield what the views give for each batch.

        Raises:
            UserError: of the processes that went on after one was killed another one was.
        """
        self._draws.done = 0
        while True:
            try:
                for batch in self._begun():
                    self._draws.done += 1
                    yield batch
                return
            except (RuntimeError, ConnectionError, EOFError) as error:
                if not self._was_killed(error):
                    raise
                self._go_on_with_fewer(error)

    def _new(self) -> DataLoader:
        return DataLoader(
            self._views,
            batch_sampler=self._draws,
            num_workers=self._workers,
            persistent_workers=self._workers > 0,
            pin_memory=torch.cuda.is_available(),
        )

    def _begun(self) -> Iterator[Any]:
        """Begin an iteration, and note its processes.

        PyTorch would raise in the midst of whatever is computed when a process dies; that it notices when it waits for
        a batch is enough, and there the rest can be prepared by others.
        """
        before, others = signal.getsignal(signal.SIGCHLD) if hasattr(signal, "SIGCHLD") else None, _children()
        iterator = iter(self._loader)
        if getattr(before, "__module__", "") == signal_handling.__name__:  # of a loader that somebody made earlier
            before = signal.SIG_DFL
        main = threading.current_thread() is threading.main_thread()  # in others PyTorch sets none, and none can be set
        if main and before is not None and signal.getsignal(signal.SIGCHLD) is not before:
            signal.signal(signal.SIGCHLD, before)
        self._processes |= _children() - others
        return iterator

    def _was_killed(self, error: Exception) -> bool:
        """Tell whether an error means that a process was killed.

        PyTorch says so; but a batch that a process had finished comes over a connection to it, which breaks first.
        """
        if isinstance(error, RuntimeError):
            return str(error).startswith(KILLED)
        for process in self._processes:
            process.join(_ENDING / len(self._processes))
        return any(process.exitcode for process in self._processes)

    def _go_on_with_fewer(self, error: Exception) -> None:
        by = _words(self._processes)
        if self._lost:
            raise UserError(
                f"a process that prepares images was killed by {by}, as one before it was",
                "processes that live to the end, with memory enough for them",
                "free memory and run the same command again, which goes on from here",
            ) from error
        self._lost, self._workers, self._processes = True, max(1, self._workers // 2), set()
        self._loader = self._new()
        self._on_killed(by, self._workers)


def _children() -> set[Any]:
    return set(multiprocessing.active_children())


def _words(processes: set[Any]) -> str:
    """Return the signals that ended processes, or how they ended otherwise."""
    codes = {process.exitcode for process in processes if process.exitcode}
    words = sorted(signal.Signals(-code).name if code < 0 else f"its exit with {code}" for code in codes)
    return " and ".join(words) or "something unknown"
