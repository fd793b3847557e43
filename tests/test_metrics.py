"""Metrics against values by hand and scikit-learn's, values of single images, and printing."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn import metrics as sklearn

from unfreeze.metrics import METRICS, change_text, difference_text, imbalance, is_better, loss, per_image, score

# six images of three classes; predicted 0 0 1 1 2 0
LOGITS = np.array(
    [[2, 0, 0], [1, 0, 0], [0, 3, 0], [0, 1, 0], [0, 0, 1], [1, 0, 0]],
    dtype=np.float32,
)
LABELS = np.array([0, 0, 0, 1, 2, 2])


def test_loss_is_the_mean_cross_entropy_in_nats() -> None:
    assert loss(np.zeros((4, 5), np.float32), np.arange(4)) == pytest.approx(math.log(5), abs=1e-12)
    logits = np.log(np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]]))
    assert loss(logits.astype(np.float64), np.array([0, 2])) == pytest.approx(-(math.log(0.7) + math.log(0.8)) / 2)


def test_loss_of_large_logits_does_not_overflow() -> None:
    assert loss(np.array([[3e38, 0.0]], np.float32), np.array([1])) == pytest.approx(3e38, rel=1e-6)


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("accuracy", 4 / 6),
        ("balanced_accuracy", (2 / 3 + 1 + 1 / 2) / 3),
        ("macro_f1", (2 / 3 + 2 / 3 + 2 / 3) / 3),  # precision 2/3 1/2 1, recall 2/3 1 1/2
    ],
)
def test_scores_by_hand(metric: str, expected: float) -> None:
    assert score(metric, LOGITS, LABELS) == pytest.approx(expected, abs=1e-12)


def test_auroc_of_two_classes_is_the_share_of_pairs_in_the_right_order() -> None:
    logits = np.array([[0, 1], [0, 2], [0, 3], [0, 2]], np.float32)
    labels = np.array([0, 0, 1, 1])  # of four pairs three are right and one is a tie
    assert score("auroc", logits, labels) == pytest.approx(3.5 / 4, abs=1e-12)


def test_auroc_of_three_classes_is_the_mean_of_one_against_the_rest() -> None:
    shares = np.exp(LOGITS.astype(float)) / np.exp(LOGITS.astype(float)).sum(axis=1, keepdims=True)
    each = [sklearn.roc_auc_score(LABELS == number, shares[:, number]) for number in range(3)]
    assert score("auroc", LOGITS, LABELS) == pytest.approx(np.mean(each), abs=1e-12)


def test_auroc_is_undefined_without_images_of_a_class() -> None:
    assert math.isnan(score("auroc", LOGITS, np.array([0, 0, 1, 1, 0, 1])))
    assert math.isnan(score("auroc", LOGITS[:, :2], np.zeros(6, np.int64)))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_metrics_are_undefined_where_a_logit_is_not_finite(bad: float) -> None:
    logits = LOGITS.copy()
    logits[3, 1] = bad
    assert all(math.isnan(score(metric, logits, LABELS)) for metric in METRICS)
    assert all(np.isnan(per_image(metric, logits, LABELS)).all() for metric in METRICS)


@pytest.mark.parametrize("metric", ["accuracy", "balanced_accuracy", "macro_f1"])
def test_classes_without_images_do_not_count(metric: str) -> None:
    logits = np.eye(3, dtype=np.float32)[[0, 0, 0]]
    assert score(metric, logits, np.array([0, 0, 0])) == 1.0
    assert score(metric, logits, np.array([1, 1, 1])) == 0.0


@settings(deadline=None, max_examples=30)
@given(arrays(np.float32, (12, 4), elements=st.floats(-50, 50, width=32)), st.permutations([0, 1, 2, 3] * 3))
def test_scores_are_those_of_scikit_learn(logits: np.ndarray, order: list[int]) -> None:
    labels = np.array(order)
    predicted = logits.argmax(axis=1)
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    shares = powers / powers.sum(axis=1, keepdims=True)
    assert score("accuracy", logits, labels) == sklearn.accuracy_score(labels, predicted)
    assert score("balanced_accuracy", logits, labels) == pytest.approx(
        sklearn.balanced_accuracy_score(labels, predicted)
    )
    assert score("macro_f1", logits, labels) == pytest.approx(
        sklearn.f1_score(labels, predicted, average="macro", zero_division=0.0)
    )
    picked = np.maximum(shares[np.arange(12), labels], 1e-300)
    assert score("log_loss", logits, labels) == pytest.approx(-np.log(picked).mean(), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("metric", METRICS)
def test_higher_is_better_except_for_losses(metric: str) -> None:
    high, low = (0.9, 0.1) if METRICS[metric].higher_is_better else (0.1, 0.9)
    assert is_better(metric, high, low)
    assert not is_better(metric, low, high)
    assert not is_better(metric, low, low)
    assert is_better(metric, low, math.nan)
    assert not is_better(metric, math.nan, low)
    assert not is_better(metric, math.nan, math.nan)
    assert METRICS[metric].higher_is_better is (metric not in ("ece", "log_loss", "brier"))


def test_an_unknown_metric_raises_a_key_error() -> None:
    with pytest.raises(KeyError) as caught:
        score("f2", LOGITS, LABELS)
    assert caught.value.args == (
        "unknown metric 'f2'; known are accuracy, top5, balanced_accuracy, macro_f1, auroc, ece, log_loss, brier",
    )


def simulated(classes: int, images: int = 60, draw: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng([draw, classes])
    shares = np.arange(1, classes + 1) / (classes * (classes + 1) / 2)
    labels = np.concatenate([np.arange(classes), generator.choice(classes, images - classes, p=shares)])
    logits = generator.normal(0, 1, (images, classes))
    logits[np.arange(images), labels] += 0.8
    return logits.astype(np.float32), labels


@pytest.mark.parametrize("classes", [2, 3, 6])
@pytest.mark.parametrize("metric", METRICS)
def test_the_mean_of_the_values_is_the_score(metric: str, classes: int) -> None:
    logits, labels = simulated(classes)
    assert per_image(metric, logits, labels).mean() == pytest.approx(score(metric, logits, labels), abs=1e-6)


@pytest.mark.parametrize("metric", [name for name, metric in METRICS.items() if name != "top5"])
def test_the_deviations_approximate_those_of_the_jackknife(metric: str) -> None:
    """Influence is the limit of n times the change by one image, which the jackknife's pseudo-values approximate."""
    logits, labels = simulated(3, images=400)
    values = per_image(metric, logits, labels)
    count = len(labels)
    without = np.array([per_image(metric, np.delete(logits, n, 0), np.delete(labels, n)).mean() for n in range(count)])
    pseudo = count * values.mean() - (count - 1) * without
    assert np.corrcoef(pseudo, values)[0, 1] > 0.97
    assert np.var(pseudo) == pytest.approx(np.var(values), rel=0.1)


