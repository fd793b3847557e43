"""What a finished cell's predictions say of its model: confusions, class scores, calibration, labels to look at."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.optimize import minimize_scalar
from scipy.spatial.distance import squareform
from scipy.special import softmax
from sklearn.metrics import confusion_matrix

from unfreeze.metrics import ECE_BINS, Labels, Logits, confidence_bins
from unfreeze.metrics import loss as log_loss
from unfreeze.statistics.intervals import wilson_interval
from unfreeze.storage.records import read_table, read_tensors
from unfreeze.storage.study_dir import StudyDir

COLDEST, HOTTEST = 0.05, 20.0
"""Bounds of a temperature; a fit that ends at one of them says that the images do not determine it."""

Counts = NDArray[np.int64]
Shares = NDArray[np.float64]


@dataclass(frozen=True)
class Scored:
    """Images with a model's predictions: ids (n), logits float32 (n, classes), labels int64 (n)."""

    ids: tuple[str, ...]
    logits: Logits
    labels: Labels

    @property
    def probabilities(self) -> Shares:
        """The softmax of the logits, (n, classes)."""
        return softmax(self.logits.astype(np.float64), axis=1)

    @property
    def predicted(self) -> Labels:
        """The class with the largest logit, (n,)."""
        return self.logits.argmax(axis=1)


def read_scored(study: StudyDir, cell: str, classes: list[str]) -> dict[str, Scored]:
    """Return a finished cell's predictions by split: "validation", "test", further test sets; finite ones only."""
    logits, about = read_tensors(study.cell(cell) / "logits.safetensors")
    numbers = {label: number for number, label in enumerate(classes)}
    label_of = read_table(study.path / "catalog.csv").drop_duplicates("id").set_index("id")["label"].map(numbers)
    return {
        split: Scored(tuple(about["ids"][split]), scores, label_of.loc[about["ids"][split]].to_numpy(np.int64))
        for split, scores in logits.items()
        if np.isfinite(scores).all()
    }


def confusion(scored: Scored) -> Counts:
    """Return counts (classes, classes): images of the class of the row that were taken for the class of the column."""
    return confusion_matrix(scored.labels, scored.predicted, labels=np.arange(scored.logits.shape[1]))


def row_shares(counts: Counts) -> Shares:
    """Return the counts as shares of their rows; NaN in rows without an image."""
    with np.errstate(invalid="ignore"):
        return counts / counts.sum(axis=1, keepdims=True)


def class_scores(counts: Counts) -> pd.DataFrame:
    """Return one row per class, in the order of the counts.

    Columns: images; recall (share of the class's images that were found) and precision (share of the images predicted
    as the class that are of it), each with its 95 % Wilson interval in ``_low`` and ``_high``; f1. A share of nothing
    is NaN; F1 is 0 for a class of which no image was found.
    """
    rows = []
    for number, found in enumerate(map(int, np.diagonal(counts))):
        of_class, taken = int(counts[number].sum()), int(counts[:, number].sum())
        f1 = 2 * found / (of_class + taken) if of_class else math.nan
        shares = _share("recall", found, of_class) | _share("precision", found, taken)
        rows.append({"images": of_class, **shares, "f1": f1})
    return pd.DataFrame(rows)


def _share(name: str, part: int, whole: int) -> dict[str, float]:
    """Return part / whole with its Wilson interval, NaN of nothing."""
    share = part / whole if whole else math.nan
    low, high = wilson_interval(share, whole)
    return {name: share, f"{name}_low": low, f"{name}_high": high}


def most_confused(counts: Counts, most: int) -> list[tuple[int, int, int]]:
    """Return (true class, class it was taken for, images), most images first; of equals the larger share first."""
    shares = row_shares(counts)
    pairs = [(int(row), int(column)) for row, column in np.argwhere(counts) if row != column]
    pairs.sort(key=lambda pair: (-counts[pair], -shares[pair]))
    return [(*pair, int(counts[pair])) for pair in pairs[:most]]


