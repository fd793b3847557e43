"""Cross-fit the choice of candidate and epoch: each half of the validation images is predicted by the other's choice.

The validation score of the best epoch or candidate is optimistic on the images that selected it: among equals the
luckiest wins. Cross-fitting (Stone, 1974, Journal of the Royal Statistical Society B 36; the name is that of
Chernozhukov et al., 2018, Econometrics Journal 21) splits the images into two halves, selects on each by the study's
own rule, and scores the selection on the other. As each half selects on half of the images, the score is a little low
where selection helps, and never optimistic.

One bias remains: where early stopping ended a phase, all images have decided how many epochs there are to select from.
The epochs after the best one do not score better for it.
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
    """Predictions of one candidate after each epoch.

    Attributes:
        logits: (epochs, images, classes), float32 or float16; epochs of all phases in order.
        train_loss: (epochs,).
    """

    logits: NDArray[np.floating]
    train_loss: NDArray[np.float64]


def halves(keys: Sequence[str]) -> NDArray[np.bool_]:
    """Split images into two halves; return (images,) True for those of the first.

    An image's half depends on its own key only, so adding or removing other images does not change it.

    Args:
        keys: cluster of each image; images of one cluster (copies of one picture, one group) stay together.
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
    """Return logits (images, classes) float32 of the candidate and epoch that the other half of the images selects.

    A half selects as the study does: of each candidate the epoch that early stopping would restore (the last one
    without ``restore_best``), then the candidate with the best metric there, the first among equals.

    Args:
        tried: the candidates in plan order, without those that diverged; at least one.
        labels: (images,).
        half: (images,) True for images of the first half.
        stopping: early stopping of the study; its patience is ignored, since only trained epochs can be selected.
        metric: metric of the study.

    Returns:
        None where a half is empty, or the metric is undefined for all candidates on a half.
    """
    if not half.any() or half.all():
        return None
    by_first = _selected(tried, labels, half, stopping, metric)
    by_second = _selected(tried, labels, ~half, stopping, metric)
    if by_first is None or by_second is None:
        return None
    return np.where(half[:, None], by_second, by_first)


def _selected(
    tried: Mapping[str, CandidateEpochs],
    labels: Labels,
    images: NDArray[np.bool_],
    stopping: EarlyStopping | None,
    metric: str,
) -> Logits | None:
    """Return the logits of all images (images, classes) by the candidate and epoch that some of them select."""
    reported = [
        candidate.logits[_reported_epoch(candidate, labels, images, stopping, metric)].astype(np.float32)
        for candidate in tried.values()
    ]
    best, selected = math.nan, None
    for score, logits in zip(_scores(metric, np.stack(reported)[:, images], labels[images]), reported, strict=True):
        if is_better(metric, score, best):
            best, selected = score, logits
    return selected


def restored_epoch(values: Sequence[float], rising: bool, min_delta: float) -> int:
    """Return the position of the value that early stopping calls the best; the last one where all are NaN.

    This is the last value that exceeds the best before it by more than ``min_delta``, as in
    ``train.early_stopping.after_epoch``, which works epoch by epoch and lies above this part of the package.
    """
    best, place = math.nan, len(values) - 1
    for position, value in enumerate(values):
        gain = value - best if rising else best - value
        if not math.isnan(value) and (math.isnan(best) or gain > min_delta):
            best, place = value, position
    return place


def _reported_epoch(
    candidate: CandidateEpochs, labels: Labels, images: NDArray[np.bool_], stopping: EarlyStopping | None, metric: str
) -> int:
    """Return the position of the epoch that is reported when these images are monitored."""
    if stopping is None or not stopping.restore_best:
        return len(candidate.logits) - 1
    if stopping.monitor == "train_loss":
        return restored_epoch(candidate.train_loss.tolist(), False, stopping.min_delta)
    monitored = {"val_loss": "log_loss", "val_accuracy": "accuracy", "val_metric": metric}[stopping.monitor]
    values = _scores(monitored, candidate.logits[:, images].astype(np.float32), labels[images])
    return restored_epoch(values, METRICS[monitored].higher_is_better, stopping.min_delta)


def _scores(metric: str, logits: Logits, labels: Labels) -> list[float]:
    """Return the metric of each entry of logits (several, images, classes), NaN where it is undefined."""
    if (
        metric == "accuracy" and np.isfinite(logits).all()
    ):  # vectorised, because simulations call this millions of times
        return (logits.argmax(axis=-1) == labels).mean(axis=-1).tolist()
    return [round(float(per_image(metric, one, labels).mean()), DIGITS) for one in logits]
