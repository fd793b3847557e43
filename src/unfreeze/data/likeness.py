"""What a picture looks like, in a few numbers: enough to find its copies, and to see that it is dark or blurred."""

import base64
from dataclasses import dataclass
from typing import Any

import numpy as np
import xxhash
from PIL import Image

LIKENESS_RULES = 2
"""Counts up whenever a picture comes to be described by other numbers."""

INNER = 0.95
"""Share of each side that the second pair of hashes sees: of a cropped copy and its original one of them agrees."""

THUMBNAIL = 16  # pixels a side
_HASHED, _KEPT = 32, 8  # pixels a side that are transformed, and lowest frequencies a side of which the signs are kept
_SHARP, _SMALL = 128, 64  # least pixels of the longer side where sharpness is measured, and where the rest is
# Rows of the orthonormal DCT-II. Written out: scipy takes longer to import than some hundred pictures to describe.
_LOW = np.cos(np.pi / _HASHED * np.outer(np.arange(_KEPT), np.arange(_HASHED) + 0.5)) * np.sqrt(2 / _HASHED)
_LOW[0] /= np.sqrt(2)
_MIRROR = np.where(np.arange(_KEPT) % 2, -1, 1)  # odd frequencies of a mirror image have the other sign
_GREYS = np.arange(256)


@dataclass(frozen=True, slots=True)
class Likeness:
    """A description of an upright 8-bit RGB picture.

    Attributes:
        pixels: xxh3 over its pixels and its size, 128 bits in hex: the same for a copy that was stored without loss.
        hashes: four 64-bit perceptual hashes: of the picture, of its mirror image, and of both without the rim (see
            ``INNER``). After the DCT-based pHash of Zauner 2010, "Implementation and benchmarking of perceptual image
            hash functions": the signs, against their median, of the 8 x 8 lowest frequencies of 32 x 32 grey pixels.
        thumbnail: 16 x 16 pixels, RGB, row by row.
        brightness: mean grey value, 0 to 1.
        contrast: standard deviation of the grey values, 0 to 0.5.
        sharpness: standard deviation of the Laplacian, in grey values of 255, at 128 to 255 pixels of the longer side
            (fewer where the picture has no more).
        colour: largest mean difference between two channels, 0 to 1; 0 is grey.
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
    # Each picture is made of the one before: reading all pixels again for each would cost more than decoding them did.
    sharp = _reduced(picture, _SHARP)
    small = _reduced(sharp, _SMALL)
    greys = sharp.convert("L")
    grey, (width, height) = small.convert("L"), small.size
    rim_x, rim_y = width * (1 - INNER) / 2, height * (1 - INNER) / 2
    whole = grey.resize((_HASHED, _HASHED), Image.Resampling.BILINEAR)
    inner = grey.resize(
        (_HASHED, _HASHED), Image.Resampling.BILINEAR, box=(rim_x, rim_y, width - rim_x, height - rim_y)
    )
    thumbnail = small.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX).tobytes()
    brightness, contrast = _spread(greys)
    return Likeness(
        _pixels(picture),
        _hashes(whole, inner),
        thumbnail,
        round(brightness / 255, 4),
        round(contrast / 255, 4),
        round(_sharpness(np.asarray(greys)), 2),
        round(_colour(thumbnail), 4),
    )


def _pixels(picture: Image.Image) -> str:
    """Hash the pixels as Pillow holds them, four bytes each: to pack them into three takes longer than all the rest."""
    held = np.frombuffer(picture.tobytes("raw", "RGBX"), "<u4") & 0xFFFFFF  # the fourth byte may be anything
    hashed = xxhash.xxh3_128(held.data)
    hashed.update(f"{picture.width}x{picture.height}\n".encode())
    return hashed.hexdigest()


def _reduced(picture: Image.Image, side: int) -> Image.Image:
    """Return a picture with its longer side a whole number of times smaller, down to ``side`` pixels at least."""
    factor = max(1, max(picture.size) // side)
    return picture if factor == 1 else picture.reduce(factor)


def _hashes(whole: Image.Image, inner: Image.Image) -> tuple[int, int, int, int]:
    """Return the hash of each of two 32 x 32 grey pictures, followed by that of its mirror image."""
    low = _LOW @ np.stack([np.asarray(whole), np.asarray(inner)]).astype(np.float64) @ _LOW.T
    four = np.stack([low, low * _MIRROR], axis=1).reshape(4, _KEPT * _KEPT)
    ranked = np.sort(four, axis=1)
    medians = ranked[:, _KEPT * _KEPT // 2 - 1 : _KEPT * _KEPT // 2 + 1].mean(axis=1, keepdims=True)
    first, second, third, fourth = np.packbits(four > medians, axis=1).view(">u8").ravel().tolist()
    return first, second, third, fourth


def _spread(grey: Image.Image) -> tuple[float, float]:
    """Return the mean and the standard deviation of a grey picture."""
    counts = np.array(grey.histogram())
    number = grey.width * grey.height
    mean = float(counts @ _GREYS) / number
    return mean, max(0.0, float(counts @ _GREYS**2) / number - mean**2) ** 0.5


def _sharpness(greys: np.ndarray) -> float:
    """Return the standard deviation of the Laplacian, in grey values of 255; 0 where there is none."""
    if min(greys.shape) < 3:
        return 0.0
    wide = greys.astype(np.int16)
    laplacian = wide[1:-1, 1:-1] * np.int16(-4)
    for one in (wide[:-2, 1:-1], wide[2:, 1:-1], wide[1:-1, :-2], wide[1:-1, 2:]):
        laplacian += one
    values = laplacian.ravel().astype(np.float64)  # whole numbers: their sums are exact
    return max(0.0, float(values @ values) / values.size - (float(values.sum()) / values.size) ** 2) ** 0.5


def _colour(thumbnail: bytes) -> float:
    """Return the mean difference of the channel that differs most from the mean of all three, 0 to 1."""
    values = np.frombuffer(thumbnail, np.uint8).reshape(-1, 3).astype(np.int32)
    thirds = np.abs(3 * values - values.sum(axis=1, keepdims=True)).sum(axis=0)
    return float(thirds.max()) / (3 * len(values) * 255)
