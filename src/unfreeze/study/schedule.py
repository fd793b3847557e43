"""Run the cells that are not finished, group by group; under a time limit those that fit, the most telling first."""

import contextlib
import gc
import time
import traceback
from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from unfreeze.activations.batches import BatchSource
from unfreeze.activations.keys import ActivationKey, PrefixKey
from unfreeze.config.resolve import Strategy
from unfreeze.errors import UserError
from unfreeze.events import CellFailed, CellFinished, CellsLeft, Emit, Warned
from unfreeze.inputs.loader import is_death
from unfreeze.model.backbone import Backbone
from unfreeze.storage.array_store import ArrayStore
from unfreeze.storage.atomic import DiskFull
from unfreeze.storage.records import Altered, read_json, sealed, write_json
from unfreeze.storage.shards import Row
from unfreeze.storage.study_dir import StudyDir
from unfreeze.study.activation_plan import ActivationPlan, name_of
from unfreeze.study.finish import CELL_FILES
from unfreeze.study.group import GroupRun
from unfreeze.study.lockstep import CellTask, groups_of
from unfreeze.study.reads import together
from unfreeze.train.device import Compute
from unfreeze.train.phase_run import Diverged

LOADER_DIED = (
    "a process that prepares images died, perhaps for lack of memory ({died}); resumed from the last checkpoint: "
    "{cells}; processes that prepare images from now on: {workers}"
)


class Executor(Protocol):
    """Whoever runs groups of cells: this process, or several others.

    Attributes:
        failed: the cells that failed so far.
        predicted: seconds predicted for the groups that have ended.
        spent: seconds that these took, and one that was cut off, until then.
    """

    failed: list[str]
    predicted: float
    spent: float

    def wait(self) -> None:
        """Return when another group can be taken."""
        ...

    def take(self, jobs: Mapping[str, CellTask], predicted: float) -> None:
        """Run a group that is predicted to take so many seconds, or begin to."""
        ...

    def finish(self) -> None:
        """Return when every group that was taken has ended."""
        ...


class SerialExecutor:
    """Runs groups in this process, one after another.

    Args:
        supply: gives inputs.
        backbones: gives a backbone for a strategy and seed; it is not changed.
        store: the study directory.
        compute: device and precision.
        emit: is told what happens.
    """

    def __init__(
        self,
        supply: BatchSource,
        backbones: Callable[[Strategy, int], Backbone],
        store: StudyDir,
        compute: Compute,
        emit: Emit,
    ) -> None:
        self.supply, self.backbones, self.store, self.compute, self.emit = supply, backbones, store, compute, emit
        self.failed = list[str]()
        self.predicted = self.spent = 0.0

    def wait(self) -> None:
        """Return at once: nothing runs between two calls."""

    def take(self, jobs: Mapping[str, CellTask], predicted: float) -> None:
        """Run a group to its end."""
        began = time.perf_counter()
        mine = self._not_finished(jobs)
        try:
            died = self._run(mine)
            if died:
                mine = self._with_fewer_loaders(mine, died)
                died = self._run(mine)
            if died:
                for name in self._on_their_way(mine):
                    self._fail(mine, name, _died_again(died))
            self.predicted += predicted
        finally:
            self.spent += time.perf_counter() - began

    def _run(self, mine: Mapping[str, CellTask]) -> str:
        """Run cells to their end; or return what PyTorch said when a process that prepares their images died."""
        fail = partial(self._fail, mine)
        group = GroupRun(mine, self.backbones, self.supply, self.store, self.compute, self.emit, fail)
        try:
            try:
                self.supply.prepare(together(one.needs for one in mine.values()))
            except (BrokenPipeError, DiskFull):
                raise
            except Exception as error:  # whatever it is, the study's other cells go on
                if is_death(error):
                    raise
                for name in mine:
                    self._fail(mine, name, error)
            else:
                group.run()
        except RuntimeError as error:
            if not is_death(error):
                raise
            return str(error).splitlines()[0].strip()
        return ""

    def _with_fewer_loaders(self, mine: Mapping[str, CellTask], died: str) -> dict[str, CellTask]:
        """Halve the processes that prepare images, and return the cells that are to go on."""
        try:
            gc.collect()  # the network and the loaders of the attempt that ended
        except RuntimeError as error:
            if not is_death(error):  # of another of these loaders
                raise
        self.supply.workers //= 2
        left = self._on_their_way(mine)
        self.emit(Warned(LOADER_DIED.format(died=died, cells=", ".join(left), workers=self.supply.workers)))
        return left

    def _on_their_way(self, mine: Mapping[str, CellTask]) -> dict[str, CellTask]:
        ended = {name for name, one in mine.items() if self.store.finished(name, one.job.fingerprint) is not None}
        return {name: one for name, one in mine.items() if name not in ended and name not in self.failed}

    def _fail(
        self,
        mine: Mapping[str, CellTask],
        name: str,
        error: Exception,
        fill: Callable[[Path], None] | None = None,
    ) -> None:
        self.failed.append(name)
        write_failure(self.store, name, mine[name].job.fingerprint, error, self.emit, fill)

    def finish(self) -> None:
        """Return at once: nothing runs between two calls."""

    def _not_finished(self, jobs: Mapping[str, CellTask]) -> dict[str, CellTask]:
        """Leave out what another run in the same directory has finished meanwhile, which locks alone prevent."""
        mine = {}
        for name, one in jobs.items():
            found = self.store.finished(name, one.job.fingerprint)
            if found is None:
                mine[name] = one
            else:
                self.emit(CellFinished(name, found))
        return mine


