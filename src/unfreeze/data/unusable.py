"""Reasons why a file is set aside, and the fix for each; recognise files that are not images.

There are three kinds of reasons: the picture is damaged, it is over a limit, or its form is not read. A reason of the
last two kinds contains its fix, after a colon. Light to import, for processes that only decode.
Reasons stand in catalog.csv, so their text stays as it is.
"""

import re
from collections.abc import Sequence
from typing import Literal

Why = Literal["damage", "limit", "form"]

TRUNCATED = "truncated"
"""Reason for a file that ends before its picture does."""

DAMAGED = "damaged"
EMPTY = "empty file"
NO_IMAGE = "not an image"
NO_MEMORY = "does not fit into memory"
CHANGED = "changed while it was read"
IRREGULAR = "not a regular file"
UNREADABLE = "cannot be read"

CRASHED = "crashes the decoder"
"""Reason for a file whose decoding killed a process."""

TOO_LARGE = "too large"
RAW = "raw camera file, of which only a preview opens: develop it, and save it as TIFF or JPEG"
PREVIEW = "a preview of another image comes first in it: save the image itself as a TIFF file of its own"
INVERTED = "16-bit values of which 0 is white: save it with 0 as black"
UNKNOWN_TIFF = "tiff of a kind that is not read: save it as 8 or 16 bits"
PLANES = "16-bit colour of which each band lies by itself: --set check.bands=[0,1,2] reads it"
NO_RANGE = "values below 0 or above 65,535, so nothing says which is white: scale them, and save it as 8 or 16 bits"
NO_LOW_BYTE = "16-bit grey with alpha, or CMYK, of which the lower bits are not read: save it as grey or RGB"

ALPHA = {
    2: "the second band is not transparency: --set check.bands=[0] reads the first one alone",
    4: "the fourth band is not transparency: --set check.bands=[0,1,2] reads the other three",
}
"""Reason, by number of bands, for a last band with many values almost everywhere."""

INVISIBLE = {
    2: "transparent everywhere: --set check.bands=[0] reads it without its alpha",
    4: "transparent everywhere: --set check.bands=[0,1,2] reads it without its alpha",
}

ALPHA_ALONE = {
    2: "white all over, its shape is in the transparency: --set check.bands=[1] reads that",
    4: "white all over, its shape is in the transparency: --set check.bands=[3] reads that",
}

NO_PYDICOM = 'dicom needs pydicom: convert it to png with the window that counts, or pip install "unfreeze[dicom]"'
NO_WINDOW = "dicom with values below 0 and no window: convert it to png with the window that counts"
NO_PICTURE = "dicom without a picture: take it out of the data, or convert it to png with a window where it has one"
DICOM_PACKED = 'dicom in a compression that is not read here: pip install "pylibjpeg[libjpeg,openjpeg,rle]"'
NO_TIFFFILE = 'these bands are read by tifffile: pip install "unfreeze[bands]"'
TIFF_PACKED = "bands in a compression that tifffile alone does not read: pip install imagecodecs"

CONFLICT = "copies have different labels"
"""Start of the reason why an image with a label conflict is set aside."""

_STEPS = (120, 200, 500, 1000)  # million pixels: few steps, so that many files share a reason; the last is the limit

_FIXES = {
    CONFLICT: "correct the labels, or keep such copies: --set check.label_conflicts=keep",
    TRUNCATED: "copy the files again, or use JPEG files as they are: --set check.truncated=keep",
    DAMAGED: "copy the files again, or remove them from the data",
    EMPTY: "copy or download the files again, or remove them from the data",
    NO_IMAGE: "remove the files from the data, or convert them to JPEG or PNG",
    NO_MEMORY: "make the pictures smaller, or run this on a machine with more memory",
    CHANGED: "run the same command again once nothing writes to the files",
    IRREGULAR: "remove the files from the data",
    UNREADABLE: "allow reading the files (chmod u+r), or remove them from the data",
    CRASHED: "save the files again as JPEG or PNG, or remove them from the data",
}


class Undecodable(Exception):
    """A file is not an image that can be decoded whole.

    Args:
        reason: why, in a few words.
        size: (width, height) in pixels, if the header says it.
    """

    def __init__(self, reason: str, size: tuple[int, int] = (0, 0)) -> None:
        self.reason, self.size = reason, size
        super().__init__(reason)


def without_fix(reason: str) -> str:
    """Return a reason without its fix."""
    return reason if reason.startswith(CONFLICT) or why(reason) == "damage" else reason.partition(": ")[0]


def fixes_for(reasons: Sequence[str]) -> str:
    """Return the fixes for some reasons, each with its reasons if there are several fixes."""
    reasons_by_fix = dict[str, list[str]]()
    for reason in reasons:
        what, _, own_fix = reason.partition(": ")
        fix = _FIXES.get(what, own_fix) or "correct the files, or remove them from the data"
        reasons_by_fix.setdefault(fix, []).append(without_fix(reason))
    named = [f"{' and '.join(whats)}: {fix}" for fix, whats in reasons_by_fix.items()]
    return "; ".join(named) if len(named) > 1 else next(iter(reasons_by_fix), "")


