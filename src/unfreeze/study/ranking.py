"""Ranking set of a cell: predict all validation images by models that did not choose them.

Candidates and epochs that validation images have chosen look better on these than they are. So each half of them
chooses once more, by the same rule, and predicts the other half (cross-fitting); the pool's other images chose nothing,
and the cell's model predicts them. The model itself is the one that all validation images chose.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from unfreeze.config.resolve import Strategy, expected_epochs
from unfreeze.data.catalog import rows_of
from unfreeze.data.split import cluster_keys
from unfreeze.metrics import Labels, Logits
from unfreeze.statistics.crossfit import CandidateEpochs, cross_fitted, halves
from unfreeze.study.cell import CellSpec

MOST_NUMBERS = 32 * 2**20
"""Logits of validation images that a cell keeps while it trains, 128 MiB of them: of a larger one no choice is paid
for."""


@dataclass(frozen=True)
class KeptEpochs:
    """A trained candidate's history, and the logits of its validation images by epoch, where they were kept."""

    history: list[dict[str, float]]
    validation: Mapping[str, Tensor]


def chooses(spec: CellSpec) -> bool:
    """Tell whether validation images choose anything in a cell: a candidate, an epoch, or when to stop."""
    stops = [one.early_stopping for one in spec.candidates.values()]
    return len(spec.candidates) > 1 or any(stop is not None and stop.monitor != "train_loss" for stop in stops)


def keeps_validation(spec: CellSpec) -> bool:
    """Tell whether a cell's candidates keep what cross-fitting takes.

    It takes one plain view of each validation image, one way of stopping for all candidates, an epoch that is restored
    wherever training stops early, and validation images that report nothing (``split.val: test`` has no others).
    """
    seen = spec.regime.validation
    plain = seen.augment == "none" and seen.examples is None and spec.study.split.val != "test"
    stops = [one.early_stopping for one in spec.candidates.values()]
    restored = all(stop == stops[0] and (stop is None or stop.restore_best) for stop in stops)
    return plain and restored and chooses(spec) and kept_numbers(spec) <= MOST_NUMBERS


def kept_numbers(spec: CellSpec) -> int:
    """Return how many logits a cell's candidates keep if nothing stops them early."""
    each = len(spec.selection.validation) * len(spec.catalog.classes)
    return each * sum(_kept_epochs(strategy) for strategy in spec.candidates.values())


def _kept_epochs(strategy: Strategy) -> int:
    return expected_epochs(strategy) if strategy.early_stopping else 1


def ranking_logits(
    spec: CellSpec, plain: Logits, labels: Labels, tried: Mapping[str, KeptEpochs]
) -> tuple[Logits, bool]:
    """Return the logits that a cell is ranked by, and whether its choices on validation are paid for.

    Args:
        job: the cell.
        plain: (n, classes) of its model, for the plain views of ``job.selection.ranking``.
        labels: (n,) theirs.
        tried: its trained candidates by name, in the order in which they were asked for.
    """
    if not chooses(spec):
        return plain, True
    place = {name: position for position, name in enumerate(spec.selection.ranking)}
    chose = np.array([place[name] for name in spec.selection.validation], dtype=np.int64)
    found = _cross_fitted(spec, labels[chose], tried) if keeps_validation(spec) else None
    if found is None:
        return plain, False
    logits = plain.copy()
    logits[chose] = found
    return logits, True


def _cross_fitted(spec: CellSpec, labels: Labels, tried: Mapping[str, KeptEpochs]) -> Logits | None:
    stopping = next(iter(spec.candidates.values())).early_stopping
    each = {name: _tried(one, all_epochs=stopping is not None) for name, one in tried.items()}
    whole = {name: one for name, one in each.items() if one is not None}
    if len(whole) < len(each):  # resumed from a state that did not keep them
        return None
    half = halves(cluster_keys(rows_of(spec.catalog, spec.selection.validation)))
    return cross_fitted(whole, labels, half, stopping, spec.study.metric)


def _tried(one: KeptEpochs, all_epochs: bool) -> CandidateEpochs | None:
    """Return a candidate's epochs, all of its history or the last one alone; None where some were not kept."""
    epochs = one.history if all_epochs else one.history[-1:]
    if not all(str(row["epoch"]) in one.validation for row in epochs):
        return None
    logits = np.stack([one.validation[str(row["epoch"])].numpy() for row in epochs])
    return CandidateEpochs(logits, np.array([row["train_loss"] for row in epochs], dtype=np.float64))
