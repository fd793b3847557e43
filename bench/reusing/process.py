"""Run a whole process, take its time from start to end, and sample its memory."""

import json
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SAMPLE = 0.05  # seconds between samples of memory


class Failed(Exception):
    """A process ended with an error; the text is the end of what it said."""


@dataclass(frozen=True)
class Ran:
    """A process that ended well: when it started (seconds since 1970), wall seconds, bytes of anonymous memory at their
    highest (0: not sampled), stdout."""

    started: float
    seconds: float
    anonymous: int
    said: str

    def last_json(self) -> dict[str, Any]:
        """Return what its last line says."""
        return json.loads(self.said.strip().splitlines()[-1])


def run(command: Sequence[str | Path], env: Mapping[str, str], logs: Path, sample: bool = False) -> Ran:
    """Run a command to its end, stdout and stderr going to `logs`.out and .err; `{started}` becomes the time of start.

    Raises:
        Failed: it did not end with 0.
    """
    out, err = logs.with_suffix(".out"), logs.with_suffix(".err")
    with out.open("w") as out_file, err.open("w") as err_file:
        started = time.time()
        words = [str(word).replace("{started}", repr(started)) for word in command]
        begun = time.perf_counter()
        process = subprocess.Popen(words, env={**os.environ, **env}, stdout=out_file, stderr=err_file)
        try:
            anonymous = _watched(process) if sample else 0
            status = process.wait()
        except BaseException:  # an interrupt, say: leave no process behind
            process.terminate()
            process.wait()
            raise
        seconds = time.perf_counter() - begun
    if status != 0:
        raise Failed(f"exit code {status}: " + (err.read_text()[-1500:] or out.read_text()[-1500:]).strip())
    return Ran(started, seconds, anonymous, out.read_text())


def _watched(process: subprocess.Popen) -> int:
    """Return the most anonymous memory, in bytes, that the process and its descendants held together."""
    most = 0
    while process.poll() is None:
        most = max(most, sum(_anonymous(pid) for pid in _tree(process.pid)))
        time.sleep(SAMPLE)
    return most


def _tree(pid: int) -> list[int]:
    """Return a process and its descendants."""
    found, waiting = [], [pid]
    while waiting:
        found.append(waiting.pop())
        for children in Path(f"/proc/{found[-1]}/task").glob("*/children"):
            try:
                waiting += map(int, children.read_text().split())
            except OSError:  # ended meanwhile
                continue
    return found


def _anonymous(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:  # ended meanwhile
        return 0
    # Proportional: what a forked worker shares with its parent would otherwise count twice.
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss_Anon:"))
