"""Scores of validation images that did not choose: each half is predicted by what the other half chose.

A study that keeps the best epoch, or the best of several candidates, by its validation images cannot take the same
images' score of the winner at face value: of many equals the luckiest wins, and its score holds the luck. Cross-fitting
(Stone, 1974, Journal of the Royal Statistical Society B 36; the name is that of Chernozhukov et al., 2018, Econometrics
Journal 21) divides the images into two halves, chooses on each by the study's own rule, and scores the choice on the
other. The score is that of a rule that sees half of the images: where choosing helps it is a little low, never high.

One thing is not made good: how many epochs there are was decided by all images where early stopping ended a phase. The
epochs after the best one score no better for it.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unfreeze.config.schema import EarlyStopping
from unfreeze.metrics import METRICS, Labels, Logits, is_better, per_image
from unfreeze.statistics.selection import DIGITS


@dataclass(frozen=True)
class CandidateEpochs:
    """One candidate's epochs, as the images that choose saw them.

    Attributes:
        logits: (epochs, images, classes), float32 or float16; epochs of all phases in their order.
        train_loss: (epochs,).
    """

    logits: NDArray[np.floating]
    train_loss: NDArray[np.float64]


def halves(keys: Sequence[str]) -> NDArray[np.bool_]:
    """Return (images,) True for images of the first half; about half of the clusters are in it.

    An image's half depends on its own key alone, so no other image that comes or goes moves it.

    Args:
        keys: of each image's cluster; images of one cluster (copies of one picture, one group) stay together.
    """
    digests = (hashlib.blake2b(f"half\x1f{key}".encode("utf-8", "surrogateescape"), digest_size=1) for key in keys)
    return np.array([digest.digest()[0] % 2 == 0 for digest in digests], dtype=np.bool_)


def cross_fitted(
    tried: Mapping[str, CandidateEpochs],
    labels: Labels,
    half: NDArray[np.bool_],
    stopping: EarlyStopping | None,
    metric: str,
) -> Logits | None:
    """Return logits (images, classes) float32, each image's from the candidate and epoch that the other half chose.

    A half chooses as the study does: of each candidate the epoch that early stopping would restore (without it, or
    without ``restore_best``, the last), then the candidate whose metric is best there, the first of equals.

    Args:
        tried: the candidates in the order of the plan, without those that diverged; at least one.
        labels: (images,).
        half: (images,) True for those of the first half.
        stopping: the study's; its patience is not looked at, since epochs that were not trained cannot be chosen.
        metric: the study's.

    Returns:
        None where a half is empty, or the metric of no candidate is defined on it.
    """
    if not half.any() or half.all():
        return None
    by_first = _chosen(tried, labels, half, stopping, metric)
    by_second = _chosen(tried, labels, ~half, stopping, metric)
    if by_first is None or by_second is None:
        return None
    return np.where(half[:, None], by_second, by_first)


def _chosen(
    tried: Mapping[str, CandidateEpochs],
    labels: Labels,
    images: NDArray[np.bool_],
    stopping: EarlyStopping | None,
    metric: str,
) -> Logits | None:
    """Return the logits of all images, (images, classes), by what some of them choose."""
    reported = [one.logits[_epoch(one, labels, images, stopping, metric)].astype(np.float32) for one in tried.values()]
    best, chosen = math.nan, None
    for score, logits in zip(_scores(metric, np.stack(reported)[:, images], labels[images]), reported, strict=True):
        if is_better(metric, score, best):
            best, chosen = score, logits
    return chosen


def restored_epoch(values: Sequence[float], rising: bool, min_delta: float) -> int:
    """Return the position of the value that early stopping calls the best; the last one where none is a number.

    That is the last of those that beat the best before them by more than ``min_delta``, as in
    ``train.early_stopping.after_epoch``, which goes from one epoch to the next and cannot be imported here.
    """
    best, place = math.nan, len(values) - 1
    for position, value in enumerate(values):
        gain = value - best if rising else best - value
        if not math.isnan(value) and (math.isnan(best) or gain > min_delta):
            best, place = value, position
    return place


def _epoch(
    one: CandidateEpochs, labels: Labels, images: NDArray[np.bool_], stopping: EarlyStopping | None, metric: str
) -> int:
    """Return the position of the epoch that is reported where these images are monitored."""
    if stopping is None or not stopping.restore_best:
        return len(one.logits) - 1
    if stopping.monitor == "train_loss":
        return restored_epoch(one.train_loss.tolist(), False, stopping.min_delta)
    monitored = {"val_loss": "log_loss", "val_accuracy": "accuracy", "val_metric": metric}[stopping.monitor]
    values = _scores(monitored, one.logits[:, images].astype(np.float32), labels[images])
    return restored_epoch(values, METRICS[monitored].higher_is_better, stopping.min_delta)


def _scores(metric: str, logits: Logits, labels: Labels) -> list[float]:
    """Return the metric of each of several logits (several, images, classes), NaN where it is not defined."""
    if metric == "accuracy" and np.isfinite(logits).all():  # all at once: simulations ask for millions
        return (logits.argmax(axis=-1) == labels).mean(axis=-1).tolist()
    return [round(float(per_image(metric, one, labels).mean()), DIGITS) for one in logits]
