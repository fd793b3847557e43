"""Pictures of more than 8 bits in a study: which bits count is part of what a cell depends on, if it has such."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.worlds import tiny_study, write_photographs
from unfreeze import Study
from unfreeze.events import CellStarted, Event
from unfreeze.storage.records import read_json

HEAD = {
    "strategies": {"head": {"train": "head", "optimizer": {"lr": 1e-2}}},
    "regimes": {"small": {"train_per_class": 5, "val_per_class": 2}},
}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNFREEZE_CACHE", str(tmp_path / "cache"))


def run(folder: Path, **check: object) -> tuple[Path, int]:
    """Return the study directory, and how many cells were trained."""
    events: list[Event] = []
    study = tiny_study(folder, **HEAD, check={"near_duplicates": "ignore", **check})
    Study(**study).run(folder / "out", emit=events.append, workers=0)
    return folder / "out", sum(isinstance(event, CellStarted) for event in events)


def in_twelve_bits(folder: Path) -> None:
    for path in write_photographs(folder / "photographs").rglob("*.png"):
        grey = np.asarray(Image.open(path).convert("L")).astype(np.uint16) << 4
        grey[0, 0] = 4095
        Image.fromarray(grey).save(path)


def test_cells_run_again_where_other_bits_count_and_only_there(tmp_path: Path) -> None:
    in_twelve_bits(tmp_path)
    out, trained = run(tmp_path)
    assert trained == 1
    record = read_json(out / "study.json")
    assert record["reading"] == {"bands": [], "bits": 12}
    assert record["notes"][0].startswith("36 images of more than 8 bits have no value above 4,095: 12 bits count")
    fingerprint = read_json(out / "cells/head.small.s0/cell.json")["data_fingerprint"]
    assert run(tmp_path, bits=12)[1] == 0
    assert run(tmp_path, max_pixels="120M")[1] == 0
    assert run(tmp_path, bits=16)[1] == 1
    assert read_json(out / "cells/head.small.s0/cell.json")["data_fingerprint"] != fingerprint
    assert run(tmp_path)[1] == 1


def test_ordinary_photographs_have_no_bits_to_choose(tmp_path: Path) -> None:
    out, _ = run(tmp_path)
    assert read_json(out / "study.json")["reading"] == {"bands": [], "bits": 16}
    for check in ({"bits": 12}, {"bands": [0, 1, 2]}):
        assert run(tmp_path, **check)[1] == 0


def test_cells_in_two_processes_read_what_the_run_read(tmp_path: Path) -> None:
    in_twelve_bits(tmp_path)
    study = tiny_study(tmp_path, **HEAD, seeds=2, check={"near_duplicates": "ignore"})
    results = Study(**study).run(tmp_path / "out", workers=0, parallel=2)
    assert results.table["status"].tolist() == ["finished"] * 2
