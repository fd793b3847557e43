"""Remove chunks from PNG files that keep Pillow from reading the pixels: texts and profiles, too large or damaged."""

import io
import struct
import zlib
from typing import IO

from PIL import PngImagePlugin

_START = b"\x89PNG\r\n\x1a\n"
_ANCILLARY = 0x20  # bit of a chunk's first letter, set if pixels do not depend on the chunk


def without_extras(file: IO[bytes]) -> io.BytesIO | None:
    """Return a PNG file without the ancillary chunks that keep Pillow from reading its pixels; None if it has none.

    These are texts and profiles that exceed Pillow's limit, one by one or together, and chunks with a wrong checksum.
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
        size = _size(kind, content[at + 8 : end - 4], content[end - 4 : end]) if kind[0] & _ANCILLARY else 0
        if size is None or size > room:
            dropped = True
        else:
            kept.append(content[at:end])
            room -= size
        at = end
    kept.append(content[at:])
    return io.BytesIO(b"".join(kept)) if dropped else None


def _size(kind: bytes, body: bytes, checksum: bytes) -> int | None:
    """Return the unpacked bytes of a text or profile, 0 for another chunk, None if it is damaged or too large."""
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
