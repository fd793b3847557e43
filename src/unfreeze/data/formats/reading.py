"""Settings of reading files (bands, bits, size limit), and the cache keys of pictures read with them.

Light to import, for processes that only decode.
"""

import json
from dataclasses import dataclass
from typing import Self

MAX_PIXELS = 1024 * 1024 * 1024 // 4 // 3
"""Pillow's own limit, 89.5 million pixels, above which it warns of a decompression bomb."""

FULL = 16
"""Bits in use in pictures of more than 8 bits if nothing else is known: the high byte is kept."""

LEAST = 8
"""Smallest number of bits assumed to be in use, except for values of 0 and 1."""

PEAK, MODE, SEVERAL, INVERTED, KEY = (
    f"unfreeze.{name}" for name in ("peak", "mode", "several", "inverted", "transparency")
)
"""Keys of ``Image.info``: largest value of a picture of more than 8 bits; stored mode, if it differs from the image's;
whether frames follow; whether 0 is white; transparent colour in 16 bits."""


@dataclass(frozen=True)
class Reading:
    """How files are read.

    Attributes:
        bands: the band, or the red, green and blue bands, counted from 0, of files with two, four or more bands. Empty:
            only grey with alpha and RGB with alpha are read of such files.
        bits: bits in use in pictures of more than 8 bits, the same in the whole data set: 2**bits - 1 becomes white.
            None: not known yet; scanning then finds the largest value.
        max_pixels: larger pictures are refused by their header.
    """

    bands: tuple[int, ...] = ()
    bits: int | None = FULL
    max_pixels: int = MAX_PIXELS

    @property
    def rules(self) -> tuple[str, ...]:
        """The settings that differ from the defaults, as text for cache keys."""
        bands = (f"bands={','.join(map(str, self.bands))}",) if self.bands else ()
        bits = (f"bits={self.bits}",) if self.bits != FULL else ()
        return bands + bits + ((f"max_pixels={self.max_pixels}",) if self.max_pixels != MAX_PIXELS else ())

    def as_text(self) -> str:
        """Return the settings as text, for another process."""
        return json.dumps([self.bands, self.bits, self.max_pixels])

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Return the settings from the text of ``as_text``."""
        bands, bits, max_pixels = json.loads(text)
        return cls(tuple(bands), bits, max_pixels)


USUAL = Reading()


def bits_of(peak: int) -> int:
    """Return the bits in use in pictures with this largest value: 8 to 16, or 1 for values of 0 and 1."""
    return 1 if peak <= 1 else min(FULL, max(LEAST, peak.bit_length()))


def is_deep(mode: str) -> bool:
    """Tell whether a stored pixel mode, as the catalog names it, has more than 8 bits."""
    return mode in ("I", "F") or ";16" in mode


def is_picked(mode: str) -> bool:
    """Tell whether some bands of a picture with this stored mode, as the catalog names it, are selected."""
    return mode.partition(";")[0].endswith(" bands")


def content_key(sha256: str, mode: str, reading: Reading) -> str:
    """Return the cache key of the picture in a file: its sha256, and settings of reading on which its pixels depend.

    Args:
        sha256: of the file's content, in hex.
        mode: stored pixel mode, as the catalog names it.
        reading: how the data set is read.
    """
    bands = (
        f".bands={','.join(map(str, reading.bands))}" if reading.bands and mode.split(";")[0].endswith("bands") else ""
    )
    bits = f".bits={reading.bits}" if reading.bits not in (None, FULL) and is_deep(mode) else ""
    return sha256 + bands + bits


def read_key(key: str) -> tuple[str, Reading]:
    """Return the sha256 and the settings of reading in a ``content_key``, without a limit on the size."""
    sha256, *rules = key.split(".")
    values = dict(rule.split("=") for rule in rules)
    bands = tuple(map(int, values["bands"].split(","))) if "bands" in values else ()
    return sha256, Reading(bands, int(values.get("bits", FULL)), max_pixels=2**62)
