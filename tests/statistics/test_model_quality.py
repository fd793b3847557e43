import json
import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import softmax

from tests.report.test_page import Page
from tests.support.inside_world import CELL, FILE, add_explanation, add_predictions
from tests.support.synthetic import MARKUP, write_study
from unfreeze.metrics import score
from unfreeze.report.figures import confusion_figure
from unfreeze.report.page import write_report
from unfreeze.report.sections.best_model import best_model_view
from unfreeze.statistics import model_quality as quality
from unfreeze.statistics.intervals import wilson_interval
from unfreeze.statistics.model_quality import Scored
from unfreeze.statistics.study_results import read_study_results
from unfreeze.statistics.tables import results_table
from unfreeze.storage.records import read_json, read_tensors, write_json, write_table, write_tensors
from unfreeze.storage.study_dir import StudyDir

# Rows: labels. Of class 0 all 4 are found; of class 1 two of 6 are taken for 2; of class 2 one of 2 is taken for 1.
COUNTS = np.array([[4, 0, 0], [0, 4, 2], [0, 1, 1]])


def scored(logits: np.ndarray, labels: np.ndarray) -> Scored:
    return Scored(tuple(map(str, range(len(labels)))), logits.astype(np.float32), labels.astype(np.int64))


def calibrated(images: int, classes: int = 4, factor: float = 1.0) -> Scored:
    """Labels drawn from the very probabilities that the logits give, then logits times a factor."""
    draws = np.random.default_rng(3)
    logits = draws.normal(0, 1.5, (images, classes))
    shares = softmax(logits, axis=1)
    labels = np.array([draws.choice(classes, p=row) for row in shares])
    return scored(factor * logits, labels)


def calibration_error(made: Scored) -> float:
    return score("ece", made.logits, made.labels)


def test_confusion_counts_labels_by_predictions() -> None:
    labels = np.repeat([0, 1, 2], [4, 6, 2])
    predicted = np.array([0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 1, 2])
    assert quality.confusion(scored(np.eye(3)[predicted], labels)).tolist() == COUNTS.tolist()


def test_class_scores_are_those_counted_by_hand() -> None:
    scores = quality.class_scores(COUNTS)
    assert scores["images"].tolist() == [4, 6, 2]
    assert scores["recall"].tolist() == [1, 4 / 6, 1 / 2]
    assert scores["precision"].tolist() == [1, 4 / 5, 1 / 3]
    assert scores["f1"].tolist() == pytest.approx([1, 8 / 11, 2 / 5])
    assert (scores["recall_low"] < scores["recall"]).all()


def test_classes_without_images_or_predictions_have_empty_scores() -> None:
    scores = quality.class_scores(np.array([[0, 0], [3, 0]]))
    assert math.isnan(scores["recall"][0]) and math.isnan(scores["f1"][0])
    assert math.isnan(scores["precision"][1]) and scores["f1"][1] == 0


