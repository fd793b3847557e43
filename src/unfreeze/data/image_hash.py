"""Decode a file and describe its picture: hashes that find its copies, darkness, sharpness, or why it is unusable."""

import base64
import math
from dataclasses import dataclass
from functools import lru_cache
from io import BufferedReader
from typing import Any, NamedTuple

import numpy as np
import xxhash
from PIL import Image

from unfreeze.data.decode import Truncated, kind, load, mind_shape, mode_of, peak_of, to_rgb, upright_size
from unfreeze.data.formats.reading import USUAL, Reading
from unfreeze.data.unusable import Undecodable

THUMBNAIL = 16
"""Pixels a side of the thumbnail."""

LIKENESS_RULES = 8
"""Counts up whenever a picture comes to be described by other numbers."""

_KEPT = 8  # lowest frequencies a side of which the signs are kept

INNER = 0.95
"""Share of each side that the second pair of hashes sees: of a cropped copy and its original one of them agrees."""

_MIRROR = np.where(np.arange(_KEPT) % 2, -1, 1)  # odd frequencies of a mirror image have the other sign
_SHARP, _SMALL = 128, 64  # least pixels of the longer side where sharpness is measured, and where the rest is
_SAMPLES = 4  # pixels a side that are sampled for one, where it is seen how colourful a picture is
_AT_ONCE = 2**18  # pixels that are copied at once to be hashed


@dataclass(frozen=True, slots=True)
class ImageStats:
    """A description of an upright 8-bit RGB picture.

    Attributes:
        pixels: xxh3 over its size and its pixels, 128 bits in hex: the same for a copy that was stored without loss.
        hashes: four 64-bit perceptual hashes: of the picture, of its mirror image, and of both without the rim (see
            ``INNER``). After the DCT-based pHash of Zauner 2010, "Implementation and benchmarking of perceptual
            image hash functions": the signs, against their median, of the 8 x 8 lowest frequencies of the grey values.
        thumbnail: 16 x 16 pixels, grey, row by row.
        brightness: mean grey value, 0 to 1.
        contrast: standard deviation of the grey values, 0 to 0.5.
        sharpness: standard deviation of the Laplacian, in grey values of 255, of strips.
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


def as_values(found: ImageStats) -> list[Any]:
    """Return a description as JSON data."""
    return [
        found.pixels, *(f"{one:016x}" for one in found.hashes), base64.b64encode(found.thumbnail).decode(),
        found.brightness, found.contrast, found.sharpness, found.colour,
    ]  # fmt: skip


def from_values(values: list[Any]) -> ImageStats:
    """Read what ``as_values`` gave."""
    pixels, one, two, three, four, thumbnail, *numbers = values
    hashes = (int(one, 16), int(two, 16), int(three, 16), int(four, 16))
    return ImageStats(pixels, hashes, base64.b64decode(thumbnail), *numbers)


def likeness(picture: Image.Image) -> ImageStats:
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
    """Hash the picture's size and its pixels, some rows after others, so that few are copied at once."""
    width, height = picture.size
    hashed, rows = xxhash.xxh3_128(f"{width} {height} ".encode()), max(1, _AT_ONCE // width)
    for top in range(0, height, rows):
        part = picture if rows >= height else picture.crop((0, top, width, min(height, top + rows)))
        hashed.update(part.tobytes())
    return hashed.hexdigest()


def _sharpness(grey: Image.Image, factor: int) -> float:
    """Return the standard deviation of the Laplacian of a picture so many times smaller; 0 where there is none.

    Of a larger picture two strips across it count, each of three rows or more, together a quarter of it.
    """
    wide, high = grey.size
    rows = min(high, max(high // 8, 3 * factor))
    tops = (min(high // 4, high - rows), max(0, high - high // 4 - rows))
    boxes = [(0, top, wide, top + rows) for top in tops] if factor > 1 else [(0, 0, wide, high)]
    strips = np.stack([np.asarray(grey.reduce(factor, box), np.int16) for box in boxes])
    if min(strips.shape[1:]) < 3:
        return 0.0
    beside = strips[:, 2:, 1:-1] + strips[:, :-2, 1:-1] + strips[:, 1:-1, 2:] + strips[:, 1:-1, :-2]
    return round(_spread(beside - 4 * strips[:, 1:-1, 1:-1])[1], 2)


def _spread(values: np.ndarray) -> tuple[float, float]:
    """Return the mean and the standard deviation of whole numbers, whose sums in float64 are exact."""
    flat = values.ravel().astype(np.float64)
    mean = float(flat.sum()) / len(flat)
    return mean, math.sqrt(max(0.0, float(flat @ flat) / len(flat) - mean**2))


def _colour(picture: Image.Image) -> float:
    """Return the mean difference of the channel that differs most from the mean of all three, 0 to 1."""
    # To read all pixels in three colours would take thrice as long.
    samples = picture.resize((_SAMPLES * THUMBNAIL,) * 2, Image.Resampling.NEAREST).reduce(_SAMPLES)
    red, green, blue = np.asarray(samples, np.int16).reshape(-1, 3).T.copy()
    total = red + green + blue
    thirds = max(int(np.abs(3 * channel - total).sum()) for channel in (red, green, blue))
    return round(thirds / (3 * len(total) * 255), 4)


def turned_hashes(thumbnails: np.ndarray) -> np.ndarray:
    """Return the hashes of pictures in the six orientations that ``ImageStats.hashes`` does not have.

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
    return np.stack([_signs(one.reshape(-1, _KEPT * _KEPT)) for one in turned[2:]], axis=1)


def _signs(frequencies: np.ndarray) -> np.ndarray:
    """Return the hashes of frequencies, (n, 64) to uint64 (n,): which of the 64 lie above their median."""
    middle = np.sort(frequencies, axis=1)[:, _KEPT * _KEPT // 2 - 1 :][:, :2].mean(
        axis=1, keepdims=True
    )  # as np.median
    return np.packbits(frequencies > middle, axis=1).view(">u8")[:, 0].astype(np.uint64)


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


class DecodedFile(NamedTuple):
    """What decoding a file told.

    Attributes:
        mode: of the stored pixels, see ``decode.mode_of``, "" where unknown.
        size: upright width and height in pixels, 0 where unknown.
        reason: why the file is unfit, "" where it is not.
        kind: see ``decode.kind``; ("", False) where unknown.
        likeness: None where the file is unfit, but for a truncated JPEG, of which it is of what there is; and of a
            picture of more than 8 bits as long as nobody says how many of them count.
        peak: the largest value of a picture of more than 8 bits; None of others.
    """

    mode: str
    size: tuple[int, int]
    reason: str
    kind: tuple[str, bool]
    likeness: ImageStats | None
    peak: int | None = None


def decoded(file: BufferedReader, reading: Reading = USUAL) -> tuple[DecodedFile, Image.Image | None]:
    """Return what an open file tells, and its upright 8-bit RGB picture if it has one, whole or truncated."""
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
        mind_shape(image, picture)
        return DecodedFile(mode, size, reason, kind(image), likeness(picture), peak), picture
    except Undecodable as error:
        return DecodedFile(mode, size if size != (0, 0) else error.size, error.reason, ("", False), None), None
