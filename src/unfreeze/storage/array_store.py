"""Store arrays by image content in immutable shards with checksums, shared by all studies of a machine.

A cache entry is a folder for one identity: everything that its rows depend on except the image. Several processes may
write to it at once; a reader uses the union of the shards, and opening checks that no row is missing.
"""

import contextlib
import os
import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np

from unfreeze.config.identity import fingerprint
from unfreeze.errors import UserError
from unfreeze.storage.records import is_whole, write_json
from unfreeze.storage.shards import (
    FORMAT,
    MissingRows,
    NewShard,
    Row,
    Rows,
    Shard,
    close_files,
    finished_shards,
    locate,
    set_aside,
    verified,
)

__all__ = ["MissingRows", "Row", "ArrayStore", "Rows", "CacheFull", "Writer", "entry"]
SHARD_BYTES = 256 * 10**6

SHARD_SECONDS = 60.0
"""Age after which a shard is finished even if it is small: the most work that a killed process loses."""

CHUNK_BYTES = 4 * 2**20

RECORD = "entry.json"
"""File in an entry's folder with its identity and dtype."""


class CacheFull(UserError):
    """Rows cannot be stored: the disk is full or the cache is read-only. The rows can be computed instead."""


@dataclass(frozen=True)
class ArrayStore:
    """One entry of the cache.

    Attributes:
        folder: its path; created with the first row.
        identity: everything that its rows depend on except the image; JSON data.
        dtype: numpy's name for the type of its rows, e.g. float32.
    """

    folder: Path
    identity: Mapping[str, Any] = field(hash=False)
    dtype: str

    def held(self) -> frozenset[Row]:
        """Return the rows that the manifests list; no data is read."""
        return frozenset(row for shard in self._shards()[0] for row in shard.rows)

    def missing(self, rows: Sequence[Row]) -> list[Row]:
        """Return the rows that are not held, distinct, in the given order; no data is read."""
        held = self.held()
        return [row for row in dict.fromkeys(rows) if row not in held]

    def bytes_of(self, rows: Collection[Row]) -> int:
        """Return the bytes of the held rows among these, each counted once, with their share of the manifests."""
        wanted, total = set(rows), 0.0
        for shard in self._shards()[0]:
            mine = [index for index, row in enumerate(shard.rows) if row in wanted]
            wanted.difference_update(shard.rows)
            if mine:
                sizes = np.diff(shard.offsets, append=shard.size)
                total += sizes[mine].sum() + shard.manifest_bytes * len(mine) / len(shard.rows)
        return round(total)

    def writer(self, shard_bytes: int = SHARD_BYTES, chunk_bytes: int = CHUNK_BYTES) -> "Writer":
        """Return a writer, for use in ``with``; nothing is created on disk before the first row.

        Args:
            shard_bytes: size from which a shard is finished; it is also finished after a minute.
            chunk_bytes: bytes per checksum.
        """
        return Writer(self, shard_bytes, chunk_bytes)

    def write_record(self) -> None:
        """Write the entry's record, unless it exists and is whole.

        Raises:
            UserError: the cache cannot be written to, or the disk is full.
        """
        if not is_whole(self.folder / RECORD):
            write_json(self.folder / RECORD, {"dtype": self.dtype, "identity": dict(self.identity)})

    def open(self, rows: Sequence[Row], on_altered: Callable[[int], None]) -> Rows:
        """Open rows for reading, after verifying every chunk that contains them; rows may be repeated.

        A shard that was altered, truncated or cannot be read is set aside permanently, and its rows are missing unless
        another shard has them.

        Args:
            rows: the rows; their position here is their index for reading.
            on_altered: called with the number of altered chunks; an unreadable manifest counts as one.

        Raises:
            MissingRows: not all of the rows are held.
        """
        shards, unreadable = self._shards()
        altered = len(unreadable)
        for manifest in unreadable:
            set_aside(manifest)
        while True:
            if altered:
                on_altered(altered)
            places = locate(rows, shards)
            files, bad = verified(places, shards, np.dtype(self.dtype).itemsize)
            if not bad:
                for index in files:
                    with contextlib.suppress(OSError):  # the cache is read-only
                        os.utime(shards[index].manifest)  # time of last use, by which shards are evicted
                return Rows(self.dtype, tuple(shard.data for shard in shards), places, files)
            close_files(files)
            # A shard without a manifest was evicted, not altered.
            altered = sum(count for shard, count in bad if set_aside(shard.manifest))
            gone = {shard.manifest for shard, _ in bad}
            shards = [shard for shard in shards if shard.manifest not in gone]

    def _shards(self) -> tuple[list[Shard], list[Path]]:
        return finished_shards(self.folder, np.dtype(self.dtype).itemsize)


