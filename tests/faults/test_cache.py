"""The cache under faults: replaced, cut short or deleted under a reader, read-only, another user's, odd clocks."""

import errno
import os
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.torch import save_file

from tests.support.finished import tables
from tests.support.killer import ONE, Killer
from tests.support.worlds import tiny_study, write_weights
from unfreeze import Study
from unfreeze.data.decode import decode
from unfreeze.data.unusable import Undecodable
from unfreeze.errors import UserError
from unfreeze.events import BetweenSteps, Event, Warned
from unfreeze.model.backbone import load_backbone
from unfreeze.storage import cache, shards
from unfreeze.storage.array_store import ArrayStore, entry
from unfreeze.storage.records import Altered, read_json, read_tensors, write_tensors
from unfreeze.storage.shards import MissingRows
from unfreeze.study.run import run_study

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="POSIX")

BANK = {"small": {"train_per_class": 5, "val_per_class": 2, "augment": "flip_crop", "views": 2}}
ROWS = [(f"{number:064x}", 0) for number in range(8)]


def never(count: int) -> None:
    raise RuntimeError(f"{count} chunks are said to be altered")


def value(number: int) -> np.ndarray:
    return np.full(1000, number, np.float32)


def fill(store: ArrayStore) -> None:
    with store.writer() as writer:
        for number, row in enumerate(ROWS):
            writer.add(row, value(number))


@pytest.fixture
def store(tmp_path: Path) -> ArrayStore:
    made = entry(tmp_path, "activations", "x", {}, "float32")
    fill(made)
    return made


def rows_file(store: ArrayStore) -> Path:
    return next(store.folder.glob(f"*{shards.DATA}"))


def test_a_reader_keeps_what_it_opened_while_the_file_is_replaced(store: ArrayStore) -> None:
    opened, path = store.open(ROWS, never), rows_file(store)
    other = path.with_suffix(".new")
    other.write_bytes(bytes(path.stat().st_size))
    other.replace(path)
    for number in range(len(ROWS)):
        np.testing.assert_array_equal(opened.read(number), value(number))
    told: list[int] = []
    with pytest.raises(MissingRows):
        store.open(ROWS, told.append)  # who opens it now notices
    assert told == [1]


def test_a_file_that_is_cut_short_under_a_reader_is_an_error_and_no_signal(store: ArrayStore) -> None:
    opened, path = store.open(ROWS, never), rows_file(store)
    os.truncate(path, 4000)
    np.testing.assert_array_equal(opened.read(0), value(0))
    with pytest.raises(UserError) as caught:
        opened.read(7)
    assert str(caught.value) == (
        f"{path} cannot be read any more: a shard of the cache ends before its last row\n"
        "  expected: a cache that only unfreeze writes to\n"
        "  fix:      run the same command again; missing rows are computed again"
    )


def mapped(path: Path) -> bool:
    return str(path) in Path("/proc/self/maps").read_text()


