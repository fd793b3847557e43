"""What ``plan`` says, word for word, with and without the data."""

import json

from tests.cli.images import write_photos

PLAN = """\
study: 2 strategies x 2 regimes x 3 seeds = 12 cells
data: {data}: 36 files in 3 classes, 12 a class
split: 20% test, 15% validation, the rest training

cells     few            augmented
─────────────────────────────────────
scratch   seeds 0 to 2   seeds 0 to 2
phased    seeds 0 to 2   seeds 0 to 2

regime      training           validation     augmentation   epoch
─────────────────────────────────────────────────────────────────────────
few         3                  all: about 2   none           one pass
augmented   up to 9: about 8   all: about 2   trivial        400 examples
files a class

scratch
    test_resnet, random weights, 32 pixels (crop), batches of 32
    head: Pool (avg), Linear 96 to 3
    trains all stages and the head: 373.0 k of 373.0 k parameters; nothing frozen
    2 epochs of Adam, learning rate 0.001, cosine schedule after 10% warm-up
    stops early after 3 epochs without a better val_loss, keeps the best epoch

phased
    test_resnet, pretrained, 32 pixels (crop), batches of 8
    head: Pool (avg), Linear 96 to 3
    phase 1 trains the head alone: 291 of 373.0 k parameters; cut after layer4 (5 of 5 stages frozen)
    1 epoch of Adam, learning rate 0.003, constant schedule
    phase 2 trains the last 2 stages and the head: 310.6 k of 373.0 k parameters; {cut}
    2 epochs of Adam, learning rate 0.001, layer decay 0.5, constant schedule, label smoothing 0.1
    tuned: 2 candidates a cell, chosen on validation; the first is shown

warning: regime augmented asks for 9 training files a class; fewer: blue about 8, green about 8, red about 8
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


def test_the_plan(unfreeze, study):
    (study / "study.yaml").write_text(STUDY)
    code, said, told = unfreeze("plan", "study.yaml")
    assert (code, told) == (0, "")
    assert said == PLAN.format(data=(study / "photos").resolve(), cut="cut after layer2 (3 of 5 stages frozen)")


def test_plan_as_json(unfreeze, study):
    code, said, told = unfreeze("plan", "study.yaml", "--json")
    assert (code, told) == (0, "")
    record = json.loads(said)
    assert record["files"] == {"blue": 12, "green": 12, "red": 12}
    assert [cell["cell"] for cell in record["cells"]] == ["scratch.few.s0", "sgd.few.s0"]
    assert record["networks"]["scratch"]["phases"][0]["train"] == "all stages and the head"
    assert record["warnings"] == []


def test_food101_is_planned_without_its_images(unfreeze, folder):
    code, said, told = unfreeze(
        "plan", "food101", "--backbone", "test_resnet", "--set", "image_size=32", "--seeds", "1"
    )
    assert (code, told) == (0, "")
    assert "data: food101, not on this machine\n" in said
    assert "head: Pool (avg), Linear 96 to 101\n" in said
    warning = said.splitlines()[-1]
    assert warning.startswith(f"warning: data: food101: it is not in {folder / 'cache'}; the study cannot run before")


def test_validation_on_the_test_images_is_warned_of(unfreeze, study):
    _, said, _ = unfreeze("plan", "study.yaml", "--set", "split.val=test")
    assert said.splitlines()[-1] == (
        "warning: validation images are the test images: what stops and chooses also reports, so scores flatter"
    )


def test_folders_that_are_splits(unfreeze, study):
    for split, count in (("train", 5), ("val", 2), ("test", 3)):
        write_photos(study / "split" / split, {"red": count, "blue": count + 1})
    _, said, _ = unfreeze("plan", "study.yaml", "--set", "data=split", "--set", "regimes.few.train_per_class=6")
    assert f"data: {(study / 'split').resolve()}: 23 files in 2 classes, 10 (red) to 13 (blue) a class\n" in said
    assert "split: the folders say it: test, train, validation\n" in said
    assert said.splitlines()[-1] == "warning: regime few asks for 6 training files a class; fewer: red 5"
