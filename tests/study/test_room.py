"""Room in a shared cache: what a study stores, and which entries are deleted for it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support.worlds import tiny_study, write_photographs
from unfreeze import Study
from unfreeze.activations.batches import BatchSource
from unfreeze.config.schema import StudyConfig
from unfreeze.data import image_hash as sketch
from unfreeze.data import scan_cache as states
from unfreeze.data.sources import open_source
from unfreeze.events import Event, Warned
from unfreeze.storage.array_store import ArrayStore
from unfreeze.storage.cache import entries, in_use, used_bytes
from unfreeze.storage.records import read_json
from unfreeze.study import run as running
from unfreeze.study.activation_plan import ActivationPlan
from unfreeze.study.forecast import forecast
from unfreeze.study.run import run_study

BUDGET = 200_000
"""Bytes: a data set's pictures and activations take two thirds of it."""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("UNFREEZE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def study(folder: Path, number: int, budget: int = BUDGET) -> StudyConfig:
    """A head on all of a data set of its own."""
    photographs = folder / f"photographs{number}"
    if not photographs.exists():
        write_photographs(photographs, seed=number)
    asked = {"data": str(photographs), "strategies": {"head": {"train": "head"}}, "regimes": {"full": {}}, "epochs": 1}
    return Study(**tiny_study(folder, **asked, budget={"disk": f"{budget}B"})).config


def run(config: StudyConfig, out: Path) -> tuple[dict[str, Any], list[str]]:
    """Run a study; return the facts of its run, and what it warned of but of its few images."""
    told: list[Event] = []
    run_study(config, out, told.append, workers=0)
    return read_json(out / "shared.json")["runs"][-1], room_warnings(told)


def plan(config: StudyConfig, out: Path) -> tuple[ActivationPlan, list[str]]:
    told: list[Event] = []
    source = open_source(config.data, config.tests, Path.cwd())
    return forecast(config, source, out, told.append).shared, room_warnings(told)


def room_warnings(told: list[Event]) -> list[str]:
    return [event.text for event in told if isinstance(event, Warned) and "budget" in event.text]


def rows(facts: Mapping[str, Any]) -> int:
    return sum(key["rows"] for key in facts["pieces"])


def contents(cache: Path) -> dict[str, set[str]]:
    """Return the images that the cache has rows of, by kind."""
    return {
        found.kind: {sha for sha, _ in ArrayStore(found.path, found.identity, "uint8").held()}
        for found in entries(cache)
    }


def test_data_sets_in_turn_are_all_stored_and_what_was_used_least_recently_goes(tmp_path: Path, cache: Path) -> None:
    seen = list[set[str]]()
    for number in range(3):
        config, out = study(tmp_path, number), tmp_path / f"out{number}"
        planned, said = plan(config, out)
        facts, warned = run(config, out)
        assert (said, warned) == ([], [])
        assert rows(facts) == 36
        assert read_json(out / "plan.json")["predictions"]["disk"] == planned.bytes > BUDGET / 2
        assert abs(facts["disk"] / facts["predicted_disk"] - 1) < 0.02
        assert used_bytes(cache) <= BUDGET
        held = contents(cache)
        assert len(held["pixels"]) == 36  # activations of another data set may be left
        assert held["pixels"] <= held["activations"]
        assert not any(held["pixels"] & pixels for pixels in seen)
        seen.append(held["pixels"])
    assert rows(run(study(tmp_path, 2), tmp_path / "again")[0]) == 0


def test_what_another_study_uses_stays_and_plan_and_run_say_what_that_leaves(tmp_path: Path, cache: Path) -> None:
    run(study(tmp_path, 0), tmp_path / "out0")
    before = contents(cache)
    others = [ArrayStore(found.path, found.identity, "uint8") for found in entries(cache)]
    config, out = study(tmp_path, 1), tmp_path / "out1"
    with in_use(others):
        planned, said = plan(config, out)
        facts, warned = run(config, out)
        assert all(before[kind] <= found for kind, found in contents(cache).items())
        assert used_bytes(cache) <= BUDGET + 1000  # marks and manifests
    assert (planned.pixel_bytes, planned.bytes) == (0, facts["predicted_disk"])
    assert rows(facts) == 36
    assert (
        said
        == warned
        == [
            "the disk budget of 200000B has room for 16.4 kB of the 143.9 kB that this study would store, and the rest "
            "is computed again and again; what other running studies use stays, and so do files that hold rows of this "
            "study beside others: run it when they have ended, or raise budget: disk"
        ]
    )


def test_less_is_stored_with_a_warning_where_room_is_gone_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "make_room", lambda *given: 0)
    facts, warned = run(study(tmp_path, 0), tmp_path / "out0")
    assert (facts["pieces"], facts["predicted_disk"]) == ([], 127_440)  # pictures, which the first look has stored
    assert len(warned) == 1 and warned[0].startswith("the disk budget of 200000B has room for 127.4 kB of the 143.9 kB")
    (key,) = read_json(tmp_path / "out0" / "plan.json")["shared"]
    assert key["why_not"] == ("16.4 kB do not fit into the disk budget of 200000B, of which 127.4 kB is available")


def test_a_file_is_decoded_once_in_a_cache_full_of_another_s_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(study(tmp_path, 0), tmp_path / "out0")
    first, again = list[Any](), list[Any]()
    load, decode = sketch.load, BatchSource._decode

    def loaded(*given: Any, **named: Any) -> Any:
        first.append(given)
        return load(*given, **named)

    def decoded(self: BatchSource, store: ArrayStore, images: Any) -> None:
        again.extend(images)
        decode(self, store, images)

    monkeypatch.setattr(sketch, "load", loaded)
    monkeypatch.setattr(BatchSource, "_decode", decoded)
    run(study(tmp_path, 1), tmp_path / "out1")
    assert (len(first), again) == (36, [])


def test_new_images_take_the_room_of_others_and_not_of_their_own_study(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(states, "SETTLED", -1.0)  # files written just now
    for number in range(2):
        facts, _ = run(study(tmp_path, number, 10**6), tmp_path / f"out{number}")
        assert abs(facts["disk"] / facts["predicted_disk"] - 1) < 0.02  # of its own rows alone
    assert used_bytes(cache) > 1.9 * facts["disk"]
    new = write_photographs(tmp_path / "new", per_class=2, seed=5)
    for path in new.rglob("*.png"):
        path.rename(tmp_path / "photographs0" / path.parent.name / f"new{path.name}")
    facts, warned = run(study(tmp_path, 0, used_bytes(cache) + 100), tmp_path / "out0")
    assert (rows(facts), warned) == (6, [])