@pytest.mark.skipif(not Path("/proc/self/maps").is_file(), reason="asks Linux which files are mapped")
def test_no_file_of_a_study_or_of_weights_stays_mapped(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write_tensors(path, {"a": np.arange(10**6, dtype=np.float32)}, {"b": 1})
    arrays, about = read_tensors(path)
    assert not mapped(path)
    with safe_open(path, "np") as file:  # the library reads it, and would map it
        np.testing.assert_array_equal(file.get_tensor("a"), arrays["a"])
        assert mapped(path)
    os.truncate(path, 1000)
    np.testing.assert_array_equal(arrays["a"], np.arange(10**6, dtype=np.float32))
    assert about == {"format": 1, "b": 1}
    with pytest.raises(Altered):
        read_tensors(path)
    weights = write_weights(tmp_path / "w.safetensors")
    backbone = load_backbone("test_resnet", str(weights), 32, 0)
    assert not mapped(weights)
    os.truncate(weights, 0)
    assert all(bool(tensor.isfinite().all()) for tensor in backbone.model.state_dict().values())


def test_entries_deleted_under_their_readers_fail_nobody(tmp_path: Path) -> None:
    """A process deletes the entry at any moment; this one writes, opens and reads it, 50 times each.

    It waits about as long as an entry takes to be written, so that some are and some are not. An entry that goes
    between a shard's data and its manifest looks damaged, and is written again.
    """
    store = entry(tmp_path, "activations", "x", {}, "float32")
    began = time.perf_counter()
    fill(store)
    longest = 3 * (time.perf_counter() - began)
    child = os.fork()
    if not child:
        moments = np.random.default_rng(0)
        while True:
            cache.evict(store.folder)
            time.sleep(moments.uniform(0, longest))
    read, gone, gone_in_writing = 0, 0, 0
    latest = time.monotonic() + 120
    try:
        while (read < 50 or gone < 50 or not gone_in_writing) and time.monotonic() < latest:
            try:
                opened = store.open(ROWS, lambda count: None)
            except MissingRows:
                gone += 1
                try:
                    fill(store)
                except UserError:  # its folder went while the shard was written: said, and written again
                    gone_in_writing += 1
                continue
            for number in range(len(ROWS)):
                np.testing.assert_array_equal(opened.read(number), value(number))
            read += 1
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
    assert read >= 50
    assert gone >= 50
    assert gone_in_writing


def test_what_is_marked_as_in_use_is_never_deleted_for_room(store: ArrayStore) -> None:
    with cache.in_use([store]):
        for _ in range(100):
            assert cache.make_room(store.folder.parents[1], 10**6, 0, {}) == 0
            assert store.missing(ROWS) == []


def read_only(number: int) -> Callable[..., Any]:
    def fails(*arguments: Any, **named: Any) -> Any:
        raise OSError(number, os.strerror(number))

    return fails


def warnings_of(told: list[Event]) -> list[str]:
    """Return what was said but of the data, which is scarce."""
    return [event.text for event in told if isinstance(event, Warned) and not event.text.startswith("class ")]


def run(folder: Path, name: str, told: list[Event] | None = None, **values: Any) -> Path:
    emit = (lambda event: None) if told is None else told.append
    outcome = run_study(Study(**tiny_study(folder, regimes=BANK, **values)).config, folder / name, emit, workers=0)
    assert outcome.failed == ()
    return folder / name


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished study whose cache did as it should, in a folder where others run on the same data."""
    return run(tmp_path_factory.mktemp("runs"), "whole")


@pytest.mark.parametrize(
    "number",
    [
        errno.ENOSPC,
        errno.EROFS,
        *(pytest.param(each, marks=pytest.mark.slow) for each in (errno.EACCES, errno.EDQUOT)),
    ],
)
def test_a_cache_that_fails_in_the_midst_costs_the_store_alone(
    number: int, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNFREEZE_CACHE", str(tmp_path / "cache"))
    told: list[Event] = []
    append, rows = shards.NewShard.append, 0

    def fails(self: shards.NewShard, row: Any, array: np.ndarray) -> None:
        nonlocal rows
        rows += array.dtype == np.float32  # of activations; pictures are stored
        if rows > 3:
            raise OSError(number, os.strerror(number))
        append(self, row, array)

    monkeypatch.setattr(shards.NewShard, "append", fails)
    out = run(whole.parent, tmp_path.name, told)
    why = f"cannot write to the cache: {os.strerror(number)}"
    assert warnings_of(told) == [
        f"nothing more is stored in the cache, so frozen stages run live: {why}; free space there, or set "
        "UNFREEZE_CACHE to another folder"
    ]
    assert read_json(out / "shared.json")["runs"][0]["unstored"] == why
    assert tables(out) == tables(whole)
    assert not list((tmp_path / "cache").rglob("*.tmp"))


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_a_cache_that_can_only_be_read_is_said_once(
    number: int, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNFREEZE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(tempfile, "TemporaryFile", read_only(number))
    told: list[Event] = []
    out = run(whole.parent, tmp_path.name, told)
    assert warnings_of(told) == [
        f"the cache {tmp_path / 'cache'} cannot be written to ({os.strerror(number)}), so all images are read again "
        "each time and frozen stages run live; name another folder in UNFREEZE_CACHE"
    ]
    assert tables(out) == tables(whole)


@pytest.fixture
def shared_killer(killer: Killer) -> Iterator[Killer]:
    """The study in a folder that every user may read, and write to."""
    with tempfile.TemporaryDirectory(prefix="unfreeze-shared-") as name:
        folder = Path(name)
        shutil.copytree(killer.folder / "photographs", folder / "photographs")
        for each in ("weights.safetensors", "study.yaml"):
            shutil.copy(killer.folder / each, folder / each)
        folder.chmod(0o777)
        (folder / "weights.safetensors").chmod(0o644)
        yield Killer(folder, killer.zygote)


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="becomes another user, which root alone may")
def test_another_user_runs_without_the_cache_and_reads_what_the_first_one_wrote(shared_killer: Killer) -> None:
    folder, nobody = shared_killer.folder, 65534
    before = ["run", "study.yaml", "--out", "first", *ONE]
    done = shared_killer.run("second", more=ONE, before=before, user=nobody, cache="cache-first")
    log = shared_killer.log("second")
    assert done["code"] == 0, log
    assert log.count(f"the cache {folder / 'cache-first'} cannot be written to (Permission denied)") == 1
    modes = {
        stat.S_IMODE(path.stat().st_mode)
        for part in ("first", "cache-first")
        for path in (folder / part).rglob("*")
        if path.is_file()
    }
    assert modes == {0o644}
    assert {path.stat().st_uid for path in (folder / "first").rglob("*")} == {0}
    assert {path.stat().st_uid for path in (folder / "second").rglob("*")} == {nobody}
    assert tables(folder / "second") == tables(folder / "first")


@pytest.mark.parametrize(
    ("umask", "mode"),
    [
        (0o002, 0o664),
        pytest.param(0o027, 0o640, marks=pytest.mark.slow),
        pytest.param(0o077, 0o600, marks=pytest.mark.slow),
    ],
)
def test_every_file_follows_the_umask(umask: int, mode: int, killer: Killer) -> None:
    name = f"umask-{umask:o}"
    assert killer.run(name, more=ONE, umask=umask)["code"] == 0, killer.log(name)
    files = [path for part in (name, f"cache-{name}") for path in (killer.folder / part).rglob("*") if path.is_file()]
    assert len(files) > 15
    assert {path.name: oct(stat.S_IMODE(path.stat().st_mode)) for path in files} == {
        path.name: oct(mode) for path in files
    }


def test_a_clock_that_goes_backwards_stops_nothing(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNFREEZE_CACHE", str(tmp_path / "cache"))
    now = [time.time()]

    def backwards() -> float:
        now[0] -= 3600
        return now[0]

    monkeypatch.setattr(time, "time", backwards)
    told: list[Event] = []
    out = run(whole.parent, tmp_path.name, told)
    assert any(isinstance(event, BetweenSteps) for event in told)
    assert warnings_of(told) == []
    assert tables(out) == tables(whole)


def test_uses_in_the_future_go_last_and_room_is_made_all_the_same(tmp_path: Path) -> None:
    stores = [entry(tmp_path, "activations", name, {"name": name}, "float32") for name in ("past", "now", "future")]
    for store, seconds in zip(stores, (-(10**6), 0, 10**8), strict=True):
        fill(store)
        (store.folder / cache.USED).touch()
        os.utime(store.folder / cache.USED, (time.time() + seconds, time.time() + seconds))
    size = max(cache.folder_bytes(store.folder) for store in stores)
    assert cache.make_room(tmp_path, size, 3 * size, {}) >= size
    assert [store.folder.exists() for store in stores] == [False, True, True]
    assert cache.make_room(tmp_path, 3 * size, 3 * size, {}) >= 3 * size
    assert not any(store.folder.exists() for store in stores)


@pytest.mark.skipif(sys.platform != "linux", reason="Windows has a limit of its own")
def test_long_paths_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = tmp_path.joinpath(*["a folder with quite a long name, as people give them " + "x" * 40] * 4)
    deep.mkdir(parents=True)
    assert len(str(deep)) > 400
    monkeypatch.setenv("UNFREEZE_CACHE", str(deep / "cache"))
    out = run(deep, "out")
    assert (out / "cells" / "head.small.s0" / "result.json").is_file()


@pytest.mark.slow
def test_a_file_of_three_gigabytes_is_set_aside_without_memory(tmp_path: Path) -> None:
    path = tmp_path / "huge.jpg"
    with path.open("wb") as file:
        file.truncate(3 * 10**9)
    before = resident()
    with pytest.raises(Undecodable):
        decode(path)
    asked = tiny_study(tmp_path)
    shutil.move(path, tmp_path / "photographs" / "circle" / "huge.jpg")
    run_study(Study(**asked).config, tmp_path / "out", lambda event: None, workers=0)
    assert "huge.jpg" in (tmp_path / "out" / "catalog.csv").read_text()
    assert resident() - before < 600 * 2**20  # a study of such images alone takes 300 MB


def resident() -> int:
    """Return the most memory that this process has held, in bytes."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def test_weights_that_are_cut_short_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file({"a": __import__("torch").zeros(1000)}, path)
    os.truncate(path, 2000)
    with pytest.raises(UserError, match="cannot be read"):
        load_backbone("test_resnet", str(path), 32, 0)
