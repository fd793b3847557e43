"""Cells in several processes: the same numbers, also when one fails, dies or is stopped."""

import json
import os
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.choices import candidates, read_study
from tests.support.finished import all_but_times
from tests.support.stops import Stopped
from tests.support.studies import MANY, TWO_GROUPS
from tests.support.worlds import tiny_study
from unfreeze import Results, Study, slots
from unfreeze.activations.batches import CacheStats
from unfreeze.config.schema import StudyConfig
from unfreeze.errors import UserError
from unfreeze.events import (
    CellFailed,  # fmt: skip
    CellFinished,
    CellsLeft,
    CellStarted,
    Emit,
    EpochEnded,
    Event,
    Planned,
    Warned,
)
from unfreeze.storage.atomic import DiskFull
from unfreeze.storage.event_log import EventLog, EventReader
from unfreeze.storage.records import read_json, read_table
from unfreeze.storage.study_dir import StudyDir
from unfreeze.study.executors import processes
from unfreeze.study.executors.processes import ProcessExecutor

LONG = TWO_GROUPS | {"epochs": 30}
posix = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNFREEZE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen]:
    """The processes that were started, in order."""
    processes: list[subprocess.Popen] = []

    class Noted(subprocess.Popen):
        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, **named)
            if "unfreeze.worker" in str(self.args):
                processes.append(self)

    monkeypatch.setattr(slots.subprocess, "Popen", Noted)
    return processes


def run(folder: Path, out: str, count: int, emit: Emit = lambda event: None, **values: Any) -> Results:
    return Study(**tiny_study(folder, **values)).run(folder / out, emit=emit, workers=0, parallel=count)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two groups of so many epochs that they can be stopped in their midst, run in one process."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNFREEZE_CACHE", str(folder / "cache"))
        return run(folder, "one", 1, **LONG).path


def forwards(out: Path) -> int:
    return read_json(out / "shared.json")["forwards"]


@pytest.mark.parametrize("count", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_no_number_depends_on_how_many_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, started: list[subprocess.Popen], count: int
) -> None:
    events: list[Event] = []
    run(tmp_path, "one", 1, **MANY)
    assert not started
    monkeypatch.setenv("UNFREEZE_CACHE", str(tmp_path / "another cache"))
    run(tmp_path, "several", count, events.append, **MANY)
    assert len(started) == count
    assert all_but_times(tmp_path / "several") == all_but_times(tmp_path / "one")
    assert forwards(tmp_path / "several") == forwards(tmp_path / "one")  # no work is done twice
    (cells,) = (event.cells for event in events if isinstance(event, Planned))
    assert sorted(event.cell for event in events if isinstance(event, CellStarted)) == sorted(cells)
    logs = sorted(path.name for path in (tmp_path / "several" / "events").iterdir())
    assert logs == ["main.jsonl", *(f"slot-{number}.jsonl" for number in range(1, count + 1))]
    logged = EventReader(tmp_path / "several").read()
    for kind in (Planned, CellStarted, EpochEnded, CellFinished, CellFailed):
        shown = [event for event in events if isinstance(event, kind)]
        assert sorted(map(str, shown)) == sorted(str(event) for event in logged if isinstance(event, kind))


def test_cells_that_fail_or_diverge_stop_no_other(tmp_path: Path) -> None:
    """One image that only the larger regime trains on vanishes once the study is planned."""
    strategies = {"all": {"train": "all"}, "diverges": {"train": "all", "optimizer": {"name": "sgd", "lr": 1e30}}}
    regimes = {"small": {"train_per_class": 2, "val_per_class": 2}, "large": {"train_per_class": 5, "val_per_class": 2}}
    values = {"strategies": strategies, "regimes": regimes, "budget": {"disk": "0 B"}}
    events: list[Event] = []
    gone: list[Path] = []

    def run_without_one(out: str, count: int) -> Results:
        def emit(event: Event) -> None:
            events.append(event)
            if isinstance(event, Planned):
                splits = read_table(tmp_path / out / "splits.csv")
                larger = splits[(splits["large.s0"] == "train") & (splits["small.s0"] != "train")]
                paths = read_table(tmp_path / out / "catalog.csv").set_index("id")["path"]
                path = tmp_path / "photographs" / paths[larger["id"].iloc[0]]
                gone.append(path.rename(path.with_suffix(".gone")))

        found = run(tmp_path, out, count, emit, **values)
        gone[-1].rename(gone[-1].with_suffix(".png"))
        return found

    one, several = run_without_one("one", 1), run_without_one("several", 2)
    assert several.failed == one.failed
    assert set(several.failed) == {"all.large.s0", "diverges.small.s0", "diverges.large.s0"}
    assert gone[0] == gone[1]
    assert all_but_times(several.path) == all_but_times(one.path)
    told = {event.cell: (event.error, event.diverged) for event in events if isinstance(event, CellFailed)}
    assert told["diverges.small.s0"][1]
    assert not told["all.large.s0"][1]
    assert told["all.large.s0"][0] == read_json(one.path / "cells" / "all.large.s0" / "error.json")["error"]


