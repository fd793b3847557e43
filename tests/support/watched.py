"""What work does to the files of a folder, and whether it ends."""

import hashlib
import os
import threading
from collections.abc import Callable
from pathlib import Path


def tree(root: Path) -> dict[str, tuple[int, int, str]]:
    """Everything below a folder, with its time of change."""
    found = {}
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = Path(folder, name)
            state = path.lstat()
            content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
            found[str(path)] = (state.st_mtime_ns, state.st_mode, hashlib.sha256(content).hexdigest())
    return found


def within(seconds: float, work: Callable[[], object]) -> object:
    """Return what some work returns; it fails where that takes longer, which a pipe may do for ever."""
    found: list[object] = []
    thread = threading.Thread(target=lambda: found.append(work()), daemon=True)
    thread.start()
    thread.join(seconds)
    assert found, f"not done after {seconds} s"
    return found[0]
