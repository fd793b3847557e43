"""Look at many files: what has changed is hashed, and each content that is not known decoded once."""

import contextlib
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from unfreeze.data.decode import check_unchanged, digest, header, open_regular, quiet_pillow, stamp
from unfreeze.data.look import Look, looks_at
from unfreeze.data.looks import Remembered
from unfreeze.data.reading import USUAL, Reading, content_key
from unfreeze.data.sketch import decoded
from unfreeze.data.states import state, state_of
from unfreeze.data.threads import cores, in_threads
from unfreeze.data.unfit import Undecodable
from unfreeze.data.workers import Workers

_WRITE_EVERY = 60.0  # seconds, so that a scan that is killed loses no more
_MANY, _SOME = 500, 64  # files in all, and new ones among them, from which on starting processes pays
_LEAST, _MOST, _BYTES = 4, 32, 2**21  # files handed to a process at once, and about how many bytes of them
_SAMPLE = 32  # files whose sizes say how many bytes a file has
_QUICK = 0.001  # seconds that a file takes to be read and hashed at most, where threads do so one at a time

OnPicture = Callable[[str, Any], None]
"""Is given the key of a file's content, see ``reading.content_key``, and its upright 8-bit RGB picture, or what was
made of it."""
Prepare = Callable[[Image.Image], Any]
"""Makes of an upright 8-bit RGB picture what is wanted of it; called from several threads at once."""

_Told = tuple[Look, str]
"""A look at a file, and the state that the file was in, see ``data.states``."""


def look_at_all(
    paths: Sequence[Path],
    remembered: Remembered,
    progress: Callable[[int, int], None] | None,
    workers: int | None,
    on_picture: OnPicture | None,
    prepare: Prepare | None = None,
    reading: Reading = USUAL,
) -> list[Look]:
    """Hash each file and decode whole what is not remembered; results in order; remember the new looks.

    A file in a state in which it was read before is not read. Files of the same content are decoded once. A remembered
    look that found the file unfit is not relied upon: the file is decoded again. Where many are new and nobody wants
    the pictures, processes decode them, of which one may die.

    Args:
        paths: the files.
        remembered: looks of earlier times.
        progress: called in this thread with (files done, files in all) after each file.
        workers: threads or processes that decode, by default one per core; the result does not depend on it.
        on_picture: called for each content that was decoded whole, in the thread that decoded it, in one at a time;
            what it raises ends all.
        prepare: called first, in the same thread but side by side with others; on_picture then gets what it returns.
        reading: how files are read.
    """
    looks, written = list[Look](), time.monotonic()
    known = _unread(paths, remembered)
    new = [path for path, look in zip(paths, known, strict=True) if look is None]
    with Workers(workers or cores(), reading) as processes, quiet_pillow():
        if len(new) >= _MANY and on_picture is None:
            unknown = len(paths) - len(remembered.looks) >= _MANY  # so many are new, or copies
            looking = _Looking(remembered.looks, reading, processes=processes, many=unknown)
            found = _by_processes(looking, new, workers)
        else:
            found = in_threads(_Looking(remembered.looks, reading, on_picture, prepare).look, new, workers)
        try:
            with contextlib.closing(found), contextlib.ExitStack() as first:
                first.callback(processes.end)  # where this is interrupted, so that no thread waits for them
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


def _unread(paths: Sequence[Path], remembered: Remembered) -> list[Look | None]:
    """Return the looks at those files that need not be read again, in order, and None for the others."""
    return [remembered.unread(state_of(path)) if remembered.states else None for path in paths]


def looks_known(paths: Sequence[Path], remembered: Remembered) -> list[Look]:
    """Return the looks at those files that are in a state in which they were read before and found fit for use."""
    return [look for look in _unread(paths, remembered) if look is not None]


def _by_processes(looking: "_Looking", paths: Sequence[Path], workers: int | None) -> Generator[_Told, None, None]:
    """Yield looks and states in order; twice as many threads as processes, so that some hash while others wait."""
    threads = 2 * (workers or cores())
    parts = (paths[low:high] for low, high in _parts(len(paths), threads, _together(paths)))
    with contextlib.closing(in_threads(looking.look_together, parts, threads)) as found:
        for looks in found:
            yield from looks


