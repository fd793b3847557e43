"""Pictures of more than 8 bits: cells depend on which bits count, if there are such pictures."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.support.prepared import prepared_study
from tests.support.worlds import tiny_study, write_photographs
from unfreeze import Study
from unfreeze.data.formats.reading import Reading
from unfreeze.study import run as run_module
from unfreeze.study.executors import slot_cells
from unfreeze.study.prepare import PreparedStudy

HEAD: dict[str, Any] = {
    "strategies": {"head": {"train": "head", "optimizer": {"lr": 1e-2}}},
    "regimes": {"small": {"train_per_class": 5, "val_per_class": 2}},
}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNFREEZE_CACHE", str(tmp_path / "cache"))


def prepared(folder: Path, **check: object) -> PreparedStudy:
    study = tiny_study(folder, **HEAD, check={"near_duplicates": "ignore", **check})
    return prepared_study(Study(**study).config, folder / "out")


def fingerprint(folder: Path, **check: object) -> str:
    (spec,) = prepared(folder, **check).cells.values()
    return spec.fingerprint


def in_twelve_bits(folder: Path) -> None:
    for path in write_photographs(folder / "photographs").rglob("*.png"):
        grey = np.asarray(Image.open(path).convert("L")).astype(np.uint16) << 4
        grey[0, 0] = 4095
        Image.fromarray(grey).save(path)


def test_cells_depend_on_which_bits_count(tmp_path: Path) -> None:
    in_twelve_bits(tmp_path)
    found = prepared(tmp_path)
    assert found.catalog.reading == Reading((), 12)
    assert found.notes[0].startswith("36 images of more than 8 bits have no value above 4,095: 12 bits count")
    as_found = fingerprint(tmp_path)
    assert fingerprint(tmp_path, bits=12) == fingerprint(tmp_path, max_pixels="120M") == as_found
    assert fingerprint(tmp_path, bits=16) != as_found


def test_cells_of_ordinary_photographs_depend_on_no_bits(tmp_path: Path) -> None:
    write_photographs(tmp_path / "photographs")
    assert prepared(tmp_path).catalog.reading == Reading((), 16)
    as_found = fingerprint(tmp_path)
    assert fingerprint(tmp_path, bits=12) == fingerprint(tmp_path, bands=[0, 1, 2]) == as_found


def test_cells_in_other_processes_read_what_the_run_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[dict[str, Any]] = []

    def briefing(*given: Any) -> dict[str, Any]:
        told.append(slot_cells.briefing(*given))
        raise KeyboardInterrupt

    in_twelve_bits(tmp_path)
    monkeypatch.setattr(run_module, "briefing", briefing)
    strategies = {**HEAD["strategies"], "all": {"train": "all"}}
    study = tiny_study(tmp_path, **HEAD | {"strategies": strategies}, check={"near_duplicates": "ignore"})
    with pytest.raises(KeyboardInterrupt):
        Study(**study).run(tmp_path / "out", workers=0, parallel=2)
    executor = slot_cells.executor_of(json.loads(json.dumps(told[0])), lambda event: None)
    assert executor.supply.catalog.reading.bits == 12
    assert list(executor.specs) == ["head.small.s0", "all.small.s0"]
