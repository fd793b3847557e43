"""If a process that prepares batches dies, its cells resume with fewer processes and the same numbers, or fail."""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Collection
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import torch

from tests.support.worlds import tiny_study
from unfreeze import Study
from unfreeze.events import BetweenSteps, CellResumed, Event, Warned
from unfreeze.inputs.loader import BatchLoader, LoaderDied, is_death
from unfreeze.storage.records import read_json
from unfreeze.study.run import run_study
from unfreeze.train import checkpoint as saving

pytestmark = [
    pytest.mark.skipif(os.name != "posix", reason="signals of POSIX"),
    # PyTorch raises wherever the main thread is, so also where Python can only print it.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
BATCHES = 30


class Numbers(torch.utils.data.Dataset):
    """Gives the index of a draw; slowly, so that most batches are yet to come when a process is killed."""

    def __getitem__(self, draw: tuple[int, int]) -> tuple[int, int]:
        time.sleep(0.02)
        return draw


class Tensors(Numbers):
    """Gives tensors, whose memory a process hands over on a connection of its own; quickly, so that many wait."""

    def __getitem__(self, draw: tuple[int, int]) -> tuple[torch.Tensor, int]:
        return torch.full((1000,), draw[0]), draw[0]


class Broken(Numbers):
    """Fails as if the network file system did."""

    def __getitem__(self, draw: tuple[int, int]) -> tuple[int, int]:
        raise ConnectionResetError("of something else")


def loading(images: Numbers, workers: int) -> BatchLoader:
    return BatchLoader(images, lambda: ([(2 * number, 0), (2 * number + 1, 0)] for number in range(BATCHES)), workers)


def kill_one(besides: Collection[BaseProcess]) -> None:
    """Kill one of this process's children, but none of those of an earlier test, which nobody waits for."""
    children = [child for child in multiprocessing.active_children() if child not in besides]
    os.kill(children[0].pid, signal.SIGKILL)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_iteration_gives_all_batches_again_and_again(workers: int) -> None:
    batches = loading(Numbers(), workers)
    for _ in range(2):
        assert [indices.tolist() for indices, _ in batches] == [[2 * each, 2 * each + 1] for each in range(BATCHES)]


@pytest.mark.parametrize("images", [Numbers(), Tensors()])
def test_a_killed_process_is_distinguished_from_other_errors(images: Numbers) -> None:
    """With finished batches not handed over, its connection may break before PyTorch sees that it is gone."""
    others = multiprocessing.active_children()
    batches = iter(loading(images, 2))
    next(batches)
    time.sleep(0.5)  # meanwhile both finish what they were asked for
    with pytest.raises(Exception) as caught:  # noqa: B017, PT011
        kill_one(others)
        for _ in batches:
            pass
    assert is_death(caught.value)


def test_an_error_of_a_living_process_is_no_death() -> None:
    with pytest.raises(ConnectionResetError, match="of something else") as caught:
        next(iter(loading(Broken(), 2)))
    assert not is_death(caught.value)
    assert not is_death(RuntimeError("of something else"))
    assert is_death(LoaderDied("its connection broke"))


def run(folder: Path, name: str, told: Callable[[Event], None], workers: int = 2) -> tuple[tuple[str, ...], Path]:
    regimes = {"small": {"train_per_class": 6, "val_per_class": 2, "augment": "flip_crop"}}  # fresh views, live
    strategies = {"all": {"train": "all", "optimizer": {"lr": 1e-3}}}
    study = Study(**tiny_study(folder, strategies=strategies, regimes=regimes, epochs=2))
    failed = run_study(study.config, folder / name, told, workers=workers).failed
    return failed, folder / name / "cells" / "all.small.s0"


class Killing:
    """Kills a process that prepares images at some steps, and notes what is told."""

    def __init__(self, *steps: int) -> None:
        self.steps, self.step, self.warned, self.resumed = steps, 0, list[str](), list[Event]()
        self.others = multiprocessing.active_children()

    def __call__(self, event: Event) -> None:
        if isinstance(event, Warned) and "prepare" in event.text:
            self.warned.append(event.text)
        if isinstance(event, CellResumed):
            self.resumed.append(event)
        if isinstance(event, BetweenSteps):
            self.step += 1
            if self.step in self.steps:
                kill_one(self.others)
                time.sleep(0.1)


def test_a_group_is_tried_once_more_from_its_checkpoint_with_fewer_loaders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saving, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(saving, "SHARE", 1e9)
    killing = Killing(4)
    failed, cell = run(tmp_path, "killed", killing, workers=1)
    assert failed == ()
    assert len(killing.resumed) == 1
    (said,) = killing.warned
    assert said.startswith("a process that prepares images died, perhaps for lack of memory (DataLoader worker (pid")
    assert said.endswith(
        "); resumed from the last checkpoint: all.small.s0; processes that prepare images from now on: 0"
    )
    _, whole = run(tmp_path, "whole", lambda event: None, workers=0)
    assert (cell / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_a_second_death_fails_the_cell_and_names_the_cause(tmp_path: Path) -> None:
    failed, cell = run(tmp_path, "killed", Killing(3, 9))
    assert failed == ("all.small.s0",)
    given, *rest = read_json(cell / "error.json")["error"].splitlines()
    assert given.startswith("a process that prepares images died, as one before it did: DataLoader worker (pid")
    assert rest == [
        "  expected: a process that lives until its cells are finished; where memory runs out, the system ends one",
        "  fix:      free memory and run the same command again, which resumes from the last checkpoint",
    ]
    failed, cell = run(tmp_path, "killed", lambda event: None, workers=0)
    assert failed == ()
    _, whole = run(tmp_path, "whole", lambda event: None, workers=0)
    assert (cell / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
