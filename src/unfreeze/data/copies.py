"""Which images of a catalog are copies of each other; comparisons are remembered by content, as looks are."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL
from PIL import Image

from unfreeze.config.identity import fingerprint
from unfreeze.data.decode import DECODE_RULES, decode, quiet_pillow
from unfreeze.data.duplicates import ALIKE, DUPLICATE_RULES, ROUGHLY, ROUGHLY_TURNED, Pair, clusters, near_duplicates
from unfreeze.data.likeness import LIKENESS_RULES
from unfreeze.data.lines import read_lines, write_lines
from unfreeze.data.look import Look
from unfreeze.data.pairing import MISSED, NEAREST, RADIUS
from unfreeze.data.reading import USUAL, Reading
from unfreeze.data.unfit import Undecodable

Progress = Callable[[int, int], None]

_BOUNDS = (ALIKE, ROUGHLY, ROUGHLY_TURNED, RADIUS, MISSED, NEAREST)

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
    reading: Reading = USUAL,
) -> Copies:
    """Find images with the same pixels, and near duplicates.

    Args:
        looks: at the images; of those without a likeness only files of the same content are copies.
        paths: their files.
        folder: of the cache, where comparisons are remembered; None remembers nothing.
        near: also look for near duplicates.
        decoding: open pictures that were not compared before; without it those count as different.
        progress: called with (pairs compared, pairs in all).
        reading: how files are read.
    """
    seen = [(look, path) for look, path in zip(looks, paths, strict=True) if look.sha256 and not look.reason]
    by_pixels: dict[str, list[int]] = {}
    for number, (look, _) in enumerate(seen):  # what was not decoded is known by its content alone
        by_pixels.setdefault(look.likeness.pixels if look.likeness else look.sha256, []).append(number)

    # Of images with the same pixels one stands for all: that of the smallest sha256. In the order of these, for of very
    # many pictures that are alike not all are compared, and which of them must not depend on names.
    def content(number: int) -> str:
        return seen[number][0].sha256

    distinct = sorted((min(numbers, key=content) for numbers in by_pixels.values()), key=content)
    described = [number for number in distinct if seen[number][0].likeness is not None]
    found = _near(described, seen, folder, decoding, progress, reading) if near else {}
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
    reading: Reading,
) -> dict[tuple[str, str], float]:
    if len(distinct) < 2:
        return {}
    shown = [seen[number] for number in distinct]
    contents = [look.sha256 for look, _ in shown]
    known = Compared(folder, reading)
    if (before := known.among(contents)) is not None:
        return before
    likenesses = [look.likeness for look, _ in shown]
    hashes = np.array([one.hashes for one in likenesses], np.uint64)  # type: ignore[union-attr]
    thumbnails = np.frombuffer(b"".join(one.thumbnail for one in likenesses), np.uint8)  # type: ignore[union-attr]
    unopened = [] if decoding else [0]

    def picture(index: int) -> Image.Image | None:
        try:
            with quiet_pillow():
                return decode(shown[index][1], at_least=COMPARED, reading=reading)
        except Undecodable:  # gone or changed since it was looked at: the catalog has it as it was
            unopened.append(index)
            return None

    def remembered(first: int, second: int) -> float | None:
        value = known.values.get(_pair(contents[first], contents[second]))
        return 0.0 if value is None and not decoding else value

    def keep(first: int, second: int, value: float) -> None:
        known.keep(_pair(contents[first], contents[second]), value)

    try:
        pairs = near_duplicates(hashes, thumbnails.reshape(-1, 16, 16), picture, remembered, keep, progress)
        pairs.sort(key=lambda pair: (pair.first, pair.second))
        if not unopened:
            known.keep_among(contents, pairs)
    finally:
        known.write()
    return _by_content(contents, pairs)


def _by_content(contents: Sequence[str], pairs: Sequence[Pair]) -> dict[tuple[str, str], float]:
    return {_pair(contents[pair.first], contents[pair.second]): pair.likeness for pair in pairs}


def _pair(one: str, other: str) -> tuple[str, str]:
    return (one, other) if one < other else (other, one)


class Compared:
    """Comparisons kept in a folder of the cache.

    Args:
        folder: the folder; None remembers nothing.
        reading: how files are read.

    Attributes:
        values: of pairs of contents.
    """

    def __init__(self, folder: Path | None, reading: Reading = USUAL) -> None:
        self._folder = folder
        bounds = (*_BOUNDS, PIL.__version__, *reading.rules)
        rules = fingerprint(DECODE_RULES, LIKENESS_RULES, DUPLICATE_RULES, *bounds)
        self._pairs, self._among = f"pairs-{rules}", f"copies-{rules}"
        self._fresh: dict[tuple[str, str], float] = {}
        self._fresh_among: list[tuple[str, str]] = []
        self.values: dict[tuple[str, str], float] = {
            (one, other): value for one, other, value in read_lines(folder, self._pairs)
        }
        self._known_among: dict[str, str] = {name: text for name, text in read_lines(folder, self._among)}

    def among(self, contents: Sequence[str]) -> dict[tuple[str, str], float] | None:
        """Return the near duplicates among these contents, in this order, None if they were never searched whole."""
        text = self._known_among.get(fingerprint(*contents))
        return None if text is None else _by_content(contents, [Pair(*values) for values in json.loads(text)])

    def keep(self, pair: tuple[str, str], value: float) -> None:
        """Take note of a comparison, to be written by ``write``."""
        if self.values.get(pair) != value:
            self._fresh[pair] = self.values[pair] = value

    def keep_among(self, contents: Sequence[str], pairs: Sequence[Pair]) -> None:
        """Take note of all near duplicates among these contents, to be written by ``write``."""
        text = json.dumps([[pair.first, pair.second, pair.likeness] for pair in pairs])  # read where it is asked for
        self._fresh_among.append((fingerprint(*contents), text))

    def write(self) -> None:
        """Write, durably, what was kept since the last time."""
        if self._folder is None:
            return
        if self._fresh:
            write_lines(self._folder, self._pairs, ([*pair, value] for pair, value in self._fresh.items()))
        if self._fresh_among:
            write_lines(self._folder, self._among, self._fresh_among)
        self._fresh, self._fresh_among = {}, []