def test_wilson_intervals_are_those_of_the_literature() -> None:
    assert wilson_interval(8 / 10, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert wilson_interval(0.0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)
    assert all(map(math.isnan, wilson_interval(math.nan, 0)))


def test_most_confused_pairs_come_first_and_the_diagonal_is_none() -> None:
    assert quality.most_confused(COUNTS, 5) == [(1, 2, 2), (2, 1, 1)]
    assert quality.most_confused(COUNTS, 1) == [(1, 2, 2)]


def test_classes_that_are_confused_stand_side_by_side() -> None:
    counts = np.diag([10] * 6)
    for one, other in ((0, 5), (1, 3), (2, 4)):
        counts[one, other] = counts[other, one] = 8
    order = quality.similar_order(counts)
    assert sorted(order) == list(range(6))
    for one, other in ((0, 5), (1, 3), (2, 4)):
        assert abs(order.index(one) - order.index(other)) == 1
    assert quality.similar_order(np.diag([1, 2])) == [0, 1]


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_the_temperature_undoes_a_factor_on_logits(factor: float) -> None:
    made = calibrated(4000, factor=factor)
    temperature = quality.fit_temperature(made)
    assert temperature == pytest.approx(factor, rel=0.08)
    assert (quality.scaled(made, temperature).predicted == made.predicted).all()


def test_a_temperature_that_images_do_not_determine_is_known() -> None:
    labels = np.arange(20) % 4
    assert quality.at_bound(quality.fit_temperature(scored(np.eye(4)[labels], labels)))
    assert not quality.at_bound(quality.fit_temperature(calibrated(500)))


def test_temperature_scaling_mends_the_calibration_error() -> None:
    sure, fair = calibrated(4000, factor=4.0), calibrated(4000)
    bins = quality.reliability(sure)
    assert bins["images"].sum() == 4000
    assert ((bins["low"] <= bins["confidence"]) & (bins["confidence"] <= bins["high"])).all()
    before, after = calibration_error(sure), calibration_error(quality.scaled(sure, quality.fit_temperature(sure)))
    assert before > 0.15
    assert after < 0.03
    assert calibration_error(fair) < 0.03


def test_the_most_wrong_are_mistakes_with_the_least_believed_label_first() -> None:
    logits = np.log(np.array([[0.7, 0.3], [0.9, 0.1], [0.99, 0.01], [0.2, 0.8]]))
    made = scored(logits, np.array([1, 1, 0, 1]))
    assert quality.most_wrong(made, 5) == [1, 0]
    assert quality.most_wrong(made, 1) == [1]


def test_planted_wrong_labels_are_suspected() -> None:
    draws = np.random.default_rng(0)
    labels = np.arange(300) % 3
    logits = draws.normal(0, 1, (300, 3))
    logits[np.arange(300), labels] += 5
    planted = np.arange(0, 300, 30)
    told = labels.copy()
    told[planted] = (labels[planted] + 1) % 3
    found = quality.suspects(scored(logits, told))
    # It counts a label as wrong only where the model is as sure of another class as it is of that class on average.
    assert len(set(planted) & set(found)) >= len(planted) / 2
    assert len(set(found) - set(planted)) <= 1
    own = scored(logits, told).probabilities[found, told[found]]
    assert (np.diff(own) >= 0).all()
    assert quality.suspects(scored(logits[:5], np.zeros(5))) == []


def test_pooling_takes_each_image_once() -> None:
    test, validation = scored(np.eye(2), np.array([0, 1])), scored(np.ones((3, 2)), np.array([0, 1, 1]))
    both, splits = quality.pooled({"validation": validation, "test": test})
    assert both.ids == ("0", "1", "2")
    assert splits == ["test", "test", "validation"]
    assert both.logits.tolist() == [[1, 0], [0, 1], [1, 1]]


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
    text = re.sub(r"\s+", " ", page.text)
    assert f"{FILE} (test)" in text and f"{FILE} (validation)" in text
    assert f"model {MARKUP} 98.7 %" in text
    assert len(page.scripts) == 3


def test_the_section_says_what_it_counts(page: Page) -> None:
    text = re.sub(r"\s+", " ", page.text[page.text.index("from inside") :])
    assert "head with full, seed 0: of the recommended recipe, the first seed and not the luckiest." in text
    assert "Counted on 240 test images." in text
    assert "it was too sure" in text
    assert "in the features after block5 (7 × 7 places)" in text
    assert "1 of 480 validation and test images, none of which this model was trained on" in text


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
    classes = [f"class number {number}" for number in range(101)]
    write_json(tmp_path / "study.json", read_json(tmp_path / "study.json") | {"classes": classes})
    add_predictions(study, CELL, classes, images=1010)
    path = write_report(read_study_results(study))
    assert path.stat().st_size < 6_000_000
    text = re.sub(r"\s+", " ", Page(path.read_text(encoding="utf-8")).text)
    assert "Classes that are mistaken for each other stand side by side." in text
    assert all(f"{name} 10 " in text for name in classes)
    assert "Its worst mistakes" not in text


def view(study: StudyDir):
    results = read_study_results(study)
    return best_model_view(study, results.cell, results.table, results.record)


@pytest.fixture
def small(tmp_path: Path) -> StudyDir:
    study = write_study(tmp_path, seeds=1, failed=None)
    add_predictions(study, CELL, read_json(study.path / "study.json")["classes"], images=60)
    return study


def test_there_is_no_section_without_predictions(tmp_path: Path) -> None:
    study = write_study(tmp_path, seeds=1, failed=None)
    for path in (tmp_path / "cells").glob("*/logits.safetensors"):
        path.unlink()
    assert best_model_view(study, CELL, results_table(study), read_json(study.path / "study.json")) is None


def test_pictures_of_another_model_are_not_shown(small: StudyDir) -> None:
    add_explanation(small, CELL, fingerprint="of an earlier run")
    shown = view(small)
    assert shown is not None and not shown.has_pictures and not shown.wrong and shown.looked == ""


def test_why_there_are_no_pictures_is_said(small: StudyDir) -> None:
    add_explanation(small, CELL, complete=False, note="weights are gone", map=None, wrong=[], suspects=[])
    shown = view(small)
    assert shown is not None and not shown.has_pictures
    assert shown.notes == ("No pictures: weights are gone",)
    add_explanation(small, CELL, note="x has no feature map of more than one position", map=None)
    shown = view(small)
    assert shown is not None and shown.has_pictures and len(shown.wrong) == 1
    assert shown.notes == ("No Grad-CAM: x has no feature map of more than one position.",)


def test_without_test_images_validation_is_shown_and_said_to_flatter(small: StudyDir) -> None:
    path = small.cell(CELL) / "logits.safetensors"
    logits, about = read_tensors(path)
    write_tensors(path, {"validation": logits["validation"]}, {"ids": {"validation": about["ids"]["validation"]}})
    shown = view(small)
    assert shown is not None
    assert shown.lead.endswith("Counted on 60 validation images.")
    assert shown.notes == ("There are no test images: these chose the model, so everything here flatters it.",)


def test_groups_and_validation_on_test_are_said(small: StudyDir) -> None:
    catalog = pd.read_csv(small.path / "catalog.csv").assign(group="g1")
    write_table(small.path / "catalog.csv", catalog)
    record = read_json(small.path / "study.json")
    record["study"]["split"]["val"] = "test"
    write_json(small.path / "study.json", record)
    shown = view(small)
    assert shown is not None
    assert shown.notes == (
        "The test images also chose the model and its temperature, so everything here flatters it.",
        "Intervals in this section take images as independent; images of one group are not, so the truth is wider.",
    )
