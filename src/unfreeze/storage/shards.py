"""Shards: files of rows that are written once and verified when read.

A shard is ``NAME.rows``, the bytes of its rows, and ``NAME.manifest``, which is written last: a line with the sha256 of
the rest, then JSON with the rows, their shapes and the sha256 of every chunk of the data. Files are never changed or
appended to, so that writers need no lock, and files without a manifest are ignored.
"""

import contextlib
import errno
import hashlib
import io
import json
import math
import os
import secrets
import threading
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from unfreeze.errors import UserError
from unfreeze.storage.atomic import replacing

FORMAT = 1
DATA, MANIFEST, SET_ASIDE = ".rows", ".manifest", ".altered"

PIECE_BYTES = 2**18
"""Bytes read and hashed at a time, few enough for the processor's cache."""

RESOURCE_ERRORS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
"""Errors that are not due to the file."""

_ONE_READER = threading.Lock()

Row = tuple[str, int]
"""Key of an image's content, and the number of its view."""


@dataclass(frozen=True)
class Shard:
    """A finished shard, as described by its manifest.

    Attributes:
        shape_of: int32 (rows,), positions in ``shapes``.
        offsets: int64 (rows,), bytes.
        size: bytes of all rows.
    """

    manifest: Path
    manifest_bytes: int
    rows: list[Row]
    shapes: list[tuple[int, ...]]
    shape_of: np.ndarray
    offsets: np.ndarray
    size: int
    chunk_bytes: int
    chunks: list[str]

    @property
    def data(self) -> Path:
        """The file with the rows' bytes."""
        return self.manifest.with_suffix(DATA)


def finished_shards(folder: Path, itemsize: int) -> tuple[list[Shard], list[Path]]:
    """Return the finished shards, and the manifests that cannot be read or were altered."""
    shards, unreadable = [], []
    try:
        manifests = sorted(folder.glob(f"*{MANIFEST}"))
    except FileNotFoundError:  # evicted meanwhile
        manifests = []
    for path in manifests:
        try:
            shards.append(read_manifest(path, itemsize))
        except FileNotFoundError:
            continue  # evicted or set aside meanwhile
        except OSError as error:
            if error.errno in RESOURCE_ERRORS:
                raise
            unreadable.append(path)
        except ValueError:
            unreadable.append(path)
    return shards, unreadable


def read_manifest(path: Path, itemsize: int) -> Shard:
    """Return a finished shard.

    Raises:
        OSError: the manifest cannot be read, or is gone.
        ValueError: it was altered.
    """
    content = path.read_bytes()
    checksum, _, body = content.partition(b"\n")
    if hashlib.sha256(body).hexdigest().encode() != checksum:
        raise ValueError(f"{path} was altered")
    record = json.loads(body)
    if record["format"] != FORMAT or record["entry"] != path.parent.name:
        raise ValueError(f"{path} belongs to another entry")
    shapes = [tuple(shape) for shape in record["shapes"]]
    shape_of = np.array(record["shape_of"], dtype=np.int32)
    sizes = row_sizes(shapes, shape_of, itemsize)
    return Shard(
        manifest=path,
        manifest_bytes=len(content),
        rows=list(zip(record["contents"], record["views"], strict=True)),
        shapes=shapes,
        shape_of=shape_of,
        offsets=np.cumsum(sizes) - sizes,
        size=record["size"],
        chunk_bytes=record["chunk_bytes"],
        chunks=record["chunks"],
    )


def row_sizes(shapes: Sequence[tuple[int, ...]], shape_of: np.ndarray, itemsize: int) -> np.ndarray:
    """Return the bytes of rows, int64 (rows,)."""
    return np.array([math.prod(shape) * itemsize for shape in shapes], dtype=np.int64)[shape_of]


def set_aside(manifest: Path) -> bool:
    """Remove a shard from the store permanently, by renaming it; return whether it existed."""
    try:
        manifest.rename(manifest.with_name(manifest.name + SET_ASIDE))
    except FileNotFoundError:
        return False
    except OSError:
        return True  # the cache is read-only: each opening finds the damage again
    with contextlib.suppress(OSError):
        data = manifest.with_suffix(DATA)
        data.rename(data.with_name(data.name + SET_ASIDE))
    return True


