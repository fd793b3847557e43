"""Balance of classes: rare ones weigh more or are drawn more often."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.support.pictures import catalog
from tests.support.prepared import prepared_study
from tests.support.worlds import tiny_study, write_photographs
from unfreeze import Study
from unfreeze.config.resolve import cells
from unfreeze.config.schema import StudyConfig
from unfreeze.data.subset import Selection
from unfreeze.study.cell import CellSpec

HEAD = {"train": "head", "optimizer": {"lr": 1e-2}}


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


def spec_of(folder: Path, balance: str, **regime: Any) -> CellSpec:
    study = tiny_study(folder, strategies={"head": HEAD}, regimes={"all": {"balance": balance, **regime}})
    (spec,) = prepared_study(Study(**study).config, folder / "out").cells.values()
    return spec


def test_oversampled_each_class_is_drawn_about_as_often(tmp_path: Path, photographs: Path) -> None:
    spec = spec_of(tmp_path, "oversample")
    labels = dict(zip(spec.catalog.images["id"], spec.catalog.images["label"], strict=True))
    counts, drawn = (Counter(labels[name] for name in ids) for ids in (spec.selection.train, spec.train))
    most = max(counts.values())
    assert counts["circle"] < most / 1.5
    assert drawn == {label: count * round(most / count) for label, count in counts.items()}
    assert spec.examples("") == 2 * drawn.total()


def test_weights_leave_the_draws_as_they_are(tmp_path: Path, photographs: Path) -> None:
    plain, weighted = spec_of(tmp_path, "none"), spec_of(tmp_path, "weights")
    assert weighted.train == plain.train
    assert plain.class_weights is None
    assert weighted.class_weights is not None and len(set(weighted.class_weights)) > 1


def test_equal_classes_weigh_alike(tmp_path: Path) -> None:
    write_photographs(tmp_path / "photographs")
    assert spec_of(tmp_path, "weights", train_per_class=4, val_per_class=1).class_weights == (1.0, 1.0, 1.0)


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
