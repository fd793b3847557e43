"""Entries registered at run time can be used: a study runs with a new entry of each kind."""

import math
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from tests.support.registering import temporarily
from tests.support.worlds import tiny_study, write_photographs
from unfreeze import Study
from unfreeze.activations import pytorch_engine
from unfreeze.activations.engine import Engine, EngineKind, Settings
from unfreeze.activations.engines import ENGINES
from unfreeze.config.choices import OptimizerDefaults
from unfreeze.config.resolve import Optimizer
from unfreeze.data.sources import SOURCES, known_classes, open_source
from unfreeze.data.sources.source import DataRequest, Source, SourceKind
from unfreeze.errors import UserError
from unfreeze.inputs.augment import AUGMENTATIONS, Augmentation, Preprocessing, plain
from unfreeze.metrics import METRICS, Labels, Logits, Metric, Values
from unfreeze.model.backbone import Backbone
from unfreeze.model.network import Frozen
from unfreeze.storage.records import read_json
from unfreeze.train.heads import HEADS, POOLINGS
from unfreeze.train.optimizers import OPTIMIZERS, SCHEDULES, OptimizerKind


def _signs(groups: list[dict[str, Any]], settings: Optimizer) -> torch.optim.Optimizer:
    return torch.optim.Rprop(groups, lr=settings.lr)


def _halving(step: int, steps: int) -> float:
    return math.ldexp(1.0, -step)


def _inverted(preprocessing: Preprocessing) -> Augmentation:
    return partial(_invert, preprocessing)


def _invert(preprocessing: Preprocessing, base: np.ndarray, generator: torch.Generator) -> np.ndarray:
    return 255 - plain(base, preprocessing)


def _scaled(backbone: Backbone, classes: int, generator: torch.Generator) -> nn.Sequential:
    return nn.Sequential(backbone.pool, nn.BatchNorm1d(backbone.features), nn.Linear(backbone.features, classes))


class _First(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, :, 0, 0]


def _corner(backbone: Backbone) -> tuple[nn.Module, int]:
    return _First(), backbone.features


def _offers(device: torch.device, precision: str, threads: int) -> list[Settings]:
    return [{"name": "made_up", "version": "1", "precision": precision, "batch": 2, "threads": threads}]


def _engine(settings: Settings, stages: Frozen, shape: tuple[int, ...], device: torch.device) -> Engine:
    return pytorch_engine.Batched(stages, device, int(settings["batch"]), "float32")


def _toys(request: DataRequest) -> Source:
    folder = request.base / request.data.removeprefix("toys:")
    return replace(open_source(str(folder), {}, request.base), kind="toys")


