"""Pictures of a study's recommended model: when they are written, what they show, and what happens without them."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.support.worlds import tiny_study, write_weights
from unfreeze import Study
from unfreeze.data.catalog import Catalog, build_catalog
from unfreeze.data.sources import open_source
from unfreeze.errors import UserError
from unfreeze.events import Event, Preparing, Warned
from unfreeze.explain import explain as module
from unfreeze.explain.explain import WORDS, explain, overlay
from unfreeze.explain.gradcam import NoFeatureMap
from unfreeze.report.sections.best_model import best_model_view
from unfreeze.statistics.model_quality import ScoredImages
from unfreeze.statistics.study_results import read_study_results
from unfreeze.statistics.tables import results_table
from unfreeze.storage.records import read_json, read_tensors, write_json
from unfreeze.storage.study_dir import StudyDir
from unfreeze.train.device import pick

CPU = pick("cpu", "float32")
STUDIES = {"test_resnet": (32, "layer2"), "test_vit": (64, "block5")}
"""Backbones of the studies here, with their image size and the stage of their Grad-CAM."""


class FinishedStudy:
    """A finished study that tests only read: its directory, catalog, cell, and the events of its run."""

    def __init__(self, folder: Path, backbone: str) -> None:
        self.size, self.stage = STUDIES[backbone]
        weights = write_weights(folder / "own.safetensors", backbone)
        study = tiny_study(folder, backbone={"name": backbone, "weights": str(weights)}, image_size=self.size)
        self.events: list[Event] = []
        results = Study(**study).run(folder / "out", emit=self.events.append, workers=0)
        self.store = StudyDir(results.path)
        self.catalog: Catalog = build_catalog(open_source(str(folder / "photographs"), {}, folder))
        cell = read_study_results(self.store).cell
        assert cell is not None
        self.cell = cell


@pytest.fixture(scope="module")
def resnet(tmp_path_factory: pytest.TempPathFactory) -> FinishedStudy:
    return FinishedStudy(tmp_path_factory.mktemp("resnet"), "test_resnet")


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> FinishedStudy:
    return FinishedStudy(tmp_path_factory.mktemp("vit"), "test_vit")


@pytest.fixture
def store(resnet: FinishedStudy, tmp_path: Path) -> StudyDir:
    """A copy of the study's directory, for tests that change it."""
    return StudyDir(Path(shutil.copytree(resnet.store.path, tmp_path / "out")))


def explained_again(store: StudyDir, resnet: FinishedStudy) -> list[Event]:
    events: list[Event] = []
    explain(store, resnet.cell, resnet.catalog, CPU, events.append)
    return events


def record_of(store: StudyDir) -> dict[str, Any]:
    return read_json(store.path / "explain" / "explain.json")


def first_image(scored: ScoredImages, most: int) -> list[int]:
    """Stands in for ``worst_mistakes``, since the model may have made none."""
    return [0]


@pytest.mark.parametrize("name", ["resnet", "vit"])
def test_a_run_writes_pictures_of_its_recommended_model(name: str, request: pytest.FixtureRequest) -> None:
    finished: FinishedStudy = request.getfixturevalue(name)
    store, catalog, record = finished.store, finished.catalog, record_of(finished.store)
    assert record["cell"] == finished.cell
    assert record["fingerprint"] == read_json(store.cell(record["cell"]) / "cell.json")["fingerprint"]
    assert (record["complete"], record["note"]) == (True, "")
    assert record["map"] == {"stage": finished.stage, "side": 4}
    logits, metadata = read_tensors(store.cell(record["cell"]) / "logits.safetensors")
    ids = metadata["ids"]
    labels = catalog.images.set_index("id")["label"].loc[ids["test"]].tolist()
    predicted = [catalog.classes[place] for place in logits["test"].argmax(axis=1)]
    wrong = {name for name, label, other in zip(ids["test"], labels, predicted, strict=True) if label != other}
    assert {one["id"] for one in record["wrong"]} == wrong
    probabilities = [one["label_probability"] for one in record["wrong"]]
    assert probabilities == sorted(probabilities)
    assert {one["id"] for one in record["suspects"]} <= {*ids["test"], *ids["validation"]}  # never trained on
    files = {one[kind] for one in [*record["wrong"], *record["suspects"]] for kind in ("picture", "overlay")} - {""}
    assert {path.name for path in (store.path / "explain").iterdir()} == files | {"explain.json"}
    assert all(one["overlay"] for one in record["wrong"])
    for name in files:
        with Image.open(store.path / "explain" / name) as picture:
            assert (picture.format, picture.size) == ("WEBP", (finished.size, finished.size))
    progress = [event for event in finished.events if isinstance(event, Preparing) and event.what == WORDS]
    assert (progress[0].done, progress[-1].done) == (0, progress[-1].total)
    assert progress[-1].total == len(record["wrong"]) + len(record["suspects"])
    assert not [event for event in finished.events if isinstance(event, Warned) and "pictures" in event.text]


