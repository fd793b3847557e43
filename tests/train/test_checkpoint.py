"""Checkpoints are used only as they were written, and only where they give the same numbers."""

import math
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.damage import damaged
from tests.support.memory import little_memory
from tests.support.worlds import tiny_study
from unfreeze import Study
from unfreeze.events import BetweenSteps, Event, Warned
from unfreeze.storage.study_dir import StudyDir
from unfreeze.study import group
from unfreeze.study.run import run_study
from unfreeze.train import checkpoint as saving_module
from unfreeze.train.candidate_run import CandidateState
from unfreeze.train.checkpoint import (
    SAVE_SECONDS,
    BeatenCandidate,
    CellCheckpoint,
    CheckpointTimer,
    DivergedCandidate,
    FoundCheckpoint,
    read_state,
    write_state,
)
from unfreeze.train.early_stopping import StoppingState
from unfreeze.train.phase_run import EpochRow, EpochTotals, Position

BOUND = {"settings": "ab", "torch": "2.12", "threads": 2, "engines": [{"name": "pytorch"}]}
ROW = EpochRow(0, 1, 4, 0.1 + 0.2, 1e-300, 0.5, 0.5, 0.25, math.nan, 1.5, 12)


def cell_state(step: int = 5, **changes: Any) -> CellCheckpoint:
    """Return a state with candidates of every kind; ``changes`` are of the one in training."""
    generator = torch.Generator().manual_seed(step)
    weights = {"layer.weight": torch.randn(3, 4, generator=generator), "layer.count": torch.tensor(7)}
    running = CandidateState(
        phase=1,
        position=Position(2, step, StoppingState(math.nan, 1, 3), EpochTotals(12, 0.1 + 0.7, 5, 1.5)),
        stopped=False,
        history=[ROW],
        weights=weights,
        best={name: tensor + 1 for name, tensor in weights.items()},
        moments={"0.exp_avg": torch.randn(3, 4, generator=generator), "0.step": torch.tensor(5.0)},
        validation={"1": torch.randn(2, 3, generator=generator)},
        micro_batch={"training": 4},
    )
    position = Position(2, 8, StoppingState(0.25, 2, 0))
    trained = CandidateState(**{**running, "phase": 2, "position": position, "best": {}, "moments": {}})
    kept = {"1": torch.randn(2, 3, generator=generator), "2": torch.randn(2, 3, generator=generator)}
    return CellCheckpoint(
        candidates={"lr=0.1,a.b": CandidateState(**{**running, **changes}), "": trained},
        beaten={"beaten": BeatenCandidate([ROW], kept)},
        diverged={
            "worse": DivergedCandidate("a gradient is nan", [ROW]),
            "bad": DivergedCandidate("the training loss is nan", [], weights),
        },
        frozen_rows={"vgg16, 224 pixels": 4},
    )


def same(one: Any, other: Any) -> bool:
    """Compare to the last bit, NaN with NaN, and tensors with their types and shapes."""
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and one.shape == other.shape and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if hasattr(one, "__dataclass_fields__"):
        return type(one) is type(other) and same(vars(one), vars(other))
    return one == other or (one != one and other != other)


def test_a_state_comes_back_to_the_last_bit(tmp_path: Path) -> None:
    write_state(tmp_path / "a", BOUND, cell_state())
    found = read_state(tmp_path / "a", BOUND)
    assert found.warning == ""
    assert same(found.state, cell_state())


def test_weights_that_lie_in_another_order_in_memory_come_back(tmp_path: Path) -> None:
    weights = {"conv": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last)}
    state = cell_state(weights=weights)
    write_state(tmp_path / "a", BOUND, state)
    assert same(read_state(tmp_path / "a", BOUND).state, state)


def test_a_state_replaces_the_one_before(tmp_path: Path) -> None:
    for step in (5, 6):
        write_state(tmp_path / "a", BOUND, cell_state(step))
        assert [path.name for path in tmp_path.iterdir()] == ["a"]
        assert same(read_state(tmp_path / "a", BOUND).state, cell_state(step))


def test_a_cell_without_a_state_starts_without_a_warning(tmp_path: Path) -> None:
    assert read_state(tmp_path / "a", BOUND) == FoundCheckpoint(None, "")


