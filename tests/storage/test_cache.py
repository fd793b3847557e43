"""Which entries are deleted when room is needed, and which never are."""

import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from tests.support.ages import make_old
from unfreeze.storage import cache
from unfreeze.storage.array_store import ArrayStore, entry
from unfreeze.storage.shards import MissingRows

ROW = ("ab", 0)


def make(folder: Path, label: str, used: float, size: int = 1000, kind: str = "activations") -> ArrayStore:
    """An entry with one row of so many bytes, last used so many seconds ago."""
    store = entry(folder, kind, label, {"label": label}, "uint8")  # type: ignore[arg-type]
    with cache.in_use([store]), store.writer() as writer:
        writer.add(ROW, np.zeros(size, np.uint8))
    os.utime(store.folder / "used", (time.time() - used,) * 2)
    return store


def left(folder: Path) -> list[str]:
    return [found.label for found in cache.entries(folder)]


def never(count: int) -> None:
    raise RuntimeError(f"{count} chunks are said to be altered")


def test_entries_tell_what_they_are(tmp_path: Path) -> None:
    store, other = make(tmp_path, "a b", 60), make(tmp_path, "c", 0, kind="pixels")
    (other.folder / "entry.json").write_text("{")
    first, second = cache.entries(tmp_path)
    assert (first.kind, first.label, first.path) == ("activations", "a-b", store.folder)
    assert (first.identity, first.rows, first.in_use) == ({"label": "a b"}, 1, False)
    assert 59 < time.time() - first.last_used < 70
    assert first.bytes == sum(path.stat().st_size for path in store.folder.iterdir())
    assert (second.kind, second.identity, second.rows) == ("pixels", {}, 1)
    assert cache.used_bytes(tmp_path) == first.bytes + second.bytes


def test_an_empty_cache_has_all_of_the_budget(tmp_path: Path) -> None:
    assert cache.entries(tmp_path / "none") == []
    assert cache.make_room(tmp_path / "none", 10, 100, {}) == 100


def test_the_least_recently_used_goes_first(tmp_path: Path) -> None:
    stores = [make(tmp_path, name, used) for name, used in (("new", 1), ("old", 1000), ("older", 2000))]
    make(tmp_path, "oldest", 3000, kind="pixels")
    total, size = cache.used_bytes(tmp_path), cache.folder_bytes(stores[0].folder)
    assert cache.make_room(tmp_path, 500, total + 500, {}) == 500
    assert left(tmp_path) == ["new", "old", "older", "oldest"]
    room = cache.make_room(tmp_path, 500, total, {})
    assert left(tmp_path) == ["new", "old", "older"]
    assert room == total - cache.used_bytes(tmp_path) >= 500
    cache.make_room(tmp_path, 0, 2 * size + 100, {stores[2].folder: {ROW}})
    assert left(tmp_path) == ["new", "older"]
    with cache.in_use([stores[2]]):
        pass
    cache.make_room(tmp_path, 0, 2 * size - 1, {})
    assert left(tmp_path) == ["older"]
    assert cache.make_room(tmp_path, 2000, 1500, {}) == 1500
    assert list(tmp_path.rglob("*")) == [tmp_path / "activations", tmp_path / "pixels"]


def test_entries_in_use_or_kept_stay_and_the_remaining_room_is_returned(tmp_path: Path) -> None:
    used, kept, _ = make(tmp_path, "used", 9), make(tmp_path, "kept", 8), make(tmp_path, "other", 7)
    with cache.in_use([used, used]):
        assert [found.in_use for found in cache.entries(tmp_path)] == [False, False, True]
        assert cache.make_room(tmp_path, 10**6, 10**5, {kept.folder: {ROW}}) == 10**5 - cache.used_bytes(tmp_path)
        assert left(tmp_path) == ["kept", "used"]
        assert cache.make_room(tmp_path, 10, 10, {kept.folder: {ROW}}) == 0
    assert [found.in_use for found in cache.entries(tmp_path)] == [False, False]
    assert not list(tmp_path.rglob("*.use"))
    cache.make_room(tmp_path, 10, 10, {})
    assert left(tmp_path) == []


