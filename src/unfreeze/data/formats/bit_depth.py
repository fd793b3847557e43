"""Pictures of more than 8 bits a value, and of other bands than grey, RGB or with alpha: arrays, made 8-bit pictures.

Imported where such a picture is met, since it needs numpy, which processes that decode do without otherwise.
"""

import io
from typing import IO, Any

import numpy as np
from PIL import Image, ImageOps

from unfreeze.data.formats.reading import FULL, INVERTED, KEY, MODE, PEAK, SEVERAL, Reading
from unfreeze.data.unusable import DAMAGED, NO_RANGE, NO_TIFFFILE, TIFF_PACKED, Undecodable, no_such_bands, too_large

_MOST = 2**FULL - 1


def eight_bits(values: np.ndarray, bits: int) -> np.ndarray:
    """Scale values so that 2**bits - 1 is white, the same for all pictures; larger ones are white, too.

    Args:
        values: (...) of whole numbers or floating-point, 0 or more.
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
    """Return the largest value of a loaded picture of mode I;16, I or F.

    Raises:
        Undecodable: nothing says which of its values is white.
    """
    return peak_of(np.asarray(image))


def grey(image: Image.Image, bits: int) -> Image.Image:
    """Return a loaded picture of mode I;16, I or F in 8 bits, with alpha where one value is transparent.

    Raises:
        Undecodable: nothing says which of its values is white.
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
    """Return 16-bit colour, uint16 (height, width, bands), of which the high and the low bytes are given."""
    return np.asarray(high).astype(np.uint16) << 8 | np.asarray(low)


def colour(high: Image.Image, low: Image.Image, bits: int) -> Image.Image:
    """Return the 8-bit picture of 16-bit colour, of which the high and the low bytes are given; alpha is the high."""
    values = joined(high, low)
    scaled = eight_bits(values, bits)
    if high.mode != "RGB":
        scaled[..., 3] = np.asarray(high)[..., 3]
    made = Image.fromarray(scaled)
    key = high.info.get(KEY)
    if key is not None:
        made.putalpha(Image.fromarray(np.where((values == key).all(axis=2), 0, 255).astype(np.uint8)))
    return made


def pick(values: np.ndarray, reading: Reading, page: str) -> Image.Image:
    """Return the 8-bit picture of some bands, with what is to be told of it in its ``info``.

    Args:
        values: (height, width, bands).
        reading: names the bands.
        page: as the stored mode is to be told without its depth, such as "13 bands".
    """
    if max(reading.bands) >= values.shape[2]:
        raise Undecodable(no_such_bands(values.shape[2], reading.bands))
    values = values[..., list(reading.bands)]
    told: dict[str, Any] = {MODE: page}
    if values.dtype != np.uint8:
        told = {MODE: f"{page};16", PEAK: peak_of(values)}
        values = eight_bits(values, reading.bits or FULL)
    picture = Image.fromarray(np.ascontiguousarray(values[..., 0] if values.shape[2] == 1 else values))
    picture.info.update(told)
    return picture


def read_bands(file: IO[bytes], reading: Reading) -> Image.Image:
    """Return the bands of a TIFF file that a reading names, of files that Pillow does not open, by tifffile.

    Raises:
        Undecodable: tifffile is not installed, there are no such bands, or the file is damaged.
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
    except Exception as error:  # whatever a damaged file makes it raise
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
