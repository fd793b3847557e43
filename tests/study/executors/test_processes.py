"""Cells in several processes: the same numbers, and the same when one of them fails, dies or is stopped."""

import errno
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.choices import candidates, read_study
from tests.support.finished import all_but_times
from tests.support.stops import Stopped
from tests.support.studies import EARLY, MANY, PLAIN, TWO_GROUPS
from tests.support.worlds import tiny_study
from unfreeze import Results, Study, slots
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
from unfreeze.storage.event_log import EventReader
from unfreeze.storage.records import read_json, read_table

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
def test_a_process_that_is_killed_costs_the_others_nothing_and_its_cells_go_on_there(
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
        "a process that ran cells was ended by SIGKILL; in another one go on: all.small.s0"
    ]
    begun = [event.cell for event in events if isinstance(event, CellStarted)]
    assert sorted(begun) == ["all.small.s0", "all.small.s0", "last.small.s0"]
    assert len(started) == 2  # none is started in its place: it may have been for memory
    assert started[1].returncode == 0


@posix
@pytest.mark.slow
def test_cells_whose_process_is_killed_twice_fail_and_say_why(tmp_path: Path, started: list[subprocess.Popen]) -> None:
    def kill(event: Event) -> None:
        if isinstance(event, EpochEnded) and event.cell == "all.small.s0":
            for process in started:
                process.kill()

    several = run(tmp_path, "several", 2, kill, **TWO_GROUPS)
    assert "all.small.s0" in several.failed
    assert read_json(several.path / "cells" / "all.small.s0" / "error.json")["error"] == (
        "the process that ran it was ended by SIGKILL, for the second time\n"
        "  expected: a process that lives until its cells are finished; where memory runs out, the system ends one\n"
        "  fix:      run the same command again, with a smaller --parallel or without"
    )
    again = run(tmp_path, "several", 1, **TWO_GROUPS)
    assert again.failed == ()
    assert all_but_times(again.path) == all_but_times(run(tmp_path, "one", 1, **TWO_GROUPS).path)


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


def test_a_cache_that_fails_costs_the_store_alone_and_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, started: list[subprocess.Popen]
) -> None:
    groups: dict[str, Any] = {"strategies": EARLY, "regimes": PLAIN, "seeds": 2}
    run(tmp_path, "whole", 1, **groups)
    monkeypatch.setenv("UNFREEZE_CACHE", str(tmp_path / "another cache"))
    (early := tmp_path / "early").mkdir()
    (early / "sitecustomize.py").write_text(  # which a process imports when it starts
        "import errno, os\nfrom unfreeze.storage import shards\n\n"
        "def fails(self, row, array):\n    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))\n\n"
        "shards.NewShard.append = fails\n"
    )
    monkeypatch.syspath_prepend(str(early))
    events: list[Event] = []
    run(tmp_path, "out", 2, events.append, **groups)
    assert len(started) == 2
    why = f"cannot write to the cache: {os.strerror(errno.ENOSPC)}"
    said = [event.text for event in events if isinstance(event, Warned)]
    assert [text for text in said if "stored" in text] == [
        f"nothing more is stored by this run, and frozen stages run live: {why}; free space there, or name "
        "another folder in UNFREEZE_CACHE"
    ]
    assert read_json(tmp_path / "out" / "shared.json")["runs"][0]["unstored"] == why
    assert all_but_times(tmp_path / "out") == all_but_times(tmp_path / "whole")


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
def test_a_study_that_is_told_is_the_study(preset: str) -> None:
    """What is not set decides where defaults come from, so that must come across, too."""
    study = read_study(preset=preset, values={"data": "photos"} if preset != "article" else {})
    told = StudyConfig.model_validate(json.loads(json.dumps(study.model_dump(mode="json", exclude_unset=True))))
    assert told == study
    assert {name: candidates(told, name) for name in told.strategies} == {
        name: candidates(study, name) for name in study.strategies
    }
