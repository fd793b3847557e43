"""A run that was stopped anywhere ends like one that never was: every file, bit for bit, but for times."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.worlds import tiny_study
from unfreeze import Study
from unfreeze.events import BetweenSteps, CellResumed, Event, Warned
from unfreeze.storage.records import read_table
from unfreeze.study.run import run_study

CLOCK = ["seconds_per_epoch", "seconds_total", "seconds_shared", "seconds_per_image"]
STOPPING = {"patience": 2, "monitor": "val_loss"}
ADAM = {"name": "adam", "lr": 1e-2}

ONE = {"dropout": {"train": {"last": 1}, "head": {"hidden": [8], "dropout": [0.5]}}}
TWO = {"two": {"phases": [{"train": "head", "epochs": 1, "optimizer": {"lr": 1e-2}}, {"train": "all", "epochs": 1}]}}
BACK = {
    "back": {
        "phases": [
            {"train": {"last": 2}, "epochs": 1, "batch_norm": "train"},
            {"train": {"last": 1}, "epochs": 1, "batch_norm": "train"},
        ]
    }
}
SGD = {"name": "sgd", "lr": 1e-2, "momentum": 0.9}
ANEW = {
    "anew": {
        "phases": [
            {"train": "head", "epochs": 1, "optimizer": SGD},
            {"train": {"last": 2}, "epochs": 1, "reinit": True, "optimizer": SGD},
        ]
    }
}
TUNED = {"tuned": {"train": "head", "tune": {"optimizer.lr": [1e-3, 1e30, 1e-2]}, "optimizer": {"name": "sgd"}}}
SIZES = {"sizes": {"train": {"last": 1}, "tune": {"image_size": [24, 32], "optimizer.lr": [1e-4, 1e-3]}}}
EARLY = {"early": {"train": "head", "optimizer": ADAM, "epochs": 4, "early_stopping": STOPPING}}
EARLY_TWO = {
    "early": {
        "phases": [{"train": "head", "epochs": 3, "optimizer": {"lr": 0.1}}, {"train": "all", "epochs": 2}],
        "early_stopping": {"patience": 1, "min_delta": 0.05},
    }
}
SCRATCH = {"scratch": {"weights": "none", "train": "all", "head": "native"}}
GROUP = {
    "head": {"train": "head", "optimizer": {"lr": 1e-2}},
    "last": {"train": {"last": 1}, "head": {"hidden": [8], "dropout": [0.5]}, "epochs": 1},
    "two": {"phases": [{"train": "head", "epochs": 1}, {"train": {"last": 1}, "epochs": 2}]},
}
PLAIN = {"small": {"train_per_class": 5, "val_per_class": 2}}
BANK = {"small": {"train_per_class": 5, "val_per_class": 2, "augment": "flip_crop", "views": 2}}
FRESH = {"small": {"train_per_class": 5, "val_per_class": 2, "augment": "flip_crop"}}
EPOCHS = {"small": {"train_per_class": 5, "val_per_class": 2, "augment": "flip_crop", "examples_per_epoch": 9}}
MANY = {"small": {"train_per_class": 5, "val_per_class": 2, "augment": "flip_crop", "balance": "oversample"}}

STUDIES: dict[str, dict[str, Any]] = {
    "one phase, dropout": {"strategies": ONE, "regimes": FRESH},
    "two phases, AdamW": {"strategies": TWO, "regimes": FRESH},
    "a phase that freezes again, BatchNorm training": {"strategies": BACK, "regimes": FRESH},
    "fresh weights, SGD": {"strategies": ANEW, "regimes": PLAIN},
    "candidates, one diverges": {"strategies": TUNED, "regimes": PLAIN},
    "candidates on two streams": {"strategies": SIZES, "regimes": BANK},
    "early stopping": {"strategies": EARLY, "regimes": BANK},
    "early stopping in two phases": {"strategies": EARLY_TWO, "regimes": PLAIN},
    "from scratch, channels-last": {"strategies": SCRATCH, "regimes": FRESH},
    "lock-step, plain": {"strategies": GROUP, "regimes": PLAIN},
    "lock-step, bank": {"strategies": GROUP, "regimes": BANK},
    "lock-step, fresh": {"strategies": GROUP, "regimes": FRESH},
    "epochs of examples": {"strategies": GROUP, "regimes": EPOCHS},
    "oversampled": {"strategies": ONE, "regimes": MANY},
    "auroc, not defined": {"strategies": TUNED, "regimes": PLAIN, "metric": "auroc"},
}
QUICK = (
    "two phases, AdamW",
    "a phase that freezes again, BatchNorm training",
    "candidates, one diverges",
    "candidates on two streams",
    "early stopping in two phases",
    "from scratch, channels-last",
    "lock-step, bank",
    "lock-step, fresh",
)
"""Those that are tried by default; the others take minutes together."""


class Stopped(BaseException):
    """What ends a run, as a signal would."""


class Stops:
    """Ends a run after so many steps, and notes what it was told."""

    def __init__(self, after: int | None = None) -> None:
        self.after, self.steps, self.events = after, 0, list[Event]()

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, BetweenSteps):
            if self.steps == self.after:
                raise Stopped
            self.steps += 1

    @property
    def warnings(self) -> list[str]:
        return [event.text for event in self.events if isinstance(event, Warned) and "state" in event.text]

    @property
    def resumed(self) -> list[str]:
        return [event.cell for event in self.events if isinstance(event, CellResumed)]


def run(folder: Path, out: Path, stops: Callable[[Event], None], **values: Any) -> None:
    run_study(Study(**tiny_study(folder, **values)).config, out, stops, workers=0)


def stopped(folder: Path, out: Path, after: int, **values: Any) -> bool:
    """Run until so many steps are done; tell whether there were so many."""
    try:
        run(folder, out, Stops(after), **values)
    except Stopped:
        return True
    return False


def ends(out: Path) -> dict[str, Any]:
    """Return all that a study directory holds of its cells but for times: weights and predictions as bytes."""
    found: dict[str, Any] = {}
    for path in sorted((out / "cells").rglob("*")):
        name = str(path.relative_to(out))
        if path.name == "history.csv":
            found[name] = read_table(path).drop(columns="seconds").to_csv()
        elif path.name == "result.json":
            record = json.loads(path.read_text())
            files = {file: sha for file, sha in record.pop("files").items() if file != "history.csv"}
            timed = (*CLOCK, "checksum")
            found[name] = {key: value for key, value in record.items() if key not in timed} | {"files": files}
        elif path.is_file():
            found[name] = path.read_bytes()
    return found


def check(name: str, folder: Path, chosen: Callable[[int], list[int]]) -> None:
    """Stop a study after some of its steps, each time in a directory of its own, and let it go on to its end."""
    study = STUDIES[name]
    whole = Stops()
    run(folder, folder / "whole", whole, **study)
    expected = ends(folder / "whole")
    assert any(path.endswith("result.json") for path in expected)
    for after in chosen(whole.steps):
        out = folder / f"stopped-{after}"
        assert stopped(folder, out, after, **study)
        assert list(out.rglob("running/*.safetensors")), after
        on = Stops()
        run(folder, out, on, **study)
        assert ends(out) == expected, after
        assert on.steps == whole.steps - after
        assert not on.warnings
        assert on.resumed


@pytest.mark.parametrize("name", QUICK)
def test_a_run_that_is_stopped_ends_as_if_it_never_was(name: str, tmp_path: Path) -> None:
    check(name, tmp_path, lambda steps: [steps // 2, steps - 1])


@pytest.mark.slow
@pytest.mark.parametrize("name", STUDIES)
def test_a_run_that_is_stopped_after_any_step_ends_as_if_it_never_was(name: str, tmp_path: Path) -> None:
    check(name, tmp_path, lambda steps: list(range(steps)))


def test_a_run_that_is_stopped_at_every_step_ends_as_if_it_never_was(tmp_path: Path) -> None:
    study = {"strategies": GROUP, "regimes": FRESH}
    run(tmp_path, tmp_path / "whole", Stops(), **study)
    out, times = tmp_path / "stopped", 0
    while stopped(tmp_path, out, 1, **study):
        times += 1
    assert times > 8
    assert ends(out) == ends(tmp_path / "whole")
