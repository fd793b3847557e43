"""kill -9 anywhere: the same command goes on, and ends with the very same results and no litter."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest

from tests.faults.conftest import Killer
from unfreeze.cli.interrupts import BEGINS_ANEW, GOES_ON

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked to be killed")

MOMENTS, MANY_MOMENTS = 6, 200
MANY_KINDS = 45
PHASES = {
    "check": ("unfreeze.data.looks:Remembered.keep", 20, "read 36 image files", ""),
    "extraction": ("unfreeze.data.shards:NewShard.append", 40, "started, ", "frozen stages of"),
    "training": ("unfreeze.train.loop:_forward", 10, "finished;", "epoch 1:"),
    "evaluation": ("unfreeze.study.cell:predict", 1, "finished;", "epoch 2:"),
    "report": ("unfreeze.results.report:render_report", 1, "report: ", "finished;"),
}
"""Parts of a run: a call of a function in its midst, what is said after it, and what before."""


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


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="asks Linux which file a descriptor belongs to")
def test_killed_at_every_kind_of_numbered_step(killer: Killer, whole: tuple[dict, float, int]) -> None:
    """One study is killed and goes on, again and again, each time before the first step of a kind that was not yet."""
    tried: list[str] = []
    while (done := killer.run("kinds", tried=tried))["code"] != 0:
        assert done["code"] == -signal.SIGKILL, killer.log("kinds")
        tried.append((killer.folder / "kinds.kind").read_text())
    assert len(tried) >= MANY_KINDS
    assert {"mkdir cells", "replace result.json", "fsync state", "replace N.manifest"} <= set(tried), tried
    assert killer.results("kinds") == whole[0]


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
    tried: list[str] = []
    while (done := killer.run("report", command="report", tried=tried))["code"] != 0:
        assert done["code"] == -signal.SIGKILL, killer.log("report")
        tried.append((killer.folder / "report.kind").read_text())
    assert {"replace results.csv", "replace comparisons.csv", "replace report.html"} <= set(tried), tried
    assert killer.results("report") == whole[0]


def strike(killer: Killer, name: str, phase: str, *numbers: signal.Signals, command: str = "run") -> dict:
    """Send a command signals in the midst of a phase."""
    at, call, after, before = PHASES[phase]
    log = killer.folder / f"{name}.log"
    log.unlink(missing_ok=True)
    done = killer.run(name, command=command, strike=(at, call, numbers))
    assert command != "run" or before in log.read_text(), log.read_text()
    assert done["code"] != -signal.SIGKILL or after not in log.read_text(), log.read_text()
    return done


def test_killed_in_every_phase(killer: Killer, whole: tuple[dict, float, int]) -> None:
    for phase in PHASES:
        assert strike(killer, "phases", phase, signal.SIGKILL)["code"] == -signal.SIGKILL, (phase, killer.log("phases"))
    assert killer.run("phases")["code"] == 0, killer.log("phases")
    assert killer.results("phases") == whole[0]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_any_phase_ends_it_soon_and_nothing_is_lost(
    killer: Killer, whole: tuple[dict, float, int], number: signal.Signals
) -> None:
    name = f"signal-{number}"
    for phase in PHASES:
        done = strike(killer, name, phase, number)
        assert done["code"] == 128 + number, (phase, killer.log(name))
        assert done["after_signal"] < 10, phase
        assert killer.log(name).splitlines()[-1] == GOES_ON
        assert "Traceback" not in killer.log(name)
    assert killer.run(name)["code"] == 0
    assert killer.results(name) == whole[0]


@pytest.mark.parametrize("command", ["check", "report"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_check_and_report_end_like_a_run(
    killer: Killer, whole: tuple[dict, float, int], command: str, number: signal.Signals
) -> None:
    name = "whole" if command == "report" else f"check-{number}"
    done = strike(killer, name, command, number, command=command)
    if number == signal.SIGKILL:
        assert done["code"] == -number
    else:
        assert done["code"] == 128 + number
        assert done["after_signal"] < 10
        assert killer.log(name) == f"{GOES_ON if command == 'check' else BEGINS_ANEW}\n"
    left = [killer.folder / f".{name}.html.x.tmp", killer.folder / f"cache-{name}" / "looks" / ".x.jsonl.x.tmp"]
    if command == "report":
        left = [killer.folder / name / ".report.html.x.tmp"]
    for path in left:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert killer.run(name, command=command)["code"] == 0, killer.log(name)
    assert not [path for path in left if path.exists()]


def test_a_second_signal_ends_it_at_once(killer: Killer, whole: tuple[dict, float, int]) -> None:
    moment = 0.7 * whole[1]
    done = killer.run("twice", signals=[(signal.SIGTERM, moment), (signal.SIGINT, moment)])
    assert done["code"] in (128 + signal.SIGTERM, 128 + signal.SIGINT)
    assert done["after_signal"] < 3
    assert killer.log("twice").splitlines()[-1] == GOES_ON
    assert killer.run("twice")["code"] == 0
    assert killer.results("twice") == whole[0]
