"""Networks divided at a cut: frozen stages, BatchNorm, gradients, and the trained state."""

import pytest
import torch
from torch import nn

from unfreeze.config.schema import HeadConfig, LastStages
from unfreeze.errors import UserError
from unfreeze.model.backbone import Backbone, load_backbone
from unfreeze.model.network import (
    build_network,
    frozen_stages,
    frozen_state,
    load_trained_state,
    tensor_names,
    tensors_hash,
    trained_state,
)
from unfreeze.model.summary import count_parameters
from unfreeze.train.heads import build_head


@pytest.fixture(scope="module")
def resnet() -> Backbone:
    return load_backbone("test_resnet", "none", 64, seed=0)


@pytest.mark.parametrize(
    ("train", "stages", "frozen"),
    [
        ("all", 5, 0),
        ("head", 5, 5),
        (LastStages(last=1), 5, 4),
        (LastStages(last=5), 5, 0),
        (LastStages(last=0.25), 5, 4),
        (LastStages(last=0.25), 8, 6),
        (LastStages(last=0.01), 5, 4),
        (LastStages(last=0.99), 5, 0),
    ],
)
def test_how_many_stages_are_frozen(train: LastStages, stages: int, frozen: int) -> None:
    assert frozen_stages(train, stages) == frozen


def test_a_cut_that_does_not_exist() -> None:
    with pytest.raises(UserError) as caught:
        frozen_stages(LastStages(last=6), 5, ["stem", "layer1", "layer2", "layer3", "layer4"])
    assert str(caught.value) == (
        "train: {last: 6}, but the backbone has 5 stages\n"
        "  expected: 1 to 5 stages (stem, layer1, layer2, layer3, layer4)\n"
        "  fix:      set train: {last: 5} or less, or train: all"
    )


@pytest.mark.parametrize(
    ("batch_norm", "fresh", "moves"),
    [("frozen", False, False), ("train", False, True), ("frozen", True, True), ("train", True, True)],
)
def test_batch_norm_of_trained_stages(resnet: Backbone, batch_norm: str, fresh: bool, moves: bool) -> None:
    network = build_network(
        resnet, build_head(HeadConfig(hidden=(8,)), resnet, 3, 0), 3, batch_norm, 0 if fresh else None
    ).train()
    norm = resnet.model.layer4[0].bn2  # closes the block: timm starts its scale at 0, and those before see no gradient
    before = norm.running_mean.clone()
    network(torch.randn(4, 3, 64, 64)).sum().backward()

    assert norm.training is moves
    assert torch.equal(norm.running_mean, before) is not moves
    assert norm.weight.grad is not None and norm.weight.grad.abs().sum() > 0
    network.zero_grad()
    assert not network.eval().suffix.training


def test_trained_stages_train_unless_they_are_set_to_inference(resnet: Backbone) -> None:
    suffix = build_network(resnet, build_head("linear", resnet, 3, 0), 3, "train").suffix
    assert suffix.training
    suffix.eval()
    assert suffix.train().training


def test_batch_norm_trains_only_in_the_stages_with_fresh_weights(resnet: Backbone) -> None:
    network = build_network(resnet, build_head("linear", resnet, 3, 0), 0, "frozen", fresh_from=4).train()
    kept = {name for name, module in network.suffix.stages.named_modules() if hasattr(module, "running_mean")}
    training = {name for name in kept if network.suffix.stages.get_submodule(name).training}
    assert training == {name for name in kept if name.startswith("4.")} != set()


def test_only_trained_parameters_take_gradients_whichever_network_came_before(resnet: Backbone) -> None:
    head = build_head("linear", resnet, 3, 0)
    for frozen in (0, 5, 2):
        network = build_network(resnet, head, frozen, "frozen")
        taking = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
        assert taking == {name for name, _ in network.named_parameters() if not name.startswith("prefix.")}
        network(torch.randn(2, 3, 64, 64)).sum().backward()
        assert all(parameter.grad is None for parameter in network.prefix.parameters())
        network.zero_grad()