@posix
def test_a_killed_process_costs_the_others_nothing_and_they_continue_its_cells(
    whole: Path, started: list[subprocess.Popen]
) -> None:
    events: list[Event] = []

    def kill_first(event: Event) -> None:
        events.append(event)
        if isinstance(event, EpochEnded) and event.cell == "all.small.s0" and len(started) == 2:
            started[0].kill()

    several = run(whole.parent, "killed", 2, kill_first, **LONG)
    assert several.failed == ()
    assert all_but_times(several.path) == all_but_times(whole)
    assert [event.text for event in events if isinstance(event, Warned) and "process" in event.text] == [
        "a process that ran cells was ended by SIGKILL; another one continues all.small.s0"
    ]
    begun = [event.cell for event in events if isinstance(event, CellStarted)]
    assert sorted(begun) == ["all.small.s0", "all.small.s0", "last.small.s0"]
    assert len(started) == 2  # none is started in its place: it may have been for memory
    assert started[1].returncode == 0


@pytest.mark.slow
def test_a_run_that_is_stopped_ends_as_if_it_never_was(whole: Path, started: list[subprocess.Popen]) -> None:
    def stop(event: Event) -> None:
        if isinstance(event, EpochEnded):
            raise Stopped

    with pytest.raises(Stopped):
        run(whole.parent, "stopped", 2, stop, **LONG)
    assert [process.poll() is not None for process in started] == [True, True]
    assert list((whole.parent / "stopped").rglob("running/*.safetensors"))
    assert read_json(whole.parent / "stopped" / "shared.json")["runs"][0]["seconds"]["cells"] > 0.0
    run(whole.parent, "stopped", 1, **LONG)
    assert all_but_times(whole.parent / "stopped") == all_but_times(whole)


KILLED = "was ended by SIGKILL"


class FakeSlot:
    """A slot without a process: at each poll it takes a step, a list of answers or how it ended."""

    def __init__(self, steps: list[list[dict[str, Any]] | str]) -> None:
        self.asked, self.steps = list[Any](), steps
        self.step: list[dict[str, Any]] | str = []

    def ask(self, what: Any) -> None:
        self.asked.append(json.loads(json.dumps(what)))

    def ended(self) -> str:
        self.step = self.steps.pop(0) if self.steps else []
        return self.step if isinstance(self.step, str) else ""

    def heard(self) -> list[dict[str, Any]]:
        return self.step if isinstance(self.step, list) else []


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> list[FakeSlot]:
    """Slots that the test lists, in the order in which they start."""
    listed: list[FakeSlot] = []
    started = iter(listed)
    monkeypatch.setattr(processes, "Slot", lambda kind, payload, log: next(started))
    monkeypatch.setattr(processes, "end", lambda ended: None)
    monkeypatch.setattr(processes, "POLL_SECONDS", 0.0)
    return listed


def executor(folder: Path, told: list[Event], count: int = 2) -> ProcessExecutor:
    supply: Any = SimpleNamespace(rows={}, prefixes={}, facts=CacheStats())
    briefing = {"cells": {cell_id: {"fingerprint": "f"} for cell_id in "abcd"}}
    return ProcessExecutor(count, briefing, supply, StudyDir(folder), told.append, told.append)


def error_of(folder: Path, cell_id: str) -> str:
    return read_json(folder / "cells" / cell_id / "error.json")["error"]


def test_cells_whose_process_is_killed_twice_fail_and_say_why(tmp_path: Path, fakes: list[FakeSlot]) -> None:
    told: list[Event] = []
    fakes += [
        FakeSlot([[{"cell": "a", "failed": False}], KILLED]),
        FakeSlot([KILLED]),
        FakeSlot([[{"cell": "c", "failed": False}, {"ended": ["c"]}], KILLED]),
    ]
    with executor(tmp_path, told) as slots_of_cells:
        slots_of_cells.submit(["a", "b"], 1.0)
        slots_of_cells.submit(["c"], 2.0)
        slots_of_cells.finish()
    assert slots_of_cells.count == 1  # it may have been for memory
    assert fakes[2].asked[1:] == [{"run": ["c"]}, {"run": ["b"]}]
    assert slots_of_cells.failed == ["b"]
    assert slots_of_cells.predicted == 3.0
    assert error_of(tmp_path, "b") == (
        "the process that ran it was ended by SIGKILL, for the second time\n"
        "  expected: a process that lives until its cells are finished; where memory runs out, the system ends one\n"
        "  fix:      run the same command again, with a smaller --parallel or without"
    )
    assert [event.text for event in told if isinstance(event, Warned)] == [
        "a process that ran cells was ended by SIGKILL; another one continues c",
        "a process that ran cells was ended by SIGKILL; another one continues b",
    ]
    assert [event.cell for event in told if isinstance(event, CellFailed)] == ["b"]


