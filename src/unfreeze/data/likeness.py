"""What a picture looks like, in a few numbers: enough to find its copies, and to see that it is dark or blurred."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image

from unfreeze.data.sketch import THUMBNAIL, Sketch, sketch

LIKENESS_RULES = 7
"""Counts up whenever a picture comes to be described by other numbers."""

_KEPT = 8  # lowest frequencies a side of which the signs are kept
INNER = 0.95
"""Share of each side that the second pair of hashes sees: of a cropped copy and its original one of them agrees."""
_MIRROR = np.where(np.arange(_KEPT) % 2, -1, 1)  # odd frequencies of a mirror image have the other sign
_COLOURS, _GREY = 3 * THUMBNAIL * THUMBNAIL, 4 * THUMBNAIL * THUMBNAIL  # where each ends in Sketch.drawn


@dataclass(frozen=True, slots=True)
class Likeness:
    """A description of an upright 8-bit RGB picture.

    Attributes:
        pixels: xxh3 over its size and its pixels, 128 bits in hex: the same for a copy that was stored without loss.
        hashes: four 64-bit perceptual hashes: of the picture, of its mirror image, and of both without the rim (see
            ``INNER``). After the DCT-based pHash of Zauner 2010, "Implementation and benchmarking of perceptual
            image hash functions": the signs, against their median, of the 8 x 8 lowest frequencies of the grey values.
        thumbnail: 16 x 16 pixels, grey, row by row.
        brightness: mean grey value, 0 to 1.
        contrast: standard deviation of the grey values, 0 to 0.5.
        sharpness: standard deviation of the Laplacian, in grey values of 255, of ``Sketch.strips``.
        colour: mean difference of the channel that differs most from the mean of all three, 0 to 1; 0 is grey. Of
            samples, so that what is coloured in few places may lie a little above or below.
    """

    pixels: str
    hashes: tuple[int, int, int, int]
    thumbnail: bytes
    brightness: float
    contrast: float
    sharpness: float
    colour: float


def as_values(found: Likeness) -> list[Any]:
    """Return a description as JSON data."""
    return [
        found.pixels, *(f"{one:016x}" for one in found.hashes), base64.b64encode(found.thumbnail).decode(),
        found.brightness, found.contrast, found.sharpness, found.colour,
    ]  # fmt: skip


def from_values(values: list[Any]) -> Likeness:
    """Read what ``as_values`` gave."""
    pixels, one, two, three, four, thumbnail, *numbers = values
    hashes = (int(one, 16), int(two, 16), int(three, 16), int(four, 16))
    return Likeness(pixels, hashes, base64.b64decode(thumbnail), *numbers)


def likeness(picture: Image.Image) -> Likeness:
    """Describe an upright 8-bit RGB picture."""
    return described([sketch(picture)])[0]


def described(sketches: Sequence[Sketch]) -> list[Likeness]:
    """Describe pictures of which there are sketches, in order; what is small of all of them at once."""
    if not sketches:
        return []
    drawn = [np.frombuffer(one.drawn, np.uint8) for one in sketches]
    colours = _colours(np.stack([one[:_COLOURS] for one in drawn]).reshape(len(drawn), -1, 3)).tolist()
    brightnesses, contrasts, sharpnesses = (np.zeros(len(drawn)) for _ in range(3))
    hashes = np.zeros((len(drawn), 4), np.uint64)
    shapes: dict[tuple[tuple[int, int], tuple[int, int, int]], list[int]] = {}
    for number, one in enumerate(sketches):
        shapes.setdefault((one.small, one.strips), []).append(number)
    for ((wide, high), (count, width, height)), numbers in shapes.items():
        greys = np.stack([drawn[number][_GREY:] for number in numbers])
        small = greys[:, : wide * high]
        brightnesses[numbers], contrasts[numbers] = _spread(small)
        hashes[numbers] = _hashes(small.reshape(-1, high, wide))
        sharpnesses[numbers] = _sharpness(greys[:, wide * high :].reshape(-1, count, height, width))
    measured = ((brightnesses / 255).round(4), (contrasts / 255).round(4), sharpnesses.round(2))
    return [
        Likeness(
            one.pixels,
            (first, second, third, fourth),
            one.drawn[_COLOURS:_GREY],
            brightness,
            contrast,
            sharpness,
            round(colour, 4),
        )
        for one, (first, second, third, fourth), colour, brightness, contrast, sharpness in zip(
            sketches, hashes.tolist(), colours, *(part.tolist() for part in measured), strict=True
        )
    ]


def _hashes(greys: np.ndarray) -> np.ndarray:
    """Return the hash of each grey picture, of its mirror image, and of both without the rim.

    Args:
        greys: (n, height, width) uint8.

    Returns:
        uint64 (n, 4).
    """
    rows, columns = (_frequencies(side) for side in greys.shape[1:])
    # Picture by picture these products are too small for a BLAS to share them among threads, which would spin.
    low = (rows.reshape(-1, greys.shape[1]) @ greys.astype(np.float64)).reshape(len(greys), 2, _KEPT, -1)
    low = low @ columns.transpose(0, 2, 1)
    return _signs(np.stack([low, low * _MIRROR], axis=2).reshape(-1, 4, _KEPT * _KEPT))


def turned_hashes(thumbnails: np.ndarray) -> np.ndarray:
    """Return the hashes of pictures in the six orientations that ``Likeness.hashes`` does not have.

    They are made of the thumbnails, so nothing more has to be remembered of a picture. A thumbnail's hash differs from
    its picture's by two bits at most, as a rule.

    Args:
        thumbnails: (n, 16, 16) uint8, grey.

    Returns:
        uint64 (n, 6): upside down, turned by 180 degrees, and the four in which the sides are exchanged.
    """
    whole = _frequencies(thumbnails.shape[1])[0]
    low = whole @ thumbnails.astype(np.float64) @ whole.T
    turned = [
        one * down * across
        for one in (low, low.transpose(0, 2, 1))
        for down in (1, _MIRROR[:, None])
        for across in (1, _MIRROR)
    ]
    # One after another, which takes less memory than all at once.
    return np.concatenate([_signs(one.reshape(-1, 1, _KEPT * _KEPT)) for one in turned[2:]], axis=1)


def _signs(frequencies: np.ndarray) -> np.ndarray:
    """Return the hashes of frequencies, (n, m, 64) to uint64 (n, m): which of the 64 lie above their median."""
    middle = _KEPT * _KEPT // 2
    medians = np.partition(frequencies, (middle - 1, middle), axis=2)[:, :, middle - 1 : middle + 1].mean(axis=2)
    return np.packbits(frequencies > medians[:, :, None], axis=2).view(">u8")[:, :, 0]


@lru_cache(maxsize=256)  # of two sizes or so a data set, and of 127 at most
def _frequencies(size: int) -> np.ndarray:
    """Return what a side's pixels are multiplied with: (2, 8, size), over the whole side and over its ``INNER`` share.

    The integrals of the lowest cosines over each pixel, so that a picture has the same hash at whatever size.
    """
    edges = np.arange(size + 1) / size
    parts = []
    for share in (1.0, INNER):
        within = np.clip((edges - (1 - share) / 2) / share, 0.0, 1.0)
        turns = np.pi * np.arange(1, _KEPT)[:, None]
        parts.append(np.concatenate([np.diff(within)[None], np.diff(np.sin(turns * within) / turns)]))
    return np.stack(parts)


def _spread(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean and the standard deviation of each row of whole numbers, whose sums in float64 are exact."""
    rows = values.reshape(len(values), -1).astype(np.float64)
    means = rows.sum(axis=1) / rows.shape[1]
    squares = np.einsum("ij,ij->i", rows, rows)  # where a product would wake the threads of a BLAS, which spin
    return means, np.sqrt(np.maximum(0.0, squares / rows.shape[1] - means**2))


def _sharpness(greys: np.ndarray) -> np.ndarray:
    """Return the standard deviation of the Laplacian of grey values, of 255; 0 where there is none.

    Args:
        greys: (n, strips, height, width) uint8.

    Returns:
        float64 (n,).
    """
    if min(greys.shape[2:]) < 3:
        return np.zeros(len(greys))
    values = greys.astype(np.int16)
    laplacian = values[..., 1:-1, 1:-1] * np.int16(-4)
    for one in (values[..., :-2, 1:-1], values[..., 2:, 1:-1], values[..., 1:-1, :-2], values[..., 1:-1, 2:]):
        laplacian += one
    return _spread(laplacian)[1]


def _colours(thumbnails: np.ndarray) -> np.ndarray:
    """Return the mean difference of the channel that differs most from the mean of all three, 0 to 1.

    Args:
        thumbnails: (n, pixels, 3) uint8.

    Returns:
        float64 (n,).
    """
    channels = np.ascontiguousarray(thumbnails.transpose(2, 0, 1), np.int16)
    thirds = np.abs(3 * channels - channels.sum(axis=0, dtype=np.int16)).sum(axis=2, dtype=np.int64)
    return thirds.max(axis=0) / (3 * channels.shape[2] * 255)
