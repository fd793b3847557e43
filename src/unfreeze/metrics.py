"""Scores of predictions, by the names that a study may lead with. No torch here."""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax, softmax
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
