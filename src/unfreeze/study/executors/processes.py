"""Run groups of cells in several processes at once; no number depends on how many there are.

The processes are slots (``unfreeze.slots``), each with the study's number of threads. Each slot appends events to its
own log, which is read here, and they are emitted as if they happened here; its answers (what it computed, which cells
ended) come through a temporary file. Frozen rows that several groups need are computed by one slot while the others
wait (``storage.cache.filling``).
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
from unfreeze.study.executors.executor import died_twice, report_failure
from unfreeze.study.executors.slot_cells import add_facts, facts_of

POLL_SECONDS = 0.1
"""Between two polls of the slots."""

SLOT = "slot-"
"""Prefix of the names of slots and of their logs."""

TRIES = 2
"""How often a group is started before its cells fail with their slot."""


@dataclass
class _Group:
    """A submitted group.

    Attributes:
        cell_ids: of its cells that have not ended.
        predicted: predicted seconds.
        tries: how often it was started.
    """

    cell_ids: list[str]
    predicted: float
    tries: int = 0


@dataclass
class _RunningSlot:
    """A slot, and the group that it runs.

    Attributes:
        slot: the process.
        group: None while it has nothing to do.
        started: when it started with its group, seconds.
        error: the exception that ended its work, if it told one.
    """

    slot: Slot
    group: _Group | None = None
    started: float = 0.0
    error: str = ""


class ProcessExecutor:
    """Executor that runs cells in slots; see ``Executor``.

    Args:
        count: how many slots at most; one fewer after a slot was killed, since that may have been for memory.
        briefing: what ``slot_cells.briefing`` returned.
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
        self._slots: list[_RunningSlot] = []
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
            end([running.slot for running in self._slots])
        finally:  # at a second signal, too
            cut_off = [running for running in self._slots if running.group is not None]
            self.seconds += sum(time.perf_counter() - running.started for running in cut_off)
            self._answers.cleanup()

    def wait(self) -> None:
        """Return when another group can be submitted."""
        while self._lost or not self._has_room():
            if self._lost and self._has_room():
                self._start(self._lost.pop(0))
            else:
                self._poll()

    def submit(self, cell_ids: Sequence[str], predicted: float) -> None:
        """Give a group to a slot that is free, or to a new one."""
        self._start(_Group(list(cell_ids), predicted))

    def finish(self) -> None:
        """Return when every submitted group has ended."""
        while True:
            self.wait()
            if not any(running.group for running in self._slots):
                return
            self._poll()

    def _has_room(self) -> bool:
        return sum(running.group is not None for running in self._slots) < self.count

    def _start(self, group: _Group) -> None:
        running = next((running for running in self._slots if running.group is None), None) or self._new_slot()
        group.tries += 1
        running.group, running.started = group, time.perf_counter()
        running.slot.ask({"run": group.cell_ids})

    def _new_slot(self) -> _RunningSlot:
        self._started += 1
        name = f"{SLOT}{self._started}"
        answers = Path(self._answers.name) / f"{name}.jsonl"
        running = _RunningSlot(Slot("cells", {**self.briefing, "log": name}, answers))
        self._slots.append(running)
        running.slot.ask({"facts": facts_of(self.supply)})
        return running

    def _poll(self) -> None:
        """Read answers and events, and see which slots ended; then a listener may end the run."""
        time.sleep(POLL_SECONDS)
        ended = [(running, running.slot.ended()) for running in self._slots]
        answers = [(running, answer) for running, _ in ended for answer in running.slot.heard()]
        self._show()  # the log after the answers: it holds all that happened before them
        for running, answer in answers:
            self._take(running, answer)
        for running, why in ended:
            if why:
                self._slots.remove(running)
                end([running.slot])
                self._after_end(running, why)
        self.emit(BetweenSteps())

    def _show(self) -> None:
        """Show what slots have logged; a warning that several give, of a full disk say, once."""
        for event in self._log.read():
            if isinstance(event, Warned):
                if event.text in self._warnings:
                    continue
                self._warnings.add(event.text)
            self.show(event)

    def _take(self, running: _RunningSlot, answer: dict[str, Any]) -> None:
        match answer:
            case {"facts": facts}:
                add_facts(self.supply, facts, forwards=True)
                for other in self._slots:
                    if other is not running:
                        other.slot.ask(answer)
            case {"unstored": why}:
                self.supply.facts.unstored = self.supply.facts.unstored or why
            case {"cell": cell_id, "failed": failed}:
                if running.group and cell_id in running.group.cell_ids:
                    running.group.cell_ids.remove(cell_id)
                if failed:
                    self.failed.append(cell_id)
            case {"began": _}:
                running.started = time.perf_counter()
            case {"ended": _}:
                self._count(running)
            case {"broken": error}:
                running.error = error
            case {"full": {"path": path, "given": given, "expected": expected, "fix": fix}}:
                raise DiskFull(Path(path), given, expected, fix)
            case {"refused": {"given": given, "expected": expected, "fix": fix}}:
                raise UserError(given, expected, fix)

    def _count(self, running: _RunningSlot) -> None:
        """Count the seconds of a group that has ended."""
        if running.group is not None:
            self.predicted += running.group.predicted
            self.seconds += time.perf_counter() - running.started
        running.group = None

    def _after_end(self, dead: _RunningSlot, why: str) -> None:
        """Give the unfinished cells of a killed slot to another slot, once.

        Cells fail whose group loses its slot again, or whose slot raised an exception, which it would raise again.
        """
        group = dead.group
        if group is None or not group.cell_ids:
            self._count(dead)
            return
        if dead.error:
            error = UserError(
                f"the process that ran it {dead.error}",
                "a process that runs its cells to their end",
                "run the same command again, without --parallel to see the error where it happens",
            )
        else:
            self.count = max(1, self.count - 1)
            if group.tries < TRIES:
                self.seconds += time.perf_counter() - dead.started
                self._lost.append(group)
                text = f"a process that ran cells {why}; another one continues {', '.join(group.cell_ids)}"
                self.emit(Warned(text))
                return
            error = died_twice(
                f"the process that ran it {why}, for the second time",
                "run the same command again, with a smaller --parallel or without",
            )
        self._count(dead)
        for cell_id in group.cell_ids:
            self.failed.append(cell_id)
            fingerprint = self.briefing["cells"][cell_id]["fingerprint"]
            report_failure(self.store, cell_id, fingerprint, error, self.emit)
