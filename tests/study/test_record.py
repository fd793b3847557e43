"""An edited study runs only what changed, keeps the rest bit for bit, and warns of what is left over."""

import contextlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.support.prepared import prepared_study
from tests.support.worlds import tiny_study
from unfreeze import Study
from unfreeze.events import BetweenSteps, CellResumed, CellStarted, Event, Planned, Warned
from unfreeze.report.page import render_report
from unfreeze.statistics.study_results import read_study_results
from unfreeze.storage.records import read_json, read_table
from unfreeze.storage.study_dir import StudyDir
from unfreeze.study import cell as cell_module
from unfreeze.study.run import run_study
from unfreeze.train import device
from unfreeze.train.device import pick

CLOCK = ["seconds_per_epoch", "seconds_total", "seconds_shared", "seconds_per_image"]
HEAD = {"train": "head", "optimizer": {"lr": 1e-2}}
LAST = {"train": {"last": 1}, "head": {"hidden": [8], "dropout": [0.5]}}
MORE = {"train": "head", "optimizer": {"name": "sgd", "lr": 1e-2}}
SMALL = {"train_per_class": 5, "val_per_class": 1}
BASE: dict[str, Any] = {
    "strategies": {"aaa": HEAD, "quokka": LAST},
    "regimes": {"small": SMALL},
    "seeds": 2,
    "epochs": 1,
}
AAA, BBB = ["aaa.small.s0", "aaa.small.s1"], ["quokka.small.s0", "quokka.small.s1"]
EVERY = ["aaa.small.s0", "quokka.small.s0", "aaa.small.s1", "quokka.small.s1"]
OTHERWISE = "finished with other settings or images ({}), so not part of this study now (another --out keeps both): {}"
LEFT = "2 cells of an earlier version of the study are not part of it now; their files stay in cells/ and running/: {}"


class Stopped(BaseException):
    """What ends a run, as a signal would."""


def run(folder: Path, out: Path, stop: int | None = None, seconds: float | None = None, **values: Any) -> list[Event]:
    """Run a study of the small world, if wanted up to a step; return what was told."""
    events: list[Event] = []

    def emit(event: Event) -> None:
        events.append(event)
        if sum(isinstance(each, BetweenSteps) for each in events) == stop:
            raise Stopped

    study = Study(**tiny_study(folder, **{**BASE, **values})).config
    with contextlib.suppress(Stopped):
        run_study(study, out, emit, workers=0, seconds=seconds)
    return events


def ran(events: list[Event]) -> list[str]:
    return [event.cell for event in events if isinstance(event, CellStarted)]


def said(events: list[Event]) -> list[str]:
    return [event.text for event in events if isinstance(event, Warned)]


def files(out: Path, cell: str) -> dict[str, tuple[bytes, int]]:
    """Return content and time of change of a cell's files."""
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in (out / "cells" / cell).iterdir()}


def weights(out: Path, cell: str) -> bytes:
    return (out / "cells" / cell / "model.safetensors").read_bytes()


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
    return {"strategies": {"aaa": HEAD, "quokka": LAST} | more}


