"""What a picture looks like, in a few numbers: enough to find its copies, and to see that it is dark or blurred."""

import base64
from dataclasses import dataclass
from typing import Any

import numpy as np
import xxhash
from PIL import Image
from scipy.fft import dct

LIKENESS_RULES = 1
"""Counts up whenever a picture comes to be described by other numbers."""

INNER = 0.95
"""Share of each side that the second pair of hashes sees: of a cropped copy and its original one of them agrees."""

THUMBNAIL = 16  # pixels a side
_HASHED, _KEPT = 32, 8  # pixels a side that are transformed, and lowest frequencies a side of which the signs are kept
_SHARP, _SMALL = 128, 64  # least pixels of the longer side where sharpness is measured, and where the rest is
_LOW = dct(np.eye(_HASHED), axis=0, norm="ortho")[:_KEPT]
_MIRROR = np.where(np.arange(_KEPT) % 2, -1, 1)  # odd frequencies of a mirror image have the other sign


@dataclass(frozen=True)
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
    size = f"{picture.width}x{picture.height}\n".encode()
    pixels = xxhash.xxh3_128(picture.tobytes(), 0)
    pixels.update(size)
    # Each picture is made of the one before: reading all pixels again for each would cost more than decoding them did.
    sharp = _reduced(picture, _SHARP)
    small = _reduced(sharp, _SMALL)
    greys = np.asarray(sharp.convert("L"), np.int16)
    grey, (width, height) = small.convert("L"), small.size
    rim_x, rim_y = width * (1 - INNER) / 2, height * (1 - INNER) / 2
    whole = grey.resize((_HASHED, _HASHED), Image.Resampling.BILINEAR)
    inner = grey.resize(
        (_HASHED, _HASHED), Image.Resampling.BILINEAR, box=(rim_x, rim_y, width - rim_x, height - rim_y)
    )
    thumbnail = small.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX).tobytes()
    return Likeness(
        pixels.hexdigest(),
        (*_hashes(whole), *_hashes(inner)),
        thumbnail,
        round(float(greys.mean()) / 255, 4),
        round(float(greys.std()) / 255, 4),
        round(_sharpness(greys), 2),
        round(_colour(thumbnail), 4),
    )


def _reduced(picture: Image.Image, side: int) -> Image.Image:
    """Return a picture with its longer side a whole number of times smaller, down to ``side`` pixels at least."""
    factor = max(1, max(picture.size) // side)
    return picture if factor == 1 else picture.reduce(factor)


def _hashes(grey: Image.Image) -> tuple[int, int]:
    """Return the hash of a 32 x 32 grey picture and that of its mirror image."""
    low = _LOW @ np.asarray(grey, np.float64) @ _LOW.T
    return _signs(low), _signs(low * _MIRROR)


def _signs(frequencies: np.ndarray) -> int:
    return int.from_bytes(np.packbits(frequencies > np.median(frequencies)).tobytes(), "big")


def _sharpness(greys: np.ndarray) -> float:
    """Return the standard deviation of the Laplacian, in grey values of 255; 0 where there is none."""
    if min(greys.shape) < 3:
        return 0.0
    middle = greys[1:-1, 1:-1]
    return float((greys[:-2, 1:-1] + greys[2:, 1:-1] + greys[1:-1, :-2] + greys[1:-1, 2:] - 4 * middle).std())


def _colour(thumbnail: bytes) -> float:
    """Return the mean difference of the channel that differs most from the mean of all three, 0 to 1."""
    values = np.frombuffer(thumbnail, np.uint8).reshape(-1, 3).astype(np.float32)
    return float(np.abs(values - values.mean(axis=1, keepdims=True)).mean(axis=0).max()) / 255
