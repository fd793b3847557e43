"""The report's section on the recommended model: its numbers, its pictures, and its caveats."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.support.inside_world import CELL, FILE, add_explanation, add_predictions
from tests.support.page import Page
from tests.support.synthetic import MARKUP, write_study
from unfreeze.report.figures import confusion_figure
from unfreeze.report.page import write_report
from unfreeze.report.sections.best_model import BestModelView, best_model_view
from unfreeze.statistics.study_results import read_study_results
from unfreeze.statistics.tables import results_table
from unfreeze.storage.records import read_json, read_tensors, write_json, write_table, write_tensors
from unfreeze.storage.study_dir import StudyDir

# Rows: labels. Of class 0 all 4 are found; of class 1 two of 6 are taken for 2; of class 2 one of 2 is taken for 1.
COUNTS = np.array([[4, 0, 0], [0, 4, 2], [0, 1, 1]])


@pytest.fixture(scope="module")
def explained(tmp_path_factory: pytest.TempPathFactory) -> StudyDir:
    study = write_study(tmp_path_factory.mktemp("explained"), seeds=1, failed=None)
    add_predictions(study, CELL, read_json(study.path / "study.json")["classes"])
    add_explanation(study, CELL)
    return study


@pytest.fixture(scope="module")
def page(explained: StudyDir) -> Page:
    return Page(write_report(read_study_results(explained)).read_text(encoding="utf-8"))


def test_the_section_shows_pictures_as_data_and_names_as_text(page: Page) -> None:
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(images) == 3
    for attributes in images:
        assert set(attributes) == {"src", "alt"}
        assert str(attributes["src"]).startswith("data:image/webp;base64,")
    assert images[1]["alt"] == f"Grad-CAM of the prediction {MARKUP}"
    assert not {name for _, attributes in page.tags for name in attributes if name.startswith("on")}
    text = page.words
    assert f"{FILE} (test)" in text and f"{FILE} (validation)" in text
    assert f"model {MARKUP} 98.7 %" in text
    assert len(page.scripts) == 3


def test_the_section_says_what_it_counts(page: Page) -> None:
    text = page.words[page.words.index("Inside the recommended model") :]
    assert "head with full, seed 0: the recommended recipe's first seed, not its best one." in text
    assert "Numbers are from 240 test images." in text
    assert "On 240 validation images the model is overconfident: temperature scaling (logits divided by " in text
    assert "by the feature map after block5 (7 × 7 positions)" in text
    assert "finds 1 of 480 validation and test images whose label is probably wrong; this model was trained on" in text


def test_figures_are_json_and_hold_no_markup(page: Page) -> None:
    figures = json.loads(page.scripts[0])
    assert {"confusion", "reliability-before", "reliability-after"} <= set(figures)
    assert {a["data-figure"] for _, a in page.tags if "data-figure" in a} == set(figures)
    assert "<img" not in json.dumps(figures).replace("\\u003c", "<")


def test_the_matrix_holds_every_image_once() -> None:
    figure = confusion_figure(COUNTS, ["a", "b", "c"], [2, 0, 1])
    right, mistaken = figure.data
    assert list(right.y) == ["c", "a", "b"]
    assert sum(int(text) for trace in figure.data for row in trace.text for text in row if text != "") == COUNTS.sum()
    assert mistaken.z[0][2] == 0.5  # half of c is taken for b
    assert right.z[0][2] is None
    assert (right.zmax, mistaken.zmax) == (1, 0.5)


def test_a_hundred_and_one_classes_still_make_a_small_page(tmp_path: Path) -> None:
    study = write_study(tmp_path, seeds=1, failed=None)
    for path in tmp_path.glob("cells/*/result.json"):
        if path.parent.name != CELL:
            path.unlink()
    classes = [f"class number {number}" for number in range(101)]
    write_json(tmp_path / "study.json", read_json(tmp_path / "study.json") | {"classes": classes})
    add_predictions(study, CELL, classes, images=303)
    path = write_report(read_study_results(study))
    assert path.stat().st_size < 6_000_000
    text = Page(path.read_text(encoding="utf-8")).words
    assert "Classes that are often confused are adjacent." in text
    assert all(f"{name} 3 " in text for name in classes)
    assert "Worst mistakes" not in text


def view(study: StudyDir) -> BestModelView | None:
    return best_model_view(study, CELL, results_table(study), read_json(study.path / "study.json"))


@pytest.fixture
def small(tmp_path: Path) -> StudyDir:
    study = write_study(tmp_path, seeds=1, failed=None)
    add_predictions(study, CELL, read_json(study.path / "study.json")["classes"], images=60)
    return study


def test_there_is_no_section_without_predictions(tmp_path: Path) -> None:
    study = write_study(tmp_path, seeds=1, failed=None)
    for path in (tmp_path / "cells").glob("*/logits.safetensors"):
        path.unlink()
    assert view(study) is None


def test_pictures_of_another_model_are_not_shown(small: StudyDir) -> None:
    add_explanation(small, CELL, fingerprint="of an earlier run")
    shown = view(small)
    assert shown is not None and not shown.has_pictures and not shown.wrong and shown.grad_cam == ""


def test_a_note_says_why_there_are_no_pictures(small: StudyDir) -> None:
    add_explanation(small, CELL, complete=False, note="weights are gone", map=None, wrong=[], suspects=[])
    shown = view(small)
    assert shown is not None and not shown.has_pictures
    assert shown.notes == ("No pictures: weights are gone",)
    add_explanation(small, CELL, note="x has no feature map of more than one position", map=None)
    shown = view(small)
    assert shown is not None and shown.has_pictures and len(shown.wrong) == 1
    assert shown.notes == ("No Grad-CAM: x has no feature map of more than one position.",)


def test_without_test_images_the_section_shows_validation_and_calls_it_optimistic(small: StudyDir) -> None:
    path = small.cell(CELL) / "logits.safetensors"
    logits, about = read_tensors(path)
    write_tensors(path, {"validation": logits["validation"]}, {"ids": {"validation": about["ids"]["validation"]}})
    shown = view(small)
    assert shown is not None
    assert shown.lead.endswith("Numbers are from 60 validation images.")
    assert shown.notes == (
        "There are no test images. These images selected the model, so all numbers here are optimistic.",
    )


def test_notes_warn_of_groups_and_of_validation_on_test_images(small: StudyDir) -> None:
    catalog = pd.read_csv(small.path / "catalog.csv").assign(group="g1")
    write_table(small.path / "catalog.csv", catalog)
    record = read_json(small.path / "study.json")
    record["study"]["split"]["val"] = "test"
    write_json(small.path / "study.json", record)
    shown = view(small)
    assert shown is not None
    assert shown.notes == (
        "The test images also selected the model and its temperature, so all numbers here are optimistic.",
        "Intervals in this section treat images as independent, which images of one group are not, so they are too "
        "narrow.",
    )
