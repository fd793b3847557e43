"""Winograd's minimal filtering for large convolutions on a processor: a quarter of the multiplications.

Lavin and Gray 2016, "Fast Algorithms for Convolutional Neural Networks" (arXiv:1509.09308), F(4 x 4, 3 x 3): input,
filter and output gradient go through small fixed matrices, between which there is one matrix product for each of 36
points. PyTorch's convolutions on x86 are direct ones, forward and backward (oneDNN has no other there for float32 since
version 3); on GPUs cuDNN does this by itself.
"""

import platform
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn.functional import pad
from torch.overrides import TorchFunctionMode

_OUT, _IN = 4, 6  # pixels a side of what a tile gives and of what it sees


def _both_ways(line: Sequence[Sequence[float]]) -> Tensor:
    """Return a transform of lines as one of squares, whose pixels it takes and gives as one axis."""
    exact = torch.tensor(line, dtype=torch.float64)
    return torch.kron(exact, exact).float()


_INPUT = _both_ways(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ]
)
_FILTER = _both_ways(
    [
        [1 / 4, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ]
)
_OUTPUT = _both_ways([[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]])

RULES = 1
"""Counts up whenever results come to differ in a bit."""

_CHANNELS, _TILES = 256, 32
"""From so many channels on either side and tiles in a batch it takes less time (bench/convolutions.py)."""


class Winograd(TorchFunctionMode):
    """Within it, large 3 x 3 convolutions with stride and padding 1 on an x86 processor are computed so, in float32.

    Results differ from PyTorch's by rounding: 3e-6 of their norm, where PyTorch's own differ from exact ones by 1e-6.

    Args:
        kept: transformed filters of weights that stay as they are, by the weights' ``id``; None keeps none.
    """

    def __init__(self, kept: dict[int, Tensor] | None = None) -> None:
        super().__init__()
        self._kept = kept

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is torch.conv2d and len(args) > 1 and _suits(*args, **(kwargs or {})):
            return self._convolved(args[0], args[1], args[2] if len(args) > 2 else (kwargs or {}).get("bias"))
        return func(*args, **(kwargs or {}))

    def _convolved(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if self._kept is None:
            return convolve(x, weight, bias)
        if id(weight) not in self._kept:
            self._kept[id(weight)] = _filters(weight)
        return convolve(x, weight, bias, self._kept[id(weight)])


def available(device: torch.device) -> bool:
    """Tell whether it is known to pay: elsewhere PyTorch may have something as good, and nobody has measured."""
    return device.type == "cpu" and platform.machine().lower() in ("x86_64", "amd64")


def worth_trying(network: nn.Module) -> bool:
    """Tell whether a network has a convolution that may be large enough."""
    return any(
        isinstance(module, nn.Conv2d) and module.groups == 1 and module.stride == (1, 1) and _is_large(module.weight)
        for module in network.modules()
    )


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None = None, filters: Tensor | None = None) -> Tensor:
    """Convolve with stride and padding 1.

    Args:
        x: (n, c, h, w) float32, best channels-last.
        weight: (k, c, 3, 3) float32, best channels-last.
        bias: (k,) float32.
        filters: what ``_filters`` made of ``weight``, if it is there.

    Returns:
        (n, k, h, w) float32, channels-last.
    """
    found: Tensor = _Convolution.apply(x, weight, bias, _filters(weight) if filters is None else filters)
    return found


def _suits(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> bool:
    ones = (1, (1, 1), [1, 1])
    return (
        x.ndim == 4
        and stride in ones
        and padding in ones
        and dilation in ones
        and groups == 1
        and x.dtype == weight.dtype == torch.float32
        and _is_large(weight)
        and len(x) * _tiles(x.shape[2]) * _tiles(x.shape[3]) >= _TILES
    )


def _is_large(weight: Tensor) -> bool:
    return tuple(weight.shape[2:]) == (3, 3) and min(weight.shape[:2]) >= _CHANNELS


def _filters(weight: Tensor) -> Tensor:
    """Return a convolution's filters at the 36 points, (k, 36, c)."""
    return torch.matmul(_FILTER, weight.detach().permute(0, 2, 3, 1).reshape(len(weight), 9, -1))


def _tiles(pixels: int) -> int:
    return -(-pixels // _OUT)


class _Convolution(torch.autograd.Function):
    """The tiles of the input are made anew for the backward pass: kept, they would take more than twice its memory."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor, bias: Tensor | None, filters: Tensor) -> Tensor:
        n, _, h, w = x.shape
        points = torch.bmm(_seen(x), filters.permute(1, 2, 0))  # (36, tiles, k)
        tiles = (_OUTPUT @ points.view(_IN * _IN, -1)).view(_OUT, _OUT, n, _tiles(h), _tiles(w), -1)
        padded = tiles.permute(2, 3, 0, 4, 1, 5).reshape(n, _OUT * _tiles(h), _OUT * _tiles(w), -1)
        # Of its own and not a view, which what comes after could not change in place, as ReLUs do.
        y = torch.empty((n, len(weight), h, w), memory_format=torch.channels_last)
        rows = y.permute(0, 2, 3, 1)
        if bias is None:
            rows.copy_(padded[:, :h, :w])
        else:
            torch.add(padded[:, :h, :w], bias, out=rows)
        ctx.save_for_backward(x, filters)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, filters = ctx.saved_tensors
        (n, c, h, w), k = x.shape, len(filters)
        high, wide = _tiles(h), _tiles(w)
        padded = pad(grad.permute(0, 2, 3, 1), (0, 0, 0, _OUT * wide - w, 0, _OUT * high - h))
        tiles = padded.reshape(n, high, _OUT, wide, _OUT, k).permute(2, 4, 0, 1, 3, 5).reshape(_OUT * _OUT, -1)
        points = (_OUTPUT.T @ tiles).view(_IN * _IN, -1, k)
        for_x = for_weight = for_bias = None
        if ctx.needs_input_grad[0]:
            for_x = _unseen(torch.bmm(points, filters.permute(1, 0, 2)), n, h, w)
        if ctx.needs_input_grad[1]:
            products = torch.bmm(points.transpose(1, 2), _seen(x)).view(_IN * _IN, -1)
            for_weight = (_FILTER.T @ products).view(3, 3, k, c).permute(2, 3, 0, 1)
            for_weight = for_weight.contiguous(memory_format=torch.channels_last)
        if ctx.needs_input_grad[2]:
            for_bias = grad.sum((0, 2, 3))
        return for_x, for_weight, for_bias, None


def _seen(x: Tensor) -> Tensor:
    """Return an image's overlapping tiles at the 36 points, (36, tiles, c)."""
    h, w = x.shape[2:]
    padded = pad(x.permute(0, 2, 3, 1), (0, 0, 1, _OUT * _tiles(w) - w + 1, 1, _OUT * _tiles(h) - h + 1))
    tiles = padded.unfold(1, _IN, _OUT).unfold(2, _IN, _OUT)  # (n, high, wide, c, 6, 6), a view
    return (_INPUT @ tiles.permute(4, 5, 0, 1, 2, 3).reshape(_IN * _IN, -1)).view(_IN * _IN, -1, x.shape[1])


def _unseen(points: Tensor, n: int, h: int, w: int) -> Tensor:
    """Return the sum of overlapping tiles, of which the gradients at the 36 points are given: (n, c, h, w)."""
    high, wide, c = _tiles(h), _tiles(w), points.shape[2]
    tiles = (_INPUT.T @ points.view(_IN * _IN, -1)).view(_IN, _IN, n, high, wide, c)
    padded = points.new_zeros(n, _OUT * high + 2, _OUT * wide + 2, c)
    # Where tiles of one row of a tile's pixels do not meet: all tiles at once, pixel by pixel.
    for down in range(_IN):
        for right in range(_IN):
            there = padded[:, down : down + _OUT * high - 3 : _OUT, right : right + _OUT * wide - 3 : _OUT]
            there += tiles[down, right]
    return padded[:, 1 : h + 1, 1 : w + 1].contiguous().permute(0, 3, 1, 2)
