"""Fingerprints of studies and cells: the hashed settings, key by key, and the hash.

The keys are stored in study directories, and a finished cell whose fingerprint changes is trained again. They are
written out so that classes and attributes can be renamed without changing a hash. A setting added later enters a
record through ``_unless``, which leaves it out at its default, so that finished cells keep their fingerprints.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from pydantic_core import to_jsonable_python

from unfreeze.config.resolve import Cell, Optimizer, Phase, Strategy
from unfreeze.config.schema import (
    BackboneConfig,
    Budget,
    CheckConfig,
    ColumnsConfig,
    EarlyStopping,
    HeadConfig,
    LastStages,
    OptimizerConfig,
    PhaseConfig,
    RegimeConfig,
    ScheduleConfig,
    SplitConfig,
    StrategyConfig,
    StudyConfig,
    ValidationConfig,
)

NOT_HASHED: dict[type, frozenset[str]] = {RegimeConfig: frozenset({"sweep"})}
"""Attributes that enter no record: sweeps are expanded into regimes before anything is hashed."""


def fingerprint(*values: Any) -> str:
    """Return 16 hex digits of the sha256 of JSON data, independent of the order of keys."""
    text = json.dumps(values, sort_keys=True, ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def study_fingerprint(study: StudyConfig) -> str:
    """Return the fingerprint of a study's settings."""
    return fingerprint(study_record(study))


def cell_fingerprint(
    study: StudyConfig,
    cell: Cell,
    candidates: Mapping[str, Strategy],
    weights: Mapping[tuple[str, str], str],
    device: str,
    data: str,
) -> str:
    """Return the fingerprint of a cell's settings, initial weights and images.

    Args:
        study: the study; only the cell's regime and the values of ``compute_record`` are hashed.
        cell: the cell; its strategy and regime are hashed by their settings, not by their names.
        candidates: its resolved strategies, by candidate.
        weights: sha256 of the initial weights, by backbone name and the study's name for the weights.
        device: type of the device that it is trained on.
        data: fingerprint of its images and labels.
    """
    settings = {
        name: strategy_record(strategy)
        # Weights are identified by content, not by path.
        | {"backbone": [strategy.backbone.name, weights[strategy.backbone.name, strategy.backbone.weights]]}
        for name, strategy in candidates.items()
    }
    compute = compute_record(study, device)
    values = [compute["device"], compute["precision"], compute["activations"], compute["metric"]]
    return fingerprint(settings, regime_record(study.regimes[cell.regime]), cell.seed, cell.fold, values, data)


def _unless(default: Any, key: str, value: Any) -> dict[str, Any]:
    """Return an entry of a record, or an empty one if the value is the default."""
    return {} if value == default else {key: value}


# Settings as the study file gives them.


def study_record(study: StudyConfig) -> dict[str, Any]:
    """Return a study's settings as JSON data, as study.json holds them."""
    return {
        "name": study.name,
        "data": study.data,
        "split": split_record(study.split),
        "check": check_record(study.check),
        "tests": dict(study.tests),
        "metric": study.metric,
        "backbone": backbone_record(study.backbone),
        "weights": study.weights,
        "image_size": study.image_size,
        "resize": study.resize,
        "strategies": {name: asked_strategy_record(asked) for name, asked in study.strategies.items()},
        "regimes": {name: regime_record(regime) for name, regime in study.regimes.items()},
        "seeds": list(study.seeds),
        "batch_size": study.batch_size,
        "epochs": study.epochs,
        "early_stopping": stopping_record(study.early_stopping),
        "budget": budget_record(study.budget),
        "device": study.device,
        "precision": study.precision,
        "activations": study.activations,
        **_unless(columns_record(ColumnsConfig()), "columns", columns_record(study.columns)),
        **_unless(None, "labels_from", study.labels_from),
    }


def split_record(split: SplitConfig) -> dict[str, Any]:
    """Return the settings of a split as JSON data."""
    return {"test": split.test, "val": split.val, "group": split.group, "folds": split.folds}


def check_record(check: CheckConfig) -> dict[str, Any]:
    """Return the settings of reading and checking files as JSON data."""
    return {
        "label_conflicts": check.label_conflicts,
        "near_duplicates": check.near_duplicates,
        "truncated": check.truncated,
        "max_set_aside": check.max_set_aside,
        "follow_symlinks": check.follow_symlinks,
        "bands": None if check.bands is None else list(check.bands),
        "bits": check.bits,
        "max_pixels": check.max_pixels,
    }


def columns_record(columns: ColumnsConfig) -> dict[str, Any]:
    """Return the meaning of a table's columns as JSON data."""
    return {
        "path": columns.path,
        "label": list(columns.label) if isinstance(columns.label, tuple) else columns.label,
        "split": columns.split,
        "group": columns.group,
        "root": columns.root,
        "suffix": columns.suffix,
    }


def budget_record(budget: Budget) -> dict[str, Any]:
    """Return a budget as JSON data."""
    return {"disk": budget.disk, "time": budget.time}


