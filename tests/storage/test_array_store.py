"""Rows are read as they were written or count as missing, whatever happened to their files."""

import multiprocessing
import os
import pickle
import random
import shutil
import signal
import threading
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unfreeze.errors import UserError
from unfreeze.storage import array_store as rowstore
from unfreeze.storage import atomic as durable
from unfreeze.storage import records as study_store
from unfreeze.storage import shards
from unfreeze.storage import shards as reading
from unfreeze.storage.array_store import RECORD, ArrayStore, entry
from unfreeze.storage.shards import MissingRows, Row

IDENTITY = {"weights": "ab", "cut": 4, "size": 32}
posix = pytest.mark.skipif(os.name != "posix", reason="kills and forks")


def row(number: int, view: int = 0) -> Row:
    return f"{number:064x}", view


def value(of: Row, shape: tuple[int, ...] = (5, 3)) -> np.ndarray:
    return np.random.default_rng([int(of[0], 16), of[1]]).normal(size=shape).astype(np.float32)


@pytest.fixture
def store(tmp_path: Path) -> ArrayStore:
    return entry(tmp_path, "activations", "vgg16 block4", IDENTITY, "float32")


def fill(store: ArrayStore, rows: list[Row], shard_bytes: int = 300, chunk_bytes: int = 128) -> None:
    with store.writer(shard_bytes, chunk_bytes) as writer:
        for each in rows:
            writer.add(each, value(each))


def never(count: int) -> None:
    raise RuntimeError(f"{count} chunks are said to be altered")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def complete(store: ArrayStore, rows: list[Row], on_altered: Callable[[int], None]) -> None:
    """Open, write what is missing, and compare every row."""
    try:
        opened = store.open(rows, on_altered)
    except MissingRows as error:
        fill(store, error.rows)
        opened = store.open(rows, never)
    for index, each in enumerate(rows):
        np.testing.assert_array_equal(opened.read(index), value(each))


def test_a_key_reads_well_and_rests_on_all_of_the_identity(tmp_path: Path) -> None:
    made = entry(tmp_path, "activations", "vgg16/tv in1k: block4..", IDENTITY, "float32")
    assert made.folder.parent == tmp_path / "activations"
    assert made.folder.name[:-16] == "vgg16-tv-in1k-block4-"
    assert entry(tmp_path, "pixels", "../..", IDENTITY, "uint8").folder.name.startswith("pixels-")
    others = [
        entry(tmp_path, "activations", "vgg16/tv in1k: block4..", IDENTITY | {key: 0}, "float32") for key in IDENTITY
    ]
    others.append(entry(tmp_path, "activations", "vgg16/tv in1k: block4..", IDENTITY, "float16"))
    assert len({made.folder, *(other.folder for other in others)}) == 1 + len(others)
    assert names(tmp_path) == []


