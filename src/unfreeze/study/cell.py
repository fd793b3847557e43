"""Run one cell: its images, its candidates, the chosen one's test scores, its files; result.json last."""

import hashlib
import json
import math
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from unfreeze import metrics
from unfreeze.config.fingerprint import fingerprint, plain
from unfreeze.config.resolve import Cell, Strategy, candidates, expected_epochs
from unfreeze.config.study import RegimeConfig, StudyConfig
from unfreeze.data.catalog import Catalog, paths_of, rows_of
from unfreeze.data.order import examples_after
from unfreeze.data.pixels import DecodedPictures
from unfreeze.data.regimes import Selection
from unfreeze.data.views import Preprocessing, ViewDataset
from unfreeze.model.backbone import Backbone
from unfreeze.model.network import trained_state
from unfreeze.results.tables import HISTORY_COLUMNS
from unfreeze.store import StudyDir, write_json, write_table, write_tensors
from unfreeze.study.candidate import Images, Trained, epoch_ends, train_candidate
from unfreeze.study.events import CellFinished, CellStarted, Emit, EpochEnded, Progress
from unfreeze.train.batches import EvaluationBatches, ImageSet
from unfreeze.train.device import Compute
from unfreeze.train.evaluate import predict
from unfreeze.train.loop import Diverged


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
    def data_fingerprint(self) -> str:
        """Identity of the images used: contents and labels of each split, in order."""
        ids = [*self.selection.train, *self.selection.validation]
        ids += [identifier for test in self.selection.tests.values() for identifier in test]
        rows = rows_of(self.catalog, ids)
        text = json.dumps([rows["sha256"].tolist(), rows["label"].tolist(), self.catalog.classes])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @cached_property
    def fingerprint(self) -> str:
        """Identity of settings, initial weights and images: a finished cell with another one is stale."""
        settings = {
            name: plain(strategy) | {"backbone": [strategy.backbone.name, self.weights[weights_key(strategy)]]}
            for name, strategy in self.candidates.items()
        }
        compute = [self.device, self.study.precision, self.study.metric]
        return fingerprint(settings, self.regime, self.cell.seed, self.cell.fold, compute, self.data_fingerprint)


def weights_key(strategy: Strategy) -> tuple[str, str]:
    """Return what names a strategy's initial weights."""
    return strategy.backbone.name, strategy.backbone.weights


def run_cell(job: Job, store: StudyDir, compute: Compute, workers: int, emit: Emit) -> dict[str, Any]:
    """Train a cell's candidates, choose by validation, report on the tests, and write its files.

    Returns:
        Its row of results.csv by column name.

    Raises:
        UserError: weights, a cut or the output directory are not to be had.
        Diverged: the loss of a candidate became infinite or NaN.
    """
    started = time.perf_counter()
    cell, folder = job.cell, store.cell(job.cell.id)
    shutil.rmtree(folder, ignore_errors=True)  # of a cell that failed, or was run with other settings
    emit(CellStarted(cell.id, sum(examples_of(job, strategy) for strategy in job.candidates.values())))
    history: list[dict[str, Any]] = []
    try:
        name, trained, warnings = _best_candidate(job, compute, workers, history, emit)
    finally:
        if history:
            write_table(folder / "history.csv", pd.DataFrame(history, columns=list(HISTORY_COLUMNS)))
    logits = _logits(job, job.candidates[name], trained, compute, workers)
    row = _result(job, name, trained, logits)
    row["seconds_per_epoch"] = float(np.mean([entry["seconds"] for entry in trained.history]))
    _write(job, folder, trained, logits)
    row["seconds_total"] = time.perf_counter() - started
    write_json(folder / "result.json", {**row, "warnings": [*job.selection.warnings, *warnings]})
    emit(CellFinished(cell.id, row))
    return row