def test_current_pictures_are_kept(store: StudyDir, resnet: FinishedStudy) -> None:
    path = store.path / "explain" / "explain.json"
    before = path.stat().st_mtime_ns
    assert explained_again(store, resnet) == []
    assert path.stat().st_mtime_ns == before


@pytest.mark.parametrize("stale", [{"rules": 0}, {"cell": "another"}, {"fingerprint": "another"}, {"complete": False}])
def test_stale_pictures_are_written_again(store: StudyDir, resnet: FinishedStudy, stale: dict[str, Any]) -> None:
    expected = record_of(store)
    write_json(store.path / "explain" / "explain.json", expected | stale)
    (store.path / "explain" / "left-over.webp").touch()
    assert explained_again(store, resnet)
    assert record_of(store) == expected
    assert not (store.path / "explain" / "left-over.webp").exists()


def test_a_study_without_a_finished_cell_has_nothing_to_explain(store: StudyDir, resnet: FinishedStudy) -> None:
    before = record_of(store)
    events: list[Event] = []
    explain(store, None, resnet.catalog, CPU, events.append)
    assert events == []
    assert record_of(store) == before


@pytest.mark.parametrize(
    ("part", "error", "text"),
    [
        ("load_finished", UserError("weights: own.safetensors", "a file that exists", "correct the path"), ""),
        ("grad_cam", RuntimeError("no gradient for this operation"), "RuntimeError: no gradient for this operation"),
    ],
)
def test_a_model_that_cannot_be_explained_is_a_warning_and_a_note(
    store: StudyDir, resnet: FinishedStudy, part: str, error: Exception, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise error

    (store.path / "explain" / "explain.json").unlink()
    monkeypatch.setattr(module, "worst_mistakes", first_image)
    monkeypatch.setattr(module, part, fail)
    events = explained_again(store, resnet)
    note = text or str(error)
    assert events[-1] == Warned(f"the recommended model has no pictures in the report: {note}")
    record = record_of(store)
    assert (record["complete"], record["note"]) == (False, note)
    assert [path.name for path in (store.path / "explain").iterdir()] == ["explain.json"]
    shown = best_model_view(store, resnet.cell, results_table(store), read_json(store.path / "study.json"))
    assert shown is not None and f"No pictures: {note}" in shown.notes


def test_without_a_feature_map_there_are_pictures_but_no_grad_cam(
    store: StudyDir, resnet: FinishedStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise NoFeatureMap("it has no feature map")

    (store.path / "explain" / "explain.json").unlink()
    monkeypatch.setattr(module, "worst_mistakes", first_image)
    monkeypatch.setattr(module, "find_feature_map", fail)
    explained_again(store, resnet)
    record = record_of(store)
    assert (record["complete"], record["note"], record["map"]) == (True, "it has no feature map", None)
    assert [one["overlay"] for one in record["wrong"]] == [""]
    assert (store.path / "explain" / record["wrong"][0]["picture"]).is_file()


def test_an_overlay_is_brighter_where_the_map_is_larger() -> None:
    pixels = np.full((8, 8, 3), 128, np.uint8)
    cam = np.zeros((2, 2), np.float32)
    cam[0, 0] = 1
    made = overlay(pixels, cam)
    assert made.shape == (8, 8, 3) and made.dtype == np.uint8
    assert made[0, 0].astype(int).sum() > made[7, 7].astype(int).sum() + 150
    ramp = overlay(pixels, np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8))
    lightness = np.asarray(Image.fromarray(ramp).convert("L"))
    assert (np.diff(lightness[:, 4].astype(int)) >= 0).all()