def shards(folder: Path, label: str, **used: float) -> ArrayStore:
    """An entry of a shard of one row of 1000 bytes a name, each last used so many seconds ago."""
    store = entry(folder, "activations", label, {"label": label}, "uint8")
    for name, seconds in used.items():
        before = set(store.folder.glob("*.manifest"))
        with store.writer() as writer:
            writer.add((name, 0), np.zeros(1000, np.uint8))
        (manifest,) = set(store.folder.glob("*.manifest")) - before
        os.utime(manifest, (time.time() - seconds,) * 2)
    return store


def names(store: ArrayStore) -> list[str]:
    return sorted(name for name, _ in store.held())


def test_of_an_entry_that_is_kept_the_shards_without_a_needed_row_go(tmp_path: Path) -> None:
    store, other = shards(tmp_path, "mine", a=40, b=30, c=20, d=10), make(tmp_path, "other", 15)
    keep = {store.folder: {("a", 0), ("x", 0)}}
    total = cache.used_bytes(tmp_path)
    assert cache.make_room(tmp_path, 1, total, keep) > 1000
    assert names(store) == ["a", "c", "d"]
    assert cache.make_room(tmp_path, 2500, total, keep) > 2500
    assert (names(store), left(tmp_path)) == (["a", "d"], ["mine", "other"])
    assert cache.make_room(tmp_path, 3500, total, keep) > 3500
    assert (names(store), left(tmp_path), other.folder.exists()) == (["a", "d"], ["mine"], False)
    most = cache.obtainable(tmp_path, total, keep)
    assert cache.make_room(tmp_path, 10**6, total, keep) == most == total - cache.used_bytes(tmp_path)
    assert names(store) == ["a"]
    assert {path.suffix for path in store.folder.iterdir()} == {".json", ".rows", ".manifest"}


def test_one_s_own_mark_keeps_no_shard_and_that_of_another_does(tmp_path: Path) -> None:
    store = shards(tmp_path, "mine", a=40, b=30)
    keep = {store.folder: {("b", 0)}}
    with cache.in_use([store]) as mine:
        with cache.in_use([store]):
            used = cache.used_bytes(tmp_path)
            assert cache.make_room(tmp_path, 10**6, 10**5, keep, mine) == 10**5 - used
            assert cache.obtainable(tmp_path, 10**5, keep) == 10**5 - used
            assert names(store) == ["a", "b"]
        cache.make_room(tmp_path, 10**6, 10**5, keep, mine)
        assert names(store) == ["b"]


def test_what_could_be_had_counts_leftovers_and_deletes_nothing(tmp_path: Path) -> None:
    store = shards(tmp_path, "mine", a=40, b=30)
    make(tmp_path, "other", 15)
    (store.folder / "ab.rows").write_bytes(bytes(100))
    (tmp_path / "activations" / ".y.ab.tmp").mkdir()
    (tmp_path / "activations" / ".y.ab.tmp" / "ab.rows").write_bytes(bytes(50))
    make_old(store.folder / "ab.rows", tmp_path / "activations" / ".y.ab.tmp")
    before = sorted(tmp_path.rglob("*"))
    most = cache.obtainable(tmp_path, 10**5, {store.folder: {("b", 0)}})
    assert sorted(tmp_path.rglob("*")) == before
    assert cache.make_room(tmp_path, 10**6, 10**5, {store.folder: {("b", 0)}}) == most
    assert names(store) == ["b"]


def test_a_shard_is_used_when_its_rows_are_opened(tmp_path: Path) -> None:
    store = shards(tmp_path, "mine", a=40, b=30)
    store.open([("a", 0)], never)
    cache.make_room(tmp_path, 1, cache.used_bytes(tmp_path), {store.folder: set()})
    assert names(store) == ["a"]


def test_rows_opened_from_a_shard_that_then_goes_are_read_to_their_end_and_are_missing_then(tmp_path: Path) -> None:
    store = shards(tmp_path, "mine", a=40)
    opened = store.open([("a", 0)], never)
    cache.make_room(tmp_path, 10**6, 10**5, {store.folder: set()})
    assert not opened.read(0).any()
    with pytest.raises(MissingRows):
        store.open([("a", 0)], never)


