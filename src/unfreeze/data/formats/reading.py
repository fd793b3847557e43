"""How files are read that can be read in several ways, and what names the pictures that come of it.

Light to import: processes that only decode import it.
"""

import json
from dataclasses import dataclass
from typing import Self

MAX_PIXELS = 1024 * 1024 * 1024 // 4 // 3
"""Pillow's own bound, 89.5 million pixels, above which it warns of a decompression bomb."""

FULL = 16
"""Bits that pictures of more than 8 bits use, where nothing else is known: their high byte counts."""

LEAST = 8
"""Bits that are assumed at least, but for values of 0 and 1."""

PEAK, MODE, SEVERAL, INVERTED, KEY = (
    f"unfreeze.{name}" for name in ("peak", "mode", "several", "inverted", "transparency")
)
"""Keys of ``Image.info``: the largest value of a picture of more than 8 bits; its stored mode, if that is not the
image's; whether frames follow; whether 0 is white; the colour that is transparent, in 16 bits."""


@dataclass(frozen=True)
class Reading:
    """How files are read; the defaults are how a file is read where nobody says anything.

    Attributes:
        bands: one band, or those that are red, green and blue, counted from 0, of files that have two bands, or four
            and more; empty: grey with alpha and RGB with alpha are read, other files of so many bands are not.
        bits: of pictures of more than 8 bits, those that the whole data set uses: 2**bits - 1 becomes white. None: not
            known yet; such a picture then tells its largest value.
        max_pixels: a larger picture is refused by its header.
    """

    bands: tuple[int, ...] = ()
    bits: int | None = FULL
    max_pixels: int = MAX_PIXELS

    @property
    def rules(self) -> tuple[str, ...]:
        """What differs from the defaults of what pixels, or what is said of files, depend on."""
        bands = (f"bands={','.join(map(str, self.bands))}",) if self.bands else ()
        bits = (f"bits={self.bits}",) if self.bits != FULL else ()
        return bands + bits + ((f"max_pixels={self.max_pixels}",) if self.max_pixels != MAX_PIXELS else ())

    def as_text(self) -> str:
        """Return all of it as text, for another process."""
        return json.dumps([self.bands, self.bits, self.max_pixels])

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Read what ``as_text`` gave."""
        bands, bits, max_pixels = json.loads(text)
        return cls(tuple(bands), bits, max_pixels)


USUAL = Reading()


def bits_of(peak: int) -> int:
    """Return the bits of pictures whose largest value this is: 8 to 16, and 1 of values from 0 to 1."""
    return 1 if peak <= 1 else min(FULL, max(LEAST, peak.bit_length()))


def is_deep(mode: str) -> bool:
    """Tell whether a stored pixel mode, as the catalog names it, has more than 8 bits."""
    return mode in ("I", "F") or ";16" in mode


def is_picked(mode: str) -> bool:
    """Tell whether of a picture of this stored mode, as the catalog names it, some bands are picked."""
    return mode.partition(";")[0].endswith(" bands")


def content_key(sha256: str, mode: str, reading: Reading) -> str:
    """Return what names the picture in a file: its content, and how that is read if not as usual.

    So the pixels of a picture have one name in every cache, and a picture that is read in one way only has the
    sha256 of its file.

    Args:
        sha256: of the file's content, in hex.
        mode: its stored pixel mode, as the catalog names it.
        reading: how the data set is read.
    """
    bands = (
        f".bands={','.join(map(str, reading.bands))}" if reading.bands and mode.split(";")[0].endswith("bands") else ""
    )
    bits = f".bits={reading.bits}" if reading.bits not in (None, FULL) and is_deep(mode) else ""
    return sha256 + bands + bits


def read_key(key: str) -> tuple[str, Reading]:
    """Return the sha256 and the reading that ``content_key`` made a key of; of any size, since that was allowed."""
    sha256, *rules = key.split(".")
    told = dict(rule.split("=") for rule in rules)
    bands = tuple(map(int, told["bands"].split(","))) if "bands" in told else ()
    return sha256, Reading(bands, int(told.get("bits", FULL)), max_pixels=2**62)
