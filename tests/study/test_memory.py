"""Short device memory: micro-batches with the same numbers, resumed bit for bit, with warnings."""

import json
import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.finished import ends
from tests.support.short import Short
from tests.support.stops import Stopped, Stops
from tests.support.studies import FRESH, GROUP, ONE, PLAIN
from tests.support.worlds import tiny_study, write_photographs
from unfreeze import Study
from unfreeze.events import CellFailed, Event, Planned, Progress, Warned
from unfreeze.storage.records import read_json, read_tensors
from unfreeze.study.run import run_study

PARTS = (
    "last: a batch of 4 images does not fit into the memory of cpu; it trains on 2 at a time and adds up their "
    "gradients, so its batches stay what they are and its numbers differ by rounding"
)
NORM = (
    "all: a batch of 4 images does not fit into the memory of cpu; it trains on 2 at a time and adds up their "
    "gradients, but BatchNorm takes its statistics from those 2, so its results are not those of whole batches; "
    "batch_size: 2 fits, and so may a smaller image_size"
)
PREDICTS = (
    "last: 64 images at once do not fit into the memory of cpu; it predicts {} at a time, so its numbers may differ by "
    "rounding"
)
FROZEN = (
    "test_resnet (weights), 32 pixels: 32 images at once do not fit into the memory of cpu; its frozen stages run on 8 "
    "at a time, so their numbers may differ by rounding from those computed before"
)
LAST = {"last": ONE["dropout"]}
SGD = {"name": "sgd", "lr": 1e-2, "momentum": 0.9}


class Listener:
    """Notes what is told, begins to count the calls of networks with the first cell, and may end the run."""

    def __init__(self, short: Short | None = None, stops: Stops | None = None, kill_at: int | None = None) -> None:
        self.short, self.stops, self.kill_at = short, stops, kill_at
        self.events: list[Event] = []

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        if self.short is not None and isinstance(event, Planned):
            self.short.counting = True
        if isinstance(event, Progress) and self.kill_at is not None:
            self.kill_at -= 1
            if self.kill_at == 0:  # in the midst of a step, where nothing is saved any more
                raise Stopped
        if self.stops is not None:
            self.stops(event)

    @property
    def warnings(self) -> list[str]:
        return about_memory(event.text for event in self.events if isinstance(event, Warned))


def about_memory(warnings: Iterable[str]) -> list[str]:
    return [text for text in warnings if "memory" in text]


def run(folder: Path, out: str, listener: Listener, **values: Any) -> Path:
    try:
        run_study(Study(**tiny_study(folder, **{"device": "cpu"} | values)).config, folder / out, listener, workers=0)
    finally:
        if listener.short is not None:
            listener.short.counting = False
    return folder / out


def tensors(out: Path, name: str) -> dict[str, np.ndarray]:
    return {key: found for path in sorted(out.rglob(name)) for key, found in read_tensors(path)[0].items()}


def difference(one: Path, other: Path, name: str = "model.safetensors") -> float:
    found, expected = tensors(one, name), tensors(other, name)
    assert found.keys() == expected.keys()
    return max(float(np.abs(found[key] - expected[key]).max()) for key in expected)


def warnings_of(out: Path) -> list[str]:
    return [text for said in warnings_by_cell(out).values() for text in said]


def warnings_by_cell(out: Path) -> dict[str, list[str]]:
    records = sorted(out.rglob("result.json"))
    return {path.parent.name: about_memory(read_json(path)["warnings"]) for path in records}


STUDIES: dict[str, dict[str, Any]] = {
    "fresh": {"strategies": LAST, "regimes": FRESH},
    "plain": {"strategies": LAST, "regimes": PLAIN},
    "weighed, smoothed": {
        "strategies": {"last": {**LAST["last"], "label_smoothing": 0.1, "optimizer": SGD}},
        "regimes": {"small": {**FRESH["small"], "balance": "weights"}},
    },
}


