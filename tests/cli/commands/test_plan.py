"""``unfreeze plan``: the whole output, with and without the data."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from tests.support.command_images import write_photos
from tests.support.worlds import write_weights
from unfreeze.cli import tables

PLAN = """\
study: 2 strategies x 2 regimes x 3 seeds = 12 cells
data: {data}: class folders, 36 files in 3 classes, 12 a class
classes: blue, green, red
split: drawn: 20% test, 15% validation, the rest training

cells     few            augmented
─────────────────────────────────────
scratch   seeds 0 to 2   seeds 0 to 2
phased    seeds 0 to 2   seeds 0 to 2

regime      training           validation     augmentation   epoch
─────────────────────────────────────────────────────────────────────────
few         3                  all: about 2   none           one pass
augmented   up to 9: about 8   all: about 2   trivial        400 examples
files per class

scratch
    test_resnet, random weights, 32 pixels (crop), batches of 32
    head: Pool (avg), Linear 96 to 3
    trains all stages and the head: 373.0 k of 373.0 k parameters; nothing frozen
    2 epochs of Adam, learning rate 0.001, cosine schedule after 10% warm-up
    stops early after 3 epochs without a better val_loss, restores the best epoch

phased
    test_resnet, weights {data}/../weights.safetensors, 32 pixels (crop), batches of 8
    head: Pool (avg), Linear 96 to 3
    phase 1 trains the head alone: 291 of 373.0 k parameters; cut after layer4 (5 of 5 stages frozen)
    1 epoch of Adam, learning rate 0.003, constant schedule
    phase 2 trains the last 2 stages and the head: 310.6 k of 373.0 k parameters; {cut}
    2 epochs of Adam, learning rate 0.001, layer decay 0.5, constant schedule, label smoothing 0.1
    tuned: 2 candidates per cell, chosen on validation; the first is shown
"""
BOTH = "test_resnet (weights), 32 pixels, after layer2 + test_resnet (weights), 32 pixels, after layer4"
FRESH = "augment: trivial draws new views in every epoch (views: fresh), so the frozen stages see training images live"
SHARED = f"""\
computed once rows size built from stored for time
decoded pictures 127.4 kB files yes all cells
test_resnet (weights), 32 pixels, after layer2 27 84.9 kB images yes 6 cells TIME
test_resnet (weights), 32 pixels, after layer4 24 10.9 kB after layer2 yes 6 cells TIME
cells reuse time without reuse
scratch x few, augmented (6 cells) nothing: everything trains, so there is no frozen work to reuse TIME TIME
phased x few (3 cells) {BOTH} TIME TIME
phased x augmented (3 cells) {BOTH}; {FRESH} TIME TIME
predicted: TIME, 223.3 kB of disk; without reuse, in plain PyTorch, TIME, FACTOR times as long
written to runs/study: up to 41.0 MB, 16.7 MB of it for models and predictions; FREE available
warning: regime augmented asks for 9 training files a class; fewer: blue about 8, green about 8, red about 8; \
regimes.augmented.train_per_class: 7 is what each has"""
HEADS = """\
data: photos
backbone: {name: test_resnet, weights: weights.safetensors}
image_size: 32
epochs: 1
strategies:
  head: {train: head}
  last: {train: {last: 1}}
regimes:
  few: {train_per_class: 3}
seeds: 1
"""
STUDY = """\
data: photos
backbone: test_resnet
image_size: 32
epochs: 2
strategies:
  scratch:
    weights: none
    train: all
    optimizer: {name: adam, lr: 1e-3}
    schedule: {name: cosine, warmup: 0.1}
    early_stopping: {patience: 3}
  phased:
    backbone: {name: test_resnet, weights: photos/../weights.safetensors}
    batch_size: 8
    phases:
      - {train: head, epochs: 1, optimizer: {name: adam, lr: 3e-3}, schedule: {name: constant, warmup: 0}}
      - train: {last: 2}
        optimizer: {name: adam, layer_decay: 0.5}
        schedule: {name: constant, warmup: 0}
        label_smoothing: 0.1
    tune: {phases.1.optimizer.lr: [1e-3, 1e-4]}
regimes:
  few: {train_per_class: 3}
  augmented: {train_per_class: 9, augment: trivial, examples_per_epoch: 400}
seeds: 3
"""


def squeezed(said: str) -> str:
    """Return text without a table's rules and padding, and without measured times."""
    lines = [re.sub(" {2,}", " ", line).strip() for line in said.splitlines() if line and not line.startswith("─")]
    timeless = re.sub(r"\b[\d.]+ (s|min)\b", "TIME", "\n".join(lines))
    timeless = re.sub(r"\b[\d.]+ times as long", "FACTOR times as long", timeless)
    return re.sub(r"\b[\d.]+ .B available", "FREE available", timeless)


