"""Estimated disk space: near what a study writes; refused where it does not fit."""

import re
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest

from tests.support.worlds import tiny_study
from unfreeze import Study
from unfreeze.config.schema import StudyConfig
from unfreeze.data.sources import open_source
from unfreeze.errors import UserError
from unfreeze.events import Event, Understood
from unfreeze.report.page import write_report
from unfreeze.statistics.study_results import read_study_results
from unfreeze.storage.cache import folder_bytes
from unfreeze.storage.study_dir import StudyDir
from unfreeze.study import disk, run
from unfreeze.study.disk import DiskEstimate, estimate_writes_before_scan, refuse_without_room, reserved, same_disk
from unfreeze.study.network_plan import make_plan
from unfreeze.train import checkpoint as saving

SHIFT = {"small": {"train_per_class": 5, "val_per_class": 2}}
STUDIES: dict[str, dict[str, Any]] = {
    "one after another": {"strategies": {"all": {"train": "all", "early_stopping": {"patience": 3}}}, "seeds": 3},
    "in lock-step, tuned": {
        "strategies": {
            "last": {"train": {"last": 1}, "tune": {"optimizer.lr": [1e-3, 1e-2]}},
            "two": {"phases": [{"train": "head", "epochs": 1}, {"train": {"last": 2}, "epochs": 1}]},
        },
        "seeds": 1,
    },
    "SGD": {"strategies": {"sgd": {"train": "all", "optimizer": {"name": "sgd", "momentum": 0.9}}}, "seeds": 1},
}


def at_first(config: StudyConfig, out: Path) -> DiskEstimate:
    source = open_source(config.data, config.tests, Path.cwd(), config.check.follow_symlinks)
    return estimate_writes_before_scan(StudyDir(out), make_plan(config, len(source.classes)), len(source.items))


@pytest.mark.parametrize("name", [*list(STUDIES)[:2], pytest.param("SGD", marks=pytest.mark.slow)])
@pytest.mark.usefixtures("with_report")
def test_what_is_written_is_predicted(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saving, "SAVE_SECONDS", 0.0)  # a state at every step
    monkeypatch.setattr(saving, "SHARE", 1e9)
    out, predicted, peak = tmp_path / "out", list[DiskEstimate](), 0
    replace, told = Path.replace, run.estimate_writes

    def watched(self: Path, target: Path) -> Path:
        nonlocal peak
        peak = max(peak, folder_bytes(out))  # the temporary file and what it replaces, too
        return replace(self, target)

    def estimate_writes(*given: Any) -> DiskEstimate:
        predicted.append(told(*given))
        return predicted[-1]

    monkeypatch.setattr(Path, "replace", watched)
    monkeypatch.setattr(run, "estimate_writes", estimate_writes)
    config = Study(**tiny_study(tmp_path, regimes=SHIFT, **STUDIES[name])).config
    first = at_first(config, out)
    run.run_study(config, out, lambda event: None, workers=0)
    cells_peak = peak  # before the report, which is the larger part of such a small study
    write_report(read_study_results(StudyDir(out)))
    found = predicted[0]

    cells = folder_bytes(out / "cells")
    assert cells <= found.cells <= 1.1 * cells
    assert first.cells <= found.cells
    assert first.tables == found.tables
    tables = folder_bytes(out) - cells
    assert tables <= found.tables <= 1.4 * tables  # pictures of the best model may be more and larger
    assert cells_peak <= found.cells + found.states <= 2.5 * cells_peak  # candidates end one after another
    assert folder_bytes(out) <= peak <= found.bytes

    run.run_study(config, out, lambda event: None, workers=0)
    assert predicted[1].cells == predicted[1].states == 0  # nothing is missing


Usage = namedtuple("Usage", "total used free")


def test_too_little_room_is_refused_with_what_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found, out = DiskEstimate(cells=20 * 10**6, states=70 * 10**6, tables=10 * 10**6), tmp_path / "runs" / "a"
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda path: Usage(10**12, 0, 110 * 10**6))
    refuse_without_room(out, found)
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda path: Usage(10**12, 0, 80 * 10**6))
    with pytest.raises(UserError) as caught:
        refuse_without_room(out, found)
    assert str(caught.value) == (
        f"{out} is on a disk with 80.0 MB free, and the study may still write 100.0 MB (20.0 MB of models and "
        "predictions, 70.0 MB of training states, 10.0 MB of tables and report) there\n"
        "  expected: 110.0 MB free, a tenth more than that\n"
        "  fix:      free 30.0 MB on that disk, give another with --out DIR, or ask for fewer cells"
    )
    assert not out.parent.exists()


def test_the_disk_of_the_study_counts_and_not_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Path] = []

    def usage(path: Path) -> Usage:
        asked.append(path)
        return Usage(10**12, 0, 10**12)

    monkeypatch.setattr(disk.shutil, "disk_usage", usage)
    found = DiskEstimate(cells=10, states=20, tables=70)
    refuse_without_room(tmp_path / "not" / "there", found)
    assert asked == [tmp_path]  # the nearest folder that is there
    assert same_disk(tmp_path / "cache", tmp_path / "runs" / "a")
    assert reserved(tmp_path / "cache", tmp_path / "runs" / "a", found) == 110
    monkeypatch.setattr(disk, "same_disk", lambda one, other: False)
    assert reserved(tmp_path / "cache", tmp_path / "runs" / "a", found) == 0


def test_a_run_is_refused_before_an_image_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "free_bytes", lambda path: 10**6)
    told: list[Event] = []
    with pytest.raises(UserError, match="is on a disk with 1.0 MB free, and the study may still write"):
        run.run_study(Study(**tiny_study(tmp_path)).config, tmp_path / "runs" / "a", told.append, workers=0)
    assert [type(event) for event in told] == [Understood]
    assert not (tmp_path / "runs").exists()


def test_plan_says_what_run_would(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    from unfreeze.cli.app import main

    monkeypatch.chdir(tmp_path)
    study = tiny_study(tmp_path)
    (tmp_path / "study.yaml").write_text(
        f"name: tiny\ndata: photographs\nbackbone: {{name: test_resnet, weights: weights.safetensors}}\n"
        f"image_size: 32\nstrategies: {{head: {{train: head}}}}\nregimes: {{small: {study['regimes']['small']}}}\n"
        "seeds: 1\nepochs: 1\n"
    )
    assert main(["plan", "study.yaml", "--out", "elsewhere/a"]) == 0
    line = [line for line in capsys.readouterr().out.splitlines() if line.startswith("written to ")]
    assert re.fullmatch(
        r"written to elsewhere/a: up to 6\.\d MB, 8\.\d kB of it for models and predictions; [\d.]+ .B available",
        line[0],
    )
    monkeypatch.setattr(disk, "free_bytes", lambda path: 10**6)
    assert main(["plan", "study.yaml", "--out", "elsewhere/a"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "warning: the study cannot run: elsewhere/a is on a disk with 1.0 MB free, and the study may" in shown
    assert main(["run", "study.yaml", "--out", "elsewhere/a"]) == 2
    assert "unfreeze: elsewhere/a is on a disk with 1.0 MB free, and the study may" in capsys.readouterr().err
    assert not (tmp_path / "elsewhere").exists()
