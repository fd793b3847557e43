"""Find pictures that are copies of each other: the same pixels, or the same resized, cropped, turned, mirrored, relit.

Perceptual hashes propose pairs; each pair is then laid upon each other and compared pixel by pixel. No network is
asked, so that what is a duplicate depends on the pictures alone and never on a study's backbone.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from unfreeze.data.likeness import turned_hashes
from unfreeze.data.pairing import proposed
from unfreeze.data.threads import in_threads

DUPLICATE_RULES = 7
"""Counts up whenever two pictures come to be compared otherwise, or other pairs to be."""

ROUGHLY = 0.7
"""Least correlation of two thumbnails, 16 x 16 grey pixels, for a closer look. Planted copies have 0.73 or more.

They are made of all pixels: of samples alone, two copies with fine detail, as foliage or text, have little in common.
"""
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
_WAYS = np.array([ROUGHLY] * 2 + [ROUGHLY_TURNED] * 6, np.float32)  # by orientation, see ``_orientations``
_BACK = [0, 1, 2, 3, 4, 6, 5, 7]  # the orientation that undoes each: of a quarter turn the other one, else the same
_ROUGH_AT_ONCE, _AT_ONCE = 5_000, 512  # pairs in memory while they are compared roughly, and closely
_SHARE = 128  # of the latter, those that one thread compares
_PREPARED = 2048  # pictures, 19 KB each, that are kept for pairs to come


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
        thumbnails: (n, 16, 16) uint8, grey.
        picture: opens a picture, upright RGB; None if it is no longer there; called in threads.
        remembered: gives an earlier comparison of two pictures, None if there was none.
        keep: is given each new comparison.
        progress: called with (pairs compared, pairs in all).
    """
    pairs = proposed(np.concatenate([hashes, turned_hashes(thumbnails)], axis=1))
    close = _rough(thumbnails, pairs) >= _WAYS
    closer = close.any(axis=1)
    asked, ways = pairs[closer].tolist(), close[closer]
    found, prepared = [], dict[int, _Small | None]()

    def opened(index: int) -> tuple[int, _Small | None]:
        shown = picture(index)
        return index, None if shown is None else _prepare(shown)

    for low in range(0, len(asked), _AT_ONCE):
        part = asked[low : low + _AT_ONCE]
        values = [remembered(first, second) for first, second in part]
        fresh = [
            (first, second, way)
            for (first, second), way, value in zip(part, ways[low : low + _AT_ONCE], values, strict=True)
            if value is None
        ]
        needed = {index for first, second, _ in fresh for index in (first, second)}
        if len(prepared) > _PREPARED:
            prepared = {index: small for index, small in prepared.items() if index in needed}
        prepared.update(in_threads(opened, sorted(needed - set(prepared)), None))
        whole = {index: small for index in needed if (small := prepared[index]) is not None}
        there = [(first, second, way) for first, second, way in fresh if first in whole and second in whole]
        shares = [there[begin : begin + _SHARE] for begin in range(0, len(there), _SHARE)]
        compared = dict(pair for share in in_threads(partial(_alike, whole), shares, None) for pair in share.items())
        for (first, second), value in zip(part, values, strict=True):
            if value is None and (first, second) in compared:
                value = round(compared[first, second], 4)
                keep(first, second, value)
            if value is not None and value >= ALIKE:
                found.append(Pair(first, second, value))
        if progress is not None:
            progress(low + len(part), len(asked))
    return found