def similar_order(counts: Counts) -> list[int]:
    """Return the classes in an order that puts those side by side that are taken for each other.

    Average-linkage clustering on one minus the mean of both directions' row shares, leaves ordered as in Bar-Joseph et
    al. (2001).
    """
    classes = len(counts)
    if classes < 3:
        return list(range(classes))
    shares = np.nan_to_num(row_shares(counts))
    distance = 1 - (shares + shares.T) / 2
    np.fill_diagonal(distance, 0)
    return [int(place) for place in leaves_list(linkage(squareform(distance), "average", optimal_ordering=True))]


def fit_temperature(scored: Scored) -> float:
    """Return the temperature that logits are divided by for the least log loss on these images (Guo et al. 2017).

    It lies between ``COLDEST`` and ``HOTTEST``. The loss is convex in 1 / temperature, so the one minimum is found.
    """

    def loss(log_temperature: float) -> float:
        return log_loss(scored.logits / np.float32(math.exp(log_temperature)), scored.labels)

    fitted = minimize_scalar(loss, bounds=(math.log(COLDEST), math.log(HOTTEST)), method="bounded")
    return math.exp(float(fitted.x))


def at_bound(temperature: float) -> bool:
    """Tell whether a fitted temperature is one of the bounds, within the fit's precision."""
    return not 1.01 * COLDEST < temperature < HOTTEST / 1.01


def scaled(scored: Scored, temperature: float) -> Scored:
    """Return the predictions with logits divided by a temperature; no prediction changes, only its confidence."""
    return Scored(scored.ids, scored.logits / np.float32(temperature), scored.labels)


def reliability(scored: Scored) -> pd.DataFrame:
    """Return one row per bin of confidence that holds images: how confident the model was, and how often it was right.

    Columns: low, high (the bin), images, confidence (mean probability of the predicted class), accuracy with its 95 %
    Wilson interval ``accuracy_low`` and ``accuracy_high``.
    """
    confidence, right = scored.probabilities.max(axis=1), scored.predicted == scored.labels
    bins = confidence_bins(confidence)
    rows = []
    for number in np.unique(bins):
        own = bins == number
        row = {"low": number / ECE_BINS, "high": (number + 1) / ECE_BINS, "images": int(own.sum())}
        row |= {"confidence": float(confidence[own].mean())}
        rows.append(row | _share("accuracy", int(right[own].sum()), int(own.sum())))
    return pd.DataFrame(rows)


def most_wrong(scored: Scored, most: int) -> list[int]:
    """Return the places of the images that were taken for another class, the highest log loss first."""
    own = scored.probabilities[np.arange(len(scored.labels)), scored.labels]
    wrong = np.flatnonzero(scored.predicted != scored.labels)
    return [int(place) for place in wrong[np.argsort(own[wrong], kind="stable")][:most]]


def pooled(scored: Mapping[str, Scored]) -> tuple[Scored, list[str]]:
    """Return validation and test images together, each once, and the split of each."""
    parts = [(split, scored[split]) for split in ("test", "validation") if split in scored]
    ids = [name for _, part in parts for name in part.ids]
    splits = [split for split, part in parts for _ in part.ids]
    _, first = np.unique(ids, return_index=True)
    keep = np.sort(first)
    logits = np.concatenate([part.logits for _, part in parts])
    labels = np.concatenate([part.labels for _, part in parts])
    return Scored(tuple(ids[place] for place in keep), logits[keep], labels[keep]), [splits[place] for place in keep]


def suspects(scored: Scored) -> list[int]:
    """Return the places of images whose label is probably wrong, the least believed label first.

    Confident learning (Northcutt, Jiang and Chuang 2021) as cleanlab does it, pruned by noise rate, ranked by the
    probability of the given label. The predictions must be of images that the model has not been trained on.
    """
    # Heavy (two seconds), and only needed once after a run.
    from cleanlab.filter import find_label_issues

    if len(np.unique(scored.labels)) < 2:
        return []
    found = find_label_issues(scored.labels, scored.probabilities, return_indices_ranked_by="self_confidence", n_jobs=1)
    return [int(place) for place in found]
