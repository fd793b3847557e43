"""Named arrays in safetensors files (https://huggingface.co/docs/safetensors: a length, a JSON header, the bytes).

The library writes to a file of its own beside the one that is named, which a killed process leaves behind, and reads
by mapping the file into memory, where a file that somebody cuts short ends the process. Here bytes are written to and
read from an open file: what is wrong with it, or with its disk, is an exception.
"""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "<i1", "U64": "<u8",
    "U32": "<u4", "U16": "<u2", "U8": "<u1", "BOOL": "|b1",
}  # fmt: skip
NAMES = {np.dtype(dtype): name for name, dtype in DTYPES.items()}
METADATA = "__metadata__"
ALIGNMENT = 8
"""Of the header's end, in bytes."""
LONGEST_HEADER = 100_000_000
"""Bytes; the library refuses longer ones, too."""


class Unreadable(ValueError):
    """A file is no safetensors file, or is cut short."""


def header_of(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> bytes:
    """Return what stands before the bytes of these arrays, which follow in their order."""
    entries: dict[str, Any] = {METADATA: dict(metadata)} if metadata else {}
    end = 0
    for name, array in arrays.items():
        begin, end = end, end + array.nbytes
        entries[name] = {"dtype": NAMES[array.dtype], "shape": list(array.shape), "data_offsets": [begin, end]}
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


def write_arrays(file: BinaryIO, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    """Write arrays to an open file; the same arrays and metadata in the same order give the same bytes.

    Raises:
        KeyError: an array's dtype is none of ``DTYPES``.
        OSError: the file cannot be written, or the disk is full.
    """
    # np.ascontiguousarray would turn a scalar, such as a BatchNorm's count of batches, into an array of one.
    whole = {name: np.asarray(arrays[name], order="C") for name in _in_order(arrays)}
    file.write(header_of(whole, metadata))
    for array in whole.values():
        file.write(array.reshape(-1).view(np.uint8).data)


def _in_order(arrays: Mapping[str, np.ndarray]) -> list[str]:
    """Return the names as the library orders them: wide numbers first, so that each array is aligned to its own."""
    return sorted(arrays, key=lambda name: (-arrays[name].dtype.itemsize, name))


def read_arrays(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Return a file's arrays, each with memory of its own, and its metadata.

    Raises:
        Unreadable: it is no safetensors file, ends too early, has bytes that belong to no array or to two, two arrays
            of one name, or numbers that numpy has no type for.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > LONGEST_HEADER:
            raise Unreadable(f"{path} is no safetensors file")
        try:
            entries = json.loads(file.read(length), object_pairs_hook=_named_once)
            metadata = dict(entries.pop(METADATA, {}))
            _check_layout(path, entries, os.fstat(file.fileno()).st_size - 8 - length)
            return {name: _read(file, path, 8 + length, one) for name, one in entries.items()}, metadata
        except Unreadable:
            raise
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise Unreadable(f"{path} is no safetensors file") from error


def _named_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("two entries of one name")
    return found


def _check_layout(path: Path, entries: Mapping[str, Any], size: int) -> None:
    """Refuse a header by which arrays do not lie one after another, from the first byte after it to the last."""
    at = 0
    for begin, end in sorted(tuple(entry["data_offsets"]) for entry in entries.values()):
        if begin != at:
            raise Unreadable(f"{path} has bytes of no array, or of two")
        at = end
    if at != size:
        raise Unreadable(f"{path} does not end where its last array does")


def _read(file: BinaryIO, path: Path, start: int, entry: Mapping[str, Any]) -> np.ndarray:
    (begin, end), dtype, shape = entry["data_offsets"], DTYPES[entry["dtype"]], entry["shape"]
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if not 0 <= begin <= end <= os.fstat(file.fileno()).st_size - start or end - begin != size:
        raise Unreadable(f"{path} ends too early, or its header is damaged")
    array = np.empty(shape, dtype)
    file.seek(start + begin)
    if file.readinto(array.reshape(-1).view(np.uint8).data) != size:  # type: ignore[attr-defined]
        raise Unreadable(f"{path} ends too early")
    return array
