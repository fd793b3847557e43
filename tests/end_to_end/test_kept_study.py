"""A study directory of 0.1.0 stays its user's: a later version trains nothing again, computes no row, rewrites no cell.

This test stays for ever. A setting that is added later enters a fingerprint only where it is not at its default.
"""

import hashlib
from pathlib import Path

import pytest

from tests.support.kept import kept_study
from unfreeze import Results, Study
from unfreeze.events import CellStarted, Event, Planned, Warned
from unfreeze.storage.records import read_json


def contents(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_a_kept_study_runs_without_training_or_computing_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = kept_study(tmp_path)
    monkeypatch.setenv("UNFREEZE_CACHE", str(place / "cache"))
    cells, rows = contents(place / "out" / "cells"), contents(place / "cache" / "activations")
    runs = read_json(place / "out" / "shared.json")["runs"]
    before = Results(place / "out").table
    splits = (place / "out" / "splits.csv").read_text()
    events: list[Event] = []

    results = Study.from_yaml(place / "study.yaml").run(place / "out", workers=0, emit=events.append)

    (planned,) = (event for event in events if isinstance(event, Planned))
    assert len(planned.cells) == 21
    assert planned.finished == planned.cells
    assert not [event for event in events if isinstance(event, CellStarted)]
    assert not [event.text for event in events if isinstance(event, Warned) and "run again" in event.text]
    assert contents(place / "out" / "cells") == cells
    assert contents(place / "cache" / "activations") == rows
    assert read_json(place / "out" / "shared.json")["runs"] == runs
    assert (place / "out" / "splits.csv").read_text() == splits
    assert results.table[list(before.columns)].equals(before)
