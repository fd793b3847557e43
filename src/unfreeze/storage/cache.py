"""The cache folder: its entries, which processes use them, and what is deleted when room is needed.

Locks only save work: they keep an entry from being evicted while it is in use. An entry that is evicted nevertheless is
computed again, and open rows can be read to their end. Files of killed processes are deleted by age.
"""

import contextlib
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs

from unfreeze.config.identity import fingerprint
from unfreeze.errors import UserError
from unfreeze.storage.array_store import RECORD, ArrayStore
from unfreeze.storage.atomic import TEMPORARY, delete, old_ones
from unfreeze.storage.locks import try_lock
from unfreeze.storage.records import read_json
from unfreeze.storage.shards import DATA, MANIFEST, SET_ASIDE, Row, finished_shards, read_manifest

KINDS = ("activations", "pixels")

RECORDS = ("looks", "calibrations")
"""Folders of small records of studies, which do not count towards the budget."""

USED, USE, FILLING = "used", ".use", "filling.lock"

LOCK_SECONDS = 0.1
"""Seconds between two attempts to take a lock; the lock of a killed process is free at once."""


@dataclass(frozen=True)
class Entry:
    """A cache entry as found on disk.

    Attributes:
        kind: activations or pixels.
        label: the readable part of the folder's name.
        identity: everything that its rows depend on except the image; empty if its record cannot be read.
        bytes: size of all its files.
        last_used: seconds since the epoch.
        in_use: whether any process uses it, including this one.
    """

    kind: str
    label: str
    path: Path
    identity: Mapping[str, Any]
    bytes: int
    rows: int
    last_used: float
    in_use: bool


@contextlib.contextmanager
def in_use(stores: Collection[ArrayStore]) -> Iterator[frozenset[Path]]:
    """Mark entries as used now, and as in use until the end of the block or of the process.

    Yields the marks. A cache that cannot be written to is used without marks. Damaged records of entries are rewritten.
    """
    marks = set[Path]()
    with contextlib.ExitStack() as stack:
        for folder, store in {store.folder: store for store in stores}.items():
            with contextlib.suppress(OSError):
                marks.add(stack.enter_context(_mark(folder)))
            with contextlib.suppress(UserError):
                if (folder / RECORD).exists():  # otherwise written with the first row
                    store.write_record()
        yield frozenset(marks)


