"""Out-of-memory errors: recognise them, and retry the work on half as many rows at once."""

import gc
from collections.abc import Callable
from typing import TypeVar

import torch

from unfreeze.errors import UserError

Made = TypeVar("Made")

MESSAGES = (
    "DefaultCPUAllocator: can't allocate memory",  # Linux, macOS
    "DefaultCPUAllocator: not enough memory",  # Windows
    "MPS backend out of memory",
    "CUDA error: out of memory",  # from the driver, not from PyTorch's allocator
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)
"""Messages by which a plain RuntimeError is an out-of-memory error."""


class OutOfMemory(Exception):
    """Not even ``least`` rows fit into the memory of a device."""

    def __init__(self, least: int = 1) -> None:
        self.least = least
        super().__init__(least)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error is an out-of-memory error."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError | OutOfMemory):
        return True
    return isinstance(error, RuntimeError) and any(message in str(error) for message in MESSAGES)


def halve_until_fits(
    attempt: Callable[[int], Made],
    rows: int,
    device: torch.device,
    least: int = 1,
    undo: Callable[[], None] = lambda: None,
) -> tuple[Made, int]:
    """Do work with a number of rows at once, and halve it until the work fits into memory.

    Args:
        attempt: does the whole work with the given number of rows at once.
        rows: rows at once in the first attempt.
        device: device whose memory is used.
        least: smallest number of rows to try.
        undo: reverts what a failed attempt may have changed.

    Returns:
        The result of the attempt, and its rows at once.

    Raises:
        OutOfMemory: not even ``least`` rows fit.
    """
    while True:
        try:
            return attempt(rows), rows
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        # Outside of the handler the error is freed, and with it the frames that held the attempt's tensors.
        undo()
        release(device)
        if rows <= least:
            raise OutOfMemory(least)
        rows = max(least, rows // 2)


def release(device: torch.device) -> None:
    """Free unused memory, so that it can be allocated in other sizes."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def memory_error(network: str, size: int, precision: str, device: torch.device, least: int = 1) -> UserError:
    """Return the error for a network that does not fit into the memory of a device.

    Args:
        network: name of the network.
        size: side of its images, in pixels.
        precision: precision of its forward passes.
        device: the device.
        least: smallest number of images at once.
    """
    images = "one image" if least == 1 else f"{least} images"
    advice = ["set a smaller image_size or another backbone, train fewer stages"]
    advice += ["set precision: bfloat16"] * (precision == "float32") + ["set device: cpu"] * (device.type != "cpu")
    return UserError(
        f"the memory of {device} is too small for {network} with {images} of {size} pixels at a time, in {precision}",
        f"a network that fits with {images} at a time",
        ", or ".join(advice),
    )
