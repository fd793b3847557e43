"""Finish a cell: predict with the chosen candidate, score, and write its folder."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unfreeze import metrics
from unfreeze.activations.batches import BatchSource
from unfreeze.config.identity import cell_record, regime_record, strategy_record
from unfreeze.model.network import trained_state
from unfreeze.storage.records import sealed, write_json, write_tensors
from unfreeze.study.cell import CellSpec
from unfreeze.study.environment import conditions
from unfreeze.study.network_plan import NetworkPlan
from unfreeze.study.ranking import KeptEpochs, ranking_logits
from unfreeze.train.candidate_run import TrainedCandidate
from unfreeze.train.device import Compute
from unfreeze.train.evaluate import predict
from unfreeze.train.phase_run import Diverged

CELL_FILES = ("cell.json", "history.csv", "logits.safetensors", "model.safetensors", "ranking.safetensors")
"""What a finished cell has beside its result.json."""


@dataclass(frozen=True)
class Times:
    """Seconds of a cell: a mean epoch of the chosen candidate, all its candidates, and its share of shared work."""

    per_epoch: float
    total: float
    shared: float


Logits = dict[str, tuple[tuple[str, ...], metrics.Logits, metrics.Labels]]
"""By split: ids, logits (n, classes), labels (n,)."""


@dataclass(frozen=True)
class ChosenCandidate:
    """The candidate that a cell's validation chose.

    Attributes:
        name: of the candidate.
        trained: it.
        network: what it is made of.
        tried: all trained candidates by name, in the order in which they were asked for.
    """

    name: str
    trained: TrainedCandidate
    network: NetworkPlan
    tried: Mapping[str, KeptEpochs]


@dataclass(frozen=True)
class _Ranked:
    """Logits of the ranking set, whether choices on validation are paid for, and the study's metric of them."""

    logits: metrics.Logits
    paid: bool
    metric: float


def finish_cell(
    spec: CellSpec,
    chosen: ChosenCandidate,
    supply: BatchSource,
    folder: Path,
    compute: Compute,
    times: Times,
    warnings: Callable[[], Sequence[str]],
) -> dict[str, Any]:
    """Report a cell's chosen candidate on the validation pool and the tests, and write its files; result.json last.

    Args:
        job: the cell.
        chosen: its chosen candidate.
        supply: gives its images.
        folder: where its files are written.
        compute: device and precision.
        times: what the cell took so far.
        warnings: gives those that its record repeats, when everything is predicted.

    Returns:
        Its row of results.csv by column name.

    Raises:
        Diverged: a prediction is not a finite number.
    """
    started = time.perf_counter()
    trained = chosen.trained
    pool, labels, logits = _predicted(spec, chosen, supply, compute)
    found, paid = ranking_logits(spec, pool, labels, chosen.tried)
    ranked = _Ranked(found, paid, metrics.score(spec.study.metric, found, labels))
    row = _result(spec, chosen, logits, ranked)
    row["seconds_per_epoch"] = times.per_epoch
    row["seconds_per_image"] = _seconds_per_image(chosen, compute)
    _write(spec, folder, trained, logits, conditions(compute))
    about = {"ids": {"ranking": list(spec.selection.ranking)}, "paid": paid}
    write_tensors(folder / "ranking.safetensors", {"ranking": ranked.logits}, about)
    row["seconds_total"] = times.total + time.perf_counter() - started
    row["seconds_shared"] = times.shared
    files = sealed(folder, CELL_FILES)
    said = [*spec.selection.warnings, *warnings()]
    write_json(folder / "result.json", {**row, "warnings": said, "files": files})
    return row


REST = "the other validation images"

TIMED = 4
"""Times that one image is sent through a network; the first time is slow on any machine."""


