"""Find pictures that are copies of each other: the same pixels, or the same resized, cropped, turned, mirrored, relit.

Perceptual hashes propose pairs; each pair is then laid upon each other and compared pixel by pixel. No network is
asked, so that what is a duplicate depends on the pictures alone and never on a study's backbone.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from math import ceil, comb, log, log2
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from unfreeze.config.identity import fingerprint
from unfreeze.data.decode import DECODE_RULES, decode
from unfreeze.data.formats.reading import USUAL, Reading
from unfreeze.data.image_file import quiet_pillow
from unfreeze.data.image_hash import LIKENESS_RULES, turned_hashes
from unfreeze.data.scan_cache import FileInfo, read_lines, write_lines
from unfreeze.data.unusable import Undecodable

RADIUS = 10
"""Hashes that differ in more of their 64 bits do not propose a pair."""

MISSED = 0.01
"""Share of the hashes just at the radius that may be missed; of nearer ones, and of pairs near in two, far less."""

NEAREST = 16
"""Most neighbours that a picture proposes: thousands of a film's frames are near each other."""

_ASKING = (0, 2)  # columns of the upright hashes: one hash at least of a proposed pair is one of them
_APART = 7  # bits that hold how far two hashes are apart
_KEY = 32  # bits by which hashes are sorted
_OF_BYTE = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little").astype(np.int64)


def proposed(hashes: np.ndarray, radius: int = RADIUS) -> np.ndarray:
    """Return the pairs, (m, 2) int64 with first below second, of which a hash of one is near a hash of the other.

    All hashes are sorted by some of their bits in random order, several times, and each is compared with those that
    follow it (Charikar 2002, "Similarity estimation techniques from rounding algorithms"): the work grows with the
    number of pictures and not with its square, also where thousands are alike. Always the same pairs are found.

    Args:
        hashes: (n, m) uint64: those of ``ImageStats.hashes``, and of further orientations.
        radius: bits, of 64, in which near hashes may differ.
    """
    count, ways = hashes.shape
    flat = hashes.ravel()
    places = np.arange(len(flat))
    owners, asks = places // max(1, ways), np.isin(places % max(1, ways), _ASKING)
    found = np.empty(0, np.int64)
    for keys in _keys(flat, radius):
        order = np.sort(keys << _KEY | places) & (1 << _KEY) - 1  # faster than argsort, and without ties
        ordered, fresh = flat[order], [found]
        for step in range(1, min(NEAREST, len(order) - 1) + 1):
            apart = np.bitwise_count(ordered[:-step] ^ ordered[step:])
            near = np.flatnonzero(apart <= radius)
            one, other = order[near], order[near + step]
            first, second = np.minimum(owners[one], owners[other]), np.maximum(owners[one], owners[other])
            pairs = (first * count + second) << _APART | apart[near]
            fresh.append(pairs[(first != second) & (asks[one] | asks[other])])
        found = _nearest(np.concatenate(fresh), count)
    return np.stack(np.divmod(found >> _APART, max(1, count)), axis=1)


def _keys(hashes: np.ndarray, radius: int) -> Iterator[np.ndarray]:
    """Yield, for each sorting, a key of each hash, int64: ``_KEY`` of its bits in an order of their own.

    Two hashes that agree in the first bits, as many as leave ``NEAREST`` hashes a key, follow each other. There are as
    many keys as miss no more than ``MISSED`` of those that differ in ``radius`` bits.
    """
    first = max(8, ceil(log2(max(1, len(hashes)) / NEAREST)))
    hit = comb(64 - radius, first) / comb(64, first)
    octets = hashes.astype("<u8")[:, None].view(np.uint8)
    generator = np.random.default_rng(0)
    for _ in range(ceil(log(MISSED) / log(1 - hit))):
        weights = np.zeros(64, np.int64)
        weights[generator.permutation(64)[:_KEY]] = 1 << np.arange(_KEY - 1, -1, -1)
        table = _OF_BYTE @ weights.reshape(8, 8).T  # by value and place of a byte: its share of the key
        yield sum((table[:, place][octets[:, place]] for place in range(8)), np.zeros(len(hashes), np.int64))


def _nearest(found: np.ndarray, count: int) -> np.ndarray:
    """Return, in order, those pairs that are among the ``NEAREST`` of either of their pictures, each once.

    Args:
        found: int64, pairs as numbers: the first picture times ``count`` plus the second, and behind, in ``_APART``
            bits, how far their hashes are apart, the least of which counts.
        count: pictures in all.
    """
    found = np.unique(found)
    found = found[np.unique(found >> _APART, return_index=True)[1]]
    first, second = np.divmod(found >> _APART, max(1, count))
    owners = np.concatenate([first, second])
    order = np.lexsort((np.concatenate([second, first]), np.tile(found & (1 << _APART) - 1, 2), owners))
    ranks = np.arange(len(order)) - np.searchsorted(owners[order], owners[order])
    return found[np.unique(order[ranks < NEAREST] % max(1, len(found)))]


