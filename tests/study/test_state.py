"""A training state is used only as it was written, and only where it gives the same numbers."""

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.damage import damaged
from tests.worlds import tiny_study
from unfreeze import Study
from unfreeze.store import StudyDir
from unfreeze.study import group
from unfreeze.study import saving as saving_module
from unfreeze.study import state as states
from unfreeze.study.candidate import CandidateState
from unfreeze.study.events import BetweenSteps, Event, Warned
from unfreeze.study.run import run_study
from unfreeze.study.saving import SAVE_SECONDS, Saving
from unfreeze.study.state import CellState, Found, read_state, write_state
from unfreeze.train.loop import Position, Seen
from unfreeze.train.stopping import StoppingState

BOUND = {"settings": "ab", "torch": "2.12", "threads": 2, "engines": [{"name": "pytorch"}]}
ROW = {
    "phase": 0,
    "epoch": 1,
    "step": 4,
    "lr": 0.1 + 0.2,
    "train_loss": 1e-300,
    "val_loss": 0.5,
    "val_metric": math.nan,
}


DIVERGED = {"worse": ("a gradient is nan", [ROW]), "bad": ("the training loss is nan", [])}


def cell_state(step: int = 5) -> CellState:
    generator = torch.Generator().manual_seed(step)
    weights = {"layer.weight": torch.randn(3, 4, generator=generator), "layer.count": torch.tensor(7)}
    running = CandidateState(
        1,
        Position(2, step, StoppingState(math.nan, 1, 3), Seen(12, 0.1 + 0.7, 5, 1.5)),
        False,
        [ROW],
        weights,
        {name: tensor + 1 for name, tensor in weights.items()},
        {"0.exp_avg": torch.randn(3, 4, generator=generator), "0.step": torch.tensor(5.0)},
        {"1": torch.randn(2, 3, generator=generator)},
    )
    ended = CandidateState(2, Position(2, 8, StoppingState(0.25, 2, 0)), True, [ROW], weights)
    kept = {"beaten": {"1": torch.randn(2, 3, generator=generator), "2": torch.randn(2, 3, generator=generator)}}
    return CellState({"lr=0.1,a.b": running, "": ended}, {"beaten": [ROW]}, DIVERGED, {"bad": weights}, kept)


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
    write_state(tmp_path, BOUND, cell_state())
    found = read_state(tmp_path, BOUND)
    assert found.said == ""
    assert same(found.state, cell_state())


def test_the_latest_of_two_generations_is_used_and_older_ones_go(tmp_path: Path) -> None:
    for step in (5, 6, 7):
        write_state(tmp_path, BOUND, cell_state(step))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2.json", "2.safetensors", "3.json", "3.safetensors"]
    assert same(read_state(tmp_path, BOUND).state, cell_state(7))


@pytest.mark.parametrize("kind", ["json", "safetensors"])
def test_a_damaged_state_is_noticed_and_the_one_before_is_used(kind: str, tmp_path: Path) -> None:
    write_state(tmp_path, BOUND, cell_state(5))
    write_state(tmp_path, BOUND, cell_state(6))
    path = tmp_path / f"2.{kind}"
    for tried, content in enumerate(damaged(path.read_bytes())):
        path.write_bytes(content)
        found = read_state(tmp_path, BOUND)
        assert found.said == "its latest training state was damaged; it goes on from the one before", tried
        assert found.state is not None and found.state.candidates["lr=0.1,a.b"].position.step == 5
    assert tried >= 320


@pytest.mark.parametrize("kind", ["json", "safetensors"])
def test_where_no_state_is_whole_the_cell_begins_anew(kind: str, tmp_path: Path) -> None:
    write_state(tmp_path, BOUND, cell_state())
    (tmp_path / f"1.{kind}").write_bytes(b"")
    assert read_state(tmp_path, BOUND) == Found(None, "its training state was damaged, so it begins anew")
    (tmp_path / f"1.{kind}").unlink()
    assert read_state(tmp_path, BOUND).state is None


def test_what_a_killed_process_left_of_a_state_is_no_state_and_its_number_is_not_used_again(tmp_path: Path) -> None:
    write_state(tmp_path, BOUND, cell_state(5))
    (tmp_path / "2.safetensors").write_bytes(b"half")
    assert same(read_state(tmp_path, BOUND).state, cell_state(5)) is True
    write_state(tmp_path, BOUND, cell_state(6))
    assert same(read_state(tmp_path, BOUND).state, cell_state(6))


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
    write_state(tmp_path, BOUND, cell_state())
    found = read_state(tmp_path, BOUND | changed)
    assert found == Found(None, f"its training state does not fit ({words}), so it begins anew")


def test_a_state_of_a_package_that_is_no_longer_used_is_not_used(tmp_path: Path) -> None:
    write_state(tmp_path, BOUND | {"ncnn": "1.0"}, cell_state())
    said = "its training state does not fit (ncnn: 1.0, no longer used), so it begins anew"
    assert read_state(tmp_path, BOUND) == Found(None, said)


def saving(folder: Path, clock: list[float]) -> tuple[Saving, list[Event]]:
    told: list[Event] = []
    return Saving(StudyDir(folder), lambda cell: BOUND, told.append, lambda: clock[0]), told


def test_states_are_saved_once_a_minute_and_seldom_enough_to_cost_little(tmp_path: Path) -> None:
    clock = [100.0]
    keeper, _ = saving(tmp_path, clock)
    assert not keeper.due()
    clock[0] += SAVE_SECONDS
    assert keeper.due()

    def slow() -> CellState:
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
    monkeypatch.setattr(group, "Saving", lambda *arguments: Saving(*arguments, clock=lambda: now[0]))
    asked = tiny_study(tmp_path, strategies={"head": {"train": "head"}}, epochs=3)  # 12 steps
    run_study(Study(**asked).config, tmp_path / "out", tell, workers=0)
    assert now[0] >= 300
    assert [later - earlier for earlier, later in pairwise([0.0, *written])][:4] == [75.0] * 4


def test_a_cell_begins_with_its_state_and_nothing_else_in_its_folder(tmp_path: Path) -> None:
    keeper, told = saving(tmp_path, [0.0])
    keeper.save({"a.b.s0": cell_state})
    (tmp_path / "cells" / "a.b.s0" / "error.json").write_text("of a run that failed")
    assert same(keeper.begin("a.b.s0"), cell_state())
    assert [path.name for path in (tmp_path / "cells" / "a.b.s0").iterdir()] == ["state"]
    (tmp_path / "cells" / "a.b.s0" / "state" / "1.json").write_text("{")
    assert keeper.begin("a.b.s0") == CellState()
    assert not (tmp_path / "cells" / "a.b.s0").exists()
    assert told == [Warned("a.b.s0: its training state was damaged, so it begins anew")]


def test_a_full_disk_costs_the_state_and_not_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keeper, told = saving(tmp_path, [0.0])
    keeper.save({"a.b.s0": lambda: cell_state(5)})

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    for _ in range(2):
        keeper.save({"a.b.s0": lambda: cell_state(6)})
    folder = tmp_path / "cells" / "a.b.s0" / states.FOLDER
    path = folder / "2.safetensors"
    assert told == [
        Warned(f"the state of training is not saved, though training goes on: cannot write {path} "
               "of 348 bytes: No space left on device")
    ]  # fmt: skip
    assert same(read_state(folder, BOUND).state, cell_state(5))
    assert sorted(path.name for path in folder.iterdir()) == ["1.json", "1.safetensors"]
