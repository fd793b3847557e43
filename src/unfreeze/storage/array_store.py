"""Arrays keyed by image content, in checked immutable shards; shared by all studies of a machine.

An entry of the cache is a folder that belongs to one identity: all that its rows depend on but the image. Several
processes may write to it at once; a reader uses the union of the shards, and completeness is asserted at opening.
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
"""After which a shard is finished however small it is: a process that is killed loses no more than that."""

CHUNK_BYTES = 4 * 2**20

RECORD = "entry.json"
"""Says in an entry's folder whose it is: its identity and dtype."""


class CacheFull(UserError):
    """Rows cannot be stored: the cache's disk is full, or it may only be read. Whoever needs them can compute them."""


@dataclass(frozen=True)
class ArrayStore:
    """One entry of the cache.

    Attributes:
        folder: where it is, or will be once something is written.
        identity: all that its rows depend on but the image; JSON data.
        dtype: numpy's name for the type of all its rows, e.g. float32.
    """

    folder: Path
    identity: Mapping[str, Any] = field(hash=False)
    dtype: str

    def held(self) -> frozenset[Row]:
        """Return the rows that the manifests list; no data is read."""
        return frozenset(row for shard in self._shards()[0] for row in shard.rows)

    def missing(self, rows: Sequence[Row]) -> list[Row]:
        """Return which of the rows are not held, distinct, in the order given; no data is read."""
        held = self.held()
        return [row for row in dict.fromkeys(rows) if row not in held]

    def bytes_of(self, rows: Collection[Row]) -> int:
        """Return the bytes that those of the rows that are held take, each once, with their part of the manifests."""
        left, total = set(rows), 0.0
        for shard in self._shards()[0]:
            mine = [index for index, row in enumerate(shard.rows) if row in left]
            left.difference_update(shard.rows)
            if mine:
                sizes = np.diff(shard.offsets, append=shard.size)
                total += sizes[mine].sum() + shard.manifest_bytes * len(mine) / len(shard.rows)
        return round(total)

    def writer(self, shard_bytes: int = SHARD_BYTES, chunk_bytes: int = CHUNK_BYTES) -> "Writer":
        """Return a writer, for use in ``with``; nothing is made on disk before the first row.

        Args:
            shard_bytes: a shard is finished, from then on to be kept, once it has so many bytes, or is a minute old.
            chunk_bytes: bytes under one checksum.
        """
        return Writer(self, shard_bytes, chunk_bytes)

    def write_record(self) -> None:
        """Write whose entry it is, unless its folder says so already; a damaged record is written anew.

        Raises:
            UserError: the cache cannot be written to, or the disk is full.
        """
        if not is_whole(self.folder / RECORD):
            write_json(self.folder / RECORD, {"dtype": self.dtype, "identity": dict(self.identity)})

    def open(self, rows: Sequence[Row], on_altered: Callable[[int], None]) -> Rows:
        """Return the rows for reading, each chunk that they lie in verified; a row may be asked for more than once.

        A shard that was altered, cut short or cannot be read is set aside for good and its rows are missing, unless
        another shard holds them, too.

        Args:
            rows: what will be read; a row's position here is its index later.
            on_altered: is told how many chunks were found altered (an unreadable manifest counts as one).

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
                    with contextlib.suppress(OSError):  # a cache that may only be read
                        os.utime(shards[index].manifest)  # when it was last used: what others need room for goes by it
                return Rows(self.dtype, tuple(shard.data for shard in shards), places, files)
            close_files(files)
            # What is gone with its manifest was evicted, not altered.
            altered = sum(count for shard, count in bad if set_aside(shard.manifest))
            gone = {shard.manifest for shard, _ in bad}
            shards = [shard for shard in shards if shard.manifest not in gone]

    def _shards(self) -> tuple[list[Shard], list[Path]]:
        return finished_shards(self.folder, np.dtype(self.dtype).itemsize)


def entry(
    cache: Path, kind: Literal["activations", "pixels"], label: str, identity: Mapping[str, Any], dtype: str
) -> ArrayStore:
    """Return the cache's entry for an identity; the disk is not looked at.

    Args:
        cache: the folder of the cache.
        kind: what the rows are.
        label: words for people, the front part of the folder's name.
        identity: all that the rows depend on but the image; JSON data.
        dtype: numpy's name for the type of the rows.
    """
    words = re.sub(r"[^A-Za-z0-9._-]+", "-", label)[:64].strip(".-")
    key = f"{words or kind}-{fingerprint(FORMAT, dtype, dict(identity))}"
    return ArrayStore(cache / kind / key, identity, np.dtype(dtype).name)


class Writer:
    """Writes rows into new shards, for use in ``with`` and from one thread at a time; holds no row in memory.

    What was added stays, also where an exception ends the work, a signal's among them; but for the shard in the midst
    of which writing itself fails.
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
        # What ended the work is to be told, not that its last rows could not be kept.
        with contextlib.nullcontext() if kind is None else contextlib.suppress(CacheFull):
            self._finish()

    def add(self, row: Row, array: np.ndarray) -> None:
        """Write one row: an array of the store's dtype and of any shape; what was added before is not written again.

        Raises:
            ValueError: the array has another dtype.
            Unstored: the cache cannot be written to, or the disk is full.
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
        except BaseException:  # half a row may be written
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
            "free space (unfreeze cache clear gives back all that can be made again), or name another folder in "
            "UNFREEZE_CACHE; then run the same command again",
        ) from error
