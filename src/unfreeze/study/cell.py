"""One cell: what its numbers depend on, the chosen candidate's test scores, its files; result.json last."""

import hashlib
import json
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from unfreeze import metrics
from unfreeze.config.fingerprint import fingerprint, plain
from unfreeze.config.resolve import Cell, Strategy, candidates, expected_epochs
from unfreeze.config.study import RegimeConfig, StudyConfig
from unfreeze.data.catalog import Catalog, keys_of, rows_of
from unfreeze.data.order import examples_after
from unfreeze.data.regimes import Selection
from unfreeze.model.network import trained_state
from unfreeze.store import StudyDir, sealed, write_json, write_tensors
from unfreeze.study.candidate import Trained, epoch_ends
from unfreeze.study.environment import conditions
from unfreeze.study.needs import Shas
from unfreeze.study.supply import Supply
from unfreeze.train.device import Compute
from unfreeze.train.evaluate import predict
from unfreeze.train.loop import Diverged

CELL_FILES = ("cell.json", "history.csv", "logits.safetensors", "model.safetensors")
"""What a finished cell has beside its result.json."""


@dataclass(frozen=True)
class Job:
    """Everything that a cell's numbers depend on, and nothing else."""

    cell: Cell
    study: StudyConfig
    catalog: Catalog
    selection: Selection
    weights: Mapping[tuple[str, str], str]
    """The sha256 of initial weights, by backbone and what the study calls them."""
    device: str

    @property
    def regime(self) -> RegimeConfig:
        """The cell's regime."""
        return self.study.regimes[self.cell.regime]

    @cached_property
    def candidates(self) -> dict[str, Strategy]:
        """The cell's candidates by name."""
        return candidates(self.study, self.cell.strategy)

    @cached_property
    def train(self) -> tuple[str, ...]:
        """The ids that a pass draws: under ``balance: oversample`` those of rarer classes several times."""
        if self.regime.balance != "oversample":
            return self.selection.train
        counts = self._class_counts
        most = max(counts.values())
        labels = rows_of(self.catalog, self.selection.train)["label"]
        return tuple(
            name
            for name, label in zip(self.selection.train, labels, strict=True)
            for _ in range(round(most / counts[label]))
        )

    @cached_property
    def class_weights(self) -> tuple[float, ...] | None:
        """The weight of each class in the training loss under ``balance: weights``, 1 on average over the images."""
        if self.regime.balance != "weights":
            return None
        counts = self._class_counts
        images, classes = len(self.selection.train), self.catalog.classes
        return tuple(images / (len(classes) * counts[label]) for label in classes)

    @property
    def _class_counts(self) -> Counter[str]:
        return Counter(rows_of(self.catalog, self.selection.train)["label"])

    @cached_property
    def data_fingerprint(self) -> str:
        """Identity of the images used: pictures and labels of each split, in order."""
        ids = [*self.selection.train, *self.selection.validation]
        ids += [identifier for test in self.selection.tests.values() for identifier in test]
        rows = rows_of(self.catalog, ids)
        text = json.dumps([keys_of(self.catalog, ids), rows["label"].tolist(), self.catalog.classes])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @cached_property
    def shas(self) -> Shas:
        """What names the pictures of its images, see ``catalog.keys_of``."""
        chosen = self.selection
        tests = [identifier for test in chosen.tests.values() for identifier in test]
        found = (keys_of(self.catalog, ids) for ids in (self.train, chosen.validation, tests))
        train, validation, reported = (tuple(shas) for shas in found)
        return Shas(train, validation, reported)

    @cached_property
    def fingerprint(self) -> str:
        """Identity of settings, initial weights and images: a finished cell with another one is stale."""
        settings = {
            name: plain(strategy) | {"backbone": [strategy.backbone.name, self.weights[weights_key(strategy)]]}
            for name, strategy in self.candidates.items()
        }
        compute = list(self.compute.values())
        return fingerprint(settings, self.regime, self.cell.seed, self.cell.fold, compute, self.data_fingerprint)

    @property
    def compute(self) -> dict[str, str]:
        """What of the whole study its numbers depend on."""
        study = self.study
        return {
            "device": self.device,
            "precision": study.precision,
            "activations": study.activations,
            "metric": study.metric,
        }


@dataclass(frozen=True)
class Times:
    """Seconds of a cell: a mean epoch of the chosen candidate, all its candidates, and its share of shared work."""

    per_epoch: float
    total: float
    shared: float


