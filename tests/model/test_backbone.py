"""Loading backbones: stages, weights drawn from the seed, and messages."""

import pytest
import torch

from unfreeze.errors import UserError
from unfreeze.model import backbone as backbone_module
from unfreeze.model.adapters import ADAPTERS, Adapter, Anatomy
from unfreeze.model.backbone import load_backbone, reinitialise

EXAMPLES = (
    "vgg16, resnet50, tf_efficientnet_lite0, mobilenetv3_large_100, convnext_tiny, regnety_008, "
    "vit_small_patch16_224, swin_tiny_patch4_window7_224"
)
FAMILIES = "VGG, ResNet, EfficientNet, MobileNetV3, ConvNeXt, RegNet, ByobNet, ViT, Swin"


def message(name: str, size: int = 64, weights: str = "none") -> str:
    with pytest.raises(UserError) as caught:
        load_backbone(name, weights, size, seed=0)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "size", "stages"),
    [
        ("vgg16", 32, "block1 block2 block3 block4 block5"),
        ("test_resnet", 64, "stem layer1 layer2 layer3 layer4"),
        ("tf_efficientnet_lite0", 64, "stem stage1 stage2 stage3 stage4 stage5 stage6 stage7"),
        ("mobilenetv3_large_100", 64, "stem stage1 stage2 stage3 stage4 stage5 stage6 stage7"),
        ("test_convnext", 64, "stem stage1 stage2 stage3 stage4"),
        ("regnety_008", 64, "stem stage1 stage2 stage3 stage4"),
        ("test_vit", 64, "embed block1 block2 block3 block4 block5 block6"),
        ("swin_tiny_patch4_window7_224", 32, "embed stage1 stage2 stage3 stage4"),
    ],
)
def test_stages_have_the_usual_names(name: str, size: int, stages: str) -> None:
    assert " ".join(stage.name for stage in load_backbone(name, "none", size, 0).stages) == stages


def test_vgg_stages_are_its_blocks_each_closed_by_its_pooling() -> None:
    vgg = load_backbone("vgg16", "none", 64, 0)

    assert [stage.output_shape for stage in vgg.stages] == [
        (64, 32, 32),
        (128, 16, 16),
        (256, 8, 8),
        (512, 4, 4),
        (512, 2, 2),
    ]
    assert vgg.stages[4].tensors == tuple(f"features.{n}.{kind}" for n in (24, 26, 28) for kind in ("weight", "bias"))
    assert (vgg.features, vgg.layout, vgg.image_size, vgg.name) == (512, "NCHW", 64, "vgg16")


def test_weights_are_drawn_under_the_seed_and_leave_the_global_generator_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, again, other = (load_backbone("test_resnet", "none", 64, seed).model.state_dict() for seed in (1, 1, 2))

    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["conv1.0.weight"], other["conv1.0.weight"])


def test_reinitialise_gives_the_last_stages_the_weights_of_scratch() -> None:
    changed = load_backbone("test_resnet", "none", 64, seed=1)
    before = {name: tensor.clone() for name, tensor in changed.model.state_dict().items()}
    scratch = load_backbone("test_resnet", "none", 64, seed=2).model.state_dict()
    with torch.no_grad():
        changed.model.layer4[0].bn1.running_mean += 1
    reinitialise(changed, first_stage=3, seed=2)

    for name, tensor in changed.model.state_dict().items():
        expected = scratch if name.startswith(("layer3", "layer4")) else before
        assert torch.equal(tensor, expected[name]), name


def test_an_unknown_name_gets_the_most_similar_names() -> None:
    assert message("vgg17") == (
        "backbone: timm has no model vgg17\n"
        f"  expected: a timm model, for example {EXAMPLES}\n"
        "  fix:      set backbone: vgg19 (or vgg16, vgg13)"
    )
    assert message("qqqzzz") == (
        "backbone: timm has no model qqqzzz\n"
        f"  expected: a timm model, for example {EXAMPLES}\n"
        "  fix:      set for example backbone: resnet50"
    )


def test_an_unknown_tag_gets_the_existing_tags() -> None:
    assert message("vgg16.best") == (
        "backbone: vgg16 has no weights tagged best\n"
        "  expected: one of tv_in1k\n"
        "  fix:      set backbone: vgg16.tv_in1k"
    )


def test_a_model_without_adapter_gets_the_supported_families() -> None:
    assert message("test_mambaout") == (
        "backbone: test_mambaout cannot be divided into stages (timm's class MambaOut is not supported)\n"
        f"  expected: a timm model of one of the families {FAMILIES}, for example {EXAMPLES}\n"
        "  fix:      set for example backbone: resnet50"
    )


def test_uncovered_tensors_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    def forgetful(model: torch.nn.Module) -> Anatomy:
        anatomy = ADAPTERS[type(model)].cut(model)
        return Anatomy(anatomy.stages[1:], anatomy.pool, anatomy.layout)

    vit = type(load_backbone("test_vit", "none", 64, 0).model)
    monkeypatch.setattr(backbone_module, "ADAPTERS", {vit: Adapter("ViT", forgetful)})

    assert message("test_vit") == (
        "backbone: test_vit cannot be divided into stages (4 of its tensors are not in exactly one stage: cls_token, "
        "pos_embed, patch_embed.proj.weight, ...)\n"
        f"  expected: a timm model of one of the families ViT, for example {EXAMPLES}\n"
        "  fix:      set for example backbone: resnet50"
    )


def test_stages_that_compute_something_else_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def doubling(model: torch.nn.Module) -> Anatomy:
        anatomy = ADAPTERS[type(model)].cut(model)
        return Anatomy((*anatomy.stages, ("more", torch.nn.Hardtanh(0, 0.001))), anatomy.pool, anatomy.layout)

    resnet = type(load_backbone("test_resnet", "none", 64, 0).model)
    monkeypatch.setattr(backbone_module, "ADAPTERS", {resnet: Adapter("ResNet", doubling)})

    assert message("test_resnet") == (
        "backbone: test_resnet cannot be divided into stages (the chain of its stages does not give the result of the "
        "whole model)\n"
        f"  expected: a timm model of one of the families ResNet, for example {EXAMPLES}\n"
        "  fix:      set for example backbone: resnet50"
    )


def test_unsupported_input_sizes() -> None:
    assert message("vgg16", 16) == (
        "image_size: 16 does not fit vgg16 (Given input size: (512x1x1). Calculated output size: (512x0x0). "
        "Output size is too small)\n"
        "  expected: a size that the backbone supports\n"
        "  fix:      choose another size, for example the default of vgg16: image_size: 224"
    )
    assert message("test_vit", 100) == (
        "image_size: 100 does not fit test_vit (its patches are 16 pixels wide)\n"
        "  expected: a multiple of 16\n"
        "  fix:      choose another size, for example the default of test_vit: image_size: 160"
    )
