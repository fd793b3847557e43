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
    """Take the lock of a file until it is released or the process ends.

    If the file system has no locks, or the file cannot be written, the caller gets a lock that excludes nobody.

    Returns:
        The lock, or None while another process holds it.
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
    """Lock a study directory until the end of the block or of the process.

    Without it two runs would do the same work twice, with the same results. The file of the lock stays, since after
    deleting it two processes could lock two files of the same name, unless nothing else was written.

    Raises:
        UserError: another run holds the directory, or it cannot be written to.
    """
    new = [each for each in (out, *out.parents) if not each.exists()]
    with contextlib.suppress(OSError):  # the first file that is written reports it
        make_folder(out)
    lock = try_lock(out / LOCK)
    if lock is None:
        raise UserError(
            f"{out} is being run{_holder(out)}",
            "one run at a time in a study directory",
            "wait for it, stop it, or give another --out DIR",
        )
    try:
        with contextlib.suppress(UserError):  # it only names the process
            write_json(out / HOLDER, {"process": os.getpid(), "host": platform.node()})
        yield
    finally:
        with contextlib.suppress(OSError):
            (out / HOLDER).unlink()
        if new and out.is_dir() and {path.name for path in out.iterdir()} <= {LOCK}:  # before anything was written
            (out / LOCK).unlink(missing_ok=True)
            for each in new:
                with contextlib.suppress(OSError):  # another process has written there
                    each.rmdir()
        lock.release()


def waiting(emit: Emit, work: str) -> Callable[[], None]:
    """Return a function to call while another process does some work: it reports this once, and can end the wait."""
    reported = False

    def wait() -> None:
        nonlocal reported
        if not reported:
            reported = True
            emit(Preparing(f"waiting for another process that {work}", 0, 1))
        emit(BetweenSteps())

    return wait


def _holder(out: Path) -> str:
    """Return which process holds the directory, as the end of a sentence."""
    try:
        record = read_json(out / HOLDER)
    except (UserError, OSError):  # the process has just started or ended
        return " by another process"
    return f" by process {record['process']} on {record['host']}"
