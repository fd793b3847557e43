"""What reading and decoding one file tells; light to import, since processes are started that do nothing else."""

from dataclasses import dataclass
from io import BufferedReader
from typing import Any

from PIL import Image

from unfreeze.data.decode import Undecodable, kind, load, to_rgb, upright_size
from unfreeze.data.likeness import Likeness, as_values, from_values, likeness


@dataclass(frozen=True, slots=True)
class Look:
    """What looking at one file gave.

    Attributes:
        sha256: of the content, in hex; "" where the content could not be read.
        width, height: in pixels, upright, 0 where unknown.
        mode: Pillow's name of the stored pixel mode, "" where unknown.
        reason: why the file is not fit for use, "" where it is.
        bytes: size of the content, 0 where unknown.
        format: one of ``decode.FORMATS``, "" where unknown.
        several: whether frames or pages follow the first, which alone is used.
        likeness: what the picture looks like; None where it was not decoded.
    """

    sha256: str = ""
    width: int = 0
    height: int = 0
    mode: str = ""
    reason: str = ""
    bytes: int = 0
    format: str = ""
    several: bool = False
    likeness: Likeness | None = None


def decoded(file: BufferedReader, sha256: str, size: int) -> tuple[Look, Image.Image | None]:
    """Return the look at a file that is open, of known content, and its upright 8-bit RGB picture if it has one."""
    mode, width, height = "", 0, 0
    try:
        image = load(file)
        mode, (width, height) = image.mode, upright_size(image)
        picture = to_rgb(image)
        return Look(sha256, width, height, mode, "", size, *kind(image), likeness(picture)), picture
    except Undecodable as error:
        return Look(sha256, width, height, mode, error.reason, size), None


def look_values(look: Look) -> list[Any]:
    """Return a look as JSON data."""
    values = [look.sha256, look.width, look.height, look.mode, look.reason, look.bytes, look.format, look.several]
    return values + (as_values(look.likeness) if look.likeness else [])


def look_from(values: list[Any]) -> Look:
    """Read what ``look_values`` gave."""
    sha256, width, height, mode, reason, size, form, several, *rest = values
    return Look(sha256, width, height, mode, reason, size, form, several, from_values(rest) if rest else None)
