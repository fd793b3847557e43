"""Find copies: pictures with the same pixels, and near duplicates: resized, cropped, turned, mirrored or relit.

Perceptual hashes propose pairs; the pictures of each pair are then aligned and compared pixel by pixel. No network is
used, so duplicates depend on the pictures alone and not on a study's backbone.
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
"""Most of the 64 bits in which the hashes of a proposed pair differ."""

MISSED = 0.01
"""Largest share of the pairs exactly at the radius that may be missed.

Pairs that are nearer, or near in two hashes, are missed far less often.
"""

NEAREST = 16
"""Most neighbours of a picture that are proposed, since thousands of frames of a film may be near each other."""

_UPRIGHT = (0, 2)  # columns of the hashes of upright pictures: at least one hash of a proposed pair is one of them
_DISTANCE_BITS = 7  # hold the distance of two hashes
_KEY = 32  # bits by which hashes are sorted
_OF_BYTE = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little").astype(np.int64)


def propose_pairs(hashes: np.ndarray, radius: int = RADIUS) -> np.ndarray:
    """Return pairs of pictures with near hashes, (m, 2) int64 with the first index below the second.

    All hashes are sorted several times by some of their bits in random order, and each is compared with those that
    follow it (Charikar 2002, "Similarity estimation techniques from rounding algorithms"). So the work grows with the
    number of pictures and not with its square, even if thousands are alike. The same pairs are found each time.

    Args:
        hashes: (n, m) uint64: ``ImageStats.hashes`` and the hashes of further orientations.
        radius: most bits, of 64, in which near hashes differ.
    """
    count, per_picture = hashes.shape
    flat = hashes.ravel()
    positions = np.arange(len(flat))
    owners, upright = positions // max(1, per_picture), np.isin(positions % max(1, per_picture), _UPRIGHT)
    found = np.empty(0, np.int64)
    for keys in _keys(flat, radius):
        order = np.sort(keys << _KEY | positions) & (1 << _KEY) - 1  # faster than argsort, and without ties
        ordered, parts = flat[order], [found]
        for step in range(1, min(NEAREST, len(order) - 1) + 1):
            distance = np.bitwise_count(ordered[:-step] ^ ordered[step:])
            near = np.flatnonzero(distance <= radius)
            one, other = order[near], order[near + step]
            first, second = np.minimum(owners[one], owners[other]), np.maximum(owners[one], owners[other])
            pairs = (first * count + second) << _DISTANCE_BITS | distance[near]
            parts.append(pairs[(first != second) & (upright[one] | upright[other])])
        found = _nearest(np.concatenate(parts), count)
    return np.stack(np.divmod(found >> _DISTANCE_BITS, max(1, count)), axis=1)


def _keys(hashes: np.ndarray, radius: int) -> Iterator[np.ndarray]:
    """Yield the sorting keys of the hashes, int64 (len(hashes),), for each sorting: ``_KEY`` bits in random order.

    Hashes that agree in the first bits of a key are neighbours; that many bits leave about ``NEAREST`` hashes per key.
    There are enough sortings to miss at most ``MISSED`` of the pairs that differ in ``radius`` bits.
    """
    first = max(8, ceil(log2(max(1, len(hashes)) / NEAREST)))
    hit = comb(64 - radius, first) / comb(64, first)
    octets = hashes.astype("<u8")[:, None].view(np.uint8)
    generator = np.random.default_rng(0)
    for _ in range(ceil(log(MISSED) / log(1 - hit))):
        weights = np.zeros(64, np.int64)
        weights[generator.permutation(64)[:_KEY]] = 1 << np.arange(_KEY - 1, -1, -1)
        table = _OF_BYTE @ weights.reshape(8, 8).T  # share of the key by a byte's value and position
        yield sum((table[:, byte][octets[:, byte]] for byte in range(8)), np.zeros(len(hashes), np.int64))


def _nearest(found: np.ndarray, count: int) -> np.ndarray:
    """Return the distinct pairs, sorted, that are among the ``NEAREST`` of one of their pictures.

    Args:
        found: int64, pairs as numbers: first picture times ``count`` plus the second, then ``_DISTANCE_BITS`` bits with
            the distance of their hashes, of which the smallest counts.
        count: number of pictures.
    """
    found = np.unique(found)
    found = found[np.unique(found >> _DISTANCE_BITS, return_index=True)[1]]
    first, second = np.divmod(found >> _DISTANCE_BITS, max(1, count))
    owners = np.concatenate([first, second])
    order = np.lexsort((np.concatenate([second, first]), np.tile(found & (1 << _DISTANCE_BITS) - 1, 2), owners))
    ranks = np.arange(len(order)) - np.searchsorted(owners[order], owners[order])
    return found[np.unique(order[ranks < NEAREST] % max(1, len(found)))]


DUPLICATE_RULES = 8
"""Version of the comparison; increase it whenever pictures are compared differently, or other pairs are."""

ROUGHLY = 0.7
"""Smallest correlation of two thumbnails, 16 x 16 grey pixels, for a comparison. Planted copies have 0.73 or more."""

ROUGHLY_TURNED = 0.8
"""The same if one of them is turned: six orientations are more likely to correlate by chance."""

ALIKE = 0.97
"""Smallest correlation of two aligned pictures, 32 x 32 pixels, for a near duplicate.