DUPLICATE_RULES = 8
"""Counts up whenever two pictures come to be compared otherwise, or other pairs to be."""

ROUGHLY = 0.7
"""Least correlation of two thumbnails, 16 x 16 grey pixels, for a closer look. Planted copies have 0.73 or more."""

ROUGHLY_TURNED = 0.8
"""The same where one of them is turned. Six ways to lie alike by chance are compared, and seldom more is changed."""

ALIKE = 0.97
"""Least correlation of two pictures laid upon each other, 32 x 32 pixels, for a near duplicate.

Planted copies of photographs have 0.991 or more, of small ones less (docs/data.md); above 0.97 lie second photographs
of the same thing as well.
"""

SAME = 0.99
"""Least correlation of two pictures of which at most one label can be right."""

_SIDE, _INNER = 32, 26  # pixels a side at which pictures are laid upon each other, and of the part that is moved about
_ALL, _CORNER, _MIDDLE, _LEAST = (32, 3.0), (31, 2.0), (31, 2.5), (30, 2.0)

_SCALED = (
    *((_ALL, _ALL), (_CORNER, _CORNER), (_MIDDLE, _MIDDLE), (_LEAST, _LEAST)),
    *((_ALL, _CORNER), (_CORNER, _ALL), (_ALL, _LEAST), (_LEAST, _ALL)),
)
"""Pixels to which the other picture is scaled across, and where its inner part begins there, and the same down: it may
have lost up to six hundredths, on all sides, at one corner, or of its width or height alone.
"""

_WAYS = np.array([ROUGHLY] * 2 + [ROUGHLY_TURNED] * 6, np.float32)  # by orientation, see ``_turned``
_AT_ONCE = 4096  # pairs in memory while they are compared
_PREPARED = 2048  # pictures, 19 KB each, that are kept for pairs to come


class _Small(NamedTuple):
    """A picture at 32 x 32 pixels, (3, 32, 32), and its inner part at each of ``_SCALED``, (8, 3, 26, 26); uint8."""

    whole: np.ndarray
    inner: np.ndarray


def near_duplicates(
    hashes: np.ndarray,
    thumbnails: np.ndarray,
    picture: Callable[[int], Image.Image | None],
    progress: Callable[[int, int], None] | None = None,
) -> dict[tuple[int, int], float]:
    """Return the pairs of pictures, first below second, in order, that correlate by ``ALIKE`` or more, and by how much.

    Args:
        hashes: (n, 4) uint64, see ``ImageStats.hashes``; of pictures whose pixels all differ.
        thumbnails: (n, 16, 16) uint8, grey.
        picture: opens a picture, upright RGB; None if it is no longer there; called in threads.
        progress: called with (pairs compared, pairs in all).
    """
    pairs = proposed(np.concatenate([hashes, turned_hashes(thumbnails)], axis=1))
    close = _close(thumbnails, pairs)
    pairs, close = pairs[close.any(axis=1)], close[close.any(axis=1)]

    @lru_cache(_PREPARED)
    def opened(index: int) -> _Small | None:
        shown = picture(index)
        return None if shown is None else _prepare(shown)

    def compared(pair: list[int], ways: np.ndarray) -> float:
        first, second = map(opened, pair)
        return 0.0 if first is None or second is None else round(_alike(first, second, ways), 4)

    found: dict[tuple[int, int], float] = {}
    with ThreadPoolExecutor() as pool:
        for low in range(0, len(pairs), _AT_ONCE):
            part = pairs[low : low + _AT_ONCE].tolist()
            values = pool.map(compared, part, close[low : low + _AT_ONCE])
            found |= {(one, other): value for (one, other), value in zip(part, values, strict=True) if value >= ALIKE}
            if progress is not None:
                progress(low + len(part), len(pairs))
    return found