def _died_again(died: str) -> UserError:
    return UserError(
        f"a process that prepares images died, as one before it did: {died}",
        "processes that live until the cells are finished, with enough memory for them",
        "free memory and run the same command again, which resumes from the last checkpoint",
    )


def write_failure(
    store: StudyDir,
    name: str,
    fingerprint: str,
    error: Exception,
    emit: Emit,
    fill: Callable[[Path], None] | None = None,
) -> None:
    """Write what a cell of this fingerprint failed of, or how it diverged, and tell of it.

    Args:
        store: the study directory.
        name: of the cell.
        fingerprint: its.
        error: what ended it.
        emit: is told.
        fill: writes the files that it has all the same into a folder.
    """
    diverged, said = isinstance(error, Diverged), isinstance(error, UserError)
    text = f"diverged: {error}" if diverged else str(error) if said else f"{type(error).__name__}: {error}"
    trace = "" if said or diverged else "".join(traceback.format_exception(error))
    status = "diverged" if diverged else "failed"
    record = {"error": text, "traceback": trace, "status": status, "fingerprint": fingerprint}
    with store.new_cell(name, fingerprint) as folder:
        if fill is not None:
            fill(folder)
        write_json(folder / "error.json", {**record, "files": sealed(folder, CELL_FILES)})
    emit(CellFailed(name, text, diverged))


def correction(spent: float, predicted: float) -> float:
    """Return what the remaining predictions are multiplied by: measured over predicted seconds of the groups so far.

    Before the first group has run it is 1. It is never below a half: predictions are within a factor of two, so less
    time means that an earlier run had done part of a group.
    """
    return max(0.5, spent / predicted) if predicted else 1.0


