"""A process that prepares batches is killed: the batches are the same, prepared by fewer, or the cause is named."""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch.utils.data._utils import signal_handling

from tests.worlds import tiny_study
from unfreeze import Study
from unfreeze.errors import UserError
from unfreeze.study.events import BetweenSteps, Event, Warned
from unfreeze.study.run import run_study
from unfreeze.train.loading import Loading

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
BATCHES = 30


@pytest.fixture(autouse=True)
def _no_handler_of_another_test() -> Iterator[None]:
    before = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGCHLD, before)


class Numbers(torch.utils.data.Dataset):
    """Gives the index of a draw; slowly, so that most batches are yet to come when a process is killed."""

    def __getitem__(self, draw: tuple[int, int]) -> tuple[int, int]:
        time.sleep(0.02)
        return draw


def loading(workers: int, told: list[tuple[str, int]]) -> Loading:
    def draws() -> object:
        return ([(2 * number, 0), (2 * number + 1, 0)] for number in range(BATCHES))

    return Loading(Numbers(), draws, workers, lambda by, left: told.append((by, left)))


def kill_one() -> None:
    os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)


def taken(batches: Loading, kill_at: tuple[int, ...]) -> list[list[int]]:
    found = []
    for number, (indices, _) in enumerate(batches):
        found.append(indices.tolist())
        if number in kill_at:
            kill_one()
    return found


@pytest.mark.parametrize(("workers", "left"), [(2, 1), (1, 1)])
def test_fewer_go_on_where_one_was_killed(workers: int, left: int) -> None:
    told: list[tuple[str, int]] = []
    batches, handler = loading(workers, told), signal.getsignal(signal.SIGCHLD)
    began = time.monotonic()
    expected = [[2 * number, 2 * number + 1] for number in range(BATCHES)]
    assert taken(batches, kill_at=(3,)) == expected
    assert time.monotonic() - began < 60
    assert told == [("SIGKILL", left)]
    assert taken(batches, kill_at=()) == expected
    assert signal.getsignal(signal.SIGCHLD) is handler  # so that nothing is raised in the midst of a step


class Tensors(Numbers):
    """Gives tensors, whose memory a process hands over on a connection of its own; quickly, so that many wait."""

    def __getitem__(self, draw: tuple[int, int]) -> tuple[torch.Tensor, int]:
        return torch.full((1000,), draw[0]), draw[0]


def test_batches_that_a_killed_process_had_finished_are_prepared_anew() -> None:
    """Its connection breaks before PyTorch sees that it is gone: refused, reset or at its end, as the kill falls."""
    for kill_at in range(3):
        told: list[tuple[str, int]] = []
        batches = Loading(
            Tensors(), loading(0, told)._draws.make, 2, lambda by, left, told=told: told.append((by, left))
        )
        found = []
        for number, (inputs, indices) in enumerate(batches):
            assert torch.equal(inputs[:, 0], indices)
            found.append(indices.tolist())
            if number == kill_at:
                time.sleep(0.5)  # meanwhile both finish what they were asked for
                for process in multiprocessing.active_children():
                    os.kill(process.pid, signal.SIGKILL)
        assert found == [[2 * number, 2 * number + 1] for number in range(BATCHES)]
        assert told == [("SIGKILL", 1)]


def test_what_pytorch_does_for_loaders_of_others_raises_nothing_in_the_midst(monkeypatch: pytest.MonkeyPatch) -> None:
    """It sets its handler once in a process, and leaves it there."""
    monkeypatch.setattr(signal_handling, "_SIGCHLD_handler_set", False)
    signal_handling._set_SIGCHLD_handler()
    assert signal.getsignal(signal.SIGCHLD) != signal.SIG_DFL
    told: list[tuple[str, int]] = []
    assert taken(loading(2, told), kill_at=(2,)) == taken(loading(0, []), kill_at=())
    assert told == [("SIGKILL", 1)]
    assert signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL


def test_a_broken_connection_of_living_processes_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    batches = loading(2, [])

    def broken() -> object:
        raise ConnectionResetError("of something else")

    monkeypatch.setattr(batches, "_begun", broken)
    with pytest.raises(ConnectionResetError, match="of something else"):
        next(iter(batches))


def test_a_second_kill_is_an_error_that_names_the_cause() -> None:
    told: list[tuple[str, int]] = []
    began = time.monotonic()
    with pytest.raises(UserError) as caught:
        taken(loading(2, told), kill_at=(2, 8))
    assert time.monotonic() - began < 60
    assert str(caught.value) == (
        "a process that prepares images was killed by SIGKILL, as one before it was\n"
        "  expected: processes that live to the end, with memory enough for them\n"
        "  to mend:  free memory and run the same command again, which goes on from here"
    )


def run(folder: Path, name: str, told: Callable[[Event], None]) -> bytes:
    regimes = {"small": {"train_per_class": 6, "val_per_class": 2, "augment": "flip_crop"}}  # fresh views, live
    strategies = {"all": {"train": "all", "optimizer": {"lr": 1e-3}}}
    study = Study(**tiny_study(folder, strategies=strategies, regimes=regimes, epochs=4))
    assert run_study(study.config, folder / name, told, workers=2).failed == ()
    return (folder / name / "cells" / "all.small.s0" / "model.safetensors").read_bytes()


def test_a_study_ends_with_the_same_weights_where_one_of_its_processes_is_killed(tmp_path: Path) -> None:
    warned: list[str] = []
    steps = 0

    def kills(event: Event) -> None:
        nonlocal steps
        if isinstance(event, Warned):
            warned.append(event.text)
        if isinstance(event, BetweenSteps):
            steps += 1
            if steps == 2:
                kill_one()

    began = time.monotonic()
    killed = run(tmp_path, "killed", kills)
    assert time.monotonic() - began < 60
    assert killed == run(tmp_path, "whole", lambda event: None)
    words = "a process that prepares images was killed by SIGKILL, perhaps for want of memory"
    assert [text for text in warned if "process" in text] == [f"{words}; from now on 1 does the work"]
