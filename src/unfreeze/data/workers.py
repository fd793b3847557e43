"""Processes that decode files, for threads that wait for them: Python threads alone decode hardly faster than one.

They are plain child processes and not ``multiprocessing``'s: those would run the caller's script a second time, and of
one that dies nobody would know at which file.
"""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, NamedTuple, Self

from unfreeze.data.likeness import from_values
from unfreeze.data.look import Look, looks_at
from unfreeze.data.reading import USUAL, Reading
from unfreeze.data.sketch import Seen
from unfreeze.data.unfit import CRASHED
from unfreeze.data.worker import READY
from unfreeze.errors import UserError

# Without site: its work takes a third of a start, and all paths are handed over.
_COMMAND = ("-P", "-S", "-c", "from unfreeze.data.worker import main; main()")
_PACKAGE = str(Path(__file__).parents[2])  # which a hook of an editable installation may have found, on no path
_ENVIRONMENT = {
    # glibc would give the memory of each picture back, and take it anew for the next, page by page.
    "MALLOC_MMAP_THRESHOLD_": str(16 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(64 * 2**20),
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}


Claim = Callable[[str], bool]
"""Says of a content, by its sha256, whether it is to be decoded."""


class _Hashed(NamedTuple):
    """A file's sha256, bytes and state, or why it cannot be read."""

    sha256: str = ""
    bytes: int = 0
    reason: str = ""
    state: str = ""


class Ended(Exception):
    """The processes were ended, and nobody waits for what they would have found."""


class Workers:
    """Processes, each started when a thread finds no idle one; to be closed, at which all of them end.

    Args:
        most: processes at a time; a thread that finds all of them busy waits.
        reading: how they read files.
    """

    def __init__(self, most: int, reading: Reading = USUAL) -> None:
        self._turns, self._reading = threading.Semaphore(most), reading
        self._idle: list[subprocess.Popen[bytes]] = []
        self._all: list[subprocess.Popen[bytes]] = []
        self._lock, self._ended = threading.Lock(), False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
        for process in self._all:
            process.communicate()

    def end(self) -> None:
        """End the processes at once, whatever they are at; threads that wait for them get ``Ended``."""
        with self._lock:
            self._ended = True
            for process in self._all:
                process.kill()  # it holds nothing

    def look(self, paths: Sequence[Path], claim: Claim) -> list[tuple[Look | str, str]]:
        """Hash files, in order, and decode those that are claimed; one at which the process dies is not fit for use.

        Args:
            paths: the files.
            claim: may be asked several times of one content; of files of the same content one is decoded.

        Returns:
            the looks, and for a file that was hashed only its sha256; with each the state that the file was in, see
            ``data.states``.

        Raises:
            UserError: no process can be started.
            Ended: see ``end``.
        """
        with self._turns:
            hashed, answers = self._asked(paths, claim)
        if answers is None and self._ended:
            raise Ended
        if answers is None and len(paths) > 1:  # at which of them it died, only asking for each alone tells
            return [look for path in paths for look in self.look([path], claim)]
        if answers is None:
            return [(Look(one.sha256, reason=CRASHED, bytes=one.bytes), "") for one in hashed]
        seen = {place: answer for place, answer in answers.items() if isinstance(answer, Seen)}
        looks = looks_at((hashed[place].sha256, hashed[place].bytes, one) for place, one in seen.items())
        found: dict[int, Look | str] = dict(zip(seen, looks, strict=True))
        found |= {place: Look(reason=answer) for place, answer in answers.items() if isinstance(answer, str)}
        found |= {place: Look(reason=one.reason) for place, one in enumerate(hashed) if one.reason}
        return [(found.get(place, one.sha256), one.state) for place, one in enumerate(hashed)]

    def _asked(self, paths: Sequence[Path], claim: Claim) -> tuple[list[_Hashed], dict[int, Seen | str] | None]:
        """Return what each file was hashed to, and by place what each that was claimed told, or why it could not.

        None in the place of the latter where the process died.
        """
        with self._lock:
            process = self._idle.pop() if self._idle else None
        process = process or self._started()
        hashed = [_Hashed() for _ in paths]
        try:
            _ask(process, [str(path) for path in paths])
            line = process.stdout.readline()  # type: ignore[union-attr]
            if not line.endswith(b"\n"):
                return hashed, None
            hashed = [_Hashed(*told) for told in json.loads(line)]
            first = {one.sha256: place for place, one in reversed(list(enumerate(hashed))) if not one.reason}
            wanted = sorted(place for sha256, place in first.items() if claim(sha256))
            _ask(process, wanted)
            answers = _answers(process.stdout)  # type: ignore[arg-type]
        except BrokenPipeError:  # it died before
            return hashed, None
        if answers is None:
            return hashed, None
        with self._lock:
            self._idle.append(process)
        return hashed, dict(zip(wanted, answers, strict=True))

    def _started(self) -> subprocess.Popen[bytes]:
        path = os.pathsep.join([*(folder or os.getcwd() for folder in sys.path), _PACKAGE])
        environment = {**_ENVIRONMENT, **os.environ, "PYTHONPATH": path}
        try:
            process = subprocess.Popen(
                [sys.executable, *_COMMAND, self._reading.as_text()],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=environment,
            )
        except OSError as error:
            raise _cannot_start(str(error)) from error
        with self._lock:
            self._all.append(process)
            if self._ended:
                process.kill()
        if process.stdout.readline() != READY:  # type: ignore[union-attr]
            if self._ended:
                raise Ended
            raise _cannot_start(f"it ended with {process.wait()} before it could be asked")
        return process


def _ask(process: subprocess.Popen[bytes], what: list[str] | list[int]) -> None:
    process.stdin.write(json.dumps(what).encode() + b"\n")  # type: ignore[union-attr]
    process.stdin.flush()  # type: ignore[union-attr]


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
        mode, size, reason, kind, likeness, peak = values
        found.append(Seen(mode, tuple(size), reason, tuple(kind), likeness and from_values(likeness), peak))
    return found


def _cannot_start(why: str) -> UserError:
    return UserError(
        f"{sys.executable or 'Python'} cannot be started to decode images: {why}",
        "a Python that can start another one",
        "free memory, or run the command with the Python that unfreeze is installed in",
    )