def entry(
    cache: Path, kind: Literal["activations", "pixels"], label: str, identity: Mapping[str, Any], dtype: str
) -> ArrayStore:
    """Return the cache entry for an identity, without access to the disk.

    Args:
        cache: folder of the cache.
        kind: kind of rows.
        label: readable start of the folder's name.
        identity: everything that the rows depend on except the image; JSON data.
        dtype: numpy's name for the type of the rows.
    """
    words = re.sub(r"[^A-Za-z0-9._-]+", "-", label)[:64].strip(".-")
    key = f"{words or kind}-{fingerprint(FORMAT, dtype, dict(identity))}"
    return ArrayStore(cache / kind / key, identity, np.dtype(dtype).name)


class Writer:
    """Writes rows into new shards, for use in ``with`` and by one thread at a time; no row is kept in memory.

    Added rows are kept also if an exception or a signal ends the work, except those of a shard whose writing fails.
    """

    def __init__(self, store: ArrayStore, shard_bytes: int, chunk_bytes: int) -> None:
        self._store, self._shard_bytes, self._chunk_bytes = store, shard_bytes, chunk_bytes
        self._written: set[Row] = set()
        self._shard: NewShard | None = None
        self._began = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # The exception that ended the work is reported, not a failure to write the last rows.
        with contextlib.nullcontext() if kind is None else contextlib.suppress(CacheFull):
            self._finish()

    def add(self, row: Row, array: np.ndarray) -> None:
        """Write one row, an array of any shape; a row that was added before is ignored.

        Raises:
            ValueError: the array does not have the store's dtype.
            CacheFull: the cache cannot be written to, or the disk is full.
        """
        if array.dtype != self._store.dtype:
            raise ValueError(f"a row of {array.dtype} for a store of {self._store.dtype}")
        if row in self._written:
            return
        try:
            with _writing():
                if self._shard is None:
                    self._store.write_record()
                    self._shard, self._began = NewShard(self._store.folder, self._chunk_bytes), time.monotonic()
                self._shard.append(row, array)
        except BaseException:  # a part of the row may have been written
            self._abandon()
            raise
        self._written.add(row)
        if self._shard.size >= self._shard_bytes or time.monotonic() >= self._began + SHARD_SECONDS:
            self._finish()

    def _finish(self) -> None:
        shard, self._shard = self._shard, None
        if shard is not None:
            with _writing():
                shard.finish()

    def _abandon(self) -> None:
        shard, self._shard = self._shard, None
        if shard is not None:
            shard.abandon()


@contextlib.contextmanager
def _writing() -> Iterator[None]:
    """Add to an error of a cache that cannot be written to how that is fixed."""
    try:
        yield
    except (OSError, UserError) as error:
        given = error.given if isinstance(error, UserError) else f"cannot write to the cache: {error.strerror or error}"
        raise CacheFull(
            given,
            "a cache folder that can be written to, with room on its disk",
            "free space (unfreeze cache clear deletes all that can be computed again), or name another folder in "
            "UNFREEZE_CACHE; then run the same command again",
        ) from error
