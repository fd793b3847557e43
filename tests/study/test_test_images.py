"""Test images are the same in every cell, and nothing reads them before the final evaluation."""

from pathlib import Path
from typing import Any

import pytest

from tests.support.prepared import prepared_study
from tests.support.worlds import tiny_study
from unfreeze import Study
from unfreeze.activations.batches import BatchSource
from unfreeze.events import CellFinished, CellStarted, EpochEnded, Event, Planned
from unfreeze.inputs import preprocess as pixels
from unfreeze.storage.records import read_table

STRATEGIES = {
    "head": {"train": "head", "optimizer": {"lr": 1e-2}, "tune": {"optimizer.lr": [1e-2, 1e-3]}},
    "all": {"train": "all", "optimizer": {"name": "sgd", "lr": 1e-3}},
}
REGIMES: dict[str, Any] = {
    "small": {"train_per_class": 3, "val_per_class": 1, "augment": "flip_crop"},
    "full": {"balance": "weights"},
}
STOPPING = {"monitor": "val_loss", "patience": 1}


@pytest.mark.parametrize("folds", [None, 3])
def test_the_test_set_is_the_same_in_every_cell_and_seed(tmp_path: Path, folds: int | None) -> None:
    study = tiny_study(tmp_path, strategies=STRATEGIES, regimes=REGIMES, seeds=2, split={"folds": folds})
    prepared = prepared_study(Study(**study).config, tmp_path / "out")
    tests: dict[int | None, set[frozenset[str]]] = {}
    for spec in prepared.cells.values():
        tested = frozenset(spec.selection.tests["test"])
        assert tested and not tested & {*spec.selection.train, *spec.selection.validation}
        tests.setdefault(spec.cell.fold, set()).add(tested)
    assert len(prepared.cells) == 2 * 2 * 2 * (folds or 1)
    assert len(tests) == (folds or 1)
    assert all(len(found) == 1 for found in tests.values())
    assert len(set.union(*tests.values())) == len(tests)


def test_no_test_image_is_read_before_the_final_evaluation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is stored, so that every look at an image reads its file."""
    happened: list[tuple[str, str]] = []
    made = pixels._made

    def spy(base: Any, image: tuple[str, Path]) -> Any:
        happened.append(("read", image[0]))
        return made(base, image)

    def emit(event: Event) -> None:
        if isinstance(event, CellStarted | CellFinished | EpochEnded | Planned):
            happened.append((type(event).__name__, getattr(event, "cell", "")))

    monkeypatch.setattr(pixels, "_made", spy)
    asked = {"strategies": STRATEGIES, "regimes": REGIMES, "early_stopping": STOPPING, "budget": {"disk": "1KB"}}
    results = Study(**tiny_study(tmp_path, **asked, epochs=3)).run(tmp_path / "out", emit=emit, workers=0)
    assert set(results.table["status"]) == {"finished"}
    rows = read_table(results.path / "catalog.csv").set_index("id")["sha256"]
    splits = read_table(results.path / "splits.csv").set_index("id")["split"]
    tested = set(rows[splits.index[splits == "test"]])
    validated = set(rows[splits.index[splits == "validation"]])
    places = [number for number, (what, name) in enumerate(happened) if what == "read" and name in tested]
    assert len(places) >= len(tested) * len(results.table)
    before = [what for what, _ in happened[: places[0]]]
    assert before.count("EpochEnded") >= 2  # the first cell's candidates had trained
    assert "CellFinished" not in before
    # Whenever test images are read, what comes next but other reads is the end of a cell, or of the study.
    ends = [what for number in places for what in [next_event(happened, number)]]
    assert set(ends) <= {"CellFinished", ""}
    assert any(name in validated for what, name in happened if what == "read")


def next_event(happened: list[tuple[str, str]], number: int) -> str:
    return next((what for what, _ in happened[number:] if what != "read"), "")


def test_with_everything_stored_test_images_are_asked_for_at_the_end_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, tuple[str, ...]]] = []
    for kind in ("stream", "validation", "plain", "images"):
        whole = getattr(BatchSource, kind)

        def spy(self: BatchSource, *given: Any, kind: str = kind, whole: Any = whole) -> Any:
            found = whole(self, *given)
            if kind == "images":
                asked.append((kind, found.ids))
            else:
                ids = [one.ids for one in given if hasattr(one, "ids")]
                asked.append((kind, ids[0] if ids else ()))
            return found

        monkeypatch.setattr(BatchSource, kind, spy)
    monkeypatch.setenv("UNFREEZE_CACHE", str(tmp_path / "cache"))
    results = Study(**tiny_study(tmp_path, strategies=STRATEGIES, regimes=REGIMES)).run(tmp_path / "out", workers=0)
    splits = read_table(results.path / "splits.csv").set_index("id")["split"]
    tested = set(splits.index[splits == "test"])
    by_kind = {kind: {name for one, ids in asked if one == kind for name in ids} for kind, _ in asked}
    assert tested <= by_kind["plain"]
    for kind in ("stream", "validation"):
        assert by_kind[kind] and not by_kind[kind] & tested