def test_trained_state_has_timms_names_and_survives_another_memory_format(resnet: Backbone) -> None:
    network = build_network(resnet, build_head("linear", resnet, 3, 0), 4, "train")
    state = trained_state(network, resnet)
    expected = [name for name in resnet.model.state_dict() if name.startswith("layer4.")]

    assert list(state) == [*expected, "head.out.weight", "head.out.bias"]
    assert all(tensor.is_contiguous() and tensor.device.type == "cpu" for tensor in state.values())

    network.to(memory_format=torch.channels_last)
    with torch.no_grad():
        for tensor in network.suffix.parameters():
            tensor.mul_(2)
    assert tensors_hash(trained_state(network, resnet)) != tensors_hash(state)
    load_trained_state(network, resnet, state)
    assert tensors_hash(trained_state(network, resnet)) == tensors_hash(state)
    weight = resnet.model.layer4[0].conv2.weight
    assert weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous()
    network.to(memory_format=torch.contiguous_format)


def test_names_of_trained_tensors(resnet: Backbone) -> None:
    names = tensor_names(resnet, build_network(resnet, build_head("linear", resnet, 3, 0), 4, "train"))

    assert names["suffix.stages.0.0.conv1.weight"] == "layer4.0.conv1.weight"
    assert names["suffix.stages.0.0.bn1.running_mean"] == "layer4.0.bn1.running_mean"
    assert names["head.out.bias"] == "head.out.bias"


def test_state_of_another_network_is_refused(resnet: Backbone) -> None:
    head = build_head("linear", resnet, 3, 0)
    network = build_network(resnet, head, 5, "train")
    state = trained_state(build_network(resnet, head, 4, "train"), resnet)
    with pytest.raises(UserError) as caught:
        load_trained_state(network, resnet, state)

    layer4 = sum(name.startswith("layer4.") for name in resnet.model.state_dict())
    assert str(caught.value) == (
        f"trained tensors of a different network: {layer4} differ, first layer4.0.bn1.bias\n"
        "  expected: the 2 trained tensors of this network\n"
        "  fix:      load them into the strategy and backbone that they were saved from"
    )


def test_frozen_state_counts_every_buffer(resnet: Backbone) -> None:
    state = frozen_state(resnet, 2)

    assert "layer1.0.bn1.num_batches_tracked" in state
    assert list(state) == [*resnet.stages[0].tensors, *resnet.stages[1].tensors]
    before = tensors_hash(state)
    resnet.model.layer1[0].bn1.num_batches_tracked += 1
    assert tensors_hash(frozen_state(resnet, 2)) != before
    resnet.model.layer1[0].bn1.num_batches_tracked -= 1


def test_the_hash_sees_names_dtypes_shapes_and_bytes_but_no_order_or_memory_format() -> None:
    a, b = torch.arange(24.0).reshape(1, 2, 3, 4), torch.tensor(1)
    expected = tensors_hash({"a": a, "b": b})

    assert tensors_hash({"b": b, "a": a.to(memory_format=torch.channels_last)}) == expected
    others = [
        {"a": a, "c": b},
        {"a": a.double(), "b": b},
        {"a": a.reshape(2, 1, 3, 4), "b": b},
        {"a": a.index_fill(3, torch.tensor(0), -1.0), "b": b},
        {"a": a, "b": b, "c": torch.empty(0)},
    ]
    assert len({expected, *map(tensors_hash, others)}) == 6


def test_the_articles_three_models_have_its_parameters() -> None:
    # By Keras: model.summary() of VGG16(weights=None, classes=101) at 224 pixels says 134,674,341.
    vgg = load_backbone("vgg16", "none", 224, seed=0)
    native = build_head("native", vgg, classes=101, seed=0)
    scratch = build_network(vgg, native, frozen_stages("all", 5), "frozen", fresh_from=0)
    assert count_parameters(scratch) == 134_674_341
    assert all(parameter.requires_grad for parameter in scratch.parameters())
    assert not any(isinstance(module, nn.Dropout) for module in scratch.modules())
    del native, scratch

    for train, trained in (("head", 0), (LastStages(last=1), 7_079_424)):
        network = build_network(vgg, nn.Identity(), frozen_stages(train, 5), "frozen")
        assert count_parameters(network) == 14_714_688
        assert sum(p.numel() for p in network.parameters() if p.requires_grad) == trained