def test_marking_what_is_then_not_written_leaves_nothing(tmp_path: Path) -> None:
    store = entry(tmp_path, "pixels", "x", {}, "uint8")
    with cache.in_use([store]):
        assert cache.entries(tmp_path)[0].in_use
    assert not store.folder.exists()


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_exception_ends_the_use(tmp_path: Path, error: type[BaseException]) -> None:
    store = make(tmp_path, "x", 0)
    with pytest.raises(error), cache.in_use([store]):
        raise error
    assert not cache.entries(tmp_path)[0].in_use


def test_an_entry_deleted_while_in_use_harms_nobody(tmp_path: Path) -> None:
    store = make(tmp_path, "x", 0)
    with cache.in_use([store]):
        opened = store.open([("ab", 0)], never)
        cache.evict(store.folder)
        assert not opened.read(0).any()
        assert store.missing([("ab", 0)]) == [("ab", 0)]
    assert left(tmp_path) == []
    assert cache.evict(store.folder) == 0


def test_a_cache_that_cannot_be_written_to_is_used_unmarked(tmp_path: Path) -> None:
    (tmp_path / "activations").write_text("a file")
    with cache.in_use([entry(tmp_path, "activations", "x", {}, "uint8")]):
        pass
    assert cache.entries(tmp_path) == []


@pytest.mark.skipif(os.name != "posix", reason="kills and forks")
def test_the_mark_dies_with_its_holder(tmp_path: Path) -> None:
    store = make(tmp_path, "x", 0)
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            with cache.in_use([store]), store.writer() as writer:
                writer.add(("cd", 0), np.zeros(10, np.uint8))
                os.write(writing, b"!")
                time.sleep(60)
        finally:
            os._exit(1)
    os.read(reading, 1)
    os.close(reading)
    os.close(writing)
    assert cache.entries(tmp_path)[0].in_use
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert not cache.entries(tmp_path)[0].in_use
    assert cache.tidy(tmp_path) == []
    make_old(*store.folder.iterdir())
    assert len(cache.tidy(tmp_path)) == 1
    assert {path.suffix for path in store.folder.iterdir()} == {"", ".json", ".rows", ".manifest"}


@pytest.mark.parametrize("old", [True, False])
def test_tidying_takes_only_what_is_old_and_nobody_will_use(tmp_path: Path, old: bool) -> None:
    store = make(tmp_path, "x", 0)
    kept = {path.name for path in store.folder.iterdir()} | {"notes.txt"}
    for name in (".ab.rows.x.tmp", "ab.rows", "cd.rows.altered", "cd.manifest.altered", "notes.txt"):
        (store.folder / name).write_bytes(bytes(100))
    (tmp_path / "pixels" / ".y.ab.tmp").mkdir(parents=True)
    (tmp_path / "pixels" / ".y.ab.tmp" / "ab.rows").write_bytes(bytes(50))
    (tmp_path / "food-101").mkdir()
    (tmp_path / "food-101" / "mine.tmp").write_text("mine")
    if old:
        make_old(*store.folder.iterdir(), *(tmp_path / "pixels").iterdir())
    assert sorted(cache.tidy(tmp_path)) == ([50, 100, 100, 100, 100] if old else [])
    assert ({path.name for path in store.folder.iterdir()} == kept) == old
    assert (tmp_path / "food-101" / "mine.tmp").exists()
    assert len(store.open([("ab", 0)], never)) == 1


def test_links_are_not_followed(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "photo.tmp").write_text("x")
    folder = tmp_path / "cache"
    make(folder, "x", 0)
    (folder / "activations" / "link").symlink_to(mine, target_is_directory=True)
    (folder / "pixels").symlink_to(mine, target_is_directory=True)
    assert left(folder) == ["x"]
    cache.tidy(folder)
    cache.make_room(folder, 1, 1, {})
    cache.clear(folder)
    assert (mine / "photo.tmp").exists()
    assert (folder / "pixels").is_symlink()
