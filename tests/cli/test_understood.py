"""init, check, plan and run print how they read the data, and reject data without a usable file."""

import json
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console
from ruamel.yaml import YAML

from tests.support.choices import read_study
from tests.support.command_images import write_photos
from unfreeze.cli import live as watch
from unfreeze.cli import tables


@pytest.fixture
def splits(folder: Path) -> Path:
    """Splits under other names, a file that is no picture, and a hidden class."""
    write_photos(folder / "photos/training_set")
    write_photos(folder / "photos/test_set", 3)
    (folder / "photos/README.md").write_text("...")
    write_photos(folder / "photos/training_set/.net", {"x": 2})
    return folder / "photos"


TOLD = [
    "data: {data}: split folders, 45 files in 3 classes, 15 a class",
    "classes: blue, green, red",
    "split: given: train 36 files (training_set), test 9 files (test_set); 19% of the training images are drawn for "
    "validation",
    "ignored: 1 no picture: .md (first README.md), 1 hidden folder with pictures (first training_set/.net/)",
    "guessed: training_set/.net/ is hidden, so its 2 pictures are not used; rename it to make it a class: "
    "mv {folder}/training_set/.net {folder}/training_set/dot-net",
]
LAYOUT = {
    "kind": "split folders",
    "classes": ["blue", "green", "red"],
    "splits": {"train": 36, "val": 0, "test": 9},
    "ignored": {"no picture: .md": 1, "hidden folder with pictures": 1},
}


def told(data: Path | str, folder: Path) -> list[str]:
    return [line.format(data=data, folder=folder.resolve()) for line in TOLD]


STUDY = """\
data: photos
backbone: test_resnet
weights: none
image_size: 32
epochs: 1
strategies: {scratch: {train: all}}
regimes: {few: {train_per_class: 3}}
"""


def test_every_command_prints_how_the_data_is_read(unfreeze, splits):
    Path("study.yaml").write_text(STUDY)
    code, said, _ = unfreeze("init", "photos", "--out", "mine.yaml")
    assert (code, said.splitlines()[:5]) == (0, told(splits, splits))
    code, said, _ = unfreeze("check", "photos", "--set", "split.val=0.15")
    assert (code, said.splitlines()[:5]) == (0, told(splits, splits))
    code, said, _ = unfreeze("plan", "study.yaml")
    assert (code, said.splitlines()[1:6]) == (0, told(splits, splits))
    code, _, said = unfreeze("run", "study.yaml")
    assert (code, said.splitlines()[:5]) == (0, told(splits, splits))
    assert said.count("classes: ") == 1


def test_every_command_reports_how_the_data_is_read_as_json(unfreeze, splits):
    Path("study.yaml").write_text(STUDY)
    guessed = [told("", splits)[4].removeprefix("guessed: ")]
    for command in (
        ("init", "photos", "--out", "x.yaml"),
        ("check", "photos"),
        ("plan", "study.yaml"),
        ("run", "study.yaml"),
    ):
        code, said, _ = unfreeze(*command, "--json")
        assert code == 0
        assert json.loads(said)["layout"] == LAYOUT | {"guessed": guessed}
    assert Path("x.yaml").is_file()


def test_a_terminal_shows_how_the_data_is_read_once(unfreeze, splits, monkeypatch):
    Path("study.yaml").write_text(STUDY)
    monkeypatch.setattr(tables, "stderr", lambda: Console(stderr=True, force_terminal=True, width=400))
    monkeypatch.setattr("unfreeze.cli.live.is_terminal", lambda: True)
    code, _, said = unfreeze("run", "study.yaml")
    assert code == 0
    assert watch.is_terminal()
    for line in told(splits, splits):
        assert said.count(line) == 1


def test_init_writes_settings_about_the_data(unfreeze, folder):
    for number, name in enumerate(("cat", "dog")):
        for index in range(3):
            Path("all").mkdir(exist_ok=True)
            Image.effect_noise((24, 24), 20 + 3 * number + index).save(f"all/{name}_{index}.png")
    code, said, complaint = unfreeze("init", "all")
    assert (code, said) == (2, "")
    assert "--set labels_from=name (in a study file: labels_from: name)" in complaint
    assert unfreeze("init", "all", "--set", "labels_from=name", "--set", "check.follow_symlinks=true")[0] == 0
    text = Path("study.yaml").read_text()
    assert 'labels_from: "name"\ncheck: {"follow_symlinks": true}\n' in text
    written = read_study(Path("study.yaml"))
    assert (written.labels_from, written.check.follow_symlinks) == ("name", True)
    assert list(YAML(typ="safe").load(text))[:4] == ["name", "data", "labels_from", "check"]
    assert unfreeze("check", "study.yaml", "--json")[0] == 0


def test_init_rejects_settings_that_have_a_line(unfreeze, study):
    assert unfreeze("init", "photos", "--out", "x.yaml", "--set", "epochs=3") == (
        2,
        "",
        "unfreeze: --set epochs: already in the file that init writes\n"
        "  expected: settings about how the data is read: labels_from, columns, check, tests\n"
        "  fix:      leave it out, and edit the line in the file\n",
    )


COMMANDS = ("init", "check", "plan", "run")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_rejects_data_without_a_usable_file(unfreeze, folder, command):
    for label in ("a", "b"):
        (folder / "photos" / label).mkdir(parents=True)
        for number in range(12):
            (folder / "photos" / label / f"{number}.jpg").write_text(f"{label}{number}")
    code, _, complaint = unfreeze(command, "photos")
    assert code == 2
    assert "24 not an image" in complaint
    assert "  fix:      " in complaint
    assert not list(folder.glob("*.yaml"))
    assert not Path("check.html").exists()


@pytest.mark.parametrize("command", ["check", "plan", "run"])
def test_commands_that_decode_reject_files_with_headers_alone(unfreeze, folder, command):
    write_photos(folder / "photos")
    for path in (folder / "photos").rglob("*.png"):
        path.write_bytes(path.read_bytes()[:900])
    code, _, complaint = unfreeze(command, "photos", "--set", "check.max_set_aside=0.9")
    assert code == 2
    assert "unfreeze: " in complaint
