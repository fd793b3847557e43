"""Large 3 x 3 convolutions by Winograd's way against PyTorch's, forward and backward (docs/defaults.md).

    python bench/convolutions.py

For each shape both in turn, seven times, on random float32 rows, channels-last, batch 32. Prints the median seconds of
each, and the rule that unfreeze follows: a shape that it leaves to PyTorch is marked.
"""

import statistics
import time
from collections.abc import Callable

from unfreeze.cli.tuning import tune_process

tune_process()

import torch  # noqa: E402
from torch import Tensor  # noqa: E402
from torch.nn.functional import conv2d  # noqa: E402

from unfreeze.model.winograd import _suits, convolve  # noqa: E402

SHAPES = (
    (512, 4),
    (512, 7),
    (512, 8),
    (512, 14),
    (256, 7),
    (256, 8),
    (256, 14),
    (256, 32),
    (128, 16),
    (128, 28),
    (64, 28),
)
"""Channels in and out, and pixels a side: of VGG's blocks and ResNets' stages at 128 and 224 pixels, and near them."""


def seconds(convolution: Callable[..., Tensor], x: Tensor, weight: Tensor, bias: Tensor, grad: Tensor) -> float:
    leaves = [tensor.detach().requires_grad_() for tensor in (x, weight, bias)]
    started = time.perf_counter()
    convolution(*leaves).backward(grad)
    return time.perf_counter() - started


def main() -> None:
    ways = {"PyTorch": lambda *tensors: conv2d(*tensors, padding=1), "Winograd": convolve}
    for channels, side in SHAPES:
        x, grad = (torch.randn(32, channels, side, side).to(memory_format=torch.channels_last) for _ in range(2))
        weight = torch.randn(channels, channels, 3, 3).to(memory_format=torch.channels_last) / (9 * channels) ** 0.5
        bias = torch.randn(channels)
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(7):
            for name, way in ways.items():
                times[name].append(seconds(way, x, weight, bias, grad))
        direct, ours = (statistics.median(found) * 1e3 for found in times.values())
        left = "" if _suits(x, weight, bias, 1, 1) else ", left to PyTorch"
        print(
            f"{channels} channels, {side} x {side}: PyTorch {direct:.0f} ms, Winograd {ours:.0f} ms, "
            f"{direct / ours:.2f} times as fast{left}"
        )


if __name__ == "__main__":
    main()