def test_rows_come_back(store: ArrayStore) -> None:
    rows = [row(number, view) for number in range(10) for view in range(2)]
    assert store.missing([*rows, *rows]) == rows
    fill(store, rows)
    assert store.held() == frozenset(rows)
    assert store.missing([row(99), *rows, row(98), row(99)]) == [row(99), row(98)]
    asked = [rows[7], rows[3], rows[7]]
    opened = store.open(asked, never)
    assert len(opened) == 3
    assert opened.shape(1) == (5, 3)
    out = np.empty((4, 5, 3), np.float32)
    opened.read_many([2, 1, 0, 1], out)
    np.testing.assert_array_equal(out, np.stack([value(asked[index]) for index in (2, 1, 0, 1)]))
    record = study_store.read_json(store.folder / RECORD)
    assert record == {"format": 1, "dtype": "float32", "identity": IDENTITY}
    assert len(list(store.folder.glob("*.rows"))) == len(list(store.folder.glob("*.manifest"))) == 4
    assert len(names(store.folder)) == 9


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sets=st.lists(st.dictionaries(st.integers(0, 30), st.lists(st.integers(0, 5), max_size=3)), min_size=1, max_size=3),
    dtype=st.sampled_from(["uint8", "float16", "float32", "int64"]),
    shard_bytes=st.integers(1, 400),
    chunk_bytes=st.integers(1, 100),
    data=st.data(),
)
def test_any_rows_of_any_shapes_in_any_shards(
    tmp_path_factory: pytest.TempPathFactory,
    sets: list[dict[int, list[int]]],
    dtype: str,
    shard_bytes: int,
    chunk_bytes: int,
    data: st.DataObject,
) -> None:
    store = entry(tmp_path_factory.mktemp("cache"), "pixels", "", {}, dtype)
    written: dict[Row, np.ndarray] = {}
    for content in sets:
        with store.writer(shard_bytes, chunk_bytes) as writer:
            for number, shape in content.items():
                array = (np.random.default_rng(number).random(shape) * 255).astype(dtype)
                array = written.setdefault(row(number), array)
                writer.add(row(number), array)
                writer.add(row(number), array)
    assert store.held() == frozenset(written)
    asked = data.draw(st.lists(st.sampled_from(sorted(written)), max_size=10)) if written else []
    opened = store.open(asked, never)
    copy = pickle.loads(pickle.dumps(opened))
    for index, each in enumerate(asked):
        assert opened.shape(index) == copy.shape(index) == written[each].shape
        for array in (opened.read(index), copy.read(index)):
            assert array.dtype == dtype
            np.testing.assert_array_equal(array, written[each])
        out = np.empty((2, *written[each].shape), dtype)
        opened.read_many([index, index], out)
        np.testing.assert_array_equal(out[1], written[each])


def test_views_into_other_arrays_are_written_as_they_look(store: ArrayStore) -> None:
    array = np.arange(24, dtype=np.float32).reshape(4, 6)[::2, ::-1].T
    with store.writer() as writer:
        writer.add((row(1)[0], np.int64(0)), array)  # type: ignore[arg-type]
    np.testing.assert_array_equal(store.open([row(1)], never).read(0), array)


def test_what_does_not_fit_is_refused(store: ArrayStore) -> None:
    with pytest.raises(ValueError, match=r"^a row of float64 for a store of float32$"), store.writer() as writer:
        writer.add(row(1), np.zeros(3))
    assert names(store.folder) == []
    fill(store, [row(1)])
    opened = store.open([row(1)], never)
    wrong = [np.empty((1, 5, 3), np.float64), np.empty((2, 5, 3), np.float32), np.empty((1, 3, 5), np.float32)]
    for out in [*wrong, np.empty((1, 3, 5), np.float32).swapaxes(1, 2)]:
        with pytest.raises(ValueError, match=r"^rows of float32 with shapes \[\(5, 3\)\] for 1 indices do not fit "):
            opened.read_many([0], out)


def test_completeness_is_asserted(store: ArrayStore) -> None:
    fill(store, [row(1)])
    with pytest.raises(MissingRows, match=r"^2 rows are not in the store$") as caught:
        store.open([row(3), row(1), row(2), row(3)], never)
    assert caught.value.rows == [row(3), row(2)]
    assert pickle.loads(pickle.dumps(caught.value)).rows == [row(3), row(2)]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_exception_leaves_what_was_added_and_no_litter(store: ArrayStore, error: type[BaseException]) -> None:
    with pytest.raises(error), store.writer(shard_bytes=120) as writer:
        for number in range(5):
            writer.add(row(number), value(row(number)))
        raise error
    assert store.held() == {row(number) for number in range(5)}
    assert [Path(name).suffix for name in names(store.folder)].count(".rows") == 3
    assert len(names(store.folder)) == 7


