"""Process settings that make a run faster and change no number; applied before torch is imported."""

import atexit
import ctypes
import gc
import os
import sys

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of glibc's malloc.h
_ALLOCATOR = ("GLIBC_TUNABLES", "MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_")

KEPT_BYTES = 1 << 30
"""Freed memory at the end of the heap that stays with the process."""

GARBAGE_OBJECTS = 10_000
"""New objects after which Python looks for cycles among them; its own 700 makes importing torch a sixth slower."""


def tune_process() -> None:
    """Start and end sooner, let waiting threads sleep, and let large tensors reuse memory.

    What the user's environment says goes first.
    """
    gc.set_threshold(GARBAGE_OBJECTS)
    # At its end Python looks for cycles among all that was ever imported: 1.4 seconds where torch and timm were.
    atexit.register(gc.freeze)
    # Where anything else wants a core (a worker that reads images is enough), spinning threads hold up those that they
    # wait for: 1.4 times as long a step beside one busy process (bench/threads.py).
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # A step allocates each large gradient anew, and the system gives it out as zeroed pages of 4 KB, one fault each: a
    # third of the time of a step of VGG16's head (bench/allocation.py). Larger pages, kept, take that away.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # PyTorch's own, c10/core/impl/alloc_cpu.cpp
    if sys.platform == "linux" and not any(name in os.environ for name in _ALLOCATOR):
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:  # musl has none
            mallopt(_M_MMAP_MAX, 0)
            mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)
