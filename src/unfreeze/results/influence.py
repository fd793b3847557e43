"""Scores of a set of images as means of one number an image, so that all of them get their intervals one way."""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax, softmax
from scipy.stats import rankdata

from unfreeze.metrics import Labels, Logits

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
