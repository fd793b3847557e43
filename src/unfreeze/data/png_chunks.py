"""PNG files without what does not belong to their pixels: texts and profiles over a limit, or themselves damaged."""

import io
import struct
import zlib
from typing import IO

from PIL import PngImagePlugin

_START = b"\x89PNG\r\n\x1a\n"
_CAPITAL = 0x20  # the bit of a chunk's first letter that is set where pixels do not depend on it
_TEXTS = (b"zTXt", b"iTXt", b"tEXt")


def without_extras(file: IO[bytes]) -> io.BytesIO | None:
    """Return a PNG file without the chunks that may keep Pillow from reading its pixels; None where it has none.

    Texts and profiles that are larger than Pillow takes, all profiles of colour, and chunks whose checksum is wrong;
    of those without which there is no picture none goes.
    """
    file.seek(0)
    content = file.read()
    if not content.startswith(_START):
        return None
    kept, at, dropped = [_START], len(_START), False
    while at + 12 <= len(content):
        (length,) = struct.unpack_from(">I", content, at)
        kind, end = content[at + 4 : at + 8], at + 12 + length
        if end > len(content):
            break
        if kind[0] & _CAPITAL and not _is_fine(kind, content[at + 8 : end - 4], content[end - 4 : end]):
            dropped = True
        else:
            kept.append(content[at:end])
        at = end
    kept.append(content[at:])
    return io.BytesIO(b"".join(kept)) if dropped else None


def _is_fine(kind: bytes, body: bytes, checksum: bytes) -> bool:
    if kind == b"iCCP" or struct.pack(">I", zlib.crc32(body, zlib.crc32(kind))) != checksum:
        return False
    if kind not in _TEXTS:
        return True
    limit = PngImagePlugin.MAX_TEXT_CHUNK
    if len(body) > limit:
        return False
    packed = body.partition(b"\0")[2]
    if kind == b"iTXt":
        if not packed[:1] == b"\1":
            return True
        packed = packed[2:].split(b"\0", 2)[-1]
    elif kind == b"zTXt":
        packed = packed[1:]
    else:
        return True
    unpacking = zlib.decompressobj()
    try:
        unpacking.decompress(packed, limit)
    except zlib.error:
        return False
    return not unpacking.unconsumed_tail
