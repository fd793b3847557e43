"""Texts and profiles in a PNG, over Pillow's limits or damaged: the picture is used; damaged pixels are damaged."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tests.support.photos import photo
from unfreeze.data.decode import decode, header
from unfreeze.data.formats.png import without_extras
from unfreeze.data.image_file import open_regular
from unfreeze.data.unusable import Undecodable

EXIF = Image.Exif()
EXIF[0x0112] = 6
PIXELS = np.asarray(photo(0, 48, 32))


def info(*texts: tuple[str, bool]) -> PngInfo:
    made = PngInfo()
    for text, packed in texts:
        made.add_text("workflow", text, zip=packed)
    return made


def chunk(kind: bytes, content: bytes, checksum: int = 0) -> bytes:
    found = zlib.crc32(content, zlib.crc32(kind)) ^ checksum
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", found)


def put(path: Path, extra: bytes, last: bool = False) -> None:
    """Put a chunk into a PNG file, before its pixels or behind them."""
    content = path.read_bytes()
    place = content.rindex(b"IEND" if last else b"IDAT") - 4 if last else content.index(b"IDAT") - 4
    path.write_bytes(content[:place] + extra + content[place:])


LARGE = {
    "packed text": {"pnginfo": info(("[1,2,3]," * 200_000, True))},
    "text": {"pnginfo": info(*[("x" * 1_000_000, False)] * 70)},
    "profile": {"icc_profile": b"\0" * 4 + np.random.default_rng(0).bytes(700_000) + b"\0" * 500_000},
}


@pytest.mark.parametrize("what", LARGE)
def test_what_is_larger_than_pillow_takes_costs_no_picture(tmp_path, what):
    Image.fromarray(PIXELS).save(tmp_path / "a.png", exif=EXIF, **LARGE[what])
    with pytest.raises(ValueError, match="(?i)too large|too much"):
        Image.open(tmp_path / "a.png").load()
    shown = np.asarray(decode(tmp_path / "a.png"))
    assert (shown == np.rot90(PIXELS, -1)).all()
    with open_regular(tmp_path / "a.png") as file:
        assert header(file) == ("RGB", (32, 48), ("PNG", False))


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("kind", [b"tEXt", b"iTXt", b"zTXt", b"iCCP", b"gAMA", b"eXIf", b"abCd"])
def test_a_wrong_checksum_of_what_is_not_pixels_costs_no_picture(tmp_path, kind, last):
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    put(tmp_path / "a.png", chunk(kind, b"some\0\0\0thing", checksum=1), last)
    assert (np.asarray(decode(tmp_path / "a.png")) == PIXELS).all()


@pytest.mark.parametrize("kind", [b"IDAT", b"PLTE", b"IHDR"])
def test_damaged_pixels_are_damaged_whatever_is_beside_them(tmp_path, kind):
    Image.fromarray(PIXELS).quantize(16).save(tmp_path / "a.png", **LARGE["packed text"])
    content = bytearray((tmp_path / "a.png").read_bytes())
    content[content.index(kind) + 5] ^= 4
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(Undecodable, match=r"^damaged$"):
        decode(tmp_path / "a.png")


def test_a_bomb_in_a_text_is_never_unpacked(tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    put(tmp_path / "a.png", chunk(b"zTXt", b"bomb\0\0" + zlib.compress(bytes(2**28), 9)))
    assert (np.asarray(decode(tmp_path / "a.png")) == PIXELS).all()


def test_only_what_hinders_goes(tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / "a.png", exif=EXIF, pnginfo=info(("fine", True), ("fine", False)))
    with open_regular(tmp_path / "a.png") as file:
        assert without_extras(file) is None
    put(tmp_path / "a.png", chunk(b"tIME", b"1234567", checksum=1))
    with open_regular(tmp_path / "a.png") as file:
        lighter = without_extras(file)
    assert lighter is not None
    assert Image.open(lighter).text == {"workflow": "fine"}
    photo(1, 48, 32).save(tmp_path / "b.jpg")
    with open_regular(tmp_path / "b.jpg") as file:
        assert without_extras(file) is None