def _in_top_two(logits: Logits, labels: Labels) -> Values:
    return (np.argsort(-logits, axis=1)[:, :2] == labels[:, None]).any(axis=1).astype(np.float64)


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Register an entry ``made_up`` of each kind."""
    defaults = OptimizerDefaults(head_lr=0.01, stages_lr=0.001, fresh_lr=0.01, weight_decay=0.0)
    for name in list(ENGINES):
        monkeypatch.delitem(ENGINES, name)
    with ExitStack() as stack:
        stack.enter_context(temporarily(OPTIMIZERS, "made_up", OptimizerKind("Signs", defaults, _signs, lambda _: 2)))
        stack.enter_context(temporarily(SCHEDULES, "made_up", _halving))
        stack.enter_context(temporarily(AUGMENTATIONS, "made_up", _inverted))
        stack.enter_context(temporarily(HEADS, "made_up", _scaled))
        stack.enter_context(temporarily(POOLINGS, "made_up", _corner))
        stack.enter_context(temporarily(ENGINES, "made_up", EngineKind("made_up", _offers, _engine, 0.0, True)))
        stack.enter_context(temporarily(METRICS, "made_up", Metric("made_up", "made-up metric", _in_top_two)))
        stack.enter_context(temporarily(SOURCES, "made_up", SourceKind("toys:FOLDER", _toys, word="toys:", classes=3)))
        yield


OPTIMIZER = {"optimizer": "made_up", "schedule": {"name": "made_up", "warmup": 0}}


def asked(folder: Path) -> dict[str, Any]:
    write_photographs(folder / "shapes")
    return tiny_study(
        folder,
        data="toys:shapes",
        metric="made_up",
        strategies={
            "named": {"train": "head", "head": "made_up", **OPTIMIZER},
            "pooled": {"train": {"last": 1}, "head": {"pool": "made_up", "hidden": [4]}, **OPTIMIZER},
        },
        regimes={"small": {"train_per_class": 5, "val_per_class": 2, "augment": "made_up", "views": 2}},
    )


def test_a_study_runs_with_a_registered_entry_of_each_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made_up: None
) -> None:
    monkeypatch.chdir(tmp_path)
    study = Study(**asked(tmp_path))
    assert known_classes(study.config, tmp_path) == 3
    results = study.run(tmp_path / "out", workers=0)
    assert list(results.table["status"]) == ["finished"] * 2
    assert (results.table["test_metric"] >= results.table["test_accuracy"]).all()
    assert set(results.comparisons["metric"]) == {"made_up"}
    assert "Test made-up metric" in results.report().read_text(encoding="utf-8")

    record = read_json(results.path / "study.json")
    assert [found["engine"]["name"] for found in record["engines"].values()] == ["made_up"]
    assert record["study"]["data"] == "toys:shapes"
    phase = read_json(results.path / "cells" / "named.small.s0" / "cell.json")["candidates"][""]["phases"][0]
    assert phase["optimizer"] == {"name": "made_up", "lr": 0.01, "momentum": 0.9, "weight_decay": 0, "layer_decay": 1}
    history = pd.read_csv(results.path / "cells" / "named.small.s0" / "history.csv")
    steps = 4  # 15 images in batches of 4
    assert list(history["lr"]) == [0.01 * 0.5 ** (epoch * steps - 1) for epoch in (1, 2)]


def test_registered_names_are_listed_in_messages(tmp_path: Path, made_up: None) -> None:
    values = asked(tmp_path)
    values["strategies"]["named"] |= {"optimizer": "made_op", "schedule": "made_op", "head": {"pool": "made_op"}}
    with pytest.raises(UserError) as caught:
        Study(**values)
    assert caught.value.given == (
        "the study has 3 problems:"
        "\n  - strategies.named.optimizer.name: should be 'sgd', 'adam', 'adamw' or 'made_up', but is 'made_op'; "
        "did you mean 'made_up'?"
        "\n  - strategies.named.schedule.name: should be 'constant', 'cosine' or 'made_up', but is 'made_op'; "
        "did you mean 'made_up'?"
        "\n  - strategies.named.head.pool: should be 'own', 'avg', 'max', 'flatten' or 'made_up', but is 'made_op'; "
        "did you mean 'made_up'?"
    )
    values["strategies"]["named"] = {"train": "head", "head": "made_op"}
    values["regimes"]["small"]["augment"] = "made_op"
    with pytest.raises(UserError) as caught:
        Study(**values)
    assert "strategies.named.head: should be 'linear', 'native' or 'made_up', but is 'made_op'" in caught.value.given
    assert (
        "augment: should be 'none', 'flip_crop', 'article', 'trivial', 'rand' or 'made_up', but" in caught.value.given
    )


def test_a_registered_source_is_listed_where_data_is_missing(tmp_path: Path, made_up: None) -> None:
    with pytest.raises(UserError) as caught:
        open_source("nothing", {}, tmp_path)
    assert caught.value.expected.endswith("a .csv or .parquet manifest, hf:owner/name, food101, or toys:FOLDER")


def test_an_unregistered_name_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="strategies.named.optimizer.name: should be 'sgd', 'adam' or 'adamw', but is"):
        Study(**asked(tmp_path))
