"""Predicted seconds: near the measured ones, timed once, and corrected by finished groups."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.worlds import tiny_study, write_photographs
from unfreeze import Study
from unfreeze.data.sources import source_of
from unfreeze.events import Event
from unfreeze.study.executors.schedule import correction
from unfreeze.study.executors.serial import SerialExecutor
from unfreeze.study.forecast import forecast
from unfreeze.study.run import run_study
from unfreeze.train import step_cost
from unfreeze.train.device import pick, settings_restored

TWO_PHASES = {"phases": [{"train": "head", "epochs": 1}, {"train": "all", "epochs": 2}]}
STRATEGIES = {"all": {"train": "all"}, "last": {"train": {"last": 1}}, "fine_tune": TWO_PHASES}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNFREEZE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def one_thread() -> Iterator[None]:
    with settings_restored():
        torch.set_num_threads(1)
        yield


def tell_nobody(event: Event) -> None:
    pass


def study(folder: Path, **values: Any) -> Study:
    return Study(**tiny_study(folder, **{"device": "cpu", "strategies": STRATEGIES} | values))


@pytest.mark.slow
def test_seconds_are_within_a_factor_of_two_and_after_the_first_group_within_30_percent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None
) -> None:
    """By processor time, which other processes do not change."""
    monkeypatch.setattr(time, "perf_counter", time.process_time)
    groups = list[tuple[float, float]]()
    submit = SerialExecutor.submit

    def noted(self: SerialExecutor, *given: Any) -> None:
        before = self.predicted, self.seconds
        submit(self, *given)
        groups.append((self.predicted - before[0], self.seconds - before[1]))

    monkeypatch.setattr(SerialExecutor, "submit", noted)
    write_photographs(tmp_path / "photographs", per_class=60, size=48)
    regimes = {"small": {"train_per_class": 40, "val_per_class": 5, "augment": "flip_crop"}}
    asked = study(tmp_path, regimes=regimes, image_size=96, seeds=3, epochs=3, batch_size=16)
    run_study(asked.config, tmp_path / "out", tell_nobody, workers=0)
    (predicted, real), *others = groups
    assert len(others) >= 2
    assert sum(one for _, one in groups) / 2 < sum(one for one, _ in groups) < 2 * sum(one for _, one in groups)
    corrected = correction(real, predicted) * sum(one for one, _ in others)
    assert corrected == pytest.approx(sum(one for _, one in others), rel=0.3)


def test_one_step_of_a_network_is_timed_and_then_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    timed = list[step_cost.TimedStep]()
    measure = step_cost._time

    def noted(step: step_cost.TimedStep, *given: Any) -> step_cost.StepCost:
        timed.append(step)
        return measure(step, *given)

    monkeypatch.setattr(step_cost, "_time", noted)
    first = study(tmp_path).config
    forecast(first, source_of(first, tmp_path), tmp_path / "out", tell_nobody)
    assert [(step.start, step.cut) for step in timed] == [(0, 0)]  # "last" and the head's phase scale with it
    run_study(first, tmp_path / "out", tell_nobody, workers=0)
    assert len(timed) == 1
    other = study(tmp_path, batch_size=5).config
    forecast(other, source_of(other, tmp_path), tmp_path / "other", tell_nobody)
    assert len(timed) == 2


def test_costs_scale_with_flops() -> None:
    cost = step_cost.StepCost(forward=2.0, backward=3.0)
    assert cost.train(passed=10, trained=4) == 32.0
    assert cost.evaluate(passed=10) == 20.0


def test_a_plan_leaves_the_settings_of_torch_as_they_were(tmp_path: Path) -> None:
    with settings_restored():
        torch.set_num_threads(1)
        asked = study(tmp_path, epochs=1).config
        run_study(asked, tmp_path / "out", tell_nobody, workers=0)  # fixes one thread
    with settings_restored():
        torch.set_num_threads(2)
        forecast(asked, source_of(asked, tmp_path), tmp_path / "out", tell_nobody)
        assert torch.get_num_threads() == 2


def settings() -> list[Any]:
    return [
        torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(),
        torch.utils.deterministic.fill_uninitialized_memory,  # type: ignore[attr-defined]
        torch.backends.cuda.matmul.allow_tf32,
        torch.backends.cudnn.allow_tf32,
    ]


def test_settings_of_torch_are_restored_after_an_error_too(monkeypatch: pytest.MonkeyPatch) -> None:
    before = settings()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(ValueError, match="^stop$"), settings_restored():
        pick("cuda", "float32")
        torch.set_num_threads(1 + torch.get_num_threads())
        assert settings() != before
        raise ValueError("stop")
    assert settings() == before
