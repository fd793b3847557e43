"""Out-of-memory errors, and halving the rows at once until they fit."""

import pytest
import torch

from unfreeze.errors import UserError
from unfreeze.model.memory import OutOfMemory, halve_until_fits, is_out_of_memory, memory_error

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
MPS = "MPS backend out of memory (MPS allocated: 8.89 GB, other allocations: 172.98 MB, max allowed: 9.07 GB)."


def refused_by_the_allocator() -> RuntimeError:
    with pytest.raises(RuntimeError) as caught:  # noqa: PT011, it is what the test looks at
        torch.empty(2**62, dtype=torch.uint8)
    return caught.value


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        torch.cuda.OutOfMemoryError("HIP out of memory."),
        MemoryError(),
        OutOfMemory(),
        RuntimeError(MPS),
        RuntimeError("[enforce fail at alloc_cpu.cpp:80] data. DefaultCPUAllocator: not enough memory: you tried"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        refused_by_the_allocator(),
    ],
    ids=repr,
)
def test_out_of_memory_errors(error: Exception) -> None:
    assert is_out_of_memory(error)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: device-side assert triggered"),
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        RuntimeError(
            "cuDNN error: CUDNN_STATUS_NOT_SUPPORTED. This error may appear if you passed in a non-contiguous"
        ),
        RuntimeError("mat1 and mat2 shapes cannot be multiplied (4x3 and 4x3)"),
        RuntimeError("out of memory"),
        ValueError("CUDA error: out of memory"),
        OSError(12, "Cannot allocate memory"),
        UserError("DefaultCPUAllocator: not enough memory"),
    ],
    ids=repr,
)
def test_other_errors_are_not_out_of_memory_errors(error: Exception) -> None:
    assert not is_out_of_memory(error)


class Device:
    """Has memory for so many rows; notes what it was asked for and what was undone."""

    def __init__(self, fits: int) -> None:
        self.fits, self.asked, self.undone = fits, list[int](), 0

    def attempt(self, rows: int) -> str:
        self.asked.append(rows)
        if rows > self.fits:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return f"{rows} at a time"

    def undo(self) -> None:
        self.undone += 1


@pytest.mark.parametrize(
    ("fits", "asked"), [(40, [32]), (31, [32, 16]), (7, [32, 16, 8, 4]), (1, [32, 16, 8, 4, 2, 1])]
)
def test_the_number_of_rows_is_halved_until_they_fit(fits: int, asked: list[int]) -> None:
    device = Device(fits)
    assert halve_until_fits(device.attempt, 32, CPU, undo=device.undo) == (f"{asked[-1]} at a time", asked[-1])
    assert device.asked == asked
    assert device.undone == len(asked) - 1


@pytest.mark.parametrize(("rows", "least", "asked"), [(5, 1, [5, 2, 1]), (5, 2, [5, 2]), (1, 1, [1])])
def test_fewer_rows_than_the_least_are_not_tried(rows: int, least: int, asked: list[int]) -> None:
    device = Device(0)
    with pytest.raises(OutOfMemory) as caught:
        halve_until_fits(device.attempt, rows, CPU, least)
    assert device.asked == asked
    assert caught.value.least == least
    assert caught.value.__context__ is None  # whose frames would hold the tensors of the last attempt


def test_other_errors_are_raised_at_once() -> None:
    def attempt(rows: int) -> None:
        device.asked.append(rows)
        raise RuntimeError("CUDA error: device-side assert triggered")

    device = Device(0)
    with pytest.raises(RuntimeError, match=r"^CUDA error: device-side assert triggered$"):
        halve_until_fits(attempt, 32, CPU, undo=device.undo)
    assert (device.asked, device.undone) == ([32], 0)


def test_message_for_a_network_that_does_not_fit() -> None:
    assert str(memory_error("vgg16", 224, "float32", CUDA)) == (
        "the memory of cuda is too small for vgg16 with one image of 224 pixels at a time, in float32\n"
        "  expected: a network that fits with one image at a time\n"
        "  fix:      set a smaller image_size or another backbone, train fewer stages, or set precision: bfloat16, "
        "or set device: cpu"
    )
    assert str(memory_error("frozen stages of vgg16", 224, "bfloat16", CPU, 2)) == (
        "the memory of cpu is too small for frozen stages of vgg16 with 2 images of 224 pixels at a time, in bfloat16\n"
        "  expected: a network that fits with 2 images at a time\n"
        "  fix:      set a smaller image_size or another backbone, train fewer stages"
    )
