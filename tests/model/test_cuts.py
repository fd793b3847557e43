"""Cuts of a strategy: which stages have fresh weights, phase by phase."""

import pytest

from tests.support.choices import parse_study, resolved
from unfreeze.model.cuts import fresh_from

STAGES, CUTS = 5, (5, 4, 2)


@pytest.mark.parametrize(
    ("reinit", "expected"), [((), [5, 5, 5]), ((1,), [5, 4, 4]), ((2,), [5, 5, 2]), ((1, 2), [5, 4, 2])]
)
def test_stages_have_fresh_weights_from_the_phase_that_draws_them(reinit: tuple[int, ...], expected: list[int]) -> None:
    trained = ("head", {"last": 1}, {"last": 3})
    phases = [{"train": train, "epochs": 1, "reinit": number in reinit} for number, train in enumerate(trained)]
    values = {"data": "x", "backbone": "resnet18", "regimes": {"r": {}}, "strategies": {"s": {"phases": phases}}}
    study = parse_study(values, "study.yaml")
    assert fresh_from(resolved(study, study.strategies["s"]), CUTS, STAGES) == expected


def test_all_stages_have_fresh_weights_without_pretrained_ones() -> None:
    strategies = {"s": {"weights": "none", "train": "all"}}
    study = parse_study({"data": "x", "backbone": "resnet18", "regimes": {"r": {}}, "strategies": strategies}, "x")
    assert fresh_from(resolved(study, study.strategies["s"]), [0], STAGES) == [0]
