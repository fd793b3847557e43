"""Convert pictures with more than 8 bits per value, or with selected bands, to 8-bit pictures.

It needs numpy and is imported only for such pictures, since processes that only decode otherwise do without.
"""

import io
from typing import IO, Any

import numpy as np
from PIL import Image, ImageOps

from unfreeze.data.formats.reading import FULL, INVERTED, KEY, MODE, PEAK, SEVERAL, Reading
from unfreeze.data.unusable import DAMAGED, NO_RANGE, NO_TIFFFILE, TIFF_PACKED, Undecodable, no_such_bands, too_large

_MOST = 2**FULL - 1


def eight_bits(values: np.ndarray, bits: int) -> np.ndarray:
    """Scale values so that 2**bits - 1 and larger values are white, the same in all pictures.

    Args:
        values: (...) integers or floating-point numbers, 0 or more.
        bits: 1 to 16.

    Returns:
        uint8 (...).
    """
    if bits >= 8:
        return np.minimum(values.astype(np.uint32) >> (bits - 8), 255).astype(np.uint8)
    return np.minimum(values * (255 / (2**bits - 1)) + 0.5, 255).astype(np.uint8)


def peak_of(values: np.ndarray) -> int:
    """Return the largest value, rounded up.

    Raises:
        Undecodable: a value is below 0, above 65,535 or not a number.
    """
    least, most = values.min(), values.max()
    if not (least >= 0 and most <= _MOST):  # also where one of them is not a number
        raise Undecodable(NO_RANGE)
    return int(np.ceil(most))


def stored_peak(image: Image.Image) -> int:
    """Return the largest value of a loaded picture of mode I;16, I or F, see ``peak_of``."""
    return peak_of(np.asarray(image))


def grey(image: Image.Image, bits: int) -> Image.Image:
    """Return a loaded picture of mode I;16, I or F in 8 bits, with alpha if one value is transparent.

    Raises:
        Undecodable: see ``peak_of``.
    """
    values = np.asarray(image)
    peak_of(values)
    scaled = Image.fromarray(eight_bits(values, bits))
    if image.info.get(INVERTED):
        scaled = ImageOps.invert(scaled)
    key = image.info.get("transparency")
    if key is not None:
        scaled.putalpha(Image.fromarray(np.where(values == key, 0, 255).astype(np.uint8)))
    return scaled


def joined(high: Image.Image, low: Image.Image) -> np.ndarray:
    """Return 16-bit colour, uint16 (height, width, bands), from pictures of its high and low bytes."""
    return np.asarray(high).astype(np.uint16) << 8 | np.asarray(low)


def colour(high: Image.Image, low: Image.Image, bits: int) -> Image.Image:
    """Return the 8-bit picture of 16-bit colour from its high and low bytes; of alpha the high byte is kept."""
    values = joined(high, low)
    scaled = eight_bits(values, bits)
    if high.mode != "RGB":
        scaled[..., 3] = np.asarray(high)[..., 3]
    picture = Image.fromarray(scaled)
    key = high.info.get(KEY)
    if key is not None:
        picture.putalpha(Image.fromarray(np.where((values == key).all(axis=2), 0, 255).astype(np.uint8)))
    return picture


def pick(values: np.ndarray, reading: Reading, page: str) -> Image.Image:
    """Return the 8-bit picture of selected bands, with its stored mode and largest value in ``info``.

    Args:
        values: (height, width, bands).
        reading: names the bands.
        page: the stored mode without bit depth, such as "13 bands".
    """
    if max(reading.bands) >= values.shape[2]:
        raise Undecodable(no_such_bands(values.shape[2], reading.bands))
    values = values[..., list(reading.bands)]
    info: dict[str, Any] = {MODE: page}
    if values.dtype != np.uint8:
        info = {MODE: f"{page};16", PEAK: peak_of(values)}
        values = eight_bits(values, reading.bits or FULL)
    picture = Image.fromarray(np.ascontiguousarray(values[..., 0] if values.shape[2] == 1 else values))
    picture.info.update(info)
    return picture


def read_bands(file: IO[bytes], reading: Reading) -> Image.Image:
    """Return the selected bands of a TIFF file that Pillow cannot open, read with tifffile.

    Raises:
        Undecodable: tifffile is not installed, the file lacks a band, or it is damaged.
    """
    try:
        import tifffile
    except ImportError as error:
        raise Undecodable(NO_TIFFFILE) from error
    file.seek(0)
    try:
        with tifffile.TiffFile(io.BytesIO(file.read())) as tiff:
            page = tiff.pages.first
            pixels = page.imagewidth * page.imagelength
            if pixels > reading.max_pixels:
                raise Undecodable(too_large(pixels, reading.max_pixels))
            values, axes, several = page.asarray(), page.axes, len(tiff.pages) > 1
    except Undecodable:
        raise
    except Exception as error:  # a damaged file may raise anything
        raise Undecodable(TIFF_PACKED if "imagecodecs" in str(error) else DAMAGED) from error
    if axes == "SYX":
        values = np.moveaxis(values, 0, 2)
    elif axes != "YXS":
        raise Undecodable(DAMAGED)
    if values.dtype == np.bool_:
        values = values.astype(np.uint8) * 255
    picture = pick(values, reading, f"{values.shape[2]} bands")
    picture.format = "TIFF"
    picture.info[SEVERAL] = several
    return picture