def test_the_plan(unfreeze, study):
    (study / "study.yaml").write_text(STUDY)
    write_weights(study / "weights.safetensors")
    code, said, told = unfreeze("plan", "study.yaml")
    assert (code, told) == (0, "")
    cells, shared = said.split("\ncomputed once")
    assert cells == PLAN.format(data=(study / "photos").resolve(), cut="cut after layer2 (3 of 5 stages frozen)")
    assert squeezed("computed once" + shared) == SHARED


def test_the_run_does_what_the_plan_shows(unfreeze, study):
    (study / "study.yaml").write_text(HEADS)
    write_weights(study / "weights.safetensors")
    code, said, _ = unfreeze("plan", "study.yaml", "--json")
    assert code == 0
    assert not (study / "cache" / "pixels").exists() and not (study / "cache" / "looks").exists()
    assert unfreeze("run", "study.yaml", "--out", "out")[0] == 0
    planned, ran = json.loads(said), json.loads((study / "out" / "plan.json").read_text())
    for key in ("name", "rows", "bytes", "held", "stored", "built_from", "cells"):
        assert [one[key] for one in planned["shared"]] == [one[key] for one in ran["shared"]], key
    for key in ("cell", "reuses", "why_not"):
        assert [one[key] for one in planned["reuse"]] == [one[key] for one in ran["reuse"]], key
    assert planned["predictions"]["disk"] == ran["predictions"]["disk"] > 0
    again = squeezed(unfreeze("plan", "study.yaml")[1])
    assert re.search(r"after layer3 \d+ [\d.]+ kB images yes, already there last.few.s0 TIME", again)


def test_the_plan_keeps_what_an_earlier_run_drew(unfreeze, study):
    (study / "study.yaml").write_text(HEADS)
    write_weights(study / "weights.safetensors")
    assert unfreeze("run", "study.yaml", "--out", "out")[0] == 0
    more = write_photos(study / "more", 60)
    for path in sorted(more.rglob("*.png")):
        if int(path.stem) >= 12:
            path.rename(study / "photos" / path.parent.name / path.name)
    afresh = json.loads(unfreeze("plan", "study.yaml", "--json")[1])
    planned = json.loads(unfreeze("plan", "study.yaml", "--out", "out", "--json")[1])
    changed = (
        "the images changed since the last run: 144 new; the test set stays as it was drawn, and cells whose images"
    )
    assert [text for text in planned["warnings"] if "test set" in text] == [f"{changed} changed run again"]
    assert not [text for text in afresh["warnings"] if "test set" in text]
    assert unfreeze("run", "study.yaml", "--out", "out")[0] == 0
    ran = json.loads((study / "out" / "plan.json").read_text())
    assert [one["rows"] for one in planned["shared"]] == [one["rows"] for one in ran["shared"]]
    assert [one["rows"] for one in afresh["shared"]] != [one["rows"] for one in ran["shared"]]


def test_nothing_fits_into_the_disk_budget(unfreeze, study):
    (study / "study.yaml").write_text(HEADS)
    write_weights(study / "weights.safetensors")
    said = squeezed(unfreeze("plan", "study.yaml", "--set", "budget.disk=1KB")[1])
    why = "some activations do not fit into the disk budget of 1KB, so they are computed live"
    assert "decoded pictures" not in said
    assert "images no: 7.8 kB do not fit into the disk budget of 1KB head.few.s0 TIME" in said
    assert f"head x few (1 cell) nothing: {why} TIME TIME\n" in said
    assert "predicted: TIME, 0 bytes of disk; " in said


def test_missing_weights(unfreeze, study):
    (study / "study.yaml").write_text(HEADS)
    code, said, told = unfreeze("plan", "study.yaml")
    assert (code, told) == (0, "")
    assert "head\n    test_resnet, weights" in said
    assert "\npredicted: " not in said and "computed once" not in said
    warning = said[said.index("warning: ") :]
    assert warning.startswith("warning: shared work, time and disk cannot be predicted: ")
    assert "weights.safetensors" in warning
    record = json.loads(unfreeze("plan", "study.yaml", "--json")[1])
    assert (record["shared"], record["reuse"], record["predictions"]) == (None, None, None)
    assert len(record["warnings"]) == 1


def test_a_damaged_image_is_not_used_to_calibrate(unfreeze, study):
    (study / "study.yaml").write_text(HEADS)
    write_weights(study / "weights.safetensors")
    for path in sorted((study / "photos").glob("*/*"))[::2]:
        path.write_bytes(path.read_bytes()[:-40])
    code, said, told = unfreeze("plan", "study.yaml")
    assert (code, told) == (0, "")
    assert "predicted: " in said