class Schedule:
    """The cells of one run.

    Args:
        jobs: those that are not finished, by id, in plan order.
        shared: what they share, and what everything is predicted to take.
        supply: knows what is stored.
        hands: run them.
        emit: is told what is left out.
    """

    def __init__(
        self, jobs: Mapping[str, CellTask], shared: ActivationPlan, supply: BatchSource, hands: Executor, emit: Emit
    ) -> None:
        self.jobs, self.shared, self.supply, self.hands, self.emit = jobs, shared, supply, hands, emit
        self._rates = {one.piece: one.seconds / max(1, len(one.rows) - one.held) for one in shared.pieces if one.stored}

    def all(self, seconds: float | None) -> tuple[list[str], list[str]]:
        """Run them; return which failed, and which the time limit left out.

        Args:
            seconds: that are left; a cell that is predicted to take more is left out. None: no limit.
        """
        order = dict(self.jobs)
        if seconds is not None:
            order = dict(sorted(self.jobs.items(), key=lambda entry: self._telling(*entry)))
        left: list[str] = []
        began = time.perf_counter()
        for group in groups_of(order):
            self.hands.wait()
            spent = time.perf_counter() - began
            pace = correction(self.hands.spent, self.hands.predicted)
            chosen, predicted, counted = list[str](), 0.0, dict[ActivationKey, set[Row]]()
            for name in group:
                expected, rows = self._seconds(name, counted)
                if seconds is not None and spent + (predicted + expected) * pace > seconds:
                    left.append(name)
                    continue
                chosen.append(name)
                predicted += expected
                for piece, new in rows.items():
                    counted.setdefault(piece, set()).update(new)
            if chosen:
                self.hands.take({name: self.jobs[name] for name in chosen}, predicted)
        self.hands.finish()
        if left:
            self.emit(CellsLeft(tuple(left)))
        return self.hands.failed, left

    def _telling(self, name: str, one: CellTask) -> tuple[int, int, float]:
        """Order cells: a whole grid before the next seed, in it what is done soonest."""
        return one.job.cell.seed, one.job.cell.fold or 0, self.shared.cells[name].seconds

    def _seconds(
        self, name: str, counted: Mapping[ActivationKey, set[Row]]
    ) -> tuple[float, dict[ActivationKey, list[Row]]]:
        """Predict a cell, with the rows that it needs, nobody has computed yet and no other cell is charged with."""
        needed = self.jobs[name].needs.rows
        missing = {
            piece: [row for row in self.supply.missing(piece, list(needed[piece])) if row not in counted[piece]]
            if piece in counted
            else self.supply.missing(piece, list(needed[piece]))
            for piece in needed
            if piece in self._rates
        }
        shared = sum(self._rates[piece] * len(rows) for piece, rows in missing.items())
        return self.shared.cells[name].seconds + shared, missing


def add_facts(
    store: StudyDir,
    shared: ActivationPlan,
    supply: BatchSource,
    needed: Mapping[ArrayStore, Collection[Row]],
    predicted: float,
    stages: Mapping[PrefixKey, Any],
    times: Mapping[str, float],
) -> None:
    """Add to shared.json what one run's shared work really took, beside what was predicted for it.

    Args:
        store: the study directory.
        shared: the plan.
        supply: knows what was computed.
        needed: the plan's rows, by entry of the cache.
        predicted: seconds predicted for the cells that ran, with what they share.
        stages: names stages, by prefix.
        times: seconds of the parts of the run.
    """
    path = store.path / "shared.json"
    runs = []
    with contextlib.suppress(FileNotFoundError, Altered):  # what earlier runs took is for the report alone
        runs = read_json(path)["runs"]
    facts = supply.facts
    pieces = [
        {"name": name_of(piece, stages), "rows": facts.computed[piece], "seconds": facts.seconds[piece]}
        for piece in facts.computed
    ]
    run = {
        "predicted_seconds": predicted,
        "seconds": dict(times),
        "pieces": pieces,
        "forwards": sum(prefix.forwards for prefix in supply.prefixes.values()),
        "altered_chunks": facts.altered_chunks,
        "unstored": facts.unstored,
        "predicted_disk": shared.bytes,
        "disk": sum(one.bytes_of(rows) for one, rows in needed.items()),
    }
    runs = [*runs, run]
    write_json(path, {"forwards": sum(one["forwards"] for one in runs), "runs": runs})
