"""Reuse changes no number: cached, live, from another study, alone or in lock-step."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from tests.support.finished import computed, numbers
from tests.support.reuse import BANK, FRESH, HEAD, LAST, NO_ROOM, PHASES, PLAIN, SEEN, TUNED, run
from tests.support.worlds import tiny_study, write_weights
from unfreeze import Study
from unfreeze.activations import calibrate, engines
from unfreeze.activations import pytorch_engine as pytorch
from unfreeze.activations.engine import Engine, EngineFailed, EngineKind, Settings
from unfreeze.events import Event, Warned
from unfreeze.model.network import Frozen
from unfreeze.storage.records import read_json


@pytest.mark.parametrize(
    "regimes",
    [
        pytest.param(PLAIN, id="plain", marks=pytest.mark.slow),
        pytest.param(BANK, id="bank"),
        pytest.param(FRESH, id="fresh"),
        pytest.param(SEEN, id="augmented validation"),
    ],
)
def test_cached_equals_live_bit_for_bit(tmp_path: Path, regimes: dict[str, Any]) -> None:
    strategies = {"head": HEAD, "last": LAST, "phases": PHASES, "tuned": TUNED}
    asked = {"strategies": strategies, "regimes": regimes, "epochs": 5}
    cached, live = run(tmp_path, "cached", **asked), run(tmp_path, "live", **asked, budget=NO_ROOM)
    assert read_json(cached.path / "plan.json")["predictions"]["disk"] > 0
    assert read_json(live.path / "plan.json")["predictions"]["disk"] == 0
    assert computed(live) > computed(cached) > 0
    for cell in cached.table["cell"]:
        assert numbers(cached, cell) == numbers(live, cell), cell


ENGINES = [
    ("openvino", "float32"),
    ("pytorch", "bfloat16"),
    pytest.param("openvino", "bfloat16", marks=pytest.mark.slow),
    pytest.param("pytorch", "float32", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("engine", "precision"), ENGINES)
def test_cached_equals_live_with_the_engine_that_the_study_fixed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str, precision: str
) -> None:
    first_wins(monkeypatch, engines.ENGINES[engine], pytorch.ENTRY)
    asked = {"strategies": {"head": HEAD, "last": LAST, "phases": PHASES}, "regimes": PLAIN, "precision": precision}
    cached, live = run(tmp_path, "cached", **asked), run(tmp_path, "live", **asked, budget=NO_ROOM)
    for results in (cached, live):
        (fixed,) = read_json(results.path / "study.json")["engines"].values()
        assert (fixed["engine"]["name"], fixed["engine"]["precision"]) == (engine, precision)
        assert fixed["error"] < {"float32": 1e-4, "bfloat16": 2e-2}[precision]
    assert computed(live) > computed(cached) > 0
    for cell in cached.table["cell"]:
        assert numbers(cached, cell) == numbers(live, cell), cell


def first_wins(monkeypatch: pytest.MonkeyPatch, *entries: EngineKind) -> None:
    """Let the first of some engines be chosen wherever it can run."""
    chosen = {entry.name: replace(entry, worth_seconds=0.0) for entry in entries}
    monkeypatch.setattr(engines, "ENGINES", chosen)
    monkeypatch.setattr(calibrate, "CLEARLY", 0.0)


def made_up(stages_at_least: int = 1) -> EngineKind:
    """Return an engine that doubles and halves, and runs so many stages at least."""

    def offers(device: torch.device, precision: str, threads: int) -> list[Settings]:
        return [{"name": "made_up", "version": "1", "precision": precision, "batch": 2, "threads": threads}]

    def build(settings: Settings, stages: Frozen, shape: tuple[int, ...], device: torch.device) -> Engine:
        if len(stages.stages) < stages_at_least:
            raise EngineFailed("made_up: too few stages")
        plain = pytorch.Batched(stages, device, int(settings["batch"]), "float32")
        return lambda rows: plain(rows) * 2 / 2

    return EngineKind("made_up", offers, build, worth_seconds=0.0, shares_batch=True)


def test_a_registered_engine_computes_a_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first_wins(monkeypatch, made_up(), pytorch.ENTRY)
    results = run(tmp_path, strategies={"head": HEAD}, regimes=PLAIN)
    assert not results.failed
    (fixed,) = read_json(results.path / "study.json")["engines"].values()
    assert fixed["engine"]["name"] == "made_up"
    assert computed(results) > 0
    assert computed(run(tmp_path, "again", strategies={"head": HEAD}, regimes=PLAIN)) == 0


def test_a_fixed_engine_that_cannot_do_a_new_cut_gives_way_and_finished_cells_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first_wins(monkeypatch, made_up(stages_at_least=5), pytorch.ENTRY)
    first = run(tmp_path, strategies={"head": HEAD}, regimes=PLAIN)
    label = "test_resnet (weights), 32 pixels"
    assert read_json(first.path / "study.json")["engines"][label]["engine"]["name"] == "made_up"
    before, events = numbers(first, "head.small.s0"), list[Event]()
    study = Study(**tiny_study(tmp_path, strategies={"head": HEAD, "last": {"train": {"last": 2}}}, regimes=PLAIN))
    again = study.run(tmp_path / "out", emit=events.append, workers=0)
    assert not again.failed
    assert read_json(again.path / "study.json")["engines"][label]["engine"]["name"] == "pytorch"
    (said,) = [event.text for event in events if isinstance(event, Warned) and "this study used" in event.text]
    assert said.startswith(f"{label}: this study used made_up 1 ")
    assert "which cannot compute all of its frozen stages (made_up: too few stages)" in said
    assert numbers(again, "head.small.s0") == before


def test_a_second_study_computes_nothing_that_the_first_one_has(tmp_path: Path) -> None:
    first = run(tmp_path, "first", strategies={"head": HEAD}, regimes=BANK)
    again = run(tmp_path, "again", strategies={"head": HEAD}, regimes=BANK)
    other = run(tmp_path, "other", strategies={"head": {"train": "head", "head": {"hidden": [4]}}}, regimes=BANK)
    assert computed(first) > 0
    assert computed(again) == computed(other) == 0
    assert numbers(first, "head.small.s0") == numbers(again, "head.small.s0")


@pytest.mark.parametrize("regimes", [pytest.param(PLAIN, marks=pytest.mark.slow), FRESH], ids=["plain", "fresh"])
def test_cells_together_equal_cells_alone(tmp_path: Path, regimes: dict[str, Any]) -> None:
    together = run(tmp_path, "together", strategies={"head": HEAD, "last": LAST, "other": TUNED}, regimes=regimes)
    for name, strategy in (("head", HEAD), ("last", LAST), ("other", TUNED)):
        alone = run(tmp_path, f"alone_{name}", strategies={name: strategy}, regimes=regimes, budget=NO_ROOM)
        assert numbers(alone, f"{name}.small.s0") == numbers(together, f"{name}.small.s0")


def test_what_cells_share_is_predicted_once(tmp_path: Path) -> None:
    heads = {"head": HEAD, "other": {"train": "head", "head": {"hidden": [4]}}}
    results = run(tmp_path, strategies=heads, regimes=PLAIN)
    ran = read_json(results.path / "shared.json")["runs"][-1]["predicted_seconds"]
    assert ran <= read_json(results.path / "plan.json")["predictions"]["seconds"] * 1.001


def test_fresh_views_pass_the_frozen_stages_once_for_all_cells(tmp_path: Path) -> None:
    asked = {"regimes": FRESH, "budget": NO_ROOM}
    one = computed(run(tmp_path, "one", strategies={"head": HEAD}, **asked))
    two = computed(run(tmp_path, "two", strategies={"head": HEAD, "same": HEAD | {"optimizer": {"lr": 1e-3}}}, **asked))
    reported = 7 + 7  # the validation pool and the test images, which each cell looks at once at its end
    assert one == 2 * (15 + 5) + reported  # two epochs of fifteen training images and five of validation
    assert two == one + reported


def test_altered_chunks_are_computed_again_and_counted(tmp_path: Path, cache: Path) -> None:
    first = run(tmp_path, "first", strategies={"head": HEAD}, regimes=PLAIN)
    (shard,) = (cache / "activations").glob("*/*.rows")
    content = bytearray(shard.read_bytes())
    content[7] ^= 1
    shard.write_bytes(content)
    events: list[Event] = []
    study = Study(**tiny_study(tmp_path, strategies={"head": HEAD}, regimes=PLAIN))
    again = study.run(tmp_path / "again", emit=events.append, workers=0)
    assert computed(again) == computed(first)
    assert read_json(again.path / "shared.json")["runs"][-1]["altered_chunks"] == 1
    said = [event.text for event in events if isinstance(event, Warned)]
    assert "1 chunks of the cache were damaged or could not be read; their rows were computed again" in said
    assert numbers(first, "head.small.s0") == numbers(again, "head.small.s0")


@pytest.mark.usefixtures("with_report")
def test_what_a_killed_run_found_altered_is_counted(tmp_path: Path, cache: Path) -> None:
    asked = tiny_study(tmp_path, strategies={"head": HEAD}, regimes=PLAIN)
    Study(**asked).run(tmp_path / "first", workers=0)
    (shard,) = (cache / "activations").glob("*/*.rows")
    shard.write_bytes(bytes(shard.stat().st_size))

    def kill(event: Event) -> None:
        if isinstance(event, Warned) and "damaged" in event.text:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Study(**asked).run(tmp_path / "again", emit=kill, workers=0)
    again = Study(**asked).run(tmp_path / "again", workers=0)
    runs = read_json(again.path / "shared.json")["runs"]
    assert [one["altered_chunks"] for one in runs] == [1, 0]
    assert all(0.0 < one["seconds"]["cells"] < one["seconds"]["total"] for one in runs)
    assert "1 stored chunk was unreadable or altered" in (again.path / "report.html").read_text(encoding="utf-8")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("UNFREEZE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(autouse=True)
def _own_cache(cache: Path) -> None:
    """Each test has a cache of its own."""


def test_other_settings_weights_or_contents_are_missed(tmp_path: Path) -> None:
    asked = {"strategies": {"head": HEAD}, "regimes": PLAIN}
    rows = computed(run(tmp_path, "first", **asked))
    assert computed(run(tmp_path, "size", **asked, image_size=48)) == rows
    assert computed(run(tmp_path, "resize", **asked, resize="squash")) == rows
    assert computed(run(tmp_path, "cut", strategies={"last": LAST}, regimes=PLAIN)) == rows
    view = {"small": PLAIN["small"] | {"augment": "flip_crop", "views": 1}}
    assert computed(run(tmp_path, "view", strategies={"head": HEAD}, regimes=view)) == 15
    assert computed(run(tmp_path, "dtype", **asked, activations="float16")) == rows
    weights = write_weights(tmp_path / "other.safetensors")
    tensors = load_file(weights)
    tensors["layer4.0.bn1.running_mean"][0] += 1e-3
    save_file(tensors, weights)
    assert (
        computed(run(tmp_path, "weights", **asked, backbone={"name": "test_resnet", "weights": str(weights)})) == rows
    )


def test_an_image_s_content_counts_and_neither_name_nor_place_nor_time(tmp_path: Path) -> None:
    asked = {"strategies": {"head": HEAD}, "regimes": {"full": {}}}
    run(tmp_path, "first", **asked)
    moved = tmp_path / "moved"
    shutil.copytree(tmp_path / "photographs", moved)
    for number, path in enumerate(sorted(moved.rglob("*.png"))):
        path.rename(path.with_name(f"renamed{number}.png"))
    assert computed(run(tmp_path, "moved_study", **asked, data=str(moved))) == 0
    path = next(iter(sorted((tmp_path / "photographs").rglob("*.png"))))
    pixels = np.array(Image.open(path))
    pixels[0, 0, 0] ^= 1
    Image.fromarray(pixels).save(path)
    assert computed(run(tmp_path, "changed", **asked)) == 1


def test_two_files_of_weights_with_one_name_are_distinguished(tmp_path: Path) -> None:
    files = []
    for number, folder in enumerate(("one", "two")):
        (tmp_path / folder).mkdir()
        files.append(write_weights(tmp_path / folder / "weights.safetensors"))
        save_file({name: tensor + number for name, tensor in load_file(files[-1]).items()}, files[-1])
    strategies = {
        file.parent.name: {"train": "head", "backbone": {"name": "test_resnet", "weights": str(file)}} for file in files
    }
    results = Study(**tiny_study(tmp_path, strategies=strategies)).run(tmp_path / "out", workers=0)
    engines = read_json(results.path / "study.json")["engines"]
    assert list(engines) == [f"test_resnet ({file}), 32 pixels" for file in files]
    names = [key["name"] for key in read_json(results.path / "plan.json")["shared"]]
    assert {name.partition(", 32 pixels")[0] for name in names} == {f"test_resnet ({file})" for file in files}
    alone = Study(**tiny_study(tmp_path, strategies={"one": strategies["one"]})).run(tmp_path / "alone", workers=0)
    assert list(read_json(alone.path / "study.json")["engines"]) == ["test_resnet (weights), 32 pixels"]
