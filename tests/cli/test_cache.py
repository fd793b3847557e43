"""The cache: listed, tidied and emptied; what is not the cache is never touched."""

import os
import time

import pytest


@pytest.fixture
def cache(folder):
    """A cache with an entry, an unfinished one in it, and a link that leads out."""
    entry = folder / "cache" / "activations" / "ab"
    entry.mkdir(parents=True)
    (entry / "shard.bin").write_bytes(bytes(150_000))
    (entry / "shard.bin.x.tmp").write_bytes(bytes(50_000))
    (folder / "cache" / "pixels" / "cd.tmp").mkdir(parents=True)
    (folder / "cache" / "food-101").mkdir()
    (folder / "cache" / "food-101" / "mine.tmp").write_text("x")
    (folder / "mine").mkdir()
    (folder / "mine" / "photo").write_text("x")
    (folder / "cache" / "link").symlink_to(folder / "mine", target_is_directory=True)
    old = time.time() - 2 * 86400 - 60
    os.utime(folder / "cache" / "activations", (old, old))
    return folder / "cache"


@pytest.mark.parametrize("command", [["ls"], ["clear"], ["clear", "--yes"]])
def test_an_empty_cache(unfreeze, folder, command):
    assert unfreeze("cache", *command) == (0, f"the cache {folder / 'cache'} is empty\n", "")


def test_nothing_unfinished(unfreeze, folder):
    assert unfreeze("cache", "gc") == (0, f"nothing to delete: {folder / 'cache'} holds nothing unfinished\n", "")


def test_ls(unfreeze, cache):
    code, said, _ = unfreeze("cache", "ls")
    assert code == 0
    rows = [line.split("  ") for line in said.splitlines()]
    assert rows[0] == [str(cache)]
    assert [[part.strip() for part in row if part] for row in rows[4:-2]] == [
        ["activations", "200.0 kB", "2 days"],
        ["pixels", "0 bytes", "just now"],
    ]
    assert said.splitlines()[-1] == "200.0 kB in all"


def test_gc_takes_only_what_is_unfinished(unfreeze, cache):
    assert unfreeze("cache", "gc") == (0, f"deleted 2 unfinished entries of {cache}: 50.0 kB\n", "")
    left = sorted(str(path.relative_to(cache)) for path in cache.rglob("*"))
    kept = ["activations", "activations/ab", "activations/ab/shard.bin", "food-101", "food-101/mine.tmp"]
    assert left == [*kept, "link", "pixels"]


def test_clear(unfreeze, cache):
    code, said, _ = unfreeze("cache", "clear", "--yes")
    assert (code, said) == (0, f"deleted activations and pixels of {cache}: 200.0 kB\n")
    assert sorted(path.name for path in cache.iterdir()) == ["food-101", "link"]
    assert (cache.parent / "mine" / "photo").exists()


def test_clear_asks(unfreeze, cache, monkeypatch):
    monkeypatch.setattr("typer.confirm", lambda question: False)
    code, said, _ = unfreeze("cache", "clear")
    assert (code, said) == (0, "nothing was deleted\n")
    assert len(list(cache.iterdir())) == 4
