"""Several processes on one cache or one study: right where locks do nothing, and no work done twice where they work."""

import fcntl
import hashlib
import json
import multiprocessing
import os
import signal
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.finished import all_but_times
from tests.support.studies import BANK, GROUP, MANY, PLAIN, SCRATCH, TWO_GROUPS
from tests.support.worlds import tiny_study
from unfreeze import Study
from unfreeze.activations.reads import all_reads
from unfreeze.events import Event, Planned, Warned
from unfreeze.inputs.preprocess import pixel_store
from unfreeze.storage.atomic import remove_leftovers
from unfreeze.storage.cache import exclusively, in_use, tidy
from unfreeze.storage.locks import held
from unfreeze.storage.records import read_json, sealed, write_json, write_tensors
from unfreeze.storage.study_dir import StudyDir
from unfreeze.study import run as running
from unfreeze.study.executors.slot_cells import briefing, executor_of
from unfreeze.train import checkpoint as saving
from unfreeze.train.checkpoint import CellCheckpoint, read_state, write_state

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")

Work = Callable[[int], Any]
SOON = 5.0
"""Seconds; who holds a lock in these tests would hold it for 60."""


def no_locks() -> None:
    """Grant every lock, as some network file systems do."""
    fcntl.flock = lambda *_: None  # type: ignore[assignment]


def at_once(folder: Path, count: int, work: Work) -> list[Any]:
    """Do work in several processes at once; return what each of them gave."""
    children = []
    for number in range(count):
        child = os.fork()
        if not child:
            code = 1
            try:
                (folder / f"{number}.json").write_text(json.dumps(work(number)))
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * count
    return [json.loads((folder / f"{number}.json").read_text()) for number in range(count)]


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What a process is told of a study with stored activations at two cuts, in plain and augmented views."""
    found: list[dict[str, Any]] = []

    def noted(*arguments: Any) -> dict[str, Any]:
        found.append(briefing(*arguments))
        raise KeyboardInterrupt

    monkeypatch.setenv("UNFREEZE_CACHE", str(tmp_path / "first cache"))
    monkeypatch.setattr(running, "briefing", noted)
    regimes = {"plain": PLAIN["small"], "bank": BANK["small"]}
    study = Study(**tiny_study(tmp_path, strategies={name: GROUP[name] for name in ("head", "last")}, regimes=regimes))
    with pytest.raises(KeyboardInterrupt):
        study.run(tmp_path / "out", workers=0, parallel=2)
    assert len(found[0]["stored"]) == 4
    return found[0]


def prepared(told: dict[str, Any], cache: Path) -> dict[str, Any]:
    """Have all of a study's rows at hand; return what they are, what was computed for it, and what was altered."""
    executor = executor_of(told | {"cache": str(cache)}, lambda event: None)
    supply = executor.supply
    tidy(cache)
    remove_leftovers(cache)
    pictures = [pixel_store(cache, made.base) for made in supply.preprocessing.values()]
    with in_use([*pictures, *(supply._store(key, supply.prefixes[key.prefix].batch) for key in supply.rows)]):
        supply.prepare(all_reads(spec.reads for spec in executor.specs.values()))
    rows = hashlib.sha256()
    for key in supply.rows:
        opened = supply._open[key]
        for row in sorted(opened.places):
            rows.update(opened.rows.read(opened.places[row]).tobytes())
    computed = sum(prefix.forwards for prefix in supply.prefixes.values())
    return {"rows": rows.hexdigest(), "computed": computed, "altered": supply.facts.altered_chunks}


def check_one_cache(folder: Path, told: dict[str, Any], processes: int, rounds: int, locks: bool) -> float:
    """Fill one cache from several processes, again and again; return the work done as a multiple of what is needed."""
    expected = prepared(told, folder / "alone")
    assert expected["computed"] > 90
    barrier = multiprocessing.get_context("fork").Barrier(processes)

    def work(number: int) -> list[dict[str, Any]]:
        if not locks:
            no_locks()
        found = []
        for each in range(rounds):
            (folder / f"cache {each}").mkdir(exist_ok=True)
            barrier.wait(timeout=300)
            try:
                found.append(prepared(told, folder / f"cache {each}"))
            except BaseException:
                barrier.abort()  # the others need not wait
                raise
        return found

    found = [one for each in at_once(folder, processes, work) for one in each]
    assert len(found) == processes * rounds
    assert {one["rows"] for one in found} == {expected["rows"]}
    assert {one["altered"] for one in found} == {0}
    for each in range(rounds):
        assert prepared(told, folder / f"cache {each}") == {**expected, "computed": 0}
        assert not [path for path in (folder / f"cache {each}").rglob("*") if path.suffix in (".tmp", ".altered")]
    return sum(one["computed"] for one in found) / (rounds * expected["computed"])


@pytest.mark.parametrize("locks", [True, False], ids=["locks", "no locks"])
@pytest.mark.parametrize(("processes", "rounds"), [(4, 4), pytest.param(8, 50, marks=pytest.mark.slow)])
def test_processes_fill_one_cache(
    tmp_path: Path, told: dict[str, Any], processes: int, rounds: int, locks: bool
) -> None:
    times = check_one_cache(tmp_path, told, processes, rounds, locks)
    print(f"{processes} processes, {rounds} rounds, {'locks' if locks else 'no locks'}: work done {times:.2f} times")
    assert times <= 1.1 if locks else times > 1.1  # else locks were not patched out


def once_more(folder: Path, out: Path, asked: dict[str, Any]) -> list[str]:
    """Run a study in a process of its own; return the warnings."""
    said: list[str] = []

    def emit(event: Event) -> None:
        if isinstance(event, Warned):
            said.append(event.text)

    results = Study(**tiny_study(folder, **asked)).run(out, emit=emit, workers=0)
    assert results.failed == ()
    return said