def _close(thumbnails: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Return whether each pair's thumbnails are roughly alike, with the second in each orientation; bool (pairs, 8)."""
    close = np.empty((len(pairs), len(_WAYS)), bool)
    for low in range(0, len(pairs), _AT_ONCE):
        part = slice(low, low + _AT_ONCE)
        first, second = (_rows(thumbnails[pairs[part, side]][:, None]) for side in (0, 1))
        for way, least in enumerate(_WAYS):
            turned = _turned(second.reshape(-1, 1, *thumbnails.shape[1:]), way).reshape(second.shape)
            close[part, way] = np.einsum("ncp,ncp->n", first, turned) >= least
    return close


def _turned(pictures: np.ndarray, way: int) -> np.ndarray:
    """Return square pictures, (..., side, side), in an orientation: by bits mirrored, upside down, sides exchanged."""
    pictures = pictures.swapaxes(-1, -2) if way & 4 else pictures
    return pictures[..., :: -1 if way & 2 else 1, :: -1 if way & 1 else 1]


def _prepare(picture: Image.Image) -> _Small:
    # Not by boxes, which end at whole pixels: of a small picture and its mirror image they make two that differ.
    hamming, (wide, high) = Image.Resampling.HAMMING, picture.size
    narrow = {
        (side, low): picture.resize((_INNER, high), hamming, (wide * low / side, 0, wide * (low + _INNER) / side, high))
        for side, low in (_ALL, _CORNER, _MIDDLE, _LEAST)
    }
    inner = [
        narrow[across].resize((_INNER, _INNER), hamming, (0, high * top / down, _INNER, high * (top + _INNER) / down))
        for across, (down, top) in _SCALED
    ]
    whole, parts = np.asarray(picture.resize((_SIDE, _SIDE), hamming)), np.stack([np.asarray(one) for one in inner])
    return _Small(whole.transpose(2, 0, 1), np.ascontiguousarray(parts.transpose(0, 3, 1, 2)))


def _alike(first: _Small, second: _Small, ways: np.ndarray) -> float:
    """Return the best correlation of one picture's inner part, moved and scaled, with the other picture.

    Args:
        first: a picture.
        second: another.
        ways: in which orientations of the second to look at them: bool (8,).
    """
    found = []
    for way in np.flatnonzero(ways).tolist():
        found.append(_correlation(first.whole, _turned(second.inner, way)))
        found.append(_correlation(_turned(second.whole, way), first.inner))
    return max(found)


def _correlation(whole: np.ndarray, inner: np.ndarray) -> float:
    """Return the best correlation of a part of a picture with one of the inner parts of another."""
    centred = whole - whole.mean(axis=(1, 2), dtype=np.float32, keepdims=True)
    parts = sliding_window_view(centred, (_INNER, _INNER), axis=(1, 2)).reshape(3, -1, _INNER * _INNER)
    squares = np.einsum("cnp,cnp->cn", parts, parts) - parts.sum(axis=2) ** 2 / _INNER**2
    norms = np.sqrt(squares.sum(axis=0).clip(0.0)) + np.float32(1.0)
    # Channel by channel these products are too small for a BLAS to share them among threads, which would spin.
    products = parts @ _rows(inner).transpose(1, 2, 0)
    return float((products.sum(axis=0).max(axis=1) / norms).max())


def _rows(pictures: np.ndarray) -> np.ndarray:
    """Return pictures (n, channels, height, width) as rows of norm 1, each channel with mean 0; blank ones are 0.

    Channel by channel, since otherwise two blank pictures of one colour would be alike.
    """
    centred = pictures.reshape(*pictures.shape[:2], -1).astype(np.float32)
    centred -= centred.mean(axis=2, keepdims=True)
    return centred / (np.sqrt(np.einsum("ncp,ncp->n", centred, centred))[:, None, None] + np.float32(1.0))


def clusters(count: int, pairs: Sequence[tuple[int, int]]) -> np.ndarray:
    """Return, for each of so many pictures, the number of its cluster: pairs joined as far as they reach."""
    first, second = np.array(pairs, np.int64).reshape(-1, 2).T
    graph = coo_array((np.ones(len(pairs), np.int8), (first, second)), shape=(count, count))
    return connected_components(graph, directed=False)[1]


Progress = Callable[[int, int], None]
_BOUNDS = (ALIKE, ROUGHLY, ROUGHLY_TURNED, RADIUS, MISSED, NEAREST)

COMPARED = 128
"""Pixels of the shorter side, at least, at which pictures are opened to be compared."""


@dataclass(frozen=True)
class DuplicateGroups:
    """Copies among looks.

    Attributes:
        cluster: for each look, the first 16 hex digits of the smallest sha256 of its cluster; "" where it has no copy.
        likeness: of each pair of near duplicates that was found, by the two contents' sha256, the smaller one first.
    """

    cluster: tuple[str, ...]
    likeness: Mapping[tuple[str, str], float]


def find_copies(
    looks: Sequence[FileInfo],
    paths: Sequence[Path],
    folder: Path | None,
    near: bool = True,
    decoding: bool = True,
    progress: Progress | None = None,
    reading: Reading = USUAL,
) -> DuplicateGroups:
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
    return DuplicateGroups(_names(looks, seen, pairs), found)


def _names(
    looks: Sequence[FileInfo], seen: Sequence[tuple[FileInfo, Path]], pairs: Sequence[tuple[int, int]]
) -> tuple[str, ...]:
    members: dict[int, list[str]] = {}
    numbers = clusters(len(seen), pairs)
    for number, (look, _) in zip(numbers, seen, strict=True):
        members.setdefault(number, []).append(look.sha256)
    names = iter("" if len(members[number]) == 1 else min(members[number])[:16] for number in numbers)
    return tuple(next(names) if look.sha256 and not look.reason else "" for look in looks)


def _near(
    distinct: Sequence[int],
    seen: Sequence[tuple[FileInfo, Path]],
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
