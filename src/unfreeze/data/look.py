"""What reading and decoding one file tells."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from unfreeze.data.likeness import Likeness, as_values, from_values
from unfreeze.data.reading import is_deep
from unfreeze.data.sketch import Seen


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
        likeness: what the picture looks like; None where it was not decoded, or of more than 8 bits of which nobody
            has said yet how many count.
        peak: the largest value of a picture of more than 8 bits; None of others.
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
    peak: int | None = None


def looks_at(files: Iterable[tuple[str, int, Seen]]) -> list[Look]:
    """Return the looks at files of which sha256, size in bytes and what decoding told are known."""
    return [
        Look(sha256, *seen.size, seen.mode, seen.reason, size, *seen.kind, seen.likeness, seen.peak)
        for sha256, size, seen in files
    ]


def look_values(look: Look) -> list[Any]:
    """Return a look as JSON data."""
    values = [look.sha256, look.width, look.height, look.mode, look.reason, look.bytes, look.format, look.several]
    values += as_values(look.likeness) if look.likeness else []
    return values + ([] if look.peak is None else [look.peak])


def look_from(values: list[Any]) -> Look:
    """Read what ``look_values`` gave."""
    sha256, width, height, mode, reason, size, form, several, *rest = values
    peak = rest.pop() if is_deep(mode) and rest and isinstance(rest[-1], int) else None
    return Look(sha256, width, height, mode, reason, size, form, several, from_values(rest) if rest else None, peak)