@pytest.mark.parametrize(
    ("name", "at"),
    [("fresh", [1]), ("plain", [7]), ("weighed, smoothed", [2, 3])],
    ids=str,
)
def test_memory_that_is_short_in_training_changes_weights_by_rounding(
    name: str, at: Collection[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(tmp_path, "whole", Listener(), **STUDIES[name])
    told = Listener(Short(monkeypatch, training=at))
    found = run(tmp_path, "short", told, **STUDIES[name])
    assert difference(found, whole) <= 1e-5
    assert difference(found, whole, "logits.safetensors") <= 1e-5
    said = PARTS if len(at) == 1 else PARTS.replace("on 2 at", "on 1 at")
    assert told.warnings == warnings_of(found) == [said]


def test_memory_that_is_short_in_the_backward_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run(tmp_path, "whole", Listener(), **STUDIES["fresh"])
    found = run(tmp_path, "short", Listener(Short(monkeypatch, training=[3], backward=True)), **STUDIES["fresh"])
    assert difference(found, whole) <= 1e-5
    assert warnings_of(found) == [PARTS]


def test_micro_batches_of_batch_norm_in_training_give_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = {"strategies": {"all": {"train": "all", "batch_norm": "train"}}, "regimes": FRESH}
    found = run(tmp_path, "short", Listener(Short(monkeypatch, training=[3])), **study)
    assert warnings_of(found) == [NORM]


@pytest.mark.parametrize(("at", "fits"), [(1, 2), (4, 1)], ids=["in training", "at the end"])
def test_memory_that_is_short_in_evaluation(
    at: int, fits: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(tmp_path, "whole", Listener(), **STUDIES["fresh"])
    told = Listener(Short(monkeypatch, evaluation=[at]))
    found = run(tmp_path, "short", told, **STUDIES["fresh"])
    assert difference(found, whole) == 0
    assert difference(found, whole, "logits.safetensors") <= 1e-5
    (said,) = warnings_of(found)
    assert said == PREDICTS.format(fits)
    assert told.warnings == [said]


@pytest.mark.parametrize("regimes", [PLAIN, FRESH], ids=["stored", "live"])
def test_memory_that_is_short_in_frozen_stages(
    regimes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = {"strategies": LAST, "regimes": regimes, "seeds": 1}
    monkeypatch.setenv("UNFREEZE_CACHE", str(tmp_path / "one"))
    whole = run(tmp_path, "whole", Listener(), **study)
    monkeypatch.setenv("UNFREEZE_CACHE", str(tmp_path / "other"))
    short = Short(monkeypatch, frozen=8)
    told = Listener(short)
    found = run(tmp_path, "short", told, **study)
    assert short.frozen_rows[:3] == [32, 16, 8]
    assert max(short.frozen_rows[3:]) == 8
    assert difference(found, whole) <= 1e-5
    assert told.warnings == warnings_of(found) == [FROZEN]


def test_rows_of_fewer_images_at_once_are_stored_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = {"strategies": {"head": {"train": "head"}}, "regimes": PLAIN}
    monkeypatch.setenv("UNFREEZE_CACHE", str(tmp_path / "one"))
    fresh = run(tmp_path, "fresh", Listener(), **study)
    monkeypatch.setenv("UNFREEZE_CACHE", str(tmp_path / "shared"))
    short = Short(monkeypatch, frozen=8)
    found = run(tmp_path, "short", Listener(short), **study)
    assert difference(found, fresh, "logits.safetensors") > 0
    enough = run(tmp_path, "enough", Listener(), **study)
    assert difference(enough, fresh) == difference(enough, fresh, "logits.safetensors") == 0
    told = Listener(short)
    again = run(tmp_path, "again", told, **study)  # short of memory as well, but all rows are there
    assert (read_json(again / "shared.json")["forwards"], told.warnings) == (0, [])
    assert difference(again, fresh) == 0


class LaterShort(Listener):
    """Lets memory for frozen stages get short with the first step of training."""

    def __call__(self, event: Event) -> None:
        if isinstance(event, Progress) and self.short is not None:
            self.short.frozen = 8
        super().__call__(event)


def test_rows_that_were_read_before_memory_got_short_are_read_again_after_a_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = {"strategies": {"head": {"train": "head"}}, "regimes": FRESH}  # validation is stored, training live
    monkeypatch.setenv("UNFREEZE_CACHE", str(tmp_path / "cache"))
    whole = run(tmp_path, "whole", LaterShort(Short(monkeypatch)), **study)
    monkeypatch.undo()
    monkeypatch.setenv("UNFREEZE_CACHE", str(tmp_path / "other"))
    with pytest.raises(Stopped):
        run(tmp_path, "stopped", LaterShort(Short(monkeypatch), kill_at=5), **study)
    out = run(tmp_path, "stopped", Listener(), **study)
    assert ends(out) == ends(whole)
    assert warnings_of(out) == [FROZEN]


def test_every_cell_starts_with_whole_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = Listener(Short(monkeypatch, training=[3]))
    found = run(tmp_path, "short", told, **STUDIES["fresh"] | {"seeds": 2})
    assert warnings_by_cell(found) == {"last.small.s0": [PARTS], "last.small.s1": []}
    assert told.warnings == [PARTS]


@pytest.mark.parametrize(
    ("strategies", "stop_after", "kill_at"),
    [
        (LAST, 2, None),  # the step in which memory was short is done, nothing after it
        (LAST, None, 3),  # without a state but the one that was saved because memory was short
        (GROUP, 1, None),
        (GROUP, None, 15),
    ],
    ids=["stop-2", "kill-3", "lock-step-stop-1", "lock-step-kill-15"],
)
def test_a_run_that_is_stopped_after_memory_was_short_ends_as_if_it_never_was(
    strategies: dict[str, Any],
    stop_after: int | None,
    kill_at: int | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    study = {"strategies": strategies, "regimes": FRESH}
    whole = run(tmp_path, "whole", Listener(Short(monkeypatch, training=[2])), **study)
    monkeypatch.undo()
    listener = Listener(Short(monkeypatch, training=[2]), Stops(stop_after), kill_at)
    with pytest.raises(Stopped):
        run(tmp_path, "stopped", listener, **study)
    monkeypatch.undo()
    out = run(tmp_path, "stopped", Listener(), **study)
    assert ends(out) == ends(whole)
    # In lock-step the second call is that of the strategy "head", whose inputs have come further.
    assert warnings_of(out) == [PARTS if strategies is LAST else PARTS.replace("last:", "head:")]


def test_rows_at_once_of_evaluation_survive_a_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = {"strategies": LAST, "regimes": FRESH}
    whole = run(tmp_path, "whole", Listener(Short(monkeypatch, evaluation=[1])), **study)
    monkeypatch.undo()
    with pytest.raises(Stopped):
        run(tmp_path, "stopped", Listener(Short(monkeypatch, evaluation=[1]), kill_at=6), **study)
    monkeypatch.undo()
    out = run(tmp_path, "stopped", Listener(), **study)
    assert ends(out) == ends(whole)
    assert len(warnings_of(out)) == 1


def test_not_even_one_image_fails_its_cell_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = {"strategies": LAST | {"head": {"train": "head"}}, "regimes": PLAIN}
    # In lock-step: the first one's first step at 4, 2 and 1 image.
    told = Listener(Short(monkeypatch, training=[1, 2, 3]))
    found = run(tmp_path, "short", told, **study)
    (failed,) = [event for event in told.events if isinstance(event, CellFailed)]
    assert failed.cell == "last.small.s0"
    assert failed.error == (
        "the memory of cpu is too small for test_resnet with one image of 32 pixels at a time, in float32\n"
        "  expected: a network that fits with one image at a time\n"
        "  fix:      set a smaller image_size or another backbone, train fewer stages, or set precision: bfloat16"
    )
    assert read_json(found / "cells" / "last.small.s0" / "error.json")["traceback"] == ""
    assert (found / "cells" / "head.small.s0" / "result.json").is_file()


@pytest.mark.parametrize("mode", [{"training": [3]}, {"evaluation": [1]}, {"training": [3], "backward": True}], ids=str)
def test_other_errors_are_never_swallowed(
    mode: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "CUDA error: device-side assert triggered"
    told = Listener(Short(monkeypatch, **mode, error=lambda: RuntimeError(text)))
    found = run(tmp_path, "short", told, **STUDIES["fresh"])
    (failed,) = [event for event in told.events if isinstance(event, CellFailed)]
    assert failed.error == f"RuntimeError: {text}"
    assert "Traceback" in read_json(found / "cells" / "last.small.s0" / "error.json")["traceback"]


def test_measuring_before_the_run_takes_fewer_rows_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNFREEZE_CACHE", str(tmp_path / "cache"))
    short = Short(monkeypatch, training=[1, 3, 4])
    short.counting = True
    told = Listener(short)
    found = run(tmp_path, "short", told, **STUDIES["fresh"] | {"batch_size": 8})
    assert short.rows[True][:2] == [8, 4]
    assert json.loads((found / "plan.json").read_text())["predictions"]["seconds"] > 0
    assert len(list(found.rglob("result.json"))) == 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_that_is_really_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = {
        "image_size": 256,
        "batch_size": 48,
        "device": "cuda",
        "strategies": {"all": {"train": "all", "optimizer": SGD}, "head": {"train": "head", "optimizer": SGD}},
        "regimes": {"small": {"train_per_class": 16, "val_per_class": 4, "augment": "flip_crop"}},
    }
    write_photographs(tmp_path / "photographs", per_class=24)
    monkeypatch.setenv("UNFREEZE_CACHE", str(tmp_path / "one"))
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    whole = run(tmp_path, "whole", Listener(), **study)
    peak, total = torch.cuda.max_memory_reserved(), torch.cuda.get_device_properties(0).total_memory
    monkeypatch.setenv("UNFREEZE_CACHE", str(tmp_path / "other"))
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(0.15 * peak / total)
    try:
        told = Listener()
        found = run(tmp_path, "short", told, **study)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert not [event for event in told.events if isinstance(event, CellFailed)]
    (lowered,) = re.findall(r"^all: .* it trains on (\d+) at a time", "\n".join(told.warnings), re.MULTILINE)
    assert 1 <= int(lowered) < 48
    assert torch.cuda.get_device_name() in told.warnings[0]
    assert difference(found, whole) <= 1e-4  # a GPU's sums are not in one order
    assert difference(found, whole, "logits.safetensors") <= 1e-3