def why(reason: str) -> Why:
    """Return the kind of a reason."""
    what = reason.partition(": ")[0]
    if what == NO_MEMORY or what.startswith(TOO_LARGE):
        return "limit"
    return "damage" if what in _FIXES and what not in (NO_IMAGE, CONFLICT) else "form"


def too_large(pixels: int, most: int) -> str:
    """Return the reason for a picture with more than `most` pixels."""
    what = f"{TOO_LARGE}, more than {round(most / 10**6, 1):g} million pixels"
    allowed = next((step for step in _STEPS if step * 10**6 >= pixels), None)
    return f"{what}: " + (f"--set check.max_pixels={allowed}M" if allowed else "cut it up, or make it smaller")


def too_many_bands(bands: int) -> str:
    """Return the reason for a picture of which nothing says which bands are red, green and blue."""
    if bands == 2:
        return "2 bands: --set check.bands=[0] reads the first one, [1] the second one"
    return f"{bands} bands: --set check.bands=[0,1,2] reads the first three as red, green and blue"


def no_such_bands(bands: int, asked: tuple[int, ...]) -> str:
    """Return the reason for a picture that lacks a requested band."""
    numbers, others = ", ".join(map(str, asked)), "[0,1,2]" if bands > 2 else "[0]"
    return (
        f"{bands} bands, numbered from 0: check.bands asks for [{numbers}]; name others, as --set check.bands={others}"
    )


_CONVERT = "convert it to jpeg or png"
_VIDEO = "video is not supported: take frames out of it (ffmpeg -i FILE frame%03d.png)"
_FTYP = ("heic", (b"hei", b"hev", b"mif1", b"msf1")), ("avif", (b"avi",))
_RAW_STARTS = (b"FUJIFILMCCD-RAW", b"IIRO", b"IIRS", b"MMOR", b"IIU\x00", b"FOVb", b"\x00MRM")

RAW_SUFFIXES = (
    ".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".fff", ".iiq", ".kdc", ".mef", ".mos", ".mrw",
    ".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f",
)  # fmt: skip

_STARTS = (
    (b"\x00\x00\x00\x0cjP  ", f"jpeg 2000 is not supported: {_CONVERT}"),
    (b"\xff\x4f\xff\x51", f"jpeg 2000 is not supported: {_CONVERT}"),
    (b"\xff\x0a", f"jpeg xl is not supported: {_CONVERT}"),
    (b"\x00\x00\x00\x0cJXL ", f"jpeg xl is not supported: {_CONVERT}"),
    (b"version https://git-lfs", "Git LFS pointer in place of the file: git lfs pull"),
    *((b"P%d%c" % (form, space), f"ppm is not supported: {_CONVERT}") for form in range(1, 8) for space in b"\n\r\t "),
    (b"%PDF-", "pdf is not supported: convert its pages to jpeg or png"),
    (b"%!PS", f"postscript is not supported: {_CONVERT}"),
    (b"8BPS", f"photoshop is not supported: {_CONVERT}"),
    (b"SIMPLE  =", f"fits is not supported: {_CONVERT}"),
    (b"\x76\x2f\x31\x01", f"openexr is not supported: {_CONVERT}"),
    (b"\x93NUMPY", f"numpy array is not supported: {_CONVERT}"),
    (b"\x89HDF", f"hdf5 is not supported: {_CONVERT}"),
    (b"\x1f\x8b", "archive is not supported: unpack it"),
    (b"PK\x03\x04", "archive is not supported: unpack it"),
    (b"Rar!", "archive is not supported: unpack it"),
    (b"7z\xbc\xaf\x27\x1c", "archive is not supported: unpack it"),
    (b"\x1aE\xdf\xa3", _VIDEO),
    (b"\x00\x00\x01\xba", _VIDEO),
    (b"FLV\x01", _VIDEO),
    *((start, RAW) for start in _RAW_STARTS),
)

_TEXTS = (
    (
        re.compile(rb"<(!doctype html|html|head|body)\b", re.I),
        "web page in place of the file: download it again",
    ),
    (re.compile(rb"<svg\b", re.I), "svg is not supported: convert it to png"),
)

START_BYTES = 1024
"""Bytes at the start of a file that ``what_else`` needs."""


def what_else(start: bytes) -> str:
    """Return the reason for refusing a file of an unsupported format, recognised by its first bytes."""
    if not start:
        return EMPTY
    if start[4:8] == b"ftyp":
        brand = start[8:12]
        if brand.startswith(b"crx"):
            return RAW
        named = [name for name, brands in _FTYP if brand.startswith(brands)]
        return f"{named[0]} is not supported: {_CONVERT}" if named else _VIDEO
    if start[:4] == b"RIFF" and start[8:12] == b"AVI ":
        return _VIDEO
    for signature, reason in _STARTS:
        if start.startswith(signature):
            return reason
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text.startswith(b"<"):
        for pattern, reason in _TEXTS:
            if pattern.search(text):
                return reason
    return NO_IMAGE
