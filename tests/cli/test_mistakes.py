"""Invalid input: exit code 2, nothing on stdout, and the whole message on stderr."""

import sys
from pathlib import Path

import pytest

from tests.support.command_images import understood, write_photos
from tests.support.commands import STUDY

ANY_DATA = (
    "a folder of class folders, a folder with train/, val/ and test/ of class folders, a .csv or .parquet manifest, "
    "hf:owner/name, or food101"
)


def message(given: str, expected: str, fix: str) -> str:
    return f"unfreeze: {given}\n  expected: {expected}\n  fix:      {fix}\n"


@pytest.mark.parametrize("command", ["run", "plan"])
def test_a_missing_folder(unfreeze, study, command):
    assert unfreeze(command, "fotos") == (
        2,
        "",
        message(
            "fotos does not exist",
            "a study file (.yaml) or a folder of images",
            "correct the path; did you mean photos?",
        ),
    )


def test_a_missing_study_file(unfreeze, study):
    assert unfreeze("run", "nothing.yaml") == (
        2,
        "",
        message(
            "nothing.yaml is not a file",
            "a study file (YAML)",
            "correct the path, or write a study file with 'unfreeze init DATA'",
        ),
    )


def test_a_missing_folder_in_a_study(unfreeze, study):
    (study / "study.yaml").write_text(STUDY.replace("data: photos", "data: photo"))
    folder = study.resolve() / "photo"
    assert unfreeze("plan", "study.yaml") == (
        2,
        "",
        message(
            f"data: {folder}: the folder {folder} does not exist",
            ANY_DATA,
            f"correct the path; did you mean {folder}s?",
        ),
    )


def test_a_file_that_is_not_a_study(unfreeze, study):
    (study / "notes.md").write_text("x")
    assert unfreeze("run", "notes.md") == (
        2,
        "",
        message(
            "notes.md is neither a study file nor images",
            "a study file (.yaml), a folder of images, or a .csv or .parquet table of their paths and labels",
            "correct the path, or write a study file with 'unfreeze init DATA'",
        ),
    )


def test_a_study_directory_instead_of_a_study(unfreeze, study):
    (study / "runs").mkdir()
    (study / "runs" / "plan.json").write_text("{}")
    assert unfreeze("run", "runs") == (
        2,
        "",
        message(
            "runs is a study directory",
            "a study file (.yaml) or a folder of images",
            "give the study file with --out runs to resume it, or 'unfreeze report runs' for its report",
        ),
    )


def test_one_class_only(unfreeze, folder):
    photos = write_photos(folder / "photos", {"red": 3}).resolve()
    assert unfreeze("run", "photos") == (
        2,
        "",
        message(f"{photos} holds one class only: red", "at least two class folders", "add a folder for each class"),
    )


def test_too_few_images_for_a_split(unfreeze, study):
    write_photos(study / "rare", {"rare": 2, "red": 5})
    assert unfreeze("run", "study.yaml", "--set", "data=rare") == (
        2,
        "",
        understood(study / "rare", {"rare": 2, "red": 5})
        + "read 7 image files\n"
        + message(
            "too few images in 1 of 2 classes: rare has 2 "
            "(copies of one picture, and the images of one group, count once)",
            "at least 3 in each class: one each for train and validation and test",
            "add images to these classes, or remove their folders",
        ),
    )
    assert not (study / "runs").exists()


def test_a_strict_shortfall_is_refused_before_anything_runs(unfreeze, study):
    strict = "{train_per_class: 10, strict: true}"
    code, said, complaint = unfreeze("run", "study.yaml", "--set", f"regimes.many={strict}")
    assert (code, said) == (2, "")
    assert complaint == understood(study / "photos") + "read 36 image files\n" + message(
        "regimes.many: too few training images for a strict regime: blue 9, green 9",
        "10 training images of each class",
        "add images, lower the regime's number, or remove strict from the regime",
    )
    assert not (study / "runs").exists()


