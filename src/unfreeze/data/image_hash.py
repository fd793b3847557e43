"""Decode a file and describe its picture by hashes that find its copies, brightness, contrast, sharpness and colour."""

import base64
import math
from dataclasses import dataclass
from functools import lru_cache
from io import BufferedReader
from typing import Any, NamedTuple

import numpy as np
import xxhash
from PIL import Image

from unfreeze.data.decode import Truncated, kind, load, mode_of, peak_of, refuse_white, to_rgb, upright_size
from unfreeze.data.formats.reading import USUAL, Reading
from unfreeze.data.unusable import Undecodable

THUMBNAIL = 16
"""Pixels a side of the thumbnail."""

LIKENESS_RULES = 8
"""Version of the description; increase it whenever a picture gets different numbers."""

_FREQUENCIES = 8  # lowest frequencies per side whose signs are kept

INNER = 0.95
"""Share of each side that the second pair of hashes covers: one of them agrees for a cropped copy and its original."""

_MIRROR = np.where(np.arange(_FREQUENCIES) % 2, -1, 1)  # odd frequencies of a mirror image have the opposite sign
_SHARP, _SMALL = 128, 64  # smallest longer side in pixels to which sharpness, and the rest, is measured
_SAMPLES = 4  # samples per side of a pixel when colour is measured
_BLOCK = 2**18  # pixels copied at once to be hashed


@dataclass(frozen=True, slots=True)
class ImageStats:
    """Description of an upright 8-bit RGB picture.

    Attributes:
        pixels: xxh3 of its size and pixels, 128 bits in hex; equal for a copy stored without loss.
        hashes: four 64-bit perceptual hashes: of the picture, of its mirror image, and of both without the rim (see
            ``INNER``). After the DCT-based pHash of Zauner 2010, "Implementation and benchmarking of perceptual
            image hash functions": which of the 8 x 8 lowest frequencies of the grey values are above their median.
        thumbnail: 16 x 16 grey pixels, row by row.
        brightness: mean grey value, 0 to 1.
        contrast: standard deviation of the grey values, 0 to 0.5.
        sharpness: standard deviation of the Laplacian of two strips, in grey values of 255.
        colour: mean difference of the most different channel from the mean of all three, 0 to 1; 0 is grey. Measured on
            samples, so it is approximate for pictures with little colour.
    """

    pixels: str
    hashes: tuple[int, int, int, int]
    thumbnail: bytes
    brightness: float
    contrast: float
    sharpness: float
    colour: float


def as_values(stats: ImageStats) -> list[Any]:
    """Return a description as JSON data."""
    return [
        stats.pixels, *(f"{value:016x}" for value in stats.hashes), base64.b64encode(stats.thumbnail).decode(),
        stats.brightness, stats.contrast, stats.sharpness, stats.colour,
    ]  # fmt: skip


def from_values(values: list[Any]) -> ImageStats:
    """Return the description from the JSON data of ``as_values``."""
    pixels, one, two, three, four, thumbnail, *numbers = values
    hashes = (int(one, 16), int(two, 16), int(three, 16), int(four, 16))
    return ImageStats(pixels, hashes, base64.b64decode(thumbnail), *numbers)


