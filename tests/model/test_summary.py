"""Shapes, parameters and FLOPs of stages and heads."""

import torch

from unfreeze.config.schema import HeadConfig
from unfreeze.model.backbone import load_backbone
from unfreeze.model.summary import HeadInfo, StageInfo, describe, describe_head
from unfreeze.train.heads import build_head


def test_vgg16_by_arithmetic() -> None:
    size = 64
    vgg = load_backbone("vgg16", "none", size, seed=0)
    expected, channels = [], 3
    for number, (width, layers) in enumerate([(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)], start=1):
        inputs = [channels, *[width] * (layers - 1)]
        side = size // 2 ** (number - 1)
        params = sum(9 * before * width + width for before in inputs)
        flops = sum(2 * 9 * before * width * side**2 for before in inputs)
        expected.append(
            StageInfo(f"block{number}", (width, side // 2, side // 2), params, flops, 4 * params + 2 * layers * 120)
        )
        channels = width

    assert describe(vgg) == expected
    head = build_head(HeadConfig(pool="flatten", hidden=(32,), dropout=(0.5,)), vgg, classes=3, seed=0)
    assert describe_head(head, vgg) == HeadInfo(
        ["Flatten", "Linear 2048 to 32", "ReLU", "Dropout 0.5", "Linear 32 to 3"],
        2048 * 32 + 32 + 32 * 3 + 3,
        2 * (2048 * 32 + 32 * 3),
    )


def test_attention_is_counted() -> None:
    vit = load_backbone("test_vit", "none", 64, seed=0)
    length, width = vit.stages[1].output_shape
    hidden = vit.model.blocks[0].mlp.fc1.out_features
    products = length * width * 3 * width + 2 * length * length * width + length * width * width
    products += 2 * length * width * hidden

    assert describe(vit)[1].flops == 2 * products


def test_describing_changes_nothing() -> None:
    vit = load_backbone("test_vit3", "none", 64, seed=0)  # its attention pooling has parameters of its own
    before = {name: tensor.clone() for name, tensor in vit.model.state_dict().items()}
    vit.model.train()
    describe(vit)

    assert all(module.training for module in vit.model.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in vit.model.state_dict().items())
    assert all(parameter.requires_grad for parameter in vit.model.parameters())


def test_descriptions_of_heads() -> None:
    resnet, vit, convnext = (
        load_backbone(name, "none", 64, 0) for name in ("test_resnet", "test_vit", "test_convnext")
    )

    assert describe_head(build_head("linear", resnet, 3, 0), resnet).layers == ["Pool (avg)", "Linear 96 to 3"]
    assert describe_head(build_head("linear", vit, 3, 0), vit).layers == ["Pool (token)", "Linear 64 to 3"]
    assert describe_head(build_head("linear", convnext, 3, 0), convnext).layers == ["Linear 64 to 3"]
