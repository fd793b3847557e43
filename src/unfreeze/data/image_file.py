"""Open an image file and recognise its format; whatever is refused there raises ``Undecodable`` with its reason."""

import contextlib
import ctypes
import hashlib
import logging
import os
import stat
import struct
import sys
import warnings
import zlib
from collections.abc import Iterator
from io import BufferedReader
from typing import IO

from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
    _imaging,
)

from unfreeze.data.formats import tiff
from unfreeze.data.formats.reading import MAX_PIXELS
from unfreeze.data.unusable import (
    CHANGED,
    DAMAGED,
    IRREGULAR,
    NO_IMAGE,
    NO_MEMORY,
    START_BYTES,
    TRUNCATED,
    UNREADABLE,
    Undecodable,
    too_large,
    what_else,
)

# Imported here, the plugins are registered before the first thread needs them.
_PLUGINS = (JpegImagePlugin, PngImagePlugin, WebPImagePlugin, GifImagePlugin, BmpImagePlugin, TiffImagePlugin)
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
_BLOCK = 2**20  # bytes read at a time


# What Pillow's decoders are known to raise on damaged files.
DECODER_ERRORS = (
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


def _hush() -> None:
    """Keep log messages of Pillow and libtiff on damaged files off the terminal; exceptions report the same."""
    logging.getLogger("PIL").addHandler(logging.NullHandler())  # without any, Python prints it
    core = ctypes.CDLL(_imaging.__file__)
    for name in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
        with contextlib.suppress(AttributeError):  # a Pillow with libtiff inside it, where nobody can reach it
            handler = getattr(core, name)
            handler.restype, handler.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
            handler(None)


_hush()


def open_regular(path: str | os.PathLike[str]) -> BufferedReader:
    """Open a regular file for reading; refuse pipes, sockets and devices, which could block for ever."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise Undecodable(IRREGULAR)
        return open(path, "rb")
    except OSError as error:
        raise _unreadable(error) from error


def _unreadable(error: OSError) -> Undecodable:
    return Undecodable(f"{UNREADABLE}: {(error.strerror or str(error)).lower()}")


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
    """Return the status of an open file (size, times)."""
    try:
        return os.fstat(file.fileno())
    except OSError as error:
        raise _unreadable(error) from error


def check_unchanged(file: BufferedReader, before: os.stat_result) -> None:
    """Refuse a file that has changed since its status was taken, because parts of two versions may have been read."""
    after = stamp(file)
    if (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
        raise Undecodable(CHANGED)


@contextlib.contextmanager
def quiet_pillow() -> Iterator[None]:
    """Silence Pillow's warnings; enter once, around all threads, because warning filters are global."""
    with warnings.catch_warnings():
        # Pillow warns of odd metadata; decoding the whole file decides whether it can be used.
        warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the size is checked in `decode`
        yield


@contextlib.contextmanager
def refusals(file: IO[bytes]) -> Iterator[None]:
    """Turn what Pillow raises into `Undecodable` with its reason."""
    try:
        yield
    except UnidentifiedImageError as error:
        raise Undecodable(_unidentified(file)) from error
    except Image.DecompressionBombError as error:  # where Pillow looks itself, whatever is allowed: WebP, and frames
        raise Undecodable(too_large(sys.maxsize, 2 * MAX_PIXELS)) from error
    except MemoryError as error:
        raise Undecodable(NO_MEMORY) from error
    except DECODER_ERRORS as error:
        raise Undecodable(TRUNCATED if TRUNCATED in str(error).lower() else DAMAGED) from error


def identified(file: IO[bytes]) -> ImageFile.ImageFile:
    """Return the picture that a file's header tells of, as ``Image.open`` does, of whatever size it is.

    Raises:
        UnidentifiedImageError: it is of no format that is read, or its header is damaged.
    """
    file.seek(0)
    start = file.read(16)
    for name in FORMATS:
        opened, accepts = Image.OPEN[name]
        if accepts is not None and accepts(start) is not True:
            continue
        file.seek(0)
        try:
            return opened(file, "")
        except (SyntaxError, IndexError, TypeError, struct.error):
            continue
    raise UnidentifiedImageError


def _unidentified(file: IO[bytes]) -> str:
    """Return the reason for refusing a file that Pillow does not open."""
    file.seek(0)
    start = file.read(START_BYTES)
    if (reason := what_else(start)) != NO_IMAGE:
        return reason
    if tags := tiff.directory(file):
        return tiff.unopened(tags)
    accepted = any(
        accepts is not None and accepts(start[:16]) is True for _, accepts in map(Image.OPEN.__getitem__, FORMATS)
    )
    return DAMAGED if accepted else NO_IMAGE