def image_stats(picture: Image.Image) -> ImageStats:
    """Describe an upright 8-bit RGB picture."""
    longer = max(picture.size)
    factor = max(1, longer // _SHARP)
    grey = picture.convert("L")
    small = grey.reduce(factor * max(1, longer // factor // _SMALL))
    values = np.asarray(small, np.float64)
    brightness, contrast = _spread(values)
    low = _frequencies(small.height) @ values @ _frequencies(small.width).transpose(0, 2, 1)
    first, second, third, fourth = _signs(np.stack([low, low * _MIRROR], axis=1).reshape(4, -1)).tolist()
    return ImageStats(
        _pixels(picture),
        (first, second, third, fourth),
        small.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX).tobytes(),
        round(brightness / 255, 4),
        round(contrast / 255, 4),
        _sharpness(grey, factor),
        _colour(picture),
    )


def _pixels(picture: Image.Image) -> str:
    """Hash the picture's size and pixels, a block of rows at a time, so that few are copied at once."""
    width, height = picture.size
    hashed, rows = xxhash.xxh3_128(f"{width} {height} ".encode()), max(1, _BLOCK // width)
    for top in range(0, height, rows):
        part = picture if rows >= height else picture.crop((0, top, width, min(height, top + rows)))
        hashed.update(part.tobytes())
    return hashed.hexdigest()


def _sharpness(grey: Image.Image, factor: int) -> float:
    """Return the standard deviation of the Laplacian of a picture reduced by a factor; 0 if it is too small.

    Of a reduced picture only two horizontal strips are used, together a quarter of it, of at least three rows each.
    """
    wide, high = grey.size
    rows = min(high, max(high // 8, 3 * factor))
    tops = (min(high // 4, high - rows), max(0, high - high // 4 - rows))
    boxes = [(0, top, wide, top + rows) for top in tops] if factor > 1 else [(0, 0, wide, high)]
    strips = np.stack([np.asarray(grey.reduce(factor, box), np.int16) for box in boxes])
    if min(strips.shape[1:]) < 3:
        return 0.0
    neighbours = strips[:, 2:, 1:-1] + strips[:, :-2, 1:-1] + strips[:, 1:-1, 2:] + strips[:, 1:-1, :-2]
    return round(_spread(neighbours - 4 * strips[:, 1:-1, 1:-1])[1], 2)


def _spread(values: np.ndarray) -> tuple[float, float]:
    """Return the mean and the standard deviation of integers, whose sums in float64 are exact."""
    flat = values.ravel().astype(np.float64)
    mean = float(flat.sum()) / len(flat)
    return mean, math.sqrt(max(0.0, float(flat @ flat) / len(flat) - mean**2))


def _colour(picture: Image.Image) -> float:
    """Return the mean difference of the most different channel from the mean of all three, 0 to 1."""
    # Reading all pixels would take three times as long.
    samples = picture.resize((_SAMPLES * THUMBNAIL,) * 2, Image.Resampling.NEAREST).reduce(_SAMPLES)
    red, green, blue = np.asarray(samples, np.int16).reshape(-1, 3).T.copy()
    total = red + green + blue
    thirds = max(int(np.abs(3 * channel - total).sum()) for channel in (red, green, blue))
    return round(thirds / (3 * len(total) * 255), 4)


def turned_hashes(thumbnails: np.ndarray) -> np.ndarray:
    """Return the hashes of pictures in the six orientations that are not among ``ImageStats.hashes``.

    They are computed from thumbnails, so that nothing more has to be stored. The hash of a thumbnail rarely differs
    from that of its picture by more than two bits.

    Args:
        thumbnails: (n, 16, 16) uint8, grey.

    Returns:
        uint64 (n, 6): upside down, turned by 180 degrees, and the four with swapped axes.
    """
    whole = _frequencies(thumbnails.shape[1])[0]
    low = whole @ thumbnails.astype(np.float64) @ whole.T
    turned = [
        spectrum * down * across
        for spectrum in (low, low.transpose(0, 2, 1))
        for down in (1, _MIRROR[:, None])
        for across in (1, _MIRROR)
    ]
    return np.stack([_signs(spectrum.reshape(-1, _FREQUENCIES**2)) for spectrum in turned[2:]], axis=1)


def _signs(frequencies: np.ndarray) -> np.ndarray:
    """Return the hashes of frequencies, (n, 64) to uint64 (n,): which of the 64 are above their median."""
    middle = np.sort(frequencies, axis=1)[:, _FREQUENCIES**2 // 2 - 1 :][:, :2]
    median = middle.mean(axis=1, keepdims=True)  # np.median takes longer
    return np.packbits(frequencies > median, axis=1).view(">u8")[:, 0].astype(np.uint64)


@lru_cache(maxsize=256)  # a data set has few sizes, 127 at most
def _frequencies(size: int) -> np.ndarray:
    """Return the cosine transform of a side, (2, 8, size), over the whole side and over its ``INNER`` share.

    It integrates the lowest cosines over each pixel, so that a picture has the same hash at any size.
    """
    edges = np.arange(size + 1) / size
    parts = []
    for share in (1.0, INNER):
        within = np.clip((edges - (1 - share) / 2) / share, 0.0, 1.0)
        angles = np.pi * np.arange(1, _FREQUENCIES)[:, None]
        parts.append(np.concatenate([np.diff(within)[None], np.diff(np.sin(angles * within) / angles)]))
    return np.stack(parts)


class DecodedFile(NamedTuple):
    """Result of decoding a file.

    Attributes:
        mode: of the stored pixels, see ``decode.mode_of``; "" if unknown.
        size: width and height of the upright picture in pixels, 0 if unknown.
        reason: why the file is unusable, "" if it is usable.
        kind: see ``decode.kind``; ("", False) if unknown.
        stats: description of the picture, of a truncated JPEG that of the part that exists; None if the file is
            unusable, or if it has more than 8 bits and the number of bits in use is not known yet.
        peak: largest value of a picture of more than 8 bits, None for others.
    """

    mode: str
    size: tuple[int, int]
    reason: str
    kind: tuple[str, bool]
    stats: ImageStats | None
    peak: int | None = None


def decode_and_describe(file: BufferedReader, reading: Reading = USUAL) -> tuple[DecodedFile, Image.Image | None]:
    """Decode an open file; return the result and its upright 8-bit RGB picture if it has one, whole or truncated."""
    mode, size, reason = "", (0, 0), ""
    try:
        try:
            image = load(file, reading=reading)
        except Truncated as error:
            image, reason = error.image, error.reason
        mode, size = mode_of(image), upright_size(image)
        peak = peak_of(image)
        if peak is not None and reading.bits is None:
            return DecodedFile(mode, size, reason, kind(image), None, peak), None
        picture = to_rgb(image, reading)
        refuse_white(image, picture)
        return DecodedFile(mode, size, reason, kind(image), image_stats(picture), peak), picture
    except Undecodable as error:
        return DecodedFile(mode, size if size != (0, 0) else error.size, error.reason, ("", False), None), None
