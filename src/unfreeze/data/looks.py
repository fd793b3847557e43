"""Looks, remembered by content in the cache, so that what a file tells is found out once."""

import hashlib
import json
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

import PIL

from unfreeze.config.fingerprint import fingerprint
from unfreeze.data.decode import DECODE_RULES
from unfreeze.data.likeness import LIKENESS_RULES
from unfreeze.data.look import Look, look_from, look_values
from unfreeze.durable import replacing
from unfreeze.errors import UserError

_FORMAT = 3


class Unremembered(UserError):
    """What was found out cannot be kept in the cache; whoever has no cache finds it out again."""


class Remembered:
    """The looks kept in a folder of the cache, by sha256, and those that are to be added to it.

    Each file of the folder is written once, whole, under a name of its own, and all of them are read. A line that
    cannot be read, or is not as it was written, counts as not there. Another version of Pillow, or other rules of
    decoding, have files of their own.

    Args:
        folder: the folder, made when the first look is kept; None remembers nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._key = fingerprint(_FORMAT, DECODE_RULES, LIKENESS_RULES, PIL.__version__)
        self._fresh: dict[str, Look] = {}
        self.looks: dict[str, Look] = {}
        for path in [] if folder is None else sorted(folder.glob(f"{self._key}-*.jsonl")):
            for look in _read(path):
                # What could be decoded once can be: then the trouble was the disk's or the memory's.
                if look.sha256 not in self.looks or not look.reason:
                    self.looks[look.sha256] = look

    def keep(self, look: Look) -> None:
        """Take note of a look, to be written by `write`; one at a file whose content was not read says nothing."""
        if self._folder is not None and look.sha256 and self.looks.get(look.sha256) != look:
            self._fresh[look.sha256] = self.looks[look.sha256] = look

    def write(self) -> None:
        """Write, durably, what was kept since the last time.

        Raises:
            Unremembered: the folder cannot be written to, or the disk is full.
        """
        if self._folder is None or not self._fresh:
            return
        write_lines(self._folder, self._key, map(_line, self._fresh.values()))
        self._fresh = {}


def write_lines(folder: Path, key: str, lines: Iterable[bytes]) -> None:
    """Write lines, durably, into a file of the folder with a name of its own.

    Raises:
        Unremembered: the folder cannot be written to, or the disk is full.
    """
    try:
        with replacing(folder / f"{key}-{uuid.uuid4().hex}.jsonl") as temporary:
            with temporary.open("wb") as file:
                file.writelines(lines)
    except UserError as error:
        raise Unremembered(
            error.given,
            "a cache folder that can be written to, with room on its disk",
            "set UNFREEZE_CACHE to another folder, or free space and run the same command again",
        ) from error


def _line(look: Look) -> bytes:
    """Return a look as a line of JSON: a list of 16 hex digits over all that follows them, and the look's values."""
    rest = json.dumps(look_values(look))[1:].encode() + b"\n"
    return b'["' + digits(rest) + b'", ' + rest


def _read(path: Path) -> Iterator[Look]:
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except OSError:  # then its files are looked at again
        return
    for line in lines:
        if line[:2] == b'["' and line[18:21] == b'", ' and line[2:18] == digits(line[21:]):
            yield look_from(json.loads(line)[1:])


def digits(content: bytes) -> bytes:
    """Return 16 hex digits over a line's content, by which an altered line is noticed."""
    return hashlib.blake2b(content, digest_size=8).hexdigest().encode()
