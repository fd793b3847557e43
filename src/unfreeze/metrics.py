"""Metrics: values for single images, direction, bounds and how each is printed.

``METRICS`` is the registry. Everything that lists metrics, compares them, computes intervals or prints them reads it,
so a new metric is one more entry. Imports no torch, and scikit-learn only where it is used.
"""

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax, softmax

from unfreeze.registry import Registry
from unfreeze.text import MISSING

Logits = NDArray[np.float32]
Labels = NDArray[np.int64]
Values = NDArray[np.float64]

IMBALANCED = 3
"""Imbalance from which on accuracy alone hides errors in small classes."""


def imbalance(images: Collection[int]) -> float:
    """Return the size of the largest class over that of the smallest (at least 1); 1 without classes."""
    return max(images) / max(1, min(images)) if images else 1.0


@dataclass(frozen=True)
class Metric:
    """A metric, with everything that the package needs to know about it.

    Attributes:
        name: its name in study files, tables and JSON.
        label: its name in sentences and headings.
        per_image: takes finite logits (n, classes) and labels (n,), n > 0; returns (n,) values whose mean is the score.
            For a mean over images these are the images' own scores. For other scores they are the score plus each
            image's empirical influence, so that their variance over n is that of the score to first order (Hampel,
            1974, "The influence curve and its role in robust estimation").
        higher_is_better: the direction. The best value must be finite, because errors are distances from it.
        bounds: smallest and largest possible value; may be infinite.
        margin: largest half-width, in units of the metric, of an interval that shows no difference.
        percent: whether values are printed in percent, and differences in points.
        proportion: whether ``per_image`` returns only zeros and ones, so that Wilson's interval applies.
        score: returns the score of the same arguments, by a library's implementation; None: the mean of ``per_image``.
        least_classes: with fewer classes, the metric is not listed.
        every_class: whether the metric is undefined unless every class has an image.
        selects: whether a study may select and compare by it.
    """

    name: str
    label: str
    per_image: Callable[[Logits, Labels], Values]
    higher_is_better: bool = True
    bounds: tuple[float, float] = (0.0, 1.0)
    margin: float = 0.02
    percent: bool = False
    proportion: bool = False
    score: Callable[[Logits, Labels], float] | None = None
    least_classes: int = 2
    every_class: bool = False
    selects: bool = True

    def __post_init__(self) -> None:
        if not math.isfinite(self.best):
            raise ValueError(f"metric {self.name!r}: its best value must be finite, bounds are {self.bounds}")

    @property
    def best(self) -> float:
        """The best possible value."""
        return self.bounds[1] if self.higher_is_better else self.bounds[0]

    @property
    def sign(self) -> int:
        """1 where higher is better, else -1: a value times its sign is better if larger."""
        return 1 if self.higher_is_better else -1

    @property
    def is_share(self) -> bool:
        """Whether values lie between 0 and 1, so that one image changes the metric by about 1 / images."""
        return self.bounds == (0.0, 1.0)


METRICS: Registry[Metric] = Registry("metric")
"""Every metric by name, in the order in which tables list them."""


def score(metric: str, logits: Logits, labels: Labels) -> float:
    """Return a metric of logits (n, classes) for labels (n,); NaN where it is undefined or a logit is not finite."""
    found = METRICS[metric]
    if found.score is None or not np.isfinite(logits).all():
        return float(per_image(metric, logits, labels).mean())
    return found.score(logits, labels)


def per_image(metric: str, logits: Logits, labels: Labels) -> Values:
    """Return (n,) values whose mean is the metric of logits (n, classes) for labels (n,); see ``Metric.per_image``.

    All are NaN where the metric is undefined or a logit is not finite.

    Raises:
        KeyError: there is no such metric.
    """
    found = METRICS[metric]
    if not len(labels) or not np.isfinite(logits).all():
        return np.full(len(labels), math.nan)
    return found.per_image(logits, labels)


def loss(logits: Logits, labels: Labels) -> float:
    """Return the mean cross-entropy in nats of logits (n, classes) for labels (n,); NaN if a logit is not finite."""
    return score("log_loss", logits, labels)


