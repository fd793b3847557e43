"""Scores of predictions, by the names that a study may lead with. No torch here."""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax, softmax
from scipy.stats import rankdata
from sklearn import metrics as scores

Logits = NDArray[np.float32]


Labels = NDArray[np.int64]


UNEVEN = 3
"""Images of the largest class over those of the smallest from which on accuracy alone hides the small classes."""


HIGHER_IS_BETTER = {"accuracy": True, "balanced_accuracy": True, "macro_f1": True, "auroc": True, "log_loss": False}


def loss(logits: Logits, labels: Labels) -> float:
    """Return the mean cross-entropy in nats of logits (n, classes), all finite or else NaN, under labels (n,)."""
    if not np.isfinite(logits).all():
        return math.nan
    return float(-log_softmax(logits.astype(np.float64), axis=1)[np.arange(len(labels)), labels].mean())


def score(metric: str, logits: Logits, labels: Labels) -> float:
    """Return one metric of logits (n, classes) under integer labels (n,); NaN where it is not defined.

    None is defined when a logit is not finite. ``balanced_accuracy`` and ``macro_f1`` are means over the classes that
    have images. ``auroc`` is the mean over classes of one against the rest, and not defined when a class has no image.
    """
    if not np.isfinite(logits).all():
        return math.nan
    predicted = logits.argmax(axis=1)
    classes, present = np.arange(logits.shape[1]), np.unique(labels)
    match metric:
        case "accuracy":
            return float(scores.accuracy_score(labels, predicted))
        case "balanced_accuracy":
            return float(scores.recall_score(labels, predicted, labels=present, average="macro", zero_division=0.0))
        case "macro_f1":
            return float(scores.f1_score(labels, predicted, labels=present, average="macro", zero_division=0.0))
        case "auroc":
            if len(present) < len(classes):
                return math.nan
            shares = softmax(logits.astype(np.float64), axis=1)
            if len(classes) == 2:
                return float(scores.roc_auc_score(labels, shares[:, 1]))
            return float(scores.roc_auc_score(labels, shares, multi_class="ovr", average="macro", labels=classes))
        case "log_loss":
            return loss(logits, labels)
    raise ValueError(f"unknown metric {metric!r}")


def is_better(metric: str, value: float, other: float) -> bool:
    """Tell whether a value of the metric beats another; NaN never beats, and is always beaten."""
    if math.isnan(value) or math.isnan(other):
        return math.isnan(other) and not math.isnan(value)
    return value > other if HIGHER_IS_BETTER[metric] else value < other


Values = NDArray[np.float64]


ECE_BINS = 15


TOP = 5


def per_image(metric: str, logits: Logits, labels: Labels) -> Values:
    """Return (n,) numbers whose mean is the metric of the n images, all NaN where it is not defined.

    For a score that is a mean over images (accuracy, top5, log_loss, brier) these are the images' own scores. For the
    others they are the score plus each image's empirical influence, so that their variance over n is the variance of
    the score to first order (Hampel, 1974, "The influence curve and its role in robust estimation"; for the area under
    a curve it is the method of DeLong, DeLong and Clarke-Pearson, 1988, Biometrics 44).

    Args:
        metric: a name of ``unfreeze.metrics``, or top5, brier or ece.
        logits: (n, classes).
        labels: (n,), below classes.

    ``balanced_accuracy`` and ``macro_f1`` are means over the classes that have images; ``auroc`` is not defined where a
    class has none. ``brier`` sums the squares over classes, from 0 to 2 (Brier, 1950). ``ece`` is the expected
    calibration error with 15 bins of equal width (Naeini et al., 2015; Guo et al., 2017): its value is too high where
    there are few images, whatever the network.

    Raises:
        ValueError: no such metric.
    """
    if not len(labels) or not np.isfinite(logits).all():
        return np.full(len(labels), math.nan)
    right = (logits.argmax(axis=1) == labels).astype(np.float64)
    match metric:
        case "accuracy":
            return right
        case "top5":
            return in_top(logits, labels, TOP)
        case "log_loss":
            return -log_softmax(logits.astype(np.float64), axis=1)[np.arange(len(labels)), labels]
        case "brier":
            truth = np.eye(logits.shape[1])[labels]
            return ((softmax(logits.astype(np.float64), axis=1) - truth) ** 2).sum(axis=1)
        case "balanced_accuracy":
            return _balanced(right, labels)
        case "macro_f1":
            return _macro_f1(logits.argmax(axis=1), labels)
        case "auroc":
            return _auroc(softmax(logits.astype(np.float64), axis=1), labels)
        case "ece":
            return _ece(softmax(logits.astype(np.float64), axis=1).max(axis=1), right)
    raise ValueError(f"unknown metric {metric!r}")


def in_top(logits: Logits, labels: Labels, count: int) -> Values:
    """Return (n,) 1.0 where the true class is among the ``count`` largest logits, the earlier class winning ties."""
    true = logits[np.arange(len(labels)), labels][:, None]
    earlier = np.arange(logits.shape[1])[None, :] < labels[:, None]
    ahead = (logits > true) | ((logits == true) & earlier)
    return (ahead.sum(axis=1) < count).astype(np.float64)


def _balanced(right: Values, labels: Labels) -> Values:
    counts = np.bincount(labels)
    present = counts > 0
    recalls = np.divide(np.bincount(labels, right), counts, out=np.zeros(len(counts)), where=present)
    weights = len(labels) / (present.sum() * counts[labels])
    return recalls[present].mean() + weights * (right - recalls[labels])


def _macro_f1(predicted: Labels, labels: Labels) -> Values:
    images, present = len(labels), np.unique(labels)
    values = np.zeros(images)
    for label in present:
        guessed, true = predicted == label, labels == label
        both = guessed & true
        size = guessed.mean() + true.mean()
        f1 = 2 * both.mean() / size
        values += f1 + (2 * both - f1 * (guessed.astype(np.float64) + true)) / size
    return values / len(present)


def _auroc(shares: NDArray[np.float64], labels: Labels) -> Values:
    images, classes = shares.shape
    if classes < 2 or len(np.unique(labels)) < classes:
        return np.full(images, math.nan)
    values = np.zeros(images)
    ones = [1] if classes == 2 else range(classes)
    for label in ones:
        true = labels == label
        positives, negatives = int(true.sum()), int((~true).sum())
        ranks, score = rankdata(shares[:, label]), shares[:, label]
        placed = np.empty(images)  # the share of the other kind that an image is on the right side of
        placed[true] = (ranks[true] - rankdata(score[true])) / negatives
        placed[~true] = 1 - (ranks[~true] - rankdata(score[~true])) / positives
        area = placed[true].mean()
        values += area + np.where(true, images / positives, images / negatives) * (placed - area)
    return values / len(ones)


def _ece(confidence: Values, right: Values) -> Values:
    bins = np.minimum((confidence * ECE_BINS).astype(np.int64), ECE_BINS - 1)
    gaps = right - confidence
    return np.sign(np.bincount(bins, gaps, minlength=ECE_BINS))[bins] * gaps
