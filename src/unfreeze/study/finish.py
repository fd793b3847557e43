"""Finish a cell: predict with the chosen candidate, score, and write its folder.

The score that ranks recipes is measured on all validation images, each predicted by a model that it did not choose.
Candidates and epochs that validation images have chosen look better on these than they are. So each half of them
chooses once more, by the same rule, and predicts the other half (cross-fitting); the pool's other images chose nothing,
and the cell's model predicts them. The model itself is the one that all validation images chose.
"""

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unfreeze import metrics
from unfreeze.activations.batches import BatchSource
from unfreeze.config.identity import cell_record, regime_record, strategy_record
from unfreeze.config.resolve import Strategy, expected_epochs
from unfreeze.data.catalog import rows_of
from unfreeze.data.split import cluster_keys
from unfreeze.model.network import trained_state
from unfreeze.statistics.crossfit import CandidateEpochs, cross_fitted, halves
from unfreeze.storage.records import sealed, write_json, write_tensors
from unfreeze.study.cell import CellSpec
from unfreeze.study.network_plan import NetworkPlan
from unfreeze.train.candidate_run import TrainedCandidate
from unfreeze.train.device import Compute, conditions
from unfreeze.train.evaluate import predict
from unfreeze.train.phase_run import Diverged, EpochRow

CELL_FILES = ("cell.json", "history.csv", "logits.safetensors", "model.safetensors", "ranking.safetensors")
"""What a finished cell has beside its result.json."""


@dataclass(frozen=True)
class Times:
    """Seconds of a cell: a mean epoch of the chosen candidate, all its candidates, and its share of shared work."""

    per_epoch: float
    total: float
    shared: float


@dataclass(frozen=True)
class Predictions:
    """Ids of images, their logits (n, classes) and labels (n,)."""

    ids: tuple[str, ...]
    logits: metrics.Logits
    labels: metrics.Labels

    def score(self, metric: str) -> float | None:
        """Return a metric of them; None where it is not a finite number."""
        return _finite(metrics.score(metric, self.logits, self.labels))


@dataclass(frozen=True)
class KeptEpochs:
    """History of a trained candidate, and the logits of its validation images by epoch, where they were kept."""

    history: Sequence[EpochRow]
    validation: Mapping[str, Tensor]


@dataclass(frozen=True)
class ChosenCandidate:
    """The candidate that a cell's validation chose.

    Attributes:
        name: of the candidate.
        trained: its network and results.
        network: its stages and cuts.
        tried: all trained candidates by name, in the study's order.
    """

    name: str
    trained: TrainedCandidate
    network: NetworkPlan
    tried: Mapping[str, KeptEpochs]


@dataclass(frozen=True)
class _Ranking:
    """Logits of the ranking set, their score, and whether choices on validation are corrected for (``paid``)."""

    logits: metrics.Logits
    score: float | None
    paid: bool


def finish_cell(
    spec: CellSpec,
    chosen: ChosenCandidate,
    supply: BatchSource,
    folder: Path,
    compute: Compute,
    times: Times,
    warnings: Callable[[], Iterable[str]],
) -> dict[str, Any]:
    """Report a cell's chosen candidate on the validation pool and the tests, and write its files; result.json last.

    Args:
        spec: the cell.
        chosen: its chosen candidate.
        supply: gives its images.
        folder: where its files are written.
        compute: device and precision.
        times: what the cell took so far.
        warnings: returns those that result.json repeats; called when everything is predicted.

    Returns:
        Its row of results.csv by column name.

    Raises:
        Diverged: a prediction is not a finite number.
    """
    started = time.perf_counter()
    ranking_set, predictions = _predict(spec, chosen, supply, compute)
    logits, paid = ranking_logits(spec, ranking_set, chosen.tried)
    score = _finite(metrics.score(spec.study.metric, logits, ranking_set.labels))
    row = _result(spec, chosen, predictions, _Ranking(logits, score, paid))
    row["seconds_per_epoch"] = times.per_epoch
    row["seconds_per_image"] = _seconds_per_image(chosen, compute)
    _write(spec, folder, chosen.trained, predictions, conditions(compute))
    about = {"ids": {"ranking": list(spec.selection.ranking)}, "paid": paid}
    write_tensors(folder / "ranking.safetensors", {"ranking": logits}, about)
    row["seconds_total"] = times.total + time.perf_counter() - started
    row["seconds_shared"] = times.shared
    files = sealed(folder, CELL_FILES)
    write_json(folder / "result.json", {**row, "warnings": [*spec.selection.warnings, *warnings()], "files": files})
    return row


REST = "the other validation images"

TIMED = 4
"""Times that one image is sent through a network; the first time is slow on any machine."""


