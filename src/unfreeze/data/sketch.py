"""What a decoded file tells before anything is calculated: small pictures and a hash, by Pillow alone.

Processes are started that do nothing else (``data.worker``), so this is light to import: without numpy, which takes
longer to import than a hundred photographs to decode. ``data.likeness`` calculates, for many sketches at once.
"""

import ctypes
from io import BufferedReader
from typing import NamedTuple

import xxhash
from PIL import Image, JpegImagePlugin

from unfreeze.data.decode import (
    Truncated,
    kind,
    load,
    mind_shape,
    mode_of,
    peak_of,
    to_rgb,
    upright_size,
)
from unfreeze.data.reading import USUAL, Reading
from unfreeze.data.unfit import Undecodable

THUMBNAIL = 16
"""Pixels a side of the thumbnail."""

_SHARP, _SMALL = 128, 64  # least pixels of the longer side where sharpness is measured, and where the rest is
_SAMPLES = 4  # pixels a side that are sampled for one, where it is seen how colourful a picture is
_AT_ONCE = 2**21  # pixels of which Pillow keeps in one block what is copied of them, if it copies any


class Sketch(NamedTuple):
    """An upright 8-bit RGB picture, reduced.

    Attributes:
        pixels: xxh3 over its size and its pixels, 128 bits in hex.
        small: width and height of its grey pixels with the longer side a whole number of times smaller, 64 to 127 (or
            all of it).
        strips: number, width and height of strips across it, with its longer side a whole number of times smaller, 128
            to 255: two of three rows or more, together a quarter of it; of a picture that is no larger than that the
            whole.
        drawn: uint8, one after another: ``THUMBNAIL`` x ``THUMBNAIL`` RGB pixels, each of some samples alone; as many
            grey ones, of all pixels; and row by row the grey pixels whose sizes are ``small`` and ``strips``.
    """

    pixels: str
    small: tuple[int, int]
    strips: tuple[int, int, int]
    drawn: bytes


class Seen(NamedTuple):
    """What decoding a file told.

    Attributes:
        mode: of the stored pixels, see ``decode.mode_of``, "" where unknown.
        size: upright width and height in pixels, 0 where unknown.
        reason: why the file is unfit, "" where it is not.
        kind: see ``decode.kind``; ("", False) where unknown.
        sketch: None where the file is unfit, but for a truncated JPEG, of which it is of what there is; and of a
            picture of more than 8 bits as long as nobody says how many of them count.
        peak: the largest value of a picture of more than 8 bits; None of others.
    """

    mode: str
    size: tuple[int, int]
    reason: str
    kind: tuple[str, bool]
    sketch: Sketch | None
    peak: int | None = None


def decoded(file: BufferedReader, reading: Reading = USUAL) -> tuple[Seen, Image.Image | None]:
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
            return Seen(mode, size, reason, kind(image), None, peak), None
        picture = to_rgb(image, reading)
        mind_shape(image, picture)
        return Seen(mode, size, reason, kind(image), sketch(picture), peak), picture
    except Undecodable as error:
        return Seen(mode, size if size != (0, 0) else error.size, error.reason, ("", False), None), None


def drawn_bytes(small: tuple[int, int], strips: tuple[int, int, int]) -> int:
    """Return the size of ``Sketch.drawn``."""
    return 4 * THUMBNAIL * THUMBNAIL + small[0] * small[1] + strips[0] * strips[1] * strips[2]


def sketch(picture: Image.Image) -> Sketch:
    """Reduce an upright 8-bit RGB picture."""
    sharp = max(1, max(picture.size) // _SHARP)
    grey = picture.convert("L")
    small = grey.reduce(sharp * max(1, max(picture.size) // sharp // _SMALL))
    wide, high = picture.size
    rows = min(high, max(high // 8, 3 * sharp))  # with a row above and one below
    tops = (min(high // 4, high - rows), max(0, high - high // 4 - rows))
    boxes = [(0, top, wide, top + rows) for top in tops]
    strips = [grey.reduce(sharp, box) for box in (boxes if sharp > 1 else [(0, 0, wide, high)])]
    # To read all pixels in three colours would take thrice as long.
    colours = picture.resize((_SAMPLES * THUMBNAIL,) * 2, Image.Resampling.NEAREST).reduce(_SAMPLES)
    thumbnail = small.resize((THUMBNAIL,) * 2, Image.Resampling.BOX)
    drawn = b"".join(one.tobytes() for one in (colours, thumbnail, small, *strips))
    return Sketch(_pixels(picture), small.size, (len(strips), *strips[0].size), drawn)


def _pixels(picture: Image.Image) -> str:
    """Hash the picture's size and its pixels, each R, G, B and 255, some rows after others."""
    width, height = picture.size
    hashed = xxhash.xxh3_128(f"{width} {height} ".encode())
    rows = max(1, _AT_ONCE // width)
    for top in range(0, height, rows):
        part = picture if rows >= height else picture.crop((0, top, width, min(height, top + rows)))
        # The fourth byte of a pixel is a decoder's to choose. Pillow fills it in for a JPEG, as for what it converts.
        filled = part if isinstance(part, JpegImagePlugin.JpegImageFile) else part.convert("RGBX")
        hashed.update(_memory(filled))
    return hashed.hexdigest()


class _ArrowArray(ctypes.Structure):
    """An array as Arrow's C data interface has it: https://arrow.apache.org/docs/format/CDataInterface.html."""


_ArrowArray._fields_ = [
    *((name, ctypes.c_int64) for name in ("length", "null_count", "offset", "n_buffers", "n_children")),
    ("buffers", ctypes.POINTER(ctypes.c_void_p)),
    ("children", ctypes.POINTER(ctypes.POINTER(_ArrowArray))),
]  # what follows is its owner's

# A function of its own: ctypes.pythonapi's is everybody's, and other packages change what theirs returns.
_capsule = ctypes.PYFUNCTYPE(ctypes.POINTER(_ArrowArray), ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)


def _memory(picture: Image.Image) -> bytes | ctypes.Array[ctypes.c_char]:
    """Return the four bytes of each pixel where they lie; the picture is to be kept while they are read.

    To copy them takes twice as long as to hash them. Where Pillow has them in several blocks they are copied.
    """
    try:
        _, exported = picture.__arrow_c_array__()
    except ValueError:
        return picture.tobytes("raw", "RGBX")
    pixels = _capsule(exported, b"arrow_array").contents.children[0].contents
    return (ctypes.c_char * pixels.length).from_address(pixels.buffers[1])
