"""Processes that decode files, for threads that wait for them: Python threads alone decode hardly faster than one.

They are plain child processes and not ``multiprocessing``'s: those would run the caller's script a second time, and of
one that dies nobody would know at which file.
"""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import IO, NamedTuple, Self

from unfreeze.data.look import Look, looks_at
from unfreeze.data.sketch import Seen, Sketch, drawn_bytes
from unfreeze.data.worker import READY
from unfreeze.errors import UserError

CRASHED = "crashes the decoder"
"""Why a file is not fit for use at which a process died."""

_COMMAND = ("-P", "-c", "from unfreeze.data.worker import main; main()")
_ENVIRONMENT = {
    # glibc would give the memory of each picture back, and take it anew for the next, page by page.
    "MALLOC_MMAP_THRESHOLD_": str(16 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(64 * 2**20),
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}


class Task(NamedTuple):
    """A file to be decoded: its path, and the sha256, bytes and time of change (ns) that were read just before."""

    path: str
    sha256: str
    bytes: int
    changed: int


class Workers:
    """Processes, each started when a thread finds no idle one; to be closed, at which all of them end.

    Args:
        most: processes at a time; a thread that finds all of them busy waits.
    """

    def __init__(self, most: int) -> None:
        self._turns = threading.Semaphore(most)
        self._idle: list[subprocess.Popen[bytes]] = []
        self._all: list[subprocess.Popen[bytes]] = []
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._all:
            process.kill()  # it holds nothing
            process.communicate()

    def look(self, tasks: Sequence[Task]) -> list[Look]:
        """Decode files, in order; a file at which the process dies is not fit for use.

        Raises:
            UserError: no process can be started.
        """
        with self._turns:
            answers = self._asked(tasks)
        if answers is None and len(tasks) > 1:  # at which of them it died, only asking for each alone tells
            return [look for task in tasks for look in self.look([task])]
        if answers is None:
            return [Look(task.sha256, reason=CRASHED, bytes=task.bytes) for task in tasks]
        seen = [answer for answer in answers if isinstance(answer, Seen)]
        known = [task for task, answer in zip(tasks, answers, strict=True) if isinstance(answer, Seen)]
        looks = iter(looks_at((task.sha256, task.bytes, one) for task, one in zip(known, seen, strict=True)))
        return [next(looks) if isinstance(answer, Seen) else Look(reason=answer) for answer in answers]

    def _asked(self, tasks: Sequence[Task]) -> list[Seen | str] | None:
        """Return what each file told, or why it could not be read as it was; None where the process died."""
        with self._lock:
            process = self._idle.pop() if self._idle else None
        process = process or self._started()
        asked = json.dumps([(task.path, task.bytes, task.changed) for task in tasks]).encode() + b"\n"
        try:
            process.stdin.write(asked)  # type: ignore[union-attr]
            process.stdin.flush()  # type: ignore[union-attr]
            answers = _answers(process.stdout)  # type: ignore[arg-type]
        except BrokenPipeError:  # it died before
            return None
        if answers is not None:
            with self._lock:
                self._idle.append(process)
        return answers

    def _started(self) -> subprocess.Popen[bytes]:
        path = os.pathsep.join(folder or os.getcwd() for folder in sys.path)
        environment = {**_ENVIRONMENT, **os.environ, "PYTHONPATH": path}
        try:
            process = subprocess.Popen(
                [sys.executable, *_COMMAND], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
            )
        except OSError as error:
            raise _cannot_start(str(error)) from error
        with self._lock:
            self._all.append(process)
        if process.stdout.readline() != READY:  # type: ignore[union-attr]
            raise _cannot_start(f"it ended with {process.wait()} before it could be asked")
        return process


def _answers(stream: IO[bytes]) -> list[Seen | str] | None:
    """Read what a process answers; None where it ends before the end."""
    line = stream.readline()
    if not line.endswith(b"\n"):
        return None
    found: list[Seen | str] = []
    for read, *values in json.loads(line):
        if not read:
            found.append(values[0])
            continue
        mode, size, reason, kind, sketched = values
        sketch = None
        if sketched is not None:
            pixels, width, height = sketched
            sketch = Sketch(pixels, width, height, stream.read(drawn_bytes(width, height)))
            if len(sketch.drawn) < drawn_bytes(width, height):
                return None
        found.append(Seen(mode, tuple(size), reason, tuple(kind), sketch))
    return found


def _cannot_start(why: str) -> UserError:
    return UserError(
        f"{sys.executable or 'Python'} cannot be started to decode images: {why}",
        "a Python that can start another one",
        "free memory, or run the command with the Python that unfreeze is installed in",
    )