def is_better(metric: str, value: float, other: float) -> bool:
    """Tell whether a value of the metric is better than another; any number is better than NaN."""
    if math.isnan(value) or math.isnan(other):
        return math.isnan(other) and not math.isnan(value)
    sign = METRICS[metric].sign
    return sign * value > sign * other


# Printing

POINT = 0.01
"""One point of a share, 0.01 of any other metric: the largest difference at which recipes may count as equally good."""


def metric_text(metric: str, value: float) -> str:
    """Write a metric: in percent with one decimal, or with three decimals.

    >>> metric_text("accuracy", 0.8973), metric_text("macro_f1", 0.8973)
    ('89.7 %', '0.897')
    """
    if not math.isfinite(value):
        return MISSING
    return f"{100 * value:.1f} %" if METRICS[metric].percent else f"{value:.3f}"


def change_text(metric: str, value: float) -> str:
    """Write a difference of two values of a metric with its sign, e.g. ``+1.3 points`` or ``-0.013``."""
    if not math.isfinite(value):
        return MISSING
    percent = METRICS[metric].percent
    digits, unit = (1, " points") if percent else (3, "")
    rounded = round(100 * value if percent else value, digits)
    return f"{rounded:+.{digits}f}{unit}" if rounded else f"{0:.{digits}f}{unit}"  # no sign on what rounds to 0


def spread_text(metric: str, value: float) -> str:
    """Write a standard deviation of a metric, in points or with three decimals."""
    return change_text(metric, value).lstrip("+")


def between_text(metric: str, low: float, high: float) -> str:
    """Write an interval of a metric without its unit, e.g. ``88.1 to 92.7``; "" where there is none."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return ""
    return " to ".join(metric_text(metric, bound).removesuffix(" %") for bound in (low, high))


def change_between_text(metric: str, low: float, high: float) -> str:
    """Write an interval of a difference without its unit, e.g. ``-0.4 to +2.1``; "" where there is none."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return ""
    return " to ".join(change_text(metric, bound).removesuffix(" points") for bound in (low, high))


def estimate_text(metric: str, value: float, low: float, high: float) -> str:
    """Write a metric with its interval, e.g. ``90.6 % (88.1 to 92.7)``."""
    interval = between_text(metric, low, high)
    return f"{metric_text(metric, value)} ({interval})" if interval else metric_text(metric, value)


def difference_text(metric: str, value: float, low: float, high: float) -> str:
    """Write a difference with its interval, e.g. ``+1.3 points (-0.4 to +2.1)``."""
    interval = change_between_text(metric, low, high)
    return f"{change_text(metric, value)} ({interval})" if interval else change_text(metric, value)


# The metrics

ECE_BINS = 15
"""Number of equally wide bins of confidence, as in Guo et al. (2017)."""
TOP = 5


def confidence_bins(confidence: Values) -> NDArray[np.int64]:
    """Return the bin of each confidence (n,), 0 to ``ECE_BINS`` - 1."""
    return np.minimum((confidence * ECE_BINS).astype(np.int64), ECE_BINS - 1)


def _probabilities(logits: Logits) -> Values:
    return softmax(logits.astype(np.float64), axis=1)


def _correct(logits: Logits, labels: Labels) -> Values:
    return (logits.argmax(axis=1) == labels).astype(np.float64)


def _in_top(logits: Logits, labels: Labels) -> Values:
    """Return 1.0 where the label is among the ``TOP`` largest logits; ties go to the earlier class."""
    true = logits[np.arange(len(labels)), labels][:, None]
    earlier = np.arange(logits.shape[1])[None, :] < labels[:, None]
    ahead = (logits > true) | ((logits == true) & earlier)
    return (ahead.sum(axis=1) < TOP).astype(np.float64)


def _balanced(logits: Logits, labels: Labels) -> Values:
    """Return values for the mean recall of the classes that have images."""
    right, counts = _correct(logits, labels), np.bincount(labels)
    present = counts > 0
    recalls = np.divide(np.bincount(labels, right), counts, out=np.zeros(len(counts)), where=present)
    weights = len(labels) / (present.sum() * counts[labels])
    return recalls[present].mean() + weights * (right - recalls[labels])


def _balanced_score(logits: Logits, labels: Labels) -> float:
    from sklearn.metrics import recall_score

    present = np.unique(labels)
    return float(recall_score(labels, logits.argmax(axis=1), labels=present, average="macro", zero_division=0.0))


