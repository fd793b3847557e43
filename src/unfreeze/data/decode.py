"""Decode a whole image file into upright 8-bit RGB, or refuse it with a reason.

The format is recognised by content, never by name. Of an animation the first frame is used. The EXIF orientation is
applied; alpha and transparent palette entries are composited on white; values of more than 8 bits are scaled by the
bits that the data set uses (v >> 8 for all 16), not clipped; grey, palette, 1-bit and CMYK are converted to RGB; colour
profiles are not applied. ``data.image_file`` opens files, ``data.unusable`` lists the reasons.
"""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, TypeVar

from PIL import (
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    _imaging,
)

from unfreeze.data.formats import dicom, tiff
from unfreeze.data.formats.png import without_extras
from unfreeze.data.formats.reading import FULL, KEY, MODE, PEAK, SEVERAL, USUAL, Reading, is_picked
from unfreeze.data.image_file import DECODER_ERRORS, identified, open_regular, refusals
from unfreeze.data.unusable import (
    ALPHA,
    ALPHA_ALONE,
    DAMAGED,
    INVISIBLE,
    NO_LOW_BYTE,
    PLANES,
    TRUNCATED,
    Undecodable,
    too_large,
)

DECODE_RULES = 1
"""Version of the decoding rules; increase it whenever a file is decoded into different pixels."""

_END_OF_IMAGE = b"\xff\xd9"  # JPEG's marker
_KEY_SCALES = {"L;2": 85, "L;4": 17}  # from 2 and 4 bits to 8

_ORDER_FOR_LOW_BYTES = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
"""Byte order to declare, by that of the file, so that Pillow, which keeps one byte in two, keeps the low one."""

_NO_LOW = ("LA;", "CMYK;")
_ORIENTED_BY = ("exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp")  # may contain the orientation

_PARTLY, _MANY, _FAINT = 0.5, 16, 16
"""A last band is not transparency if more than ``_PARTLY`` of it is neither 0 nor 255, with ``_MANY`` values or more; a
picture whose alpha is below ``_FAINT`` everywhere is invisible."""

# ImageOps.exif_transpose would also rewrite the EXIF block, which fails if the block is damaged elsewhere.
_ORIENTATION = 0x0112

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_T = TypeVar("_T")


class Truncated(Undecodable):
    """A JPEG ends before its picture does; `image` is the part that exists, the rest grey or coarse."""

    def __init__(self, image: Image.Image) -> None:
        self.image = image
        super().__init__(TRUNCATED)


def decode(path: Path, at_least: int | None = None, reading: Reading = USUAL) -> Image.Image:
    """Return the upright 8-bit RGB picture in a file; of a truncated JPEG, the part that exists.

    Args:
        path: the file.
        at_least: pixels of the shorter side that suffice; a larger JPEG is decoded at a reduced size, in less time.
        reading: how files are read.

    Raises:
        Undecodable: the file cannot be read, is not an image of one of the `FORMATS`, or cannot be decoded.
    """
    with open_regular(path) as file:
        return to_rgb(load_partly(file, at_least, reading), reading)


def load(file: IO[bytes], at_least: int | None = None, reading: Reading = USUAL) -> Image.Image:
    """Return the first frame with its pixels loaded, in the stored mode and orientation.

    16-bit colour and selected bands are converted to 8 bits.

    Raises:
        Truncated: a JPEG ends before its picture does.
        Undecodable: there is no picture, or it cannot be decoded whole.
    """
    if dicom.is_dicom(file):
        with refusals(file):
            return dicom.load(file, reading)
    return _without_extras(file, lambda content: _load(content, at_least, reading))


def _without_extras(file: IO[bytes], attempt: Callable[[IO[bytes]], _T]) -> _T:
    """Read a file; if it is damaged, read it again without texts and colour profiles, on which pixels do not depend."""
    try:
        return attempt(file)
    except Undecodable as error:
        if error.reason != DAMAGED or (lighter := without_extras(file)) is None:
            raise
        try:
            return attempt(lighter)
        except Undecodable:
            raise error from None


