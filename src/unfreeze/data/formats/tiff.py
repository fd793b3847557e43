"""What a TIFF file's first directory tells before its pixels are decoded: bands, previews, raw camera files."""

import struct
from collections.abc import Mapping
from typing import IO, Any

from PIL import TiffImagePlugin

from unfreeze.data.unusable import INVERTED, PREVIEW, RAW, RAW_SUFFIXES, UNKNOWN_TIFF, Undecodable, too_many_bands

_SUBFILE, _BITS, _PHOTOMETRIC, _SAMPLES, _PLANES, _DNG = 254, 258, 262, 277, 284, 50706  # tags
_REDUCED = 1  # the bit of the kind of a subfile: a smaller version of another image in the file
_WHITE_IS_ZERO, _PALETTE, _SEPARATED, _CFA = 0, 3, 5, 32803  # photometric interpretations
_CR2 = b"CR"  # behind the header


def directory(file: IO[bytes]) -> Mapping[int, Any]:
    """Return the tags of a TIFF file's first directory; none where it is not one, or damaged."""
    file.seek(0)
    start = file.read(16)
    if not start.startswith(tuple(TiffImagePlugin.PREFIXES)):
        return {}
    try:
        tags = TiffImagePlugin.ImageFileDirectory_v2(start[:8] if start[2:4] not in (b"+\0", b"\0+") else start)
        file.seek(tags.next)
        tags.load(file)
        return dict(tags)
    except (OSError, ValueError, TypeError, SyntaxError, LookupError, struct.error):
        return {}


def bands(tags: Mapping[int, Any]) -> int:
    """Return how many bands there are of which some may be picked: 0 of palettes, CMYK and what has no directory."""
    if not tags or tags.get(_PHOTOMETRIC) in (_PALETTE, _SEPARATED):
        return 0
    return int(tags.get(_SAMPLES, 1))


def refuse_previews(file: IO[bytes], tags: Mapping[int, Any]) -> None:
    """Refuse a file whose first image is not the photograph that it is about.

    Raises:
        Undecodable: it is a raw camera file, or begins with a smaller version of another image.
    """
    file.seek(8)
    raw = file.read(2) == _CR2 or _DNG in tags or tags.get(_PHOTOMETRIC) == _CFA
    if raw or str(getattr(file, "name", "")).lower().endswith(RAW_SUFFIXES):
        raise Undecodable(RAW)
    if isinstance(kind := tags.get(_SUBFILE), int) and kind & _REDUCED:
        raise Undecodable(PREVIEW)


def sixteen_in_planes(tags: Mapping[int, Any]) -> bool:
    """Tell whether there is 16-bit colour of which each band lies by itself, which Pillow reads by half, or wrongly."""
    return tags.get(_PLANES) == 2 and bands(tags) > 1 and 16 in tags.get(_BITS, ())


def refuse_colours(mode: str, tags: Mapping[int, Any]) -> None:
    """Refuse what Pillow opens, and of which it does not say, or does not heed, which values are which colour.

    Raises:
        Undecodable: there are five bands or more, or some beside grey that are not alpha, or 0 is white in 16 bits.
    """
    count = bands(tags)
    if count > 4 or (count > 1 and mode in ("L", "1", "I", "F")) or (count > 1 and mode.startswith("I;")):
        raise Undecodable(too_many_bands(count))
    if mode.startswith("I;16") and tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        raise Undecodable(INVERTED)


def unopened(tags: Mapping[int, Any]) -> str:
    """Return the reason why Pillow does not open a file that has a directory."""
    return too_many_bands(count) if (count := bands(tags)) > 1 else UNKNOWN_TIFF