Planted copies of photographs have 0.991 or more, of small ones less (docs/data.md); second photographs of the same
thing may also have more than 0.97.
"""

SAME = 0.99
"""Smallest correlation of two pictures that show the same, so that only one label can be right."""

_SIDE, _INNER = 32, 26  # pixels per side of aligned pictures, and of their inner part, which is moved about
_ALL, _CORNER, _MIDDLE, _LEAST = (32, 3.0), (31, 2.0), (31, 2.5), (30, 2.0)

_SCALED = (
    *((_ALL, _ALL), (_CORNER, _CORNER), (_MIDDLE, _MIDDLE), (_LEAST, _LEAST)),
    *((_ALL, _CORNER), (_CORNER, _ALL), (_ALL, _LEAST), (_LEAST, _ALL)),
)
"""Sizes of the other picture, which may have lost up to 6 %: on all sides, at one corner, or in width or height alone.

Each entry is (pixels, start of the inner part) across, and the same down.
"""

_THRESHOLDS = np.array([ROUGHLY] * 2 + [ROUGHLY_TURNED] * 6, np.float32)  # by orientation, see ``_turned``
_BATCH = 4096  # pairs in memory while they are compared
_PREPARED = 2048  # pictures, 19 KB each, that are kept for further pairs


class _Small(NamedTuple):
    """A picture at 32 x 32 pixels, uint8 (3, 32, 32), and its inner part at each of ``_SCALED``, (8, 3, 26, 26)."""

    whole: np.ndarray
    inner: np.ndarray


def find_near_duplicates(
    hashes: np.ndarray,
    thumbnails: np.ndarray,
    picture: Callable[[int], Image.Image | None],
    progress: Callable[[int, int], None] | None = None,
) -> dict[tuple[int, int], float]:
    """Return the pairs of pictures that correlate by at least ``ALIKE``, sorted, with their correlation.

    Args:
        hashes: (n, 4) uint64, see ``ImageStats.hashes``, of pictures with distinct pixels.
        thumbnails: (n, 16, 16) uint8, grey.
        picture: returns a picture as upright RGB, or None if its file is gone; called in threads.
        progress: called with (pairs compared, pairs in total).
    """
    pairs = propose_pairs(np.concatenate([hashes, turned_hashes(thumbnails)], axis=1))
    close = _close(thumbnails, pairs)
    pairs, close = pairs[close.any(axis=1)], close[close.any(axis=1)]

    @lru_cache(_PREPARED)
    def prepared(index: int) -> _Small | None:
        opened = picture(index)
        return None if opened is None else _prepare(opened)

    def compare(pair: list[int], orientations: np.ndarray) -> float:
        first, second = map(prepared, pair)
        return 0.0 if first is None or second is None else round(_best_correlation(first, second, orientations), 4)

    found: dict[tuple[int, int], float] = {}
    with ThreadPoolExecutor() as pool:
        for low in range(0, len(pairs), _BATCH):
            part = pairs[low : low + _BATCH].tolist()
            values = pool.map(compare, part, close[low : low + _BATCH])
            found |= {(one, other): value for (one, other), value in zip(part, values, strict=True) if value >= ALIKE}
            if progress is not None:
                progress(low + len(part), len(pairs))
    return found


def _close(thumbnails: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Return whether each pair's thumbnails correlate with the second one in each orientation, bool (pairs, 8)."""
    close = np.empty((len(pairs), len(_THRESHOLDS)), bool)
    for low in range(0, len(pairs), _BATCH):
        part = slice(low, low + _BATCH)
        first, second = (_rows(thumbnails[pairs[part, side]][:, None]) for side in (0, 1))
        for orientation, threshold in enumerate(_THRESHOLDS):
            turned = _turned(second.reshape(-1, 1, *thumbnails.shape[1:]), orientation).reshape(second.shape)
            close[part, orientation] = np.einsum("ncp,ncp->n", first, turned) >= threshold
    return close


