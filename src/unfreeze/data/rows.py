"""Rows of the cache's shards: found, verified and read."""

import os
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unfreeze.data.shards import OUT_OF_MEANS, Row, Shard, close_files, is_whole, open_file, read_into, row_sizes
from unfreeze.errors import UserError

VERIFIERS = min(4, os.cpu_count() or 1)  # threads; hashing leaves the GIL


class MissingRows(Exception):
    """Rows that were asked for are not in the store: compute and write them, then open again.

    Args:
        rows: the missing rows, distinct, in the order asked for.
    """

    def __init__(self, rows: Sequence[Row]) -> None:
        super().__init__(rows)
        self.rows = list(rows)

    def __str__(self) -> str:
        return f"{len(self.rows)} rows are not in the store"


@dataclass(frozen=True)
class Places:
    """Where rows lie, as arrays: thousands of rows cost little memory, in every worker.

    Attributes:
        shards: int32 (rows,), positions in a list of shards.
        offsets: int64 (rows,), bytes.
        shape_of: int32 (rows,), positions in ``shapes``.
    """

    shards: np.ndarray
    offsets: np.ndarray
    shape_of: np.ndarray
    shapes: tuple[tuple[int, ...], ...]


def locate(rows: Sequence[Row], shards: Sequence[Shard]) -> Places:
    """Find each row in the first shard that holds it.

    Raises:
        MissingRows: some are in none.
    """
    number: dict[Row, int] = {}
    asked = np.fromiter((number.setdefault(row, len(number)) for row in rows), dtype=np.int64, count=len(rows))
    shard_of = np.full(len(number), -1, dtype=np.int32)
    offsets = np.zeros(len(number), dtype=np.int64)
    shape_of = np.zeros(len(number), dtype=np.int32)
    shapes: dict[tuple[int, ...], int] = {}
    for index, shard in enumerate(shards):
        wanted = np.array([number.get(row, -1) for row in shard.rows], dtype=np.int64)
        held = np.flatnonzero(wanted >= 0)
        held = held[shard_of[wanted[held]] < 0]
        shard_of[wanted[held]] = index
        offsets[wanted[held]] = shard.offsets[held]
        common = np.array([shapes.setdefault(shape, len(shapes)) for shape in shard.shapes], dtype=np.int32)
        shape_of[wanted[held]] = common[shard.shape_of[held]]
    if (shard_of < 0).any():
        raise MissingRows([row for row, at in number.items() if shard_of[at] < 0])
    return Places(shard_of[asked], offsets[asked], shape_of[asked], tuple(shapes))


def verified(places: Places, shards: Sequence[Shard], itemsize: int) -> tuple[dict[int, int], list[tuple[Shard, int]]]:
    """Open the shards that rows lie in and check each chunk with a row in it.

    Returns:
        Open descriptors by the shard's position, and the altered shards with their count of altered chunks.
    """
    files: dict[int, int] = {}
    altered: dict[int, int] = {}
    needed = []
    sizes = row_sizes(places.shapes, places.shape_of, itemsize)
    try:
        for index in np.unique(places.shards).tolist():
            shard, mine = shards[index], places.shards == index
            chunks = _chunks(places.offsets[mine], sizes[mine], shard)
            try:
                files[index] = open_file(shard.data)
            except OSError as error:
                if error.errno in OUT_OF_MEANS:
                    raise
                altered[index] = max(1, len(chunks))
                continue
            if os.fstat(files[index]).st_size != shard.size:
                altered[index] = 1
            needed += [(index, chunk) for chunk in chunks]
        with ThreadPoolExecutor(VERIFIERS) as pool:
            whole = pool.map(lambda at: is_whole(files[at[0]], shards[at[0]], at[1]), needed)
            bad = [index for (index, _), good in zip(needed, whole, strict=True) if not good]
    except BaseException:
        close_files(files)
        raise
    return files, [(shards[index], max(altered.get(index, 0), bad.count(index))) for index in {*altered, *bad}]


def _chunks(offsets: np.ndarray, sizes: np.ndarray, shard: Shard) -> list[int]:
    """Return the chunks that bytes of these rows lie in."""
    touched = np.zeros(len(shard.chunks) + 1, dtype=np.int64)
    offsets, sizes = offsets[sizes > 0], sizes[sizes > 0]
    np.add.at(touched, offsets // shard.chunk_bytes, 1)
    np.add.at(touched, (offsets + sizes - 1) // shard.chunk_bytes + 1, -1)
    return np.flatnonzero(np.cumsum(touched[:-1])).tolist()


class Rows:
    """Rows of a store, ready for reading; can be sent to other processes and read by many threads at once.

    Their shards stay open: they can be read to the end even if the entry is deleted meanwhile (POSIX).
    """

    def __init__(self, dtype: str, paths: Sequence[Path], places: Places, files: dict[int, int] | None = None) -> None:
        self.dtype = np.dtype(dtype)
        self._paths, self._places = paths, places
        self._files = {} if files is None else files
        weakref.finalize(self, close_files, self._files)
        if files is None:
            for index in np.unique(places.shards).tolist():
                self._files[index] = open_file(paths[index])

    def __reduce__(self) -> tuple[Any, ...]:
        return Rows, (self.dtype.name, self._paths, self._places)

    def __len__(self) -> int:
        return len(self._places.shards)

    def shape(self, index: int) -> tuple[int, ...]:
        """Return the shape of a row."""
        return self._places.shapes[self._places.shape_of[index]]

    def read(self, index: int) -> np.ndarray:
        """Return a row as a new array.

        Raises:
            UserError: its file was cut short since it was opened, or cannot be read any more.
        """
        array = np.empty(self.shape(index), dtype=self.dtype)
        self._read(index, array.reshape(-1).view(np.uint8).data)
        return array

    def read_many(self, indices: Sequence[int], out: np.ndarray) -> None:
        """Read rows of one shape straight into an array's memory.

        Args:
            indices: which rows.
            out: (len(indices), *shape), of the store's dtype, C-contiguous.

        Raises:
            ValueError: ``out`` is not such an array.
            UserError: a file was cut short since it was opened, or cannot be read any more.
        """
        shapes = {self._places.shapes[kind] for kind in np.unique(self._places.shape_of[np.asarray(indices, int)])}
        fits = len(out) == len(indices) and shapes <= {out.shape[1:]}
        if not fits or out.dtype != self.dtype or not out.flags.c_contiguous:
            raise ValueError(
                f"rows of {self.dtype} with shapes {sorted(shapes)} for {len(indices)} indices "
                f"do not fit an array of {out.dtype} with shape {out.shape}"
            )
        if not out.size:
            return
        flat = out.reshape(-1).view(np.uint8).data
        size = out[:1].nbytes
        for position, index in enumerate(indices):
            self._read(index, flat[position * size : (position + 1) * size])

    def _read(self, index: int, buffer: memoryview) -> None:
        shard = int(self._places.shards[index])
        try:
            read_into(self._files[shard], buffer, int(self._places.offsets[index]))
        except OSError as error:
            raise UserError(
                f"{self._paths[shard]} cannot be read any more: {error.strerror}",
                "a cache that unfreeze alone writes to",
                "run the same command again; what is missing in the cache is computed anew",
            ) from error
