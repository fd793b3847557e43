"""Open image files, hash them and recognise their format; a refused file raises ``Undecodable`` with its reason."""

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

# Importing the plugins here registers them before any thread needs them.
_PLUGINS = (JpegImagePlugin, PngImagePlugin, WebPImagePlugin, GifImagePlugin, BmpImagePlugin, TiffImagePlugin)
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
_BLOCK = 2**20  # bytes read at a time

# Exceptions that Pillow's decoders are known to raise on damaged files.
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


def _silence_decoders() -> None:
    """Keep messages of Pillow and libtiff on damaged files off the terminal; exceptions report the same."""
    logging.getLogger("PIL").addHandler(logging.NullHandler())  # without a handler, Python prints messages
    core = ctypes.CDLL(_imaging.__file__)
    for name in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
        with contextlib.suppress(AttributeError):  # Pillow was built with a libtiff that exports no symbols
            handler = getattr(core, name)
            handler.restype, handler.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
            handler(None)


_silence_decoders()


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
    """Return the sha256 of a file's content in hex, and return to its start.

    The buffer is as small as the file: hashlib.file_digest allocates 256 KiB each time, which takes longer than hashing
    when threads hash thousands of photographs.
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
    """Refuse a file that has changed since its status was taken: parts of two versions may have been read."""
    after = stamp(file)
    if (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
        raise Undecodable(CHANGED)


@contextlib.contextmanager
def quiet_pillow() -> Iterator[None]:
    """Silence Pillow's warnings; enter it once, outside of all threads, because warning filters are global."""
    with warnings.catch_warnings():
        # Pillow warns of unusual metadata, but only decoding shows whether a file can be used.
        warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the size is checked in `decode`
        yield


@contextlib.contextmanager
def refusals(file: IO[bytes]) -> Iterator[None]:
    """Convert exceptions of Pillow to `Undecodable` with a reason."""
    try:
        yield
    except UnidentifiedImageError as error:
        raise Undecodable(_unidentified(file)) from error
    except Image.DecompressionBombError as error:  # Pillow's own limit, which it applies to WebP and to frames
        raise Undecodable(too_large(sys.maxsize, 2 * MAX_PIXELS)) from error
    except MemoryError as error:
        raise Undecodable(NO_MEMORY) from error
    except DECODER_ERRORS as error:
        raise Undecodable(TRUNCATED if TRUNCATED in str(error).lower() else DAMAGED) from error


def identified(file: IO[bytes]) -> ImageFile.ImageFile:
    """Open a picture by its header like ``Image.open``, but without a limit on its size.

    Raises:
        UnidentifiedImageError: its format is not supported, or its header is damaged.
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