def _predicted(
    spec: CellSpec, chosen: ChosenCandidate, supply: BatchSource, compute: Compute
) -> tuple[metrics.Logits, metrics.Labels, Logits]:
    """Predict every image of the validation pool and the tests in its plain view.

    Returns:
        Logits and labels of the pool, then those of the validation images and of each test set.
    """
    selection, trained, strategy = spec.selection, chosen.trained, spec.candidates[chosen.name]
    chose = set(selection.validation)
    # On their own, so that a validation image's logits are those of the epoch to the last bit, whatever the pool holds.
    rest = tuple(name for name in selection.ranking if name not in chose)
    predicted: Logits = {}
    for split, ids in {"validation": selection.validation, REST: rest, **selection.tests}.items():
        if ids:
            batches = supply.plain(strategy, supply.images(ids), trained.cut)
            channels_last = trained.cut < len(trained.backbone.stages)
            scores, labels = predict(trained.network, batches, compute, channels_last, trained.micro_batch)
            if not np.isfinite(scores).all():
                raise Diverged(f"the predictions of {split} are not all finite numbers")
            predicted[split] = ids, scores, labels
    parts = [predicted["validation"], *([predicted.pop(REST)] if rest else [])]
    place = {name: position for position, name in enumerate(name for ids, _, _ in parts for name in ids)}
    order = np.array([place[name] for name in selection.ranking], dtype=np.int64)
    scores, labels = (np.concatenate([part[kind] for part in parts])[order] for kind in (1, 2))
    return scores, labels, predicted


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


def _result(spec: CellSpec, chosen: ChosenCandidate, logits: Logits, ranked: _Ranked) -> dict[str, Any]:
    cell, metric, name, trained = spec.cell, spec.study.metric, chosen.name, chosen.trained
    strategy, best = spec.candidates[name], trained.best
    tests = {split: (scores, labels) for split, (_, scores, labels) in logits.items() if split != "validation"}
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
        "train_accuracy": best["train_accuracy"],
        "train_loss": best["train_loss"],
        "val_accuracy": best["val_accuracy"],
        "val_loss": best["val_loss"],
        "test_accuracy": _number(tests, "test", "accuracy"),
        "test_loss": _number(tests, "test", "log_loss"),
        "val_metric": _finite(best["val_metric"]),
        "test_metric": _number(tests, "test", metric),
        "seconds_per_epoch": None,
        "seconds_total": None,
        "seconds_shared": 0.0,
        "params_total": trained.params_total,
        "params_trained": trained.params_trained,
        "stopped_by": trained.stopped_by,
    }
    for split in tests:
        if split != "test":
            row[f"test_{split}_accuracy"] = _number(tests, split, "accuracy")
            row[f"test_{split}_metric"] = _number(tests, split, metric)
    row["ranking_metric"], row["n_ranking"] = _finite(ranked.metric), len(ranked.logits)
    row["flops_per_image"] = chosen.network.flops
    return row


def _number(tests: dict[str, tuple[metrics.Logits, metrics.Labels]], split: str, metric: str) -> float | None:
    return _finite(metrics.score(metric, *tests[split])) if split in tests else None


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _write(
    spec: CellSpec,
    folder: Path,
    trained: TrainedCandidate,
    logits: Logits,
    made_with: Mapping[str, Any],
) -> None:
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
    ids = {split: list(names) for split, (names, _, _) in logits.items()}
    write_tensors(
        folder / "logits.safetensors", {split: scores for split, (_, scores, _) in logits.items()}, {"ids": ids}
    )
    write_model(folder, trained_state(trained.network, trained.backbone), trained.prefix_sha256, trained.backbone.name)


def write_model(folder: Path, trained: Mapping[str, Tensor], prefix_sha256: str, backbone: str) -> None:
    """Write a cell's trained tensors, with the hash of the frozen ones that they go with."""
    about = {"prefix_sha256": prefix_sha256, "backbone": backbone}
    write_tensors(folder / "model.safetensors", {name: tensor.numpy() for name, tensor in trained.items()}, about)
