"""Scan many files: hash each file that has changed, and decode each content that is not in the scan cache once."""

import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image

from unfreeze.data.decode import header
from unfreeze.data.decode_pool import scan_in_slots
from unfreeze.data.formats.reading import USUAL, Reading, content_key
from unfreeze.data.image_file import check_unchanged, digest, open_regular, quiet_pillow, stamp
from unfreeze.data.image_hash import decoded
from unfreeze.data.scan_cache import FileInfo, ScanCache, file_infos, state, state_of
from unfreeze.data.unusable import Undecodable

_WRITE_EVERY = 60.0  # seconds, so that a scan that is killed loses no more
_MANY = 500  # files to be read, from which on starting slots pays

OnPicture = Callable[[str, Any], None]
"""Called with the key of a file's content, see ``reading.content_key``, and its upright 8-bit RGB picture, or with
what `Prepare` returned for it."""

Prepare = Callable[[Image.Image], Any]
"""Converts an upright 8-bit RGB picture; called from several threads at once."""


@dataclass(frozen=True)
class Callbacks:
    """What is called while the files of a data set are read and compared.

    Attributes:
        progress: called with (files done, files in all) after each file, in the thread that asked for the scan.
        comparing: called with (pairs compared, pairs in all) while pictures that look alike are compared.
        on_picture: called once for each content that is decoded whole and can be used, in the thread that decoded it
            (never the one that asked for the scan), by one thread at a time. An exception that it raises ends the scan.
        prepare: called first with each such picture, by several threads at once; on_picture gets what it returns.
    """

    progress: Callable[[int, int], None] | None = None
    comparing: Callable[[int, int], None] | None = None
    on_picture: OnPicture | None = None
    prepare: Prepare | None = None


QUIET = Callbacks()
"""Callbacks of which none is called."""

_Scanned = tuple[FileInfo, str]
"""What is known of a file, and its state when it was read, see ``data.scan_cache``."""


def scan_files(
    paths: Sequence[Path],
    remembered: ScanCache,
    progress: Callable[[int, int], None] | None,
    workers: int | None,
    on_picture: OnPicture | None,
    prepare: Prepare | None = None,
    reading: Reading = USUAL,
) -> list[FileInfo]:
    """Hash each file and decode every content that is not in the scan cache; return the results in order.

    A file that has not changed since it was last read is not read. Files of the same content are decoded once. A cached
    result that found the file unusable is not trusted: the file is decoded again. If there are many files to read and
    no callback needs the pictures, worker processes read them, and one of them may die. New results are cached.

    Args:
        paths: the files.
        remembered: the scan cache.
        progress: called in this thread with (files done, files in all) after each file.
        workers: threads or slots that decode, by default one per core; the result does not depend on it.
        on_picture: called for each content that was decoded whole, in the thread that decoded it, in one at a time;
            what it raises ends all.
        prepare: called first, in the same thread but side by side with others; on_picture then gets what it returns.
        reading: how files are read.
    """
    infos, written = list[FileInfo](), time.monotonic()
    known = _unread(paths, remembered)
    new = [path for path, info in zip(paths, known, strict=True) if info is None]
    fit = {sha256: info for sha256, info in remembered.looks.items() if not info.reason}
    if len(new) >= _MANY and on_picture is None:
        found = scan_in_slots(new, fit, reading, workers or cores())
    else:
        found = in_threads(_Decoder(fit, reading, on_picture, prepare).read, new, workers)
    with quiet_pillow():
        try:
            with contextlib.closing(found):
                for unread in known:
                    if unread is None:
                        info, file_state = next(found)
                        remembered.keep(info, file_state)
                    infos.append(unread or info)
                    if time.monotonic() >= written + _WRITE_EVERY:
                        remembered.write()
                        written = time.monotonic()
                    if progress is not None:
                        progress(len(infos), len(paths))
        finally:
            remembered.write()
    return infos


def _unread(paths: Sequence[Path], remembered: ScanCache) -> list[FileInfo | None]:
    """Return what is known of each file that need not be read again, in order, and None for the others."""
    return [remembered.unread(state_of(path)) if remembered.states else None for path in paths]


def known_files(paths: Sequence[Path], remembered: ScanCache) -> list[FileInfo]:
    """Return what is known of the files that have not changed since they were read and found usable."""
    return [info for info in _unread(paths, remembered) if info is not None]


def scan_headers(
    paths: Sequence[Path],
    remembered: ScanCache,
    progress: Callable[[int, int], None] | None,
    workers: int | None,
    reading: Reading = USUAL,
) -> list[FileInfo]:
    """Hash each file and read the header of every content that is not cached; decode nothing and write nothing."""
    infos = []
    known = _unread(paths, remembered)
    new = [path for path, info in zip(paths, known, strict=True) if info is None]
    glance = partial(_glance, remembered.looks, reading)
    with quiet_pillow(), contextlib.closing(in_threads(glance, new, workers)) as found:
        for unread in known:
            infos.append(unread or next(found))
            if progress is not None:
                progress(len(infos), len(paths))
    return infos


class _Decoder:
    """Read files from several threads; one thread decodes a content, and the others wait for its result."""

    def __init__(
        self, known: Mapping[str, FileInfo], reading: Reading, on_picture: OnPicture | None, prepare: Prepare | None
    ) -> None:
        self._known, self._reading = dict(known), reading
        self._on_picture, self._prepare = on_picture, prepare
        self._claims = set[str]()
        self._claiming, self._handing = threading.Condition(), threading.Lock()

    def read(self, path: Path) -> _Scanned:
        """Return what is known of a file, decoding it if no thread has, and its state when it was read."""
        try:
            with open_regular(path) as file:
                before = stamp(file)
                file_state = state(before)
                sha256 = digest(file)
                if not self._claim(sha256):
                    return self._known[sha256], file_state
                try:
                    seen, picture = decoded(file, self._reading)
                    check_unchanged(file, before)  # before anybody is told what belongs to this sha256
                    (info,) = file_infos([(sha256, before.st_size, seen)])
                    if picture is not None and not info.reason and self._on_picture is not None:
                        wanted = picture if self._prepare is None else self._prepare(picture)
                        with self._handing:
                            self._on_picture(content_key(sha256, info.mode, self._reading), wanted)
                    self._known[sha256] = info
                    return info, file_state
                finally:
                    self._give_up(sha256)
        except Undecodable as error:
            return FileInfo(reason=error.reason), ""

    def _give_up(self, sha256: str) -> None:
        with self._claiming:
            self._claims.discard(sha256)
            self._claiming.notify_all()

    def _claim(self, sha256: str) -> bool:
        """Return whether this thread decodes a content; False once its result is known."""
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


Item = TypeVar("Item")
Result = TypeVar("Result")

_AHEAD = 4
"""Items running or waiting per thread: one slow item does not stop the others, and memory stays bounded."""


def cores() -> int:
    """Return how many cores there are."""
    return os.cpu_count() or 1


def in_threads(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int | None
) -> Generator[Result, None, None]:
    """Yield function(item) for each item, in order; close the generator, so that an interrupt waits for few items.

    Args:
        function: called in the threads, several at a time.
        items: taken in the caller's thread, a few ahead of the results.
        workers: threads, by default one per core.
    """
    workers = workers or cores()
    waiting = deque[Future[Result]]()
    pool = ThreadPoolExecutor(workers)
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) >= _AHEAD * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