def _predict(
    spec: CellSpec, chosen: ChosenCandidate, supply: BatchSource, compute: Compute
) -> tuple[Predictions, dict[str, Predictions]]:
    """Predict every image of the ranking set and the test sets in its plain view.

    Returns:
        Predictions of the ranking set; then those of the validation images and of each test set, by name.
    """
    selection, trained, strategy = spec.selection, chosen.trained, spec.candidates[chosen.name]
    validation = set(selection.validation)
    # On their own, so that a validation image's logits are those of the epoch to the last bit, whatever the pool holds.
    rest = tuple(name for name in selection.ranking if name not in validation)
    predictions: dict[str, Predictions] = {}
    for split, ids in {"validation": selection.validation, REST: rest, **selection.tests}.items():
        if ids:
            batches = supply.plain(strategy, supply.images(ids), trained.cut)
            channels_last = trained.cut < len(trained.backbone.stages)
            logits, labels = predict(trained.network, batches, compute, channels_last, trained.micro_batch)
            if not np.isfinite(logits).all():
                raise Diverged(f"the predictions of {split} are not all finite numbers")
            predictions[split] = Predictions(ids, logits, labels)
    parts = [predictions["validation"], *([predictions.pop(REST)] if rest else [])]
    place = {name: position for position, name in enumerate(name for part in parts for name in part.ids)}
    order = np.array([place[name] for name in selection.ranking], dtype=np.int64)
    logits = np.concatenate([part.logits for part in parts])[order]
    labels = np.concatenate([part.labels for part in parts])[order]
    return Predictions(selection.ranking, logits, labels), predictions


def _seconds_per_image(chosen: ChosenCandidate, compute: Compute) -> float:
    """Time the whole network on one image: the fastest of a few, since a busy machine makes the others slow."""
    trained, size = chosen.trained, chosen.network.strategy.image_size
    image = compute.move(torch.zeros(1, 3, size, size))
    # Here, since what moves in inference mode can never be trained.
    stages = [stage.module.to(compute.device).eval() for stage in trained.backbone.stages[: trained.cut]]
    trained.network.eval()
    seconds = math.inf
    for _ in range(TIMED):
        started = time.perf_counter()
        with torch.inference_mode(), compute.forward_pass():
            inputs = image
            for stage in stages:
                inputs = stage(inputs)
            trained.network(inputs).float().cpu()  # which waits for the device
        seconds = min(seconds, time.perf_counter() - started)
    return seconds


def _result(
    spec: CellSpec, chosen: ChosenCandidate, predictions: Mapping[str, Predictions], ranking: _Ranking
) -> dict[str, Any]:
    """Return a cell's row of results.csv, without its seconds."""
    cell, metric, name, trained = spec.cell, spec.study.metric, chosen.name, chosen.trained
    strategy, best = spec.candidates[name], trained.best
    tests = {split: found for split, found in predictions.items() if split != "validation"}
    test = tests.get("test")
    row: dict[str, Any] = {
        "cell": cell.id,
        "strategy": cell.strategy,
        "regime": cell.regime,
        "seed": cell.seed,
        "fold": cell.fold,
        "backbone": strategy.backbone.name,
        "image_size": strategy.image_size,
        "status": "finished",
        "chosen": name,
        "n_train": len(spec.selection.train),
        "n_val": len(spec.selection.validation),
        "n_test": len(spec.selection.tests.get("test", ())),
        "epochs": len(trained.history),
        "best_epoch": trained.best_epoch,
        "train_accuracy": best.train_accuracy,
        "train_loss": best.train_loss,
        "val_accuracy": best.val_accuracy,
        "val_loss": best.val_loss,
        "test_accuracy": test and test.score("accuracy"),
        "test_loss": test and test.score("log_loss"),
        "val_metric": _finite(best.val_metric),
        "test_metric": test and test.score(metric),
        "seconds_per_epoch": None,
        "seconds_total": None,
        "seconds_shared": 0.0,
        "params_total": trained.params_total,
        "params_trained": trained.params_trained,
        "stopped_by": trained.stopped_by,
    }
    for split, found in tests.items():
        if split != "test":
            row[f"test_{split}_accuracy"] = found.score("accuracy")
            row[f"test_{split}_metric"] = found.score(metric)
    row["ranking_metric"], row["n_ranking"] = ranking.score, len(ranking.logits)
    row["flops_per_image"] = chosen.network.flops
    return row


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _write(
    spec: CellSpec,
    folder: Path,
    trained: TrainedCandidate,
    predictions: Mapping[str, Predictions],
    made_with: Mapping[str, Any],
) -> None:
    """Write a cell's record, predictions and model."""
    weights = trained.backbone.weights
    write_json(
        folder / "cell.json",
        {
            **cell_record(spec.cell),
            "cell": spec.cell.id,
            "fingerprint": spec.fingerprint,
            "data_fingerprint": spec.data_fingerprint,
            "candidates": {name: strategy_record(strategy) for name, strategy in spec.candidates.items()},
            "regime_settings": regime_record(spec.regime),
            "compute": spec.compute,
            "weights": {"source": weights.source, "sha256": weights.sha256},
            "classes": list(spec.catalog.classes),
            "made_with": made_with,
        },
    )
    logits = {split: found.logits for split, found in predictions.items()}
    ids = {split: list(found.ids) for split, found in predictions.items()}
    write_tensors(folder / "logits.safetensors", logits, {"ids": ids})
    write_model(folder, trained_state(trained.network, trained.backbone), trained.prefix_sha256, trained.backbone.name)


