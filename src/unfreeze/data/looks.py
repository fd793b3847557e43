"""Looks: what reading and decoding one file told about it, remembered by content so that it is found out once."""

import contextlib
import hashlib
import json
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from io import BufferedReader
from pathlib import Path
from typing import Any

import PIL
from PIL import Image

from unfreeze.config.fingerprint import fingerprint
from unfreeze.data.decode import (
    DECODE_RULES,
    Undecodable,
    check_unchanged,
    digest,
    header,
    load,
    open_regular,
    quiet_pillow,
    stamp,
    to_rgb,
    upright_size,
)
from unfreeze.data.likeness import LIKENESS_RULES, Likeness, as_values, from_values, likeness
from unfreeze.data.threads import in_threads
from unfreeze.errors import UserError
from unfreeze.store import replacing

_FORMAT = 2
_WRITE_EVERY = 10_000  # files, so that a scan of very many that is killed need not begin at the beginning

OnPicture = Callable[[str, Any], None]
"""Is given a file's sha256 and its upright 8-bit RGB picture, or what was made of it."""
Prepare = Callable[[Image.Image], Any]
"""Makes of an upright 8-bit RGB picture what is wanted of it; called from several threads at once."""


@dataclass(frozen=True)
class Look:
    """What looking at one file gave.

    Attributes:
        sha256: of the content, in hex; "" where the content could not be read.
        width, height: in pixels, upright, 0 where unknown.
        mode: Pillow's name of the stored pixel mode, "" where unknown.
        reason: why the file is not fit for use, "" where it is.
        bytes: size of the content, 0 where unknown.
        likeness: what the picture looks like; None where it was not decoded.
    """

    sha256: str = ""
    width: int = 0
    height: int = 0
    mode: str = ""
    reason: str = ""
    bytes: int = 0
    likeness: Likeness | None = None


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
            UserError: the folder cannot be written to, or the disk is full.
        """
        if self._folder is None or not self._fresh:
            return
        write_lines(self._folder, self._key, map(_line, self._fresh.values()))
        self._fresh = {}


def write_lines(folder: Path, key: str, lines: Iterable[bytes]) -> None:
    """Write lines, durably, into a file of the folder with a name of its own.

    Raises:
        UserError: the folder cannot be written to, or the disk is full.
    """
    try:
        with replacing(folder / f"{key}-{uuid.uuid4().hex}.jsonl") as temporary:
            with temporary.open("wb") as file:
                file.writelines(lines)
    except UserError as error:
        raise UserError(
            error.given,
            "a cache folder that can be written to, with room on its disk",
            "set UNFREEZE_CACHE to another folder, or free space and run the same command again",
        ) from error


def _line(look: Look) -> bytes:
    """Return a look as a line of JSON: a list of 16 hex digits over all that follows them, and the look's values."""
    values = [look.sha256, look.width, look.height, look.mode, look.reason, look.bytes]
    rest = json.dumps(values + (as_values(look.likeness) if look.likeness else []))[1:].encode() + b"\n"
    return b'["' + digits(rest) + b'", ' + rest


def _read(path: Path) -> Iterator[Look]:
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except OSError:  # then its files are looked at again
        return
    for line in lines:
        if line[:2] == b'["' and line[18:21] == b'", ' and line[2:18] == digits(line[21:]):
            sha256, width, height, mode, reason, size, *values = json.loads(line)[1:]
            yield Look(sha256, width, height, mode, reason, size, from_values(values) if values else None)


def digits(content: bytes) -> bytes:
    """Return 16 hex digits over a line's content, by which an altered line is noticed."""
    return hashlib.blake2b(content, digest_size=8).hexdigest().encode()


