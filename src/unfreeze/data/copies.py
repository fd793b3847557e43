"""Which images of a catalog are copies of each other; searches are remembered by content, as looks are."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL
from PIL import Image

from unfreeze.config.identity import fingerprint
from unfreeze.data.decode import DECODE_RULES, decode, quiet_pillow
from unfreeze.data.duplicates import ALIKE, DUPLICATE_RULES, ROUGHLY, ROUGHLY_TURNED, clusters, near_duplicates
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
        folder: of the cache, where searches are remembered; None remembers nothing.
        near: also look for near duplicates.
        decoding: search where these images were not searched before; without it, near duplicates are those that earlier
            searches found.
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
    """Return the near duplicates among pictures, in the order of their contents, by pairs of contents."""
    looks, paths = zip(*(seen[number] for number in distinct), strict=True) if distinct else ((), ())
    contents = [look.sha256 for look in looks]
    searched, name = dict(read_lines(folder, _rules(reading))), fingerprint(*contents)
    if name in searched:
        return {(one, other): value for one, other, value in searched[name]}
    if not decoding:
        here = set(contents)
        every = sorted((one, other, value) for pairs in searched.values() for one, other, value in pairs)
        return {(one, other): value for one, other, value in every if one in here and other in here}
    gone = []

    def picture(index: int) -> Image.Image | None:
        try:
            with quiet_pillow():
                return decode(paths[index], at_least=COMPARED, reading=reading)
        except Undecodable:  # gone or changed since it was looked at: the catalog has it as it was
            gone.append(index)
            return None

    hashes = np.array([look.likeness.hashes for look in looks], np.uint64).reshape(-1, 4)
    thumbnails = np.frombuffer(b"".join(look.likeness.thumbnail for look in looks), np.uint8).reshape(-1, 16, 16)
    pairs = near_duplicates(hashes, thumbnails, picture, progress)
    found = {(contents[first], contents[second]): value for (first, second), value in pairs.items()}
    if folder is not None and not gone:
        write_lines(folder, _rules(reading), [[name, [[*pair, value] for pair, value in found.items()]]])
    return found


def _rules(reading: Reading) -> str:
    """Return the key of searches in the cache: another version of Pillow and other rules have files of their own."""
    rules = (DECODE_RULES, LIKENESS_RULES, DUPLICATE_RULES, *_BOUNDS, PIL.__version__, *reading.rules)
    return f"copies-{fingerprint(*rules)}"
