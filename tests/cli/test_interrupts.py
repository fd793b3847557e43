"""Signals end the work at its next event, at a second signal or after the patience; handlers are restored."""

import os
import signal
import time

import pytest
import typer

from unfreeze.cli import interrupts
from unfreeze.cli.interrupts import REPEATABLE, RESUMABLE, resumable

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
NUMBERS = [signal.SIGINT, signal.SIGTERM]


@pytest.fixture(autouse=True)
def _handlers_are_put_back():
    before = [signal.getsignal(number) for number in NUMBERS]
    yield
    assert [signal.getsignal(number) for number in NUMBERS] == before


@pytest.mark.parametrize("number", NUMBERS)
def test_the_work_ends_at_its_next_event(number, capsys):
    steps = []

    def work(check):
        os.kill(os.getpid(), number)
        steps.append("goes on")
        check()
        steps.append("never")

    with pytest.raises(typer.Exit) as end:
        resumable(work)
    assert end.value.exit_code == 128 + number
    assert steps == ["goes on"]
    assert capsys.readouterr().err == f"{RESUMABLE}\n"


def test_a_second_signal_ends_the_work_at_once(capsys):
    def work(check):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("went on")

    with pytest.raises(typer.Exit) as end:
        resumable(work)
    assert end.value.exit_code == 130


def test_work_without_events_ends_after_the_patience(monkeypatch):
    monkeypatch.setattr(interrupts, "PATIENCE", 0.1)

    def work(check):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(30)

    with pytest.raises(typer.Exit) as end:
        resumable(work)
    assert end.value.exit_code == 143


def test_work_that_can_end_anywhere_ends_at_once_with_its_own_message(capsys):
    def work(check):
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("went on")

    with pytest.raises(typer.Exit) as end:
        resumable(work, REPEATABLE, anywhere=True)
    assert end.value.exit_code == 143
    assert capsys.readouterr().err == f"{REPEATABLE}\n"


def test_without_a_signal_nothing_is_printed(capsys):
    resumable(lambda check: check())
    assert capsys.readouterr() == ("", "")


def test_an_ignored_signal_stays_ignored():
    before, went_on = signal.signal(signal.SIGINT, signal.SIG_IGN), list[bool]()
    try:
        resumable(lambda check: (os.kill(os.getpid(), signal.SIGINT), check(), went_on.append(True)))
    finally:
        signal.signal(signal.SIGINT, before)
    assert went_on
