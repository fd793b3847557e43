"""Find pictures that are copies of each other: the same pixels, or the same picture resized, cropped, mirrored, relit.

Perceptual hashes propose pairs; each pair is then laid upon each other and compared pixel by pixel. No network is
asked, so that what is a duplicate depends on the pictures alone and never on a study's backbone.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

DUPLICATE_RULES = 1
"""Counts up whenever two pictures come to be compared otherwise."""

RADIUS = 10
"""Hashes that differ in more of their 64 bits do not propose a pair."""
ROUGHLY = 0.7
"""Least correlation of two thumbnails, 16 x 16 pixels, for a closer look. Planted copies have 0.79 or more."""
ALIKE = 0.97
"""Least correlation of two pictures laid upon each other, 32 x 32 pixels, for a near duplicate.

Planted copies have 0.996 or more (docs/data.md); above 0.97 lie second photographs of the same thing as well.
"""

_BANDS, _BITS, _FLIPPED = 4, 16, 2  # two hashes within 11 bits agree in one of four 16-bit bands but for two bits
_SIDE, _INNER = 32, 26  # pixels a side at which pictures are laid upon each other, and of the part that is moved about
_SIDES = (32, 31, 30)  # to which the other picture is scaled: a copy may have lost six hundredths of its sides
_AT_ONCE, _ROUGH_AT_ONCE = 4_000_000, 20_000  # pairs in memory while they are proposed, and compared roughly


@dataclass(frozen=True)
class Pair:
    """Two pictures, by index, first below second, that are near duplicates; ``likeness`` is ``ALIKE`` to 1."""

    first: int
    second: int
    likeness: float


def near_duplicates(
    hashes: np.ndarray,
    thumbnails: np.ndarray,
    picture: Callable[[int], Image.Image | None],
    remembered: Callable[[int, int], float | None],
    keep: Callable[[int, int, float], None],
    progress: Callable[[int, int], None] | None = None,
) -> list[Pair]:
    """Return the pairs of pictures that are near duplicates.

    Args:
        hashes: (n, 4) uint64, see ``Likeness.hashes``; of pictures whose pixels all differ.
        thumbnails: (n, 16, 16, 3) uint8.
        picture: opens a picture, upright RGB; None if it is no longer there.
        remembered: gives an earlier comparison of two pictures, None if there was none.
        keep: is given each new comparison.
        progress: called with (pairs compared, pairs in all).
    """
    pairs = proposed(hashes)
    asked = pairs[_rough(thumbnails, pairs) >= ROUGHLY].tolist()
    found, prepared = [], dict[int, _Small | None]()
    last = {index: number for number, pair in enumerate(asked) for index in pair}
    for number, (first, second) in enumerate(asked):
        value = remembered(first, second)
        if value is None:
            for index in (first, second):
                if index not in prepared:
                    opened = picture(index)
                    prepared[index] = None if opened is None else _prepare(opened)
            one, other = prepared[first], prepared[second]
            if one is not None and other is not None:
                value = round(_alike(one, other), 4)
                keep(first, second, value)
        if value is not None and value >= ALIKE:
            found.append(Pair(first, second, value))
        for index in (first, second):
            if last[index] == number:
                prepared.pop(index, None)
        if progress is not None:
            progress(number + 1, len(asked))
    return found


def proposed(hashes: np.ndarray, radius: int = RADIUS) -> np.ndarray:
    """Return the pairs, (m, 2) int64 with first below second, of which a hash of one is near a hash of the other.

    Multi-index hashing (Norouzi, Punjani and Fleet 2012, "Fast search in Hamming space with multi-index hashing"): by
    the pigeonhole principle only pairs that nearly agree in one of four bands of 16 bits are looked at.

    Raises:
        ValueError: the radius is too large for these bands.
    """
    if radius >= _BANDS * (_FLIPPED + 1):
        raise ValueError(f"radius {radius} needs bands that differ in more than {_FLIPPED} bits")
    count = len(hashes)
    asking, owners = hashes[:, [0, 2]].T.ravel(), np.tile(np.arange(count), 2)
    offered, offering = hashes.T.ravel(), np.tile(np.arange(count), hashes.shape[1])
    pairs = [np.empty((0, 2), np.int64)]
    for band in range(_BANDS):
        shift = np.uint64(_BITS * band)
        keys = (offered >> shift & np.uint64(0xFFFF)).astype(np.int64)
        order = np.argsort(keys, kind="stable")
        ends = np.cumsum(np.bincount(keys, minlength=1 << _BITS))
        starts = np.concatenate([[0], ends[:-1]])
        mine = (asking >> shift & np.uint64(0xFFFF)).astype(np.int64)
        for flipped in _flips():
            wanted = mine ^ flipped
            for low, high in _parts(ends[wanted] - starts[wanted]):
                some = wanted[low:high]
                many = ends[some] - starts[some]
                asker = np.repeat(np.arange(low, high), many)
                place = np.arange(many.sum()) - np.repeat(np.cumsum(many) - many, many)
                other = order[np.repeat(starts[some], many) + place]
                near = np.bitwise_count(asking[asker] ^ offered[other]) <= radius
                both = np.sort(np.stack([owners[asker[near]], offering[other[near]]], 1), axis=1)
                pairs.append(np.unique(both[both[:, 0] < both[:, 1]], axis=0))
    return np.unique(np.concatenate(pairs), axis=0)


def _flips() -> Iterator[int]:
    """Return every number of 16 bits of which at most two are set."""
    for count in range(_FLIPPED + 1):
        for places in combinations(range(_BITS), count):
            yield sum(1 << place for place in places)


def _parts(counts: np.ndarray) -> Iterator[tuple[int, int]]:
    """Cut a sequence of counts into stretches of about ``_AT_ONCE`` each."""
    total = np.cumsum(counts)
    cuts = np.searchsorted(total, np.arange(_AT_ONCE, total[-1] if len(total) else 0, _AT_ONCE))
    edges = np.unique([0, *cuts, len(counts)])
    yield from zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)


def _rough(thumbnails: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Return the correlation of each pair's thumbnails, the better of upright and mirrored; float32 (pairs,)."""
    found = [np.empty(0, np.float32)]
    for low in range(0, len(pairs), _ROUGH_AT_ONCE):
        first, second = (thumbnails[pairs[low : low + _ROUGH_AT_ONCE, side]].astype(np.float32) for side in (0, 1))
        upright, mirrored, other = _rows(first), _rows(first[:, :, ::-1]), _rows(second)
        found.append(np.maximum((upright * other).sum(axis=1), (mirrored * other).sum(axis=1)))
    return np.concatenate(found)


