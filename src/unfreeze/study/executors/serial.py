"""Run groups of cells in this process, one after another."""

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from unfreeze.activations.batches import BatchSource
from unfreeze.activations.reads import all_reads
from unfreeze.config.resolve import Strategy
from unfreeze.events import CellFinished, Emit, Warned
from unfreeze.inputs.loader import is_death
from unfreeze.model.backbone import Backbone
from unfreeze.storage.atomic import DiskFull
from unfreeze.storage.study_dir import StudyDir
from unfreeze.study.cell import CellSpec
from unfreeze.study.executors.executor import died_twice, report_failure
from unfreeze.study.group import GroupRun
from unfreeze.train.device import Compute

LOADER_DIED = (
    "a process that prepares images died, perhaps for lack of memory ({died}); resumed from the last checkpoint: "
    "{cells}; processes that prepare images from now on: {workers}"
)

Backbones = Callable[[Strategy, int], Backbone]


class SerialExecutor:
    """Executor that runs cells in this process; see ``Executor``.

    Args:
        specs: the cells that may be submitted, by id.
        supply: gives inputs.
        backbones: returns a backbone for a strategy and seed; it is not changed.
        store: the study directory.
        compute: device and precision.
        emit: is called with each event.
    """

    def __init__(
        self,
        specs: Mapping[str, CellSpec],
        supply: BatchSource,
        backbones: Backbones,
        store: StudyDir,
        compute: Compute,
        emit: Emit,
    ) -> None:
        self.specs, self.supply, self.backbones = specs, supply, backbones
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

    def submit(self, cell_ids: Sequence[str], predicted: float) -> None:
        """Run a group to its end."""
        started = time.perf_counter()
        specs = self._unfinished(cell_ids)
        try:
            died = self._run(specs)
            if died:
                specs = self._with_fewer_loaders(specs, died)
                died = self._run(specs)
            if died:
                error = died_twice(
                    f"a process that prepares images died, as one before it did: {died}",
                    "free memory and run the same command again, which resumes from the last checkpoint",
                )
                for cell_id in self._not_ended(specs):
                    self._fail(cell_id, error)
            self.predicted += predicted
        finally:
            self.seconds += time.perf_counter() - started

    def _unfinished(self, cell_ids: Sequence[str]) -> dict[str, CellSpec]:
        """Return the cells that no other run in the same directory has finished meanwhile, as locks may fail."""
        specs = {}
        for cell_id in cell_ids:
            result = self.store.finished(cell_id, self.specs[cell_id].fingerprint)
            if result is None:
                specs[cell_id] = self.specs[cell_id]
            else:
                self.emit(CellFinished(cell_id, result))
        return specs

    def _run(self, specs: Mapping[str, CellSpec]) -> str:
        """Run cells to their end; return PyTorch's message if a process that prepares their images died, else ""."""
        group = GroupRun(specs, self.backbones, self.supply, self.store, self.compute, self.emit, self._fail)
        try:
            if self._prepare(specs):
                group.run()
        except RuntimeError as error:
            if not is_death(error):
                raise
            return str(error).splitlines()[0].strip()
        return ""

    def _prepare(self, specs: Mapping[str, CellSpec]) -> bool:
        """Compute and open the activations that cells read; return False if that failed, and the cells with it."""
        try:
            self.supply.prepare(all_reads(spec.reads for spec in specs.values()))
        except (BrokenPipeError, DiskFull):
            raise
        except Exception as error:  # whatever it is, the study's other cells are run
            if is_death(error):
                raise
            for cell_id in specs:
                self._fail(cell_id, error)
            return False
        return True

    def _with_fewer_loaders(self, specs: Mapping[str, CellSpec], died: str) -> dict[str, CellSpec]:
        """Halve the processes that prepare images, and return the cells to resume."""
        try:
            gc.collect()  # the network and the loaders of the attempt that ended
        except RuntimeError as error:
            if not is_death(error):  # of another of these loaders
                raise
        self.supply.workers //= 2
        unfinished = self._not_ended(specs)
        self.emit(Warned(LOADER_DIED.format(died=died, cells=", ".join(unfinished), workers=self.supply.workers)))
        return unfinished

    def _not_ended(self, specs: Mapping[str, CellSpec]) -> dict[str, CellSpec]:
        return {
            cell_id: spec
            for cell_id, spec in specs.items()
            if cell_id not in self.failed and self.store.finished(cell_id, spec.fingerprint) is None
        }

    def _fail(self, cell_id: str, error: Exception, write_files: Callable[[Path], None] | None = None) -> None:
        self.failed.append(cell_id)
        report_failure(self.store, cell_id, self.specs[cell_id].fingerprint, error, self.emit, write_files)
