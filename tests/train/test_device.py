"""Choice of device and precision, and torch's settings."""

import os

import pytest
import torch

from unfreeze.errors import UserError
from unfreeze.train.device import Compute, pick


def test_auto_takes_what_is_there() -> None:
    expected = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    assert pick("auto", "float32").device.type == expected


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_a_device_that_is_not_there_is_refused() -> None:
    there = "mps, cpu" if torch.backends.mps.is_available() else "cpu"
    with pytest.raises(UserError) as caught:
        pick("cuda", "float32")
    assert str(caught.value) == (
        "device: cuda is not available here\n"
        f"  expected: one of auto, {there}\n"
        "  fix:      set device: auto, or install the build of torch for that device"
    )


def test_cuda_sums_in_one_fixed_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    strict, filled = torch.are_deterministic_algorithms_enabled(), torch.utils.deterministic.fill_uninitialized_memory
    try:
        assert pick("cuda", "float32").device.type == "cuda"
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.is_deterministic_algorithms_warn_only_enabled()
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
        assert not torch.backends.cuda.matmul.allow_tf32 and not torch.backends.cudnn.allow_tf32
    finally:
        torch.use_deterministic_algorithms(strict)
        torch.utils.deterministic.fill_uninitialized_memory = filled  # type: ignore[attr-defined]


def test_images_move_in_channels_last_order_and_activations_as_they_are() -> None:
    compute = Compute(torch.device("cpu"), "float32")
    assert compute.move(torch.zeros(2, 3, 4, 4)).is_contiguous(memory_format=torch.channels_last)
    assert compute.move(torch.zeros(2, 7, 5)).is_contiguous()
