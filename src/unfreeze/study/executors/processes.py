"""Run groups of cells in several processes at once; no number depends on how many there are.

The processes are slots (``unfreeze.slots``), each with the study's number of threads. A group in lock-step stays whole.
Each slot appends what happens to a file of ``DIR/events``, which is read here and emitted as if it happened here;
frozen rows that several groups need are computed by one slot while the others wait (``storage.cache.filling``).
"""

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from unfreeze import events
from unfreeze.activations.batches import BatchSource
from unfreeze.errors import UserError
from unfreeze.events import BetweenSteps, CellFailed, CellFinished, Emit, Warned
from unfreeze.slots import Slot, end
from unfreeze.storage.atomic import DiskFull, make_folder
from unfreeze.storage.study_dir import StudyDir
from unfreeze.study.executors.worker import add_record, record_of
from unfreeze.study.lockstep import CellTask
from unfreeze.study.schedule import write_failure

TURN_SECONDS = 0.1
"""Between two looks at what slots tell, and whether one died."""


EVENTS = "events"
"""The folder of a study directory in which every slot has a file of its events."""


@dataclass
class _Group:
    """A group on its way: its cells that have not ended with their fingerprints, and how often it was begun."""

    waiting: dict[str, str]
    predicted: float
    tries: int = 0


@dataclass
class _Running:
    """A slot, and the group that it runs.

    Attributes:
        began: when it began with its group, seconds.
        broken: why it cannot go on, if it said so.
    """

    slot: Slot
    group: _Group | None = None
    began: float = 0.0
    broken: str = ""


class ProcessExecutor:
    """Hands that are slots, for use in ``with``; at its end all of them are gone.

    After an exception they save where their cells stand before they go, as one process does.

    Args:
        count: how many at most; after one died, one fewer, since it may have been for memory.
        briefing: what ``study.executors.worker.briefing`` gave.
        supply: of this process; what others computed is counted there.
        store: the study directory.
        emit: is told what happens.
    """

    def __init__(
        self, count: int, briefing: Mapping[str, Any], supply: BatchSource, store: StudyDir, emit: Emit
    ) -> None:
        self.count, self.briefing, self.supply, self.store, self.emit = count, briefing, supply, store, emit
        self.failed = list[str]()
        self.predicted = self.spent = 0.0
        self._warnings = set[str]()
        self._running: list[_Running] = []
        self._again: list[_Group] = []
        self._started = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            end([one.slot for one in self._running])
        finally:  # at a second signal, too
            cut_off = [one for one in self._running if one.group is not None]
            self.spent += sum(time.perf_counter() - one.began for one in cut_off)

    def wait(self) -> None:
        """Return when another group can be taken."""
        while self._again or not self._has_room():
            if self._again and self._has_room():
                self._begin(self._again.pop(0))
            else:
                self._turn()

    def take(self, jobs: Mapping[str, CellTask], predicted: float) -> None:
        """Give a group to a process that is free, or to a new one."""
        self._begin(_Group({name: one.job.fingerprint for name, one in jobs.items()}, predicted))

    def finish(self) -> None:
        """Return when every group that was taken has ended."""
        while True:
            self.wait()
            if not any(one.group for one in self._running):
                return
            self._turn()

    def _has_room(self) -> bool:
        return sum(one.group is not None for one in self._running) < self.count

    def _begin(self, group: _Group) -> None:
        one = next((one for one in self._running if one.group is None), None)
        if one is None:
            one = _Running(Slot("cells", self.briefing, self._log()))
            self._running.append(one)
            one.slot.ask({"facts": record_of(self.supply)})
        one.group, one.began, group.tries = group, time.perf_counter(), group.tries + 1
        one.slot.ask({"run": list(group.waiting)})

    def _log(self) -> Path:
        """Return the file of a new slot: no other run and no other slot has one of its name."""
        make_folder(self.store.path / EVENTS)
        self._started += 1
        began = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
        return self.store.path / EVENTS / f"{began}-{os.getpid()}-{self._started}.jsonl"

    def _turn(self) -> None:
        """Take in what was told, and see who died; then whoever is told may end the run."""
        time.sleep(TURN_SECONDS)
        for one in list(self._running):
            ended = one.slot.ended()
            for message in one.slot.heard():
                self._take_in(one, message)
            if ended:
                self._running.remove(one)
                end([one.slot])
                self._lost(one, one.broken or ended)
        self.emit(BetweenSteps())

    def _take_in(self, one: _Running, message: dict[str, Any]) -> None:
        if "facts" in message:
            add_record(self.supply, message["facts"], forwards=True)
            for other in self._running:
                if other is not one:
                    other.slot.ask(message)
        elif "unstored" in message:
            self.supply.facts.unstored = self.supply.facts.unstored or message["unstored"]
        elif "full" in message:
            path, *words = message["full"]
            raise DiskFull(Path(path), *words)
        elif "refused" in message:
            raise UserError(*message["refused"])
        elif "broken" in message:
            one.broken = message["broken"]
        elif "began" in message:
            one.began = time.perf_counter()
        elif "ended" in message:
            self._end(one)
        else:
            event = getattr(events, message.pop("event"))(**message)
            if isinstance(event, CellFinished | CellFailed) and one.group and event.cell in one.group.waiting:
                del one.group.waiting[event.cell]
            if isinstance(event, CellFailed):
                self.failed.append(event.cell)
            if isinstance(event, Warned):  # of a full disk, say, by each process
                if event.text in self._warnings:
                    return
                self._warnings.add(event.text)
            self.emit(event)

    def _end(self, one: _Running) -> None:
        if one.group is not None:
            self.predicted += one.group.predicted
            self.spent += time.perf_counter() - one.began
        one.group = None

    def _lost(self, one: _Running, why: str) -> None:
        """Have the rest of a dead process's group run in another, once."""
        group = one.group
        self._end(one)
        if group is None or not group.waiting:
            return
        self.count = max(1, self.count - 1)
        if group.tries < 2:
            self._again.append(group)
            self.emit(Warned(f"a process that ran cells {why}; in another one go on: {', '.join(group.waiting)}"))
            return
        error = UserError(
            f"the process that ran it {why}, for the second time",
            "a process that lives until its cells are finished; where memory runs out, the system ends one",
            "run the same command again, with a smaller --parallel or without",
        )
        for name, fingerprint in group.waiting.items():
            self.failed.append(name)
            write_failure(self.store, name, fingerprint, error, self.emit)