def test_auroc_is_that_of_delong_with_ties() -> None:
    logits = np.array([[0, 0], [0, 1], [0, 1], [0, 2]], dtype=np.float32)
    labels = np.array([0, 0, 1, 1])
    values = per_image("auroc", logits, labels)
    assert values.mean() == pytest.approx(0.875)
    assert values.tolist() == pytest.approx([0.875 + 2 * 0.125, 0.875 - 2 * 0.125, 0.875 - 0.25, 0.875 + 0.25])


def test_expected_calibration_error_by_hand() -> None:
    """Two bins: sure at 0.9 and right in half of 4, and at 0.6 and right in both of 2."""
    shares = np.array([[0.9, 0.1]] * 4 + [[0.6, 0.4]] * 2)
    labels = np.array([0, 0, 1, 1, 0, 0])
    assert per_image("ece", np.log(shares), labels).mean() == pytest.approx((4 * 0.4 + 2 * 0.4) / 6)


def test_brier_by_hand() -> None:
    shares = np.array([[0.7, 0.2, 0.1]])
    assert per_image("brier", np.log(shares), np.array([1])).tolist() == pytest.approx([0.49 + 0.64 + 0.01])


def test_top_five_lets_the_earlier_class_win_a_tie() -> None:
    logits = np.zeros((2, 12), dtype=np.float32)
    assert per_image("top5", logits, np.array([4, 5])).tolist() == [1.0, 0.0]


def test_without_images_there_are_no_values() -> None:
    assert per_image("accuracy", LOGITS[:0], LABELS[:0]).tolist() == []


def test_classes_without_images_are_left_out_of_means() -> None:
    logits, labels = simulated(4)
    kept = labels != 2
    for metric in ("balanced_accuracy", "macro_f1"):
        values = per_image(metric, logits[kept], labels[kept])
        assert values.mean() == pytest.approx(score(metric, logits[kept], labels[kept]))


def test_imbalance_is_the_largest_class_over_the_smallest() -> None:
    assert imbalance([30, 12, 10]) == 3
    assert imbalance([30, 0]) == 30
    assert imbalance([]) == 1


@pytest.mark.parametrize("value", [0.0, -0.0, 4e-4, -4e-4])
def test_a_change_that_rounds_to_nothing_has_no_sign(value: float) -> None:
    assert change_text("accuracy", value) == "0.0 points"
    assert change_text("log_loss", value) == "0.000"


def test_a_difference_has_its_sign_and_interval() -> None:
    assert difference_text("accuracy", 0.0125, -0.0041, 0.02) == "+1.2 points (-0.4 to +2.0)"
    assert difference_text("log_loss", -0.0125, -0.02, -0.0001) == "-0.013 (-0.020 to 0.000)"