class NewShard:
    """A shard that is being written."""

    def __init__(self, folder: Path, chunk_bytes: int) -> None:
        self.size = 0
        self._base = folder / secrets.token_hex(8)
        self._rows: list[Row] = []
        self._shapes: dict[tuple[int, ...], int] = {}
        self._shape_of: list[int] = []
        self._chunk_bytes, self._chunks, self._hash = chunk_bytes, list[str](), hashlib.sha256()
        self._stack = contextlib.ExitStack()
        temporary = self._stack.enter_context(replacing(self._base.with_suffix(DATA)))
        self._file: BinaryIO = self._stack.enter_context(temporary.open("wb"))

    def append(self, row: Row, array: np.ndarray) -> None:
        """Write a row; after an exception the shard must be abandoned."""
        data = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
        while len(data):
            room = self._chunk_bytes - self.size % self._chunk_bytes
            self._file.write(data[:room])
            self._hash.update(data[:room])
            self.size += min(room, len(data))
            data = data[room:]
            if self.size % self._chunk_bytes == 0:
                self._end_chunk()
        self._rows.append(row)
        self._shape_of.append(self._shapes.setdefault(array.shape, len(self._shapes)))

    def finish(self) -> None:
        """Add the shard to the store: first the data, durably, then the manifest."""
        if self.size % self._chunk_bytes:
            self._end_chunk()
        record = {
            "format": FORMAT,
            "entry": self._base.parent.name,
            "size": self.size,
            "chunk_bytes": self._chunk_bytes,
            "chunks": self._chunks,
            "contents": [content for content, _ in self._rows],
            "views": [int(view) for _, view in self._rows],
            "shapes": list(self._shapes),
            "shape_of": self._shape_of,
        }
        body = json.dumps(record, separators=(",", ":")).encode()
        try:
            self._stack.close()
            with replacing(self._base.with_suffix(MANIFEST)) as temporary:
                temporary.write_bytes(hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
        except UserError:  # for example a full disk: one file without the other wastes room, or counts as damaged
            for suffix in (MANIFEST, DATA):  # they exist if only syncing their folder failed
                with contextlib.suppress(OSError):
                    self._base.with_suffix(suffix).unlink(missing_ok=True)
            raise

    def abandon(self) -> None:
        """Delete what was written."""
        abandoned = RuntimeError()  # with an exception the temporary file does not become the shard
        with contextlib.suppress(OSError, UserError):
            self._stack.__exit__(RuntimeError, abandoned, None)

    def _end_chunk(self) -> None:
        self._chunks.append(self._hash.hexdigest())
        self._hash = hashlib.sha256()


def is_whole(file: int, shard: Shard, chunk: int) -> bool:
    """Tell whether a chunk of a shard's open data file is unaltered."""
    start = chunk * shard.chunk_bytes
    end = min(start + shard.chunk_bytes, shard.size)
    piece = memoryview(bytearray(min(PIECE_BYTES, end - start)))
    digest = hashlib.sha256()
    try:
        for at in range(start, end, PIECE_BYTES):
            part = piece[: end - at]
            read_into(file, part, at)
            digest.update(part)
    except OSError as error:
        if error.errno in RESOURCE_ERRORS:
            raise
        return False
    return digest.hexdigest() == shard.chunks[chunk]


def open_file(path: Path) -> int:
    """Return a descriptor for ``read_into``."""
    return os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))


def close_files(files: dict[int, int]) -> None:
    """Close the descriptors and forget them."""
    while files:
        os.close(files.popitem()[1])


def read_into(file: int, buffer: memoryview, offset: int) -> None:
    """Fill the buffer from an offset of the file.

    Raises:
        OSError: the file cannot be read, or is too short.
    """
    while len(buffer):
        if hasattr(os, "preadv"):
            count = os.preadv(file, [buffer], offset)
        else:  # Windows: all readers share one position
            with _ONE_READER:
                os.lseek(file, offset, os.SEEK_SET)
                count = io.FileIO(file, closefd=False).readinto(buffer) or 0
        if not count:
            raise OSError(errno.EIO, "a shard of the cache ends before its last row")
        buffer, offset = buffer[count:], offset + count


VERIFIERS = min(4, os.cpu_count() or 1)  # threads; hashing leaves the GIL


class MissingRows(Exception):
    """Requested rows are not in the store: compute and write them, then open the rows again.

    Args:
        rows: the missing rows, distinct, in the requested order.
    """

    def __init__(self, rows: Sequence[Row]) -> None:
        super().__init__(rows)
        self.rows = list(rows)

    def __str__(self) -> str:
        return f"{len(self.rows)} rows are not in the store"


@dataclass(frozen=True)
class Places:
    """Locations of rows, as arrays, so that many rows take little memory in each worker.

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
    """Find each row in the first shard that contains it.

    Raises:
        MissingRows: some rows are in no shard.
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
    """Open the shards that contain rows, and verify each chunk with bytes of a row.

    Returns:
        Open descriptors by position of the shard, and the altered shards with their number of altered chunks.
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
                if error.errno in RESOURCE_ERRORS:
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
    """Return the chunks that contain bytes of these rows."""
    touched = np.zeros(len(shard.chunks) + 1, dtype=np.int64)
    offsets, sizes = offsets[sizes > 0], sizes[sizes > 0]
    np.add.at(touched, offsets // shard.chunk_bytes, 1)
    np.add.at(touched, (offsets + sizes - 1) // shard.chunk_bytes + 1, -1)
    return np.flatnonzero(np.cumsum(touched[:-1])).tolist()


class Rows:
    """Open rows of a store; they can be sent to other processes and read by many threads at once.

    Their shards stay open, so that they can be read even if the entry is deleted meanwhile (POSIX).
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
            UserError: its file was truncated since it was opened, or cannot be read any more.
        """
        array = np.empty(self.shape(index), dtype=self.dtype)
        self._read(index, array.reshape(-1).view(np.uint8).data)
        return array

    def read_many(self, indices: Sequence[int], out: np.ndarray) -> None:
        """Read rows of one shape directly into the memory of an array.

        Args:
            indices: which rows.
            out: (len(indices), *shape), of the store's dtype, C-contiguous.

        Raises:
            ValueError: ``out`` is not such an array.
            UserError: a file was truncated since it was opened, or cannot be read any more.
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
                "a cache that only unfreeze writes to",
                "run the same command again; missing rows are computed again",
            ) from error