def test_a_damaged_state_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_state(path, BOUND, cell_state())
    for tried, content in enumerate(damaged(path.read_bytes())):
        path.write_bytes(content)
        assert read_state(path, BOUND) == FoundCheckpoint(None, "its training state was damaged, so it starts again"), (
            tried
        )
    assert tried >= 320


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for the memory that this process held")
def test_a_state_is_in_memory_once(tmp_path: Path) -> None:
    size = 2**28
    state = cell_state(weights={"large": torch.ones(size // 4)})
    with little_memory(size // 8):
        write_state(tmp_path / "a", BOUND, state)
    with little_memory(size * 9 // 8):
        assert read_state(tmp_path / "a", BOUND).state is not None


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"torch": "2.13"}, "torch: 2.12, now 2.13"),
        ({"threads": 4, "settings": "cd"}, "other settings, threads: 2, now 4"),
        ({"engines": []}, "engines: [{'name': 'pytorch'}], now []"),
        ({"more": 1}, "more: None, now 1"),
    ],
)
def test_a_state_of_other_conditions_is_not_used(changed: dict[str, Any], words: str, tmp_path: Path) -> None:
    write_state(tmp_path / "a", BOUND, cell_state())
    found = read_state(tmp_path / "a", BOUND | changed)
    assert found == FoundCheckpoint(None, f"its training state does not fit ({words}), so it starts again")


def test_a_state_of_a_package_that_is_no_longer_used_is_not_used(tmp_path: Path) -> None:
    write_state(tmp_path / "a", BOUND | {"ncnn": "1.0"}, cell_state())
    said = "its training state does not fit (ncnn: 1.0, no longer used), so it starts again"
    assert read_state(tmp_path / "a", BOUND) == FoundCheckpoint(None, said)


def saving(folder: Path, clock: list[float]) -> tuple[CheckpointTimer, list[Event]]:
    told: list[Event] = []
    return CheckpointTimer(StudyDir(folder), lambda cell: BOUND, told.append, lambda: clock[0]), told


def test_states_are_saved_once_a_minute_and_seldom_enough_to_cost_little(tmp_path: Path) -> None:
    clock = [100.0]
    keeper, _ = saving(tmp_path, clock)
    assert not keeper.due()
    clock[0] += SAVE_SECONDS
    assert keeper.due()

    def slow() -> CellCheckpoint:
        clock[0] += 10  # it takes so long to write
        return cell_state()

    keeper.save({"a.b.s0": slow})
    clock[0] += SAVE_SECONDS
    assert not keeper.due()
    clock[0] += 300 - SAVE_SECONDS
    assert keeper.due()


def test_a_run_saves_its_cells_once_a_minute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock on which a step takes 25 seconds."""
    now, written = [0.0], list[float]()
    write = saving_module.write_state

    def noted(*arguments: Any) -> None:
        written.append(now[0])
        write(*arguments)

    def tell(event: Event) -> None:
        now[0] += 25.0 * isinstance(event, BetweenSteps)

    monkeypatch.setattr(saving_module, "write_state", noted)
    monkeypatch.setattr(group, "CheckpointTimer", lambda *arguments: CheckpointTimer(*arguments, clock=lambda: now[0]))
    asked = tiny_study(tmp_path, strategies={"head": {"train": "head"}}, epochs=3)  # 12 steps
    run_study(Study(**asked).config, tmp_path / "out", tell, workers=0)
    assert now[0] >= 300
    assert [later - earlier for earlier, later in pairwise([0.0, *written])][:4] == [75.0] * 4


def test_a_state_that_cannot_be_used_is_deleted_with_a_warning(tmp_path: Path) -> None:
    keeper, told = saving(tmp_path, [0.0])
    keeper.save({"a.b.s0": cell_state})
    assert same(keeper.load("a.b.s0"), cell_state())
    (tmp_path / "running" / "a.b.s0.safetensors").write_text("{")
    assert keeper.load("a.b.s0") is None
    assert told == [Warned("a.b.s0: its training state was damaged, so it starts again")]
    assert list((tmp_path / "running").iterdir()) == []


def test_a_state_of_an_earlier_version_is_deleted_with_a_warning(tmp_path: Path) -> None:
    keeper, told = saving(tmp_path, [0.0])
    earlier = tmp_path / "cells" / "a.b.s0" / "state"
    earlier.mkdir(parents=True)
    for name in ("7.json", "7.safetensors"):
        (earlier / name).write_text("{}")
    assert keeper.load("a.b.s0") is None
    assert told == [Warned("a.b.s0: its training state is of an earlier version, so it starts again")]
    assert not earlier.exists()


def test_a_full_disk_costs_the_state_and_not_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keeper, told = saving(tmp_path, [0.0])
    keeper.save({"a.b.s0": lambda: cell_state(5)})

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    for _ in range(2):
        keeper.save({"a.b.s0": lambda: cell_state(6)})
    path = tmp_path / "running" / "a.b.s0.safetensors"
    assert told == [
        Warned(f"the state of training is not saved, but training continues: cannot write {path} "
               "of 372 bytes: No space left on device")
    ]  # fmt: skip
    assert same(read_state(path, BOUND).state, cell_state(5))
    assert [each.name for each in path.parent.iterdir()] == [path.name]
