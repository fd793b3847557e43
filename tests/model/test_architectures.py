"""Every family: cuts are exact, every tensor is in a stage, frozen stages never change."""

import pytest
import torch

from tests.support.architectures import ARCHITECTURES
from unfreeze.model.backbone import Backbone, load_backbone
from unfreeze.model.network import (
    Frozen,
    Network,
    Trained,
    build_network,
    frozen_state,
    load_trained_state,
    tensor_names,
    tensors_hash,
    trained_state,
)
from unfreeze.train.heads import build_head

SOME = ("test_resnet", "test_convnext", "test_vit")
"""One of each kind: BatchNorm, LayerNorm with convolutions, and attention."""


@pytest.fixture(scope="module", params=ARCHITECTURES)
def every_backbone(request: pytest.FixtureRequest) -> Backbone:
    return load_backbone(request.param, "none", ARCHITECTURES[request.param], seed=0)


@pytest.fixture(
    scope="module",
    params=[name if name in SOME else pytest.param(name, marks=pytest.mark.slow) for name in ARCHITECTURES],
)
def backbone(request: pytest.FixtureRequest) -> Backbone:
    return load_backbone(request.param, "none", ARCHITECTURES[request.param], seed=0)


def images(backbone: Backbone, count: int) -> torch.Tensor:
    size = backbone.image_size
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1))


def test_prefix_and_suffix_equal_the_whole_at_every_cut_bit_for_bit(every_backbone: Backbone) -> None:
    backbone = every_backbone
    x = images(backbone, 2)
    given = x.clone()
    stages = [stage.module for stage in backbone.stages]
    with torch.no_grad():
        whole = backbone.model.eval().forward_head(backbone.model.forward_features(x), pre_logits=True)
        activations = x
        for cut in range(len(stages) + 1):
            network = build_network(backbone, backbone.pool, cut, "frozen").eval()
            activations = activations if cut == 0 else stages[cut - 1](activations)
            kept = activations.clone()
            assert torch.equal(network.prefix(x), activations)
            assert torch.equal(network.head(network.suffix(activations)), whole)
            assert torch.equal(activations, kept), "a stage changed its input, which may be a cached activation"
            if cut:
                assert backbone.stages[cut - 1].output_shape == tuple(activations.shape[1:])
    assert torch.equal(x, given)
    assert whole.shape == (2, backbone.features)


def test_every_parameter_and_buffer_is_in_exactly_one_stage(backbone: Backbone) -> None:
    owned = [name for stage in backbone.stages for name in stage.tensors]
    tensors = dict([*backbone.model.named_parameters(), *backbone.model.named_buffers()])

    assert sorted(owned) == sorted(tensors)
    for stage in backbone.stages:
        own = [*stage.module.parameters(), *stage.module.buffers()]
        assert [id(tensors[name]) for name in stage.tensors] == [id(tensor) for tensor in own]


def test_training_leaves_the_frozen_parameters_and_buffers_untouched(backbone: Backbone) -> None:
    cut = len(backbone.stages) // 2
    head = build_head("linear", backbone, classes=3, seed=0)
    torch.nn.init.ones_(head.out.weight[:1])  # it starts at zero, through which no gradient comes
    network = build_network(backbone, head, cut, "train").train()
    frozen, trained = tensors_hash(frozen_state(backbone, cut)), trained_state(network, backbone)
    # All of them, with momentum and weight decay: what must not move has to be safe from a careless optimiser too.
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    torch.nn.functional.cross_entropy(network(images(backbone, 2)), torch.tensor([0, 1])).backward()
    optimizer.step()

    assert tensors_hash(frozen_state(backbone, cut)) == frozen
    after = trained_state(network, backbone)
    assert all(not torch.equal(after[name], trained[name]) for name in ("head.out.weight", "head.out.bias"))
    moved = [name for name in trained if not torch.equal(after[name], trained[name])]
    names = {name for stage in backbone.stages[cut:] for name in stage.tensors}
    assert set(moved) & names
    assert set(trained) - {"head.out.weight", "head.out.bias"} == names & backbone.model.state_dict().keys()

    load_trained_state(network, backbone, trained)
    assert tensors_hash(trained_state(network, backbone)) == tensors_hash(trained)


def test_each_trained_tensor_has_one_name_of_its_own(backbone: Backbone) -> None:
    network = build_network(backbone, build_head("linear", backbone, 3, 0), 0, "frozen")
    names = tensor_names(backbone, network)

    assert set(names) == {name for name in network.state_dict() if not name.startswith("prefix.")}
    assert len(set(names.values())) == len(names)


def test_the_prefix_never_leaves_inference_mode(backbone: Backbone) -> None:
    stages = [stage.module for stage in backbone.stages]
    prefix = Frozen(stages)
    x = images(backbone, 2)
    expected = prefix(x)
    Network(prefix, Trained([], []), torch.nn.Identity()).train()
    assert not any(module.training for module in prefix.modules())
    prefix.train(True)
    assert not any(module.training for module in prefix.modules())
    backbone.model.train()  # shares the stages' modules

    assert torch.equal(prefix(x), expected)
    assert not any(module.training for module in prefix.modules())
    assert not prefix(x.requires_grad_()).requires_grad