def test_long_tables_are_summed_up():
    piece = {
        "rows": 10,
        "bytes": 1000,
        "held": 0,
        "stored": True,
        "why_not": "",
        "built_from": "images",
        "seconds": 1.0,
    }
    cell = {"reuses": [], "seconds": 1.0, "seconds_alone": 2.0}
    record = {
        "shared": [{**piece, "name": f"piece {number}", "cells": [f"cell {number}"]} for number in range(30)],
        "reuse": [{**cell, "cell": f"cell {number}", "why_not": [f"reason {number}"]} for number in range(30)],
        "predictions": {"pixel_bytes": 0},
    }
    cells = [{"cell": f"cell {number}", "strategy": "head", "regime": "few"} for number in range(30)]
    for made, last in (
        (tables.activations(record), ["11 more", "110", "11.0 kB", "", "11 of them", "11 cells", "11 s"]),
        (tables.reuse(record, cells), ["11 more cells", "see --json", "11 s", "22 s"]),
    ):
        assert made.row_count == tables.ROWS
        assert [list(column.cells)[-1] for column in made.columns] == last


def test_plan_as_json(unfreeze, study):
    code, said, told = unfreeze("plan", "study.yaml", "--json")
    assert (code, told) == (0, "")
    record = json.loads(said)
    assert record["files"] == {"blue": 12, "green": 12, "red": 12}
    assert [cell["cell"] for cell in record["cells"]] == ["scratch.few.s0", "sgd.few.s0"]
    assert record["networks"]["scratch"]["phases"][0]["train"] == "all stages and the head"
    assert record["warnings"] == []
    assert record["shared"] == []
    assert [one["why_not"] for one in record["reuse"]] == [
        ["everything trains, so there is no frozen work to reuse"],
        ["everything trains, so there is no frozen work to reuse"],
    ]
    shared = {"seconds", "seconds_alone", "ratio", "disk", "pixel_bytes"}
    written = {"directory", "directory_bytes", "models_bytes", "states_bytes", "directory_free"}
    assert set(record["predictions"]) == shared | written


def test_food101_is_planned_without_its_images(unfreeze, folder):
    code, said, told = unfreeze(
        "plan", "food101", "--backbone", "test_resnet", "--set", "image_size=32", "--seeds", "1"
    )
    assert (code, told) == (0, "")
    assert "data: food101 (not on this machine)\n" in said
    assert "head: Pool (avg), Linear 96 to 101\n" in said
    warning = said.splitlines()[-1]
    assert warning.startswith(
        f"warning: data: food101: Food-101 is not in {folder / 'cache'}; before the study can run:"
    )


def test_a_warning_for_validation_on_test_images(unfreeze, study):
    _, said, _ = unfreeze("plan", "study.yaml", "--set", "split.val=test")
    assert said.splitlines()[-1] == (
        "warning: the test images are also the validation images, which stop training and choose candidates, so test "
        "scores are optimistic; "
        "split: {val: 0.15} draws separate ones"
    )


def test_folders_that_are_splits(unfreeze, study):
    random = np.random.default_rng(0)
    for split, count in (("train", 5), ("val", 2), ("test", 3)):
        write_photos(study / "split" / split, {"red": count, "blue": count + 1})
        for path in (study / "split" / split).rglob("*.png"):  # so that none is a copy of one in another split
            Image.fromarray(random.integers(0, 256, (24, 24, 3), dtype=np.uint8)).save(path)
    _, said, _ = unfreeze("plan", "study.yaml", "--set", "data=split", "--set", "regimes.few.train_per_class=6")
    assert (
        f"data: {(study / 'split').resolve()}: split folders, 23 files in 2 classes, 10 (red) to 13 (blue) a "
        "class\nclasses: blue, red\nsplit: given: train 11 files, validation 5 files (val), test 7 files\n"
    ) in said
    assert said.splitlines()[-1] == (
        "warning: regime few asks for 6 training files a class; fewer: red 5; "
        "regimes.few.train_per_class: 5 is what each has"
    )


@pytest.mark.parametrize(
    ("second", "val", "said"),
    [
        ("val", "0.2", "test 6 files (val); 25% of the training images are drawn for validation"),
        ("test", "0.2", "test 6 files; 25% of the training images are drawn for validation"),
        ("val", "auto", "test 6 files (val); 31% of the training images are drawn for validation"),
        ("val", "given", "validation 6 files (val)"),
        ("val", "test", "test 6 files (val); validation on the test images"),
    ],
)
def test_two_folders_that_are_splits(unfreeze, study, second, val, said):
    random = np.random.default_rng(0)
    for split, count in (("train", 12), (second, 3)):
        write_photos(study / "split" / split, {"red": count, "blue": count})
        for path in (study / "split" / split).rglob("*.png"):
            Image.fromarray(random.integers(0, 256, (24, 24, 3), dtype=np.uint8)).save(path)
    code, text, _ = unfreeze("plan", "study.yaml", "--set", "data=split", "--set", f"split.val={val}")
    assert code == 0
    assert f"split: given: train 24 files, {said}\n" in text
    told = "besides training images the data gives one split, validation (6 images)"
    assert (told in text) == (second == "val" and val != "given")


def test_an_automatic_validation_share_is_shown_resolved(unfreeze, study):
    _, text, _ = unfreeze("plan", "study.yaml", "--set", "split.val=auto")
    assert "split: drawn: 20% test, 25% validation, the rest training\n" in text
