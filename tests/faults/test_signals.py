"""SIGTERM and SIGINT: what is computed is saved, a line says how to go on, and the same command does."""

import itertools
import os
import signal
from collections.abc import Sequence

import pytest

from tests.support.ages import make_old
from tests.support.killer import PHASES, Killer
from unfreeze.cli.interrupts import REPEATABLE, RESUMABLE

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked to be signalled")


NUMBERS = (signal.SIGINT, signal.SIGTERM)


@pytest.mark.parametrize(
    "numbers", [NUMBERS, *(pytest.param((one,), marks=pytest.mark.slow, id=one.name) for one in NUMBERS)]
)
def test_a_signal_in_any_phase_ends_it_soon_and_nothing_is_lost(
    killer: Killer, whole: tuple[dict, float, int], numbers: Sequence[signal.Signals]
) -> None:
    name = "-".join(each.name for each in numbers)
    for phase, number in zip(PHASES, itertools.cycle(numbers), strict=False):  # several take turns
        done = killer.strike(name, phase, number)
        assert done["code"] == 128 + number, (phase, killer.log(name))
        assert done["after_signal"] < 10, phase
        assert killer.log(name).splitlines()[-1] == RESUMABLE
        assert "Traceback" not in killer.log(name)
    assert killer.run(name)["code"] == 0
    assert killer.results(name) == whole[0]


@pytest.mark.parametrize(
    ("command", "number"),
    [
        ("check", signal.SIGKILL),
        ("report", signal.SIGTERM),
        pytest.param("check", signal.SIGINT, marks=pytest.mark.slow),
        pytest.param("check", signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param("report", signal.SIGINT, marks=pytest.mark.slow),
        pytest.param("report", signal.SIGKILL, marks=pytest.mark.slow),
    ],
)
def test_check_and_report_end_like_a_run(
    killer: Killer, whole: tuple[dict, float, int], command: str, number: signal.Signals
) -> None:
    name = "whole" if command == "report" else f"check-{number}"
    done = killer.strike(name, command, number, command=command)
    if number == signal.SIGKILL:
        assert done["code"] == -number
    else:
        assert done["code"] == 128 + number
        assert done["after_signal"] < 10
        assert killer.log(name).endswith(f"{RESUMABLE if command == 'check' else REPEATABLE}\n")
        assert "Traceback" not in killer.log(name)
    left = [killer.folder / f".{name}.html.x.tmp", killer.folder / f"cache-{name}" / "looks" / ".x.jsonl.x.tmp"]
    if command == "report":
        left = [killer.folder / name / ".report.html.x.tmp"]
    for path in left:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        make_old(path)
    assert killer.run(name, command=command)["code"] == 0, killer.log(name)
    assert not [path for path in left if path.exists()]


def test_a_second_signal_ends_it_at_once(killer: Killer, whole: tuple[dict, float, int]) -> None:
    done = killer.strike("twice", "training", signal.SIGTERM, signal.SIGINT)
    assert done["code"] in (128 + signal.SIGTERM, 128 + signal.SIGINT)
    assert done["after_signal"] < 10  # else its midst, which sleeps for 30 s, was waited for
    assert killer.log("twice").splitlines()[-1] == RESUMABLE
    assert killer.run("twice")["code"] == 0
    assert killer.results("twice") == whole[0]
