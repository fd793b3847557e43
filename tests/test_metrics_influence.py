"""A number an image whose mean is the score, and whose variance is the score's."""

import math

import numpy as np
import pytest

from unfreeze.metrics import in_top, per_image, score

METRICS = ["accuracy", "balanced_accuracy", "macro_f1", "auroc", "log_loss"]


def some(classes: int, images: int = 60, draw: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng([draw, classes])
    shares = np.arange(1, classes + 1) / (classes * (classes + 1) / 2)
    labels = np.concatenate([np.arange(classes), generator.choice(classes, images - classes, p=shares)])
    logits = generator.normal(0, 1, (images, classes))
    logits[np.arange(images), labels] += 0.8
    return logits.astype(np.float32), labels


@pytest.mark.parametrize("classes", [2, 3, 6])
@pytest.mark.parametrize("metric", METRICS)
def test_the_mean_is_the_score(metric: str, classes: int) -> None:
    logits, labels = some(classes)
    assert per_image(metric, logits, labels).mean() == pytest.approx(score(metric, logits, labels), abs=1e-6)


@pytest.mark.parametrize("metric", [*METRICS, "brier", "ece"])
def test_the_deviations_are_what_leaving_an_image_out_does(metric: str) -> None:
    """Influence is the limit of n times what one image changes: the jackknife's pseudo-values come close to it."""
    logits, labels = some(3, images=400)
    values = per_image(metric, logits, labels)
    count = len(labels)
    left = np.array([per_image(metric, np.delete(logits, n, 0), np.delete(labels, n)).mean() for n in range(count)])
    pseudo = count * values.mean() - (count - 1) * left
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
    assert in_top(logits, np.array([4, 5]), 5).tolist() == [1.0, 0.0]
    assert per_image("top5", logits, np.array([4, 5])).mean() == 0.5


def test_what_is_not_defined_is_no_number() -> None:
    logits, labels = some(3)
    assert np.isnan(per_image("auroc", logits, np.minimum(labels, 1))).all()
    logits[0, 0] = math.inf
    assert all(np.isnan(per_image(metric, logits, labels)).all() for metric in [*METRICS, "ece"])
    assert per_image("accuracy", logits[:0], labels[:0]).tolist() == []
    with pytest.raises(ValueError, match="unknown metric 'f2'"):
        per_image("f2", *some(2))


def test_classes_without_images_enter_no_mean() -> None:
    logits, labels = some(4)
    kept = labels != 2
    for metric in ("balanced_accuracy", "macro_f1"):
        values = per_image(metric, logits[kept], labels[kept])
        assert values.mean() == pytest.approx(score(metric, logits[kept], labels[kept]))