@pytest.mark.parametrize("command", ["run", "plan"])
def test_a_batch_of_one_image_with_batch_norm_and_its_fix(unfreeze, study, command):
    code, said, complaint = unfreeze(command, "study.yaml", "--set", "batch_size=1")
    assert (code, said) == (2, "")
    complaint = complaint.removeprefix(understood(study / "photos")).removeprefix("read 36 image files\n")
    assert complaint == message(
        "strategies.scratch, sgd: batch_size: 1 is one image a batch",
        "at least two images in a batch, since the BatchNorm of stages with fresh weights (or batch_norm: train) "
        "takes its statistics from each",
        "choose another, for example --set batch_size=3",
    )
    assert not (study / "runs").exists() and not list((study / "cache").rglob("calibrations"))
    assert unfreeze("plan", "study.yaml", "--set", "batch_size=3")[0] == 0


def test_a_key_of_another_library_and_its_fix(unfreeze, study):
    code, said, complaint = unfreeze("plan", "study.yaml", "--set", "lr=1e-3")
    assert (code, said) == (2, "")
    assert complaint == message(
        "study.yaml has 1 problem:\n"
        "  - lr: unknown key; did you mean 'strategies.scratch.optimizer.lr'? (or of another strategy: sgd)",
        "the keys and values that docs/study-file.md lists",
        "in place of lr: --set strategies.scratch.optimizer.lr=0.001",
    )
    assert unfreeze("plan", "study.yaml", "--set", "strategies.scratch.optimizer.lr=0.001")[0] == 0


def test_an_unknown_key(unfreeze, study):
    (study / "study.yaml").write_text(STUDY + "epoch: 3\n")
    assert unfreeze("run", "study.yaml") == (
        2,
        "",
        message(
            "study.yaml has 1 problem:\n  - epoch: unknown key; did you mean 'epochs'?",
            "the keys and values that docs/study-file.md lists",
            "in place of epoch: --set epochs=3",
        ),
    )


@pytest.mark.parametrize("command", ["run", "plan"])
def test_an_unknown_backbone(unfreeze, study, command):
    code, said, complaint = unfreeze(command, "study.yaml", "--backbone", "resnet19")
    assert (code, said) == (2, "")
    complaint = complaint.removeprefix(understood(study / "photos")).removeprefix("read 36 image files\n")
    assert complaint == message(
        "strategies.scratch, sgd: backbone: timm has no model resnet19",
        "a timm model, for example vgg16, resnet50, tf_efficientnet_lite0, mobilenetv3_large_100, convnext_tiny, "
        "regnety_008, vit_small_patch16_224, swin_tiny_patch4_window7_224",
        "set backbone: resnet18 (or resnet61q, resnet51q)",
    )


def test_an_unknown_backbone_to_describe(unfreeze, folder):
    assert unfreeze("describe", "resnet19") == (
        2,
        "",
        message(
            "backbone: timm has no model resnet19",
            "a timm model, for example vgg16, resnet50, tf_efficientnet_lite0, mobilenetv3_large_100, convnext_tiny, "
            "regnety_008, vit_small_patch16_224, swin_tiny_patch4_window7_224",
            "set backbone: resnet18 (or resnet61q, resnet51q)",
        ),
    )


def test_a_cut_that_does_not_exist(unfreeze, study):
    cut = ["--set", "weights=pretrained", "--set", "strategies.deep={train: {last: 99}}"]
    code, said, complaint = unfreeze("plan", "study.yaml", *cut)
    assert (code, said) == (2, "")
    assert complaint == message(
        "strategies.deep: train: {last: 99}, but the backbone has 5 stages",
        "1 to 5 stages (stem, layer1, layer2, layer3, layer4)",
        "set train: {last: 5} or less, or train: all",
    )


