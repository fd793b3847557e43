"""Look at many files: what has changed is hashed, and each content that is not known decoded once."""

import contextlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from unfreeze.data.decode import header
from unfreeze.data.decode_pool import look_in_slots
from unfreeze.data.formats.reading import USUAL, Reading, content_key
from unfreeze.data.image_file import check_unchanged, digest, open_regular, quiet_pillow, stamp
from unfreeze.data.image_hash import decoded
from unfreeze.data.scan_cache import FileInfo, ScanCache, looks_at, state, state_of
from unfreeze.data.threads import cores, in_threads
from unfreeze.data.unusable import Undecodable

_WRITE_EVERY = 60.0  # seconds, so that a scan that is killed loses no more


_MANY = 500  # files to be read, from which on starting slots pays


OnPicture = Callable[[str, Any], None]
"""Is given the key of a file's content, see ``reading.content_key``, and its upright 8-bit RGB picture, or what was
made of it."""


Prepare = Callable[[Image.Image], Any]
"""Makes of an upright 8-bit RGB picture what is wanted of it; called from several threads at once."""


_Told = tuple[FileInfo, str]
"""A look at a file, and the state that the file was in, see ``data.scan_cache``."""


def look_at_all(
    paths: Sequence[Path],
    remembered: ScanCache,
    progress: Callable[[int, int], None] | None,
    workers: int | None,
    on_picture: OnPicture | None,
    prepare: Prepare | None = None,
    reading: Reading = USUAL,
) -> list[FileInfo]:
    """Hash each file and decode whole what is not remembered; results in order; remember the new looks.

    A file in a state in which it was read before is not read. Files of the same content are decoded once. A remembered
    look that found the file unfit is not relied upon: the file is decoded again. Where many are to be read and nobody
    wants the pictures, slots read them, of which one may die.

    Args:
        paths: the files.
        remembered: looks of earlier times.
        progress: called in this thread with (files done, files in all) after each file.
        workers: threads or slots that decode, by default one per core; the result does not depend on it.
        on_picture: called for each content that was decoded whole, in the thread that decoded it, in one at a time;
            what it raises ends all.
        prepare: called first, in the same thread but side by side with others; on_picture then gets what it returns.
        reading: how files are read.
    """
    looks, written = list[FileInfo](), time.monotonic()
    known = _unread(paths, remembered)
    new = [path for path, look in zip(paths, known, strict=True) if look is None]
    fit = {sha256: look for sha256, look in remembered.looks.items() if not look.reason}
    if len(new) >= _MANY and on_picture is None:
        found = look_in_slots(new, fit, reading, workers or cores())
    else:
        found = in_threads(_Looking(fit, reading, on_picture, prepare).look, new, workers)
    with quiet_pillow():
        try:
            with contextlib.closing(found):
                for unread in known:
                    if unread is None:
                        look, told = next(found)
                        remembered.keep(look, told)
                    looks.append(unread or look)
                    if time.monotonic() >= written + _WRITE_EVERY:
                        remembered.write()
                        written = time.monotonic()
                    if progress is not None:
                        progress(len(looks), len(paths))
        finally:
            remembered.write()
    return looks


def _unread(paths: Sequence[Path], remembered: ScanCache) -> list[FileInfo | None]:
    """Return the looks at those files that need not be read again, in order, and None for the others."""
    return [remembered.unread(state_of(path)) if remembered.states else None for path in paths]


def looks_known(paths: Sequence[Path], remembered: ScanCache) -> list[FileInfo]:
    """Return the looks at those files that are in a state in which they were read before and found fit for use."""
    return [look for look in _unread(paths, remembered) if look is not None]


def glance_at_all(
    paths: Sequence[Path],
    remembered: ScanCache,
    progress: Callable[[int, int], None] | None,
    workers: int | None,
    reading: Reading = USUAL,
) -> list[FileInfo]:
    """Hash each file and read the header of what is not remembered; nothing is decoded, nothing is written."""
    looks = []
    known = _unread(paths, remembered)
    new = [path for path, look in zip(paths, known, strict=True) if look is None]
    glance = partial(_glance, remembered.looks, reading)
    with quiet_pillow(), contextlib.closing(in_threads(glance, new, workers)) as found:
        for unread in known:
            looks.append(unread or next(found))
            if progress is not None:
                progress(len(looks), len(paths))
    return looks


class _Looking:
    """Looks at files from several threads; one content is decoded by one of them, and the others wait for it."""

    def __init__(
        self, known: Mapping[str, FileInfo], reading: Reading, on_picture: OnPicture | None, prepare: Prepare | None
    ) -> None:
        self._known, self._reading = dict(known), reading
        self._on_picture, self._prepare = on_picture, prepare
        self._claims = set[str]()
        self._claiming, self._handing = threading.Condition(), threading.Lock()

    def look(self, path: Path) -> _Told:
        """Return what the file tells, decoding it if nobody has, and the state that it was in."""
        try:
            with open_regular(path) as file:
                before = stamp(file)
                told = state(before)
                sha256 = digest(file)
                if not self._claim(sha256):
                    return self._known[sha256], told
                try:
                    seen, picture = decoded(file, self._reading)
                    check_unchanged(file, before)  # before anybody is told what belongs to this sha256
                    (look,) = looks_at([(sha256, before.st_size, seen)])
                    if picture is not None and not look.reason and self._on_picture is not None:
                        wanted = picture if self._prepare is None else self._prepare(picture)
                        with self._handing:
                            self._on_picture(content_key(sha256, look.mode, self._reading), wanted)
                    self._known[sha256] = look
                    return look, told
                finally:
                    self._give_up(sha256)
        except Undecodable as error:
            return FileInfo(reason=error.reason), ""

    def _give_up(self, sha256: str) -> None:
        with self._claiming:
            self._claims.discard(sha256)
            self._claiming.notify_all()

    def _claim(self, sha256: str) -> bool:
        """Return whether this thread is to decode a content; False once its look is known."""
        with self._claiming:
            while sha256 in self._claims:  # whose holder may fail, on a file that changed while it was read
                self._claiming.wait()
            if sha256 in self._known:
                return False
            self._claims.add(sha256)
            return True


def _glance(known: Mapping[str, FileInfo], reading: Reading, path: Path) -> FileInfo:
    sha256, size = "", 0
    try:
        with open_regular(path) as file:
            sha256, size = digest(file), stamp(file).st_size
            if sha256 in known:
                return known[sha256]
            mode, (width, height), kind = header(file, reading)
    except Undecodable as error:
        return FileInfo(sha256, *error.size, reason=error.reason, bytes=size)
    return FileInfo(sha256, width, height, mode, "", size, *kind)
