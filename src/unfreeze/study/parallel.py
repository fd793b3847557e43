"""Run groups of cells in several processes at once; no number depends on how many there are.

The processes are started fresh, never forked, each with the study's number of threads. A group in lock-step stays
whole. The asker emits what they tell, as if it had run the cells itself; frozen rows that several groups need are
computed by one process while the others wait (``data.cache.filling``).
"""

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from unfreeze.durable import DiskFull
from unfreeze.errors import UserError
from unfreeze.store import StudyDir
from unfreeze.study import events
from unfreeze.study.cells import write_failure
from unfreeze.study.events import BetweenSteps, CellFailed, CellFinished, Emit, Warned
from unfreeze.study.grouping import GroupJob
from unfreeze.study.process import LEAVE_SECONDS, add_record, record_of
from unfreeze.study.supply import Supply

TURN_SECONDS = 0.1
"""Between two looks at whether a process died, or whoever is told wants to end the run."""

BURY_SECONDS = 2.0

_COMMAND = (
    "-P",
    "-c",
    # Ctrl-C reaches it, too, perhaps before all is imported.
    "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    "from unfreeze.study.process import main; main()",
)


@dataclass
class _Group:
    """A group on its way: its cells that have not ended with their fingerprints, and how often it was begun."""

    waiting: dict[str, str]
    predicted: float
    tries: int = 0


class _Process:
    """A process, and the group that it runs.

    Attributes:
        began: when it began with its group, seconds.
        broken: why it cannot go on, if it said so.
    """

    def __init__(self, tell: Callable[["_Process", dict[str, Any]], None]) -> None:
        path = os.pathsep.join(folder or os.getcwd() for folder in sys.path)
        try:
            self.process = subprocess.Popen(
                [sys.executable, *_COMMAND],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, "PYTHONPATH": path},
            )
        except OSError as error:
            raise UserError(
                f"{sys.executable or 'Python'} cannot be started to run cells: {error}",
                "a Python that can start another one",
                "free memory, or run the same command without --parallel",
            ) from error
        self.group: _Group | None = None
        self.began, self.broken = 0.0, ""
        self._tell, self._asked = tell, queue.SimpleQueue[Mapping[str, Any] | None]()
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._write, self._read)]
        for thread in self._threads:
            thread.start()

    @property
    def is_dead(self) -> bool:
        """Whether it has ended, however."""
        return self.process.poll() is not None

    def ask(self, message: Mapping[str, Any] | None) -> None:
        """Ask something, without waiting until it is heard; None: nothing more."""
        self._asked.put(message)

    def bury(self, seconds: float) -> None:
        """Read what it told before it died.

        Not for long: processes that read images for it may hold its end of the pipe a little longer.
        """
        self.ask(None)
        for thread in self._threads:
            thread.join(seconds)

    def _write(self) -> None:
        with contextlib.suppress(OSError), self.process.stdin as pipe:  # type: ignore[union-attr]
            while (message := self._asked.get()) is not None:
                pipe.write(json.dumps(message).encode() + b"\n")
                pipe.flush()

    def _read(self) -> None:
        with self.process.stdout as pipe:  # type: ignore[union-attr]
            for line in pipe:
                if line.endswith(b"\n"):  # else it was killed in the midst of a word
                    self._tell(self, json.loads(line))


class Processes:
    """Hands that are processes of their own, for use in ``with``; at its end all of them are gone.

    After an exception they save where their cells stand before they go, as one process does.

    Args:
        count: how many at most; after one died, one fewer, since it may have been for memory.
        briefing: what ``study.process.briefing`` gave.
        supply: of this process; what others computed is counted there.
        store: the study directory.
        emit: is told what happens.
    """

    def __init__(self, count: int, briefing: Mapping[str, Any], supply: Supply, store: StudyDir, emit: Emit) -> None:
        self.count, self.briefing, self.supply, self.store, self.emit = count, briefing, supply, store, emit
        self.failed = list[str]()
        self.predicted = self.spent = 0.0
        self._warnings = set[str]()
        self._pieces = list(supply.rows)
        self._processes: list[_Process] = []
        self._again: list[_Group] = []
        self._told = queue.SimpleQueue[tuple[_Process, dict[str, Any]]]()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        end = time.monotonic() + LEAVE_SECONDS
        try:
            for one in self._processes:
                one.ask({"leave": True})
                one.ask(None)
            for one in self._processes:
                one.process.wait(max(0.0, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            pass
        finally:  # at a second signal, too
            for one in self._processes:
                one.process.kill()
            for one in self._processes:
                one.process.wait()
                one.bury(BURY_SECONDS)
                if one.group is not None:  # cut off
                    self.spent += time.perf_counter() - one.began

    def wait(self) -> None:
        """Return when another group can be taken."""
        while self._again or not self._has_room():
            if self._again and self._has_room():
                self._begin(self._again.pop(0))
            else:
                self._turn()

    def take(self, jobs: Mapping[str, GroupJob], predicted: float) -> None:
        """Give a group to a process that is free, or to a new one."""
        self._begin(_Group({name: one.job.fingerprint for name, one in jobs.items()}, predicted))

    def finish(self) -> None:
        """Return when every group that was taken has ended."""
        while True:
            self.wait()
            if not any(one.group for one in self._processes):
                return
            self._turn()

    def _has_room(self) -> bool:
        return sum(one.group is not None for one in self._processes) < self.count

    def _begin(self, group: _Group) -> None:
        one = next((one for one in self._processes if one.group is None), None)
        if one is None:
            one = _Process(lambda teller, message: self._told.put((teller, message)))
            self._processes.append(one)
            one.ask(self.briefing)
            one.ask({"facts": record_of(self.supply, self._pieces)})
        one.group, one.began, group.tries = group, time.perf_counter(), group.tries + 1
        one.ask({"run": list(group.waiting)})

    def _turn(self) -> None:
        """Take in what was told, and see who died; then whoever is told may end the run."""
        told: tuple[_Process, dict[str, Any]] | None = None
        with contextlib.suppress(queue.Empty):
            told = self._told.get(timeout=TURN_SECONDS)
        if told is not None:
            self._take_in(*told)
        for one in [one for one in self._processes if one.is_dead]:
            one.bury(BURY_SECONDS)
            while not self._told.empty():
                self._take_in(*self._told.get())
            self._processes.remove(one)
            self._lost(one)
        self.emit(BetweenSteps())

    def _take_in(self, one: _Process, message: dict[str, Any]) -> None:
        if "facts" in message:
            add_record(self.supply, self._pieces, message["facts"], forwards=True)
            for other in self._processes:
                if other is not one:
                    other.ask(message)
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

    def _end(self, one: _Process) -> None:
        if one.group is not None:
            self.predicted += one.group.predicted
            self.spent += time.perf_counter() - one.began
        one.group = None

    def _lost(self, one: _Process) -> None:
        """Have the rest of a dead process's group run in another, once."""
        group, why = one.group, one.broken or _how(one.process.returncode)
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


def _how(code: int) -> str:
    if code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"
