"""Frozen stages keep every bit while others train: parameters and buffers."""

from pathlib import Path
from typing import Any

import pytest

from tests.support.worlds import tiny_study
from unfreeze import Study
from unfreeze.model.backbone import load_backbone
from unfreeze.model.network import frozen_state, tensors_hash
from unfreeze.storage.records import read_tensors
from unfreeze.study import group
from unfreeze.study.finish import ChosenCandidate

LR = {"name": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 0.1}
STRATEGIES: dict[str, Any] = {
    "head": {"train": "head", "optimizer": LR},
    "deep_head": {"train": "head", "head": {"hidden": [8], "dropout": [0.5]}},
    "last": {"train": {"last": 1}, "optimizer": LR},
    "share": {"train": {"last": 0.5}, "optimizer": {"name": "adamw", "lr": 1e-3, "layer_decay": 0.7}},
    "statistics": {"train": {"last": 2}, "batch_norm": "train"},
    "reinit": {"train": {"last": 1}, "reinit": True},
    "phased": {"phases": [{"train": "head", "epochs": 1}, {"train": {"last": 2}, "epochs": 1, "optimizer": LR}]},
    "tuned": {"train": {"last": 1}, "optimizer": LR, "tune": {"optimizer.lr": [0.1, 0.01]}},
}
FROZEN = {"head": 5, "deep_head": 5, "last": 4, "share": 3, "statistics": 3, "reinit": 4, "phased": 3, "tuned": 4}


@pytest.mark.parametrize("disk", ["1KB", "1GB"])  # frozen stages run live, or their outputs are stored
def test_frozen_stages_stay_as_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, disk: str) -> None:
    after: dict[str, tuple[int, str, bool]] = {}
    finish = group.finish_cell

    def spy(spec: Any, chosen: ChosenCandidate, *rest: Any) -> Any:
        trained = chosen.trained
        frozen = trained.backbone.stages[: trained.cut]
        training = any(module.training for stage in frozen for module in stage.module.modules())
        hashed = tensors_hash(frozen_state(trained.backbone, trained.cut))
        after[spec.cell.strategy] = trained.cut, hashed, training
        return finish(spec, chosen, *rest)

    monkeypatch.setattr(group, "finish_cell", spy)
    monkeypatch.setenv("UNFREEZE_CACHE", str(tmp_path / "cache"))
    study = tiny_study(tmp_path, strategies=STRATEGIES, budget={"disk": disk}, batch_size=5)
    results = Study(**study).run(tmp_path / "out", workers=0)
    assert set(results.table["status"]) == {"finished"}
    fresh = load_backbone("test_resnet", str(tmp_path / "weights.safetensors"), 32, seed=0)
    assert {name: cut for name, (cut, _, _) in after.items()} == FROZEN
    for name, (cut, hashed, training) in after.items():
        assert hashed == tensors_hash(frozen_state(fresh, cut)), name
        assert not training, name
        tensors, about = read_tensors(results.path / "cells" / f"{name}.small.s0" / "model.safetensors")
        assert about["prefix_sha256"] == hashed, name
        assert not set(tensors) & set(frozen_state(fresh, cut)), name
    moved, _ = read_tensors(results.path / "cells" / "statistics.small.s0" / "model.safetensors")
    own = frozen_state(fresh, 5)
    changed = [name for name in moved if name in own and (moved[name] != own[name].numpy()).any()]
    assert any(name.endswith("running_mean") for name in changed)  # which the test would notice below the cut