def test_broken_yaml(unfreeze, study):
    (study / "study.yaml").write_text(STUDY + "seeds: [1, 2\n")
    code, said, complaint = unfreeze("run", "study.yaml")
    assert (code, said) == (2, "")
    assert complaint == message(
        "study.yaml, line 13, column 1: expected ',' or ']', but got '<stream end>'",
        "YAML, as in studies/",
        "fix that line; spaces indent, never tabs; 'unfreeze init DATA' writes one that works",
    )


def test_an_output_that_is_a_file(unfreeze, study):
    (study / "taken").write_text("x")
    assert unfreeze("run", "study.yaml", "--out", "taken") == (
        2,
        "",
        message("--out taken is a file", "a directory, or a path where one can be made", "give another --out DIR"),
    )


def test_an_output_below_a_file(unfreeze, study):
    (study / "taken").write_text("x")
    code, said, complaint = unfreeze("run", "study.yaml", "--out", "taken/below")
    assert (code, said) == (2, "")
    complaint = complaint.removeprefix(understood(study / "photos")).removeprefix("read 36 image files\n")
    assert complaint == message(
        "cannot write taken/below/study.yaml: Not a directory",
        "a directory that can be written to, with room on its disk",
        "give another directory with --out DIR, or free space and run the same command again",
    )


@pytest.mark.parametrize("out", ["photos/runs", "photos"])
def test_an_output_among_the_images(unfreeze, study, out):
    assert unfreeze("run", "study.yaml", "--out", out) == (
        2,
        "",
        message(
            f"the study directory {out} is in the folder of images {study.resolve() / 'photos'}",
            "a directory outside of it, since nothing is ever written there",
            "give another with --out DIR",
        ),
    )


def test_an_invalid_time(unfreeze, study):
    assert unfreeze("run", "study.yaml", "--time", "soon") == (
        2,
        "",
        message(
            "time 'soon' is not a duration", "a number with s, m, h or d", "for example --time 30m or --time 1h30m"
        ),
    )


def test_invalid_seeds(unfreeze, study):
    assert unfreeze("plan", "study.yaml", "--seeds", "few") == (
        2,
        "",
        message("--seeds few", "a number of seeds, or seeds with commas", "for example --seeds 3 or --seeds 0,4"),
    )


def test_an_unknown_preset(unfreeze, study):
    code, said, complaint = unfreeze("run", "photos", "--preset", "quik")
    assert (code, said) == (2, "")
    assert complaint == message(
        "preset 'quik' is unknown; did you mean 'quick'?",
        "one of article, demo, quick, thorough",
        "for example --preset quick",
    )


def test_an_override_without_a_value(unfreeze, study):
    assert unfreeze("plan", "study.yaml", "--set", "epochs") == (
        2,
        "",
        message(
            "--set 'epochs' has no '='",
            "--set key.path=value",
            "for example --set epochs=5 or --set strategies.head.optimizer.lr=1e-3",
        ),
    )


def test_a_report_of_a_folder_without_a_study(unfreeze, folder):
    assert unfreeze("report", "runs") == (
        2,
        "",
        message(
            "runs does not contain a study: plan.json is missing",
            "a directory that 'unfreeze run' wrote",
            "give the directory that --out named, by default runs/NAME",
        ),
    )


def test_init_never_overwrites(unfreeze, study):
    before = Path("study.yaml").read_text()
    assert unfreeze("init", "photos") == (
        2,
        "",
        message("study.yaml already exists", "a new file", "choose another with --out FILE, or move this one away"),
    )
    assert Path("study.yaml").read_text() == before


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a folder that somebody is in cannot be removed")
def test_a_deleted_current_folder(unfreeze, study, monkeypatch):
    (study / "gone").mkdir()
    monkeypatch.chdir(study / "gone")
    (study / "gone").rmdir()
    assert unfreeze("check", str(study / "photos")) == (
        2,
        "",
        message(
            "the current folder cannot be used: no such file or directory",
            "an existing folder",
            "change to another folder (cd) and run the same command again",
        ),
    )
