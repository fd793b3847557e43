"""Whole tiny studies: frozen work that is stored gives the numbers that live work gives, and is done once."""

import json
import os
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from tests.worlds import tiny_study
from unfreeze import Study
from unfreeze.study.events import Event, Warned

NOTHING_FITS = {"disk": "1B"}
HEAD = {"train": "head", "optimizer": {"lr": 1e-2}}
OTHER_HEAD = {"train": "head", "head": {"hidden": [4]}}
LAST = {"train": {"last": 1}, "head": {"hidden": [8], "dropout": [0.5]}}
PHASES = {
    "phases": [{"train": "head", "epochs": 1, "optimizer": {"lr": 1e-2}}, {"train": "all", "epochs": 1}],
}
TUNED = {"train": "head", "tune": {"optimizer.lr": [1e-2, 1e-3]}}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNFREEZE_CACHE", str(tmp_path / "cache"))


def run(folder: Path, out: str, **values: Any) -> list[Event]:
    events: list[Event] = []
    results = Study(**tiny_study(folder, **values)).run(folder / out, emit=events.append, workers=0)
    assert not results.failed
    return events


def regime(**values: Any) -> dict[str, Any]:
    return {"small": {"train_per_class": 5, "val_per_class": 2, **values}}


BANK = regime(augment="flip_crop", views=3)
PLAIN = regime(augment="none")


def facts(folder: Path, out: str) -> dict[str, Any]:
    return json.loads((folder / out / "shared.json").read_text(encoding="utf-8"))["runs"][-1]


def computed(folder: Path, out: str) -> int:
    return sum(piece["rows"] for piece in facts(folder, out)["pieces"])


def untimed(path: Path) -> pd.DataFrame:
    table = pd.read_csv(path)
    return table.drop(columns=[column for column in table if column.startswith("seconds")])


def assert_same_cells(folder: Path, one: str, other: str, *cells: str) -> None:
    for cell in cells:
        mine, theirs = (folder / out / "cells" / cell for out in (one, other))
        pd.testing.assert_frame_equal(untimed(mine / "history.csv"), untimed(theirs / "history.csv"), check_exact=True)
        for name in ("logits.safetensors", "model.safetensors"):
            assert (mine / name).read_bytes() == (theirs / name).read_bytes(), f"{cell}: {name}"
    tables = [untimed(folder / out / "results.csv") for out in (one, other)]
    mine, theirs = (table[table["cell"].isin(cells)].reset_index(drop=True) for table in tables)
    assert len(mine) == len(cells)
    pd.testing.assert_frame_equal(mine, theirs, check_exact=True)


@pytest.mark.parametrize("regimes", [PLAIN, BANK], ids=["plain", "bank of views"])
def test_cached_equals_live_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, regimes: Any) -> None:
    study = {"strategies": {"head": HEAD, "last": LAST, "phases": PHASES, "tuned": TUNED}, "regimes": regimes}
    run(tmp_path, "stored", **study)
    monkeypatch.setenv("UNFREEZE_CACHE", str(tmp_path / "empty"))
    run(tmp_path, "live", budget=NOTHING_FITS, **study)
    assert facts(tmp_path, "stored")["pieces"]
    assert facts(tmp_path, "live")["pieces"] == []
    assert facts(tmp_path, "live")["forwards"] > facts(tmp_path, "stored")["forwards"] > 0
    assert not list((tmp_path / "empty" / "activations").glob("*"))
    cells = [f"{name}.small.s0" for name in study["strategies"]]
    assert_same_cells(tmp_path, "stored", "live", *cells)


def test_a_second_study_computes_nothing_and_gives_the_same(tmp_path: Path) -> None:
    study = {"strategies": {"head": HEAD, "last": LAST}, "regimes": BANK}
    run(tmp_path, "first", **study)
    run(tmp_path, "second", **study)
    assert facts(tmp_path, "first")["forwards"] >= computed(tmp_path, "first") > 0
    assert (facts(tmp_path, "second")["pieces"], facts(tmp_path, "second")["forwards"]) == ([], 0)
    assert_same_cells(tmp_path, "first", "second", "head.small.s0", "last.small.s0")


def test_another_head_computes_nothing_anew(tmp_path: Path) -> None:
    run(tmp_path, "first", strategies={"head": HEAD}, regimes=BANK)
    run(tmp_path, "second", strategies={"other": OTHER_HEAD, "tuned": TUNED}, regimes=BANK)
    assert (facts(tmp_path, "second")["pieces"], facts(tmp_path, "second")["forwards"]) == ([], 0)


