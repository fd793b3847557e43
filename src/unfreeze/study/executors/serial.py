"""Run groups of cells in this process, one after another."""

import gc
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from unfreeze.activations.batches import BatchSource
from unfreeze.config.resolve import Strategy
from unfreeze.errors import UserError
from unfreeze.events import CellFailed, CellFinished, Emit, Warned
from unfreeze.inputs.loader import is_death
from unfreeze.model.backbone import Backbone
from unfreeze.storage.atomic import DiskFull
from unfreeze.storage.records import sealed, write_json
from unfreeze.storage.study_dir import StudyDir
from unfreeze.study.finish import CELL_FILES
from unfreeze.study.group import GroupRun
from unfreeze.study.lockstep import CellTask, together
from unfreeze.train.device import Compute
from unfreeze.train.phase_run import Diverged

LOADER_DIED = (
    "a process that prepares images died, perhaps for lack of memory ({died}); resumed from the last checkpoint: "
    "{cells}; processes that prepare images from now on: {workers}"
)

Backbones = Callable[[Strategy, int], Backbone]


class SerialExecutor:
    """The executor that is this process; see ``Executor``.

    Args:
        tasks: the cells that it may be given, by id.
        supply: gives inputs.
        backbones: gives a backbone for a strategy and seed; it is not changed.
        store: the study directory.
        compute: device and precision.
        emit: is called with each event.
    """

    def __init__(
        self,
        tasks: Mapping[str, CellTask],
        supply: BatchSource,
        backbones: Backbones,
        store: StudyDir,
        compute: Compute,
        emit: Emit,
    ) -> None:
        self.tasks, self.supply, self.backbones = tasks, supply, backbones
        self.store, self.compute, self.emit = store, compute, emit
        self.failed = list[str]()
        self.predicted = self.seconds = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Return at once: nothing runs between two calls."""

    def wait(self) -> None:
        """Return at once: nothing runs between two calls."""

    def finish(self) -> None:
        """Return at once: nothing runs between two calls."""

    def submit(self, cells: Sequence[str], predicted: float) -> None:
        """Run a group to its end."""
        started = time.perf_counter()
        tasks = self._not_finished(cells)
        try:
            died = self._run(tasks)
            if died:
                tasks = self._with_fewer_loaders(tasks, died)
                died = self._run(tasks)
            if died:
                for cell in self._not_ended(tasks):
                    self._fail(cell, _died_again(died))
            self.predicted += predicted
        finally:
            self.seconds += time.perf_counter() - started

    def _not_finished(self, cells: Sequence[str]) -> dict[str, CellTask]:
        """Leave out what another run in the same directory has finished meanwhile, which locks alone prevent."""
        tasks = {}
        for cell in cells:
            result = self.store.finished(cell, self.tasks[cell].spec.fingerprint)
            if result is None:
                tasks[cell] = self.tasks[cell]
            else:
                self.emit(CellFinished(cell, result))
        return tasks

    def _run(self, tasks: Mapping[str, CellTask]) -> str:
        """Run cells to their end; or return what PyTorch said when a process that prepares their images died."""
        group = GroupRun(tasks, self.backbones, self.supply, self.store, self.compute, self.emit, self._fail)
        try:
            if self._prepare(tasks):
                group.run()
        except RuntimeError as error:
            if not is_death(error):
                raise
            return str(error).splitlines()[0].strip()
        return ""

    def _prepare(self, tasks: Mapping[str, CellTask]) -> bool:
        """Compute and open what the cells share; return False where that failed, and the cells with it."""
        try:
            self.supply.prepare(together(task.reads for task in tasks.values()))
        except (BrokenPipeError, DiskFull):
            raise
        except Exception as error:  # whatever it is, the study's other cells are run
            if is_death(error):
                raise
            for cell in tasks:
                self._fail(cell, error)
            return False
        return True

    def _with_fewer_loaders(self, tasks: Mapping[str, CellTask], died: str) -> dict[str, CellTask]:
        """Halve the processes that prepare images, and return the cells to resume."""
        try:
            gc.collect()  # the network and the loaders of the attempt that ended
        except RuntimeError as error:
            if not is_death(error):  # of another of these loaders
                raise
        self.supply.workers //= 2
        left = self._not_ended(tasks)
        self.emit(Warned(LOADER_DIED.format(died=died, cells=", ".join(left), workers=self.supply.workers)))
        return left

    def _not_ended(self, tasks: Mapping[str, CellTask]) -> dict[str, CellTask]:
        return {
            cell: task
            for cell, task in tasks.items()
            if cell not in self.failed and self.store.finished(cell, task.spec.fingerprint) is None
        }

    def _fail(self, cell: str, error: Exception, write_files: Callable[[Path], None] | None = None) -> None:
        self.failed.append(cell)
        write_failure(self.store, cell, self.tasks[cell].spec.fingerprint, error, write_files)
        self.emit(failure_event(cell, error))


def _died_again(died: str) -> UserError:
    return UserError(
        f"a process that prepares images died, as one before it did: {died}",
        "processes that live until the cells are finished, with enough memory for them",
        "free memory and run the same command again, which resumes from the last checkpoint",
    )


def failure_event(cell: str, error: Exception) -> CellFailed:
    """Return the event of a cell that failed or diverged."""
    if isinstance(error, Diverged):
        return CellFailed(cell, f"diverged: {error}", True)
    return CellFailed(cell, str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}")


def write_failure(
    store: StudyDir,
    cell: str,
    fingerprint: str,
    error: Exception,
    write_files: Callable[[Path], None] | None = None,
) -> None:
    """Write why a cell failed, or how it diverged, to its ``error.json``.

    Args:
        store: the study directory.
        cell, fingerprint: which cell.
        error: what ended it.
        write_files: writes the files that it has all the same into a folder.
    """
    failed = failure_event(cell, error)
    trace = "" if isinstance(error, UserError | Diverged) else "".join(traceback.format_exception(error))
    status = "diverged" if failed.diverged else "failed"
    record = {"error": failed.error, "traceback": trace, "status": status, "fingerprint": fingerprint}
    with store.new_cell(cell, fingerprint) as folder:
        if write_files is not None:
            write_files(folder)
        write_json(folder / "error.json", {**record, "files": sealed(folder, CELL_FILES)})
