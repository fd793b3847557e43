"""Files whose states count: unchanged for long enough."""

import os
import time
from pathlib import Path

import pytest

from unfreeze.data.scan_cache import state_of

posix = pytest.mark.skipif(os.name != "posix", reason="Windows keeps no time of a file's last change of anything")


def aged(path: Path) -> Path:
    """Wait until a file's last change counts as settled."""
    deadline = time.monotonic() + 10
    while not state_of(path) and time.monotonic() < deadline:
        time.sleep(0.01)
    return path