def test_a_shard_is_finished_within_a_minute(store: ArrayStore, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(rowstore.time, "monotonic", lambda: now[0])
    with store.writer() as writer:
        for number, now[0] in enumerate((1000.0, 1059.0, 1060.0, 1061.0, 1121.0)):
            writer.add(row(number), value(row(number)))
            if number == 1:
                assert not store.held()
            if number == 3:  # its shard began with it
                assert store.held() == {row(0), row(1), row(2)}
        assert store.held() == {row(number) for number in range(5)}


def test_a_full_disk_is_said_and_leaves_no_litter(store: ArrayStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    fill(store, [row(0)])
    before = names(store.folder)
    monkeypatch.setattr(durable.os, "fsync", full)
    with pytest.raises(UserError) as caught:
        fill(store, [row(1)])
    assert str(caught.value) == (
        f"{caught.value.given}\n"
        "  expected: a cache folder that can be written to, with room on its disk\n"
        "  fix:      free space (unfreeze cache clear deletes all that can be computed again), or name another folder "
        "in UNFREEZE_CACHE; then run the same command again"
    )
    assert caught.value.given.startswith(f"cannot write {store.folder}{os.sep}")
    assert caught.value.given.endswith(".rows: No space left on device")
    assert names(store.folder) == before


@pytest.mark.parametrize("for_good", [False, True])
def test_whichever_sync_fails_leaves_no_half_of_a_shard(
    store: ArrayStore, monkeypatch: pytest.MonkeyPatch, for_good: bool
) -> None:
    rows, sync, syncs, failing = [row(number) for number in range(6)], os.fsync, 0, 1

    def fails(descriptor: int) -> None:
        nonlocal syncs
        syncs += 1
        if syncs == failing or (for_good and syncs > failing):
            raise OSError(28, "No space left on device")
        sync(descriptor)

    while True:
        syncs = 0
        monkeypatch.setattr(durable.os, "fsync", fails)
        try:
            fill(store, rows, shard_bytes=120)
        except UserError:
            failing += 1
        else:
            break
        finally:
            monkeypatch.setattr(durable.os, "fsync", sync)
        manifests = {Path(name).stem for name in names(store.folder) if name.endswith(".manifest")}
        assert manifests == {Path(name).stem for name in names(store.folder) if name.endswith(".rows")}, failing
        complete(store, rows, never)
        shutil.rmtree(store.folder)
    assert failing > 12  # the record, then data and manifest of three shards, with their folder each


def damaged_files(store: ArrayStore) -> list[Path]:
    return sorted(path for path in store.folder.iterdir() if path.suffix in (".rows", ".manifest"))


def check_damage(store: ArrayStore, rows: list[Row], damage: Callable[[Path], None], path: Path) -> None:
    """Damage one file of a good entry: noticed before use, never met again."""
    whole = store.folder.with_name("whole")
    shutil.copytree(store.folder, whole)
    try:
        damage(path)
        told: list[int] = []
        with pytest.raises(MissingRows) as caught:
            store.open(rows, told.append)
        assert told and min(told) >= 1
        assert set(caught.value.rows) <= set(rows)
        assert store.missing(rows) == caught.value.rows
        complete(store, [each for each in rows if each not in set(caught.value.rows)], never)
    finally:
        shutil.rmtree(store.folder)
        whole.rename(store.folder)


def test_cuts_are_noticed(store: ArrayStore) -> None:
    rows = [row(number) for number in range(12)]
    fill(store, rows)
    draw = random.Random(0)
    for number in range(64):
        path = draw.choice(damaged_files(store))
        size = draw.randrange(path.stat().st_size) if number else 0
        check_damage(store, rows, lambda path, size=size: os.truncate(path, size), path)  # type: ignore[misc]


def test_flipped_bits_are_noticed(store: ArrayStore) -> None:
    rows = [row(number) for number in range(12)]
    fill(store, rows)
    draw = random.Random(1)
    for number in range(256):
        path = draw.choice([path for path in damaged_files(store) if path.suffix == (".rows", ".manifest")[number % 2]])
        bit = draw.randrange(8 * path.stat().st_size)

        def flip(path: Path, bit: int = bit) -> None:
            data = bytearray(path.read_bytes())
            data[bit // 8] ^= 1 << bit % 8
            path.write_bytes(data)

        check_damage(store, rows, flip, path)


def test_each_of_a_thousand_flipped_bits_is_noticed_at_opening(store: ArrayStore) -> None:
    rows = [row(number) for number in range(12)]
    fill(store, rows, shard_bytes=10**6)
    (path,) = store.folder.glob("*.rows")
    manifest, whole, draw = path.with_suffix(".manifest"), path.read_bytes(), random.Random(2)
    listed = manifest.read_bytes()
    for bit in draw.sample(range(8 * len(whole)), 1000):
        altered = bytearray(whole)
        altered[bit // 8] ^= 1 << bit % 8
        path.write_bytes(altered)
        told: list[int] = []
        with pytest.raises(MissingRows):
            store.open(rows, told.append)
        assert told == [1], bit
        for aside in store.folder.glob("*.altered"):
            aside.unlink()
        manifest.write_bytes(listed)


@pytest.mark.parametrize("suffix", [".rows", ".manifest"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-20] + bytes(20)),
        lambda path: path.write_bytes(path.read_bytes() + b"\n"),
        lambda path: path.write_bytes(bytes(path.stat().st_size)),
        lambda path: (path.unlink(), path.mkdir()),
    ],
    ids=["empty", "zero tail", "longer", "zeros", "folder"],
)
def test_other_damage_is_noticed(store: ArrayStore, suffix: str, damage: Callable[[Path], None]) -> None:
    rows = [row(number) for number in range(12)]
    fill(store, rows)
    check_damage(store, rows, damage, next(path for path in damaged_files(store) if path.suffix == suffix))
    complete(store, rows, never)


def test_data_without_manifest_is_no_data_and_a_manifest_without_data_is_damage(store: ArrayStore) -> None:
    rows = [row(number) for number in range(12)]
    fill(store, rows)
    next(store.folder.glob("*.manifest")).unlink()
    assert len(store.missing(rows)) in (2, 5)
    complete(store, rows, never)
    next(store.folder.glob("*.manifest")).with_suffix(".rows").unlink()
    told: list[int] = []
    complete(store, rows, told.append)
    assert len(told) == 1


def test_a_sound_copy_of_an_altered_row_is_used(store: ArrayStore) -> None:
    fill(store, [row(1)])
    fill(store, [row(1)])
    first = min(store.folder.glob("*.manifest"))
    first.with_suffix(".rows").write_bytes(bytes(60))
    told: list[int] = []
    for _ in range(2):
        np.testing.assert_array_equal(store.open([row(1)], told.append).read(0), value(row(1)))
    assert told == [1]
    assert not first.exists()


def test_what_is_evicted_while_it_is_opened_is_missing_not_altered(
    store: ArrayStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(store, [row(1)])

    def evicted(path: Path) -> int:
        shutil.rmtree(store.folder)
        raise FileNotFoundError(path)

    monkeypatch.setattr(reading, "open_file", evicted)
    with pytest.raises(MissingRows):
        store.open([row(1)], never)


def test_only_the_chunks_that_are_needed_are_read(store: ArrayStore) -> None:
    fill(store, [row(number) for number in range(4)], shard_bytes=10**6, chunk_bytes=60)
    data = next(store.folder.glob("*.rows"))
    data.write_bytes(data.read_bytes()[:-1] + b"\0")
    assert len(store.open([row(0), row(2)], never)) == 2
    told: list[int] = []
    with pytest.raises(MissingRows):
        store.open([row(3), row(1)], told.append)
    assert told == [1]


def test_the_manifest_of_another_entry_is_not_used(tmp_path: Path, store: ArrayStore) -> None:
    other = entry(tmp_path, "activations", "other", {}, "float32")
    fill(store, [row(1)])
    shutil.copytree(store.folder, other.folder)
    assert other.held() == frozenset()


def test_too_many_open_files_are_not_taken_for_damage(store: ArrayStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_more(path: Path, flags: int) -> int:
        raise OSError(24, "Too many open files")

    fill(store, [row(1)])
    monkeypatch.setattr(shards.os, "open", no_more)
    with pytest.raises(OSError, match="Too many open files"):
        store.open([row(1)], never)
    monkeypatch.undo()
    assert store.missing([row(1)]) == []


@posix
def test_open_rows_outlive_their_entry(store: ArrayStore) -> None:
    fill(store, [row(1), row(2)])
    opened = store.open([row(1), row(2)], never)
    shutil.rmtree(store.folder)
    np.testing.assert_array_equal(opened.read(1), value(row(2)))
    assert store.missing([row(1)]) == [row(1)]


def test_without_preadv_threads_share_one_position(store: ArrayStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(shards.os, "preadv", raising=False)
    check_threads(store)


def test_threads_read_at_once(store: ArrayStore) -> None:
    check_threads(store)


def check_threads(store: ArrayStore) -> None:
    rows = [row(number) for number in range(40)]
    fill(store, rows, shard_bytes=10**6)
    opened = store.open(rows, never)
    wrong = []

    def read(seed: int) -> None:
        for index in np.random.default_rng(seed).permutation(40).tolist() * 5:
            if not np.array_equal(opened.read(index), value(rows[index])):
                wrong.append(index)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_rows_are_read_in_a_spawned_process(store: ArrayStore) -> None:
    fill(store, [row(1), row(2)])
    opened = store.open([row(1), row(2)], never)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        np.testing.assert_array_equal(pool.apply(opened.read, (1,)), value(row(2)))


def forked(work: Callable[[], None]) -> int:
    child = os.fork()
    if not child:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return child


@posix
def test_killed_at_any_point(store: ArrayStore) -> None:
    """Kill -9 a writer again and again: what is held is whole, and the rest is written by the next."""
    rows = [row(number) for number in range(400)]
    fill(store, rows[:1])
    for attempt in range(12):
        child = forked(lambda: fill(store, store.missing(rows), shard_bytes=200))
        time.sleep(0.004 * attempt)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        held = sorted(store.held())
        opened = store.open(held, never)
        for index, each in enumerate(held):
            np.testing.assert_array_equal(opened.read(index), value(each))
    assert len(held) > 1  # a writer was killed after it had written
    complete(store, rows, never)


@posix
def test_two_processes_write_the_same_rows_at_once(store: ArrayStore) -> None:
    rows = [row(number) for number in range(60)]
    children = [
        forked(lambda: fill(store, rows[:40], shard_bytes=200)),
        forked(lambda: fill(store, rows[20:][::-1], shard_bytes=250)),
    ]
    while store.missing(rows):
        held = sorted(store.held())
        opened = store.open(held, never)  # while they write
        for index, each in enumerate(held):
            np.testing.assert_array_equal(opened.read(index), value(each))
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
    complete(store, rows, never)


def test_many_small_rows_open_fast_and_hold_little(store: ArrayStore) -> None:
    rows = [row(number) for number in range(20_000)]
    with store.writer() as writer:
        for number, each in enumerate(rows):
            writer.add(each, np.full(4, number, np.float32))
    start = time.process_time()
    opened = store.open(rows, never)
    assert time.process_time() - start < 5
    assert len(pickle.dumps(opened)) < 20 * len(rows)
    out = np.empty((len(rows), 4), np.float32)
    opened.read_many(range(len(rows)), out)
    np.testing.assert_array_equal(out[:, 0], np.arange(len(rows)))


def test_writing_and_verifying_hold_little(store: ArrayStore) -> None:
    array = np.zeros(2**20, np.float32)
    tracemalloc.start()
    with store.writer() as writer:
        for number in range(16):
            writer.add(row(number), array)
    store.open([row(number) for number in range(16)], never)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 16 * 2**20
