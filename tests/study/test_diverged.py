"""Divergence ends a cell within a step and keeps its best weights; the study continues."""

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.support.worlds import tiny_study
from unfreeze import Study
from unfreeze.cli.app import main
from unfreeze.events import BetweenSteps, CellFailed, CellResumed, Event, Progress
from unfreeze.report.page import render_report
from unfreeze.statistics.study_results import read_study_results
from unfreeze.storage import shards
from unfreeze.storage.records import read_table, read_tensors
from unfreeze.storage.study_dir import StudyDir
from unfreeze.study import finish
from unfreeze.study.run import run_study
from unfreeze.train import gradients, phase_run

HEAD = {"train": "head", "optimizer": {"lr": 1e-2}, "early_stopping": {"patience": 9}, "epochs": 4}


def run(folder: Path, out: str = "out", **values: Any) -> tuple[Any, list[Event]]:
    events: list[Event] = []
    return Study(**tiny_study(folder, **values)).run(folder / out, emit=events.append, workers=0), events


def spoil(monkeypatch: pytest.MonkeyPatch, at: int, what: str, number: float) -> None:
    """Make the loss or a gradient of a training step, counted over the whole run, no number."""
    steps = iter(range(1, 10**6))
    forward, total = gradients._forward, phase_run.gradient_sum

    def bad_forward(*arguments: Any) -> tuple[Tensor, Tensor]:
        loss, logits = forward(*arguments)
        return (loss * number if what == "loss" and next(steps) == at else loss), logits

    def bad_sum(optimizer: torch.optim.Optimizer) -> Tensor:
        if what == "gradient" and next(steps) == at:
            optimizer.param_groups[0]["params"][0].grad[0, 0] = number
        return total(optimizer)

    monkeypatch.setattr(gradients, "_forward", bad_forward)
    monkeypatch.setattr(phase_run, "gradient_sum", bad_sum)


@pytest.mark.parametrize(
    ("what", "number", "words"),
    [
        ("loss", math.nan, "diverged: the training loss is nan at step 5"),
        ("loss", math.inf, "diverged: the training loss is inf at step 5"),
        ("gradient", math.nan, "diverged: a gradient is not a finite number at step 5"),
        ("gradient", -math.inf, "diverged: a gradient is not a finite number at step 5"),
    ],
)
def test_a_bad_number_stops_the_cell_at_that_step_and_keeps_its_best_weights(
    what: str, number: float, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, 10, what, number)  # in lock-step, so step 5 of either
    results, events = run(tmp_path, strategies={"bad": HEAD, "good": {"train": {"last": 1}}})
    (failed,) = (event for event in events if isinstance(event, CellFailed))
    assert failed == CellFailed("bad.small.s0", words, diverged=True)
    assert results.failed == ("bad.small.s0",)
    assert results.table["status"].tolist() == ["diverged", "finished"]
    assert max(event.examples for event in events if isinstance(event, Progress) and event.cell == failed.cell) == 15
    folder = tmp_path / "out" / "cells" / "bad.small.s0"
    assert sorted(path.name for path in folder.iterdir()) == ["error.json", "history.csv", "model.safetensors"]
    tensors, about = read_tensors(folder / "model.safetensors")
    assert sorted(tensors) == ["head.out.bias", "head.out.weight"]
    assert about["backbone"] == "test_resnet"
    record = json.loads((folder / "error.json").read_text())
    assert (record["status"], record["error"], record["traceback"]) == ("diverged", words, "")
    assert sorted(record["files"]) == ["history.csv", "model.safetensors"]


def test_the_weights_that_are_kept_are_those_of_the_best_epoch(tmp_path: Path) -> None:
    wild = {
        "train": "all",
        "optimizer": {"name": "sgd", "lr": 0.2},  # learns for three epochs
        "schedule": {"name": "constant", "warmup": 0},
    }
    stopping = {"monitor": "val_loss", "patience": 9}
    results, _ = run(tmp_path, "wild", strategies={"all": wild | {"early_stopping": stopping}}, epochs=9)
    assert results.table["status"].tolist() == ["diverged"]
    model = Path("cells", "all.small.s0", "model.safetensors")
    losses = read_table(tmp_path / "wild" / model.with_name("history.csv"))["val_loss"].tolist()
    best = losses.index(min(losses)) + 1
    assert 1 < best < len(losses)  # neither the first nor the last weights
    run(tmp_path, "short", strategies={"all": wild}, epochs=best)
    assert (tmp_path / "wild" / model).read_bytes() == (tmp_path / "short" / model).read_bytes()


def test_huge_gradients_whose_squares_are_no_numbers_are_numbers() -> None:
    weights = torch.nn.Parameter(torch.zeros(3))
    optimizer = torch.optim.SGD([weights], lr=1e-30)
    weights.grad = torch.full((3,), 1e30)
    logits = torch.zeros(2, 3)
    labels = torch.zeros(2, dtype=torch.int64)
    assert phase_run._measured(gradients.BatchResult(torch.tensor(0.5), logits, labels), optimizer, 1) == (0.5, 2)


