import platform

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

from unfreeze.model import winograd
from unfreeze.model.winograd import Winograd, available, convolve
from unfreeze.train.device import Compute

CPU = torch.device("cpu")


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def with_gradients(convolution, *tensors: Tensor | None) -> list[Tensor]:
    """Return what a convolution gives, and the gradient of each of its tensors for a random gradient of its output."""
    leaves = [tensor if tensor is None else tensor.detach().requires_grad_() for tensor in tensors]
    y = convolution(*leaves)
    y.backward(drawn(*y.shape).to(y.dtype))
    return [y.detach(), *(leaf.grad for leaf in leaves if leaf is not None)]


def off(found: Tensor, exact: Tensor) -> float:
    return float((found - exact).norm() / exact.norm())


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("size", [(8, 8), (7, 7), (4, 4), (1, 1), (3, 10), (14, 5)])
@pytest.mark.parametrize("bias", [True, False])
def test_values_and_gradients_are_those_of_a_direct_convolution(
    layout: torch.memory_format, size: tuple[int, int], bias: bool
) -> None:
    x = drawn(3, 5, *size).to(memory_format=layout)
    weight = drawn(6, 5, 3, 3).to(memory_format=layout)
    tensors = (x, weight, drawn(6) if bias else None)
    exact = with_gradients(
        lambda *given: conv2d(*given, padding=1), *(tensor if tensor is None else tensor.double() for tensor in tensors)
    )
    found = with_gradients(convolve, *tensors)
    assert len(found) == len(exact) == 3 + bias
    for one, other in zip(found, exact, strict=True):
        assert one.shape == other.shape and off(one, other) < 1e-5
    assert found[0].is_contiguous(memory_format=torch.channels_last)


def test_rounding_stays_small_where_many_channels_are_summed() -> None:
    x, weight = drawn(8, 512, 8, 8), drawn(512, 512, 3, 3)
    exact = with_gradients(lambda *given: conv2d(*given, padding=1), x.double(), weight.double())
    assert all(off(one, other) < 1e-5 for one, other in zip(with_gradients(convolve, x, weight), exact, strict=True))


def test_only_gradients_that_somebody_uses_are_computed() -> None:
    x, weight = drawn(2, 4, 4, 4), drawn(4, 4, 3, 3).requires_grad_()
    convolve(x, weight).sum().backward()
    assert x.grad is None and weight.grad is not None
    alone = weight.grad
    x.requires_grad_()
    weight.grad = None
    convolve(x, weight).sum().backward()
    assert torch.equal(alone, weight.grad)
    frozen = weight.detach()
    with_frozen = convolve(x.detach().requires_grad_(), frozen)
    with_frozen.sum().backward()
    assert frozen.grad is None


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes of inputs that were convolved so."""
    shapes: list[tuple[int, ...]] = []

    def noted(x: Tensor, *rest: Tensor | None) -> Tensor:
        shapes.append(tuple(x.shape))
        return convolve(x, *rest)

    monkeypatch.setattr(winograd, "convolve", noted)
    return shapes


def layer(width: int = 256, out: int = 256, kernel: int = 3, padding: int | str = 1, **options) -> nn.Conv2d:
    return nn.Conv2d(width, out, kernel, padding=padding, **options)


@pytest.mark.parametrize("bias", [True, False])
def test_a_large_layer_is_computed_so(taken: list[tuple[int, ...]], bias: bool) -> None:
    one, x = layer(bias=bias), drawn(8, 256, 8, 8)
    with Winograd():
        y = one(x)
    assert taken == [(8, 256, 8, 8)]
    assert off(y.detach(), one(x).detach()) < 1e-5 and len(taken) == 1


def test_what_follows_may_change_the_output_in_place(taken: list[tuple[int, ...]]) -> None:
    one, x, grad = layer(), drawn(8, 256, 8, 8), drawn(8, 256, 8, 8)
    with Winograd():  # both: where the output is nearly 0, another way of computing it may have another sign
        nn.Sequential(one, nn.ReLU()).forward(x).backward(grad)
        expected = one.weight.grad
        one.weight.grad = None
        nn.Sequential(one, nn.ReLU(inplace=True)).forward(x).backward(grad)
    assert len(taken) == 2 and off(one.weight.grad, expected) < 1e-5


@pytest.mark.parametrize(
    ("one", "shape"),
    [
        (layer(128), (8, 128, 8, 8)),
        (layer(256, 128), (8, 256, 8, 8)),
        (layer(), (7, 256, 8, 8)),
        (layer(stride=2), (8, 256, 16, 16)),
        (layer(padding=0), (8, 256, 16, 16)),
        (layer(padding="same"), (8, 256, 8, 8)),
        (layer(kernel=1, padding=0), (8, 256, 8, 8)),
        (layer(kernel=5, padding=2), (8, 256, 8, 8)),
        (layer(padding=2, dilation=2), (8, 256, 8, 8)),
        (layer(512, 512, groups=2), (8, 512, 8, 8)),
        (layer(dtype=torch.bfloat16), (8, 256, 8, 8)),
        (layer(dtype=torch.float64), (8, 256, 8, 8)),
    ],
    ids=["narrow", "narrow out", "few", "stride", "bare", "same", "1x1", "5x5", "dilated", "grouped", "bf16", "f64"],
)  # fmt: skip
def test_other_layers_are_left_to_pytorch(taken: list[tuple[int, ...]], one: nn.Conv2d, shape: tuple[int, ...]) -> None:
    x = drawn(*shape).to(one.weight.dtype)
    with Winograd():
        y = one(x)
    assert torch.equal(y, one(x)) and taken == []


def test_an_image_without_a_batch_is_left_to_pytorch(taken: list[tuple[int, ...]]) -> None:
    one, x = layer(), drawn(256, 32, 32)
    with Winograd():
        assert one(x).shape == x.shape
    assert taken == []


def test_training_takes_it_on_x86_processors_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for machine, there in (("x86_64", True), ("AMD64", True), ("arm64", False), ("aarch64", False)):
        monkeypatch.setattr(platform, "machine", lambda machine=machine: machine)
        assert available(CPU) is there
        assert isinstance(Compute(CPU, "float32").forward_pass(), Winograd) is there
        assert not isinstance(Compute(CPU, "bfloat16").forward_pass(), Winograd)
    assert not available(torch.device("cuda"))


def test_filters_that_stay_are_transformed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: dict[int, Tensor] = {}
    made, filters = [], winograd._filters
    monkeypatch.setattr(winograd, "_filters", lambda weight: made.append(weight) or filters(weight))
    first, second, x = layer(), layer(), drawn(8, 256, 8, 8)
    with torch.no_grad():
        with Winograd():
            expected = second(first(x))
        for _ in range(2):
            with Winograd(kept):
                assert torch.equal(second(first(x)), expected)
    assert [id(weight) for weight in made[2:]] == list(kept) == [id(first.weight), id(second.weight)]


def test_two_passes_give_the_same_bits() -> None:
    x, weight, bias = drawn(32, 256, 8, 8), drawn(256, 256, 3, 3), drawn(256)
    first, second = with_gradients(convolve, x, weight, bias), with_gradients(convolve, x, weight, bias)
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))
