"""Which images of a catalog are copies of each other; comparisons are remembered by content, as looks are."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL
from PIL import Image

from unfreeze.config.fingerprint import fingerprint
from unfreeze.data.decode import DECODE_RULES, Undecodable, decode, quiet_pillow
from unfreeze.data.duplicates import DUPLICATE_RULES, clusters, near_duplicates
from unfreeze.data.likeness import LIKENESS_RULES
from unfreeze.data.look import Look
from unfreeze.data.looks import digits, write_lines

Progress = Callable[[int, int], None]

COMPARED = 128
"""Pixels of the shorter side, at least, at which pictures are opened to be compared."""


@dataclass(frozen=True)
class Copies:
    """Copies among looks.

    Attributes:
        cluster: for each look, the first 16 hex digits of the smallest sha256 of its cluster; "" where it has no copy.
        likeness: of each pair of near duplicates that was found, by the two contents' sha256, the smaller one first.
    """

    cluster: tuple[str, ...]
    likeness: Mapping[tuple[str, str], float]


def find_copies(
    looks: Sequence[Look],
    paths: Sequence[Path],
    folder: Path | None,
    near: bool = True,
    decoding: bool = True,
    progress: Progress | None = None,
) -> Copies:
    """Find images with the same pixels, and near duplicates.

    Args:
        looks: at the images; of those without a likeness only files of the same content are copies.
        paths: their files.
        folder: of the cache, where comparisons are remembered; None remembers nothing.
        near: also look for near duplicates.
        decoding: open pictures that were not compared before; without it those count as different.
        progress: called with (pairs compared, pairs in all).
    """
    seen = [(look, path) for look, path in zip(looks, paths, strict=True) if look.sha256 and not look.reason]
    by_pixels: dict[str, list[int]] = {}
    for number, (look, _) in enumerate(seen):  # what was not decoded is known by its content alone
        by_pixels.setdefault(look.likeness.pixels if look.likeness else look.sha256, []).append(number)
    # Of images with the same pixels one stands for all: that of the smallest sha256, whatever their order.
    distinct = sorted(min(numbers, key=lambda number: seen[number][0].sha256) for numbers in by_pixels.values())
    described = [number for number in distinct if seen[number][0].likeness is not None]
    found = _near(described, seen, folder, decoding, progress) if near else {}
    place = {seen[number][0].sha256: number for number in distinct}
    pairs = [(numbers[0], other) for numbers in by_pixels.values() for other in numbers[1:]]
    pairs += [(place[one], place[other]) for one, other in found]
    return Copies(_names(looks, seen, pairs), found)


def _names(
    looks: Sequence[Look], seen: Sequence[tuple[Look, Path]], pairs: Sequence[tuple[int, int]]
) -> tuple[str, ...]:
    members: dict[int, list[str]] = {}
    numbers = clusters(len(seen), pairs)
    for number, (look, _) in zip(numbers, seen, strict=True):
        members.setdefault(number, []).append(look.sha256)
    names = iter("" if len(members[number]) == 1 else min(members[number])[:16] for number in numbers)
    return tuple(next(names) if look.sha256 and not look.reason else "" for look in looks)


def _near(
    distinct: Sequence[int],
    seen: Sequence[tuple[Look, Path]],
    folder: Path | None,
    decoding: bool,
    progress: Progress | None,
) -> dict[tuple[str, str], float]:
    if len(distinct) < 2:
        return {}
    shown = [seen[number] for number in distinct]
    known = Compared(folder)
    likenesses = [look.likeness for look, _ in shown]
    hashes = np.array([one.hashes for one in likenesses], np.uint64)  # type: ignore[union-attr]
    thumbnails = np.frombuffer(b"".join(one.thumbnail for one in likenesses), np.uint8)  # type: ignore[union-attr]

    def picture(index: int) -> Image.Image | None:
        try:
            with quiet_pillow():
                return decode(shown[index][1], at_least=COMPARED)
        except Undecodable:  # gone or changed since it was looked at: the catalog has it as it was
            return None

    def remembered(first: int, second: int) -> float | None:
        value = known.values.get(_pair(shown[first][0].sha256, shown[second][0].sha256))
        return 0.0 if value is None and not decoding else value

    def keep(first: int, second: int, value: float) -> None:
        known.keep(_pair(shown[first][0].sha256, shown[second][0].sha256), value)

    try:
        pairs = near_duplicates(hashes, thumbnails.reshape(-1, 16, 16, 3), picture, remembered, keep, progress)
    finally:
        known.write()
    return {
        _pair(shown[pair.first][0].sha256, shown[pair.second][0].sha256): pair.likeness
        for pair in sorted(pairs, key=lambda pair: (pair.first, pair.second))
    }


def _pair(one: str, other: str) -> tuple[str, str]:
    return (one, other) if one < other else (other, one)


class Compared:
    """Comparisons kept in a folder of the cache, written once, whole, in files of names of their own; all are read.

    Args:
        folder: the folder; None remembers nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._key = "pairs-" + fingerprint(DECODE_RULES, LIKENESS_RULES, DUPLICATE_RULES, PIL.__version__)
        self._fresh: dict[tuple[str, str], float] = {}
        self.values: dict[tuple[str, str], float] = {}
        for path in [] if folder is None else sorted(folder.glob(f"{self._key}-*.jsonl")):
            self._read(path)

    def _read(self, path: Path) -> None:
        try:
            lines = path.read_bytes().splitlines(keepends=True)
        except OSError:  # then its pairs are compared again
            return
        for line in lines:
            rest = line[21:-1]
            if line[-1:] == b"\n" and line[:2] == b'["' and line[18:21] == b'", ' and line[2:18] == digits(rest):
                one, other, value = json.loads(b"[" + rest)
                self.values[one, other] = value

    def keep(self, pair: tuple[str, str], value: float) -> None:
        """Take note of a comparison, to be written by ``write``."""
        if self.values.get(pair) != value:
            self._fresh[pair] = self.values[pair] = value

    def write(self) -> None:
        """Write, durably, what was kept since the last time."""
        if self._folder is None or not self._fresh:
            return
        lines = []
        for (one, other), value in self._fresh.items():
            rest = json.dumps([one, other, value])[1:].encode()
            lines.append(b'["' + digits(rest) + b'", ' + rest + b"\n")
        write_lines(self._folder, self._key, lines)
        self._fresh = {}
