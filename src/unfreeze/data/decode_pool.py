"""Look at many files in slots: Python threads decode hardly faster than one, and a crash would end this process."""

import os
import tempfile
import time
from collections import deque
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unfreeze.data.formats.reading import Reading
from unfreeze.data.image_file import check_unchanged, digest, open_regular, quiet_pillow, stamp
from unfreeze.data.image_hash import decoded
from unfreeze.data.scan_cache import FileInfo, file_infos, look_from, look_values, state
from unfreeze.data.unusable import CRASHED, Undecodable
from unfreeze.slots import Parent, Slot, cannot_start, end

_TOGETHER, _AHEAD = 16, 2
"""Files in a chunk, at most, and chunks asked of a slot at a time, so that it never waits."""

_TURN_SECONDS = 0.005
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # the slots fill the cores already


@dataclass
class _Decoder:
    """A slot, and the chunks that it was asked for and has not answered, in order: the places of their files."""

    slot: Slot
    asked: deque[list[int]] = field(default_factory=deque)
    ready: bool = False


def scan_in_slots(
    paths: Sequence[Path], known: Mapping[str, FileInfo], reading: Reading, count: int
) -> Generator[tuple[FileInfo, str], None, None]:
    """Yield looks at files, in order, each with the state that the file was in; to be closed, which ends the slots.

    The files of a chunk at which a slot dies are tried one by one; one at which a slot dies again is not fit for use.

    Args:
        paths: the files.
        known: looks by sha256; such contents are only hashed.
        reading: how files are read.
        count: slots at a time.

    Raises:
        UserError: no slot can be started.
    """
    with tempfile.TemporaryDirectory(prefix="unfreeze-scan-", ignore_cleanup_errors=True) as folder:
        scan = _Scan(paths, known, reading, Path(folder))
        try:
            for place in range(len(paths)):
                while place not in scan.found:
                    scan.turn(count)
                yield scan.found.pop(place)
        finally:
            end([one.slot for one in scan.decoders], seconds=0)  # they hold nothing


class _Scan:
    """A scan on its way.

    Attributes:
        found: results by place that are not taken yet.
        decoders: the living slots.
    """

    def __init__(self, paths: Sequence[Path], known: Mapping[str, FileInfo], reading: Reading, folder: Path) -> None:
        self._paths, self._known, self._folder = paths, dict(known), folder
        self._payload = {"reading": reading.as_text(), "known": list(known)}
        self._waiting, self._alone, self._started = deque(range(len(paths))), set[int](), 0
        self.found = dict[int, tuple[FileInfo, str]]()
        self.decoders: list[_Decoder] = []

    def turn(self, count: int) -> None:
        """Hand out files, take in what was found, and see which slot died."""
        while len(self.decoders) < min(count, len(self._waiting)):
            self._started += 1
            log = self._folder / f"{self._started}.jsonl"
            self.decoders.append(_Decoder(Slot("decode", self._payload, log, _ENVIRONMENT)))
        for one in self.decoders:
            while self._waiting and len(one.asked) < _AHEAD:
                one.asked.append(self._chunk(count))
                one.slot.ask([os.fspath(self._paths[place]) for place in one.asked[-1]])
        heard = 0
        for one in list(self.decoders):
            ended, answers = one.slot.ended(), one.slot.heard()
            for answer in answers:
                self._take(one, answer)
            heard += len(answers)
            if ended:
                self.decoders.remove(one)
                end([one.slot], seconds=0)
                self._lost(one, ended)
        if not heard:
            time.sleep(_TURN_SECONDS)

    def _chunk(self, count: int) -> list[int]:
        """Take the next files; towards the end few, so that no slot works long on the last ones alone."""
        places, most = [self._waiting.popleft()], min(_TOGETHER, len(self._waiting) // (2 * _AHEAD * count))
        while len(places) < most and not {places[0], self._waiting[0]} & self._alone:
            places.append(self._waiting.popleft())
        return places

    def _take(self, one: _Decoder, answer: Mapping[str, Any]) -> None:
        one.ready = True
        for place, (found, told) in zip(one.asked.popleft(), answer["found"], strict=True) if "found" in answer else ():
            look = self._known[found] if isinstance(found, str) else look_from(found)
            if not look.reason:
                self._known[look.sha256] = look
            self.found[place] = look, told

    def _lost(self, one: _Decoder, ended: str) -> None:
        if not one.ready:
            raise cannot_start(f"it {ended} before it could be asked")
        for places in reversed(one.asked):
            self._waiting.extendleft(reversed(places))
        if one.asked and len(one.asked[0]) > 1:
            self._alone.update(one.asked[0])
        elif one.asked:
            place = self._waiting.popleft()
            self.found[place] = _crashed(self._paths[place]), ""


def _crashed(path: Path) -> FileInfo:
    try:
        with open_regular(path) as file:
            return FileInfo(digest(file), reason=CRASHED, bytes=stamp(file).st_size)
    except Undecodable as error:
        return FileInfo(reason=error.reason)


def decode(told: Mapping[str, Any], parent: Parent) -> None:
    """Look at files until the parent asks no more.

    Args:
        told: how files are read, and the sha256 of the contents that are known.
        parent: asks for files.
    """
    reading, known = Reading.from_text(told["reading"]), set(told["known"])
    parent.tell(ready=True)
    with quiet_pillow():
        while (paths := parent.asked.get()) is not None and not parent.leaving.is_set():
            parent.tell(found=[_look(path, reading, known) for path in paths])


def _look(path: str, reading: Reading, known: set[str]) -> tuple[list[Any] | str, str]:
    """Return what a look at a file gave, or its sha256 alone if that is known; and the state that the file was in."""
    try:
        with open_regular(path) as file:
            before = stamp(file)
            told, sha256 = state(before), digest(file)
            if sha256 in known:
                return sha256, told
            seen, _ = decoded(file, reading)
            check_unchanged(file, before)  # before anything is told of this sha256
    except Undecodable as error:
        return look_values(FileInfo(reason=error.reason)), ""
    if not seen.reason:
        known.add(sha256)
    (look,) = file_infos([(sha256, before.st_size, seen)])
    return look_values(look), told
