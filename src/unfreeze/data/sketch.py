"""What a decoded file tells before anything is calculated: small pictures and a hash, by Pillow alone.

Processes are started that do nothing else (``data.worker``), so this is light to import: without numpy, which takes
longer to import than a hundred photographs to decode. ``data.likeness`` calculates, for many sketches at once.
"""

from io import BufferedReader
from typing import NamedTuple

import xxhash
from PIL import Image, PpmImagePlugin

from unfreeze.data.decode import Undecodable, kind, load, to_rgb, upright_size

INNER = 0.95
"""Share of each side that the second pair of hashes sees: of a cropped copy and its original one of them agrees."""
THUMBNAIL = 16
"""Pixels a side of the thumbnail."""
HASHED = 32
"""Pixels a side of which the perceptual hashes are made."""

_SHARP, _SMALL = 128, 64  # least pixels of the longer side where sharpness is measured, and where the rest is
_FORMAT = PpmImagePlugin.PpmImageFile.format  # by way of the import registered before the first thread needs it


class Sketch(NamedTuple):
    """An upright 8-bit RGB picture, reduced.

    Attributes:
        pixels: xxh3 over its size and its pixels, 128 bits in hex.
        width, height: pixels of ``greys``.
        drawn: uint8, one after another: ``HASHED`` x ``HASHED`` grey pixels of the whole, as many of the picture
            without its rim (see ``INNER``), ``THUMBNAIL`` x ``THUMBNAIL`` RGB pixels, and ``greys``: height x width
            grey pixels, the picture with its longer side a whole number of times smaller, 128 to 255 (or all of it).
    """

    pixels: str
    width: int
    height: int
    drawn: bytes


class Seen(NamedTuple):
    """What decoding a file told.

    Attributes:
        mode: Pillow's name of the stored pixel mode, "" where unknown.
        size: upright width and height in pixels, 0 where unknown.
        reason: why the file is unfit, "" where it is not.
        kind: see ``decode.kind``; ("", False) where unknown.
        sketch: None where the file is unfit.
    """

    mode: str
    size: tuple[int, int]
    reason: str
    kind: tuple[str, bool]
    sketch: Sketch | None


def decoded(file: BufferedReader) -> tuple[Seen, Image.Image | None]:
    """Return what an open file tells, and its upright 8-bit RGB picture if it has one."""
    mode, size = "", (0, 0)
    try:
        image = load(file)
        mode, size = image.mode, upright_size(image)
        picture = to_rgb(image)
        return Seen(mode, size, "", kind(image), sketch(picture)), picture
    except Undecodable as error:
        return Seen(mode, size, error.reason, ("", False), None), None


def drawn_bytes(width: int, height: int) -> int:
    """Return the size of ``Sketch.drawn``, by width and height of its greys."""
    return 2 * HASHED * HASHED + 3 * THUMBNAIL * THUMBNAIL + width * height


def sketch(picture: Image.Image) -> Sketch:
    """Reduce an upright 8-bit RGB picture."""
    # Each picture is made of the one before: reading all pixels again for each would cost more than decoding them did.
    sharp = _reduced(picture, _SHARP)
    small = _reduced(sharp, _SMALL)
    greys = sharp.convert("L")
    grey, (width, height) = small.convert("L"), small.size
    rim_x, rim_y = width * (1 - INNER) / 2, height * (1 - INNER) / 2
    inside = (rim_x, rim_y, width - rim_x, height - rim_y)
    drawn = (
        grey.resize((HASHED, HASHED), Image.Resampling.BILINEAR),
        grey.resize((HASHED, HASHED), Image.Resampling.BILINEAR, box=inside),
        small.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX),
        greys,
    )
    return Sketch(_pixels(picture), *greys.size, b"".join(one.tobytes() for one in drawn))


class _Hash:
    """An xxh3 that can be written to."""

    def __init__(self) -> None:
        self._hashed = xxhash.xxh3_128()
        self.write, self.hexdigest = self._hashed.update, self._hashed.hexdigest


def _pixels(picture: Image.Image) -> str:
    """Hash the picture as a PPM file: a line with its size, then its pixels, which Pillow hands over bit by bit."""
    hashed = _Hash()
    picture.save(hashed, _FORMAT)  # type: ignore[arg-type]
    return hashed.hexdigest()


def _reduced(picture: Image.Image, side: int) -> Image.Image:
    """Return a picture with its longer side a whole number of times smaller, down to ``side`` pixels at least."""
    factor = max(1, max(picture.size) // side)
    return picture if factor == 1 else picture.reduce(factor)