def look_at_all(
    paths: Sequence[Path],
    remembered: Remembered,
    progress: Callable[[int, int], None] | None,
    workers: int | None,
    on_picture: OnPicture | None,
    prepare: Prepare | None = None,
) -> list[Look]:
    """Hash each file and decode whole what is not remembered; in threads, results in order; remember the new looks.

    Files of the same content are decoded once. Pillow and hashlib let go of the interpreter's lock. A remembered look
    that found the file unfit is not relied upon: the file is decoded again.

    Args:
        paths: the files.
        remembered: looks of earlier times.
        progress: called in this thread with (files done, files in all) after each file.
        workers: threads, by default one per core.
        on_picture: called for each content that was decoded, in the thread that decoded it, in one at a time; what it
            raises ends the whole.
        prepare: called first, in the same thread but side by side with others; on_picture then gets what it returns.
    """
    looking = _Looking(remembered.looks, on_picture, prepare)
    looks = []
    try:
        with quiet_pillow(), contextlib.closing(in_threads(looking.look, paths, workers)) as found:
            for look in found:
                looks.append(look)
                remembered.keep(look)
                if len(looks) % _WRITE_EVERY == 0:
                    remembered.write()
                if progress is not None:
                    progress(len(looks), len(paths))
    finally:
        remembered.write()
    return looks


def glance_at_all(
    paths: Sequence[Path],
    remembered: Remembered,
    progress: Callable[[int, int], None] | None,
    workers: int | None,
) -> list[Look]:
    """Hash each file and read the header of what is not remembered; nothing is decoded, nothing is written."""
    looks = []
    glance = partial(_glance, remembered.looks)
    with quiet_pillow(), contextlib.closing(in_threads(glance, paths, workers)) as found:
        for look in found:
            looks.append(look)
            if progress is not None:
                progress(len(looks), len(paths))
    return looks


class _Looking:
    """Looks at files from several threads; one content is decoded by one of them, and the others wait for it."""

    def __init__(self, known: Mapping[str, Look], on_picture: OnPicture | None, prepare: Prepare | None) -> None:
        self._known = {sha256: look for sha256, look in known.items() if not look.reason}
        self._on_picture, self._prepare = on_picture, prepare
        self._claims: dict[str, threading.Event] = {}
        self._claiming, self._handing = threading.Lock(), threading.Lock()

    def look(self, path: Path) -> Look:
        """Return what the file tells, decoding it if nobody has."""
        try:
            with open_regular(path) as file:
                before = stamp(file)
                sha256 = digest(file)
                if not self._claim(sha256):
                    return self._known[sha256]
                try:
                    look, picture = _decoded(file, sha256, before[0])
                    check_unchanged(file, before)  # before anybody is told what belongs to this sha256
                    if picture is not None and self._on_picture is not None:
                        wanted = picture if self._prepare is None else self._prepare(picture)
                        with self._handing:
                            self._on_picture(sha256, wanted)
                    self._known[sha256] = look
                    return look
                finally:
                    with self._claiming:
                        self._claims.pop(sha256).set()
        except Undecodable as error:
            return Look(reason=error.reason)

    def _claim(self, sha256: str) -> bool:
        """Return whether this thread is to decode a content; False once its look is known."""
        while True:
            with self._claiming:
                if sha256 in self._known:
                    return False
                if sha256 not in self._claims:
                    self._claims[sha256] = threading.Event()
                    return True
                claim = self._claims[sha256]
            claim.wait()  # whose holder may have failed, on a file that changed while it was read


def _decoded(file: BufferedReader, sha256: str, size: int) -> tuple[Look, Image.Image | None]:
    """Return the look at a file that is open, and its upright 8-bit RGB picture if it has one."""
    mode, width, height = "", 0, 0
    try:
        image = load(file)
        mode, (width, height) = image.mode, upright_size(image)
        picture = to_rgb(image)
        return Look(sha256, width, height, mode, "", size, likeness(picture)), picture
    except Undecodable as error:
        return Look(sha256, width, height, mode, error.reason, size), None


def _glance(known: Mapping[str, Look], path: Path) -> Look:
    sha256, size = "", 0
    try:
        with open_regular(path) as file:
            sha256, size = digest(file), stamp(file)[0]
            if sha256 in known:
                return known[sha256]
            mode, (width, height) = header(file)
    except Undecodable as error:
        return Look(sha256, reason=error.reason, bytes=size)
    return Look(sha256, width, height, mode, bytes=size)
