import numpy as np
import pytest
import torch
from torch import nn

from tests.support.architectures import TINY
from unfreeze.config.schema import HeadConfig
from unfreeze.explain.gradcam import FeatureMap, NoFeatureMap, find_feature_map, grad_cam
from unfreeze.model.backbone import Backbone, load_backbone
from unfreeze.train.heads import build_head

CLASSES = 3


def made(name: str, size: int, head: HeadConfig | str = "linear") -> tuple[Backbone, nn.Module, torch.Tensor]:
    backbone = load_backbone(name, "none", size, seed=0)
    classifier = build_head(head, backbone, CLASSES, seed=0)
    nn.init.normal_(classifier.out.weight, generator=torch.Generator().manual_seed(1))  # a linear head starts at zero
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(2))
    return backbone, classifier.eval(), images


def through(backbone: Backbone, images: torch.Tensor, stages: int) -> torch.Tensor:
    with torch.no_grad():
        for stage in backbone.stages[:stages]:
            images = stage.module(images)
    return images


def normalised(cams: torch.Tensor) -> np.ndarray:
    cams = cams.relu()
    return (cams / cams.amax((1, 2), keepdim=True).clamp_min(1e-12)).numpy()


@pytest.mark.parametrize(("name", "size"), [("test_resnet", 128), ("swin_tiny_patch4_window7_224", 128)])
def test_under_average_pooling_it_is_the_class_activation_map(name: str, size: int) -> None:
    """Grad-CAM generalises CAM: behind the pooling stands one layer, whose weights are the gradients (Selvaraju)."""
    backbone, head, images = made(name, size)
    place = find_feature_map(backbone, images)
    assert (place.stage, place.side) == (backbone.stages[-1].name, 4)
    features = through(backbone, images, len(backbone.stages))
    if backbone.layout == "NHWC":
        features = features.permute(0, 3, 1, 2)
    targets = torch.tensor([0, 2])
    expected = torch.einsum("nchw,nc->nhw", features, head.out.weight.detach()[targets])
    np.testing.assert_allclose(grad_cam(backbone, head, place, images, targets), normalised(expected), atol=1e-4)


def test_a_vit_is_looked_at_before_its_last_block_by_its_patch_tokens() -> None:
    backbone, head, images = made("test_vit", 64)
    place = find_feature_map(backbone, images)
    assert (place.stage, place.side) == (backbone.stages[-2].name, 4)
    targets = torch.tensor([1, 0])
    tokens = through(backbone, images, len(backbone.stages) - 1).requires_grad_()
    logits = head(backbone.stages[-1].module(tokens))
    (gradients,) = torch.autograd.grad(logits[torch.arange(2), targets].sum(), tokens)
    patches, slopes = tokens.detach()[:, 1:], gradients[:, 1:]
    expected = (patches * slopes.mean(dim=1, keepdim=True)).sum(dim=2).reshape(2, 4, 4)
    found = grad_cam(backbone, head, place, images, targets)
    np.testing.assert_allclose(found, normalised(expected), atol=1e-4)
    assert found.max() == 1


@pytest.mark.parametrize(("name", "size"), TINY.items())
def test_every_family_has_a_place_to_look_at(name: str, size: int) -> None:
    backbone, head, images = made(name, size)
    place = find_feature_map(backbone, images)
    cams = grad_cam(backbone, head, place, images, torch.tensor([0, 1]))
    assert cams.shape == (2, place.side, place.side)
    assert cams.dtype == np.float32
    assert np.isfinite(cams).all() and cams.min() >= 0 and cams.max() <= 1
    assert 4 <= place.side <= size // 4


def test_where_the_last_maps_are_small_an_earlier_one_is_taken() -> None:
    backbone, _, images = made("test_resnet", 32)  # its stages give maps of 8, 4, 2 and 1 position a side
    assert find_feature_map(backbone, images) == FeatureMap(3, "layer2", 4)


def test_a_head_that_works_in_place_does_no_harm() -> None:
    backbone, head, images = made("test_resnet", 128, HeadConfig(pool="flatten", hidden=(8,), dropout=(0.5,)))
    before = through(backbone, images, len(backbone.stages))
    place = find_feature_map(backbone, images)
    first = grad_cam(backbone, head, place, images, torch.tensor([0, 1]))
    np.testing.assert_array_equal(grad_cam(backbone, head, place, images, torch.tensor([0, 1])), first)
    torch.testing.assert_close(through(backbone, images, len(backbone.stages)), before)


def test_a_network_of_one_patch_has_no_place() -> None:
    backbone, _, images = made("test_vit", 16)
    with pytest.raises(NoFeatureMap, match="^test_vit has no feature map of more than one position$"):
        find_feature_map(backbone, images)
