"""Decode an image file whole, into upright 8-bit RGB, or say why that cannot be done.

The rules: the format is recognised by content, never by name; the first frame of an animation counts; the EXIF
orientation is applied; alpha and transparent palette entries are composited on white; 16-bit values are scaled
(v >> 8), not clipped; grey, palette, 1-bit and CMYK become RGB; colour profiles are not applied.
"""

import contextlib
import hashlib
import os
import stat
import struct
import sys
import warnings
import zlib
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path

from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

# Imported above, the plugins are registered before the first thread needs them.
_PLUGINS = (JpegImagePlugin, PngImagePlugin, WebPImagePlugin, GifImagePlugin, BmpImagePlugin, TiffImagePlugin)
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
MAX_PIXELS = 1024 * 1024 * 1024 // 4 // 3
"""Pillow's own bound, 89.5 million pixels: above it Pillow warns of a decompression bomb; here it is refused."""

DECODE_RULES = 1
"""Counts up whenever a file comes to be decoded into other pixels, or to be judged otherwise."""

_BLOCK = 2**20  # bytes read at a time
_ROWS = (64, 4096)  # pixels a row, few enough to be taken some dozen times
_BLOCKS = 24  # some more than glibc keeps aside for itself
_HEADER = sys.getsizeof(b"")
_END_OF_IMAGE = b"\xff\xd9"  # JPEG's marker
_TOO_LARGE = "too large: more than 89.5 million pixels"

# What Pillow's decoders are known to raise on damaged files.
_DECODER_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    EOFError,
    LookupError,
    ArithmeticError,
    AttributeError,
    NotImplementedError,
    struct.error,
    zlib.error,
)

_PHOTOMETRIC = 262  # TIFF tag; 0: white is zero
_KEY_SCALES = {"L;2": 85, "L;4": 17}  # from 2 and 4 bits to 8

# ImageOps.exif_transpose would also rewrite the EXIF block, which fails on blocks that are damaged elsewhere.
_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_OTHER_FORMATS = {
    "heic": ((4, b"ftyphei"), (4, b"ftyphev"), (4, b"ftypmif1"), (4, b"ftypmsf1")),
    "avif": ((4, b"ftypavi"),),
    "jpeg 2000": ((0, b"\x00\x00\x00\x0cjP  "), (0, b"\xff\x4f\xff\x51")),
    "jpeg xl": ((0, b"\xff\x0a"), (0, b"\x00\x00\x00\x0cJXL ")),
}


TRUNCATED = "truncated"
"""Why a file is unfit that ends before its picture does."""


class Undecodable(Exception):
    """The file is no image that can be decoded whole; `reason` is short and in lower case."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class Truncated(Undecodable):
    """A JPEG ends before its picture does; `image` has what there is, and grey, or what is coarse, in other places."""

    def __init__(self, image: Image.Image) -> None:
        self.image = image
        super().__init__(TRUNCATED)


def decode(path: Path, at_least: int | None = None) -> Image.Image:
    """Return the upright 8-bit RGB picture in the file at `path`; of a truncated JPEG what there is of it.

    Args:
        path: the file.
        at_least: pixels of the shorter side that are enough; a larger JPEG is decoded smaller, in less time.

    Raises:
        Undecodable: the file cannot be read, is no image of the formats in `FORMATS`, or cannot be decoded.
    """
    with open_regular(path) as file:
        return to_rgb(load_what_there_is(file, at_least))


def open_regular(path: str | os.PathLike[str]) -> BufferedReader:
    """Open a regular file for reading; pipes, sockets and devices, which could block for ever, are never opened."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise Undecodable("not a regular file")
        return open(path, "rb")
    except OSError as error:
        raise _unreadable(error) from error


def _unreadable(error: OSError) -> Undecodable:
    return Undecodable(f"cannot be read: {(error.strerror or str(error)).lower()}")


def digest(file: BufferedReader) -> str:
    """Return the sha256, in hex, of the content of a file just opened, and go back to its start.

    A small file is read into memory of its own size: hashlib.file_digest takes 256 KiB for each, which costs threads
    that hash thousands of photographs more than the hashing.
    """
    sha256 = hashlib.sha256()
    try:
        block = min(stamp(file).st_size + 1, _BLOCK)
        while content := file.raw.read(block):
            sha256.update(content)
        file.seek(0)
    except OSError as error:
        raise _unreadable(error) from error
    return sha256.hexdigest()


