"""Scores against hand numbers and against scikit-learn; what is not defined is NaN."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn import metrics as sklearn

from unfreeze.metrics import HIGHER_IS_BETTER, is_better, loss, score

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


def test_log_loss_is_the_loss() -> None:
    assert score("log_loss", LOGITS, LABELS) == loss(LOGITS, LABELS)


def test_auroc_of_two_classes_counts_pairs_in_the_right_order() -> None:
    logits = np.array([[0, 1], [0, 2], [0, 3], [0, 2]], np.float32)
    labels = np.array([0, 0, 1, 1])  # of four pairs three are right and one is a tie
    assert score("auroc", logits, labels) == pytest.approx(3.5 / 4, abs=1e-12)


def test_auroc_of_three_classes_is_the_mean_over_one_against_the_rest() -> None:
    shares = np.exp(LOGITS.astype(float)) / np.exp(LOGITS.astype(float)).sum(axis=1, keepdims=True)
    each = [sklearn.roc_auc_score(LABELS == number, shares[:, number]) for number in range(3)]
    assert score("auroc", LOGITS, LABELS) == pytest.approx(np.mean(each), abs=1e-12)


def test_auroc_is_not_defined_without_images_of_a_class() -> None:
    assert math.isnan(score("auroc", LOGITS, np.array([0, 0, 1, 1, 0, 1])))
    assert math.isnan(score("auroc", LOGITS[:, :2], np.zeros(6, np.int64)))


@pytest.mark.parametrize("metric", HIGHER_IS_BETTER)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_nothing_is_defined_where_a_logit_is_no_number(metric: str, bad: float) -> None:
    logits = LOGITS.copy()
    logits[3, 1] = bad
    assert math.isnan(score(metric, logits, LABELS))
    assert math.isnan(loss(logits, LABELS))


@pytest.mark.parametrize("metric", ["accuracy", "balanced_accuracy", "macro_f1"])
def test_classes_without_images_count_for_nothing(metric: str) -> None:
    logits = np.eye(3, dtype=np.float32)[[0, 0, 0]]
    assert score(metric, logits, np.array([0, 0, 0])) == 1.0
    assert score(metric, logits, np.array([1, 1, 1])) == 0.0


@settings(deadline=None, max_examples=60)
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


@pytest.mark.parametrize("metric", HIGHER_IS_BETTER)
def test_better_is_higher_but_for_losses(metric: str) -> None:
    high, low = (0.9, 0.1) if HIGHER_IS_BETTER[metric] else (0.1, 0.9)
    assert is_better(metric, high, low)
    assert not is_better(metric, low, high)
    assert not is_better(metric, low, low)
    assert is_better(metric, low, math.nan)
    assert not is_better(metric, math.nan, low)
    assert not is_better(metric, math.nan, math.nan)
    assert HIGHER_IS_BETTER[metric] is (metric != "log_loss")


def test_an_unknown_metric_is_a_mistake_of_the_program() -> None:
    with pytest.raises(ValueError) as caught:
        score("f2", LOGITS, LABELS)
    assert str(caught.value) == "unknown metric 'f2'"
