"""``unfreeze init``: the study file is valid, commented, and fits the data."""

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.support.ages import make_old
from tests.support.choices import read_study
from tests.support.command_images import understood, write_photos
from unfreeze.cli.commands.init import _regimes
from unfreeze.data.summary import Pools


def test_the_file_plans(unfreeze, study):
    code, said, _ = unfreeze("init", "photos", "--out", "mine.yaml")
    assert (code, said) == (
        0,
        understood(study / "photos")
        + "wrote mine.yaml\npreview:  unfreeze plan mine.yaml\nrun:      unfreeze run mine.yaml\n",
    )
    settings = YAML(typ="safe").load(Path("mine.yaml").read_text())
    assert settings["name"] == settings["data"] == "photos"
    assert list(settings["regimes"]) == ["images_5", "all_images"]
    assert settings["seeds"] == 3
    code, said, _ = unfreeze("plan", "mine.yaml")
    assert code == 0
    assert said.startswith("photos: 4 strategies x 2 regimes x 3 seeds = 24 cells\n")


def test_leftovers_of_a_killed_init_are_deleted(unfreeze, study):
    left = study / ".new.yaml.x.tmp"
    left.write_text("name:")
    make_old(left)
    assert unfreeze("init", "photos", "--out", "new.yaml")[0] == 0
    assert not left.exists()


def test_every_key_has_a_comment(unfreeze, study):
    unfreeze("init", "photos", "--out", "mine.yaml")
    lines = Path("mine.yaml").read_text().splitlines()
    after_comment = {number for number in range(1, len(lines)) if lines[number - 1].startswith("#")}
    bare = [
        line
        for number, line in enumerate(lines)
        if line.strip()
        and "#" not in line
        and number not in after_comment
        and line.strip() not in ("train: head", "phases:")
    ]
    assert bare == ["  train: {last: 0.25}"] or bare == ["    train: {last: 0.25}"]


@pytest.mark.parametrize(
    ("least", "regimes"),
    [
        (3, ["all_images"]),
        (8, ["images_5", "all_images"]),
        (89, ["images_10", "images_50", "all_images"]),
        (750, ["images_100", "images_500", "all_images"]),
    ],
)
def test_numbers_of_images_suit_the_smallest_class(least, regimes):
    pools = {"few": Pools(least * 2, least, 1, 1, False), "many": Pools(9999, 9999, 1, 1, False)}
    assert list(YAML(typ="safe").load(_regimes(pools, ["none", "trivial"]))) == regimes


def test_another_backbone_at_its_own_size(unfreeze, study):
    assert unfreeze("init", "photos", "--backbone", "test_vit", "--out", "mine.yaml")[0] == 0
    written = read_study(Path("mine.yaml"))
    assert (written.backbone.name, written.image_size) == ("test_vit", 160)


def test_an_unknown_backbone_writes_nothing(unfreeze, study):
    code, _, complaint = unfreeze("init", "photos", "--backbone", "resnet19", "--out", "mine.yaml")
    assert code == 2
    assert complaint.startswith("unfreeze: backbone: timm has no model resnet19\n")
    assert not Path("mine.yaml").exists()


def test_names_that_need_quotes_in_yaml(unfreeze, folder):
    odd = 'no: "yes" #1 – ü'
    write_photos(folder / odd)
    assert unfreeze("init", odd)[0] == 0
    written = read_study(Path("study.yaml"))
    assert written.data == str(folder.resolve() / odd)
    assert written.name == "no-yes-1"


def test_data_elsewhere_has_an_absolute_path(unfreeze, study):
    Path("sub").mkdir()
    assert unfreeze("init", "photos", "--out", "sub/mine.yaml")[0] == 0
    assert read_study(Path("sub/mine.yaml")).data == str(study.resolve() / "photos")


def test_folders_that_are_splits(unfreeze, study):
    for split in ("train", "val"):
        write_photos(study / "split" / split)
    assert unfreeze("init", "split", "--out", "mine.yaml")[0] == 0
    assert "# The folders define the splits (train, validation)." in Path("mine.yaml").read_text()
    assert unfreeze("plan", "mine.yaml")[0] == 0