EDITS = {
    "a strategy more": Edit(strategies(ccc=MORE), ["ccc.small.s0", "ccc.small.s1"], []),
    "a strategy less": Edit({"strategies": {"aaa": HEAD}}, [], [LEFT.format(", ".join(BBB))]),
    "a strategy renamed": Edit(
        {"strategies": {"aaa": HEAD, "zzz": LAST}},
        ["zzz.small.s0", "zzz.small.s1"],
        [LEFT.format(", ".join(BBB))],
    ),
    "two strategies that change names": Edit(
        {"strategies": {"aaa": LAST, "quokka": HEAD}},
        EVERY,
        [
            OTHERWISE.format(
                'head linear, now {"pool": "own", "hidden": [8], "dropout": [0.5]}; phases.0.train head, now '
                '{"last": 1}; phases.0.optimizer.lr 0.01, now 0.0001',
                ", ".join(AAA),
            ),
            OTHERWISE.format(
                'head {"pool": "own", "hidden": [8], "dropout": [0.5]}, now linear; phases.0.train {"last": 1}, now '
                "head; phases.0.optimizer.lr 0.0001, now 0.01",
                ", ".join(BBB),
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
        [
            OTHERWISE.format(
                "tune nothing, now optimizer.lr=0.001 or optimizer.lr=0.01; phases.0.optimizer.lr 0.01, now 0.001",
                ", ".join(AAA),
            )
        ],
    ),
    "more epochs": Edit({"epochs": 2}, EVERY, [OTHERWISE.format("phases.0.epochs 1, now 2", ", ".join(EVERY))]),
    "more epochs for one": Edit(
        strategies(quokka=LAST | {"epochs": 2}), BBB, [OTHERWISE.format("phases.0.epochs 1, now 2", ", ".join(BBB))]
    ),
    "a seed more": Edit({"seeds": 3}, ["aaa.small.s2", "quokka.small.s2"], []),
    "a seed less": Edit({"seeds": 1}, [], [LEFT.format("aaa.small.s1, quokka.small.s1")]),
    "a regime more": Edit(
        {"regimes": {"smaller": SMALL | {"train_per_class": 3}, "small": SMALL}},
        [f"{name}.smaller.s{seed}" for seed in (0, 1) for name in ("aaa", "quokka")],
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
    "another size": Edit({"image_size": 24}, EVERY, [OTHERWISE.format("image_size 32, now 24", ", ".join(EVERY))]),
    "another precision": Edit(
        {"precision": "bfloat16"}, EVERY, [OTHERWISE.format("precision float32, now bfloat16", ", ".join(EVERY))]
    ),
    "other numbers stored": Edit(
        {"activations": "float16"}, EVERY, [OTHERWISE.format("activations float32, now float16", ", ".join(EVERY))]
    ),
    "other batches": Edit({"batch_size": 5}, EVERY, [OTHERWISE.format("batch_size 4, now 5", ", ".join(EVERY))]),
    "another name": Edit({"name": "other"}, [], []),
    "another order": Edit({"strategies": {"quokka": LAST, "aaa": HEAD}}, [], []),
    "a budget": Edit({"budget": {"disk": "1GB", "time": "1h"}}, [], []),
}


MIXED = ("a strategy more", "another learning rate", "a seed more", "a regime more")
"""Edits after which kept cells stand beside new ones: the study has to be the one that was edited from the start."""


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_makes_the_cells_stale_that_it_concerns(name: str, world: Path) -> None:
    edit, store = EDITS[name], StudyDir(world / "base")
    prepared = prepared_study(Study(**tiny_study(world, **{**BASE, **edit.values})).config, store.path)
    new = [cell_id for cell_id, spec in prepared.cells.items() if store.finished(cell_id, spec.fingerprint) is None]
    assert sorted(new) == sorted(edit.runs)
    assert [*prepared.notes, *cell_module.stale_warnings(store, prepared.cells)] == edit.says


@pytest.mark.parametrize("name", ["a strategy less", *MIXED])
def test_an_edited_study_runs_what_is_new_and_keeps_what_is_unchanged(
    name: str, world: Path, out: Path, tmp_path: Path
) -> None:
    edit = EDITS[name]
    before = {cell: files(out, cell) for cell in EVERY}
    events = run(world, out, **edit.values)
    planned = [cell for event in events if isinstance(event, Planned) for cell in event.cells]
    assert sorted(ran(events)) == sorted(edit.runs)
    assert said(events) == edit.says
    for cell in set(EVERY) - set(edit.runs):
        assert files(out, cell) == before[cell]
    table = read_table(out / "results.csv")
    assert table["cell"].tolist() == planned
    assert set(table["status"]) == {"finished"}
    assert set(edit.runs) <= set(planned)
    evidence = read_study_results(StudyDir(out))
    assert set(evidence.history["cell"]) == {one.cell for one in evidence.predictions.cells} == set(planned)
    names = {*evidence.table["strategy"], *evidence.table["regime"]}
    assert {*evidence.comparisons["a"], *evidence.comparisons["b"]} <= names
    left = edit.says if edit.says and edit.says[0].startswith("2 cells") else []
    assert evidence.record["notes"] == left
    if name in MIXED:
        run(world, tmp_path / "fresh", **edit.values)
        pd.testing.assert_frame_equal(numbers(out), numbers(tmp_path / "fresh"))
        for cell in planned:
            assert weights(out, cell) == weights(tmp_path / "fresh", cell)


def test_the_report_shows_the_edited_study_alone(world: Path, out: Path) -> None:
    run(world, out, strategies={"aaa": HEAD, "zzz": LAST})
    assert weights(out, "zzz.small.s0") == weights(out, "quokka.small.s0")  # which stays
    page = render_report(read_study_results(StudyDir(out)))
    told = LEFT.format(", ".join(BBB))
    assert told in page
    assert "zzz" in page
    assert "quokka" not in page.replace(told, "")


def test_comments_and_the_order_of_keys_are_no_edit(world: Path, out: Path, tmp_path: Path) -> None:
    before = {cell: files(out, cell) for cell in EVERY}
    values = tiny_study(world, **BASE)
    values |= {"strategies": {name: dict(reversed(values["strategies"][name].items())) for name in ("aaa", "quokka")}}
    path = tmp_path / "study.yaml"
    path.write_text("# a comment\n" + json.dumps(dict(reversed(values.items())), indent=1))
    study, events = Study.from_yaml(path), list[Event]()
    run_study(study.config, out, events.append, study.source_text, workers=0)
    assert ran(events) == said(events) == []
    assert (out / "study.yaml").read_text().startswith("# a comment\n")
    assert before == {cell: files(out, cell) for cell in EVERY}


OTHER = strategies(aaa={"train": "head", "optimizer": {"lr": 1e-3}})


def test_settings_that_are_set_back_before_they_ran_find_their_cells_again(world: Path, out: Path) -> None:
    before = {cell: files(out, cell) for cell in EVERY}
    run(world, out, seconds=0.0, **OTHER)
    table = read_table(out / "results.csv").set_index("cell")["status"]
    assert table[AAA].tolist() == ["missing", "missing"]
    assert table[BBB].tolist() == ["finished", "finished"]
    events = run(world, out)
    assert ran(events) == said(events) == []
    assert before == {cell: files(out, cell) for cell in EVERY}
    pd.testing.assert_frame_equal(numbers(out), numbers(world / "base"))


def test_settings_that_are_set_back_after_they_ran_run_again_to_the_same_weights(world: Path, out: Path) -> None:
    run(world, out, **OTHER)
    assert weights(out, AAA[0]) != weights(world / "base", AAA[0])
    events = run(world, out)
    assert sorted(ran(events)) == AAA
    assert ran(run(world, out)) == []
    assert said(events) == [OTHERWISE.format("phases.0.optimizer.lr 0.001, now 0.01", ", ".join(AAA))]
    assert [weights(out, cell) for cell in EVERY] == [weights(world / "base", cell) for cell in EVERY]
    pd.testing.assert_frame_equal(numbers(out), numbers(world / "base"))


def test_a_strategy_that_comes_back_finds_its_cells_again(world: Path, out: Path) -> None:
    before = {cell: files(out, cell) for cell in EVERY}
    run(world, out, strategies={"aaa": HEAD})
    events = run(world, out)
    assert ran(events) == said(events) == []
    assert before == {cell: files(out, cell) for cell in EVERY}
    assert read_json(out / "study.json")["notes"] == []
    pd.testing.assert_frame_equal(numbers(out), numbers(world / "base"))


ONE: dict[str, Any] = {"strategies": {"quokka": LAST}, "seeds": 1, "epochs": 2}
EDITED = ONE | {"strategies": {"quokka": LAST | {"optimizer": {"lr": 1e-2}}}}
ANEW = "quokka.small.s0: its training state does not fit ({}), so it starts again"


def resumed(events: list[Event]) -> list[str]:
    return [event.cell for event in events if isinstance(event, CellResumed)]


@pytest.fixture
def half(world: Path, tmp_path: Path) -> Path:
    """Return a study directory whose only cell is half trained."""
    run(world, tmp_path / "half", stop=3, **ONE)
    assert list(tmp_path.rglob("running/*.safetensors"))
    return tmp_path / "half"


def test_a_half_trained_cell_with_other_settings_starts_again(world: Path, half: Path, tmp_path: Path) -> None:
    events = run(world, half, **EDITED)
    assert resumed(events) == []
    assert said(events) == [ANEW.format("other settings")]
    run(world, tmp_path / "fresh", **EDITED)
    assert weights(half, "quokka.small.s0") == weights(tmp_path / "fresh", "quokka.small.s0")
    pd.testing.assert_frame_equal(numbers(half), numbers(tmp_path / "fresh"))
    assert not list(half.rglob("running"))


def test_a_half_trained_cell_resumes_when_its_settings_are_restored(world: Path, half: Path, tmp_path: Path) -> None:
    assert ran(run(world, half, seconds=0.0, **EDITED)) == []
    events = run(world, half, **ONE)
    assert resumed(events) == ["quokka.small.s0"]
    assert said(events) == []
    run(world, tmp_path / "whole", **ONE)
    assert weights(half, "quokka.small.s0") == weights(tmp_path / "whole", "quokka.small.s0")


def test_a_half_trained_cell_of_a_strategy_that_went_is_named(world: Path, half: Path) -> None:
    events = run(world, half, **ONE | {"strategies": {"aaa": HEAD}})
    assert said(events) == [
        "1 cell of an earlier version of the study is not part of it now; its files stay in cells/ and running/: "
        "quokka.small.s0"
    ]


@pytest.mark.parametrize("package", ["torch", "timm"])
def test_a_half_trained_cell_starts_again_with_another_version(
    package: str, world: Path, half: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = device.versions()
    monkeypatch.setattr(device, "versions", lambda: {**now, package: "99.9"})
    events = run(world, half, **ONE)
    assert resumed(events) == []
    assert said(events) == [ANEW.format(f"{package}: {now[package]}, now 99.9")]


def test_whatever_a_finished_cell_was_made_with_is_noticed(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compute, now = pick("cpu", "float32"), device.conditions(pick("cpu", "float32"))
    assert {*device.PACKAGES, "processor", "threads", "device", "precision"} == set(now)
    store = StudyDir(world / "base")
    assert cell_module.conditions_warnings(store, EVERY, compute) == []
    for name in now:
        monkeypatch.setattr(cell_module, "conditions", lambda _, name=name: {**now, name: "99.9"})
        assert cell_module.conditions_warnings(store, EVERY, compute) == [
            f"finished under other conditions ({name} {now[name]}, now 99.9), which new cells may differ from in the "
            f"last digits (another --out runs all of them again): {', '.join(EVERY)}"
        ]


def test_cells_of_another_version_give_a_warning(world: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = device.versions()
    newer = {**now, "torch": "99.9", "timm": "88.8"}
    monkeypatch.setattr(device, "versions", lambda: newer)
    events = run(world, out, seeds=3)
    differing = f"torch {now['torch']}, now 99.9; timm {now['timm']}, now 88.8"
    assert said(events) == [
        f"finished under other conditions ({differing}), which new cells may differ from in the last digits "
        f"(another --out runs all of them again): {', '.join(EVERY)}"
    ]
    assert sorted(ran(events)) == ["aaa.small.s2", "quokka.small.s2"]
    assert read_json(out / "cells" / "aaa.small.s2" / "cell.json")["made_with"]["torch"] == "99.9"
    assert read_json(out / "cells" / "aaa.small.s0" / "cell.json")["made_with"]["torch"] == now["torch"]


BAD = {"train": "all", "optimizer": {"name": "sgd", "lr": 1e30}}


def test_what_failed_with_other_settings_has_not_failed_with_these(world: Path, tmp_path: Path) -> None:
    out, good = tmp_path / "out", {"strategies": {"aaa": HEAD}, "seeds": 1}
    bad = good | {"strategies": {"aaa": BAD}}
    run(world, out, **bad)
    error = read_json(out / "cells" / "aaa.small.s0" / "error.json")["error"]
    run(world, out, seconds=0.0, **good)
    evidence = read_study_results(StudyDir(out))
    assert evidence.table["status"].tolist() == ["missing"]
    assert (len(evidence.history), evidence.errors) == (0, {})
    run(world, out, seconds=0.0, **bad)
    evidence = read_study_results(StudyDir(out))
    assert evidence.table["status"].tolist() == ["diverged"]
    assert evidence.errors == {"aaa.small.s0": error}
    run(world, out, **good)
    assert read_table(out / "results.csv")["status"].tolist() == ["finished"]
    assert not list(out.rglob("error.json"))
