"""kill -9 anywhere: the same command goes on, and ends with the very same results and no litter."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest

from tests.support.killer import PHASES, Killer

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked to be killed")

KILLS, MANY_KILLS = 6, 200
MANY_KINDS = 45


def kill_at_moments(killer: Killer, whole: tuple[dict, float, int], kills: int, seed: int, workers: int = 0) -> None:
    """Kill a run of the whole study at a moment, again the run that goes on, and let the third come to its end.

    So do other studies, until as many processes as asked died of it: one that ended before its moment does not count.
    """
    expected, seconds, _ = whole
    generator, killed = np.random.default_rng(seed), 0
    for number in range(kills):  # half of them will do, unless many processes end before their moments
        name, moments = f"moment-{seed}-{number}", list[float]()
        while killed < kills and len(moments) < 2:
            moments.append(generator.uniform(0.0, seconds - sum(moments)))
            code = killer.run(name, signals=[(signal.SIGKILL, moments[-1])], workers=workers)["code"]
            if code == 0:
                seconds = sum(moments)  # the machine is quicker now than when it was asked what a run takes
                break
            assert code == -signal.SIGKILL, killer.log(name)
            killed += 1
        assert killer.run(name, workers=workers)["code"] == 0, killer.log(name)
        assert killer.results(name) == expected, (name, moments)
        if killed == kills:
            break
    assert killed == kills


@pytest.mark.slow
def test_killed_at_random_moments(killer: Killer, whole: tuple[dict, float, int]) -> None:
    kill_at_moments(killer, whole, KILLS, seed=0)


@pytest.mark.slow
def test_killed_at_many_random_moments(killer: Killer, whole: tuple[dict, float, int]) -> None:
    kill_at_moments(killer, whole, MANY_KILLS, seed=1)


@pytest.mark.slow
def test_killed_with_a_process_that_reads_images(killer: Killer, whole: tuple[dict, float, int]) -> None:
    kill_at_moments(killer, whole, 8, seed=2, workers=1)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="asks Linux which file a descriptor belongs to")
@pytest.mark.slow
def test_killed_at_every_kind_of_numbered_step(killer: Killer, whole: tuple[dict, float, int]) -> None:
    """One study is killed and goes on, again and again, each time before the first step of a kind that was not yet."""
    name, tried = "kinds", list[str]()
    while (done := killer.run(name, tried=tried))["code"] != 0:
        assert done["code"] == -signal.SIGKILL, killer.log(name)
        tried.append((killer.folder / f"{name}.kind").read_text())
    assert len(tried) >= MANY_KINDS
    assert {"replace result.json", "rename head.small.sN", "replace N.manifest"} <= set(tried), tried
    assert {"mkdir cells", "fsync running"} <= set(tried), tried
    assert killer.results(name) == whole[0]


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


@pytest.mark.slow
def test_killed_while_a_report_is_written(killer: Killer, whole: tuple[dict, float, int]) -> None:
    assert killer.run("report")["code"] == 0
    tried: list[str] = []
    while (done := killer.run("report", command="report", tried=tried))["code"] != 0:
        assert done["code"] == -signal.SIGKILL, killer.log("report")
        tried.append((killer.folder / "report.kind").read_text())
    assert {"replace results.csv", "replace comparisons.csv", "replace report.html"} <= set(tried), tried
    assert killer.results("report") == whole[0]


def test_killed_in_every_phase(killer: Killer, whole: tuple[dict, float, int]) -> None:
    for phase in PHASES:
        assert killer.strike("phases", phase, signal.SIGKILL)["code"] == -signal.SIGKILL, (phase, killer.log("phases"))
    assert killer.run("phases")["code"] == 0, killer.log("phases")
    assert killer.results("phases") == whole[0]
