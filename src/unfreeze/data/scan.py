"""Scan many files: hash those that have changed, and decode each content that is not in the scan cache once."""

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
from unfreeze.data.image_hash import decode_and_describe
from unfreeze.data.scan_cache import FileInfo, ScanCache, file_info, state, state_of
from unfreeze.data.unusable import Undecodable

_WRITE_EVERY = 60.0  # seconds of work that a killed scan may lose
_MANY = 500  # files to read from which starting slots pays off

OnPicture = Callable[[str, Any], None]
"""Called with a file's ``reading.content_key`` and its upright 8-bit RGB picture, or what `Prepare` returned for it."""

Prepare = Callable[[Image.Image], Any]
"""Converts an upright 8-bit RGB picture; called from several threads at once."""


@dataclass(frozen=True)
class Callbacks:
    """Functions called while the files of a data set are read and compared.

    Attributes:
        progress: called with (files done, files in total) after each file, in the thread that started the scan.
        comparing: called with (pairs compared, pairs in total) while similar pictures are compared.
        on_picture: called once for each usable content, in the thread that decoded it and by one thread at a time. An
            exception that it raises ends the scan.
        prepare: called first with each such picture, by several threads at once; on_picture receives the result.
    """

    progress: Callable[[int, int], None] | None = None
    comparing: Callable[[int, int], None] | None = None
    on_picture: OnPicture | None = None
    prepare: Prepare | None = None


QUIET = Callbacks()
"""No callbacks."""

_Scanned = tuple[FileInfo, str]
"""Scan result of a file, and its ``scan_cache.state`` when it was read."""


def scan_files(
    paths: Sequence[Path],
    cache: ScanCache,
    progress: Callable[[int, int], None] | None,
    workers: int | None,
    on_picture: OnPicture | None,
    prepare: Prepare | None = None,
    reading: Reading = USUAL,
) -> list[FileInfo]:
    """Hash each file and decode every content that is not in the scan cache; return the results in order.

    An unchanged file is not read. Files of the same content are decoded once. A cached result that says a file is
    unusable is not trusted: the file is decoded again. If there are many files to read and no callback needs their
    pictures, child processes read them, so that a crash of the decoder costs one file. New results are cached.

    Args:
        paths: the files.
        cache: the scan cache.
        progress: called in this thread with (files done, files in total) after each file.
        workers: threads or slots that decode, by default one per core; the result does not depend on it.
        on_picture, prepare: see ``Callbacks``.
        reading: how files are read.
    """
    infos, written = list[FileInfo](), time.monotonic()
    unchanged = _unchanged(paths, cache)
    new = [path for path, info in zip(paths, unchanged, strict=True) if info is None]
    usable = {sha256: info for sha256, info in cache.infos.items() if not info.reason}
    if len(new) >= _MANY and on_picture is None:
        scanned = scan_in_slots(new, usable, reading, workers or cores())
    else:
        scanned = in_threads(_ThreadedScan(usable, reading, on_picture, prepare).read, new, workers)
    with quiet_pillow():
        try:
            with contextlib.closing(scanned):
                for known in unchanged:
                    if known is None:
                        info, file_state = next(scanned)
                        cache.add(info, file_state)
                    infos.append(known or info)
                    if time.monotonic() >= written + _WRITE_EVERY:
                        cache.write()
                        written = time.monotonic()
                    if progress is not None:
                        progress(len(infos), len(paths))
        finally:
            cache.write()
    return infos


def _unchanged(paths: Sequence[Path], cache: ScanCache) -> list[FileInfo | None]:
    """Return the cached result of each usable file that has not changed, None for files that must be read."""
    return [cache.unchanged(state_of(path)) if cache.states else None for path in paths]


def known_files(paths: Sequence[Path], cache: ScanCache) -> list[FileInfo]:
    """Return the cached results of usable files that have not changed since they were read."""
    return [info for info in _unchanged(paths, cache) if info is not None]


def scan_headers(
    paths: Sequence[Path],
    cache: ScanCache,
    progress: Callable[[int, int], None] | None,
    workers: int | None,
    reading: Reading = USUAL,
) -> list[FileInfo]:
    """Hash each file and read the header of every content that is not cached; decode nothing and write nothing."""
    infos = []
    unchanged = _unchanged(paths, cache)
    new = [path for path, info in zip(paths, unchanged, strict=True) if info is None]
    with (
        quiet_pillow(),
        contextlib.closing(in_threads(partial(_read_header, cache.infos, reading), new, workers)) as read,
    ):
        for known in unchanged:
            infos.append(known or next(read))
            if progress is not None:
                progress(len(infos), len(paths))
    return infos


class _ThreadedScan:
    """Read files in several threads, of which one decodes a content while the others wait for its result."""

    def __init__(
        self, known: Mapping[str, FileInfo], reading: Reading, on_picture: OnPicture | None, prepare: Prepare | None
    ) -> None:
        self._known, self._reading = dict(known), reading
        self._on_picture, self._prepare = on_picture, prepare
        self._claims = set[str]()
        self._claiming, self._handing = threading.Condition(), threading.Lock()

    def read(self, path: Path) -> _Scanned:
        """Return the scan result of a file, decoding it unless another thread has, and its state when it was read."""
        try:
            with open_regular(path) as file:
                before = stamp(file)
                file_state = state(before)
                sha256 = digest(file)
                if not self._claim(sha256):
                    return self._known[sha256], file_state
                try:
                    decoded, picture = decode_and_describe(file, self._reading)
                    check_unchanged(file, before)  # before the result is known under this sha256
                    info = file_info(sha256, before.st_size, decoded)
                    if picture is not None and not info.reason and self._on_picture is not None:
                        prepared = picture if self._prepare is None else self._prepare(picture)
                        with self._handing:
                            self._on_picture(content_key(sha256, info.mode, self._reading), prepared)
                    self._known[sha256] = info
                    return info, file_state
                finally:
                    self._release(sha256)
        except Undecodable as error:
            return FileInfo(reason=error.reason), ""

    def _release(self, sha256: str) -> None:
        with self._claiming:
            self._claims.discard(sha256)
            self._claiming.notify_all()

    def _claim(self, sha256: str) -> bool:
        """Return whether this thread must decode a content; False once its result is known."""
        with self._claiming:
            while sha256 in self._claims:  # its thread may fail, if the file changes while it is read
                self._claiming.wait()
            if sha256 in self._known:
                return False
            self._claims.add(sha256)
            return True


def _read_header(known: Mapping[str, FileInfo], reading: Reading, path: Path) -> FileInfo:
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
"""Items running or waiting per thread: a slow item does not block the others, and memory stays bounded."""


def cores() -> int:
    """Return the number of cores."""
    return os.cpu_count() or 1


def in_threads(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int | None
) -> Generator[Result, None, None]:
    """Yield function(item) for each item, in order; close the generator to cancel items that have not started.

    Args:
        function: called in several threads at once.
        items: read in the caller's thread, a few ahead of the results.
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