def _load(file: IO[bytes], at_least: int | None, reading: Reading) -> Image.Image:
    with refusals(file):
        image = _open(file, reading)
        if not isinstance(image, ImageFile.ImageFile):  # selected bands, already loaded
            return image
        if at_least is not None:
            image.draft(None, (at_least, at_least))  # at least this on either side
        if not isinstance(image, JpegImagePlugin.JpegImageFile):
            return _load_plain(image, file, reading)
    return _load_jpeg(image, file)


def _load_plain(image: ImageFile.ImageFile, file: IO[bytes], reading: Reading) -> Image.Image:
    """Load a picture that is not a JPEG; scale 16-bit colour to 8 bits and select bands, if requested."""
    raw, mode = _raw(image), mode_of(image)
    picked, deep = is_picked(mode), mode != image.mode and mode.endswith(";16")
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        image.im = _imaging.new(image.mode, image._tile_size)  # else Pillow's own limit on pixels applies
    image.load()
    if not picked:
        _check_alpha(image, 2 if raw.startswith("LA") else len(image.getbands()))
    if raw == "I;12":
        image.info[PEAK] = 2**12 - 1
    if deep:
        colours = [image.getchannel(band).getextrema()[1] for band in image.getbands() if band.upper() != "A"]
        image.info[PEAK] = max(colours) << 8 | 0xFF  # type: ignore[operator]
    scaled = deep and reading.bits not in (None, FULL)
    return _converted(image, raw, file, reading) if picked or scaled else image


def _converted(image: ImageFile.ImageFile, raw: str, file: IO[bytes], reading: Reading) -> Image.Image:
    """Return a loaded picture of 16-bit colour, or its selected bands, in 8 bits."""
    import numpy as np

    from unfreeze.data.formats import bit_depth

    bands, _, sixteen = mode_of(image).partition(";")
    several = kind(image)[1]
    if sixteen and raw.startswith(_NO_LOW):
        raise Undecodable(NO_LOW_BYTE)
    if not is_picked(bands):
        converted = bit_depth.colour(image, _low_bytes(file), reading.bits or FULL)
        converted.info.update({MODE: mode_of(image), PEAK: image.info[PEAK]})
    else:
        values = bit_depth.joined(image, _low_bytes(file)) if sixteen else np.asarray(image)
        converted = bit_depth.pick(values, reading, bands)
    converted.format = image.format
    converted.info.update({SEVERAL: several, **{key: image.info[key] for key in _ORIENTED_BY if key in image.info}})
    return converted


def _low_bytes(file: IO[bytes]) -> Image.Image:
    """Return the low bytes of 16-bit colour as a picture."""
    low = identified(file)
    raw = _raw(low)
    other = raw[:-1] + _ORDER_FOR_LOW_BYTES[raw[-1]]
    low.tile = [
        tile._replace(args=(other, *tile.args[1:]) if isinstance(tile.args, tuple) else other) for tile in low.tile
    ]
    if isinstance(low, TiffImagePlugin.TiffImageFile):
        low.im = _imaging.new(low.mode, low._tile_size)
    low.info.pop("transparency", None)
    low.load()
    return low


def _check_alpha(image: Image.Image, bands: int) -> None:
    """Refuse a picture whose last band is not transparency, or is transparent everywhere."""
    if image.mode not in ("RGBA", "LA", "RGBa", "La"):
        return
    counts = image.getchannel(len(image.getbands()) - 1).histogram()
    partly = sum(counts[1:255])
    if partly > _PARTLY * sum(counts) and sum(count > 0 for count in counts) >= _MANY:
        raise Undecodable(ALPHA[bands], image.size)
    if not any(counts[_FAINT:]):
        raise Undecodable(INVISIBLE[bands], image.size)


def refuse_white(image: Image.Image, picture: Image.Image) -> None:
    """Refuse a picture that is all white after compositing, although its alpha channel shows a shape.

    Args:
        image: as loaded.
        picture: the same in RGB.
    """
    if image.mode not in ("RGBA", "LA") or picture.getextrema() != ((255, 255),) * 3:
        return
    least, most = image.getchannel("A").getextrema()
    if least < most:  # type: ignore[operator]
        raise Undecodable(ALPHA_ALONE[len(image.getbands())], picture.size)


