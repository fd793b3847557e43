"""Out-of-memory errors: recognise them, and retry the work on half as many rows at once."""

import gc
from collections.abc import Callable
from typing import TypeVar

import torch

from unfreeze.errors import UserError

Made = TypeVar("Made")

SAID = (
    "DefaultCPUAllocator: can't allocate memory",  # Linux, macOS
    "DefaultCPUAllocator: not enough memory",  # Windows
    "MPS backend out of memory",
    "CUDA error: out of memory",  # of the driver, beside PyTorch's own allocator
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)
"""What a RuntimeError of no type of its own says when memory could not be had, and says of nothing else."""


class OutOfMemory(Exception):
    """Not even the fewest rows fit into the memory of a device: ``least`` of them."""

    def __init__(self, least: int = 1) -> None:
        self.least = least
        super().__init__(least)


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error says that memory could not be had, and nothing else went wrong."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError | OutOfMemory):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in SAID)


def fitted(
    attempt: Callable[[int], Made],
    rows: int,
    device: torch.device,
    least: int = 1,
    undo: Callable[[], None] = lambda: None,
) -> tuple[Made, int]:
    """Do work with as many rows at once as fit into memory.

    Args:
        attempt: does all of it, so many rows at once; is called anew with half as many where memory did not suffice.
        rows: to begin with.
        device: whose memory it is.
        least: with fewer it is not tried.
        undo: takes back what an attempt that failed may have done.

    Returns:
        What the attempt gave, and the rows at once.

    Raises:
        OutOfMemory: not even ``least`` rows fit.
    """
    while True:
        try:
            return attempt(rows), rows
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        # Out here the error is gone, and with it the frames that held the attempt's tensors.
        undo()
        release(device)
        if rows <= least:
            raise OutOfMemory(least)
        rows = max(least, rows // 2)


def release(device: torch.device) -> None:
    """Give memory back that nothing uses any more, so that larger or smaller pieces can be made of it."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def no_room(network: str, size: int, precision: str, device: torch.device, least: int = 1) -> UserError:
    """Return the mistake of asking a device for more than it can do.

    Args:
        network: what does not fit.
        size: of its images, in pixels.
        precision: of its forward passes.
        device: whose memory does not suffice.
        least: the fewest images that it takes at once.
    """
    images = "one image" if least == 1 else f"{least} images"
    settings = [*["precision: bfloat16"] * (precision == "float32"), *["device: cpu"] * (device.type != "cpu")]
    return UserError(
        f"the memory of {device} is too small for {network} with {images} of {size} pixels at a time, in {precision}",
        f"a network that fits with {images} at a time",
        ", or ".join(
            ["set a smaller image_size or another backbone, train fewer stages", *(f"set {one}" for one in settings)]
        ),
    )
