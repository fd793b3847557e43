"""kill -9 anywhere: the same command goes on, and ends with the very same results and no litter."""

import os
import signal

import numpy as np
import pytest

from tests.faults.conftest import Killer
from unfreeze.cli.interrupts import GOES_ON

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked to be killed")

MOMENTS, MANY_MOMENTS = 6, 200


@pytest.fixture(scope="module")
def whole(killer: Killer) -> tuple[dict, float, int]:
    """What a run that nobody kills gives, its seconds, and its numbered steps."""
    killer.run("first")  # fills what the system keeps, and takes longer for it
    done = killer.run("whole")
    assert done["code"] == 0, killer.log("whole")
    return killer.results("whole"), done["seconds"], killer.steps("whole")


def kill_at_moments(killer: Killer, whole: tuple[dict, float, int], count: int, seed: int, workers: int = 0) -> None:
    """Kill a run of the whole study at a moment, again the run that goes on, and let the third come to its end."""
    expected, seconds, _ = whole
    generator = np.random.default_rng(seed)
    for number, (first, again) in enumerate(generator.uniform(0.0, seconds, (count, 2)).tolist()):
        name = f"moment-{seed}-{number}"
        for moment in (first, again):
            code = killer.run(name, signals=[(signal.SIGKILL, moment)], workers=workers)["code"]
            assert code in (-signal.SIGKILL, 0), killer.log(name)
        assert killer.run(name, workers=workers)["code"] == 0, killer.log(name)
        assert killer.results(name) == expected, (name, first, again)


def test_killed_at_random_moments(killer: Killer, whole: tuple[dict, float, int]) -> None:
    kill_at_moments(killer, whole, MOMENTS // 2, seed=0)  # two kills each


@pytest.mark.slow
def test_killed_at_many_random_moments(killer: Killer, whole: tuple[dict, float, int]) -> None:
    kill_at_moments(killer, whole, MANY_MOMENTS // 2, seed=1)


@pytest.mark.slow
def test_killed_with_a_process_that_reads_images(killer: Killer, whole: tuple[dict, float, int]) -> None:
    kill_at_moments(killer, whole, 4, seed=2, workers=1)


def test_killed_at_some_of_the_numbered_steps(killer: Killer, whole: tuple[dict, float, int]) -> None:
    for step in np.linspace(1, whole[2], 5).astype(int).tolist():
        name = f"step-{step}"
        assert killer.run(name, at=step)["code"] == -signal.SIGKILL, killer.log(name)
        assert killer.run(name)["code"] == 0, killer.log(name)
        assert killer.results(name) == whole[0], name


@pytest.mark.slow
def test_killed_at_every_numbered_step_of_one_cell(killer: Killer) -> None:
    one = ["--set", "strategies={head: {train: head, epochs: 1}}"]
    save = 1e9  # but for the state at the cell's end
    assert killer.run("one", more=one, save_seconds=save)["code"] == 0
    expected = killer.results("one")
    for step in range(1, killer.steps("one") + 1):
        name = f"one-{step}"
        assert killer.run(name, more=one, save_seconds=save, at=step)["code"] == -signal.SIGKILL, killer.log(name)
        assert killer.run(name, more=one, save_seconds=save)["code"] == 0, killer.log(name)
        assert killer.results(name) == expected, name


def test_killed_while_a_report_is_written(killer: Killer, whole: tuple[dict, float, int]) -> None:
    assert killer.run("report")["code"] == 0
    assert killer.run("report", command="report")["code"] == 0
    for step in range(1, killer.steps("report") + 1):
        assert killer.run("report", command="report", at=step)["code"] == -signal.SIGKILL
    assert killer.run("report")["code"] == 0
    assert killer.results("report") == whole[0]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_at_any_moment_ends_it_soon_and_nothing_is_lost(
    killer: Killer, whole: tuple[dict, float, int], number: signal.Signals
) -> None:
    for moment in (0.3, 0.6):
        name = f"signal-{number}-{moment}"
        done = killer.run(name, signals=[(number, moment * whole[1])])
        assert done["code"] == 128 + number, killer.log(name)
        assert done["after_signal"] < 10
        assert killer.log(name).splitlines()[-1] == GOES_ON
        assert "Traceback" not in killer.log(name)
        assert killer.run(name)["code"] == 0
        assert killer.results(name) == whole[0]


def test_a_second_signal_ends_it_at_once(killer: Killer, whole: tuple[dict, float, int]) -> None:
    moment = 0.7 * whole[1]
    done = killer.run("twice", signals=[(signal.SIGTERM, moment), (signal.SIGINT, moment)])
    assert done["code"] in (128 + signal.SIGTERM, 128 + signal.SIGINT)
    assert done["after_signal"] < 3
    assert killer.log("twice").splitlines()[-1] == GOES_ON
    assert killer.run("twice")["code"] == 0
    assert killer.results("twice") == whole[0]
