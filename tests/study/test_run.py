"""Run a whole study on tiny data and read its files."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from tests.support.worlds import tiny_study, write_photographs
from unfreeze import Study
from unfreeze.cli.app import main
from unfreeze.errors import UserError
from unfreeze.events import CellFailed, CellFinished, CellStarted, EpochEnded, Event, Planned, Progress, Warned
from unfreeze.statistics import study_results as evidence
from unfreeze.statistics.comparisons import comparisons_table
from unfreeze.storage.records import read_json, read_table, read_tensors, table_text
from unfreeze.study import activation_plan as shared
from unfreeze.train import device

CLOCK = ["seconds_per_epoch", "seconds_total", "seconds_shared", "seconds_per_image"]


def run(folder: Path, out: str = "out", workers: int = 0, seconds: float | None = None, **values: Any):
    events: list[Event] = []
    study = Study(**tiny_study(folder, **values))
    return study.run(folder / out, emit=events.append, workers=workers, seconds=seconds), events


def ran(events: list[Event]) -> list[str]:
    return [event.cell for event in events if isinstance(event, CellStarted)]


def numbers(results) -> pd.DataFrame:
    return results.table.drop(columns=CLOCK)


def weights(folder: Path, cell: str, out: str = "out") -> bytes:
    return (folder / out / "cells" / cell / "model.safetensors").read_bytes()


@pytest.mark.usefixtures("with_report")
def test_the_exact_set_of_files(tmp_path: Path) -> None:
    results, _ = run(tmp_path)
    found = sorted(str(path.relative_to(results.path)) for path in results.path.rglob("*") if path.is_file())
    cell_files = [
        "cell.json",
        "history.csv",
        "logits.safetensors",
        "model.safetensors",
        "ranking.safetensors",
        "result.json",
    ]
    cells = [f"cells/{cell}/{name}" for cell in ("head.small.s0", "last.small.s0") for name in cell_files]
    tables = ["catalog.csv", "comparisons.csv", "environment.json", "plan.json", "report.html", "results.csv"]
    tables += ["shared.json", "splits.csv", "study.json", "explain/explain.json", "events/main.jsonl"]
    explained = read_json(results.path / "explain" / "explain.json")
    shown = [one[kind] for one in [*explained["wrong"], *explained["suspects"]] for kind in ("picture", "overlay")]
    pictures = [f"explain/{name}" for name in shown if name]
    assert found == sorted([*cells, *tables, *pictures, ".run.lock"])


def test_the_record_says_whether_the_metric_was_asked_for(tmp_path: Path) -> None:
    strategies = {"head": {"train": "head"}}
    results, _ = run(tmp_path, strategies=strategies)
    record = read_json(results.path / "study.json")
    assert (record["metric"], record["metric_given"]) == ("accuracy", False)
    results, _ = run(tmp_path, strategies=strategies, metric="accuracy")
    assert read_json(results.path / "study.json")["metric_given"] is True
    assert results.failed == () and len(results.table) == 1  # the same cell: nothing depends on it


@pytest.mark.usefixtures("with_report")
def test_the_user_s_folder_is_not_written_to(tmp_path: Path) -> None:
    folder = write_photographs(tmp_path / "photographs")
    before = {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in [folder, *folder.rglob("*")]}
    run(tmp_path)
    assert before == {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in [folder, *folder.rglob("*")]}


def test_results_history_and_events_tell_the_same(tmp_path: Path) -> None:
    results, events = run(tmp_path)
    table, history = results.table, results.history
    assert table["cell"].tolist() == ["head.small.s0", "last.small.s0"]
    assert table["status"].tolist() == ["finished", "finished"]
    assert table["n_train"].tolist() == [15, 15]
    assert table["n_val"].tolist() == [5, 5]
    assert table["epochs"].tolist() == table["best_epoch"].tolist() == [2, 2]
    assert history["step"].tolist() == [4, 8, 4, 8]
    assert history["examples"].tolist() == [15, 30, 15, 30]
    finished = {event.cell: event.result for event in events if isinstance(event, CellFinished)}
    assert [finished[cell]["test_accuracy"] for cell in table["cell"]] == table["test_accuracy"].tolist()
    for cell, rows in history.groupby("cell"):
        row = table.set_index("cell").loc[cell]
        assert row["val_loss"] == rows["val_loss"].iloc[-1]
        assert row["train_accuracy"] == rows["train_accuracy"].iloc[-1]
    assert sum(isinstance(event, EpochEnded) for event in events) == 4
    for cell in table["cell"]:
        drawn = [event.examples for event in events if isinstance(event, Progress) and event.cell == cell]
        assert drawn == [4, 8, 12, 15, 19, 23, 27, 30]


def test_results_csv_has_the_designed_columns(tmp_path: Path) -> None:
    results, _ = run(tmp_path)
    assert ",".join(pd.read_csv(results.path / "results.csv").columns) == (
        "cell,strategy,regime,seed,fold,backbone,image_size,status,chosen,n_train,n_val,n_test,epochs,best_epoch,"
        "train_accuracy,train_loss,val_accuracy,val_loss,test_accuracy,test_loss,val_metric,test_metric,"
        "seconds_per_epoch,seconds_total,seconds_shared,params_total,params_trained,stopped_by,"
        "ranking_metric,n_ranking,flops_per_image,seconds_per_image"
    )
    history = pd.read_csv(results.path / "cells" / "head.small.s0" / "history.csv")
    assert ",".join(history.columns) == (
        "candidate,phase,epoch,step,examples,lr,train_loss,train_accuracy,val_loss,val_accuracy,seconds,val_metric"
    )


def test_logits_are_kept_by_image_id(tmp_path: Path) -> None:
    results, _ = run(tmp_path)
    splits = pd.read_csv(results.path / "splits.csv", keep_default_na=False)
    logits, about = read_tensors(results.path / "cells" / "last.small.s0" / "logits.safetensors")
    ids = about["ids"]
    assert set(ids["test"]) == set(splits.loc[splits["split"] == "test", "id"])
    assert set(ids["validation"]) == set(splits.loc[splits["small.s0"] == "validation", "id"])
    assert {split: array.shape for split, array in logits.items()} == {
        split: (len(names), 3) for split, names in ids.items()
    }


def test_model_holds_what_was_trained_and_names_the_rest(tmp_path: Path) -> None:
    results, _ = run(tmp_path)
    head = load_file(results.path / "cells" / "head.small.s0" / "model.safetensors")
    last = load_file(results.path / "cells" / "last.small.s0" / "model.safetensors")
    assert set(head) == {"head.out.weight", "head.out.bias"}
    assert {name.split(".")[0] for name in last} == {"layer4", "head"}
    _, about = read_tensors(results.path / "cells" / "head.small.s0" / "model.safetensors")
    assert len(about["prefix_sha256"]) == 64


def test_the_same_command_runs_only_what_is_missing(tmp_path: Path) -> None:
    first, _ = run(tmp_path)
    before = numbers(first)
    _, events = run(tmp_path)
    assert ran(events) == []
    assert next(event for event in events if isinstance(event, Planned)).finished == ("head.small.s0", "last.small.s0")
    shutil.rmtree(first.path / "cells" / "last.small.s0")
    again, events = run(tmp_path)
    assert ran(events) == ["last.small.s0"]
    pd.testing.assert_frame_equal(numbers(again), before)


def test_changed_settings_or_images_make_their_cells_run_again(tmp_path: Path) -> None:
    run(tmp_path)
    strategies: Any = tiny_study(tmp_path)["strategies"]
    _, events = run(tmp_path, strategies=strategies | {"head": {"train": "head", "optimizer": {"lr": 1e-3}}})
    assert ran(events) == ["head.small.s0"]
    write_photographs(tmp_path / "others", per_class=1, seed=1)
    shutil.copy(tmp_path / "others" / "circle" / "000.png", tmp_path / "photographs" / "circle" / "000.png")
    _, events = run(tmp_path, strategies=strategies | {"head": {"train": "head", "optimizer": {"lr": 1e-3}}})
    assert ran(events)


def test_a_failing_cell_does_not_stop_the_others(tmp_path: Path) -> None:
    diverging = {"train": "all", "optimizer": {"name": "sgd", "lr": 1e30}}
    strategies: Any = tiny_study(tmp_path)["strategies"]
    results, events = run(tmp_path, strategies={"bad": diverging} | strategies)
    assert results.failed == ("bad.small.s0",)
    (failure,) = (event for event in events if isinstance(event, CellFailed))
    assert failure.error.startswith("diverged: the training loss is ")
    assert results.table["status"].tolist() == ["diverged", "finished", "finished"]
    assert json.loads((results.path / "cells" / "bad.small.s0" / "error.json").read_text())["error"] == failure.error
    _, events = run(tmp_path, strategies={"bad": diverging} | strategies)
    assert ran(events) == ["bad.small.s0"]


def test_tuned_values_are_chosen_on_validation(tmp_path: Path) -> None:
    head = {"train": "head", "tune": {"optimizer.lr": [1e-6, 1e-2]}}
    results, _ = run(tmp_path, strategies={"head": head})
    history = results.history
    scores = history[history["epoch"] == 2].set_index("candidate")["val_accuracy"]
    assert scores.index.tolist() == ["optimizer.lr=1e-06", "optimizer.lr=0.01"]
    assert results.table["chosen"].tolist() == [scores.idxmax()]
    assert results.table["val_accuracy"].tolist() == [scores.max()]


def test_phases_train_one_after_another(tmp_path: Path) -> None:
    phases = [{"train": "head", "epochs": 1}, {"train": "all", "epochs": 2}]
    results, _ = run(tmp_path, strategies={"fine_tune": {"phases": phases}})
    assert results.history["phase"].tolist() == ["0", "1", "1"]
    assert results.history["epoch"].tolist() == [1, 2, 3]
    assert results.table["params_trained"].tolist() == results.table["params_total"].tolist()


def test_early_stopping_restores_the_best_weights(tmp_path: Path) -> None:
    stopping = {"monitor": "val_loss", "patience": 1}
    all_at_once = {
        "train": "all",
        "optimizer": {"name": "sgd", "lr": 0.5},
        "schedule": {"name": "constant", "warmup": 0},
    }
    values: Any = {"strategies": {"all": all_at_once}, "epochs": 12}
    stopped, _ = run(tmp_path, "stopped", early_stopping=stopping, **values)
    (best,) = stopped.table["best_epoch"]
    assert stopped.table["stopped_by"].tolist() == ["early_stopping"]
    assert stopped.table["epochs"].tolist() == [best + 1]
    short, _ = run(tmp_path, "short", strategies={"all": all_at_once}, epochs=int(best))
    assert weights(tmp_path, "all.small.s0", "stopped") == weights(tmp_path, "all.small.s0", "short")


def test_further_test_sets_and_folds(tmp_path: Path) -> None:
    write_photographs(tmp_path / "elsewhere", per_class=2, seed=1)
    results, _ = run(
        tmp_path,
        tests={"site_b": str(tmp_path / "elsewhere")},
        split={"folds": 2, "val": 0.2},
        strategies={"head": {"train": "head"}},
        regimes={"full": {}},
    )
    assert results.table["cell"].tolist() == ["head.full.s0.f0", "head.full.s0.f1"]
    assert results.table["n_test"].sum() == 36
    assert results.table["test_site_b_accuracy"].notna().all()


def test_validation_as_the_article_sees_it(tmp_path: Path) -> None:
    regime = {"train_per_class": 5, "augment": "article", "examples_per_epoch": 40}
    regime |= {"validation": {"augment": "article", "examples": 20}}
    results, _ = run(tmp_path, split={"val": "test"}, strategies={"head": {"train": "head"}}, regimes={"two": regime})
    assert results.history["examples"].tolist() == [42, 83]
    assert json.loads((results.path / "study.json").read_text())["notes"] == [
        "Validation images are the test images: the same images choose and report, so scores are optimistic; "
        "split: {val: 0.15} takes others."
    ]


def test_reinitialised_stages_start_from_fresh_weights(tmp_path: Path) -> None:
    last = {"train": {"last": 1}, "optimizer": {"name": "sgd", "lr": 1e-12}}
    results, _ = run(tmp_path, strategies={"kept": last, "fresh": last | {"reinit": True}})
    kept = load_file(results.path / "cells" / "kept.small.s0" / "model.safetensors")
    fresh = load_file(results.path / "cells" / "fresh.small.s0" / "model.safetensors")
    given = load_file(tmp_path / "weights.safetensors")
    name = next(name for name in kept if name.endswith("conv1.weight"))
    assert abs(kept[name] - given[name]).max() < 1e-6
    assert abs(fresh[name] - given[name]).max() > 1e-2


def test_a_time_limit_leaves_cells_for_the_next_run(tmp_path: Path) -> None:
    results, events = run(tmp_path, seconds=0.0)
    assert results.left == ("head.small.s0", "last.small.s0")
    assert ran(events) == []
    assert results.table["status"].tolist() == ["missing", "missing"]
    results, events = run(tmp_path, seconds=1000.0)
    assert results.left == ()
    assert sorted(ran(events)) == ["head.small.s0", "last.small.s0"]


def test_a_time_limit_in_between_leaves_the_cells_that_are_predicted_not_to_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = {"head.small.s0": 10.0, "last.small.s0": 100_000.0}

    def plan_shared(*arguments: Any) -> shared.ActivationPlan:
        found = shared.plan_shared(*arguments)
        cells = {name: replace(cell, seconds=expected[name]) for name, cell in found.cells.items()}
        return replace(found, cells=cells)

    monkeypatch.setattr("unfreeze.study.cache_plan.plan_shared", plan_shared)
    results, events = run(tmp_path, seconds=10_000.0)
    assert results.left == ("last.small.s0",)
    assert ran(events) == ["head.small.s0"]
    assert results.table["status"].tolist() == ["finished", "missing"]


def test_a_file_that_cannot_be_decoded_is_set_aside_and_noted(tmp_path: Path) -> None:
    broken = write_photographs(tmp_path / "photographs") / "circle" / "000.png"
    broken.write_bytes(broken.read_bytes()[:200])
    results, _ = run(tmp_path)
    catalog = pd.read_csv(results.path / "catalog.csv", keep_default_na=False)
    aside = catalog[catalog["status"] == "set_aside"]
    assert aside["path"].tolist() == ["circle/000.png"]
    assert broken.exists()
    assert json.loads((results.path / "study.json").read_text())["notes"] == [
        "Set aside: 1 image; catalog.csv gives the reason for each."
    ]


def test_fewer_images_than_asked_for_is_a_warning(tmp_path: Path) -> None:
    _, events = run(tmp_path, regimes={"small": {"train_per_class": 50}}, strategies={"head": {"train": "head"}})
    warnings = [event.text for event in events if isinstance(event, Warned)]
    assert len(warnings) == 3
    assert warnings[0].startswith("class circle gives ")


def test_all_problems_of_the_strategies_are_in_one_message(tmp_path: Path) -> None:
    strategies = {"deep": {"train": {"last": 99}}, "tall": {"train": "head", "backbone": "resnet999"}}
    with pytest.raises(UserError) as caught:
        run(tmp_path, strategies=strategies)
    assert str(caught.value).splitlines()[0] == "2 problems:"
    assert "strategies.deep: train: {last: 99}, but the backbone has 5 stages" in str(caught.value)
    assert "strategies.tall: backbone: timm has no model resnet999" in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_an_output_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(UserError) as caught:
        run(tmp_path)
    assert str(caught.value) == (
        f"--out {tmp_path / 'out'} is a file\n"
        "  expected: a directory, or a path where one can be made\n"
        "  fix:      give another --out DIR"
    )


@pytest.mark.usefixtures("with_report")
def test_settings_that_changed_make_the_report_forget_the_old_cells(tmp_path: Path) -> None:
    run(tmp_path)
    strategies: Any = tiny_study(tmp_path)["strategies"]
    changed = strategies | {"head": {"train": "head", "optimizer": {"lr": 1e-3}}}
    results, events = run(tmp_path, strategies=changed, seconds=0.0)
    said = (
        "finished with other settings or images (phases.0.optimizer.lr 0.01, now 0.001), so not part of this study "
        "now (another --out keeps both): head.small.s0"
    )
    assert said in [event.text for event in events if isinstance(event, Warned)]
    assert results.table["status"].tolist() == ["missing", "finished"]
    assert set(results.history["cell"]) == {"last.small.s0"}


def test_other_weights_in_the_same_file_are_other_weights_and_moved_ones_the_same(tmp_path: Path) -> None:
    run(tmp_path)
    moved = tmp_path / "moved.safetensors"
    moved.write_bytes((tmp_path / "weights.safetensors").read_bytes())
    _, events = run(tmp_path, backbone={"name": "test_resnet", "weights": str(moved)})
    assert ran(events) == []
    other = load_file(moved)
    save_file({name: tensor + 1 for name, tensor in other.items()}, moved)
    _, events = run(tmp_path, backbone={"name": "test_resnet", "weights": str(moved)})
    assert ran(events) == ["head.small.s0", "last.small.s0"]


def test_other_versions_give_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path)
    older = {**device.versions(), "torch": "9.9", "timm": "0.1"}
    now = {name: device.versions()[name] for name in ("torch", "timm")}
    monkeypatch.setattr(device, "versions", lambda: older)
    _, events = run(tmp_path)
    said = [event.text for event in events if isinstance(event, Warned)]
    assert (
        f"finished under other conditions (torch {now['torch']}, now 9.9; timm {now['timm']}, now 0.1), which new "
        "cells may differ from in the last digits (another --out runs all of them again): head.small.s0, last.small.s0"
    ) in said
    assert ran(events) == []


def test_missing_weights_are_refused_before_anything_runs(tmp_path: Path) -> None:
    lost = {"name": "test_resnet", "weights": str(tmp_path / "lost.safetensors")}
    with pytest.raises(UserError) as caught:
        run(tmp_path, backbone=lost)
    assert str(caught.value).startswith("strategies.head, last: weights: ")
    assert not (tmp_path / "out").exists()


def test_a_diverging_candidate_is_a_warning_not_the_end_of_its_cell(tmp_path: Path) -> None:
    tuned = {"train": "all", "optimizer": {"name": "sgd"}, "tune": {"optimizer.lr": [1e30, 1e-2]}}
    results, _ = run(tmp_path, strategies={"all": tuned})
    assert results.table["chosen"].tolist() == ["optimizer.lr=0.01"]
    *_, warning = json.loads((results.path / "cells" / "all.small.s0" / "result.json").read_text())["warnings"]
    assert warning.startswith("candidate optimizer.lr=1e+30 diverged: the ")


def test_candidates_may_differ_in_anything(tmp_path: Path) -> None:
    one, two = [{"train": "head", "epochs": 1}], [{"train": "head", "epochs": 1}, {"train": "all", "epochs": 1}]
    strategies = {
        "phases": {"phases": one, "tune": {"phases": [one, two]}},
        "depth": {"train": "head", "tune": {"train": ["head", {"last": 2}], "image_size": [24, 32]}},
    }
    results, _ = run(tmp_path, strategies=strategies)
    assert results.failed == ()
    assert results.history["candidate"].unique().tolist()[-1] == 'train={"last": 2},image_size=32'


def test_an_epoch_shorter_than_a_batch_is_one_step(tmp_path: Path) -> None:
    regimes = {"short": {"train_per_class": 5, "examples_per_epoch": 1}}
    results, _ = run(tmp_path, strategies={"head": {"train": "head"}}, regimes=regimes)
    assert results.history["step"].tolist() == [1, 2]


LONE = (
    "batch_size: 7 with 15 training images leaves a last batch of one\n"
    "  expected: at least two images in a batch, since the BatchNorm of stages with fresh weights "
    "(or batch_norm: train) takes its statistics from each\n"
    "  fix:      choose another, for example --set {key}=8"
)


@pytest.mark.parametrize(
    ("lone", "key"),
    [
        ({"train": "all", "batch_norm": "train"}, "batch_size"),
        ({"train": {"last": 1}, "reinit": True}, "batch_size"),
        ({"train": "all", "weights": "none"}, "batch_size"),
        ({"phases": [{"train": "head"}, {"train": {"last": 1}, "batch_norm": "train"}]}, "batch_size"),
        ({"train": "all", "tune": {"batch_norm": ["frozen", "train"]}}, "batch_size"),
        ({"train": "all", "batch_norm": "train", "batch_size": 7}, "strategies.all.batch_size"),
        (
            {"train": "all", "batch_norm": "train", "tune": {"batch_size": [4, 7, 9]}},
            "strategies.all.tune.batch_size.1",
        ),
    ],
)
def test_a_strategy_that_always_ends_on_one_image_is_refused_before_anything_runs(
    tmp_path: Path, lone: dict[str, Any], key: str
) -> None:
    with pytest.raises(UserError) as caught:
        run(tmp_path, strategies={"fine": {"train": "all"}, "all": lone}, batch_size=7, seeds=2)
    assert str(caught.value) == f"strategies.all: {LONE.format(key=key)}"
    assert not list((tmp_path / "out").rglob("*.json"))


def test_one_image_a_batch_is_refused_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[str] = []
    monkeypatch.setattr("unfreeze.study.calibrations.step_cost", lambda *_: measured.append("a step"))
    with pytest.raises(UserError) as caught:
        run(tmp_path, strategies={"all": {"train": "all", "batch_norm": "train"}}, batch_size=1)
    assert str(caught.value) == (
        "strategies.all: batch_size: 1 is one image a batch\n"
        "  expected: at least two images in a batch, since the BatchNorm of stages with fresh weights "
        "(or batch_norm: train) takes its statistics from each\n"
        "  fix:      choose another, for example --set batch_size=3"
    )
    assert not measured and not list((tmp_path / "out").rglob("*.json"))


def test_one_image_a_batch_trains_where_no_batch_norm_does(tmp_path: Path) -> None:
    results, _ = run(tmp_path, strategies={"all": {"train": "all"}}, batch_size=1, epochs=1)
    assert results.failed == ()


def test_a_cell_that_ends_on_one_image_fails_alone_where_others_of_its_strategy_can_train(tmp_path: Path) -> None:
    regimes = {"small": {"train_per_class": 5}, "less": {"train_per_class": 4}}
    strategies = {"all": {"train": "all", "batch_norm": "train"}}
    results, events = run(tmp_path, strategies=strategies, regimes=regimes, batch_size=7)
    (failure,) = (event.error for event in events if isinstance(event, CellFailed))
    assert failure == LONE.format(key="batch_size")
    assert results.failed == ("all.small.s0",)
    assert results.table["status"].tolist() == ["failed", "finished"]


GONE, OTHER = "cannot be read: no such file or directory", "its content has changed"


@pytest.mark.parametrize(("ill", "workers"), [(GONE, 0), (GONE, 1), (OTHER, 0)])
def test_an_image_that_vanishes_or_changes_is_named(tmp_path: Path, ill: str, workers: int) -> None:
    photographs = write_photographs(tmp_path / "photographs")
    asked = {"strategies": {"head": {"train": "head"}}, "regimes": {"full": {}}, "budget": {"disk": "1KB"}}
    study = Study(**tiny_study(tmp_path, **asked))  # no room to keep pictures: files are read again
    failures: list[str] = []

    def emit(event: Event) -> None:
        if isinstance(event, Planned):
            for path in photographs.rglob("*.png"):
                if ill == GONE:
                    path.unlink()
                else:  # a whole picture, but another one
                    Image.new("RGB", (24, 24), "red").save(path)
        if isinstance(event, CellFailed):
            failures.append(event.error)

    study.run(tmp_path / "out", emit=emit, workers=workers)
    (failure,) = failures
    first, *rest = failure.splitlines()
    assert first.startswith(str(photographs)) and first.endswith(f".png: {ill}")
    assert rest == [
        "  expected: the image as it was when the study began",
        "  fix:      restore the file, or start a new study without it",
    ]


@pytest.mark.usefixtures("with_report")
def test_a_listener_that_went_away_is_not_the_cell_s_failure(tmp_path: Path) -> None:
    def emit(event: Event) -> None:
        if isinstance(event, EpochEnded):
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        Study(**tiny_study(tmp_path)).run(tmp_path / "out", emit=emit, workers=0)
    assert not list((tmp_path / "out").rglob("error.json"))


@pytest.mark.usefixtures("with_report")
def test_nothing_is_written_into_the_folder_of_images(tmp_path: Path) -> None:
    folder = write_photographs(tmp_path / "photographs")
    with pytest.raises(UserError) as caught:
        Study(**tiny_study(tmp_path)).run(folder / "runs")
    assert str(caught.value) == (
        f"the study directory {folder / 'runs'} is in the folder of images {folder}\n"
        "  expected: a directory outside of it, since nothing is ever written there\n"
        "  fix:      give another with --out DIR"
    )


def test_compare_pairs_by_seed_and_image(tmp_path: Path) -> None:
    results, _ = run(tmp_path, seeds=2)
    compared = results.compare("last", "head")
    (row,) = compared.to_dict("records")
    assert (row["kind"], row["within"], row["a"], row["b"]) == ("strategy", "small", "last", "head")
    assert (row["test"], row["metric"], row["seeds"], row["seeds_left_out"]) == ("test", "accuracy", 2, 0)
    table = results.table.groupby("strategy")["test_metric"].mean()
    assert row["difference"] == pytest.approx(table["last"] - table["head"])
    assert row["low_simultaneous"] <= row["low"] <= row["difference"] <= row["high"] <= row["high_simultaneous"]
    scores = results.scores
    accuracy = scores[scores["metric"] == "accuracy"].set_index("cell")
    for cell, value in results.table.set_index("cell")["test_accuracy"].items():
        assert accuracy.loc[cell, "low"] <= accuracy.loc[cell, "value"] == value <= accuracy.loc[cell, "high"]
    written = read_table(results.path / "comparisons.csv")
    (own,) = written.to_dict("records")
    assert (own["a"], own["b"], own["difference"]) == ("head", "last", -row["difference"])
    with pytest.raises(UserError) as caught:
        results.compare("head", "nobody")
    assert str(caught.value) == (
        "compare: 'head' and 'nobody' are not two of the study's strategies or two of its regimes\n"
        "  expected: two of the strategies head, last\n  fix:      name two of them"
    )


@pytest.mark.usefixtures("with_report")
def test_the_statistics_of_a_study_are_computed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    counted: list[Any] = []

    def counting(predictions: Any) -> pd.DataFrame:
        counted.append(comparisons_table(predictions))
        return counted[-1]

    monkeypatch.setattr(evidence, "comparisons_table", counting)
    (tmp_path / "study.yaml").write_text(json.dumps(tiny_study(tmp_path)))
    for number, more in enumerate(([], ["--json"], ["--seeds", "2"]), 1):
        assert main(["run", str(tmp_path / "study.yaml"), "--out", str(tmp_path / "out"), *more]) == 0
        assert len(counted) == number
        assert (tmp_path / "out" / "comparisons.csv").read_text() == table_text(counted[-1])
    assert counted[0]["seeds"].tolist() == [1]
    assert counted[-1]["seeds"].tolist() == [2]
    capsys.readouterr()
    assert main(["report", str(tmp_path / "out")]) == 0
    assert len(counted) == 4