_Small = tuple[np.ndarray, ...]
"""A picture at each of ``_SIDES``, uint8."""


def _prepare(picture: Image.Image) -> _Small:
    return tuple(np.asarray(picture.resize((side, side), Image.Resampling.BOX)) for side in _SIDES)


def _alike(one: _Small, other: _Small) -> float:
    """Return the best correlation of one picture's middle, moved and scaled a little, with the other picture."""
    return float(max((_windows(a) @ _middles(b).T).max() for a, b in ((one, other), (other, one))))


def _windows(picture: _Small) -> np.ndarray:
    """Return each 26 x 26 part of a picture's 32 x 32 pixels, float32 (49, 2028)."""
    windows = sliding_window_view(picture[0].astype(np.float32), (_INNER, _INNER), axis=(0, 1))
    return _rows(windows.transpose(0, 1, 3, 4, 2).reshape(-1, _INNER, _INNER, 3))


def _middles(picture: _Small) -> np.ndarray:
    """Return the middle 26 x 26 pixels of a picture at each scale, upright and mirrored, float32 (6, 2028)."""
    middles = []
    for side, pixels in zip(_SIDES, picture, strict=True):
        rim = (side - _INNER) // 2
        middle = pixels[rim : rim + _INNER, rim : rim + _INNER]
        middles += [middle, middle[:, ::-1]]
    return _rows(np.stack(middles).astype(np.float32))


def _rows(pictures: np.ndarray) -> np.ndarray:
    """Return pictures (n, height, width, 3) as rows of norm 1, each channel with the mean 0; blank ones are 0.

    Channel by channel, since otherwise two blank pictures of one colour would be alike.
    """
    centred = (pictures - pictures.mean(axis=(1, 2), keepdims=True)).reshape(len(pictures), -1)
    return centred / (np.linalg.norm(centred, axis=1, keepdims=True) + 1.0)


def clusters(count: int, pairs: Sequence[tuple[int, int]]) -> np.ndarray:
    """Return, for each of so many pictures, the number of its cluster: pairs joined as far as they reach."""
    first, second = np.array(pairs, np.int64).reshape(-1, 2).T
    graph = coo_array((np.ones(len(pairs), np.int8), (first, second)), shape=(count, count))
    return connected_components(graph, directed=False)[1]
