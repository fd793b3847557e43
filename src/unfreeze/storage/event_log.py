"""Log of a study's events: each worker appends to ``DIR/events/WORKER.jsonl``, and any listener reads the folder.

A line is one event as JSON (``events.to_json``) with the ``time`` at which it was written, in seconds since 1970. Lines
are only appended. A worker that was killed may leave a torn line, which readers ignore.
"""

import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from unfreeze.errors import UserError
from unfreeze.events import (
    BetweenSteps,
    CellStarted,
    Checked,
    Emit,
    Event,
    Preparing,
    Progress,
    Scanning,
    Warned,
    from_json,
    to_json,
)
from unfreeze.storage.atomic import make_folder, writing

EVENTS = "events"
"""The folder of a study directory that holds the log."""

COUNT_SECONDS, COUNTS = 0.5, 100
"""Seconds between two lines of a count (examples of a cell, files read), and most lines of it: a step of a head alone
takes a millisecond."""

LINE_BYTES = 150
"""Most bytes of a line with a count, without the name of its cell."""


class EventLog:
    """Log of one worker.

    Args:
        folder: the study directory.
        worker: name of the worker: ``main``, or ``slot-1`` and so on.
        from_checked: keep events in memory until the study directory exists (``Checked``), so that a study that is
            refused leaves nothing behind.
    """

    def __init__(self, folder: Path, worker: str, from_checked: bool = False) -> None:
        self.path = folder / EVENTS / f"{worker}.jsonl"
        self._waits, self._opened = from_checked, False
        self._lines: list[bytes] = []
        self._totals = dict[str, int]()
        self._last = dict[str, tuple[float, float]]()

    def append(self, event: Event) -> None:
        """Append an event; ``BetweenSteps`` is left out, and so is a count that was written a moment ago.

        Raises:
            DiskFull, UserError: the file cannot be written.
        """
        if isinstance(event, CellStarted):
            self._totals[event.cell] = event.examples
            self._last.pop(event.cell, None)
        self._waits = self._waits and not isinstance(event, Checked)
        if not isinstance(event, BetweenSteps) and self._is_due(event):
            self._lines.append(json.dumps({"time": time.time(), **to_json(event)}).encode() + b"\n")
            if not self._waits:
                self._write()

    def _write(self) -> None:
        with writing(self.path):
            if not self._opened:
                make_folder(self.path.parent)
                if _is_torn(self.path):
                    self._lines.insert(0, b"\n")
                self._opened = True
            lines, self._lines = self._lines, []
            with self.path.open("ab") as file:
                file.write(b"".join(lines))

    def _is_due(self, event: Event) -> bool:
        match event:
            case Scanning(done, total):
                counted = "", done, total
            case Preparing(what, done, total):
                counted = what, done, total
            case Progress(cell, _, _, examples):
                counted = cell, examples, self._totals.get(cell, 0)
            case _:
                return True
        of, done, total = counted
        now, share = time.monotonic(), done / total if total else 1.0
        since, before = self._last.get(of, (-COUNT_SECONDS, -1.0))
        soon = now < since + COUNT_SECONDS or before <= share < before + 1 / COUNTS
        if soon and (isinstance(event, Progress) or done not in (0, total)):
            return False
        self._last[of] = now, share
        return True


def _is_torn(path: Path) -> bool:
    """Tell whether a file's last line is incomplete."""
    if not path.exists() or not path.stat().st_size:
        return False
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read() != b"\n"


def logged(folder: Path, emit: Emit) -> Emit:
    """Return a listener that appends each event to the log of this process and then hands it to another listener.

    If the log cannot be written, the other listener gets a warning and the run continues without a log.
    """
    log: EventLog | None = EventLog(folder, "main", from_checked=True)

    def tell(event: Event) -> None:
        nonlocal log
        try:
            if log is not None:
                log.append(event)
        except UserError as error:
            log = None
            emit(Warned(f"events are not logged from now on: {error.given}"))
        emit(event)

    return tell


@dataclass
class _Tail:
    """How far a file was read, and the part of its last line that was written so far."""

    offset: int = 0
    rest: bytes = b""


class EventReader:
    """Reads the logs of all workers of a study, from where it stopped the last time.

    Args:
        folder: the study directory, which need not exist yet.
        from_now: ignore what was logged before.
        workers: names of the workers, as a pattern.
    """

    def __init__(self, folder: Path, from_now: bool = False, workers: str = "*") -> None:
        self.folder, self.workers = folder / EVENTS, workers
        self._tails = {path: _Tail(path.stat().st_size) for path in self._files()} if from_now else {}

    def read(self) -> list[Event]:
        """Return the events since the last call, of all workers in the order of their times.

        A torn last line waits until it is whole; other lines that are no event of this version are ignored.
        """
        found = [timed for path in self._files() for timed in self._new(path)]
        return [event for _, event in sorted(found, key=lambda timed: timed[0])]

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob(f"{self.workers}.jsonl"))

    def _new(self, path: Path) -> Iterator[tuple[float, Event]]:
        tail = self._tails.setdefault(path, _Tail())
        with path.open("rb") as file:
            file.seek(tail.offset)
            new = file.read()
        tail.offset += len(new)
        *lines, tail.rest = (tail.rest + new).split(b"\n")
        for line in lines:
            try:
                record = json.loads(line)
            except ValueError:  # torn, by a worker that was killed
                continue
            event = from_json(record)
            if event is not None:
                yield float(record.get("time", 0.0)), event
