"""A study trains as another implementation does: the same history and logits.

Where all stages train, bit for bit; where some are frozen, the study reads stored activations, which rows computed in
other batches equal within rounding.
"""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors import safe_open

from tests.support import oracle
from tests.support.worlds import CLASSES, write_photographs, write_weights
from unfreeze import Study

SEED = 3


def phase(train: Any, epochs: int, name: str, lr: float, **more: Any) -> dict[str, Any]:
    """Return a phase with every setting; ``more`` are the optimiser's or the phase's."""
    optimizer = {"name": name, "lr": lr, "momentum": 0.9, "weight_decay": 0.0, "layer_decay": 1.0}
    settings = {"schedule": {"name": "cosine", "warmup": 0.2}, "batch_norm": "frozen", "reinit": False}
    settings |= {"label_smoothing": 0.0}
    optimizer |= {key: value for key, value in more.items() if key in optimizer}
    settings |= {key: value for key, value in more.items() if key in settings}
    return {"train": train, "epochs": epochs, "optimizer": optimizer, **settings}


def strategy(*phases: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"head": "linear", "batch_size": 6, "early_stopping": False, "phases": list(phases), **more}


CONSTANT = {"name": "constant", "warmup": 0.0}
STRATEGIES = {
    "scratch": strategy(
        phase("all", 3, "sgd", 3e-2, schedule={"name": "constant", "warmup": 0.3}, label_smoothing=0.1),
        weights="none",
        head="native",
    ),
    "hidden": strategy(
        phase("all", 6, "adamw", 2e-2, weight_decay=0.1),
        phase("all", 3, "sgd", 5e-2, schedule=CONSTANT),
        head={"pool": "own", "hidden": [16, 8], "dropout": [0.5, 0.2]},
        early_stopping={"monitor": "val_loss", "patience": 2, "min_delta": 0.0, "restore_best": True},
    ),
    "head": strategy(phase("head", 3, "adamw", 1e-2, weight_decay=0.5)),
    "last": strategy(phase({"last": 1}, 3, "sgd", 1e-2, weight_decay=0.2, batch_norm="train")),
    "fine_tune": strategy(
        phase("head", 1, "adam", 1e-2, schedule=CONSTANT),
        phase("all", 2, "adamw", 1e-3, weight_decay=0.3, layer_decay=0.7),
    ),
    "reinit": strategy(phase({"last": 2}, 3, "sgd", 1e-2, reinit=True), batch_size=5),
}
REGIMES = {
    "fresh": {"train_per_class": 6, "augment": "flip_crop", "views": "fresh", "balance": "none"},
    "bank": {"augment": "flip_crop", "views": 2, "examples_per_epoch": 29, "balance": "weights"},
}
CELLS = list(itertools.product(STRATEGIES, REGIMES))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with photographs, weights and a finished study, ``out``."""
    folder = tmp_path_factory.mktemp("oracle")
    write_photographs(folder / "photographs", per_class=14)
    (folder / "photographs" / CLASSES[0] / "000.png").unlink()  # so that the classes are uneven
    pretrained = {"weights": str(write_weights(folder / "weights.safetensors"))}
    Study(
        data=str(folder / "photographs"),
        backbone=oracle.MODEL,
        image_size=oracle.SIZE,
        strategies={name: pretrained | one for name, one in STRATEGIES.items()},
        regimes=REGIMES,
        seeds=[SEED],
        device="cpu",
    ).run(folder / "out", workers=0)
    return folder


def photographs(world: Path, regime: str) -> dict[str, list[oracle.Photograph]]:
    """Return a cell's images as its study drew them."""
    catalog = pd.read_csv(world / "out" / "catalog.csv").set_index("id")
    drawn = pd.read_csv(world / "out" / "splits.csv", keep_default_na=False).set_index("id")
    found: dict[str, list[oracle.Photograph]] = {"train": [], "validation": [], "test": []}
    for name in drawn.index:
        used = "test" if drawn["split"][name] == "test" else drawn[f"{regime}.s{SEED}"][name]
        if used:
            path, label = catalog.loc[name, ["path", "label"]]
            found[used].append(oracle.Photograph(world / "photographs" / path, CLASSES.index(label)))
    return found


@pytest.fixture(scope="module", params=CELLS, ids=".".join)
def cell(world: Path, request: pytest.FixtureRequest) -> tuple[str, Path, oracle.Outcome]:
    name, regime = request.param
    settings = {"weights": "pretrained"} | STRATEGIES[name]
    shown, weights = {"examples_per_epoch": None} | REGIMES[regime], world / "weights.safetensors"
    with torch.random.fork_rng():
        outcome = oracle.train(settings, shown, SEED, photographs(world, regime), weights)
    return name, world / "out" / "cells" / f"{name}.{regime}.s{SEED}", outcome


def tolerance(name: str) -> float:
    """Return how far numbers may lie apart."""
    everything = all(one["train"] == "all" for one in STRATEGIES[name]["phases"])
    return 0.0 if everything else 1e-5


def test_the_history_is_the_oracle_s(cell: tuple[str, Path, oracle.Outcome]) -> None:
    name, folder, outcome = cell
    found = pd.read_csv(folder / "history.csv", dtype=str).drop(columns="candidate").map(float)  # to the last digit
    expected = pd.DataFrame(outcome.history)
    for column in ("phase", "epoch", "step", "examples", "lr", "train_accuracy", "val_accuracy", "val_metric"):
        assert found[column].tolist() == expected[column].tolist(), column
    np.testing.assert_allclose(found["train_loss"], expected["train_loss"], rtol=0, atol=tolerance(name))
    # The oracle takes the logarithm in another way, so the last digits of float64 differ though no logit does.
    np.testing.assert_allclose(found["val_loss"], expected["val_loss"], rtol=0, atol=tolerance(name) or 1e-14)


def test_the_logits_of_the_test_images_are_the_oracle_s(cell: tuple[str, Path, oracle.Outcome]) -> None:
    name, folder, outcome = cell
    with safe_open(folder / "logits.safetensors", "np") as file:
        found = file.get_tensor("test")
        ids = json.loads(file.metadata()["unfreeze"])["ids"]["test"]
    by_id = {sha256[:16]: logits.numpy() for sha256, logits in outcome.logits.items()}
    assert by_id.keys() == set(ids)
    expected = np.stack([by_id[name] for name in ids])
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance(name))


def test_the_reported_epoch_is_the_oracle_s(cell: tuple[str, Path, oracle.Outcome]) -> None:
    _, folder, outcome = cell
    assert json.loads((folder / "result.json").read_text())["best_epoch"] == outcome.reported


def test_early_stopping_ended_a_phase_and_an_earlier_epoch_is_reported(world: Path) -> None:
    """Else the others would say nothing about it."""
    result = json.loads((world / "out" / "cells" / f"hidden.fresh.s{SEED}" / "result.json").read_text())
    assert result["best_epoch"] < result["epochs"] < sum(one["epochs"] for one in STRATEGIES["hidden"]["phases"])
