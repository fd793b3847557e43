"""Numbers depend on the study alone: not on the run, the workers, the order of cells, or how many run at once."""

import hashlib
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.finished import all_but_times
from tests.support.studies import ANEW, BACK, BANK, FRESH, GROUP, MANY, ONE, PLAIN, SCRATCH, TWO
from tests.support.worlds import tiny_study, write_weights
from unfreeze import Study
from unfreeze.activations import stream
from unfreeze.events import Emit
from unfreeze.inputs.loader import training_batches
from unfreeze.model.backbone import load_backbone
from unfreeze.model.network import frozen_state, tensors_hash
from unfreeze.storage.records import read_tensors
from unfreeze.study import group
from unfreeze.study.cell import CellSpec
from unfreeze.study.executors import schedule as cells
from unfreeze.study.finish import ChosenCandidate
from unfreeze.study.lockstep import groups_of
from unfreeze.train.candidate_run import TrainedCandidate

NO_ROOM = {"disk": "1KB"}


def run(folder: Path, out: str, workers: int = 0, emit: Emit = lambda event: None, **values: Any) -> Path:
    return Study(**tiny_study(folder, **values)).run(folder / out, emit=emit, workers=workers).path


def sha256s(out: Path) -> dict[str, str]:
    """Return the sha256 of each cell's trained weights."""
    return {path.parent.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in out.rglob("model.safetensors")}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNFREEZE_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a study of ten cells that was run in one process, in plan order; its data lie beside."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNFREEZE_CACHE", str(folder / "cache"))
        return run(folder, "whole", **MANY)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on fewer cores
@pytest.mark.parametrize(
    ("regimes", "room", "others"),
    [
        pytest.param(FRESH, {}, (2,), id="fresh"),
        pytest.param(FRESH, {}, (1, 4), id="fresh, one and many", marks=pytest.mark.slow),
        pytest.param(BANK, {}, (1, 2, 4), id="stored", marks=pytest.mark.slow),
        pytest.param(BANK, NO_ROOM, (1, 2, 4), id="live", marks=pytest.mark.slow),
    ],
)
def test_batches_and_weights_do_not_depend_on_workers(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    regimes: Mapping[str, Any],
    room: Mapping[str, Any],
    others: tuple[int, ...],
) -> None:
    drawn: list[str] = []

    def noted(*arguments: Any) -> Any:
        for batch in training_batches(*arguments):
            drawn.append(tensors_hash(dict(zip("abc", batch, strict=True))))
            yield batch

    monkeypatch.setattr(stream, "training_batches", noted)
    found = []
    for workers in (0, *others):
        monkeypatch.setenv("UNFREEZE_CACHE", str(tmp_path / f"cache-{workers}"))
        asked = {"strategies": {"last": GROUP["last"]} | SCRATCH, "regimes": regimes, "budget": room}
        out = run(tmp_path, f"out-{workers}", workers, **asked)
        found.append((list(drawn), sha256s(out), all_but_times(out)))
        drawn.clear()
    assert len(found[0][0]) >= 8
    assert len(found[0][1]) == 2
    for other in found[1:]:
        assert other == found[0]


@pytest.mark.parametrize(
    "order", ["reversed", *(pytest.param(each, marks=pytest.mark.slow) for each in ("shuffled", "otherwise"))]
)
def test_the_order_of_cells_does_not_matter(whole: Path, monkeypatch: pytest.MonkeyPatch, order: str) -> None:
    began: list[str] = []

    def otherwise(specs: Mapping[str, CellSpec]) -> list[list[str]]:
        names = list(specs)[::-1]
        if order != "reversed":
            random.Random(order).shuffle(names)
        found = groups_of({name: specs[name] for name in names})
        began.extend(name for group in found for name in group)
        assert found != groups_of(specs)
        return found

    monkeypatch.setattr(cells, "groups_of", otherwise)
    out = run(whole.parent, order, **MANY)
    assert sorted(began) == sorted(sha256s(out)) == sorted(sha256s(whole))
    assert all_but_times(out) == all_but_times(whole)


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["test_efficientnet", "test_vit"])
def test_frozen_stages_keep_every_bit_while_others_train(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backbone: str
) -> None:
    """After training, parameters and buffers of the frozen stages are those of the weights' file."""
    weights = write_weights(tmp_path / "weights.safetensors", backbone)
    trained: dict[str, TrainedCandidate] = {}
    finish = group.finish_cell

    def noted(spec: Any, chosen: ChosenCandidate, *arguments: Any) -> Any:
        trained[spec.cell.id] = chosen.trained
        return finish(spec, chosen, *arguments)

    monkeypatch.setattr(group, "finish_cell", noted)
    strategies = ONE | TWO | BACK | ANEW | GROUP
    # BatchNorm that trains takes its statistics from batches, of which none may hold one image.
    out = run(tmp_path, "out", strategies=strategies, regimes={**PLAIN, **{"fresh": FRESH["small"]}},
              backbone={"name": backbone, "weights": str(weights)})  # fmt: skip
    assert len(trained) == 2 * len(strategies)
    pristine = load_backbone(backbone, str(weights), 32, 0)
    frozen = 0
    for cell, one in trained.items():
        assert tensors_hash(frozen_state(one.backbone, one.cut)) == tensors_hash(frozen_state(pristine, one.cut)), cell
        told = read_tensors(out / "cells" / cell / "model.safetensors")[1]
        assert told["prefix_sha256"] == tensors_hash(frozen_state(pristine, one.cut))
        frozen += one.cut > 0
        moved = one.backbone.model.state_dict()
        stages = [name for stage in one.backbone.stages[one.cut :] for name in stage.tensors]
        if stages:
            assert any(not torch.equal(moved[name].cpu(), pristine.model.state_dict()[name]) for name in stages), cell
    assert frozen >= 8