def asked_strategy_record(asked: StrategyConfig) -> dict[str, Any]:
    """Return a strategy of the study file as JSON data."""
    return asked_phase_record(asked) | {
        "backbone": None if asked.backbone is None else backbone_record(asked.backbone),
        "weights": asked.weights,
        "image_size": asked.image_size,
        "resize": asked.resize,
        "batch_size": asked.batch_size,
        "early_stopping": stopping_record(asked.early_stopping),
        "head": head_record(asked.head),
        "phases": [asked_phase_record(phase) for phase in asked.phases],
        "seeds": None if asked.seeds is None else list(asked.seeds),
        "tune": to_jsonable_python(asked.tune),
    }


def asked_phase_record(asked: PhaseConfig) -> dict[str, Any]:
    """Return a phase of the study file as JSON data."""
    return {
        "train": None if asked.train is None else train_record(asked.train),
        "epochs": asked.epochs,
        "optimizer": optimizer_record(asked.optimizer),
        "schedule": schedule_record(asked.schedule),
        "batch_norm": asked.batch_norm,
        "reinit": asked.reinit,
        "label_smoothing": asked.label_smoothing,
    }


def regime_record(regime: RegimeConfig) -> dict[str, Any]:
    """Return a regime as JSON data, as cell.json holds it."""
    return {
        "train_per_class": regime.train_per_class,
        "val_per_class": regime.val_per_class,
        "train_fraction": regime.train_fraction,
        "augment": regime.augment,
        "views": regime.views,
        "examples_per_epoch": regime.examples_per_epoch,
        "balance": regime.balance,
        "strict": regime.strict,
        "validation": validation_record(regime.validation),
    }


def validation_record(validation: ValidationConfig) -> dict[str, Any]:
    """Return the views of validation images as JSON data."""
    return {"augment": validation.augment, "examples": validation.examples}


# Resolved settings.


def cell_record(cell: Cell) -> dict[str, Any]:
    """Return a cell as JSON data, for cell.json and plan.json."""
    return {"strategy": cell.strategy, "regime": cell.regime, "seed": cell.seed, "fold": cell.fold}


def compute_record(study: StudyConfig, device: str) -> dict[str, str]:
    """Return the device type and the study-wide settings that results depend on, for cell.json."""
    return {
        "device": device,
        "precision": study.precision,
        "activations": study.activations,
        "metric": study.metric,
    }


def strategy_record(strategy: Strategy) -> dict[str, Any]:
    """Return a candidate's resolved strategy as JSON data, for cell.json."""
    return {
        "backbone": backbone_record(strategy.backbone),
        "image_size": strategy.image_size,
        "resize": strategy.resize,
        "batch_size": strategy.batch_size,
        "head": head_record(strategy.head),
        "phases": [phase_record(phase) for phase in strategy.phases],
        "early_stopping": stopping_record(strategy.early_stopping),
    }


def phase_record(phase: Phase) -> dict[str, Any]:
    """Return a resolved phase as JSON data."""
    return {
        "train": train_record(phase.train),
        "epochs": phase.epochs,
        "optimizer": optimizer_record(phase.optimizer),
        "schedule": schedule_record(phase.schedule),
        "batch_norm": phase.batch_norm,
        "reinit": phase.reinit,
        "label_smoothing": phase.label_smoothing,
    }


# Parts of both.


def backbone_record(backbone: BackboneConfig) -> dict[str, Any]:
    """Return a backbone and the name of its initial weights as JSON data."""
    return {"name": backbone.name, "weights": backbone.weights}


def train_record(train: LastStages | str) -> dict[str, Any] | str:
    """Return what trains as JSON data."""
    return train if isinstance(train, str) else {"last": train.last}


def head_record(head: HeadConfig | str) -> dict[str, Any] | str:
    """Return a head as JSON data."""
    if isinstance(head, str):
        return head
    return {"pool": head.pool, "hidden": list(head.hidden), "dropout": list(head.dropout)}


def optimizer_record(optimizer: OptimizerConfig | Optimizer) -> dict[str, Any]:
    """Return an optimiser as JSON data."""
    return {
        "name": optimizer.name,
        "lr": optimizer.lr,
        "momentum": optimizer.momentum,
        "weight_decay": optimizer.weight_decay,
        "layer_decay": optimizer.layer_decay,
    }


def schedule_record(schedule: ScheduleConfig) -> dict[str, Any]:
    """Return a schedule as JSON data."""
    return {"name": schedule.name, "warmup": schedule.warmup}


def stopping_record(stopping: EarlyStopping | bool | None) -> dict[str, Any] | bool | None:
    """Return early stopping as JSON data; False: off, None: the study's setting."""
    if stopping is None or isinstance(stopping, bool):
        return stopping
    return {
        "monitor": stopping.monitor,
        "patience": stopping.patience,
        "min_delta": stopping.min_delta,
        "restore_best": stopping.restore_best,
    }