def test_cells_whose_process_ends_by_an_exception_fail_at_once(tmp_path: Path, fakes: list[FakeSlot]) -> None:
    """Another process would end by the same exception, and not for want of memory."""
    told: list[Event] = []
    broken = {"broken": "failed: RuntimeError: a is not the cell that was planned"}
    fakes.append(FakeSlot([[broken], "ended with exit code 1"]))
    with executor(tmp_path, told) as slots_of_cells:
        slots_of_cells.submit(["a"], 1.0)
        slots_of_cells.finish()
    assert (slots_of_cells.failed, slots_of_cells.count) == (["a"], 2)
    assert error_of(tmp_path, "a") == (
        "the process that ran it failed: RuntimeError: a is not the cell that was planned\n"
        "  expected: a process that runs its cells to their end\n"
        "  fix:      run the same command again, without --parallel to see the error where it happens"
    )


def test_what_a_slot_computes_is_counted_here_and_sent_to_the_others(tmp_path: Path, fakes: list[FakeSlot]) -> None:
    facts = {"seconds": [], "rows": [], "forwards": [], "altered": [3]}
    fakes.append(FakeSlot([[{"facts": facts}, {"unstored": "the disk is full"}, {"ended": ["a"]}]]))
    fakes.append(FakeSlot([[{"unstored": "another reason"}, {"ended": ["b"]}]]))
    with executor(tmp_path, []) as slots_of_cells:
        slots_of_cells.submit(["a"], 1.0)
        slots_of_cells.submit(["b"], 1.0)
        slots_of_cells.finish()
    assert slots_of_cells.supply.facts == CacheStats(altered_chunks=3, unstored="the disk is full")
    assert {"facts": facts} in fakes[1].asked
    assert {"facts": facts} not in fakes[0].asked


def test_a_warning_of_several_slots_is_shown_once(tmp_path: Path, fakes: list[FakeSlot]) -> None:
    told: list[Event] = []
    fakes += [FakeSlot([[{"ended": []}]]) for _ in "ab"]
    with executor(tmp_path, told) as slots_of_cells:
        for number, cell_id in enumerate("ab", start=1):
            slots_of_cells.submit([cell_id], 1.0)
            log = EventLog(tmp_path, f"slot-{number}")
            log.append(Warned("nothing more is stored by this run"))
            log.append(CellStarted(cell_id, 7))
        slots_of_cells.finish()
    assert sum(isinstance(event, Warned) for event in told) == 1
    assert sum(isinstance(event, CellStarted) for event in told) == 2


def test_errors_of_the_run_end_it(tmp_path: Path, fakes: list[FakeSlot]) -> None:
    words = {"given": "no weights", "expected": "weights", "fix": "restore them"}
    for answer, kind in (({"refused": words}, UserError), ({"full": {"path": "x", **words}}, DiskFull)):
        fakes.append(FakeSlot([[answer]]))
        with executor(tmp_path, []) as slots_of_cells:
            slots_of_cells.submit(["a"], 1.0)
            with pytest.raises(kind, match=r"^no weights\n  expected: weights\n  fix:      restore them$"):
                slots_of_cells.finish()


def test_a_time_limit_leaves_the_same_cells(tmp_path: Path) -> None:
    events: list[Event] = []
    study = Study(**tiny_study(tmp_path, **TWO_GROUPS))
    results = study.run(tmp_path / "out", emit=events.append, workers=0, parallel=2, seconds=0.0)
    assert set(results.left) == {"all.small.s0", "last.small.s0"}
    assert [event.cells for event in events if isinstance(event, CellsLeft)] == [results.left]


def test_none_is_too_few(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        run(tmp_path, "out", 0)
    assert str(caught.value) == (
        "parallel: 0\n  expected: a number of processes from 1\n  fix:      leave it out, or say 2 or more"
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("preset", ["quick", "thorough", "article", "demo"])
def test_a_study_sent_to_a_slot_is_the_same_study(preset: str) -> None:
    """What is not set decides where defaults come from, so that must come across, too."""
    study = read_study(preset=preset, values={"data": "photos"} if preset != "article" else {})
    told = StudyConfig.model_validate(json.loads(json.dumps(study.model_dump(mode="json", exclude_unset=True))))
    assert told == study
    assert {name: candidates(told, name) for name in told.strategies} == {
        name: candidates(study, name) for name in study.strategies
    }