def _together(paths: Sequence[Path]) -> int:
    """Return how many files a process is to get at once: of large ones few, so that it is soon seen how far it is."""
    sizes = []
    for path in paths[:: max(1, len(paths) // _SAMPLE)]:
        with contextlib.suppress(OSError, ValueError):  # which is told when the file is read
            sizes.append(path.stat().st_size)
    return max(_LEAST, min(_MOST, _BYTES * len(sizes) // max(1, sum(sizes))))


def _parts(count: int, threads: int, together: int) -> Iterator[tuple[int, int]]:
    """Cut so many files into parts: towards the end smaller ones, so that no process works long on the last alone."""
    low = 0
    while low < count:
        high = min(count, low + min(together, max(_LEAST, (count - low) // threads)))
        yield low, high
        low = high


def glance_at_all(
    paths: Sequence[Path],
    remembered: Remembered,
    progress: Callable[[int, int], None] | None,
    workers: int | None,
    reading: Reading = USUAL,
) -> list[Look]:
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
        self,
        known: Mapping[str, Look],
        reading: Reading,
        on_picture: OnPicture | None = None,
        prepare: Prepare | None = None,
        processes: Workers | None = None,
        many: bool = False,
    ) -> None:
        self._known = {sha256: look for sha256, look in known.items() if not look.reason}
        self._on_picture, self._prepare, self._processes = on_picture, prepare, processes
        self._reading = reading
        self._new, self._many = 0, many
        self._claims = set[str]()
        self._claiming, self._handing, self._hashing = threading.Condition(), threading.Lock(), threading.Lock()
        self._quick = True

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
            return Look(reason=error.reason), ""

    def look_together(self, paths: Sequence[Path]) -> list[_Told]:
        """Return what some files tell; processes hash them, and decode what nobody has, where many are new."""
        if self._processes is None or not (self._many or self._new >= _SOME):
            found = self._hashed(paths)
        else:
            claimed = set[str]()

            def claim(sha256: str) -> bool:
                if sha256 not in claimed and self._claim(sha256, wait=False):
                    claimed.add(sha256)
                return sha256 in claimed

            try:
                found = self._processes.look(paths, claim)
                # Without a sha256 a look is at a file that has changed since it was hashed.
                self._known.update({one.sha256: one for one, _ in found if isinstance(one, Look) and one.sha256})
            finally:
                self._give_up(*claimed)
        looks = [(self._known.get(one) if isinstance(one, str) else one, told) for one, told in found]
        return [
            (look, told) if look is not None else self.look(path)
            for path, (look, told) in zip(paths, looks, strict=True)
        ]

    def _hashed(self, paths: Sequence[Path]) -> list[tuple[Look | str, str]]:
        """Return the sha256 and the state of some files, or looks that say why one cannot be read.

        Small files on a fast disk one thread at a time: Python's lock changes hands several times for each, and threads
        that fight for it take three times as long as one. Where files take long, threads wait or hash side by side.
        """
        hashed: list[tuple[Look | str, str]] = []
        with self._hashing if self._quick else contextlib.nullcontext():
            started = time.perf_counter()
            for path in paths:
                try:
                    with open_regular(path) as file:
                        told = state(stamp(file))
                        hashed.append((digest(file), told))
                except Undecodable as error:
                    hashed.append((Look(reason=error.reason), ""))
            self._quick = time.perf_counter() - started < _QUICK * len(paths)
        return hashed

    def _give_up(self, *claimed: str) -> None:
        with self._claiming:
            self._claims.difference_update(claimed)
            self._claiming.notify_all()

    def _claim(self, sha256: str, wait: bool = True) -> bool:
        """Return whether this thread is to decode a content; False once its look is known, or if it is not to wait."""
        with self._claiming:
            while wait and sha256 in self._claims:  # whose holder may fail, on a file that changed while it was read
                self._claiming.wait()
            if sha256 in self._known or sha256 in self._claims:
                return False
            self._claims.add(sha256)
            self._new += 1
            return True


def _glance(known: Mapping[str, Look], reading: Reading, path: Path) -> Look:
    sha256, size = "", 0
    try:
        with open_regular(path) as file:
            sha256, size = digest(file), stamp(file).st_size
            if sha256 in known:
                return known[sha256]
            mode, (width, height), kind = header(file, reading)
    except Undecodable as error:
        return Look(sha256, *error.size, reason=error.reason, bytes=size)
    return Look(sha256, width, height, mode, "", size, *kind)
