"""Process settings that make a run faster without changing its results; applied before torch is imported."""

import atexit
import ctypes
import gc
import os
import sys

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of glibc's malloc.h
_ALLOCATOR = ("GLIBC_TUNABLES", "MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_")

KEPT_BYTES = 1 << 30
"""Freed memory at the end of the heap that the process keeps."""

GARBAGE_OBJECTS = 10_000
"""Threshold of the garbage collector; with Python's default of 700, importing torch takes a sixth longer."""


def tune_process() -> None:
    """Start and end faster, let waiting threads sleep, and let large tensors reuse memory.

    Settings in the user's environment take precedence.
    """
    gc.set_threshold(GARBAGE_OBJECTS)
    # At exit Python searches all imported objects for cycles: 1.4 seconds with torch and timm.
    atexit.register(gc.freeze)
    # Spinning threads delay those that they wait for where another process needs the core, such as a loader: a step
    # takes 1.4 times as long beside one busy process (bench/threads.py).
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Each step allocates large gradients, which the system provides as zeroed pages of 4 KB with a page fault each: a
    # third of the time of a step of VGG16's head (bench/allocation.py). Keeping larger pages avoids this.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # PyTorch's own, c10/core/impl/alloc_cpu.cpp
    if sys.platform == "linux" and not any(name in os.environ for name in _ALLOCATOR):
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:  # musl has none
            mallopt(_M_MMAP_MAX, 0)
            mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)