def test_predictions_that_are_no_numbers_are_not_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    predict = finish.predict

    def bad(*arguments: Any) -> Any:
        scores, labels = predict(*arguments)
        scores[-1, 0] = math.nan
        return scores, labels

    monkeypatch.setattr(finish, "predict", bad)
    results, _ = run(tmp_path, strategies={"head": {"train": "head"}})
    assert results.table["status"].tolist() == ["diverged"]
    error = json.loads((tmp_path / "out" / "cells" / "head.small.s0" / "error.json").read_text())["error"]
    assert error == "diverged: the predictions of validation are not all finite numbers"


@pytest.mark.parametrize(
    ("place", "words"),
    [
        (3, r"diverged: the training loss is nan at step [1-4]"),
        (17, r"diverged: the validation loss is nan after epoch 1"),
        (25, r"diverged: the predictions of test are not all finite numbers"),
    ],
    ids=["training", "validation", "test"],
)
def test_one_number_of_one_stored_row_that_is_none(
    place: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a network that overflows, say: as written, so that its checksum holds. Who does not read it goes on."""
    monkeypatch.setenv("UNFREEZE_CACHE", str(tmp_path / "cache"))
    append, written = shards.NewShard.append, 0

    def spoilt(self: shards.NewShard, row: Any, array: np.ndarray) -> None:
        nonlocal written
        written += array.dtype == np.float32  # of activations
        if array.dtype == np.float32 and written == place:
            array = array.copy()
            array.flat[0] = math.nan
        append(self, row, array)

    monkeypatch.setattr(shards.NewShard, "append", spoilt)
    regimes = {"small": {"train_per_class": 5, "val_per_class": 2}}
    strategies = {"head": {"train": "head"}, "all": {"train": "all"}}
    results, events = run(tmp_path, strategies=strategies, regimes=regimes)
    (failed,) = (event for event in events if isinstance(event, CellFailed))
    assert re.fullmatch(words, failed.error), failed.error
    assert written >= 27
    assert results.table["status"].tolist() == ["diverged", "finished"]


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_a_learning_rate_of_a_million_stops_within_a_few_steps(name: str, tmp_path: Path) -> None:
    wild = {"train": "all", "optimizer": {"name": name, "lr": 1e6}, "schedule": {"name": "constant", "warmup": 0}}
    results, events = run(tmp_path, strategies={"wild": wild, "head": {"train": "head"}})
    (failed,) = (event for event in events if isinstance(event, CellFailed))
    assert re.match(
        r"diverged: (the training loss is (nan|inf)|a gradient is not a finite number) at step [1-4]", failed.error
    )
    assert results.table["status"].tolist() == ["diverged", "finished"]


def test_report_and_exit_code_tell_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    values = tiny_study(tmp_path, strategies={"bad": {"train": "all", "optimizer": {"name": "sgd", "lr": 1e30}}})
    Path("study.yaml").write_text(json.dumps(values))
    assert main(["run", "study.yaml", "--out", "out"]) == 3
    said = capsys.readouterr()
    assert "] bad.small.s0: diverged: the training loss is " in said.err
    assert "failed: bad.small.s0: diverged: the training loss is " in said.out
    page = render_report(read_study_results(StudyDir(tmp_path / "out")))
    assert '<span class="badge bad">diverged</span>' in page
    assert "1 cell failed:" in page
    assert "1 diverged" in page
    assert (tmp_path / "out" / "results.csv").read_text().splitlines()[1].split(",")[7] == "diverged"


class Stopped(BaseException):
    """What ends a run, as a signal would."""


def test_a_cell_whose_candidates_all_diverge_keeps_the_same_weights_when_it_was_killed_in_between(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = phase_run._measured

    def bad(result: gradients.BatchResult, optimizer: torch.optim.Optimizer, step: int) -> Any:
        return measured(result._replace(loss=result.loss * math.nan) if step == 6 else result, optimizer, step)

    monkeypatch.setattr(phase_run, "_measured", bad)
    tuned = {"strategies": {"tuned": HEAD | {"tune": {"image_size": [24, 32]}}}}  # one after the other
    study = Study(**tiny_study(tmp_path, **tuned)).config
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert run_study(study, whole, lambda _: None, workers=0).failed == ("tuned.small.s0",)
    steps = 0

    def stop(event: Event) -> None:
        nonlocal steps
        steps += isinstance(event, BetweenSteps)
        if steps == 10:
            raise Stopped

    with pytest.raises(Stopped):
        run_study(study, out, stop, workers=0)
    events: list[Event] = []
    run_study(study, out, events.append, workers=0)
    assert [event.candidate for event in events if isinstance(event, CellResumed)] == ["image_size=32"]
    one, other = whole / "cells" / "tuned.small.s0", out / "cells" / "tuned.small.s0"
    assert sorted(path.name for path in other.iterdir()) == ["error.json", "history.csv", "model.safetensors"]
    assert (one / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()
    errors = [json.loads((folder / "error.json").read_text()) for folder in (one, other)]
    assert errors[0]["error"] == errors[1]["error"] == "diverged: the training loss is nan at step 6"
    assert errors[0]["fingerprint"] == errors[1]["fingerprint"]