def stamp(file: BufferedReader) -> os.stat_result:
    """Return what is known of an open file without reading it."""
    try:
        return os.fstat(file.fileno())
    except OSError as error:
        raise _unreadable(error) from error


def check_unchanged(file: BufferedReader, before: os.stat_result) -> None:
    """Refuse a file written to since its stamp: what was read of it at two times may not belong together."""
    after = stamp(file)
    if (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
        raise Undecodable("changed while it was read")


@contextlib.contextmanager
def quiet_pillow() -> Iterator[None]:
    """Silence Pillow's warnings; set once, around all threads, since filters belong to the process."""
    with warnings.catch_warnings():
        # Pillow warns of odd metadata; whether the file is fit for use, the whole decode says.
        warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def load(file: BufferedReader, at_least: int | None = None) -> Image.Image:
    """Return the first frame with all its pixels loaded, in the mode and orientation it was stored in.

    Raises:
        Truncated: a JPEG ends before its picture does.
        Undecodable: there is no picture, or it cannot be decoded whole.
    """
    with _refusals(file):
        image = _open(file)
        if at_least is not None:
            image.draft(None, (at_least, at_least))  # not below this on either side
        if not isinstance(image, JpegImagePlugin.JpegImageFile):
            image.load()
            return image
    return _load_jpeg(image, file)


def load_what_there_is(file: BufferedReader, at_least: int | None = None) -> Image.Image:
    """Return what ``load`` does, and of a truncated JPEG what there is of it; whether that will do, others say."""
    try:
        return load(file, at_least)
    except Truncated as error:
        return error.image


def _load_jpeg(image: JpegImagePlugin.JpegImageFile, file: BufferedReader) -> Image.Image:
    image.fp = ended = _Ended(file)  # type: ignore[assignment]
    taken = _slow_rows(image.width)
    try:
        with _refusals(file):
            image.load()
    except Undecodable as error:
        raise Undecodable(TRUNCATED if ended.early else error.reason) from error
    finally:
        del taken
    if ended.early:
        raise Truncated(image)
    return image


class _Ended:
    """A JPEG file to be decoded, behind which an end of the image is read, once, if the decoder asks for more.

    Then libjpeg leaves grey what is missing, or coarse what a progressive file has not refined yet.
    ``ImageFile.LOAD_TRUNCATED_IMAGES`` does the same, for the whole process and without saying of which files.

    Attributes:
        early: whether the file ended before the decoder did.
    """

    def __init__(self, file: BufferedReader) -> None:
        self._file, self.early = file, False
        self.seek = file.seek

    def read(self, size: int) -> bytes:
        content = self._file.read(size)
        if content or self.early:
            return content
        self.early = True
        return _END_OF_IMAGE


def _slow_rows(width: int) -> list[bytes]:
    """Take memory in which Pillow had better not decode a JPEG of this width row by row; to be kept till it is decoded.

    Where Pillow's buffer for a row begins at a multiple of 32 bytes, libjpeg-turbo writes past the processor's caches,
    and Pillow, which copies each row from there at once, waits for memory: decoding takes a third longer, or twice as
    long. Here blocks of that size are taken, and those that begin elsewhere are free again on return, so that glibc
    makes the next buffer of one of them. Where memory is given out otherwise nothing is lost: only time depends on it.
    """
    if not _ROWS[0] <= width <= _ROWS[1]:
        return []
    blocks = [bytes(4 * width - _HEADER) for _ in range(_BLOCKS)]
    return [block for block in blocks if id(block) % 32 == 0]  # in CPython the address


def header(file: BufferedReader) -> tuple[str, tuple[int, int], tuple[str, bool]]:
    """Return the mode, the upright (width, height) in pixels and the ``kind``, without decoding any pixel.

    They equal those of the loaded image, but for an orientation that a PNG keeps behind its pixels.
    """
    with _refusals(file):
        image = _open(file)
        if isinstance(image, TiffImagePlugin.TiffImageFile):  # which is upright by itself
            return image.mode, image.size, kind(image)
        return image.mode, upright_size(image), kind(image)


def kind(image: Image.Image) -> tuple[str, bool]:
    """Return the format, one of ``FORMATS``, and whether frames or pages follow the first.

    To see whether a GIF has some it is read on, so that its pixels, if loaded, are lost.
    """
    try:
        several = bool(getattr(image, "is_animated", False))
    except _DECODER_ERRORS:  # what follows is damaged, and is not used anyway
        several = True
    return "JPEG" if image.format == "MPO" else image.format or "", several


@contextlib.contextmanager
def _refusals(file: BufferedReader) -> Iterator[None]:
    """Turn what Pillow raises into `Undecodable` with its reason."""
    try:
        yield
    except UnidentifiedImageError as error:
        raise Undecodable(_unidentified(file)) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise Undecodable(_TOO_LARGE) from error
    except MemoryError as error:
        raise Undecodable("does not fit into memory") from error
    except _DECODER_ERRORS as error:
        raise Undecodable(TRUNCATED if TRUNCATED in str(error).lower() else "damaged") from error


def _open(file: BufferedReader) -> Image.Image:
    """Read the header."""
    image = Image.open(file, formats=FORMATS)
    if image.width * image.height > MAX_PIXELS:
        raise Undecodable(_TOO_LARGE)
    _mind_depth(image)
    return image


def _mind_depth(image: Image.Image) -> None:
    """Refuse or mend, before loading, what Pillow does not scale along with the pixels.

    A PNG's transparent colour is in the file's own depth; a TIFF's 12-bit values stay 12-bit in mode I;16, and its
    16-bit values stay inverted where 0 is white.
    """
    if not isinstance(image, PngImagePlugin.PngImageFile | TiffImagePlugin.TiffImageFile) or not image.tile:
        return
    args = image.tile[0].args
    raw = args[0] if isinstance(args, tuple) else args
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        if raw == "I;12" or (image.mode.startswith("I;16") and image.tag_v2.get(_PHOTOMETRIC) == 0):
            raise Undecodable(
                "12-bit values are not supported" if raw == "I;12" else "inverted 16-bit is not supported"
            )
        return
    key = image.info.get("transparency")
    if raw in _KEY_SCALES and isinstance(key, int):
        image.info["transparency"] = key * _KEY_SCALES[raw]
    elif raw == "RGB;16B" and isinstance(key, tuple):
        image.info["transparency"] = tuple(value >> 8 for value in key)


def to_rgb(image: Image.Image) -> Image.Image:
    """Return a loaded image upright, as 8-bit RGB; see the module for the rules."""
    try:
        return _upright(_flatten(_eight_bits(image)), _orientation(image))
    except _DECODER_ERRORS as error:
        raise Undecodable(f"mode {image.mode} cannot be converted") from error


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Return (width, height) in pixels as they are after the EXIF orientation has been applied."""
    return (image.height, image.width) if _orientation(image) >= 5 else (image.width, image.height)


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; a block that cannot be parsed says nothing, as in browsers."""
    try:
        # Of a PNG whose header has no EXIF block, its own getexif would load the pixels to look behind them; of a
        # loaded one this gives the same.
        value = Image.Image.getexif(image).get(_ORIENTATION, 1)
    except _DECODER_ERRORS:
        return 1
    return value if value in _UPRIGHT else 1


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    return image if orientation == 1 else image.transpose(_UPRIGHT[orientation])


def _eight_bits(image: Image.Image) -> Image.Image:
    """Scale 16-bit grey to 8 bits; Pillow has taken the high byte of 16-bit colour already."""
    if image.mode in ("I", "F"):  # 32-bit values: nothing says which is white
        raise Undecodable(f"mode {image.mode} has no known range of values")
    if not image.mode.startswith("I;16"):
        return image
    import numpy as np  # here, since few pictures need it, and processes that decode start without it

    values = np.asarray(image)
    grey = Image.fromarray((values >> 8).astype(np.uint8))
    key = image.info.get("transparency")
    if key is not None:
        grey.putalpha(Image.fromarray(np.where(values == key, 0, 255).astype(np.uint8)))
    return grey


def _flatten(image: Image.Image) -> Image.Image:
    """Composite on white where there is transparency; convert to RGB."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if "transparency" not in image.info and image.mode not in ("RGBA", "LA", "PA", "RGBa", "La"):
        return image.convert("RGB")
    rgba = image.convert("RGBA")
    canvas = Image.new("RGB", image.size, "white")
    canvas.paste(rgba, mask=rgba.getchannel("A"))
    return canvas


def _unidentified(file: BufferedReader) -> str:
    """Say what a file is that Pillow does not open."""
    file.seek(0)
    start = file.read(16)
    if not start:
        return "empty file"
    for name, signatures in _OTHER_FORMATS.items():
        if any(start[offset:].startswith(signature) for offset, signature in signatures):
            return f"{name} is not supported: convert it to jpeg or png"
    for name in FORMATS:
        accepts = Image.OPEN[name][1]
        if accepts is not None and accepts(start) is True:
            return "damaged"
    return "not an image"
