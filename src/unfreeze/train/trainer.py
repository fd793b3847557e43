"""Train candidates in lock-step on the same batches: the training loop."""

import contextlib
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from unfreeze.inputs.loader import Batch, TimedBatch
from unfreeze.train.candidate_run import CandidateRun, TrainedCandidate
from unfreeze.train.phase_run import EpochRow

Key = TypeVar("Key", bound=Hashable)


class TrainingBatches(Protocol):
    """The batches of an endless training stream, at any cut."""

    def turn_to(self, step: int, cuts: Sequence[int]) -> None:
        """Start a step, whose batch is needed after each of these numbers of frozen stages."""

    def batch(self, cut: int) -> Batch:
        """Return the step's batch after ``cut`` frozen stages."""

    def close(self) -> None:
        """Close processes and files."""


@dataclass(frozen=True)
class Callbacks(Generic[Key]):
    """Callbacks of a trainer.

    Attributes:
        before_step: called with the runs that are not over, each between two of its steps.
        on_step: called after each step of a run.
        on_epoch: called after each epoch, with its row.
        on_end: called as soon as a run is over, with the trained candidate or the error that ended it.
    """

    before_step: Callable[[Mapping[Key, CandidateRun]], None]
    on_step: Callable[[Key, CandidateRun], None]
    on_epoch: Callable[[Key, EpochRow], None]
    on_end: Callable[[Key, TrainedCandidate | Exception], None]


class Trainer(Generic[Key]):
    """Trains runs to their end, each as if it were alone.

    Args:
        batches: training batches of all runs.
        validation: returns the validation batches after a number of frozen stages, to be iterated over each epoch.
        callbacks: are called on the way.
    """

    def __init__(
        self, batches: TrainingBatches, validation: Callable[[int], Iterable[Batch]], callbacks: Callbacks[Key]
    ) -> None:
        self.batches, self.validation, self.callbacks = batches, validation, callbacks
        self._runs: dict[Key, CandidateRun] = {}
        self._open: dict[int, Iterable[Batch]] = {}  # validation by cut; its processes live while a run may need them

    def add(self, key: Key, run: CandidateRun) -> None:
        """Add a run; all runs draw the same images in the same order and share their validation images.

        The trainer drops a run that is over, so that networks of beaten candidates leave memory.
        """
        self._runs[key] = run

    def fit(self) -> None:
        """Train all runs to their end.

        A run that fails does not stop the others. A BrokenPipeError does: no listener is left.
        """
        try:
            for key in [key for key, run in self._runs.items() if run.is_over]:
                self._end_if_over(key)
            while self._runs:
                self.callbacks.before_step(self._runs)
                step = min(run.step for run in self._runs.values())
                due = self._by_cut(key for key, run in self._runs.items() if run.step == step)
                self.batches.turn_to(step, list(due))
                for cut, keys in due.items():
                    self._train_step(cut, keys)
                due = self._by_cut(key for key, run in self._runs.items() if run.epoch_is_over)
                for cut, keys in due.items():
                    self._validate(cut, keys)
        finally:
            self.batches.close()

    def _by_cut(self, keys: Iterable[Key]) -> dict[int, list[Key]]:
        found: dict[int, list[Key]] = {}
        for key in keys:
            found.setdefault(self._runs[key].cut, []).append(key)
        return dict(sorted(found.items()))

    def _train_step(self, cut: int, keys: Sequence[Key]) -> None:
        fed = self._made(lambda: self.batches.batch(cut), keys)
        if fed is None:
            return
        for key in keys:
            with self._failing(key):
                run = self._runs[key]
                run.train_step(fed)
                self.callbacks.on_step(key, run)

    def _validate(self, cut: int, keys: Sequence[Key]) -> None:
        self._forget_unused()
        batches = self._validation_batches(cut)
        while alive := [key for key in keys if key in self._runs]:
            fed = self._made(lambda: next(batches, None), alive)
            if fed is None:
                break
            for key in alive:
                with self._failing(key):
                    self._runs[key].validation_step(fed)
        for key in [key for key in keys if key in self._runs]:
            with self._failing(key):
                self.callbacks.on_epoch(key, self._runs[key].end_epoch())
            self._end_if_over(key)

    def _validation_batches(self, cut: int) -> Iterator[Batch]:
        if cut not in self._open:
            self._open[cut] = self.validation(cut)
        yield from self._open[cut]

    def _made(self, make: Callable[[], Batch | None], keys: Sequence[Key]) -> TimedBatch | None:
        """Make a batch for some runs; return None at the end of validation, or if it fails, which fails all of them."""
        started = time.perf_counter()
        try:
            batch = make()
        except BrokenPipeError:
            raise
        except Exception as error:  # a file is gone, say
            for key in keys:
                self._end(key, error)
            return None
        return None if batch is None else TimedBatch(batch, (time.perf_counter() - started) / len(keys))

    @contextlib.contextmanager
    def _failing(self, key: Key) -> Iterator[None]:
        """End a run that fails; the others continue."""
        try:
            yield
        except BrokenPipeError:  # a listener went away, which is not the run's failure
            raise
        except Exception as error:
            self._end(key, error)

    def _end_if_over(self, key: Key) -> None:
        if key in self._runs and self._runs[key].is_over:
            result: TrainedCandidate | Exception
            try:
                result = self._runs[key].result()
            except RuntimeError as error:  # its frozen stages changed
                result = error
            self._end(key, result)

    def _end(self, key: Key, result: TrainedCandidate | Exception) -> None:
        del self._runs[key]
        self._forget_unused()
        self.callbacks.on_end(key, result)

    def _forget_unused(self) -> None:
        """Drop validation batches, with the processes that prepare them, at cuts that no run needs any more."""
        for cut in self._open.keys() - {run.cut for run in self._runs.values() if not run.is_over}:
            del self._open[cut]