def peak_of(image: Image.Image) -> int | None:
    """Return the largest value of a loaded picture of more than 8 bits, None for others.

    Raises:
        Undecodable: a value is below 0 or above 65,535, so that white is not defined.
    """
    if PEAK in image.info or not _is_grey_of_more(image):
        return image.info.get(PEAK)
    from unfreeze.data.formats.bit_depth import stored_peak

    return stored_peak(image)


def _is_grey_of_more(image: Image.Image) -> bool:
    return image.mode in ("I", "F") or image.mode.startswith("I;16")


def mode_of(image: Image.Image) -> str:
    """Return the stored pixel mode: Pillow's name, followed by ";16" for 16-bit colour; or, for example, "13 bands"."""
    return str(image.info.get(MODE, image.mode))


def load_partly(file: IO[bytes], at_least: int | None = None, reading: Reading = USUAL) -> Image.Image:
    """Load like ``load``, but return the existing part of a truncated JPEG; the caller decides whether to use it."""
    try:
        return load(file, at_least, reading)
    except Truncated as error:
        return error.image


def _load_jpeg(image: JpegImagePlugin.JpegImageFile, file: IO[bytes]) -> Image.Image:
    image.fp = ended = _Ended(file)  # type: ignore[assignment]
    try:
        with refusals(file):
            image.load()
    except Undecodable as error:
        raise Undecodable(TRUNCATED if ended.early else error.reason) from error
    if ended.early:
        raise Truncated(image)
    return image


class _Ended:
    """A JPEG file that gives the decoder an end-of-image marker, once, if it ends early.

    libjpeg then leaves the missing part grey, or coarse in a progressive file. ``ImageFile.LOAD_TRUNCATED_IMAGES`` does
    the same for the whole process, without telling which files were truncated.

    Attributes:
        early: whether the file ended before the picture did.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.early = file, False
        self.seek = file.seek

    def read(self, size: int) -> bytes:
        content = self._file.read(size)
        if content or self.early:
            return content
        self.early = True
        return _END_OF_IMAGE


def header(file: IO[bytes], reading: Reading = USUAL) -> tuple[str, tuple[int, int], tuple[str, bool]]:
    """Return the mode, the upright (width, height) in pixels and the ``kind``, without decoding pixels.

    They equal those of the loaded image, except for an orientation that a PNG stores after its pixels. (Bands that
    Pillow cannot open are decoded nevertheless.)
    """
    if dicom.is_dicom(file):
        with refusals(file):
            mode, size, several = dicom.header(file, reading)
            return mode, size, (dicom.FORMAT, several)

    def read(content: IO[bytes]) -> tuple[str, tuple[int, int], tuple[str, bool]]:
        with refusals(content):
            image = _open(content, reading)
            # Pillow turns TIFF files upright itself.
            size = image.size if isinstance(image, TiffImagePlugin.TiffImageFile) else upright_size(image)
            return mode_of(image), size, kind(image)

    return _without_extras(file, read)


def kind(image: Image.Image) -> tuple[str, bool]:
    """Return the format, one of ``FORMATS`` or DICOM, and whether frames or pages follow the first.

    For this a GIF is read further, which loses its pixels if they were loaded.
    """
    try:
        several = bool(image.info.get(SEVERAL, getattr(image, "is_animated", False)))
    except DECODER_ERRORS:  # further frames are damaged, but not used anyway
        several = True
    return "JPEG" if image.format == "MPO" else image.format or "", several


def _open(file: IO[bytes], reading: Reading) -> Image.Image:
    """Read the header of a picture; of bands that only tifffile supports, the whole picture."""
    tags: Mapping[int, Any] = {}
    try:
        image = identified(file)
        if isinstance(image, TiffImagePlugin.TiffImageFile):
            tags = image.tag_v2
    except UnidentifiedImageError:
        tags = tiff.directory(file)
        if not tags:
            raise
        tiff.refuse_previews(file, tags)
        if not reading.bands or tiff.bands(tags) < 2:
            raise
        return _tiff_bands(file, reading)
    if tags:
        tiff.refuse_previews(file, tags)
    if (pixels := image.width * image.height) > reading.max_pixels:
        raise Undecodable(too_large(pixels, reading.max_pixels), upright_size(image))
    bands = tiff.bands(tags) if tags else len(image.getbands()) if image.mode in ("RGBA", "LA") else 0
    known, planes = len(image.getbands()), tiff.sixteen_in_planes(tags)
    picked = reading.bands and bands > 1 and (bands != 3 or known == 1 or planes)
    if picked and tags and (known == 1 or planes or max(reading.bands) >= known):
        return _tiff_bands(file, reading)
    raw = _raw(image)
    if tags and not picked:
        tiff.refuse_colours(image.mode, tags)
        if planes and (";16" not in raw or reading.bits not in (None, FULL)):
            raise Undecodable(PLANES, upright_size(image))
    _scale_transparent_colour(image)
    deep = ";16" in raw and not image.mode.startswith("I")
    if deep or picked:
        bands = 2 if raw.startswith("LA") else bands
        image.info[MODE] = (f"{bands} bands" if picked else image.mode) + ";16" * deep
    return image


def _tiff_bands(file: IO[bytes], reading: Reading) -> Image.Image:
    from unfreeze.data.formats.bit_depth import read_bands

    return read_bands(file, reading)


def _raw(image: Image.Image) -> str:
    """Return Pillow's name for the stored pixel layout of a file that is opened but not loaded, "" if it has none."""
    tiles = getattr(image, "tile", None)
    args = tiles[0].args if tiles else ""
    return str(args[0] if isinstance(args, tuple) and args else args or "")


