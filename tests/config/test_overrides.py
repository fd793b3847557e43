"""Precedence of overrides, values, files, presets and defaults; and relative paths."""

from pathlib import Path
from typing import Any

import pytest

from tests.support.choices import read_study
from unfreeze.errors import UserError

FILE = """\
data: photos
tests: {site_b: other/photos}
epochs: 7
strategies:
  probe: {train: head, optimizer: sgd}
  mine: {train: all, backbone: {name: vgg16, weights: nets/a.safetensors}, tune: {backbone.weights: [b.safetensors]}}
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "studies").mkdir()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    path = tmp_path / "studies" / "birds.yaml"
    path.write_text(FILE)
    return path


def test_precedence_of_presets_files_values_and_overrides(file: Path) -> None:
    assert read_study(file, preset="quick").model_dump(include={"name", "epochs", "image_size", "batch_size"}) == {
        "name": "birds",  # the file's name
        "epochs": 7,  # the file's, not the preset's 10
        "image_size": 128,  # the preset's, not the default 224
        "batch_size": 32,  # the default
    }
    assert read_study(file, preset="quick", values={"epochs": 8}).epochs == 8
    assert read_study(file, preset="quick", values={"epochs": 8}, overrides=["epochs=9"]).epochs == 9
    assert read_study(file, preset="quick", overrides=["epochs=9", "epochs=11"]).epochs == 11


def test_a_file_replaces_a_preset_key_by_key_from_the_top(file: Path) -> None:
    study = read_study(file, preset="quick")
    assert list(study.strategies) == ["probe", "mine"]
    assert list(study.regimes) == ["small", "full"]


def test_an_override_changes_one_nested_value(file: Path) -> None:
    sets = ["strategies.probe.optimizer.lr=1e-3", "split.folds=5", "regimes.small.augment=trivial", "name=x"]
    study = read_study(file, preset="quick", overrides=sets)
    assert study.strategies["probe"].optimizer.model_dump(include={"name", "lr"}) == {"name": "sgd", "lr": 0.001}
    assert (study.split.folds, study.split.test) == (5, 0.2)
    assert (study.regimes["small"].augment, study.regimes["small"].train_per_class) == ("trivial", 25)
    assert study.name == "x"


def test_an_override_changes_an_entry_of_a_list(file: Path) -> None:
    study = read_study(values={"data": "x"}, preset="quick", overrides=["strategies.fine_tune.phases.1.epochs=3"])
    assert [phase.epochs for phase in study.strategies["fine_tune"].phases] == [2, 3]


def test_the_value_of_an_override_is_yaml() -> None:
    study = read_study(values={"data": "x"}, preset="quick", overrides=["seeds=[3, 5]", "early_stopping={patience: 2}"])
    assert study.seeds == (3, 5)
    assert study.early_stopping and study.early_stopping.patience == 2


def test_relative_paths_in_a_file_refer_to_its_folder(file: Path) -> None:
    study = read_study(file, preset="quick")
    folder = file.parent
    assert study.data == str(folder / "photos")
    assert study.tests == {"site_b": str(folder / "other/photos")}
    backbone = study.strategies["mine"].backbone
    assert backbone and backbone.weights == str(folder / "nets/a.safetensors")
    assert study.strategies["mine"].tune == {"backbone.weights": (str(folder / "b.safetensors"),)}


def test_relative_paths_in_overrides_refer_to_the_current_folder(file: Path) -> None:
    sets = ["data=mine", "tests.site_c=c", "strategies.mine.backbone.weights=w.safetensors"]
    study = read_study(file, preset="quick", overrides=sets)
    here = Path.cwd()
    assert study.data == str(here / "mine")
    assert study.tests == {"site_b": str(file.parent / "other/photos"), "site_c": str(here / "c")}
    backbone = study.strategies["mine"].backbone
    assert backbone and backbone.weights == str(here / "w.safetensors")


def test_path_objects_and_names_of_data_sets(file: Path) -> None:
    assert read_study(values={"data": Path("mine")}, preset="quick").data == str(Path.cwd() / "mine")
    for name in ("food101", "hf:owner/name"):
        assert read_study(values={"data": name}, preset="quick").data == name


def test_a_home_folder_is_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/mika")
    monkeypatch.setenv("USERPROFILE", "/home/mika")
    assert Path(read_study(values={"data": "~/photos"}, preset="quick").data) == Path("/home/mika/photos")


def test_the_home_folder_of_an_unknown_user() -> None:
    with pytest.raises(UserError) as caught:
        read_study(values={"data": "~no-such-user-here/x"}, preset="quick")
    assert str(caught.value) == (
        "~no-such-user-here/x: the home folder of this user is unknown\n  expected: a path\n  fix:      write the "
        "whole path, for example data: /home/NAME/photos"
    )


@pytest.mark.parametrize(
    ("stem", "name"), [("birds 2", "birds-2"), ("研究", "study"), ("_draft", "draft"), ("été", "t-")]
)
def test_a_study_is_named_by_its_file(tmp_path: Path, stem: str, name: str) -> None:
    path = tmp_path / f"{stem}.yaml"
    path.write_text("data: x\n")
    assert read_study(path, preset="quick").name == name


SEE = "\n  expected: a path of keys in the study\n  fix:      "
HOW = (
    "\n  expected: --set key.path=value"
    "\n  fix:      for example --set epochs=5 or --set strategies.head.optimizer.lr=1e-3"
)


@pytest.mark.parametrize(
    ("override", "text"),
    [
        ("epochs", "--set 'epochs' has no '='" + HOW),
        ("=5", "--set '=5' lacks a key before '='" + HOW),
        ("a..b=5", "--set 'a..b=5' lacks a key before '='" + HOW),
        (
            "strategies.fine_tune.phases.2.epochs=1",
            "--set 'strategies.fine_tune.phases.2.epochs=1': "
            "entry 2 does not exist in a list of 2; entries count from 0; "
            "did you mean 'strategies.fine_tune.phases.1.epochs'?"
            + SEE
            + "in place of strategies.fine_tune.phases.2.epochs: --set strategies.fine_tune.phases.1.epochs=1",
        ),
        (
            "strategies.head.train.last=1",
            "--set 'strategies.head.train.last=1': 'head' has no key 'last'; "
            "did you mean 'strategies.head.train={last: 1}'?"
            + SEE
            + "in place of strategies.head.train.last: --set 'strategies.head.train={last: 1}'",
        ),
        (
            "epochs.all.zzz=1",
            "--set 'epochs.all.zzz=1': 10 has no key 'all'"
            + SEE
            + "docs/study-file.md lists the keys; for example --set epochs=5",
        ),
        (
            "epochs=[1",
            "--set epochs, line 1, column 3: expected ',' or ']', but got '<stream end>'"
            "\n  expected: YAML, as in studies/\n  fix:      fix that line; spaces indent, never tabs; "
            "for example --set epochs=5",
        ),
        (
            "epochs=5\nseeds: 2",
            "--set epochs, line 2, column 6: mapping values are not allowed here"
            "\n  expected: YAML, as in studies/\n  fix:      fix that line; spaces indent, never tabs; "
            "for example --set epochs=5",
        ),
        (
            "strategies.hed.epochs=5",
            "the study has 1 problem:\n  - strategies.hed: train is missing; set it to all, head or {last: k}, or give "
            "phases; did you mean 'strategies.head.epochs'?"
            "\n  expected: the keys and values that docs/study-file.md lists"
            "\n  fix:      in place of strategies.hed: --set strategies.head.epochs=5",
        ),
    ],
)
def test_an_invalid_override(override: str, text: str) -> None:
    with pytest.raises(UserError) as caught:
        read_study(values={"data": "x"}, preset="quick", overrides=[override])
    assert str(caught.value) == text


def test_values_from_python_are_not_changed() -> None:
    mine: dict[str, Any] = {"data": "x", "strategies": {"head": {"train": "head"}}}
    read_study(values=mine, preset="quick", overrides=["strategies.head.epochs=5"])
    assert mine == {"data": "x", "strategies": {"head": {"train": "head"}}}
