"""Slots: child processes that work for this one and end with it.

A slot runs ``unfreeze.worker``. It reads lines of JSON from its standard input, first the kind of work, then requests,
and answers by appending lines of JSON to a file. Closed input means: save and leave. Children of ``multiprocessing``
and ``concurrent.futures`` run the caller's script again and outlive a parent that is killed; slots do not.
"""

import contextlib
import json
import multiprocessing
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from unfreeze.errors import UserError
from unfreeze.storage.atomic import DiskFull

LEAVE_SECONDS = 7.0
"""Seconds that a slot has to save and leave before it is killed."""

ORPHAN_SECONDS = 3.0
"""The same if the parent was killed, after which the slot ends itself."""

_UNTOLD = 74  # exit code of a slot that could not write an answer
_LEAVE = b'"leave"\n'
_COMMAND = ("-P", "-m", "unfreeze.worker")
_PACKAGE = str(Path(__file__).parents[1])  # an import hook may have found the package, so that no path leads to it


class Slot:
    """A slot, as its parent sees it; end it with ``end``.

    Args:
        kind, payload: of the work, as JSON data.
        log: a new file for its answers.
        environment: variables for the process, unless they are set here.
    """

    def __init__(self, kind: str, payload: Any, log: Path, environment: Mapping[str, str] | None = None) -> None:
        path = os.pathsep.join([*(folder or os.getcwd() for folder in sys.path), _PACKAGE])
        variables, command = {**(environment or {}), **os.environ, "PYTHONPATH": path}, [sys.executable, *_COMMAND]
        log.touch(exist_ok=False)
        try:
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, env=variables)
        except OSError as error:
            raise cannot_start(str(error)) from error
        self.log, self._answers, self._rest = log, log.open("rb", buffering=0), b""
        self.ask([kind, str(log), payload])

    def ask(self, what: Any) -> None:
        """Write a line to the slot; a dead one does not read it."""
        with contextlib.suppress(OSError):
            self.process.stdin.write(json.dumps(what).encode() + b"\n")  # type: ignore[union-attr]
            self.process.stdin.flush()  # type: ignore[union-attr]

    def heard(self) -> list[dict[str, Any]]:
        """Return the answers since the last call; a torn last line is kept until the rest of it is there."""
        *lines, self._rest = (self._rest + self._answers.read()).split(b"\n")
        return [json.loads(line) for line in lines]

    def ended(self) -> str:
        """Return how the process ended, "" while it runs; raise DiskFull if it could not write an answer."""
        code = self.process.poll()
        if code == _UNTOLD:
            fix = "free space and run the same command again"
            raise DiskFull(self.log, f"cannot write {self.log}", "a disk with room", fix)
        if code is None or code >= 0:
            return "" if code is None else f"ended with exit code {code}"
        return f"was ended by {signal.Signals(-code).name}"

    def close(self, last: bytes = b"") -> None:
        """Write a last line and close the input, if it is open."""
        with contextlib.suppress(OSError, ValueError), self.process.stdin as lines:  # type: ignore[union-attr]
            lines.write(last)


def end(slots: Sequence[Slot], seconds: float = LEAVE_SECONDS) -> None:
    """Let slots save and leave, and kill those that still run after ``seconds``; 0 kills them at once."""
    until = time.monotonic() + seconds
    try:
        for slot in slots if seconds else ():
            slot.close(_LEAVE)
        for slot in slots:
            slot.process.wait(max(0.0, until - time.monotonic()))
    except subprocess.TimeoutExpired:
        pass
    finally:  # also where an exception ends the wait
        for slot in slots:
            slot.process.kill()
            slot.close()
        for slot in slots:
            slot.process.wait()
            slot._answers.close()


def cannot_start(why: str) -> UserError:
    """Return the error of a child process that cannot be started."""
    return UserError(
        f"{sys.executable or 'Python'} cannot be started as a worker: {why}",
        "a Python that can start another one",
        "free memory, or run the command with the Python that unfreeze is installed in",
    )


class Parent:
    """The process that started this slot, as the work in it sees it.

    Attributes:
        asked: queue of the parent's requests; None once there are no more.
        leaving: set once the work has to save and leave.
    """

    def __init__(self, lines: BinaryIO, log: str) -> None:
        self.asked, self.leaving = queue.SimpleQueue[Any](), threading.Event()
        self._log = open(log, "ab")  # noqa: SIM115
        threading.Thread(target=self._listen, args=(lines,), daemon=True).start()

    def tell(self, **answer: Any) -> None:
        """Append an answer to the log."""
        try:
            self._log.write(json.dumps(answer).encode() + b"\n")
            self._log.flush()
        except OSError:  # no room on the disk, most likely, and then none to save anything either
            leave(_UNTOLD)

    def _listen(self, lines: BinaryIO) -> None:
        seconds = ORPHAN_SECONDS
        for line in lines:
            if line == _LEAVE:
                seconds = LEAVE_SECONDS
            elif line.endswith(b"\n"):
                self.asked.put(json.loads(line))
        self.leaving.set()
        self.asked.put(None)
        time.sleep(seconds)
        leave(1)


def leave(code: int) -> NoReturn:
    """End this process at once, with the processes that load data for it; shutting down Python takes long."""
    for child in multiprocessing.active_children():
        child.kill()
    os._exit(code)
