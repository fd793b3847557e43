"""The pictures of a study's best model."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.support.worlds import tiny_study, write_weights
from unfreeze import Study
from unfreeze.data.catalog import Catalog, build_catalog
from unfreeze.data.sources import open_source
from unfreeze.events import Event, Preparing, Warned
from unfreeze.explain import explain as module
from unfreeze.explain.explain import WORDS, explain, overlay
from unfreeze.explain.gradcam import NoFeatureMap
from unfreeze.report.sections.best_model import best_model_view
from unfreeze.statistics.study_results import read_study_results
from unfreeze.storage.records import read_json, read_tensors, write_json
from unfreeze.storage.study_dir import StudyDir
from unfreeze.train.device import pick

CPU = pick("cpu", "float32")


def run(folder: Path, **values: Any) -> tuple[StudyDir, list[Event]]:
    events: list[Event] = []
    results = Study(**tiny_study(folder, **values)).run(folder / "out", emit=events.append, workers=0)
    return StudyDir(results.path), events


def catalog_of(folder: Path) -> Catalog:
    return build_catalog(open_source(str(folder / "photographs"), {}, folder))


def again(store: StudyDir, folder: Path) -> list[Event]:
    events: list[Event] = []
    explain(store, read_study_results(store).cell, catalog_of(folder), CPU, events.append)
    return events


def record_of(store: StudyDir) -> dict[str, Any]:
    return read_json(store.path / "explain" / "explain.json")


@pytest.mark.parametrize(("backbone", "stage"), [("test_resnet", "layer2"), ("test_vit", "block5")])
def test_a_run_leaves_pictures_of_its_best_model(tmp_path: Path, backbone: str, stage: str) -> None:
    weights = write_weights(tmp_path / "own.safetensors", backbone)
    size = 32 if backbone == "test_resnet" else 64
    store, events = run(tmp_path, backbone={"name": backbone, "weights": str(weights)}, image_size=size)
    record = record_of(store)
    assert record["cell"] == read_study_results(store).cell
    assert record["fingerprint"] == read_json(store.cell(record["cell"]) / "cell.json")["fingerprint"]
    assert (record["complete"], record["note"], record["map"]) == (True, "", {"stage": stage, "side": 4})
    logits, about = read_tensors(store.cell(record["cell"]) / "logits.safetensors")
    catalog = catalog_of(tmp_path)
    labels = catalog.images.set_index("id")["label"].loc[about["ids"]["test"]].tolist()
    predicted = [catalog.classes[place] for place in logits["test"].argmax(axis=1)]
    wrong = [name for name, one, other in zip(about["ids"]["test"], labels, predicted, strict=True) if one != other]
    assert {one["id"] for one in record["wrong"]} == set(wrong)
    assert [one["label_probability"] for one in record["wrong"]] == sorted(
        one["label_probability"] for one in record["wrong"]
    )
    trained_on = set(catalog.images["id"]) - set(about["ids"]["test"]) - set(about["ids"]["validation"])
    assert not trained_on & {one["id"] for one in record["suspects"]}
    files = {one[kind] for one in [*record["wrong"], *record["suspects"]] for kind in ("picture", "overlay")} - {""}
    assert {path.name for path in (store.path / "explain").iterdir()} == files | {"explain.json"}
    assert all(one["overlay"] for one in record["wrong"])
    for name in files:
        with Image.open(store.path / "explain" / name) as picture:
            assert (picture.format, picture.size) == ("WEBP", (size, size))
    told = [event for event in events if isinstance(event, Preparing) and event.what == WORDS]
    assert (told[0].done, told[-1].done) == (0, told[-1].total)
    assert told[-1].total == len(record["wrong"]) + len(record["suspects"])
    assert not [event for event in events if isinstance(event, Warned) and "pictures" in event.text]


def test_what_is_there_is_not_made_again_and_what_is_stale_is(tmp_path: Path) -> None:
    store, _ = run(tmp_path)
    path = store.path / "explain" / "explain.json"
    before = path.stat().st_mtime_ns
    assert again(store, tmp_path) == []
    assert path.stat().st_mtime_ns == before
    whole = record_of(store)
    for stale in ({"rules": 0}, {"cell": "another"}, {"fingerprint": "another"}, {"complete": False}):
        write_json(path, whole | stale)
        (store.path / "explain" / "left-over.webp").touch()
        assert again(store, tmp_path)
        assert record_of(store) == whole
        assert not (store.path / "explain" / "left-over.webp").exists()


def test_a_study_without_a_finished_cell_has_nothing_to_explain(tmp_path: Path) -> None:
    store, _ = run(tmp_path)
    before = record_of(store)
    events: list[Event] = []
    explain(store, None, catalog_of(tmp_path), CPU, events.append)
    assert events == []
    assert record_of(store) == before


def test_what_cannot_be_explained_is_a_warning_and_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, _ = run(tmp_path)
    kept = (tmp_path / "weights.safetensors").read_bytes()
    (store.path / "explain" / "explain.json").unlink()
    (tmp_path / "weights.safetensors").unlink()
    events = again(store, tmp_path)
    record = record_of(store)
    assert not record["complete"]
    assert [event.text for event in events if isinstance(event, Warned)] == [
        f"no pictures of the best model: {record['note']}"
    ]
    assert "weights.safetensors" in record["note"]
    assert [path.name for path in (store.path / "explain").iterdir()] == ["explain.json"]
    results = read_study_results(store)
    shown = best_model_view(store, results.cell, results.table, results.record)
    assert shown is not None and f"No pictures: {record['note']}" in shown.notes

    (tmp_path / "weights.safetensors").write_bytes(kept)

    def unsupported(*_: Any) -> None:
        raise RuntimeError("no gradient for this operation")

    monkeypatch.setattr(module, "most_wrong", lambda scored, most: [0])  # it may have made no mistake
    monkeypatch.setattr(module, "grad_cam", unsupported)
    events = again(store, tmp_path)
    assert record_of(store)["note"] == "RuntimeError: no gradient for this operation"
    assert events[-1] == Warned("no pictures of the best model: RuntimeError: no gradient for this operation")


def test_without_a_feature_map_there_are_pictures_but_no_grad_cam(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, _ = run(tmp_path)
    (store.path / "explain" / "explain.json").unlink()

    def nowhere(*_: Any) -> None:
        raise NoFeatureMap("it has no feature map")

    monkeypatch.setattr(module, "most_wrong", lambda scored, most: [0])
    monkeypatch.setattr(module, "find_place", nowhere)
    again(store, tmp_path)
    record = record_of(store)
    assert (record["complete"], record["note"], record["map"]) == (True, "it has no feature map", None)
    assert [one["overlay"] for one in record["wrong"]] == [""]
    assert (store.path / "explain" / record["wrong"][0]["picture"]).is_file()


def test_an_overlay_is_dark_where_nothing_speaks_and_bright_where_much_does() -> None:
    pixels = np.full((8, 8, 3), 128, np.uint8)
    cam = np.zeros((2, 2), np.float32)
    cam[0, 0] = 1
    made = overlay(pixels, cam)
    assert made.shape == (8, 8, 3) and made.dtype == np.uint8
    assert made[0, 0].astype(int).sum() > made[7, 7].astype(int).sum() + 150
    ramp = overlay(pixels, np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8))
    lightness = np.asarray(Image.fromarray(ramp).convert("L"))
    assert (np.diff(lightness[:, 4].astype(int)) >= 0).all()