def _turned(pictures: np.ndarray, orientation: int) -> np.ndarray:
    """Return square pictures, (..., side, side): mirrored if bit 1 is set, upside down if 2, with axes swapped if 4."""
    pictures = pictures.swapaxes(-1, -2) if orientation & 4 else pictures
    return pictures[..., :: -1 if orientation & 2 else 1, :: -1 if orientation & 1 else 1]


def _prepare(picture: Image.Image) -> _Small:
    # The BOX filter would round to whole pixels, so that a small picture and its mirror image differ.
    hamming, (wide, high) = Image.Resampling.HAMMING, picture.size
    narrow = {
        (side, low): picture.resize((_INNER, high), hamming, (wide * low / side, 0, wide * (low + _INNER) / side, high))
        for side, low in (_ALL, _CORNER, _MIDDLE, _LEAST)
    }
    inner = [
        narrow[across].resize((_INNER, _INNER), hamming, (0, high * top / down, _INNER, high * (top + _INNER) / down))
        for across, (down, top) in _SCALED
    ]
    whole, parts = np.asarray(picture.resize((_SIDE, _SIDE), hamming)), np.stack([np.asarray(part) for part in inner])
    return _Small(whole.transpose(2, 0, 1), np.ascontiguousarray(parts.transpose(0, 3, 1, 2)))


def _best_correlation(first: _Small, second: _Small, orientations: np.ndarray) -> float:
    """Return the best correlation of one picture's inner part, moved and scaled, with the other picture.

    Args:
        first, second: the pictures.
        orientations: which orientations of the second picture are compared, bool (8,).
    """
    found = []
    for orientation in np.flatnonzero(orientations).tolist():
        found.append(_correlation(first.whole, _turned(second.inner, orientation)))
        found.append(_correlation(_turned(second.whole, orientation), first.inner))
    return max(found)


def _correlation(whole: np.ndarray, inner: np.ndarray) -> float:
    """Return the best correlation of any part of a picture with any of the inner parts of another."""
    centred = whole - whole.mean(axis=(1, 2), dtype=np.float32, keepdims=True)
    parts = sliding_window_view(centred, (_INNER, _INNER), axis=(1, 2)).reshape(3, -1, _INNER * _INNER)
    squares = np.einsum("cnp,cnp->cn", parts, parts) - parts.sum(axis=2) ** 2 / _INNER**2
    norms = np.sqrt(squares.sum(axis=0).clip(0.0)) + np.float32(1.0)
    # Per channel these products are too small for a BLAS to spread over threads, which would only spin.
    products = parts @ _rows(inner).transpose(1, 2, 0)
    return float((products.sum(axis=0).max(axis=1) / norms).max())


def _rows(pictures: np.ndarray) -> np.ndarray:
    """Return pictures (n, channels, height, width) as rows of norm 1; each channel has mean 0, blank pictures are 0.

    The mean is taken per channel, since otherwise two blank pictures of the same colour would correlate.
    """
    centred = pictures.reshape(*pictures.shape[:2], -1).astype(np.float32)
    centred -= centred.mean(axis=2, keepdims=True)
    return centred / (np.sqrt(np.einsum("ncp,ncp->n", centred, centred))[:, None, None] + np.float32(1.0))


def cluster_numbers(count: int, pairs: Sequence[tuple[int, int]]) -> np.ndarray:
    """Return the cluster of each of ``count`` pictures: the connected components of the pairs."""
    first, second = np.array(pairs, np.int64).reshape(-1, 2).T
    graph = coo_array((np.ones(len(pairs), np.int8), (first, second)), shape=(count, count))
    return connected_components(graph, directed=False)[1]


Progress = Callable[[int, int], None]
_BOUNDS = (ALIKE, ROUGHLY, ROUGHLY_TURNED, RADIUS, MISSED, NEAREST)

MIN_SIDE = 128
"""Pixels of the shorter side at which pictures are decoded at least, to be compared."""


@dataclass(frozen=True)
class DuplicateGroups:
    """Copies among images.

    Attributes:
        cluster: for each image, the first 16 hex digits of the smallest sha256 in its cluster; "" without a copy.
        likeness: correlation of each pair of near duplicates, by the sha256 of both, the smaller one first.
    """

    cluster: tuple[str, ...]
    likeness: Mapping[tuple[str, str], float]


