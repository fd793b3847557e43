"""Rows of frozen stages that a study computes, and those that it finds in the cache."""

import os
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from tests.support.worlds import tiny_study
from unfreeze import Study
from unfreeze.events import Event, Preparing
from unfreeze.storage.records import read_json

HEAD = {"train": "head", "optimizer": {"lr": 1e-2}}
LAST = {"train": {"last": 1}, "head": {"hidden": [8], "dropout": [0.5]}}
PHASES = {"phases": [{"train": "head", "epochs": 1}, {"train": "all", "epochs": 1}]}
TUNED = {"train": "head", "tune": {"optimizer.lr": [1e-2, 1e-3]}}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNFREEZE_CACHE", str(tmp_path / "cache"))


def bank(**values: Any) -> dict[str, Any]:
    return {"small": {"train_per_class": 5, "val_per_class": 2, "augment": "flip_crop", "views": 3, **values}}


def run(folder: Path, out: str, **values: Any) -> dict[str, Any]:
    """Run a study, of one head on a bank of views where nothing else is said; return the facts of its run."""
    asked = {"strategies": {"head": HEAD}, "regimes": bank()} | values
    results = Study(**tiny_study(folder, **asked)).run(folder / out, workers=0)
    assert not results.failed
    return read_json(folder / out / "shared.json")["runs"][-1]


def rows(facts: dict[str, Any]) -> int:
    return sum(key["rows"] for key in facts["pieces"])


def assert_same_tensors(folder: Path, one: str, other: str, *strategies: str) -> None:
    for strategy in strategies:
        for name in ("logits.safetensors", "model.safetensors"):
            mine, theirs = (folder / out / "cells" / f"{strategy}.small.s0" / name for out in (one, other))
            assert mine.read_bytes() == theirs.read_bytes(), f"{strategy}: {name}"


@pytest.mark.parametrize(
    "values",
    [
        pytest.param({"activations": "float16"}, id="float16"),
        pytest.param(
            {"regimes": bank(examples_per_epoch=11, validation={"augment": "flip_crop", "examples": 7})},
            id="epochs that are no passes",
        ),
    ],
)
def test_stored_equals_live_in_a_cache_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, values: dict[str, Any]
) -> None:
    study = {"strategies": {"head": HEAD, "last": LAST, "phases": PHASES, "tuned": TUNED}, **values}
    stored = run(tmp_path, "stored", **study)
    monkeypatch.setenv("UNFREEZE_CACHE", str(tmp_path / "empty"))
    live = run(tmp_path, "live", budget={"disk": "1B"}, **study)
    assert rows(stored) > 0
    assert (live["pieces"], live["disk"]) == ([], 0)
    assert live["forwards"] > stored["forwards"] > 0
    assert not list((tmp_path / "empty").glob("activations/*"))
    assert_same_tensors(tmp_path, "stored", "live", *study["strategies"])


def test_another_head_another_rate_and_more_candidates_compute_nothing(tmp_path: Path) -> None:
    assert (
        rows(run(tmp_path, "first")) == 15 * 2 + 7 + 7
    )  # two epochs draw two views; the validation pool and test are plain
    second = run(tmp_path, "second", strategies={"other": {"train": "head", "head": {"hidden": [4]}}, "tuned": TUNED})
    assert (second["pieces"], second["forwards"]) == ([], 0)


def test_more_epochs_compute_the_views_that_are_new_alone(tmp_path: Path) -> None:
    run(tmp_path, "first")
    assert rows(run(tmp_path, "second", epochs=3)) == 15
    assert rows(run(tmp_path, "third", epochs=5)) == 0  # the bank of three begins anew


def test_another_augmentation_has_views_of_its_own_and_the_same_plain_ones(tmp_path: Path) -> None:
    run(tmp_path, "first")
    assert rows(run(tmp_path, "second", regimes=bank(augment="article"))) == 15 * 2


def test_another_seed_has_views_of_its_own(tmp_path: Path) -> None:
    run(tmp_path, "first")
    assert rows(run(tmp_path, "second", seeds=[1])) >= 15 * 2


def test_one_changed_weight_before_the_cut_misses_every_row_and_one_behind_it_none(tmp_path: Path) -> None:
    study = {"strategies": {"last": LAST}}
    first = rows(run(tmp_path, "first", **study))
    path = tmp_path / "weights.safetensors"
    original = load_file(path)
    names = [name for name, tensor in original.items() if tensor.ndim == 4]
    for name, out, expected in ((names[-1], "behind", 0), (names[0], "before", first)):
        tensors = {key: tensor.clone() for key, tensor in original.items()}
        tensors[name].view(-1)[0] += 1
        save_file(tensors, path)
        assert rows(run(tmp_path, out, **study)) == expected


def test_touched_images_are_hit(tmp_path: Path) -> None:
    run(tmp_path, "first")
    for number, path in enumerate(sorted((tmp_path / "photographs").rglob("*.png"))):
        os.utime(path, (number, number))
    second = run(tmp_path, "second")
    assert (second["pieces"], second["forwards"]) == ([], 0)
    assert_same_tensors(tmp_path, "first", "second", "head")


def test_altered_rows_are_computed_and_stored_again(tmp_path: Path) -> None:
    first = run(tmp_path, "first")
    shard = max((tmp_path / "cache" / "activations").glob("*/*.rows"), key=lambda path: path.stat().st_size)
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    second, third = run(tmp_path, "second"), run(tmp_path, "third")
    assert second["altered_chunks"] == 1
    assert 0 < rows(second) < rows(first)
    assert (third["altered_chunks"], third["pieces"]) == (0, [])
    assert_same_tensors(tmp_path, "first", "third", "head")


def test_what_was_computed_before_an_interruption_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = 0

    def interrupt(event: Event) -> None:
        nonlocal done
        if isinstance(event, Preparing) and event.what.startswith("frozen stages") and event.done:
            done = event.done
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Study(**tiny_study(tmp_path, strategies={"head": HEAD}, regimes=bank())).run(
            tmp_path / "out", emit=interrupt, workers=0
        )
    left = rows(run(tmp_path, "out"))
    monkeypatch.setenv("UNFREEZE_CACHE", str(tmp_path / "empty"))
    assert done > 0
    assert left + done == rows(run(tmp_path, "whole"))


def test_a_phase_that_begins_early_since_the_one_before_stopped_finds_its_views(tmp_path: Path) -> None:
    phases = [{"train": "head", "epochs": 3}, {"train": {"last": 1}, "epochs": 2}]
    stopping = {"patience": 1, "min_delta": 10.0}  # never met: each phase stops as soon as it may
    regime = {"train_per_class": 5, "val_per_class": 2, "augment": "flip_crop", "views": 4}
    study = Study(
        **tiny_study(
            tmp_path, strategies={"early": {"phases": phases, "early_stopping": stopping}}, regimes={"bank": regime}
        )
    )
    results = study.run(tmp_path / "out", workers=0)
    assert results.table["status"].tolist() == ["finished"]
    assert results.history["phase"].astype(int).tolist() == [0, 0, 1]