def _rough(thumbnails: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Return the correlation of each pair's thumbnails, with one of them in each orientation; float32 (pairs, 8)."""
    found = [np.empty((0, len(_WAYS)), np.float32)]
    for low in range(0, len(pairs), _ROUGH_AT_ONCE):
        first, second = (
            _rows(thumbnails[pairs[low : low + _ROUGH_AT_ONCE, side], :, :, None].astype(np.float32)) for side in (0, 1)
        )  # the rows of a turned picture are the turned rows
        ways = _orientations(second.reshape(-1, *thumbnails.shape[1:]))
        found.append(np.stack([(first * way.reshape(first.shape)).sum(axis=1) for way in ways], axis=1))
    return np.concatenate(found)


def _orientations(pictures: np.ndarray) -> list[np.ndarray]:
    """Return square pictures, (..., side, side), in all eight orientations: as they are, mirrored, …"""
    exchanged = pictures.swapaxes(-1, -2)
    over = [way for one in (pictures, exchanged) for way in (one, one[..., ::-1, :])]
    return [way for one in over for way in (one, one[..., ::-1])]


_Small = tuple[np.ndarray, ...]
"""A picture at 32 x 32 pixels, and its inner part at each of ``_SCALED``, uint8."""


def _prepare(picture: Image.Image) -> _Small:
    # Not by boxes, which end at whole pixels: of a small picture and its mirror image they make two that differ.
    resample, (wide, high) = Image.Resampling.HAMMING, picture.size
    narrow = {}
    for across in {across for across, _ in _SCALED}:
        left, right = _span(across, wide)
        narrow[across] = picture.resize((_INNER, high), resample, (left, 0, right, high))
    inner = []
    for across, down in _SCALED:
        top, bottom = _span(down, high)
        inner.append(narrow[across].resize((_INNER, _INNER), resample, (0, top, _INNER, bottom)))
    return tuple(np.asarray(one) for one in (picture.resize((_SIDE, _SIDE), resample), *inner))


def _span(scaled: tuple[int, float], length: int) -> tuple[float, float]:
    """Return where the inner part begins and ends on a side of so many pixels, see ``_SCALED``."""
    side, low = scaled
    return length * low / side, length * (low + _INNER) / side


def _alike(
    pictures: Mapping[int, _Small], pairs: Sequence[tuple[int, int, np.ndarray]]
) -> dict[tuple[int, int], float]:
    """Return, by pair, the best correlation of one picture's inner part, moved and scaled, with the other picture.

    What is made of a picture is made once.

    Args:
        pictures: by index.
        pairs: two indices, and in which orientations of the second to look at them: bool (8,).
    """
    if not pairs:
        return {}
    partners: dict[int, list[tuple[int, np.ndarray]]] = {}
    for first, second, ways in pairs:
        partners.setdefault(first, []).append((second, ways))
        partners.setdefault(second, []).append((first, ways[_BACK]))
    asked = [pictures[index] for index in partners]
    inner = dict(zip(partners, _inner(asked), strict=True))
    norms = dict(zip(partners, _norms(np.array([whole for whole, *_ in asked])), strict=True))
    best: dict[tuple[int, int], float] = {}
    for index, others in partners.items():
        parts = _windows(pictures[index])
        for other, ways in others:
            turned = _orientations(inner[other].transpose(0, 3, 1, 2))
            rows = np.stack([one.transpose(0, 2, 3, 1) for one, way in zip(turned, ways, strict=True) if way])
            # One by one these products are too small for a BLAS to share them among threads, which would spin.
            products = parts @ rows.reshape(*rows.shape[:2], _INNER * _INNER, -1)
            value = float((products.sum(axis=1) / norms[index]).max())
            pair = (index, other) if index < other else (other, index)
            best[pair] = max(value, best.get(pair, -1.0))
    return best


def _windows(picture: _Small) -> np.ndarray:
    """Return each 26 x 26 part of a picture's 32 x 32 pixels, by channel, float32 (3, 49, 676).

    The parts keep their means, which the rows they are multiplied with take away: those have the mean 0 by channel.
    """
    pixels = picture[0].transpose(2, 0, 1).astype(np.float32)
    pixels -= pixels.mean(axis=(1, 2), keepdims=True)
    return sliding_window_view(pixels, (_INNER, _INNER), axis=(1, 2)).reshape(len(pixels), -1, _INNER * _INNER)


def _norms(pictures: np.ndarray) -> np.ndarray:
    """Return what divides the products of each picture's parts: (n, 32, 32, 3) uint8 to float32 (n, 49, 1)."""
    whole = pictures.astype(np.int32)
    sums, squares = _sums(whole), _sums(whole**2)  # whole numbers: what is left of their difference is exact
    norms = np.sqrt((squares - sums.astype(np.float64) ** 2 / _INNER**2).sum(axis=3)).reshape(len(pictures), -1, 1)
    return (norms + 1.0).astype(np.float32)


def _sums(values: np.ndarray) -> np.ndarray:
    """Return the sum of each 26 x 26 part, by channel: (n, 7, 7, 3)."""
    total = np.zeros((len(values), _SIDE + 1, _SIDE + 1, values.shape[3]), values.dtype)
    total[:, 1:, 1:] = values.cumsum(axis=1).cumsum(axis=2)
    rows = total[:, _INNER:] - total[:, :-_INNER]
    return rows[:, :, _INNER:] - rows[:, :, :-_INNER]


def _inner(pictures: Sequence[_Small]) -> np.ndarray:
    """Return the inner parts of pictures, by channel (n, 3, 26, 26, 8); over all channels each of eight has norm 1."""
    parts = np.array([picture[1:] for picture in pictures], np.float32)
    rows = _rows(parts.reshape(-1, *parts.shape[2:])).reshape(parts.shape)
    return np.ascontiguousarray(rows.transpose(0, 4, 2, 3, 1))


def _rows(pictures: np.ndarray) -> np.ndarray:
    """Return pictures (n, height, width, 3) as rows of norm 1, each channel with the mean 0; blank ones are 0.

    Channel by channel, since otherwise two blank pictures of one colour would be alike.
    """
    by_pixel = pictures.reshape(len(pictures), -1, pictures.shape[-1])
    # A product with ones is a sum of each channel, in one pass where numpy's mean over an inner axis strides.
    means = np.ones(by_pixel.shape[1], np.float32) @ by_pixel / np.float32(by_pixel.shape[1])
    centred = (by_pixel - means[:, None]).reshape(len(pictures), -1)
    return centred / (np.sqrt(np.einsum("ij,ij->i", centred, centred))[:, None] + np.float32(1.0))


def clusters(count: int, pairs: Sequence[tuple[int, int]]) -> np.ndarray:
    """Return, for each of so many pictures, the number of its cluster: pairs joined as far as they reach."""
    first, second = np.array(pairs, np.int64).reshape(-1, 2).T
    graph = coo_array((np.ones(len(pairs), np.int8), (first, second)), shape=(count, count))
    return connected_components(graph, directed=False)[1]