def _scale_transparent_colour(image: Image.Image) -> None:
    """Convert a PNG's transparent colour from the bit depth of the file to that of the loaded pixels."""
    if not isinstance(image, PngImagePlugin.PngImageFile):
        return
    raw, key = _raw(image), image.info.get("transparency")
    if raw in _KEY_SCALES and isinstance(key, int):
        image.info["transparency"] = key * _KEY_SCALES[raw]
    elif raw == "RGB;16B" and isinstance(key, tuple):
        image.info[KEY], image.info["transparency"] = key, tuple(value >> 8 for value in key)


def to_rgb(image: Image.Image, reading: Reading = USUAL) -> Image.Image:
    """Return a loaded image upright, as 8-bit RGB; see the module for the rules."""
    try:
        return _upright(_flatten(_eight_bits(image, reading)), _orientation(image))
    except DECODER_ERRORS as error:
        raise Undecodable(f"mode {image.mode} cannot be converted: save it as RGB") from error


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Return (width, height) in pixels with the EXIF orientation applied."""
    return (image.height, image.width) if _orientation(image) >= 5 else (image.width, image.height)


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; like in browsers, a block that cannot be parsed is ignored."""
    try:
        # The getexif of a PNG without EXIF in its header would load the pixels to read what follows them.
        value = Image.Image.getexif(image).get(_ORIENTATION, 1)
    except DECODER_ERRORS:
        return 1
    return value if value in _UPRIGHT else 1


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    return image if orientation == 1 else image.transpose(_UPRIGHT[orientation])


def _eight_bits(image: Image.Image, reading: Reading) -> Image.Image:
    """Scale grey of more than 8 bits; colour is scaled when it is loaded."""
    if not _is_grey_of_more(image):
        return image
    # Imported here: few pictures need numpy, and processes that only decode do without it.
    from unfreeze.data.formats.bit_depth import grey

    return grey(image, reading.bits or FULL)


def _flatten(image: Image.Image) -> Image.Image:
    """Composite transparency on white, and convert to RGB."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if "transparency" not in image.info and image.mode not in ("RGBA", "LA", "PA", "RGBa", "La"):
        return image.convert("RGB")
    rgba = image.convert("RGBA")
    canvas = Image.new("RGB", image.size, "white")
    canvas.paste(rgba, mask=rgba.getchannel("A"))
    return canvas
