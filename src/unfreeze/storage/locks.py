"""Inter-process locks. They only save work: results are right without them."""

import contextlib
import os
import platform
from collections.abc import Callable, Iterator
from pathlib import Path

import filelock

from unfreeze.errors import UserError
from unfreeze.events import BetweenSteps, Emit, Preparing
from unfreeze.storage.atomic import make_folder
from unfreeze.storage.records import read_json, write_json


def try_lock(path: Path) -> filelock.BaseFileLock | None:
    """Take the lock that a file stands for, until it is released or the process ends, however it ends.

    A lock that cannot be taken since the file system has none, or the file cannot be written, counts as taken.

    Returns:
        The lock, None while another process holds it.
    """
    lock = filelock.FileLock(path, thread_local=False, fallback_to_soft=False)
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        return None
    except OSError:
        pass
    return lock


LOCK, HOLDER = ".run.lock", ".run.json"


@contextlib.contextmanager
def held(out: Path) -> Iterator[None]:
    """Hold a study directory until the end of the block or of the process, however it ends.

    Two runs would do the same work twice; the results would be right all the same. The lock's file stays, since
    deleting it could let two processes hold two files of one name, unless nothing else was written.

    Raises:
        UserError: another run holds the directory, or it cannot be written to.
    """
    new = [each for each in (out, *out.parents) if not each.exists()]
    with contextlib.suppress(OSError):  # the first file that cannot be written says so
        make_folder(out)
    lock = try_lock(out / LOCK)
    if lock is None:
        raise UserError(
            f"{out} is being run{_holder(out)}",
            "one run at a time in a study directory",
            "wait for it, stop it, or give another --out DIR",
        )
    try:
        with contextlib.suppress(UserError):  # it only says who has the directory
            write_json(out / HOLDER, {"process": os.getpid(), "host": platform.node()})
        yield
    finally:
        with contextlib.suppress(OSError):
            (out / HOLDER).unlink()
        if new and out.is_dir() and {path.name for path in out.iterdir()} <= {LOCK}:  # before anything was written
            (out / LOCK).unlink(missing_ok=True)
            for each in new:
                with contextlib.suppress(OSError):  # somebody else has put something there
                    each.rmdir()
        lock.release()


def waiting(emit: Emit, work: str) -> Callable[[], None]:
    """Return what to call while another process does some work; it is told of once, and can end the wait each time."""
    told = False

    def wait() -> None:
        nonlocal told
        if not told:
            told = True
            emit(Preparing(f"waiting for another process that {work}", 0, 1))
        emit(BetweenSteps())

    return wait


def _holder(out: Path) -> str:
    """Say which process has it, if that can be read."""
    try:
        record = read_json(out / HOLDER)
    except (UserError, OSError):  # it has just begun, or just ended
        return " by another process"
    return f" by process {record['process']} on {record['host']}"