def write_model(folder: Path, trained: Mapping[str, Tensor], prefix_sha256: str, backbone: str) -> None:
    """Write a cell's trained tensors, with the hash of the frozen ones that they go with."""
    about = {"prefix_sha256": prefix_sha256, "backbone": backbone}
    write_tensors(folder / "model.safetensors", {name: tensor.numpy() for name, tensor in trained.items()}, about)


MOST_NUMBERS = 32 * 2**20
"""Numbers in the logits of validation images that a cell keeps while it trains, 128 MiB; a larger cell keeps none, so
that its choices are not corrected for."""


def chooses(spec: CellSpec) -> bool:
    """Tell whether validation images choose anything in a cell: a candidate, an epoch, or when to stop."""
    stops = [one.early_stopping for one in spec.candidates.values()]
    return len(spec.candidates) > 1 or any(stop is not None and stop.monitor != "train_loss" for stop in stops)


def keeps_validation(spec: CellSpec) -> bool:
    """Tell whether a cell's candidates keep the logits that cross-fitting takes.

    It takes one plain view of each validation image, one way of stopping for all candidates, an epoch that is restored
    wherever training stops early, and validation images that report nothing (``split.val: test`` has no others).
    """
    seen = spec.regime.validation
    plain = seen.augment == "none" and seen.examples is None and spec.study.split.val != "test"
    stops = [one.early_stopping for one in spec.candidates.values()]
    restored = all(stop == stops[0] and (stop is None or stop.restore_best) for stop in stops)
    return plain and restored and chooses(spec) and kept_numbers(spec) <= MOST_NUMBERS


def kept_numbers(spec: CellSpec) -> int:
    """Return how many numbers a cell's candidates keep if nothing stops them early."""
    each = len(spec.selection.validation) * len(spec.catalog.classes)
    return each * sum(_kept_epochs(strategy) for strategy in spec.candidates.values())


def _kept_epochs(strategy: Strategy) -> int:
    return expected_epochs(strategy) if strategy.early_stopping else 1


def ranking_logits(
    spec: CellSpec, ranking_set: Predictions, tried: Mapping[str, KeptEpochs]
) -> tuple[metrics.Logits, bool]:
    """Return the logits that a cell is ranked by, and whether its choices on validation are corrected for.

    Args:
        spec: the cell.
        ranking_set: what its model predicts.
        tried: its trained candidates by name, in the study's order.
    """
    if not chooses(spec):
        return ranking_set.logits, True
    place = {name: position for position, name in enumerate(spec.selection.ranking)}
    validation = np.array([place[name] for name in spec.selection.validation], dtype=np.int64)
    found = _cross_fitted(spec, ranking_set.labels[validation], tried) if keeps_validation(spec) else None
    if found is None:
        return ranking_set.logits, False
    logits = ranking_set.logits.copy()
    logits[validation] = found
    return logits, True


def _cross_fitted(spec: CellSpec, labels: metrics.Labels, tried: Mapping[str, KeptEpochs]) -> metrics.Logits | None:
    stopping = next(iter(spec.candidates.values())).early_stopping
    epochs = dict[str, CandidateEpochs]()
    for name, kept in tried.items():
        found = _candidate_epochs(kept, all_epochs=stopping is not None)
        if found is None:  # resumed from a state that did not keep them
            return None
        epochs[name] = found
    half = halves(cluster_keys(rows_of(spec.catalog, spec.selection.validation)))
    return cross_fitted(epochs, labels, half, stopping, spec.study.metric)


def _candidate_epochs(kept: KeptEpochs, all_epochs: bool) -> CandidateEpochs | None:
    """Return the epochs of a candidate, all of its history or the last one alone; None where some were not kept."""
    rows = kept.history if all_epochs else kept.history[-1:]
    if not all(str(row.epoch) in kept.validation for row in rows):
        return None
    logits = np.stack([kept.validation[str(row.epoch)].numpy() for row in rows])
    return CandidateEpochs(logits, np.array([row.train_loss for row in rows], dtype=np.float64))
