"""PNG files without what does not belong to their pixels: texts and profiles over a limit, or themselves damaged."""

import io
import struct
import zlib
from typing import IO

from PIL import PngImagePlugin

_START = b"\x89PNG\r\n\x1a\n"
_NOT_PIXELS = 0x20  # the bit of a chunk's first letter that is set where pixels do not depend on it


def without_extras(file: IO[bytes]) -> io.BytesIO | None:
    """Return a PNG file without the chunks that may keep Pillow from reading its pixels; None where it has none.

    Those are texts and profiles that are larger than Pillow takes, or more, and chunks whose checksum is wrong; of
    those without which there is no picture none goes.
    """
    file.seek(0)
    content = file.read()
    if not content.startswith(_START):
        return None
    kept, at, dropped, room = [_START], len(_START), False, PngImagePlugin.MAX_TEXT_CHUNK
    while at + 12 <= len(content):
        (length,) = struct.unpack_from(">I", content, at)
        kind, end = content[at + 4 : at + 8], at + 12 + length
        if end > len(content):
            break
        size = _size(kind, content[at + 8 : end - 4], content[end - 4 : end]) if kind[0] & _NOT_PIXELS else 0
        if size is None or size > room:
            dropped = True
        else:
            kept.append(content[at:end])
            room -= size
        at = end
    kept.append(content[at:])
    return io.BytesIO(b"".join(kept)) if dropped else None


def _size(kind: bytes, body: bytes, checksum: bytes) -> int | None:
    """Return the bytes of a text, unpacked, 0 of another chunk; None of one that is damaged, or too large."""
    if struct.pack(">I", zlib.crc32(body, zlib.crc32(kind))) != checksum:
        return None
    packed = body.partition(b"\0")[2]
    if kind == b"iTXt" and packed[:1] == b"\1":
        packed = packed[2:].split(b"\0", 2)[-1]
    elif kind in (b"zTXt", b"iCCP"):
        packed = packed[1:]
    else:
        return len(body) if kind in (b"tEXt", b"iTXt") else 0
    unpacking = zlib.decompressobj()
    try:
        size = len(unpacking.decompress(packed, PngImagePlugin.MAX_TEXT_CHUNK))
    except zlib.error:
        return None
    return None if unpacking.unconsumed_tail else size
