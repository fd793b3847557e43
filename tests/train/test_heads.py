"""Heads: layers, initial weights, poolings."""

import math

import pytest
import torch
from torch import nn

from unfreeze.config.schema import HeadConfig
from unfreeze.errors import UserError
from unfreeze.model.backbone import Backbone, load_backbone
from unfreeze.train.heads import build_head


@pytest.fixture(scope="module")
def vgg() -> Backbone:
    return load_backbone("vgg16", "none", 64, seed=0)


def shapes(head: nn.Sequential) -> list[tuple[int, int]]:
    return [(layer.in_features, layer.out_features) for layer in head if isinstance(layer, nn.Linear)]


def test_the_articles_head(vgg: Backbone) -> None:
    head = build_head(HeadConfig(pool="flatten", hidden=(32, 16), dropout=(0.5, 0.0)), vgg, classes=3, seed=0)

    assert [name for name, _ in head.named_children()] == "pool fc1 relu1 dropout1 fc2 relu2 out".split()
    assert shapes(head) == [(512 * 2 * 2, 32), (32, 16), (16, 3)]
    assert head.dropout1.p == 0.5


def test_native_is_keras_vgg16_without_dropout(vgg: Backbone) -> None:
    head = build_head("native", vgg, classes=3, seed=0)

    assert [name for name, _ in head.named_children()] == "pool fc1 relu1 fc2 relu2 out".split()
    assert shapes(head) == [(2048, 4096), (4096, 4096), (4096, 3)]


def test_native_of_others_is_linear() -> None:
    resnet = load_backbone("test_resnet", "none", 64, seed=0)
    assert shapes(build_head("native", resnet, 3, 0)) == shapes(build_head("linear", resnet, 3, 0)) == [(96, 3)]


def test_weights_are_glorot_uniform_biases_zero_and_drawn_under_the_seed(vgg: Backbone) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    config = HeadConfig(hidden=(1000,))
    first, again, other = (build_head(config, vgg, 3, seed) for seed in (1, 1, 2))

    assert torch.equal(torch.rand(3), expected), "the global generator was used"
    bound = math.sqrt(6 / (512 + 1000))
    assert 0.999 * bound < first.fc1.weight.detach().abs().max() <= bound
    assert first.fc1.weight.detach().std() == pytest.approx(bound / math.sqrt(3), rel=0.01)
    assert not first.fc1.bias.any() and not first.out.bias.any()
    assert torch.equal(first.fc1.weight, again.fc1.weight) and torch.equal(first.out.weight, again.out.weight)
    assert not torch.equal(first.fc1.weight, other.fc1.weight)


def test_a_head_of_one_layer_starts_at_zero() -> None:
    resnet = load_backbone("test_resnet", "none", 64, seed=0)
    assert not any(parameter.any() for parameter in build_head("linear", resnet, 3, 0).parameters())


@pytest.mark.parametrize(
    ("name", "axes"),
    [("test_resnet", (2, 3)), ("swin_tiny_patch4_window7_224", (1, 2)), ("test_vit", 1)],
)
def test_poolings_of_every_layout(name: str, axes: tuple[int, ...] | int) -> None:
    backbone = load_backbone(name, "none", 64, seed=0)
    x = torch.randn(2, *backbone.stages[-1].output_shape)
    patches = x[:, 1:] if backbone.layout == "NLC" else x  # without the class token

    heads = {pool: build_head(HeadConfig(pool=pool), backbone, 3, 0) for pool in ("own", "avg", "max", "flatten")}
    torch.testing.assert_close(heads["avg"].pool(x), patches.mean(axes))
    torch.testing.assert_close(heads["max"].pool(x), patches.amax(axes))
    torch.testing.assert_close(heads["flatten"].pool(x), x.flatten(1))
    torch.testing.assert_close(heads["own"].pool(x), x[:, 0] if backbone.layout == "NLC" else patches.mean(axes))
    for head in heads.values():
        assert head(x).shape == (2, 3)


def test_another_pooling_of_a_backbone_that_pools_is_refused() -> None:
    convnext = load_backbone("test_convnext", "none", 64, seed=0)
    for pool in ("own", "flatten"):
        assert shapes(build_head(HeadConfig(pool=pool), convnext, 3, 0)) == [(64, 3)]
    with pytest.raises(UserError) as caught:
        build_head(HeadConfig(pool="max"), convnext, 3, 0)
    assert str(caught.value) == (
        "head: pool: max for test_convnext\n"
        "  expected: pool: own, since its last stage already pools (its last norm or convolution comes after the "
        "pooling)\n"
        "  fix:      say pool: own in the head, or leave it out"
    )
