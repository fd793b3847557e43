"""The state of a file: what changes whenever its content does, so that what was read once need not be read again.

Light to import, since ``data.worker`` does.
"""

import os
import stat
import time
from pathlib import Path

SETTLED = 2.0
"""Seconds since a file's last change after which another change has another time, however coarse its file system's."""

_COARSE = 10_000_000  # nanoseconds to which FAT keeps times at best


def state_of(path: Path) -> str:
    """Return the ``state`` of a file; "" of one that cannot be read."""
    if os.name != "posix":
        return ""
    name = os.fspath(path)
    try:
        if not stat.S_ISREG(os.stat(name).st_mode):  # to open a pipe or a device could block
            return ""
        handle = os.open(name, os.O_RDONLY)  # at which a file system of a network asks anew what it knows of a file
        try:
            return state(os.fstat(handle), name)
        finally:
            os.close(handle)
    except (OSError, ValueError):
        return ""


def state(stamp: os.stat_result, path: str) -> str:
    """Return what changes whenever a file does, as in git's index: its place, its size and the times of its changes.

    The time of the last change of anything (ctime) is nobody's to set, so that a file is not taken for unchanged whose
    other time was put back. "" where this would say nothing: of a file changed just now, whose next change may have the
    same time ("racy git" in git's documentation); where the file system seems to keep no such time, or none so fine, as
    those of memory cards; and on Windows.

    Args:
        stamp: of the open file, before it is read: then what is read is never older than its state.
        path: where it was opened.
    """
    coarse = stamp.st_mtime_ns == stamp.st_ctime_ns and stamp.st_ctime_ns % _COARSE == 0
    if os.name != "posix" or coarse or not max(stamp.st_mtime, stamp.st_ctime) < time.time() - SETTLED:
        return ""
    times = f"{stamp.st_mtime_ns}:{stamp.st_ctime_ns}"
    try:
        place = path if os.path.isabs(path) else os.path.join(os.getcwd(), path)
    except OSError:  # the folder of this process is gone
        return ""
    return f"{stamp.st_dev}:{stamp.st_ino}:{stamp.st_size}:{times}:{place}"