def test_fresh_views_in_lock_step_equal_each_strategy_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    strategies = {"head": HEAD, "last": LAST}
    fresh = regime(augment="flip_crop", views="fresh")
    run(tmp_path, "together", strategies=strategies, regimes=fresh)
    for name, strategy in strategies.items():
        monkeypatch.setenv("UNFREEZE_CACHE", str(tmp_path / f"cache of {name}"))
        run(tmp_path, name, strategies={name: strategy}, regimes=fresh)
        assert_same_cells(tmp_path, "together", name, f"{name}.small.s0")


def test_an_altered_shard_is_computed_again_with_a_warning_that_is_counted(tmp_path: Path) -> None:
    study = {"strategies": {"head": HEAD}, "regimes": BANK}
    run(tmp_path, "first", **study)
    shard = max(
        (tmp_path / "cache" / "activations").rglob("*"), key=lambda path: path.is_file() and path.stat().st_size
    )
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.chmod(0o644)
    shard.write_bytes(data)
    events = run(tmp_path, "second", **study)
    warned = [event.text for event in events if isinstance(event, Warned)]
    assert "1 chunks of the cache were altered or could not be read; their rows were computed again" in warned
    assert facts(tmp_path, "second")["altered_chunks"] == 1
    assert computed(tmp_path, "second") > 0
    assert_same_cells(tmp_path, "first", "second", "head.small.s0")
    run(tmp_path, "third", **study)
    assert (computed(tmp_path, "third"), facts(tmp_path, "third")["altered_chunks"]) == (0, 0)


HEAD_ON_BANK = {"strategies": {"head": HEAD}, "regimes": BANK}


def change_weights(folder: Path) -> dict[str, Any]:
    tensors = load_file(folder / "weights.safetensors")
    name = next(name for name, tensor in tensors.items() if tensor.ndim == 4)
    tensors[name].view(-1)[0] += 1
    save_file(tensors, folder / "weights.safetensors")
    return {}


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda _: {"image_size": 40}, id="size"),
        pytest.param(lambda _: {"resize": "squash"}, id="resize"),
        pytest.param(change_weights, id="weights"),
        pytest.param(lambda _: {"regimes": regime(augment="article", views=3)}, id="augment"),
    ],
)
def test_what_numbers_depend_on_is_part_of_the_identity(tmp_path: Path, change: Any) -> None:
    run(tmp_path, "first", **HEAD_ON_BANK)
    whole = computed(tmp_path, "first")
    plain = 0 if "regimes" not in change(tmp_path) else whole - 45  # plain views are the same under any augmentation
    run(tmp_path, "second", **{**HEAD_ON_BANK, **change(tmp_path)})
    assert computed(tmp_path, "second") == whole - plain > 0


def test_another_seed_has_views_of_its_own(tmp_path: Path) -> None:
    run(tmp_path, "first", **HEAD_ON_BANK)
    run(tmp_path, "second", seeds=[1], **HEAD_ON_BANK)
    assert 30 <= computed(tmp_path, "second") <= computed(tmp_path, "first")


def test_an_image_with_other_content_is_computed_anew_and_no_other(tmp_path: Path) -> None:
    # All images are used: what is drawn for what may change with the content, what is computed may not.
    study = {"strategies": {"head": HEAD}, "regimes": {"full": {"augment": "none"}}}
    run(tmp_path, "first", **study)
    assert computed(tmp_path, "first") == 36
    path = tmp_path / "photographs" / "circle" / "000.png"
    with Image.open(path) as picture:
        pixels = picture.convert("RGB")
    pixels.putpixel((0, 0), (1, 2, 3))
    pixels.save(path)
    run(tmp_path, "second", **study)
    assert computed(tmp_path, "second") == 1


def test_renamed_touched_and_moved_images_are_hit(tmp_path: Path) -> None:
    study = {"strategies": {"head": HEAD}, "regimes": {"full": {"augment": "none"}}}
    run(tmp_path, "first", **study)
    moved = (tmp_path / "photographs").rename(tmp_path / "moved")
    for number, path in enumerate(sorted(moved.rglob("*.png"))):
        os.utime(path, (number, number))
        path.rename(path.with_name(f"renamed {number}.png"))
    run(tmp_path, "second", data=str(moved), **study)
    assert (facts(tmp_path, "second")["pieces"], facts(tmp_path, "second")["forwards"]) == ([], 0)
