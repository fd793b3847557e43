"""Find pictures that are copies of each other: the same pixels, or the same resized, cropped, turned, mirrored, relit.

Perceptual hashes propose pairs; each pair is then laid upon each other and compared pixel by pixel. No network is
asked, so that what is a duplicate depends on the pictures alone and never on a study's backbone.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from unfreeze.data.likeness import turned_hashes
from unfreeze.data.pairing import proposed

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
        hashes: (n, 4) uint64, see ``Likeness.hashes``; of pictures whose pixels all differ.
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
