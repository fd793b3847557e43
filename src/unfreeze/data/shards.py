"""Shards: files of rows that are written once, whole, and used only after their checksums were seen to hold.

A shard is ``NAME.rows``, the bytes of its rows one after another, and ``NAME.manifest``, written last: a line with the
sha256 of what follows, then JSON with the rows, their shapes and the sha256 of every chunk of the data. Nothing is ever
changed or appended to, so that writers need no lock, and what a killed process left is no data.
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
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from unfreeze.durable import replacing
from unfreeze.errors import UserError

FORMAT = 1
DATA, MANIFEST, SET_ASIDE = ".rows", ".manifest", ".altered"

PIECE_BYTES = 2**18
"""Read and hashed at a time: stays in the processor's cache."""

OUT_OF_MEANS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
"""Errors that say nothing about the file."""

_ONE_READER = threading.Lock()

Row = tuple[str, int]
"""The sha256 of an image's content, in hex, and the number of its view."""


@dataclass(frozen=True)
class Shard:
    """A finished shard, as its manifest tells.

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
    """Return the finished shards, and the manifests that cannot be read or do not hold what was written."""
    shards, unreadable = [], []
    try:
        manifests = sorted(folder.glob(f"*{MANIFEST}"))
    except FileNotFoundError:  # evicted while it was listed
        manifests = []
    for path in manifests:
        try:
            shards.append(read_manifest(path, itemsize))
        except FileNotFoundError:
            continue  # evicted or set aside since it was listed
        except OSError as error:
            if error.errno in OUT_OF_MEANS:
                raise
            unreadable.append(path)
        except ValueError:
            unreadable.append(path)
    return shards, unreadable


def read_manifest(path: Path, itemsize: int) -> Shard:
    """Return a finished shard.

    Raises:
        OSError: the manifest cannot be read, or is gone.
        ValueError: it does not hold what was written.
    """
    content = path.read_bytes()
    checksum, _, body = content.partition(b"\n")
    if hashlib.sha256(body).hexdigest().encode() != checksum:
        raise ValueError(f"{path} was altered")
    record = json.loads(body)
    if record["format"] != FORMAT or record["entry"] != path.parent.name:
        raise ValueError(f"{path} does not belong here")
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
    """Take a shard out of the store for good; return whether it was still there."""
    try:
        manifest.rename(manifest.with_name(manifest.name + SET_ASIDE))
    except FileNotFoundError:
        return False
    except OSError:
        return True  # a cache that may only be read: each opening finds the damage anew
    with contextlib.suppress(OSError):
        data = manifest.with_suffix(DATA)
        data.rename(data.with_name(data.name + SET_ASIDE))
    return True


class NewShard:
    """A shard while it is written."""

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
        """Write a row's bytes; after an exception the shard can only be abandoned."""
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
        """Make it a shard of the store: first the data, durably, then the manifest."""
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
        except UserError:  # the disk is full, say: one without the other would only take room, or count as damage
            for suffix in (MANIFEST, DATA):  # there, if their folder alone could not be synced
                with contextlib.suppress(OSError):
                    self._base.with_suffix(suffix).unlink(missing_ok=True)
            raise

    def abandon(self) -> None:
        """Delete what was written of it."""
        abandoned = RuntimeError()  # an exception keeps the temporary file from becoming the shard
        with contextlib.suppress(OSError, UserError):
            self._stack.__exit__(RuntimeError, abandoned, None)

    def _end_chunk(self) -> None:
        self._chunks.append(self._hash.hexdigest())
        self._hash = hashlib.sha256()


def is_whole(file: int, shard: Shard, chunk: int) -> bool:
    """Tell whether a chunk of a shard's open data holds the bytes that were written."""
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
        if error.errno in OUT_OF_MEANS:
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
        OSError: the file cannot be read, or ends before.
    """
    while len(buffer):
        if hasattr(os, "preadv"):
            count = os.preadv(file, [buffer], offset)
        else:  # Windows: one position for all who read
            with _ONE_READER:
                os.lseek(file, offset, os.SEEK_SET)
                count = io.FileIO(file, closefd=False).readinto(buffer) or 0
        if not count:
            raise OSError(errno.EIO, "a shard of the cache ends before its last row")
        buffer, offset = buffer[count:], offset + count
