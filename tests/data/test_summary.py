"""How data was read, as lines and as JSON data; and data without a usable file."""

import dataclasses
from pathlib import Path

import pytest
from PIL import Image

from tests.support.pictures import folder, save
from unfreeze.config.schema import CheckConfig, SplitConfig
from unfreeze.data.catalog import build_catalog
from unfreeze.data.sources import open_source
from unfreeze.data.sources.source import Source
from unfreeze.data.summary import NothingUsable, layout, lines, refuse_none_used, refuse_unusable


def read(root: Path) -> Source:
    return open_source(str(root), {}, root.parent)


def test_class_folders(tmp_path):
    source = read(folder(tmp_path / "p", {"a": 2, "b": 3}))
    assert lines("p", source, SplitConfig()) == (
        "data: p: class folders, 5 files in 2 classes, 2 (a) to 3 (b) a class",
        "classes: a, b",
        "split: drawn: 20% test, 15% validation, the rest training",
    )
    assert layout(source, SplitConfig()) == {
        "kind": "class folders", "classes": ["a", "b"], "splits": None, "ignored": {}, "guessed": [],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("split", "words"),
    [
        (SplitConfig(folds=5, val=0.1, group="p(.)"), "5 folds, 10% validation, the rest training, groups by p(.)"),
        (SplitConfig(val="test"), "20% test, validation on the test images, the rest training"),
    ],
)
def test_how_a_split_is_drawn(tmp_path, split, words):
    source = read(folder(tmp_path / "p", {"a": 1, "b": 1}))
    assert lines("p", source, split)[-1] == f"split: drawn: {words}"


def test_splits_that_folders_give(tmp_path):
    folder(tmp_path / "p/training_set", {"a": 3, "b": 3})
    folder(tmp_path / "p/test", {"a": 1, "b": 1})
    source = read(tmp_path / "p")
    assert lines("p", source, SplitConfig())[2] == (
        "split: given: train 6 files (training_set), test 2 files; 19% of the training images are drawn for validation"
    )
    assert lines("p", source, SplitConfig(val="test"))[2] == (
        "split: given: train 6 files (training_set), test 2 files; validation on the test images"
    )
    assert layout(source, SplitConfig())["splits"] == {"train": 6, "val": 0, "test": 2}


def test_many_classes_what_is_ignored_and_what_was_guessed(tmp_path):
    root = folder(tmp_path / "p", {f"c{number:02}": 1 for number in range(12)})
    folder(tmp_path / "more", {"c00": 2})
    for suffix in "abcdefgh":
        (root / "c00" / f"x.{suffix}").write_text("no picture")
        (root / "c01" / f"x.{suffix}").write_text("no picture")
    save(root / "lost.png")
    source = open_source("p", {"site": "more"}, tmp_path)
    catalog = build_catalog(dataclasses.replace(source, guessed=("one thing",)))
    catalog = dataclasses.replace(catalog, guessed=("another",))
    told = lines("p", dataclasses.replace(source, guessed=("one thing",)), SplitConfig(), {"site": "more"}, catalog)
    assert told == (
        "data: p: class folders, 12 files in 12 classes, 1 a class",
        "classes: c00, c01, c02, c03, c04, c05, c06, c07, c08, c09 and 2 more",
        "test set site: more: 2 files",
        "split: drawn: 20% test, 15% validation, the rest training",
        "ignored: 2 no picture: .a (first c00/x.a), 2 no picture: .b (first c00/x.b), 2 no picture: .c (first "
        "c00/x.c), 2 no picture: .d (first c00/x.d), 2 no picture: .e (first c00/x.e), 2 no picture: .f (first "
        "c00/x.f), 5 for other reasons",
        "guessed: one thing",
        "guessed: another",
    )
    assert layout(source, SplitConfig(), catalog)["guessed"] == ["another"]
    assert layout(source, SplitConfig())["ignored"]["not in a class folder"] == 1


def test_one_usable_file_is_enough(tmp_path):
    root = folder(tmp_path / "p", {"a": 40, "b": 1})
    for number in range(40):
        (root / "a" / f"{number:03}.png").write_bytes(b"x")
    refuse_unusable(read(root), CheckConfig())


def test_nothing_usable_is_refused_with_its_reasons(tmp_path):
    root = folder(tmp_path / "p", {"a": 0, "b": 0})
    for number in range(20):
        (root / "ab"[number % 2] / f"{number}.png").write_bytes(b"x" * (number + 1))
    (root / "a/start.jpg").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(NothingUsable) as caught:
        refuse_unusable(read(root), CheckConfig())
    assert str(caught.value) == (
        f"{root}: nothing usable in 21 files: 20 not an image, 1 damaged (first a/0.png)\n"
        "  expected: pictures: JPEG, PNG, WebP, GIF, BMP or TIFF\n"
        "  fix:      not an image: remove the files from the data, or convert them to JPEG or PNG; damaged: copy the "
        "files again, or remove them from the data"
    )


def test_pointers_of_git_lfs(tmp_path):
    root = folder(tmp_path / "p", {"a": 0, "b": 0})
    for label in "ab":
        (root / label / "1.jpg").write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{label}\nsize 1\n")
    with pytest.raises(NothingUsable) as caught:
        refuse_unusable(read(root), CheckConfig())
    assert caught.value.fix == "git lfs pull"


def test_headers_alone_are_not_usable(tmp_path):
    root = tmp_path / "p"
    for number, label in enumerate("ab"):
        path = root / label / "1.jpg"
        path.parent.mkdir(parents=True)
        Image.effect_noise((64, 64), 40 + number).convert("RGB").save(path)
        path.write_bytes(path.read_bytes()[:700])
    source = read(root)
    catalog = build_catalog(source)
    refuse_unusable(source, CheckConfig(truncated="keep"))
    for refuse in (lambda: refuse_unusable(source, CheckConfig()), lambda: refuse_none_used(source, catalog)):
        with pytest.raises(NothingUsable) as caught:
            refuse()
        assert caught.value.given == f"{root}: nothing usable in 2 files: 2 truncated (first a/1.jpg)"
    refuse_none_used(source, build_catalog(source, check=CheckConfig(truncated="keep")))
