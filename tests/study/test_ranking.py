"""Ranking set: the whole validation pool, no image predicted by a model that it chose."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from tests.support.worlds import tiny_study
from unfreeze import Results, Study, metrics
from unfreeze.storage.records import read_json, read_table, read_tensors
from unfreeze.study import finish
from unfreeze.train.phase_run import EpochRow

ADAM = {"name": "adam", "lr": 1e-2}
PLAIN = {"train": "head", "optimizer": ADAM}
TUNED = {"train": "head", "tune": {"optimizer.lr": [1e-4, 1e-2, 1e-1]}}
EARLY = {"train": "head", "optimizer": ADAM, "epochs": 4, "early_stopping": {"patience": 2}}
LAST = {**EARLY, "early_stopping": {"patience": 2, "restore_best": False}}
SMALL = {"small": {"train_per_class": 4, "val_per_class": 1}}


def run(folder: Path, **values: Any) -> Results:
    asked: dict[str, Any] = {"regimes": SMALL, "split": {"test": 0.2, "val": 0.3}} | values
    return Study(**tiny_study(folder, **asked)).run(folder / "out", workers=0)


def ranked(results: Results, cell: str) -> tuple[np.ndarray, list[str], bool]:
    logits, about = read_tensors(results.path / "cells" / cell / "ranking.safetensors")
    return logits["ranking"], about["ids"]["ranking"], about["paid"]


def validated(results: Results, cell: str) -> tuple[np.ndarray, list[str]]:
    logits, about = read_tensors(results.path / "cells" / cell / "logits.safetensors")
    return logits["validation"], about["ids"]["validation"]


def labels(results: Results, ids: list[str]) -> np.ndarray:
    catalog = read_table(results.path / "catalog.csv").set_index("id")
    return catalog.loc[ids, "label"].map({"circle": 0, "square": 1, "triangle": 2}).to_numpy(np.int64)


def test_the_whole_pool_is_predicted_whatever_the_regime_validates_on(tmp_path: Path) -> None:
    results = run(tmp_path, strategies={"plain": PLAIN})
    logits, ids, paid = ranked(results, "plain.small.s0")
    splits = read_table(results.path / "splits.csv")
    assert sorted(ids) == sorted(splits.loc[splits["split"] == "validation", "id"])
    own, validation = validated(results, "plain.small.s0")
    assert len(validation) == 3 < len(ids)
    assert paid and np.array_equal(logits[[ids.index(name) for name in validation]], own)
    row = results.table.iloc[0]
    assert list(results.table.columns[-4:]) == ["ranking_metric", "n_ranking", "flops_per_image", "seconds_per_image"]
    assert row["n_ranking"] == len(ids) and row["n_val"] == 3
    assert row["ranking_metric"] == pytest.approx(metrics.score("accuracy", logits, labels(results, ids)))
    assert row["flops_per_image"] > 0 and 0 < row["seconds_per_image"] < row["seconds_total"]


@pytest.mark.parametrize("strategy", [TUNED, EARLY, {**TUNED, **EARLY}], ids=["tuned", "early", "both"])
def test_choices_on_validation_are_cross_fitted(
    tmp_path: Path, strategy: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}
    real = finish.cross_fitted

    def spy(tried: Any, *rest: Any) -> Any:
        seen["tried"], seen["half"] = tried, rest[1]
        return real(tried, *rest)

    monkeypatch.setattr(finish, "cross_fitted", spy)
    results = run(tmp_path, strategies={"one": strategy}, regimes={"all": {"train_per_class": 4, "val_per_class": 2}})
    logits, ids, paid = ranked(results, "one.all.s0")
    own, validation = validated(results, "one.all.s0")
    assert paid
    chose = [ids.index(name) for name in validation]
    outside = [place for place in range(len(ids)) if place not in chose]
    assert outside
    history: pd.DataFrame = results.history
    assert {name: len(one.logits) for name, one in seen["tried"].items()} == (
        history.groupby("candidate").size().to_dict()
        if "early_stopping" in strategy
        else dict.fromkeys(seen["tried"], 1)
    )
    kept = np.concatenate([one.logits for one in seen["tried"].values()])  # (all epochs, images, classes)
    for place, name in enumerate(validation):  # each image's logits are some epoch's, the same for its whole half
        assert any(np.array_equal(logits[ids.index(name)], epoch[place]) for epoch in kept)
    assert np.isin(own, kept).all()  # the model's plain predictions are those that its epoch's validation gave


@pytest.mark.parametrize(
    ("values", "paid"),
    [
        ({"strategies": {"one": LAST}}, False),
        (
            {"strategies": {"one": EARLY}, "regimes": {"small": {**SMALL["small"], "validation": {"examples": 9}}}},
            False,
        ),
        ({"strategies": {"one": EARLY}, "split": {"val": "test"}}, False),
        ({"strategies": {"one": {**EARLY, "early_stopping": {"monitor": "train_loss"}}}}, True),
    ],
    ids=["the last epoch after a stop", "several views", "validation on test", "stopped by the training loss"],
)
def test_choices_that_cannot_be_cross_fitted_are_recorded(tmp_path: Path, values: dict[str, Any], paid: bool) -> None:
    results = run(tmp_path, **values)
    assert ranked(results, "one.small.s0")[2] is paid


def test_too_many_logits_are_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finish, "MOST_NUMBERS", 3 * 3 * 4 - 1)
    results = run(tmp_path, strategies={"one": EARLY})
    assert ranked(results, "one.small.s0")[2] is False


@pytest.mark.usefixtures("with_report")
def test_the_answer_and_the_shipped_cell_agree(tmp_path: Path) -> None:
    results = run(tmp_path, strategies={"plain": PLAIN}, regimes={**SMALL, "full": {}}, seeds=2)
    assert results.best_cell == "plain.full.s0"
    explained = read_json(results.path / "explain" / "explain.json")
    assert explained["cell"] == "plain.full.s0"


@pytest.mark.parametrize("from_epoch", [1, 2, 4])
def test_a_candidate_that_kept_only_its_last_epochs_is_not_cross_fitted(from_epoch: int) -> None:
    """As one that an earlier version began and this one ended."""
    history = [EpochRow(0, epoch, epoch, 0.1, 0.5, 0.5, 0.5, 0.5, 0.5, 0.0, epoch) for epoch in (1, 2, 3, 4)]
    kept = {str(epoch): torch.zeros(2, 3) for epoch in range(from_epoch, 5)}
    tried = finish._candidate_epochs(finish.KeptEpochs(history, kept), all_epochs=True)
    assert (tried is not None) == (from_epoch == 1)
    last = finish._candidate_epochs(finish.KeptEpochs(history, kept), all_epochs=False)
    assert last is not None and len(last.logits) == 1


def test_timing_an_image_leaves_frozen_stages_that_can_be_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tensors that move to a device in inference mode could not."""
    seen: list[bool] = []
    real = torch.nn.Module.to

    def spy(module: torch.nn.Module, *arguments: Any, **named: Any) -> torch.nn.Module:
        seen.append(torch.is_inference_mode_enabled())
        return real(module, *arguments, **named)

    monkeypatch.setattr(torch.nn.Module, "to", spy)
    run(tmp_path, strategies={"plain": PLAIN})
    assert seen and not any(seen)
