"""The state of a file: equal while the file is unchanged, so that it need not be read again."""

import os
import time
from pathlib import Path

SETTLED = 2.0
"""Seconds since a file's last change after which its next change has another time, even where times are coarse."""


def state(stamp: os.stat_result) -> str:
    """Return device, inode, size and the times of the last changes as text; "" of a file that changed just now.

    Args:
        stamp: of the open file, taken before it is read: what is read is then never older than its state.
    """
    if max(stamp.st_mtime, stamp.st_ctime) > time.time() - SETTLED:
        return ""
    return f"{stamp.st_dev}:{stamp.st_ino}:{stamp.st_size}:{stamp.st_mtime_ns}:{stamp.st_ctime_ns}"


def state_of(path: Path) -> str:
    """Return the ``state`` of the file at a path; "" where there is none."""
    try:
        return state(path.stat())
    except (OSError, ValueError):  # ValueError: a name with a null byte
        return ""
