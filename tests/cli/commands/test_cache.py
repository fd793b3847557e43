"""``unfreeze cache``: list, tidy and clear; other files are never changed."""

import os
import time

import numpy as np
import pytest

from tests.support.ages import make_old
from unfreeze.storage.array_store import entry
from unfreeze.storage.cache import in_use

ABOUT = {"backbone": "vgg16", "cut": "block 4", "size": "128 pixels", "view": "plain view"}


@pytest.fixture
def stores(folder):
    """Two entries, the second without words of its own."""
    made = [
        entry(folder / "cache", "activations", "vgg16.b4", {"about": ABOUT}, "float32"),
        entry(folder / "cache", "pixels", "146 crop", {"size": 146}, "uint8"),
    ]
    for store, days in zip(made, (2, 0), strict=True):
        with in_use([store]), store.writer() as writer:
            for number in range(3):
                writer.add((f"{number:064x}", 0), np.zeros(10_000 * (days + 1), store.dtype))
        old = time.time() - days * 86400 - 61
        os.utime(store.folder / "used", (old, old))
    return made


@pytest.fixture
def cache(folder, stores):
    """A cache with two entries, unfinished files, records, a data set, and links that lead out."""
    (stores[0].folder / ".x.rows.ab.tmp").write_bytes(bytes(50_000))
    (folder / "cache" / "pixels" / ".cd.tmp").mkdir()
    make_old(stores[0].folder / ".x.rows.ab.tmp", folder / "cache" / "pixels" / ".cd.tmp")
    (folder / "cache" / "looks").mkdir()
    (folder / "cache" / "looks" / "a.jsonl").write_bytes(bytes(2000))
    (folder / "cache" / "food-101").mkdir()
    (folder / "cache" / "food-101" / "mine.tmp").write_text("x")
    (folder / "mine").mkdir()
    (folder / "mine" / "photo").write_text("x")
    (folder / "cache" / "link").symlink_to(folder / "mine", target_is_directory=True)
    (folder / "cache" / "calibrations").symlink_to(folder / "mine", target_is_directory=True)
    return folder / "cache"


@pytest.mark.parametrize("command", [["ls"], ["clear"], ["clear", "--yes"]])
def test_an_empty_cache(unfreeze, folder, command):
    assert unfreeze("cache", *command) == (0, f"the cache {folder / 'cache'} is empty\n", "")


def test_nothing_to_delete(unfreeze, folder):
    said = f"nothing to delete: {folder / 'cache'} holds nothing unfinished that is a day old and no more than 20GB\n"
    assert unfreeze("cache", "gc") == (0, said, "")


def test_ls(unfreeze, cache, stores):
    with in_use(stores[1:]):
        code, said, _ = unfreeze("cache", "ls")
    assert code == 0
    rows = [line.split("  ") for line in said.splitlines()]
    assert rows[0] == [str(cache)]
    assert [[part.strip() for part in row if part.strip()] for row in rows[2:-2] if len(row) > 1] == [
        ["kind", "of", "size", "rows", "last used", "in use"],
        ["activations", "vgg16, block 4, 128 pixels, plain view", "410.7 kB", "3", "2 days"],
        ["pixels", "146-crop", "30.6 kB", "3", "just now", "yes"],
        ["looks", "records of studies", "2.0 kB"],
    ]
    assert said.splitlines()[-1] == "443.4 kB in all"


def test_gc_deletes_only_unfinished_data(unfreeze, cache):
    kept = {path for path in cache.rglob("*") if path.suffix != ".tmp"} | {cache / "food-101" / "mine.tmp"}
    assert unfreeze("cache", "gc") == (0, f"deleted 2 leftovers of {cache}: 50.0 kB\n", "")
    assert set(cache.rglob("*")) == kept


def test_gc_deletes_old_entries_beyond_its_limit(unfreeze, cache, stores, monkeypatch):
    monkeypatch.setattr("unfreeze.cli.commands.cache.KEPT", "100KB")
    said = unfreeze("cache", "gc")[1]
    assert said.startswith(f"deleted 2 leftovers and 1 least recently used entry of {cache}: 41")
    assert [store.folder.exists() for store in stores] == [False, True]


def test_clear(unfreeze, cache):
    code, said, _ = unfreeze("cache", "clear", "--yes")
    assert (code, said) == (0, f"deleted activations, pixels and looks of {cache}: 443.4 kB\n")
    assert sorted(path.name for path in cache.iterdir()) == ["calibrations", "food-101", "link"]
    assert (cache.parent / "mine" / "photo").exists()


def test_clear_keeps_entries_in_use_and_lists_them(unfreeze, cache, stores):
    with in_use(stores[1:]):
        _, said, _ = unfreeze("cache", "clear", "--yes")
        assert said.splitlines()[1] == "kept, since a running study uses it: pixels of 146-crop, 30.6 kB"
    assert [store.folder.exists() for store in stores] == [False, True]
    assert len(stores[1].held()) == 3


def test_clear_asks(unfreeze, cache, monkeypatch):
    asked = []
    monkeypatch.setattr("typer.confirm", asked.append)
    code, said, _ = unfreeze("cache", "clear")
    assert (code, said) == (0, "nothing was deleted\n")
    assert asked == [f"Delete activations, pixels and looks, 443.4 kB, of {cache}?"]
    assert len(list(cache.iterdir())) == 6