@contextlib.contextmanager
def exclusively(lock: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold a lock while doing work that another process may be doing; after waiting, most of it may be done.

    Args:
        lock: file of the lock; it is created and stays.
        waiting: called every ``LOCK_SECONDS`` while another process works; an exception ends the wait.
    """
    with contextlib.suppress(OSError):
        lock.parent.mkdir(parents=True, exist_ok=True)
    while (held := try_lock(lock)) is None:
        waiting()
        time.sleep(LOCK_SECONDS)
    try:
        yield
    finally:
        held.release()


def filling(store: ArrayStore, waiting: Callable[[], None]) -> contextlib.AbstractContextManager[None]:
    """Hold the lock for computing rows of an entry; check again afterwards which rows are missing."""
    return exclusively(store.folder / FILLING, waiting)


def scanning(
    cache: Path, roots: Iterable[Path], waiting: Callable[[], None]
) -> contextlib.AbstractContextManager[None]:
    """Hold the lock for scanning the images below some folders; another process may have scanned them already."""
    return exclusively(cache / "looks" / f"{fingerprint(sorted(str(root.resolve()) for root in roots))}.lock", waiting)


def entries(cache: Path) -> list[Entry]:
    """Return the cache's entries, by kind and name."""
    return [_read_entry(folder) for folder in _folders(cache)]


def used_bytes(cache: Path) -> int:
    """Return the bytes of all entries, including leftovers."""
    return sum(folder_bytes(cache / kind) for kind in _kinds(cache))


def holding(cache: Path, contents: Collection[str]) -> dict[Path, set[Row]]:
    """Return the cached rows of images with these keys, by the folder of their entry."""
    return {
        folder: {row for shard in finished_shards(folder, 1)[0] for row in shard.rows if row[0] in contents}
        for folder in _folders(cache)
    }


def make_room(
    cache: Path, needed: int, budget: int, keep: Mapping[Path, Set[Row]], marks: Collection[Path] = ()
) -> int:
    """Delete the least recently used entries until the needed bytes fit the budget, or no more may be deleted.

    Entries that other processes use stay. Of the entries to keep, shards without any of the named rows are deleted.

    Args:
        cache: folder of the cache.
        needed: bytes about to be written.
        budget: largest size of all entries in bytes.
        keep: rows that stay, by the folder of their entry.
        marks: the caller's own marks, see ``in_use``.

    Returns:
        The bytes that may still be written: less than ``needed`` if not enough could be deleted.
    """
    room = budget - used_bytes(cache)
    if room < needed:
        room += sum(tidy(cache))
    for path in sorted(_candidates(cache, keep, marks), key=_last_used) if room < needed else ():
        if room >= needed:
            break
        if path.suffix != MANIFEST:
            room += evict(path)
        elif _is_free(path, keep):
            room += _delete_shard(path)
    return max(0, room)


def obtainable(cache: Path, budget: int, keep: Mapping[Path, Set[Row]], marks: Collection[Path] = ()) -> int:
    """Return the most bytes that ``make_room`` could free for writing, without deleting anything."""
    leftovers = _leftovers(cache)
    stays = used_bytes(cache) - sum(map(folder_bytes, leftovers))
    for path in _candidates(cache, keep, marks):
        if path.suffix != MANIFEST:
            stays -= folder_bytes(path) - sum(folder_bytes(left) for left in leftovers if left.parent == path)
        elif _is_free(path, keep):
            stays -= folder_bytes(path) + folder_bytes(path.with_suffix(DATA))
    return max(0, budget - stays)


def _candidates(cache: Path, keep: Mapping[Path, Set[Row]], marks: Collection[Path]) -> Iterator[Path]:
    """Yield what may be deleted: entries, and the manifests of shards in entries that are kept."""
    for folder in _folders(cache):
        if not _is_in_use(folder, marks):
            with contextlib.suppress(FileNotFoundError):  # evicted by another process
                yield from list(folder.glob(f"*{MANIFEST}")) if folder in keep else [folder]


def _is_free(manifest: Path, keep: Mapping[Path, Set[Row]]) -> bool:
    """Tell whether a shard contains none of the rows that stay; False if it cannot be read."""
    try:
        return keep[manifest.parent].isdisjoint(read_manifest(manifest, 1).rows)
    except (OSError, ValueError):
        return False


def _delete_shard(manifest: Path) -> int:
    """Delete a shard, manifest first, so that it is gone for readers and not damaged; return its bytes."""
    freed = _delete(manifest)
    return freed + _delete(manifest.with_suffix(DATA)) if freed else 0


def clear(cache: Path) -> None:
    """Delete everything that studies can compute again, except entries in use."""
    tidy(cache)
    for folder in _folders(cache):
        if not _is_in_use(folder):
            evict(folder)
    for path in [cache / name for name in RECORDS]:
        if not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
    for kind in _kinds(cache):
        with contextlib.suppress(OSError):  # entries in use
            (cache / kind).rmdir()


def tidy(cache: Path) -> list[int]:
    """Delete old leftovers of killed processes: unfinished and set-aside files, and partly deleted entries.

    Returns:
        The bytes of each file or folder that was deleted.
    """
    return [_delete(path) for path in _leftovers(cache)]


def evict(folder: Path) -> int:
    """Delete an entry, all at once for its users; return its bytes."""
    size = folder_bytes(folder)
    try:
        return size if delete(folder) else 0
    except OSError:  # (Windows) another process reads it
        return 0


def folder_bytes(path: Path) -> int:
    """Return the bytes of what exists of a file or folder; links are not followed."""
    try:
        if path.is_dir() and not path.is_symlink():
            return sum(folder_bytes(inner) for inner in path.iterdir())
        return path.lstat().st_size
    except (FileNotFoundError, NotADirectoryError):
        return 0


def _kinds(cache: Path) -> list[str]:
    return [kind for kind in KINDS if (cache / kind).is_dir() and not (cache / kind).is_symlink()]


def _folders(cache: Path) -> list[Path]:
    return [
        folder
        for kind in _kinds(cache)
        for folder in sorted((cache / kind).iterdir())
        if folder.is_dir() and not folder.is_symlink() and folder.suffix != TEMPORARY
    ]


def _read_entry(folder: Path) -> Entry:
    record: Mapping[str, Any] = {}
    with contextlib.suppress(OSError, UserError, ValueError):
        record = read_json(folder / RECORD)
    identity = record.get("identity", {})
    return Entry(
        kind=folder.parent.name,
        label=folder.name.rpartition("-")[0] or folder.name,
        path=folder,
        identity=identity,
        bytes=folder_bytes(folder),
        rows=len(ArrayStore(folder, identity, record.get("dtype", "uint8")).held()),
        last_used=_last_used(folder),
        in_use=_is_in_use(folder),
    )


def _last_used(path: Path) -> float:
    """Return when an entry, or the shard of a manifest, was last used."""
    for sign in (path / USED, path):
        with contextlib.suppress(OSError):
            return sign.stat().st_mtime
    return 0.0


def _leftovers(cache: Path) -> list[Path]:
    """Return old files that were never finished or were set aside, without files that are not the cache's."""
    left = [path for kind in _kinds(cache) for path in sorted((cache / kind).iterdir()) if path.suffix == TEMPORARY]
    for folder in _folders(cache):
        try:
            names = set(os.listdir(folder))
        except FileNotFoundError:  # evicted by another process
            continue
        left += [
            folder / name
            for name in sorted(names)
            if name.endswith((TEMPORARY, SET_ASIDE))
            or (name.endswith(DATA) and name.removesuffix(DATA) + MANIFEST not in names)
        ]
    return old_ones(cache, left)


def _delete(path: Path) -> int:
    size = folder_bytes(path)
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()
    return size - folder_bytes(path)


@contextlib.contextmanager
def _mark(folder: Path) -> Iterator[Path]:
    """Lock a file of this process in the entry; at the end, delete the entry if nothing was written."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / USED).touch()
    mark = folder / f"{secrets.token_hex(8)}{USE}"
    lock = try_lock(mark)
    try:
        yield mark
    finally:
        if lock is not None:
            lock.release()
        with contextlib.suppress(OSError):
            mark.unlink(missing_ok=True)
            if not (folder / RECORD).exists() and set(os.listdir(folder)) <= {USED, FILLING}:
                for name in (USED, FILLING):
                    (folder / name).unlink(missing_ok=True)
                folder.rmdir()


def _is_in_use(folder: Path, but: Collection[Path] = ()) -> bool:
    """Tell whether a living process marked the entry, other than by ``but``; marks of dead processes are deleted."""
    try:
        marks = [path for path in sorted(folder.glob(f"*{USE}")) if path not in but]
    except FileNotFoundError:  # evicted by another process
        return False
    return any([_is_held(path) for path in marks])


def _is_held(mark: Path) -> bool:
    lock = try_lock(mark)
    if lock is None:
        return True
    with contextlib.suppress(OSError):  # Windows: not while it is open
        mark.unlink(missing_ok=True)
    lock.release()
    return False


def cache_folder() -> Path:
    """Return the folder that studies share: $UNFREEZE_CACHE, else the platform's cache folder."""
    given = os.environ.get("UNFREEZE_CACHE")
    return Path(given).expanduser() if given else platformdirs.user_cache_path("unfreeze")


def usable_cache(warn: Callable[[str], None]) -> Path | None:
    """Return the cache folder; if it cannot be written, warn with the reason and return None."""
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        warn(
            f"the cache {folder} cannot be written to ({error.strerror or error}), so all images are read again each "
            "time and frozen stages run live; name another folder in UNFREEZE_CACHE"
        )
        return None


def refuse_inside(out: Path, what: str, expected: str, fix: str, data: Iterable[str]) -> None:
    """Refuse to write into a folder of images.

    Raises:
        UserError: ``out`` is in one of the folders that ``data`` names.
    """
    for folder in (Path(name) for name in data if Path(name).is_dir()):
        if out.resolve().is_relative_to(folder.resolve()):
            raise UserError(
                f"the {what} {out} is in the folder of images {folder}",
                f"{expected} outside of it, since nothing is ever written there",
                f"give another with {fix}",
            )
