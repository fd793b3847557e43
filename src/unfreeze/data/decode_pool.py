"""Scan many files in child processes, which decode in parallel and survive a crash of a decoder."""

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
from unfreeze.data.image_hash import decode_and_describe
from unfreeze.data.scan_cache import FileInfo, file_info, info_from, info_values, state
from unfreeze.data.unusable import CRASHED, Undecodable
from unfreeze.slots import Parent, Slot, cannot_start, end

_CHUNK, _AHEAD = 16, 2
"""Most files in a chunk, and chunks that a slot is asked for ahead, so that it never waits."""

_TURN_SECONDS = 0.005
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # the slots fill the cores already


@dataclass
class _Decoder:
    """A slot and its unanswered chunks, in order; a chunk is the positions of its files."""

    slot: Slot
    asked: deque[list[int]] = field(default_factory=deque)
    ready: bool = False


def scan_in_slots(
    paths: Sequence[Path], known: Mapping[str, FileInfo], reading: Reading, count: int
) -> Generator[tuple[FileInfo, str], None, None]:
    """Yield the scan result of each file, in order, with the file's state; closing the generator ends the slots.

    If a slot dies, the files of its chunk are tried one by one; a file at which a slot dies again is unusable.

    Args:
        paths: the files.
        known: scan results by sha256; such contents are only hashed.
        reading: how files are read.
        count: number of slots.

    Raises:
        UserError: no slot can be started.
    """
    with tempfile.TemporaryDirectory(prefix="unfreeze-scan-", ignore_cleanup_errors=True) as folder:
        scan = _Scan(paths, known, reading, Path(folder))
        try:
            for position in range(len(paths)):
                while position not in scan.found:
                    scan.turn(count)
                yield scan.found.pop(position)
        finally:
            end([decoder.slot for decoder in scan.decoders], seconds=0)  # they have nothing to save


class _Scan:
    """A scan in progress.

    Attributes:
        found: results by position that were not yielded yet.
        decoders: the living slots.
    """

    def __init__(self, paths: Sequence[Path], known: Mapping[str, FileInfo], reading: Reading, folder: Path) -> None:
        self._paths, self._known, self._folder = paths, dict(known), folder
        self._payload = {"reading": reading.as_text(), "known": list(known)}
        self._waiting, self._alone, self._started = deque(range(len(paths))), set[int](), 0
        self.found = dict[int, tuple[FileInfo, str]]()
        self.decoders: list[_Decoder] = []

    def turn(self, count: int) -> None:
        """Start slots, hand out chunks, collect results, and replace slots that died."""
        while len(self.decoders) < min(count, len(self._waiting)):
            self._started += 1
            log = self._folder / f"{self._started}.jsonl"
            self.decoders.append(_Decoder(Slot("decode", self._payload, log, _ENVIRONMENT)))
        for decoder in self.decoders:
            while self._waiting and len(decoder.asked) < _AHEAD:
                decoder.asked.append(self._chunk(count))
                decoder.slot.ask([os.fspath(self._paths[position]) for position in decoder.asked[-1]])
        heard = 0
        for decoder in list(self.decoders):
            ended, answers = decoder.slot.ended(), decoder.slot.heard()
            for answer in answers:
                self._collect(decoder, answer)
            heard += len(answers)
            if ended:
                self.decoders.remove(decoder)
                end([decoder.slot], seconds=0)
                self._requeue(decoder, ended)
        if not heard:
            time.sleep(_TURN_SECONDS)

    def _chunk(self, count: int) -> list[int]:
        """Take the next files: fewer towards the end, so that no slot is left working alone for long."""
        chunk, most = [self._waiting.popleft()], min(_CHUNK, len(self._waiting) // (2 * _AHEAD * count))
        while len(chunk) < most and not {chunk[0], self._waiting[0]} & self._alone:
            chunk.append(self._waiting.popleft())
        return chunk

    def _collect(self, decoder: _Decoder, answer: Mapping[str, Any]) -> None:
        decoder.ready = True
        if "found" not in answer:
            return
        for position, (found, file_state) in zip(decoder.asked.popleft(), answer["found"], strict=True):
            info = self._known[found] if isinstance(found, str) else info_from(found)
            if not info.reason:
                self._known[info.sha256] = info
            self.found[position] = info, file_state

    def _requeue(self, decoder: _Decoder, ended: str) -> None:
        """Put the files of a dead slot back, to be tried alone; a file that was alone already is unusable."""
        if not decoder.ready:
            raise cannot_start(f"it {ended} before it could be asked")
        for chunk in reversed(decoder.asked):
            self._waiting.extendleft(reversed(chunk))
        if decoder.asked and len(decoder.asked[0]) > 1:
            self._alone.update(decoder.asked[0])
        elif decoder.asked:
            position = self._waiting.popleft()
            self.found[position] = _crashed(self._paths[position]), ""


def _crashed(path: Path) -> FileInfo:
    try:
        with open_regular(path) as file:
            return FileInfo(digest(file), reason=CRASHED, bytes=stamp(file).st_size)
    except Undecodable as error:
        return FileInfo(reason=error.reason)


def decode(payload: Mapping[str, Any], parent: Parent) -> None:
    """Scan files in a slot until the parent asks for no more.

    Args:
        payload: how files are read, and the sha256 of the contents that are known.
        parent: asks for files.
    """
    reading, known = Reading.from_text(payload["reading"]), set(payload["known"])
    parent.tell(ready=True)
    with quiet_pillow():
        while (paths := parent.asked.get()) is not None and not parent.leaving.is_set():
            parent.tell(found=[_scan_file(path, reading, known) for path in paths])


def _scan_file(path: str, reading: Reading, known: set[str]) -> tuple[list[Any] | str, str]:
    """Return the values of a file's scan result, or only its sha256 if that is known; and the file's state."""
    try:
        with open_regular(path) as file:
            before = stamp(file)
            file_state, sha256 = state(before), digest(file)
            if sha256 in known:
                return sha256, file_state
            decoded, _ = decode_and_describe(file, reading)
            check_unchanged(file, before)  # before the result is known under this sha256
    except Undecodable as error:
        return info_values(FileInfo(reason=error.reason)), ""
    if not decoded.reason:
        known.add(sha256)
    return info_values(file_info(sha256, before.st_size, decoded)), file_state
