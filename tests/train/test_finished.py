"""Rebuild the model of a finished cell from its files."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.support.choices import candidates
from tests.support.worlds import tiny_study
from unfreeze import Study
from unfreeze.data.catalog import build_catalog, paths_of, rows_of
from unfreeze.data.sources import open_source
from unfreeze.errors import UserError
from unfreeze.inputs.augment import ViewDataset
from unfreeze.inputs.preprocess import DecodedPictures
from unfreeze.storage.records import read_tensors, write_tensors
from unfreeze.storage.study_dir import StudyDir
from unfreeze.train.device import pick
from unfreeze.train.finished import FinishedModel, check_logits, load_finished

CPU = pick("cpu", "float32")
CELLS = ["head.small.s0", "last.small.s0"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    Study(**tiny_study(folder)).run(folder / "out", workers=0)
    return folder


@pytest.fixture
def store(world: Path, tmp_path: Path) -> StudyDir:
    return StudyDir(Path(shutil.copytree(world / "out", tmp_path / "out")))


def views(world: Path, finished: FinishedModel, ids: list[str]) -> torch.Tensor:
    catalog = build_catalog(open_source(str(world / "photographs"), {}, world))
    shas = list(rows_of(catalog, ids)["sha256"])
    pictures = DecodedPictures(paths_of(catalog, ids), shas, finished.preprocessing.base)
    made = ViewDataset(pictures, shas, finished.preprocessing, "none", 0)
    return torch.stack([made[number, 0][0] for number in range(len(ids))])


@pytest.mark.parametrize("cell", CELLS)
def test_the_model_gives_the_logits_that_its_cell_stored(world: Path, store: StudyDir, cell: str) -> None:
    finished = load_finished(store, cell)
    logits, about = read_tensors(store.cell(cell) / "logits.safetensors")
    images = views(world, finished, about["ids"]["test"])
    check_logits(finished, images, logits["test"], CPU)
    with torch.inference_mode():
        np.testing.assert_allclose(finished.network(images).numpy(), logits["test"], atol=1e-4)
    assert finished.classes == ("circle", "square", "triangle")
    assert not finished.network.training


def test_the_strategy_is_the_one_that_was_trained(world: Path, store: StudyDir) -> None:
    config = Study(**tiny_study(world)).config
    assert load_finished(store, CELLS[1]).strategy == candidates(config, "last")[""]


def test_other_logits_are_refused(world: Path, store: StudyDir) -> None:
    finished = load_finished(store, CELLS[1])
    logits, about = read_tensors(store.cell(CELLS[1]) / "logits.safetensors")
    images = views(world, finished, about["ids"]["test"])
    with pytest.raises(UserError) as raised:
        check_logits(finished, images, logits["test"] + 0.25, CPU)
    assert str(raised.value) == (
        "the model of last.small.s0 now gives logits that differ by 0.25 from the stored\n"
        "  expected: at most 1% of the largest, 1\n"
        "  fix:      restore the versions that environment.json names, or delete the cell and run the study again"
    ).replace("largest, 1\n", f"largest, {max(1.0, abs(logits['test'] + 0.25).max()):.3g}\n")


def test_other_initial_weights_are_refused(world: Path, store: StudyDir) -> None:
    path = world / "weights.safetensors"
    kept = path.read_bytes()
    sha = load_finished(store, CELLS[0]).backbone.weights.sha256
    try:
        tensors = load_file(path)
        save_file(
            {name: tensor.clone() for name, tensor in tensors.items()} | {"fc.bias": tensors["fc.bias"] + 1}, path
        )
        with pytest.raises(UserError) as raised:
            load_finished(store, CELLS[0])
    finally:
        path.write_bytes(kept)
    assert raised.value.expected == f"those it began with, file weights.safetensors, sha256 {sha}"
    assert raised.value.given.startswith(
        "the weights that head.small.s0 was trained from have changed: file weights.safetensors has the sha256 "
    )
    assert raised.value.fix == "restore them, or run the study again with what is there now"


def test_another_prefix_is_refused(store: StudyDir) -> None:
    path = store.cell(CELLS[1]) / "model.safetensors"
    tensors, about = read_tensors(path)
    found = about["prefix_sha256"]
    write_tensors(path, tensors, {**about, "prefix_sha256": "0" * 64})
    with pytest.raises(UserError) as raised:
        load_finished(store, CELLS[1])
    assert raised.value.given == (
        f"the weights that last.small.s0 was trained from have changed: the frozen stages have the sha256 {found}"
    )