def _macro_f1(logits: Logits, labels: Labels) -> Values:
    """Return values for the mean F1 of the classes that have images."""
    predicted, present = logits.argmax(axis=1), np.unique(labels)
    values = np.zeros(len(labels))
    for label in present:
        guessed, true = predicted == label, labels == label
        both = guessed & true
        size = guessed.mean() + true.mean()
        f1 = 2 * both.mean() / size
        values += f1 + (2 * both - f1 * (guessed.astype(np.float64) + true)) / size
    return values / len(present)


def _macro_f1_score(logits: Logits, labels: Labels) -> float:
    from sklearn.metrics import f1_score

    present = np.unique(labels)
    return float(f1_score(labels, logits.argmax(axis=1), labels=present, average="macro", zero_division=0.0))


def _auroc(logits: Logits, labels: Labels) -> Values:
    """Return values for the mean area under the ROC curve, one class against the rest; NaN if a class has no image.

    The method is that of DeLong, DeLong and Clarke-Pearson (1988, Biometrics 44).
    """
    from scipy.stats import rankdata

    shares = _probabilities(logits)
    images, classes = shares.shape
    if classes < 2 or len(np.unique(labels)) < classes:
        return np.full(images, math.nan)
    values = np.zeros(images)
    ones = [1] if classes == 2 else range(classes)
    for label in ones:
        true = labels == label
        positives, negatives = int(true.sum()), int((~true).sum())
        ranks, share = rankdata(shares[:, label]), shares[:, label]
        ranked = np.empty(images)  # share of the other images that each is ranked correctly against
        ranked[true] = (ranks[true] - rankdata(share[true])) / negatives
        ranked[~true] = 1 - (ranks[~true] - rankdata(share[~true])) / positives
        area = ranked[true].mean()
        values += area + np.where(true, images / positives, images / negatives) * (ranked - area)
    return values / len(ones)


def _auroc_score(logits: Logits, labels: Labels) -> float:
    from sklearn.metrics import roc_auc_score

    shares, classes = _probabilities(logits), np.arange(logits.shape[1])
    if len(np.unique(labels)) < len(classes):
        return math.nan
    if len(classes) == 2:
        return float(roc_auc_score(labels, shares[:, 1]))
    return float(roc_auc_score(labels, shares, multi_class="ovr", average="macro", labels=classes))


def _ece(logits: Logits, labels: Labels) -> Values:
    """Return values for the expected calibration error (Naeini et al., 2015; Guo et al., 2017).

    It is biased upwards where there are few images.
    """
    confidence = _probabilities(logits).max(axis=1)
    bins, gaps = confidence_bins(confidence), _correct(logits, labels) - confidence
    return np.sign(np.bincount(bins, gaps, minlength=ECE_BINS))[bins] * gaps


def _log_loss(logits: Logits, labels: Labels) -> Values:
    return -log_softmax(logits.astype(np.float64), axis=1)[np.arange(len(labels)), labels]


def _brier(logits: Logits, labels: Labels) -> Values:
    """Return squared errors of the probabilities, summed over classes, from 0 to 2 (Brier, 1950)."""
    return ((_probabilities(logits) - np.eye(logits.shape[1])[labels]) ** 2).sum(axis=1)


for _metric in (
    Metric("accuracy", "accuracy", _correct, percent=True, proportion=True),
    Metric("top5", "top-5 accuracy", _in_top, percent=True, proportion=True, least_classes=11, selects=False),
    Metric("balanced_accuracy", "balanced accuracy", _balanced, percent=True, score=_balanced_score),
    Metric("macro_f1", "macro F1", _macro_f1, score=_macro_f1_score),
    Metric("auroc", "AUROC", _auroc, score=_auroc_score, every_class=True),
    Metric("ece", "calibration error", _ece, higher_is_better=False, percent=True, selects=False),
    Metric("log_loss", "log loss", _log_loss, higher_is_better=False, bounds=(0.0, math.inf), margin=0.05),
    Metric("brier", "Brier score", _brier, higher_is_better=False, bounds=(0.0, 2.0), margin=0.05, selects=False),
):
    METRICS.register(_metric.name, _metric)