def find_copies(
    infos: Sequence[FileInfo],
    paths: Sequence[Path],
    folder: Path | None,
    near: bool = True,
    decoding: bool = True,
    progress: Progress | None = None,
    reading: Reading = USUAL,
) -> DuplicateGroups:
    """Find images with the same pixels, and near duplicates.

    Args:
        infos: scan results; images that were not decoded are copies only if their files are equal.
        paths: the files.
        folder: of the scan cache, which also stores the results of searches; None stores nothing.
        near: whether near duplicates are searched.
        decoding: whether images that were not searched yet are; else near duplicates are those of earlier searches.
        progress: called with (pairs compared, pairs in total).
        reading: how files are read.
    """
    usable = [number for number, info in enumerate(infos) if info.sha256 and not info.reason]
    by_pixels: dict[str, list[int]] = {}
    for number in usable:
        info = infos[number]
        by_pixels.setdefault(info.stats.pixels if info.stats else info.sha256, []).append(number)

    # One image, of the smallest sha256, stands for all with the same pixels, and these are searched in the order of
    # their sha256: if very many are alike not all pairs are compared, and which ones must not depend on file names.
    def content(number: int) -> str:
        return infos[number].sha256

    distinct = sorted((min(numbers, key=content) for numbers in by_pixels.values()), key=content)
    decoded = [number for number in distinct if infos[number].stats is not None]
    files = [(infos[number], paths[number]) for number in decoded]
    likeness = _search(files, folder, decoding, progress, reading) if near else {}
    position = {content(number): number for number in distinct}
    pairs = [(numbers[0], other) for numbers in by_pixels.values() for other in numbers[1:]]
    pairs += [(position[first], position[second]) for first, second in likeness]
    return DuplicateGroups(_cluster_names(infos, usable, pairs), likeness)


def _cluster_names(
    infos: Sequence[FileInfo], usable: Sequence[int], pairs: Sequence[tuple[int, int]]
) -> tuple[str, ...]:
    members: dict[int, list[str]] = {}
    numbers = cluster_numbers(len(infos), pairs)
    for position in usable:
        members.setdefault(numbers[position], []).append(infos[position].sha256)
    name_of = {number: min(contents)[:16] for number, contents in members.items() if len(contents) > 1}
    return tuple(name_of.get(number, "") for number in numbers)


def _search(
    files: Sequence[tuple[FileInfo, Path]],
    folder: Path | None,
    decoding: bool,
    progress: Progress | None,
    reading: Reading,
) -> dict[tuple[str, str], float]:
    """Return the likeness of near duplicates among decoded images, or that of an earlier search for the same images."""
    contents = [info.sha256 for info, _ in files]
    searched, name = dict(read_lines(folder, _cache_key(reading))), fingerprint(*contents)
    if name in searched:
        return {(first, second): value for first, second, value in searched[name]}
    if not decoding:
        present = set(contents)
        every = sorted((first, second, value) for pairs in searched.values() for first, second, value in pairs)
        return {(first, second): value for first, second, value in every if first in present and second in present}
    gone = []

    def picture(index: int) -> Image.Image | None:
        try:
            with quiet_pillow():
                return decode(files[index][1], at_least=MIN_SIDE, reading=reading)
        except Undecodable:  # the file is gone or has changed since it was scanned
            gone.append(index)
            return None

    stats = [info.stats for info, _ in files if info.stats is not None]
    hashes = np.array([of.hashes for of in stats], np.uint64).reshape(-1, 4)
    thumbnails = np.frombuffer(b"".join(of.thumbnail for of in stats), np.uint8).reshape(-1, 16, 16)
    pairs = find_near_duplicates(hashes, thumbnails, picture, progress)
    found = {(contents[first], contents[second]): value for (first, second), value in pairs.items()}
    if folder is not None and not gone:
        write_lines(folder, _cache_key(reading), [[name, [[*pair, value] for pair, value in found.items()]]])
    return found


def _cache_key(reading: Reading) -> str:
    """Return the key of searches in the cache; each version of Pillow and of the rules has files of its own."""
    rules = (DECODE_RULES, LIKENESS_RULES, DUPLICATE_RULES, *_BOUNDS, PIL.__version__, *reading.rules)
    return f"copies-{fingerprint(*rules)}"