def weights_key(strategy: Strategy) -> tuple[str, str]:
    """Return what names a strategy's initial weights."""
    return strategy.backbone.name, strategy.backbone.weights


def examples_of(job: Job, strategy: Strategy) -> int:
    """Return how many examples a candidate draws if nothing stops it early."""
    images = len(job.train)
    ends = epoch_ends(images, strategy.batch_size, job.regime, expected_epochs(strategy))
    return examples_after(images, strategy.batch_size, ends[-1])


Logits = dict[str, tuple[tuple[str, ...], metrics.Logits, metrics.Labels]]
"""By split: ids, logits (n, classes), labels (n,)."""


def finish_cell(
    job: Job,
    name: str,
    trained: Trained,
    supply: Supply,
    store: StudyDir,
    compute: Compute,
    times: Times,
    warnings: Callable[[], Sequence[str]],
) -> dict[str, Any]:
    """Report a cell's chosen candidate on validation and tests, and write its files; result.json last.

    Args:
        job: the cell.
        name: of the chosen candidate.
        trained: that candidate.
        supply: gives its images.
        store: the study directory.
        compute: device and precision.
        times: what the cell took so far.
        warnings: gives those that its record repeats, when everything is predicted.

    Returns:
        Its row of results.csv by column name.

    Raises:
        Diverged: a prediction is not a finite number.
    """
    started = time.perf_counter()
    logits = _logits(job, job.candidates[name], trained, supply, compute)
    row = _result(job, name, trained, logits)
    row["seconds_per_epoch"] = times.per_epoch
    _write(job, store.cell(job.cell.id), trained, logits, conditions(compute))
    row["seconds_total"] = times.total + time.perf_counter() - started
    row["seconds_shared"] = times.shared
    files = sealed(store.cell(job.cell.id), CELL_FILES)
    said = [*job.selection.warnings, *warnings()]
    write_json(store.cell(job.cell.id) / "result.json", {**row, "warnings": said, "files": files})
    return row


def _logits(job: Job, strategy: Strategy, trained: Trained, supply: Supply, compute: Compute) -> Logits:
    """Predict every validation and test image in its plain view."""
    predicted = {}
    for split, ids in {"validation": job.selection.validation, **job.selection.tests}.items():
        if ids:
            batches = supply.plain(strategy, supply.images(ids), trained.cut)
            channels_last = trained.cut < len(trained.backbone.stages)
            scores, labels = predict(trained.network, batches, compute, channels_last, trained.room)
            if not np.isfinite(scores).all():
                raise Diverged(f"the predictions of {split} are not all finite numbers")
            predicted[split] = ids, scores, labels
    return predicted


def _result(
    job: Job,
    name: str,
    trained: Trained,
    logits: Logits,
) -> dict[str, Any]:
    cell, metric, best = job.cell, job.study.metric, trained.best
    strategy = job.candidates[name]
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
        "n_train": len(job.selection.train),
        "n_val": len(job.selection.validation),
        "n_test": len(job.selection.tests.get("test", ())),
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
    return row


def _number(tests: dict[str, tuple[metrics.Logits, metrics.Labels]], split: str, metric: str) -> float | None:
    return _finite(metrics.score(metric, *tests[split])) if split in tests else None


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _write(
    job: Job,
    folder: Path,
    trained: Trained,
    logits: Logits,
    made_with: Mapping[str, Any],
) -> None:
    weights = trained.backbone.weights
    write_json(
        folder / "cell.json",
        {
            **plain(job.cell),
            "cell": job.cell.id,
            "fingerprint": job.fingerprint,
            "data_fingerprint": job.data_fingerprint,
            "candidates": plain(job.candidates),
            "regime_settings": plain(job.regime),
            "compute": job.compute,
            "weights": {"source": weights.source, "sha256": weights.sha256},
            "classes": list(job.catalog.classes),
            "made_with": made_with,
        },
    )
    ids = {split: list(names) for split, (names, _, _) in logits.items()}
    write_tensors(
        folder / "logits.safetensors", {split: scores for split, (_, scores, _) in logits.items()}, {"ids": ids}
    )
    write_model(folder, trained_state(trained.network, trained.backbone), trained.prefix_hash, trained.backbone.name)


def write_model(folder: Path, trained: Mapping[str, Tensor], prefix_hash: str, backbone: str) -> None:
    """Write a cell's trained tensors, with the hash of the frozen ones that they go with."""
    about = {"prefix_sha256": prefix_hash, "backbone": backbone}
    write_tensors(folder / "model.safetensors", {name: tensor.numpy() for name, tensor in trained.items()}, about)
