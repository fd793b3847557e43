"""Confusion matrix, scores per class, calibration, mistakes and label issues of one model."""

import math

import numpy as np
import pytest
from scipy.special import softmax

from unfreeze.metrics import score
from unfreeze.statistics import model_quality as quality
from unfreeze.statistics.model_quality import ScoredImages

# Rows: labels. Of class 0 all 4 are found; of class 1 two of 6 are taken for 2; of class 2 one of 2 is taken for 1.
COUNTS = np.array([[4, 0, 0], [0, 4, 2], [0, 1, 1]])


def scored(logits: np.ndarray, labels: np.ndarray) -> ScoredImages:
    return ScoredImages(tuple(map(str, range(len(labels)))), logits.astype(np.float32), labels.astype(np.int64))


def calibrated(images: int, classes: int = 4, factor: float = 1.0) -> ScoredImages:
    """Labels drawn from the very probabilities that the logits give, then logits times a factor."""
    draws = np.random.default_rng(3)
    logits = draws.normal(0, 1.5, (images, classes))
    shares = softmax(logits, axis=1)
    labels = np.array([draws.choice(classes, p=row) for row in shares])
    return scored(factor * logits, labels)


def calibration_error(made: ScoredImages) -> float:
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


def test_most_confused_pairs_leave_out_the_diagonal() -> None:
    assert quality.most_confused(COUNTS, 5) == [(1, 2, 2), (2, 1, 1)]
    assert quality.most_confused(COUNTS, 1) == [(1, 2, 2)]


def test_classes_that_are_confused_are_adjacent() -> None:
    counts = np.diag([10] * 6)
    for one, other in ((0, 5), (1, 3), (2, 4)):
        counts[one, other] = counts[other, one] = 8
    order = quality.similar_order(counts)
    assert sorted(order) == list(range(6))
    for one, other in ((0, 5), (1, 3), (2, 4)):
        assert abs(order.index(one) - order.index(other)) == 1
    assert quality.similar_order(np.diag([1, 2])) == [0, 1]


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_the_fitted_temperature_recovers_a_factor_on_the_logits(factor: float) -> None:
    made = calibrated(4000, factor=factor)
    temperature = quality.fit_temperature(made)
    assert temperature == pytest.approx(factor, rel=0.08)
    assert (quality.with_temperature(made, temperature).predicted == made.predicted).all()


def test_a_temperature_that_images_do_not_determine_is_at_its_bound() -> None:
    labels = np.arange(20) % 4
    assert quality.is_at_bound(quality.fit_temperature(scored(np.eye(4)[labels], labels)))
    assert not quality.is_at_bound(quality.fit_temperature(calibrated(500)))


def test_temperature_scaling_reduces_the_calibration_error() -> None:
    sure, fair = calibrated(4000, factor=4.0), calibrated(4000)
    bins = quality.reliability(sure)
    assert bins["images"].sum() == 4000
    assert ((bins["low"] <= bins["confidence"]) & (bins["confidence"] <= bins["high"])).all()
    before, after = (
        calibration_error(sure),
        calibration_error(quality.with_temperature(sure, quality.fit_temperature(sure))),
    )
    assert before > 0.15
    assert after < 0.03
    assert calibration_error(fair) < 0.03


def test_the_worst_mistakes_have_the_lowest_probability_of_the_label_first() -> None:
    logits = np.log(np.array([[0.7, 0.3], [0.9, 0.1], [0.99, 0.01], [0.2, 0.8]]))
    made = scored(logits, np.array([1, 1, 0, 1]))
    assert quality.worst_mistakes(made, 5) == [1, 0]
    assert quality.worst_mistakes(made, 1) == [1]


def test_planted_wrong_labels_are_found() -> None:
    draws = np.random.default_rng(0)
    labels = np.arange(300) % 3
    logits = draws.normal(0, 1, (300, 3))
    logits[np.arange(300), labels] += 5
    planted = np.arange(0, 300, 30)
    noisy = labels.copy()
    noisy[planted] = (labels[planted] + 1) % 3
    found = quality.label_issues(scored(logits, noisy))
    # A label counts as wrong only if another class is at least as probable as it is, on average, for its own images.
    assert len(set(planted) & set(found)) >= len(planted) / 2
    assert len(set(found) - set(planted)) <= 1
    own = scored(logits, noisy).probabilities[found, noisy[found]]
    assert (np.diff(own) >= 0).all()
    assert quality.label_issues(scored(logits[:5], np.zeros(5))) == []


def test_pooling_takes_each_image_once() -> None:
    test, validation = scored(np.eye(2), np.array([0, 1])), scored(np.ones((3, 2)), np.array([0, 1, 1]))
    both, splits = quality.pooled({"validation": validation, "test": test})
    assert both.ids == ("0", "1", "2")
    assert splits == ["test", "test", "validation"]
    assert both.logits.tolist() == [[1, 0], [0, 1], [1, 1]]
