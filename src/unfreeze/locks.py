"""Locks between processes. They only save work: every result is right without them."""

from pathlib import Path

import filelock


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
