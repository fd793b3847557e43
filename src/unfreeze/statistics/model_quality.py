"""Analyse the predictions of one model: confusion matrix, scores per class, calibration, mistakes and label issues."""

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
"""Bounds of a temperature; a fit that ends at one of them means that the images do not determine it."""

Counts = NDArray[np.int64]
Shares = NDArray[np.float64]


@dataclass(frozen=True)
class ScoredImages:
    """A model's predictions for labelled images: ids (n), logits float32 (n, classes), labels int64 (n)."""

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


def read_scored(study: StudyDir, cell: str, classes: list[str]) -> dict[str, ScoredImages]:
    """Read a finished cell's predictions by split: "validation", "test", further test sets; only finite ones."""
    tensors, metadata = read_tensors(study.cell(cell) / "logits.safetensors")
    numbers = {label: number for number, label in enumerate(classes)}
    label_of = read_table(study.path / "catalog.csv").drop_duplicates("id").set_index("id")["label"].map(numbers)
    return {
        split: ScoredImages(
            tuple(metadata["ids"][split]), logits, label_of.loc[metadata["ids"][split]].to_numpy(np.int64)
        )
        for split, logits in tensors.items()
        if np.isfinite(logits).all()
    }


def confusion(scored: ScoredImages) -> Counts:
    """Return the confusion matrix (classes, classes): rows are labels, columns predictions."""
    return confusion_matrix(scored.labels, scored.predicted, labels=np.arange(scored.logits.shape[1]))


def row_shares(counts: Counts) -> Shares:
    """Return the counts as shares of their rows; NaN in rows without images."""
    with np.errstate(invalid="ignore"):
        return counts / counts.sum(axis=1, keepdims=True)


def class_scores(counts: Counts) -> pd.DataFrame:
    """Return one row per class, in the order of the counts.

    Columns: images; recall and precision, each with its 95 % Wilson interval in ``_low`` and ``_high``; f1. Recall is
    NaN for a class without images, precision for a class that is never predicted.
    """
    rows = []
    for number, found in enumerate(map(int, np.diagonal(counts))):
        of_class, predicted = int(counts[number].sum()), int(counts[:, number].sum())
        f1 = 2 * found / (of_class + predicted) if of_class else math.nan
        shares = _share("recall", found, of_class) | _share("precision", found, predicted)
        rows.append({"images": of_class, **shares, "f1": f1})
    return pd.DataFrame(rows)


def _share(name: str, part: int, whole: int) -> dict[str, float]:
    """Return part / whole with its Wilson interval, NaN where whole is 0."""
    share = part / whole if whole else math.nan
    low, high = wilson_interval(share, whole)
    return {name: share, f"{name}_low": low, f"{name}_high": high}


def most_confused(counts: Counts, most: int) -> list[tuple[int, int, int]]:
    """Return (label, prediction, images) of the largest mistakes in the confusion matrix, by images, then by share."""
    shares = row_shares(counts)
    pairs = [(int(row), int(column)) for row, column in np.argwhere(counts) if row != column]
    pairs.sort(key=lambda pair: (-counts[pair], -shares[pair]))
    return [(*pair, int(counts[pair])) for pair in pairs[:most]]


def similar_order(counts: Counts) -> list[int]:
    """Order the classes so that those that are confused with each other are adjacent.

    Average-linkage clustering on one minus the mean of both row shares, with the leaf order of Bar-Joseph et al.
    (2001).
    """
    classes = len(counts)
    if classes < 3:
        return list(range(classes))
    shares = np.nan_to_num(row_shares(counts))
    distance = 1 - (shares + shares.T) / 2
    np.fill_diagonal(distance, 0)
    return [int(place) for place in leaves_list(linkage(squareform(distance), "average", optimal_ordering=True))]


def fit_temperature(scored: ScoredImages) -> float:
    """Return the temperature that minimises the log loss of the images when it divides the logits (Guo et al. 2017).

    It lies between ``COLDEST`` and ``HOTTEST``. The loss is convex in 1 / temperature, so the minimum is global.
    """

    def loss(log_temperature: float) -> float:
        return log_loss(scored.logits / np.float32(math.exp(log_temperature)), scored.labels)

    fitted = minimize_scalar(loss, bounds=(math.log(COLDEST), math.log(HOTTEST)), method="bounded")
    return math.exp(float(fitted.x))


def is_at_bound(temperature: float) -> bool:
    """Tell whether a fitted temperature is one of its bounds, within the precision of the fit."""
    return not 1.01 * COLDEST < temperature < HOTTEST / 1.01


def with_temperature(scored: ScoredImages, temperature: float) -> ScoredImages:
    """Divide the logits by a temperature, which changes probabilities but no predicted class."""
    return ScoredImages(scored.ids, scored.logits / np.float32(temperature), scored.labels)


def reliability(scored: ScoredImages) -> pd.DataFrame:
    """Return the reliability diagram: mean confidence and accuracy per bin of confidence, for bins that hold images.

    Columns: low, high (bounds of the bin), images, confidence (mean probability of the predicted class), accuracy with
    its 95 % Wilson interval ``accuracy_low`` and ``accuracy_high``.
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


def worst_mistakes(scored: ScoredImages, most: int) -> list[int]:
    """Return the positions of misclassified images, the highest log loss first."""
    own = scored.probabilities[np.arange(len(scored.labels)), scored.labels]
    wrong = np.flatnonzero(scored.predicted != scored.labels)
    return [int(place) for place in wrong[np.argsort(own[wrong], kind="stable")][:most]]


def pooled(scored: Mapping[str, ScoredImages]) -> tuple[ScoredImages, list[str]]:
    """Return validation and test images together, each once, with the split of each."""
    parts = [(split, scored[split]) for split in ("test", "validation") if split in scored]
    ids = [name for _, part in parts for name in part.ids]
    splits = [split for split, part in parts for _ in part.ids]
    _, first = np.unique(ids, return_index=True)
    keep = np.sort(first)
    logits = np.concatenate([part.logits for _, part in parts])
    labels = np.concatenate([part.labels for _, part in parts])
    return ScoredImages(tuple(ids[place] for place in keep), logits[keep], labels[keep]), [
        splits[place] for place in keep
    ]


def label_issues(scored: ScoredImages) -> list[int]:
    """Return the positions of images whose label is probably wrong, the lowest probability of the label first.

    Confident learning (Northcutt, Jiang and Chuang 2021) by cleanlab, pruned by noise rate. The model must not have
    been trained on the images.
    """
    # The import takes two seconds, and a run needs it once, at its end.
    from cleanlab.filter import find_label_issues

    if len(np.unique(scored.labels)) < 2:
        return []
    found = find_label_issues(scored.labels, scored.probabilities, return_indices_ranked_by="self_confidence", n_jobs=1)
    return [int(place) for place in found]
