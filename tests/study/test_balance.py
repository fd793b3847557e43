"""Rare classes weigh more, or are drawn more often."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.support.finished import computed, numbers
from tests.support.pictures import catalog
from tests.support.worlds import tiny_study, write_photographs
from unfreeze import Results, Study
from unfreeze.config.resolve import cells
from unfreeze.config.schema import StudyConfig
from unfreeze.data.subset import Selection
from unfreeze.study.cell import CellSpec

HEAD = {"train": "head", "optimizer": {"lr": 1e-2}}
LAST = {"train": {"last": 1}}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNFREEZE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """Circles are rare: of 12 pictures 5 are left."""
    root = write_photographs(tmp_path / "photographs")
    for path in sorted((root / "circle").iterdir())[5:]:
        path.unlink()
    return root


def run(folder: Path, out: str, balance: str, **values: Any) -> Results:
    regime = {"balance": balance, **values.pop("regime", {})}
    asked = {"strategies": {"head": HEAD, "last": LAST}, "regimes": {"all": regime}, **values}
    return Study(**tiny_study(folder, **asked)).run(folder / out, workers=0)


def history(results: Results, cell: str = "head.all.s0") -> pd.DataFrame:
    return pd.read_csv(results.path / "cells" / cell / "history.csv")


def trained(results: Results) -> dict[str, int]:
    splits = pd.read_csv(results.path / "splits.csv").set_index("id")["all.s0"]
    labels = pd.read_csv(results.path / "catalog.csv").set_index("id")["label"]
    return labels[splits.index[splits == "train"]].value_counts().to_dict()


def test_oversampled_each_class_is_drawn_about_as_often(tmp_path, photographs):
    results = run(tmp_path, "over", "oversample")
    counts = trained(results)
    most = max(counts.values())
    expected = sum(count * round(most / count) for count in counts.values())
    assert counts["circle"] < most / 1.5
    assert history(results)["examples"].tolist() == [expected, 2 * expected]
    assert set(results.table["n_train"]) == {sum(counts.values())}


def test_a_class_weighs_as_much_as_another_however_few_its_images_are():
    counts = {"a": 40, "b": 10, "c": 30}
    rows = [
        {"sha256": f"{label}{n}", "label": label, "id": f"{label}{n}"} for label in counts for n in range(counts[label])
    ]
    chosen = Selection(tuple(row["id"] for row in rows), (), {}, ())
    study = StudyConfig(
        data="x", backbone="test_resnet", strategies={"head": HEAD}, regimes={"all": {"balance": "weights"}}
    )
    (cell,) = cells(study)
    weights = CellSpec(cell, study, catalog(rows), chosen, {}, {}, "cpu").class_weights
    assert weights is not None
    assert [weight * count for weight, count in zip(weights, counts.values(), strict=True)] == pytest.approx(
        [80 / 3] * 3
    )


def test_weighted_the_loss_differs_and_the_draws_do_not(tmp_path, photographs):
    plain, weighted = history(run(tmp_path, "plain", "none")), history(run(tmp_path, "weighted", "weights"))
    assert plain["examples"].tolist() == weighted["examples"].tolist()
    assert plain["train_loss"].tolist() != weighted["train_loss"].tolist()


def test_equal_classes_weigh_alike(tmp_path):
    write_photographs(tmp_path / "photographs")
    same = {"regime": {"train_per_class": 4, "val_per_class": 1}}
    one, other = (run(tmp_path, balance, balance, **same) for balance in ("none", "weights"))
    pd.testing.assert_frame_equal(history(one).drop(columns="seconds"), history(other).drop(columns="seconds"))


@pytest.mark.parametrize("regime", [{}, {"augment": "flip_crop", "views": 3}, {"augment": "flip_crop"}], ids=str)
def test_oversampled_cached_equals_live(tmp_path, photographs, regime):
    cached = run(tmp_path, "cached", "oversample", regime=regime, epochs=4)
    live = run(tmp_path, "live", "oversample", regime=regime, epochs=4, budget={"disk": "1KB"})
    assert computed(live) > computed(cached)
    for cell in cached.table["cell"]:
        assert numbers(cached, cell) == numbers(live, cell), cell
