"""Cache of scan results: what reading and decoding found, by file content, and the content of unchanged files."""

import hashlib
import json
import os
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import PIL

from unfreeze.config.identity import fingerprint
from unfreeze.data.decode import DECODE_RULES
from unfreeze.data.formats.reading import USUAL, Reading, is_deep
from unfreeze.data.image_hash import LIKENESS_RULES, DecodedFile, ImageStats, as_values, from_values
from unfreeze.errors import UserError
from unfreeze.storage.atomic import replacing


@dataclass(frozen=True, slots=True)
class FileInfo:
    """Scan result of one file.

    Attributes:
        sha256: of the content, in hex; "" if it could not be read.
        width, height: pixels of the upright picture, 0 if unknown.
        mode: Pillow's name of the stored pixel mode, "" if unknown.
        reason: why the file cannot be used, "" if it can.
        bytes: size of the content, 0 if unknown.
        format: one of ``image_file.FORMATS``, "" if unknown.
        several: whether frames or pages follow the first, which alone is used.
        stats: description of the picture; None if it was not decoded, or if it has more than 8 bits and the number of
            bits in use is not known yet.
        peak: largest value of a picture of more than 8 bits, None for others.
    """

    sha256: str = ""
    width: int = 0
    height: int = 0
    mode: str = ""
    reason: str = ""
    bytes: int = 0
    format: str = ""
    several: bool = False
    stats: ImageStats | None = None
    peak: int | None = None


def file_info(sha256: str, size: int, decoded: DecodedFile) -> FileInfo:
    """Return the scan result of a decoded file of ``size`` bytes."""
    return FileInfo(
        sha256, *decoded.size, decoded.mode, decoded.reason, size, *decoded.kind, decoded.stats, decoded.peak
    )


def info_values(info: FileInfo) -> list[Any]:
    """Return a scan result as JSON data."""
    values = [info.sha256, info.width, info.height, info.mode, info.reason, info.bytes, info.format, info.several]
    values += as_values(info.stats) if info.stats else []
    return values + ([] if info.peak is None else [info.peak])


def info_from(values: list[Any]) -> FileInfo:
    """Return the scan result from the JSON data of ``info_values``."""
    sha256, width, height, mode, reason, size, form, several, *rest = values
    peak = rest.pop() if is_deep(mode) and rest and isinstance(rest[-1], int) else None
    return FileInfo(sha256, width, height, mode, reason, size, form, several, from_values(rest) if rest else None, peak)


class CacheNotWritten(UserError):
    """Scan results cannot be written to the cache. Without a cache they are found again."""


def write_lines(folder: Path, key: str, lines: Iterable[Sequence[Any]]) -> None:
    """Write lists of JSON data, one per line with a checksum, durably into a new file of the folder.

    Raises:
        CacheNotWritten: the folder cannot be written to, or the disk is full.
    """
    try:
        with replacing(folder / f"{key}-{uuid.uuid4().hex}.jsonl") as temporary:
            with temporary.open("wb") as file:
                file.writelines(map(_line, lines))
    except UserError as error:
        raise CacheNotWritten(
            error.given,
            "a cache folder that can be written to, with room on its disk",
            "set UNFREEZE_CACHE to another folder, or free space and run the same command again",
        ) from error


def read_lines(folder: Path | None, key: str) -> Iterator[list[Any]]:
    """Yield the lists written under a key, skipping damaged lines; none without a folder."""
    for path in [] if folder is None else sorted(folder.glob(f"{key}-*.jsonl")):
        try:
            lines = path.read_bytes().splitlines(keepends=True)
        except OSError:  # the files are scanned again
            continue
        for line in lines:
            if line[:2] == b'["' and line[18:21] == b'", ' and line[2:18] == _checksum(line[21:]):
                yield json.loads(line.decode())[1:]


def _line(values: Sequence[Any]) -> bytes:
    """Return a list as a line of JSON with a checksum of the rest of the line as its first entry."""
    rest = json.dumps(values)[1:].encode() + b"\n"
    return b'["' + _checksum(rest) + b'", ' + rest


def _checksum(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=8).hexdigest().encode()


_FORMAT = 3

JUDGING_RULES = 1
"""Version of the rules by which files are unusable; increase it whenever they change."""

_STATES = "states-2"
_STATES_PER_LINE = 256


class ScanCache:
    """Scan results of a cache folder, and new ones to be added to it.

    Each version of Pillow, of the decoding rules and each way of reading has files of its own.

    Args:
        folder: created with the first result; None stores nothing.
        reading: how files are read.

    Attributes:
        infos: scan results by sha256.
        states: sha256 of the content by the file's ``state``.
    """

    def __init__(self, folder: Path | None, reading: Reading = USUAL) -> None:
        self._folder = folder
        rules = (_FORMAT, DECODE_RULES, JUDGING_RULES, LIKENESS_RULES, PIL.__version__)
        self._key = fingerprint(*rules, *reading.rules)
        self._fresh: dict[str, FileInfo] = {}
        self._fresh_states: dict[str, str] = {}
        self.states: dict[str, str] = {}
        self.infos: dict[str, FileInfo] = {}
        for info in map(info_from, read_lines(folder, self._key)):
            # A content decoded once can be decoded: a failure was due to the disk or to memory.
            if info.sha256 not in self.infos or not info.reason:
                self.infos[info.sha256] = info
        for (states,) in read_lines(folder, _STATES):
            self.states.update(states)

    def unchanged(self, state: str) -> FileInfo | None:
        """Return the result for a usable file in this state, or None: the file must be read."""
        info = self.infos.get(self.states.get(state, ""))
        return None if info is None or info.reason else info

    def add(self, info: FileInfo, state: str = "") -> None:
        """Add a scan result, to be written by `write`; results without content are ignored.

        Args:
            info: the result.
            state: of the file before it was read; "" if unknown.
        """
        if self._folder is None or not info.sha256:
            return
        if self.infos.get(info.sha256) != info:
            self._fresh[info.sha256] = self.infos[info.sha256] = info
        if state and self.states.get(state) != info.sha256:
            self._fresh_states[state] = self.states[state] = info.sha256

    def write(self) -> None:
        """Write all new results durably.

        Raises:
            CacheNotWritten: the folder cannot be written to, or the disk is full.
        """
        if self._folder is None:
            return
        if self._fresh:
            write_lines(self._folder, self._key, map(info_values, self._fresh.values()))
            self._fresh = {}
        if self._fresh_states:
            states = list(self._fresh_states.items())
            parts = (states[low : low + _STATES_PER_LINE] for low in range(0, len(states), _STATES_PER_LINE))
            write_lines(self._folder, _STATES, ([dict(part)] for part in parts))
            self._fresh_states = {}


SETTLED = 2.0
"""Seconds after a file's last change from which a later change is sure to have a different time, even a coarse one."""


def state(stamp: os.stat_result) -> str:
    """Return device, inode, size and times of the last changes as text, "" for a file that changed just now.

    Args:
        stamp: status of the open file, taken before reading, so that the content is never older than the state.
    """
    if max(stamp.st_mtime, stamp.st_ctime) > time.time() - SETTLED:
        return ""
    return f"{stamp.st_dev}:{stamp.st_ino}:{stamp.st_size}:{stamp.st_mtime_ns}:{stamp.st_ctime_ns}"


def state_of(path: Path) -> str:
    """Return the ``state`` of the file at a path, "" if there is no file."""
    try:
        return state(path.stat())
    except (OSError, ValueError):  # ValueError: a name with a null byte
        return ""
