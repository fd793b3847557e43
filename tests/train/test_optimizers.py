"""Learning rates by step, groups by depth and decay, and what each optimiser is given."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from unfreeze.config.resolve import Optimizer
from unfreeze.config.schema import ScheduleConfig
from unfreeze.train.optimizers import build_optimizer, learning_rate, parameter_groups, set_learning_rate


def asked(name: str = "adamw", weight_decay: float = 0.1, layer_decay: float = 1.0) -> Optimizer:
    return Optimizer(name=name, lr=0.5, momentum=0.9, weight_decay=weight_decay, layer_decay=layer_decay)


def rates(name: str, warmup: float, steps: int) -> list[float]:
    schedule = ScheduleConfig.model_validate({"name": name, "warmup": warmup})
    return [learning_rate(schedule, 1.0, step, steps) for step in range(steps)]


def test_constant() -> None:
    assert rates("constant", 0.0, 3) == [1.0, 1.0, 1.0]
    assert rates("constant", 0.4, 5) == [0.5, 1.0, 1.0, 1.0, 1.0]


def test_cosine_falls_from_the_peak_towards_zero_after_a_linear_warm_up() -> None:
    assert rates("cosine", 0.0, 4) == pytest.approx([1.0, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2])
    assert rates("cosine", 0.5, 8) == pytest.approx([0.25, 0.5, 0.75, 1.0, *rates("cosine", 0.0, 4)])
    schedule = ScheduleConfig(warmup=0.0)
    assert learning_rate(schedule, 1.0, 4, 4) == pytest.approx(0.0)


def test_a_single_step_is_taken_at_the_peak() -> None:
    for name in ("constant", "cosine"):
        for warmup in (0.0, 0.05, 0.9):
            assert rates(name, warmup, 1) == [1.0]


@settings(deadline=None)
@given(st.sampled_from(["constant", "cosine"]), st.floats(0, 0.99), st.integers(1, 300))
def test_a_rate_is_never_zero_nor_above_the_peak_and_rises_then_falls(name: str, warmup: float, steps: int) -> None:
    course = rates(name, warmup, steps)
    top = course.index(max(course))
    assert all(0 < rate <= 1 for rate in course)
    assert course[: top + 1] == sorted(course[: top + 1])
    assert course[top:] == sorted(course[top:], reverse=True)
    assert max(course) == 1.0


def layers() -> list[nn.Module]:
    """Two stages with weights, norms and biases, and a head."""
    return [
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)),
        nn.Sequential(nn.Conv2d(4, 4, 3, bias=False), nn.GroupNorm(2, 4)),
        nn.Sequential(nn.Flatten(), nn.Linear(4, 2)),
    ]


def test_weight_decay_spares_norms_and_biases() -> None:
    stack = layers()
    decayed = [
        parameter
        for group in parameter_groups(stack, asked())
        if group["weight_decay"]
        for parameter in group["params"]
    ]
    spared = [
        parameter
        for group in parameter_groups(stack, asked())
        if not group["weight_decay"]
        for parameter in group["params"]
    ]
    first, second, head = stack
    assert {id(one) for one in decayed} == {id(first[0].weight), id(second[0].weight), id(head[1].weight)}
    assert {id(one) for one in spared} == {
        id(one)
        for one in (first[0].bias, first[1].weight, first[1].bias, second[1].weight, second[1].bias, head[1].bias)
    }
    assert {group["weight_decay"] for group in parameter_groups(stack, asked())} == {0.1, 0.0}


def test_layer_decay_scales_each_stage_by_its_distance_from_the_head() -> None:
    stack = layers()
    groups = parameter_groups(stack, asked(layer_decay=0.5))
    scales = {id(parameter): group["scale"] for group in groups for parameter in group["params"]}
    for layer, scale in zip(stack, (0.25, 0.5, 1.0), strict=True):
        assert {scales[id(parameter)] for parameter in layer.parameters()} == {scale}
    assert {group["lr"] / group["scale"] for group in groups} == {0.5}


def test_every_trained_parameter_is_in_one_group_and_frozen_ones_in_none() -> None:
    stack = layers()
    stack[0][0].weight.requires_grad_(False)
    found = [id(one) for group in parameter_groups(stack, asked()) for one in group["params"]]
    trained = [id(one) for layer in stack for one in layer.parameters() if one.requires_grad]
    assert sorted(found) == sorted(trained)


def test_a_layer_without_parameters_gives_no_group() -> None:
    assert parameter_groups([nn.ReLU()], asked()) == []


@pytest.mark.parametrize(
    ("name", "kind"), [("sgd", torch.optim.SGD), ("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)]
)
def test_each_name_builds_its_optimiser(name: str, kind: type[torch.optim.Optimizer]) -> None:
    optimizer = build_optimizer(layers(), asked(name))
    assert type(optimizer) is kind
    assert {group["lr"] for group in optimizer.param_groups} == {0.5}
    if name == "sgd":
        assert {group["momentum"] for group in optimizer.param_groups} == {0.9}


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_each_optimiser_is_fused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel, ran = f"_fused_{name}_", []
    real = getattr(torch, kernel)
    monkeypatch.setattr(torch, kernel, lambda *args, **named: (ran.append(kernel), real(*args, **named))[1])
    head = nn.Linear(2, 1)
    optimizer = build_optimizer([head], asked(name))
    assert {group["fused"] for group in optimizer.param_groups} == {True}
    before = head.weight.clone()
    head(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    assert ran == [kernel] * len(optimizer.param_groups)
    assert not torch.equal(head.weight, before)


def test_sgd_steps_as_its_formula_says() -> None:
    head = nn.Linear(2, 1, bias=False)
    nn.init.constant_(head.weight, 1.0)
    optimizer = build_optimizer([head], asked("sgd", weight_decay=0.0))
    for expected in (1.0 - 0.5, 0.5 - 0.5 * 1.9):  # velocity 1, then 0.9 + 1
        head.weight.grad = torch.ones_like(head.weight)
        optimizer.step()
        assert head.weight.tolist() == [[pytest.approx(expected)] * 2]


def test_an_unknown_name_is_a_mistake_of_the_program() -> None:
    with pytest.raises(KeyError) as caught:
        build_optimizer(layers(), asked("lion"))
    assert caught.value.args == ("unknown optimiser 'lion'; known are sgd, adam, adamw",)


def test_a_rate_reaches_every_group_by_its_scale() -> None:
    optimizer = build_optimizer(layers(), asked(layer_decay=0.5))
    set_learning_rate(optimizer, 0.1)
    assert [group["lr"] for group in optimizer.param_groups] == [
        0.1 * group["scale"] for group in optimizer.param_groups
    ]
    assert {group["lr"] for group in optimizer.param_groups} == {0.1, 0.05, 0.025}
