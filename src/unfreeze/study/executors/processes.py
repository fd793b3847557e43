"""Run groups of cells in several processes at once; no number depends on how many there are.

The processes are slots (``unfreeze.slots``), each with the study's number of threads. A group in lock-step stays whole.
Each slot appends events to its own log, which is read here and shown as if they happened here; what a slot answers
its parent (what it computed, which cells ended) goes through a temporary file. Frozen rows that several groups need are
computed by one slot while the others wait (``storage.cache.filling``).
"""

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from unfreeze.activations.batches import BatchSource
from unfreeze.errors import UserError
from unfreeze.events import BetweenSteps, Emit, Warned
from unfreeze.slots import Slot, end
from unfreeze.storage.atomic import DiskFull
from unfreeze.storage.event_log import EventReader
from unfreeze.storage.study_dir import StudyDir
from unfreeze.study.executors.serial import failure_event, write_failure
from unfreeze.study.executors.worker import add_record, record_of

POLL_SECONDS = 0.1
"""Between two looks at what slots say, and whether one died."""

SLOT = "slot-"
"""How the names of slots begin, which their logs have."""

TRIES = 2
"""How often a group is started before its cells fail with their slots."""


@dataclass
class _Group:
    """A submitted group: its cells that have not ended, and how often it was started."""

    cells: list[str]
    predicted: float
    tries: int = 0


@dataclass
class _Worker:
    """A slot, and the group that it runs.

    Attributes:
        started: when it started with its group, seconds.
        broken: why it cannot go on, if it said so.
    """

    slot: Slot
    group: _Group | None = None
    started: float = 0.0
    broken: str = ""


class ProcessExecutor:
    """The executor whose workers are slots; see ``Executor``.

    Args:
        count: how many slots at most; after one died, one fewer, since it may have been for memory.
        briefing: what ``study.executors.worker.briefing`` returned.
        supply: of this process; what slots compute is counted there.
        store: the study directory.
        emit: is called with each event of this process.
        show: is called with each event that a slot has logged.
    """

    def __init__(
        self, count: int, briefing: Mapping[str, Any], supply: BatchSource, store: StudyDir, emit: Emit, show: Emit
    ) -> None:
        self.count, self.briefing, self.supply, self.store = count, briefing, supply, store
        self.emit, self.show = emit, show
        self.failed = list[str]()
        self.predicted = self.seconds = 0.0
        self._workers: list[_Worker] = []
        self._lost: list[_Group] = []
        self._started = 0
        self._warnings = set[str]()
        self._log = EventReader(store.path, from_now=True, workers=f"{SLOT}*")

    def __enter__(self) -> Self:
        self._answers = tempfile.TemporaryDirectory(prefix="unfreeze-cells-", ignore_cleanup_errors=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            end([worker.slot for worker in self._workers])
        finally:  # at a second signal, too
            cut_off = [worker for worker in self._workers if worker.group is not None]
            self.seconds += sum(time.perf_counter() - worker.started for worker in cut_off)
            self._answers.cleanup()

    def wait(self) -> None:
        """Return when another group can be submitted."""
        while self._lost or not self._has_room():
            if self._lost and self._has_room():
                self._start(self._lost.pop(0))
            else:
                self._poll()

    def submit(self, cells: Sequence[str], predicted: float) -> None:
        """Give a group to a slot that is free, or to a new one."""
        self._start(_Group(list(cells), predicted))

    def finish(self) -> None:
        """Return when every submitted group has ended."""
        while True:
            self.wait()
            if not any(worker.group for worker in self._workers):
                return
            self._poll()

    def _has_room(self) -> bool:
        return sum(worker.group is not None for worker in self._workers) < self.count

    def _start(self, group: _Group) -> None:
        worker = next((worker for worker in self._workers if worker.group is None), None) or self._new_worker()
        group.tries += 1
        worker.group, worker.started = group, time.perf_counter()
        worker.slot.ask({"run": group.cells})

    def _new_worker(self) -> _Worker:
        self._started += 1
        name = f"{SLOT}{self._started}"
        answers = Path(self._answers.name) / f"{name}.jsonl"
        worker = _Worker(Slot("cells", {**self.briefing, "worker": name}, answers))
        self._workers.append(worker)
        worker.slot.ask({"facts": record_of(self.supply)})
        return worker

    def _poll(self) -> None:
        """Take in answers and events, and see which slot died; then a listener may end the run."""
        time.sleep(POLL_SECONDS)
        ended = [(worker, worker.slot.ended()) for worker in self._workers]
        answers = [(worker, answer) for worker, _ in ended for answer in worker.slot.heard()]
        self._show()  # the log after the answers: it holds all that happened before them
        for worker, answer in answers:
            self._take_in(worker, answer)
        for worker, why in ended:
            if why:
                self._workers.remove(worker)
                end([worker.slot])
                self._replace(worker, worker.broken or why)
        self.emit(BetweenSteps())

    def _show(self) -> None:
        """Show what slots have logged; a warning that several give, of a full disk say, once."""
        for event in self._log.read():
            if isinstance(event, Warned):
                if event.text in self._warnings:
                    continue
                self._warnings.add(event.text)
            self.show(event)

    def _take_in(self, worker: _Worker, answer: dict[str, Any]) -> None:
        match answer:
            case {"facts": facts}:
                add_record(self.supply, facts, forwards=True)
                for other in self._workers:
                    if other is not worker:
                        other.slot.ask(answer)
            case {"unstored": why}:
                self.supply.facts.unstored = self.supply.facts.unstored or why
            case {"cell": cell, "failed": failed}:
                if worker.group and cell in worker.group.cells:
                    worker.group.cells.remove(cell)
                if failed:
                    self.failed.append(cell)
            case {"began": _}:
                worker.started = time.perf_counter()
            case {"ended": _}:
                self._end(worker)
            case {"broken": why}:
                worker.broken = why
            case {"full": [path, *words]}:
                raise DiskFull(Path(path), *words)
            case {"refused": words}:
                raise UserError(*words)

    def _end(self, worker: _Worker) -> None:
        if worker.group is not None:
            self.predicted += worker.group.predicted
            self.seconds += time.perf_counter() - worker.started
        worker.group = None

    def _replace(self, dead: _Worker, why: str) -> None:
        """Have the rest of a dead slot's group run in another, once; then its cells fail."""
        group = dead.group
        if group is None or not group.cells:
            self._end(dead)
            return
        self.count = max(1, self.count - 1)
        if group.tries < TRIES:
            self.seconds += time.perf_counter() - dead.started
            self._lost.append(group)
            self.emit(Warned(f"a process that ran cells {why}; in another one go on: {', '.join(group.cells)}"))
            return
        self._end(dead)
        error = UserError(
            f"the process that ran it {why}, for the second time",
            "a process that lives until its cells are finished; where memory runs out, the system ends one",
            "run the same command again, with a smaller --parallel or without",
        )
        for cell in group.cells:
            self.failed.append(cell)
            write_failure(self.store, cell, self.briefing["cells"][cell][1], error)
            self.emit(failure_event(cell, error))
