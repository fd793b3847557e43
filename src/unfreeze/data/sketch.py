"""What decoding an open file tells."""

from io import BufferedReader
from typing import NamedTuple

from PIL import Image

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
from unfreeze.data.likeness import Likeness, likeness
from unfreeze.data.reading import USUAL, Reading
from unfreeze.data.unfit import Undecodable


class Seen(NamedTuple):
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
    likeness: Likeness | None
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
        return Seen(mode, size, reason, kind(image), likeness(picture), peak), picture
    except Undecodable as error:
        return Seen(mode, size if size != (0, 0) else error.size, error.reason, ("", False), None), None
