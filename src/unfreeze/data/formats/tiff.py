"""Read the first directory of a TIFF file to find bands, previews and raw camera files before pixels are decoded."""

import struct
from collections.abc import Mapping
from typing import IO, Any

from PIL import TiffImagePlugin

from unfreeze.data.unusable import INVERTED, PREVIEW, RAW, RAW_SUFFIXES, UNKNOWN_TIFF, Undecodable, too_many_bands

_SUBFILE, _BITS, _PHOTOMETRIC, _SAMPLES, _PLANES, _DNG = 254, 258, 262, 277, 284, 50706  # tags
_REDUCED = 1  # bit of the subfile type: a smaller version of another image in the file
_WHITE_IS_ZERO, _PALETTE, _SEPARATED, _CFA = 0, 3, 5, 32803  # photometric interpretations
_CR2 = b"CR"  # follows the header of Canon's raw files


def directory(file: IO[bytes]) -> Mapping[int, Any]:
    """Return the tags of a TIFF file's first directory; none if it is not a TIFF file or is damaged."""
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
    """Return the number of bands that can be selected: 0 for palettes, CMYK and files without a directory."""
    if not tags or tags.get(_PHOTOMETRIC) in (_PALETTE, _SEPARATED):
        return 0
    return int(tags.get(_SAMPLES, 1))


def refuse_previews(file: IO[bytes], tags: Mapping[int, Any]) -> None:
    """Refuse a file whose first image is only a preview.

    Raises:
        Undecodable: it is a raw camera file, or its first image is a smaller version of another one.
    """
    file.seek(8)
    raw = file.read(2) == _CR2 or _DNG in tags or tags.get(_PHOTOMETRIC) == _CFA
    if raw or str(getattr(file, "name", "")).lower().endswith(RAW_SUFFIXES):
        raise Undecodable(RAW)
    if isinstance(kind := tags.get(_SUBFILE), int) and kind & _REDUCED:
        raise Undecodable(PREVIEW)


def sixteen_in_planes(tags: Mapping[int, Any]) -> bool:
    """Tell whether a file has 16-bit colour with separate bands, of which Pillow reads a half, or wrong values."""
    return tags.get(_PLANES) == 2 and bands(tags) > 1 and 16 in tags.get(_BITS, ())


def refuse_colours(mode: str, tags: Mapping[int, Any]) -> None:
    """Refuse files that Pillow opens although it does not know, or ignores, what their values mean.

    Raises:
        Undecodable: there are five or more bands, further bands next to grey that are not alpha, or 16-bit values of
            which 0 is white.
    """
    count = bands(tags)
    if count > 4 or (count > 1 and mode in ("L", "1", "I", "F")) or (count > 1 and mode.startswith("I;")):
        raise Undecodable(too_many_bands(count))
    if mode.startswith("I;16") and tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        raise Undecodable(INVERTED)


def unopened(tags: Mapping[int, Any]) -> str:
    """Return the reason why Pillow cannot open a TIFF file."""
    return too_many_bands(count) if (count := bands(tags)) > 1 else UNKNOWN_TIFF
