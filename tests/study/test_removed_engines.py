"""Studies of removed engines: finished cells stay, the rest is computed again with a warning."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.kept import kept_study
from tests.support.worlds import tiny_study
from unfreeze import Study
from unfreeze.events import BetweenSteps, CellFinished, CellResumed, CellStarted, Event, Warned
from unfreeze.storage.records import read_json, write_json
from unfreeze.train import device

HEAD = {"train": "head", "optimizer": {"lr": 1e-2}}
LAST = {"train": {"last": 1}, "head": {"hidden": [8], "dropout": [0.5]}}
LABEL = "test_resnet (weights), 32 pixels"
NCNN = {"name": "ncnn", "version": "1.0, pnnx 2", "batch": 1}
WINOGRAD = {"name": "winograd", "version": "2.14.1, rules 1", "batch": 16}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNFREEZE_CACHE", str(tmp_path / "cache"))


def computed_with(out: Path, engine: dict[str, Any]) -> None:
    """Make a study directory say that its frozen stages were computed by another engine."""
    record = read_json(out / "study.json")
    for found in record["engines"].values():
        found["engine"] |= engine
    write_json(out / "study.json", record)


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def about_engines(events: list[Event]) -> list[str]:
    return [event.text for event in events if isinstance(event, Warned) and "this study used" in event.text]


@pytest.mark.parametrize("engine", [NCNN, WINOGRAD], ids=lambda engine: engine["name"])
def test_a_finished_study_of_a_removed_engine_stays_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: dict[str, Any]
) -> None:
    place = kept_study(tmp_path)
    monkeypatch.setenv("UNFREEZE_CACHE", str(place / "cache"))
    computed_with(place / "out", engine)
    cells, rows = contents(place / "out" / "cells"), contents(place / "cache" / "activations")
    events: list[Event] = []
    Study.from_yaml(place / "study.yaml").run(place / "out", workers=0, emit=events.append)
    assert not [event for event in events if isinstance(event, CellStarted)]
    assert contents(place / "out" / "cells") == cells
    assert contents(place / "cache" / "activations") == rows
    (said,) = about_engines(events)
    assert f"this study used {engine['name']} {engine['version']} (float32, 1 thread), which is no longer" in said


def test_cells_added_to_a_study_of_a_removed_engine_are_computed_with_a_warning(tmp_path: Path) -> None:
    regimes = {"small": {"train_per_class": 5, "val_per_class": 2}}
    Study(**tiny_study(tmp_path, strategies={"head": HEAD}, regimes=regimes)).run(tmp_path / "out", workers=0)
    computed_with(tmp_path / "out", NCNN)
    before, events = contents(tmp_path / "out" / "cells" / "head.small.s0"), list[Event]()
    study = Study(**tiny_study(tmp_path, strategies={"head": HEAD, "last": LAST}, regimes=regimes))
    results = study.run(tmp_path / "out", workers=0, emit=events.append)
    assert not results.failed
    assert [event.cell for event in events if isinstance(event, CellFinished)] == ["last.small.s0"]
    assert contents(tmp_path / "out" / "cells" / "head.small.s0") == before
    engine = read_json(tmp_path / "out" / "study.json")["engines"][LABEL]["engine"]
    threads = "1 thread" if engine["threads"] == 1 else f"{engine['threads']} threads"
    assert about_engines(events) == [
        f"{LABEL}: this study used ncnn 1.0, pnnx 2 (float32, {threads}), which is no longer supported; using "
        f"{engine['name']} {engine['version']} (float32, {threads}) from now on. Finished cells keep their numbers, "
        "activations are computed again for the others, whose numbers may differ in the last digits; another --out "
        "computes all cells with one engine"
    ]
    assert read_json(tmp_path / "out" / "shared.json")["runs"][-1]["forwards"] > 0
    again: list[Event] = []
    study.run(tmp_path / "out", workers=0, emit=again.append)
    assert not about_engines(again)  # said once: study.json has the engine of today


def interrupted_at(step: int) -> Callable[[Event], None]:
    steps: list[Event] = []

    def emit(event: Event) -> None:
        if isinstance(event, BetweenSteps):
            steps.append(event)
            if len(steps) == step:
                raise KeyboardInterrupt

    return emit


def test_an_unfinished_cell_that_a_removed_engine_s_version_trained_begins_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, study = dict(device.versions()), Study(**tiny_study(tmp_path, strategies={"last": LAST}))
    with monkeypatch.context() as earlier, pytest.raises(KeyboardInterrupt):
        earlier.setattr(device, "versions", lambda: now | {"ncnn": "1.0"})
        study.run(tmp_path / "out", workers=0, emit=interrupted_at(5))
    events: list[Event] = []
    results = study.run(tmp_path / "out", workers=0, emit=events.append)
    assert not results.failed
    assert not [event for event in events if isinstance(event, CellResumed)]
    said = [event.text for event in events if isinstance(event, Warned) and "training state" in event.text]
    assert said == ["last.small.s0: its training state does not fit (ncnn: 1.0, no longer used), so it starts again"]