def _best_candidate(
    job: Job, compute: Compute, workers: int, history: list[dict[str, Any]], emit: Emit
) -> tuple[str, Trained, list[str]]:
    """Train every candidate, adding to the history; return the best by validation, and a warning for each diverged."""
    study, cell = job.study, job.cell
    chosen: tuple[str, Trained] | None = None
    diverged: dict[str, Diverged] = {}
    drawn = 0
    for name, strategy in job.candidates.items():

        def on_step(epoch: int, examples: int, name: str = name, before: int = drawn) -> None:
            emit(Progress(cell.id, name, epoch, before + examples))

        def on_epoch(row: dict[str, Any], name: str = name) -> None:
            history.append({"candidate": name, **row})
            emit(EpochEnded(cell.id, history[-1]))

        drawn += examples_of(job, strategy)
        try:
            trained = train_candidate(
                strategy=strategy,
                regime=job.regime,
                metric=study.metric,
                seed=cell.seed,
                classes=len(job.catalog.classes),
                images=partial(_images, job, strategy),
                compute=compute,
                workers=workers,
                on_step=on_step,
                on_epoch=on_epoch,
            )
        except Diverged as error:
            diverged[name] = error
            continue
        best = None if chosen is None else chosen[1].best["val_metric"]
        if best is None or metrics.is_better(study.metric, trained.best["val_metric"], best):
            chosen = name, trained
    if chosen is None:
        raise next(iter(diverged.values()))
    return *chosen, [f"candidate {name} diverged: {error}" for name, error in diverged.items()]


def examples_of(job: Job, strategy: Strategy) -> int:
    """Return how many examples a candidate draws if nothing stops it early."""
    images = len(job.selection.train)
    ends = epoch_ends(images, strategy.batch_size, job.regime, expected_epochs(strategy))
    return examples_after(images, strategy.batch_size, ends[-1])


def _images(job: Job, strategy: Strategy, backbone: Backbone) -> Images:
    regime = job.regime
    return Images(
        train=_image_set(job, strategy, backbone, job.selection.train, regime.augment),
        validation=_image_set(job, strategy, backbone, job.selection.validation, regime.validation.augment),
    )


def _image_set(job: Job, strategy: Strategy, backbone: Backbone, ids: tuple[str, ...], augment: str) -> ImageSet:
    rows = rows_of(job.catalog, ids)
    labels = {label: number for number, label in enumerate(job.catalog.classes)}
    weights = backbone.weights
    preprocessing = Preprocessing(
        image_size=strategy.image_size,
        resize=strategy.resize,
        mean=weights.mean,
        std=weights.std,
        interpolation=weights.interpolation,
        crop_share=weights.crop_share,
    )
    pictures = DecodedPictures(paths_of(job.catalog, ids), preprocessing.base)
    views = ViewDataset(pictures, rows["sha256"].tolist(), preprocessing, augment, job.cell.seed)
    return ImageSet(views, torch.tensor([labels[label] for label in rows["label"]], dtype=torch.int64))


def _logits(
    job: Job, strategy: Strategy, trained: Trained, compute: Compute, workers: int
) -> dict[str, tuple[tuple[str, ...], metrics.Logits, metrics.Labels]]:
    """Predict every validation and test image in its plain view: by split, ids, logits (n, classes), labels (n,)."""
    predicted = {}
    for split, ids in {"validation": job.selection.validation, **job.selection.tests}.items():
        if ids:
            images = _image_set(job, strategy, trained.backbone, ids, "none")
            logits, labels = predict(trained.network, EvaluationBatches(images, workers), compute)
            predicted[split] = (ids, logits, labels)
    return predicted


def _result(
    job: Job,
    name: str,
    trained: Trained,
    logits: dict[str, tuple[tuple[str, ...], metrics.Logits, metrics.Labels]],
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
    logits: dict[str, tuple[tuple[str, ...], metrics.Logits, metrics.Labels]],
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
            "weights": {"source": weights.source, "sha256": weights.sha256},
            "classes": list(job.catalog.classes),
        },
    )
    ids = {split: list(names) for split, (names, _, _) in logits.items()}
    write_tensors(
        folder / "logits.safetensors", {split: scores for split, (_, scores, _) in logits.items()}, {"ids": ids}
    )
    state = {name: tensor.numpy() for name, tensor in trained_state(trained.network, trained.backbone).items()}
    about = {"prefix_sha256": trained.prefix_hash, "backbone": trained.backbone.name}
    write_tensors(folder / "model.safetensors", state, about)
