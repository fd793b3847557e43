"""An edited study runs what is new, keeps what is unchanged bit for bit, and says what is no part of it any more."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.worlds import tiny_study
from unfreeze import Study
from unfreeze.results.evidence import read_evidence
from unfreeze.results.report import render_report
from unfreeze.store import StudyDir, read_json, read_table
from unfreeze.study import environment
from unfreeze.study.events import BetweenSteps, CellResumed, CellStarted, Event, Planned, Warned
from unfreeze.study.run import run_study

CLOCK = ["seconds_per_epoch", "seconds_total", "seconds_shared"]
HEAD = {"train": "head", "optimizer": {"lr": 1e-2}}
LAST = {"train": {"last": 1}, "head": {"hidden": [8], "dropout": [0.5]}}
MORE = {"train": "head", "optimizer": {"name": "sgd", "lr": 1e-2}}
SMALL = {"train_per_class": 5, "val_per_class": 2}
BASE: dict[str, Any] = {"strategies": {"aaa": HEAD, "bbb": LAST}, "regimes": {"small": SMALL}, "seeds": 2, "epochs": 1}
AAA, BBB = ["aaa.small.s0", "aaa.small.s1"], ["bbb.small.s0", "bbb.small.s1"]
EVERY = ["aaa.small.s0", "bbb.small.s0", "aaa.small.s1", "bbb.small.s1"]
OTHERWISE = "finished with other settings or images ({}), so not part of this study now: {}"
LEFT = "2 cells of an earlier version of the study are not part of it now; their files stay in cells/: {}"


class Stopped(BaseException):
    """What ends a run, as a signal would."""


def run(folder: Path, out: Path, stop: type[Event] | None = None, seconds: float | None = None, **values: Any):
    """Run a study of the small world, if wanted up to an event; return what was told."""
    events: list[Event] = []

    def emit(event: Event) -> None:
        events.append(event)
        if stop is not None and isinstance(event, stop):
            raise Stopped

    study = Study(**tiny_study(folder, **{**BASE, **values})).config
    try:
        run_study(study, out, emit, workers=0, seconds=seconds)
    except Stopped:
        pass
    return events


def ran(events: list[Event]) -> list[str]:
    return [event.cell for event in events if isinstance(event, CellStarted)]


def said(events: list[Event]) -> list[str]:
    return [event.text for event in events if isinstance(event, Warned)]


def files(out: Path, cell: str) -> dict[str, tuple[bytes, int]]:
    """Return content and time of change of a cell's files."""
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in (out / "cells" / cell).iterdir()}


def numbers(out: Path) -> pd.DataFrame:
    return read_table(out / "results.csv").drop(columns=CLOCK)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the photographs, the weights and a finished study in ``base``."""
    folder = tmp_path_factory.mktemp("world")
    run(folder, folder / "base")
    return folder


@pytest.fixture
def out(world: Path, tmp_path: Path) -> Path:
    """Return a copy of the finished study."""
    return Path(shutil.copytree(world / "base", tmp_path / "out"))


@dataclass(frozen=True)
class Edit:
    """An edit of the study: the new values, the cells that run because of it, and what is said."""

    values: dict[str, Any]
    runs: list[str]
    says: list[str]


def strategies(**more: Any) -> dict[str, Any]:
    return {"strategies": {"aaa": HEAD, "bbb": LAST} | more}


EDITS = {
    "a strategy more": Edit(strategies(ccc=MORE), ["ccc.small.s0", "ccc.small.s1"], []),
    "a strategy less": Edit({"strategies": {"aaa": HEAD}}, [], [LEFT.format(", ".join(BBB))]),
    "a strategy renamed": Edit(
        {"strategies": {"aaa": HEAD, "zzz": LAST}},
        ["zzz.small.s0", "zzz.small.s1"],
        [LEFT.format(", ".join(BBB))],
    ),
    "two strategies that change names": Edit(
        {"strategies": {"aaa": LAST, "bbb": HEAD}},
        EVERY,
        [
            OTHERWISE.format(
                'head.name linear, now null; head.pool null, now native; head.hidden null, now [8]; and 4 more',
                ", ".join(AAA),
            ),
        ],
    ),
    "another learning rate": Edit(
        strategies(aaa={"train": "head", "optimizer": {"lr": 1e-3}}),
        AAA,
        [OTHERWISE.format("phases.0.optimizer.lr 0.01, now 0.001", ", ".join(AAA))],
    ),
    "tuned instead": Edit(
        strategies(aaa={"train": "head", "tune": {"optimizer.lr": [1e-3, 1e-2]}}),
        AAA,
        [],
    ),
    "more epochs": Edit(
        {"epochs": 2}, EVERY, [OTHERWISE.format("phases.0.epochs 1, now 2", ", ".join(EVERY))]
    ),
    "more epochs for one": Edit(
        strategies(bbb=LAST | {"epochs": 2}), BBB, [OTHERWISE.format("phases.0.epochs 1, now 2", ", ".join(BBB))]
    ),
    "a seed more": Edit({"seeds": 3}, ["aaa.small.s2", "bbb.small.s2"], []),
    "a seed less": Edit({"seeds": 1}, [], [LEFT.format("aaa.small.s1, bbb.small.s1")]),
    "a regime more": Edit(
        {"regimes": {"smaller": SMALL | {"train_per_class": 3}, "small": SMALL}},
        [f"{name}.smaller.s{seed}" for seed in (0, 1) for name in ("aaa", "bbb")],
        [],
    ),
    "fewer images in a regime": Edit(
        {"regimes": {"small": SMALL | {"train_per_class": 4}}},
        EVERY,
        [OTHERWISE.format("regime's train_per_class 5, now 4; other images", ", ".join(EVERY))],
    ),
    "augmentation in a regime": Edit(
        {"regimes": {"small": SMALL | {"augment": "flip_crop"}}},
        EVERY,
        [OTHERWISE.format("regime's augment none, now flip_crop", ", ".join(EVERY))],
    ),
    "another metric": Edit(
        {"metric": "macro_f1"}, EVERY, [OTHERWISE.format("metric accuracy, now macro_f1", ", ".join(EVERY))]
    ),
    "another size": Edit(
        {"image_size": 24}, EVERY, [OTHERWISE.format("image_size 32, now 24", ", ".join(EVERY))]
    ),
    "another precision": Edit(
        {"precision": "bfloat16"}, EVERY, [OTHERWISE.format("precision float32, now bfloat16", ", ".join(EVERY))]
    ),
    "other numbers stored": Edit(
        {"activations": "float16"}, EVERY, [OTHERWISE.format("activations float32, now float16", ", ".join(EVERY))]
    ),
    "other batches": Edit(
        {"batch_size": 5}, EVERY, [OTHERWISE.format("batch_size 4, now 5", ", ".join(EVERY))]
    ),
    "another name": Edit({"name": "other"}, [], []),
    "another order": Edit({"strategies": {"bbb": LAST, "aaa": HEAD}}, [], []),
    "a budget": Edit({"budget": {"disk": "1GB", "time": "1h"}}, [], []),
}


@pytest.mark.parametrize("name", EDITS)
def test_an_edited_study_runs_what_is_new_and_keeps_what_is_unchanged(name: str, world: Path, out: Path) -> None:
    edit = EDITS[name]
    before = {cell: files(out, cell) for cell in EVERY}
    events = run(world, out, **edit.values)
    planned = next(event.cells for event in events if isinstance(event, Planned))
    print(said(events))
    assert sorted(ran(events)) == sorted(edit.runs)
    assert said(events) == edit.says
