"""Data sets of Hugging Face, saved here: nothing is fetched."""

import hashlib
import sys
from pathlib import Path

import pytest

from tests.support.pictures import save
from unfreeze.data.catalog import build_catalog
from unfreeze.data.sources import open_source
from unfreeze.data.sources.source import Source
from unfreeze.errors import UserError


@pytest.fixture
def datasets(tmp_path, monkeypatch):
    monkeypatch.setenv("UNFREEZE_CACHE", str(tmp_path / "cache"))
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "home")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()
    return datasets


def content(number: int, folder: Path) -> bytes:
    return save(folder / "made" / f"{number}.png", number).read_bytes()


def made(datasets, folder: Path, labels: list, feature) -> "object":
    features = datasets.Features({"image": datasets.Image(), "label": feature})
    images = [{"bytes": content(number, folder), "path": None} for number in range(len(labels))]
    return datasets.Dataset.from_dict({"image": images, "label": labels}, features=features)


def rows(source: Source) -> set[tuple[str, str, str]]:
    return {(Path(item.path).stem, item.label, item.given_split) for item in source.items}


def sha256(number: int, folder: Path) -> str:
    return hashlib.sha256(content(number, folder)).hexdigest()


def refusal(name: str, folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        open_source(name, {}, folder)
    return str(caught.value)


@pytest.mark.parametrize("labels", [[1, 0, 2], ["dog", "cat", "eel"]], ids=["ClassLabel", "text"])
def test_a_saved_data_set_is_read_and_its_files_written_as_they_are(tmp_path, datasets, labels):
    feature = datasets.ClassLabel(names=["cat", "dog", "eel"]) if labels[0] == 1 else datasets.Value("string")
    made(datasets, tmp_path, labels, feature).save_to_disk(str(tmp_path / "pets"))
    source = open_source("hf:pets", {}, tmp_path)
    assert source.classes == ("cat", "dog", "eel")
    assert rows(source) == {
        (sha256(0, tmp_path), "dog", ""), (sha256(1, tmp_path), "cat", ""), (sha256(2, tmp_path), "eel", ""),
    }  # fmt: skip
    images = build_catalog(source).images
    assert images["status"].tolist() == ["used"] * 3
    assert set(images["sha256"]) == {sha256(number, tmp_path) for number in range(3)}
    assert open_source(f"hf:{tmp_path / 'pets'}", {}, tmp_path).items == source.items


@pytest.mark.parametrize("damage", [b"", b"\x89PNG", None], ids=["empty", "cut short", "one bit"])
def test_a_written_file_that_was_damaged_is_written_again(tmp_path, datasets, damage):
    made(datasets, tmp_path, [1, 0], datasets.ClassLabel(names=["cat", "dog"])).save_to_disk(str(tmp_path / "pets"))
    source = open_source("hf:pets", {}, tmp_path)
    path = source.roots[""] / source.items[0].path
    whole = path.read_bytes()
    path.write_bytes(whole[:40] + bytes([whole[40] ^ 1]) + whole[41:] if damage is None else damage)
    open_source("hf:pets", {}, tmp_path)
    assert path.read_bytes() == whole


def test_its_splits_are_kept(tmp_path, datasets):
    whole = made(datasets, tmp_path, [0, 1, 0], datasets.ClassLabel(names=["cat", "dog"]))
    parts = {"train": whole, "validation": whole.select([0]), "test": whole.select([1])}
    datasets.DatasetDict(parts).save_to_disk(str(tmp_path / "pets"))
    found = rows(open_source("hf:pets", {}, tmp_path))
    assert {split for _, _, split in found} == {"train", "validation", "test"}
    assert (sha256(1, tmp_path), "dog", "test") in found
    datasets.DatasetDict({"train": whole, "unlabelled": whole}).save_to_disk(str(tmp_path / "odd"))
    assert refusal("hf:odd", tmp_path) == (
        "data: hf:odd has a split unlabelled\n  expected: train, validation and test\n  fix:      use one with these"
    )


def test_a_folder_is_read_as_datasets_reads_it(tmp_path, datasets):
    for number, place in enumerate(("train/cat", "train/dog", "test/cat", "test/dog")):
        save(tmp_path / "pets" / place / "1.png", number)
    assert rows(open_source("hf:pets", {}, tmp_path)) == {
        (sha256(0, tmp_path), "cat", "train"),
        (sha256(1, tmp_path), "dog", "train"),
        (sha256(2, tmp_path), "cat", "test"),
        (sha256(3, tmp_path), "dog", "test"),
    }


def test_no_bar_is_drawn_in_a_pipe(tmp_path, datasets, capfd):
    datasets.enable_progress_bars()
    for place in ("cat", "dog"):
        save(tmp_path / "pets" / place / "1.png", ord(place[0]))
    open_source("hf:pets", {}, tmp_path)
    assert capfd.readouterr().err == ""
    assert not datasets.are_progress_bars_disabled()


def test_what_has_no_labels_is_refused(tmp_path, datasets):
    made(datasets, tmp_path, [0.5, 1.5], datasets.Value("float32")).save_to_disk(str(tmp_path / "heights"))
    assert refusal("hf:heights", tmp_path) == (
        "data: hf:heights has 1 image and 0 label columns: image, label\n"
        "  expected: one of each\n  fix:      write a table of its files instead"
    )
    made(datasets, tmp_path, ["cat", None], datasets.Value("string")).save_to_disk(str(tmp_path / "gaps"))
    assert refusal("hf:gaps", tmp_path) == (
        "data: hf:gaps: image 1 of train has no label\n  expected: a label for every image\n"
        "  fix:      leave that split out, or write a table of the files that have a label"
    )
    made(datasets, tmp_path, ["cat", "cat"], datasets.Value("string")).save_to_disk(str(tmp_path / "cats"))
    assert refusal("hf:cats", tmp_path) == (
        "data: hf:cats has 1 classes: cat\n  expected: at least two\n  fix:      use another data set"
    )


def test_a_name_that_cannot_be_loaded_says_how_to_download_it(tmp_path, datasets, monkeypatch):
    def unreachable(name: str) -> None:
        raise ConnectionError(f"Couldn't reach '{name}' on the Hub\nand more")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    assert refusal("hf:nobody/nothing", tmp_path) == (
        "data: hf:nobody/nothing cannot be loaded: Couldn't reach 'nobody/nothing' on the Hub\n"
        "  expected: hf:owner/name of a data set of images, or hf:FOLDER\n"
        "  fix:      correct the name, or download it once with a network connection: "
        "python -c \"from datasets import load_dataset; load_dataset('nobody/nothing')\""
    )


def test_no_name_is_not_this_folder(tmp_path, datasets):
    save(tmp_path / "a/1.png")
    save(tmp_path / "b/1.png", 1)
    assert refusal("hf:", tmp_path) == (
        "data: hf: names no data set\n"
        "  expected: hf:owner/name of a data set of images, or hf:FOLDER\n"
        "  fix:      name one, for example hf:food101, or hf:. for this folder"
    )
    assert {label for _, label, _ in rows(open_source("hf:.", {}, tmp_path))} == {"a", "b"}


def test_without_the_package_the_message_names_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert refusal("hf:owner/name", tmp_path) == (
        "data: hf:owner/name: the package datasets is not installed\n"
        "  expected: this package\n"
        '  fix:      pip install "unfreeze[datasets]"'
    )