def check_one_study(folder: Path, monkeypatch: pytest.MonkeyPatch, rounds: int, asked: dict[str, Any]) -> None:
    monkeypatch.setenv("UNFREEZE_CACHE", str(folder / "cache"))
    once_more(folder, folder / "alone", asked)
    expected = all_but_times(folder / "alone")
    barrier = multiprocessing.get_context("fork").Barrier(2)

    def work(number: int) -> list[str]:
        no_locks()
        saving.SAVE_SECONDS, saving.SHARE = 0.0, 1e9
        said = []
        for each in range(rounds):
            barrier.wait(timeout=300)
            time.sleep(0.3 * number * (each % 3))  # side by side, and one behind the other
            said += once_more(folder, folder / f"out {each}", asked)
        return said

    at_once(folder, 2, work)
    for each in range(rounds):
        out = folder / f"out {each}"
        store = StudyDir(out)
        assert store.set_aside_altered(store.planned_cells()) == []
        assert all_but_times(out) == expected
        assert (out / "report.html").stat().st_size > 10_000
        assert read_json(out / "explain" / "explain.json")["complete"]
        assert not [path for path in out.rglob("*") if path.suffix in (".tmp", ".altered") or path.name == "running"]


def test_two_runs_of_one_study_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_one_study(tmp_path, monkeypatch, 2, {"strategies": GROUP | SCRATCH, "regimes": BANK})


@pytest.mark.slow
def test_many_pairs_of_runs_of_one_study_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_one_study(tmp_path, monkeypatch, 30, MANY)


def killed_while(hold: Callable[[], Any]) -> None:
    """Have a process hold something, and kill it."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        with hold():
            os.write(writing, b"!")
            time.sleep(60)
        os._exit(1)
    os.close(writing)
    assert os.read(reading, 1) == b"!"
    os.close(reading)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def test_a_killed_holder_s_lock_is_free_soon(tmp_path: Path) -> None:
    lock, waited = tmp_path / "entry" / "work.lock", list[float]()
    killed_while(lambda: exclusively(lock, lambda: None))
    began = time.monotonic()
    with exclusively(lock, lambda: waited.append(time.monotonic())):
        assert time.monotonic() - began < SOON
    killed_while(lambda: held(tmp_path / "study"))
    began = time.monotonic()
    with held(tmp_path / "study"):
        assert time.monotonic() - began < SOON


def test_who_waits_gets_the_lock_soon_after_the_holder_s_death(tmp_path: Path) -> None:
    lock = tmp_path / "work.lock"
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        with exclusively(lock, lambda: None):
            os.write(writing, b"!")
            time.sleep(60)
        os._exit(1)
    assert os.read(reading, 1) == b"!"
    killed: list[float] = []

    def kill() -> None:
        if not killed:
            killed.append(time.monotonic())
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)

    with exclusively(lock, kill):
        assert time.monotonic() - killed[0] < SOON
    os.close(reading)
    os.close(writing)


def test_what_ends_the_wait_is_not_taken_for_a_lock(tmp_path: Path) -> None:
    lock = tmp_path / "work.lock"

    def end() -> None:
        raise BrokenPipeError

    with exclusively(lock, lambda: None), pytest.raises(BrokenPipeError), exclusively(lock, end):
        pass


def test_a_second_run_on_a_study_in_the_meantime_finds_its_cells_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where locks do nothing, what another run has finished is taken, not run again."""
    monkeypatch.setenv("UNFREEZE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)
    study = Study(**tiny_study(tmp_path, **TWO_GROUPS))
    said: list[str] = []

    def emit(event: Event) -> None:
        if isinstance(event, Planned):
            study.run(tmp_path / "out", workers=0)
        said.append(type(event).__name__)

    study.run(tmp_path / "out", emit=emit, workers=0)
    assert said.count("CellFinished") == 2
    assert "CellStarted" not in said


def test_processes_write_one_cell_and_one_state_without_locks(tmp_path: Path) -> None:
    """Eight at the same moment, 50 times, over nothing or what is stale: whoever looks finds a whole one."""
    processes, rounds = 8, 50
    barrier = multiprocessing.get_context("fork").Barrier(processes)

    def work(number: int) -> int:
        no_locks()
        wins = 0
        for each in range(rounds):
            store, cell = StudyDir(tmp_path / f"out {each}"), {"cell": "a.b.s0", "fingerprint": "new"}
            barrier.wait(timeout=300)
            if each % 2 and not number:
                write_cell(store, "old", number)
            barrier.wait(timeout=300)
            write_state(store.state("a.b.s0"), {}, CellCheckpoint(frozen_rows={"number": number}))
            found = read_state(store.state("a.b.s0"), {})
            assert found.state is not None and found.state.frozen_rows["number"] in range(processes)
            write_cell(store, "new", number)
            barrier.wait(timeout=300)
            row = store.finished("a.b.s0", "new")
            assert row is not None and store.is_finished(cell)
            assert set(sealed(store.cell("a.b.s0"), ["cell.json", "model.safetensors"]))
            wins += row["number"] == number
        return wins

    assert sum(at_once(tmp_path, processes, work)) == rounds
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".tmp", ".altered")]


def write_cell(store: StudyDir, fingerprint: str, number: int) -> None:
    with store.new_cell("a.b.s0", fingerprint) as folder:
        write_json(folder / "cell.json", {"fingerprint": fingerprint})
        write_tensors(folder / "model.safetensors", {"a": np.full(1000, number)}, {})
        files = sealed(folder, ["cell.json", "model.safetensors"])
        write_json(folder / "result.json", {"number": number, "files": files})
