"""What a piece of code holds in memory, be it for a moment."""

import contextlib
import ctypes
import sys
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def little_memory(at_most: int = 2**26) -> Iterator[None]:
    """Fail where this process holds so many bytes more within than before, be it for a moment; Linux alone tells."""
    if sys.platform != "linux":
        yield
        return
    ctypes.CDLL(None).malloc_trim(0)  # what is free but kept would be taken without a trace
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far, which may be higher
    before = _peak()
    try:
        yield
    finally:  # most readers refuse the file
        assert _peak() - before < at_most


def _peak() -> int:
    """Return the most bytes that this process has held."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024
