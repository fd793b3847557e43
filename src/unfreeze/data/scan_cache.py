"""Cache of scan results: what reading and decoding each file found, keyed by content and by file state."""

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
    """What looking at one file gave.

    Attributes:
        sha256: of the content, in hex; "" where the content could not be read.
        width, height: in pixels, upright, 0 where unknown.
        mode: Pillow's name of the stored pixel mode, "" where unknown.
        reason: why the file is not fit for use, "" where it is.
        bytes: size of the content, 0 where unknown.
        format: one of ``image_file.FORMATS``, "" where unknown.
        several: whether frames or pages follow the first, which alone is used.
        likeness: what the picture looks like; None where it was not decoded, or of more than 8 bits of which nobody
            has said yet how many count.
        peak: the largest value of a picture of more than 8 bits; None of others.
    """

    sha256: str = ""
    width: int = 0
    height: int = 0
    mode: str = ""
    reason: str = ""
    bytes: int = 0
    format: str = ""
    several: bool = False
    likeness: ImageStats | None = None
    peak: int | None = None


def file_infos(files: Iterable[tuple[str, int, DecodedFile]]) -> list[FileInfo]:
    """Return the looks at files of which sha256, size in bytes and what decoding told are known."""
    return [
        FileInfo(sha256, *seen.size, seen.mode, seen.reason, size, *seen.kind, seen.likeness, seen.peak)
        for sha256, size, seen in files
    ]


def look_values(look: FileInfo) -> list[Any]:
    """Return a look as JSON data."""
    values = [look.sha256, look.width, look.height, look.mode, look.reason, look.bytes, look.format, look.several]
    values += as_values(look.likeness) if look.likeness else []
    return values + ([] if look.peak is None else [look.peak])


def look_from(values: list[Any]) -> FileInfo:
    """Read what ``look_values`` gave."""
    sha256, width, height, mode, reason, size, form, several, *rest = values
    peak = rest.pop() if is_deep(mode) and rest and isinstance(rest[-1], int) else None
    return FileInfo(sha256, width, height, mode, reason, size, form, several, from_values(rest) if rest else None, peak)


class CacheNotWritten(UserError):
    """What was found out cannot be kept in the cache; whoever has no cache finds it out again."""


def write_lines(folder: Path, key: str, lines: Iterable[Sequence[Any]]) -> None:
    """Write lists of JSON data, a line each, durably, into a file of the folder with a name of its own.

    Raises:
        Unremembered: the folder cannot be written to, or the disk is full.
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
    """Yield the lists that were written under a key, of each file in its order; none where there is no folder."""
    for path in [] if folder is None else sorted(folder.glob(f"{key}-*.jsonl")):
        try:
            lines = path.read_bytes().splitlines(keepends=True)
        except OSError:  # then it is found out again
            continue
        for line in lines:
            if line[:2] == b'["' and line[18:21] == b'", ' and line[2:18] == _digits(line[21:]):
                yield json.loads(line.decode())[1:]


def _line(values: Sequence[Any]) -> bytes:
    """Return a list as a line of JSON, with 16 hex digits over all that follows them in front of its values."""
    rest = json.dumps(values)[1:].encode() + b"\n"
    return b'["' + _digits(rest) + b'", ' + rest


def _digits(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=8).hexdigest().encode()


_FORMAT = 3

JUDGING_RULES = 1
"""Counts up whenever a file comes to be judged otherwise."""

_STATES = "states-2"
_TOGETHER = 256  # states in a line


class ScanCache:
    """The looks kept in a folder of the cache, by sha256, and those that are to be added to it.

    Another version of Pillow, other rules of decoding and another way of reading have files of their own.

    Args:
        folder: the folder, made when the first look is kept; None remembers nothing.
        reading: how files are read.

    Attributes:
        looks: by sha256.
        states: the sha256 of what was read of files in these states.
    """

    def __init__(self, folder: Path | None, reading: Reading = USUAL) -> None:
        self._folder = folder
        rules = (_FORMAT, DECODE_RULES, JUDGING_RULES, LIKENESS_RULES, PIL.__version__)
        self._key = fingerprint(*rules, *reading.rules)
        self._fresh: dict[str, FileInfo] = {}
        self._fresh_states: dict[str, str] = {}
        self.states: dict[str, str] = {}
        self.looks: dict[str, FileInfo] = {}
        for look in map(look_from, read_lines(folder, self._key)):
            # What could be decoded once can be: then the trouble was the disk's or the memory's.
            if look.sha256 not in self.looks or not look.reason:
                self.looks[look.sha256] = look
        for (states,) in read_lines(folder, _STATES):
            self.states.update(states)

    def unread(self, state: str) -> FileInfo | None:
        """Return the look at a file that is in a known state and fit for use; None of any other, which is to be read.

        Args:
            state: see ``data.scan_cache``.
        """
        look = self.looks.get(self.states.get(state, ""))
        return None if look is None or look.reason else look

    def keep(self, look: FileInfo, state: str = "") -> None:
        """Take note of a look, to be written by `write`; one at a file whose content was not read says nothing.

        Args:
            look: the look.
            state: of the file, before it was read; "" where that says nothing.
        """
        if self._folder is None or not look.sha256:
            return
        if self.looks.get(look.sha256) != look:
            self._fresh[look.sha256] = self.looks[look.sha256] = look
        if state and self.states.get(state) != look.sha256:
            self._fresh_states[state] = self.states[state] = look.sha256

    def write(self) -> None:
        """Write, durably, what was kept since the last time.

        Raises:
            Unremembered: the folder cannot be written to, or the disk is full.
        """
        if self._folder is None:
            return
        if self._fresh:
            write_lines(self._folder, self._key, map(look_values, self._fresh.values()))
            self._fresh = {}
        if self._fresh_states:
            states = list(self._fresh_states.items())
            parts = (states[low : low + _TOGETHER] for low in range(0, len(states), _TOGETHER))
            write_lines(self._folder, _STATES, ([dict(part)] for part in parts))
            self._fresh_states = {}


SETTLED = 2.0
"""Seconds since a file's last change after which its next change has another time, even where times are coarse."""


def state(stamp: os.stat_result) -> str:
    """Return device, inode, size and the times of the last changes as text; "" of a file that changed just now.

    Args:
        stamp: of the open file, taken before it is read: what is read is then never older than its state.
    """
    if max(stamp.st_mtime, stamp.st_ctime) > time.time() - SETTLED:
        return ""
    return f"{stamp.st_dev}:{stamp.st_ino}:{stamp.st_size}:{stamp.st_mtime_ns}:{stamp.st_ctime_ns}"


def state_of(path: Path) -> str:
    """Return the ``state`` of the file at a path; "" where there is none."""
    try:
        return state(path.stat())
    except (OSError, ValueError):  # ValueError: a name with a null byte
        return ""
