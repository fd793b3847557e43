"""The nasty pack: a folder with every kind of file that a check has to survive, each with what must become of it."""

import io
import os
import socket
import struct
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms

from tests.support.photos import photo
from tests.support.pictures import png
from unfreeze.data.catalog import SEVERAL
from unfreeze.data.unusable import NO_RANGE

USED = "used"
BOMB = "too large, more than 89.5 million pixels: "
BIGGER = {"lying.png": "--set check.max_pixels=120M", "bomb.png": "--set check.max_pixels=500M"}
BIGGER |= {"lying.bmp": "--set check.max_pixels=1000M"}
TRUNCATED = "truncated"
FORMS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
SUFFIX = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp", "GIF": "gif", "BMP": "bmp", "TIFF": "tif"}
STORED = {  # by EXIF orientation, what turns the upright picture into what is stored
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def written(picture: Image.Image, form: str, **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, format=form, **options)
    return file.getvalue()


def upright(orientation: int, form: str) -> bytes:
    """One and the same picture, stored turned."""
    exif, turn, picture = Image.Exif(), STORED[orientation], photo(900, 48, 32)
    exif[0x0112] = orientation
    return written(picture if turn is None else picture.transpose(turn), form, exif=exif)


def _no_images() -> Iterator[tuple[str, bytes, str]]:
    """Files that are no images, or of formats that are not allowed, whatever their names."""
    yield "empty.jpg", b"", "empty file"
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("a.png", written(photo(1, 8, 8), "PNG"))
    contents = {
        "text.jpg": b"not a picture, but a text",
        "targa.bmp": written(photo(3, 8, 8), "TGA"),
        "icon.png": written(photo(4, 16, 16), "ICO"),
        "icon_bomb.png": b"\x00\x00\x01\x00\x01\x00" + struct.pack("<BBBBHHII", 0, 0, 0, 0, 1, 32, 2**31, 22),
        "pickle.png": b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x94.",
        "zeros.jpg": bytes(4096),
    }
    yield from ((name, content, "not an image") for name, content in contents.items())
    jpeg = "convert it to jpeg or png"
    yield "page.jpg", b"<html><body></body></html>", "web page in place of the file: download it again"
    yield "pixmap.png", written(photo(2, 8, 8), "PPM"), "ppm is not supported: convert it to jpeg or png"
    yield "drawing.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "svg is not supported: convert it to png"
    figure = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(x) run\n"
    yield "figure.png", figure, f"postscript is not supported: {jpeg}"
    yield "layers.png", b"8BPS\x00\x01" + bytes(40), f"photoshop is not supported: {jpeg}"
    yield "sky.png", b"SIMPLE  =                    T" + bytes(2880), f"fits is not supported: {jpeg}"
    yield "paper.png", b"%PDF-1.7\n", "pdf is not supported: convert its pages to jpeg or png"
    film = b"\x00\x00\x00\x18ftypisom\x00\x00\x02\x00isomiso2"
    yield "film.jpg", film, "video is not supported: take frames out of it (ffmpeg -i FILE frame%03d.png)"
    yield "archive.png", archive.getvalue(), "archive is not supported: unpack it"
    for name, content in {
        "start.jpg": b"\xff\xd8\xff",
        "start.png": b"\x89PNG\r\n\x1a\n",
        "start.gif": b"GIF89a",
    }.items():
        yield name, content, "damaged"
    others = {
        "heic": b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00",
        "avif": written(photo(5, 32, 32), "AVIF"),  # both whole: with the plugin at hand they are not used either
        "jpeg 2000": written(photo(6, 32, 32), "JPEG2000"),
        "jpeg xl": b"\xff\x0a\x00\x00",
    }
    for name, content in others.items():
        yield f"{name.replace(' ', '')}.jpg", content, f"{name} is not supported: convert it to jpeg or png"


def _cut() -> Iterator[tuple[str, bytes, str]]:
    for number, form in enumerate(FORMS):
        content = written(photo(20 + number, 60, 40), form)
        yield f"cut.{SUFFIX[form]}", content[: len(content) * 3 // 5], "damaged" if form == "WEBP" else TRUNCATED
    content = written(photo(30, 60, 40), "JPEG")
    for percent in (10, 50, 99):
        yield f"cut{percent}.jpg", content[: len(content) * percent // 100], TRUNCATED
    flipped = bytearray(written(photo(31, 60, 40), "PNG"))
    flipped[len(flipped) // 2] ^= 4
    yield "flipped.png", bytes(flipped), "damaged"


def bomb_reason(name: str) -> str:
    """Why a bomb is refused; what a larger picture would be allowed by, where it could be one."""
    start = "too large, more than 179 million pixels: " if name.endswith("webp") else BOMB
    return start + BIGGER.get(name, "cut it up, or make it smaller")


def bombs() -> dict[str, bytes]:
    """Small files that ask for much memory."""
    rows = b"\x00" * 2501 * 20_000
    gif = bytearray(written(Image.new("P", (4, 4)), "GIF"))
    gif[6:10] = b"\xff\xff\xff\xff"
    bmp = bytearray(written(photo(7, 8, 8), "BMP"))
    bmp[18:26] = struct.pack("<ii", 30_000, 30_000)
    tiff = bytearray(written(photo(8, 8, 8), "TIFF"))
    for tag in (256, 257):  # width and height
        place = tiff.index(struct.pack("<HH", tag, 3)) if struct.pack("<HH", tag, 3) in tiff else -1
        place = place if place >= 0 else tiff.index(struct.pack("<HH", tag, 4))
        tiff[place + 2 : place + 12] = struct.pack("<HII", 4, 1, 60_000)
    webp = b"VP8L" + struct.pack("<I", 8) + b"\x2f" + struct.pack("<I", 16_383 | 16_383 << 14) + b"\x00\x00\x00"
    return {
        "bomb.png": png(20_000, 20_000, 1, 0, rows),
        "lying.png": png(9_600, 9_600, 1, 0, b""),
        "lying.gif": bytes(gif),
        "lying.bmp": bytes(bmp),
        "lying.tif": bytes(tiff),
        "lying.webp": b"RIFF" + struct.pack("<I", 4 + len(webp)) + b"WEBP" + webp,
    }


def _shapes_and_modes() -> Iterator[tuple[str, bytes, str]]:
    """Pictures that must be used as they are."""
    noise = np.random.default_rng(0).integers(0, 255, (10_000, 3), dtype=np.uint8)
    for name, shape in (("point", (1, 1, 3)), ("high", (10_000, 1, 3)), ("wide", (1, 10_000, 3))):
        count = shape[0] * shape[1]
        yield f"{name}.png", written(Image.fromarray(noise[:count].reshape(shape)), "PNG"), USED
    for orientation in STORED:
        yield f"exif{orientation}.png", upright(orientation, "PNG"), USED
    yield "damaged_exif.png", written(photo(40, 48, 32), "PNG", exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff\x00"), USED
    rgba = photo(42, 48, 32).convert("RGBA")
    rgba.putalpha(Image.linear_gradient("L").resize((48, 32)).point(lambda value: 0 if value < 200 else value))
    pictures = {
        "cmyk.jpg": photo(41, 48, 32).convert("CMYK"),
        "alpha.png": rgba,
        "alpha.webp": photo(44, 48, 32).convert("RGBA"),
        "grey_alpha.png": photo(45, 48, 32).convert("LA"),
        "grey.jpg": photo(46, 48, 32).convert("L"),
        "bits.png": photo(47, 48, 32).convert("1"),
        "bits.tif": photo(48, 48, 32).convert("1"),
        "palette.gif": photo(49, 48, 32).convert("P"),
        "ycbcr.tif": photo(50, 48, 32).convert("YCbCr"),
        "deep.png": Image.fromarray(np.asarray(photo(51, 48, 32).convert("L")).astype(np.uint16) << 8),
    }
    forms = {suffix: form for form, suffix in SUFFIX.items()}
    for name, picture in pictures.items():
        yield name, written(picture, forms[name.split(".")[1]]), USED
    clear = photo(52, 48, 32).convert("P")
    yield "clear.png", written(clear, "PNG", transparency=bytes(range(256))), USED
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    yield "profile.jpg", written(photo(53, 48, 32), "JPEG", icc_profile=srgb), USED
    yield "damaged_profile.png", written(photo(54, 48, 32), "PNG", icc_profile=b"no profile"), USED
    for mode, dtype in (("I", np.int32), ("F", np.float32)):
        values = Image.fromarray(np.full((2, 2), -1, dtype))
        yield f"{mode}.tif", written(values, "TIFF"), NO_RANGE


def _noted() -> Iterator[tuple[str, bytes, str]]:
    for number, form in enumerate(("GIF", "WEBP", "PNG", "TIFF", "MPO")):
        frames = [photo(60 + 2 * number + later, 48, 32) for later in (0, 1)]
        content = written(frames[0], form, save_all=True, append_images=frames[1:])
        yield f"several.{SUFFIX.get(form, 'jpg')}", content, f"{USED}: {SEVERAL}"
    yield "really_png.jpg", written(photo(70, 48, 32), "PNG"), f"{USED}: PNG by its content"
    yield "really_jpeg.HEIC", written(photo(71, 48, 32), "JPEG"), f"{USED}: JPEG by its content"
    yield "no_suffix", written(photo(72, 48, 32), "JPEG"), USED


def names() -> list[bytes]:
    """Names of files that are hard on a program; NFC and NFD of one, and two that differ in case, are two files."""
    return [
        "caf\u00e9.png".encode(), "cafe\u0301.png".encode(), b"caf\xe9.png", "\U0001f600.png".encode(),
        b"two\nlines.png",
        b"x" * 251 + b".png", b"CON", b"dot.", b"Case.png", b"case.png", b"-rf.png", b"=1+1.png", b"a\\b.png", b" .png",
        b"%2e%2e%2fx.png", "\u202egnp.png".encode(), b"<script>alert(1)<_script>.png", b"a,\"b'.png",
    ]  # fmt: skip


HIDDEN = (
    "._x.jpg",
    "Thumbs.db",
    ".DS_Store",
    "desktop.ini",
    "__MACOSX/x.png",
    ".ipynb_checkpoints/x.png",
    ".git/x.png",
)


def write_pack(root: Path) -> dict[str, str]:
    """Write the pack below a folder; return what must become of each file or folder, by its path as a source has it.

    That is ``used``, perhaps followed by a note, or the reason why it is set aside or ignored. All that is used is of
    class ``a``, but for the odd names, which are of class ``b``.
    """
    expected: dict[str, str] = {}
    for label in "ab":
        (root / label).mkdir(parents=True)
    bombed = ((name, content, bomb_reason(name)) for name, content in bombs().items())
    for name, content, outcome in [*_no_images(), *_cut(), *bombed, *_shapes_and_modes(), *_noted()]:
        (root / "a" / name).write_bytes(content)
        expected[f"a/{name}"] = outcome
    plain = [f"{number}.png" for number in range(4)] + ["deep/er/1.png"]
    for number, name in enumerate(plain + ([os.fsdecode(name) for name in names()] if sys.platform == "linux" else [])):
        path = root / "b" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(written(photo(100 + number, 48, 32), "PNG"))
        expected[f"b/{name}"] = USED
    for name in HIDDEN:
        path = root / "a" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
        expected[f"a/{name.split('/')[0]}" + "/" * ("/" in name)] = "hidden" if name == ".git/x.png" else "system files"
    (root / "lost.png").write_bytes(written(photo(200, 48, 32), "PNG"))
    expected["lost.png"] = "not in a class folder"
    if sys.platform != "win32":
        expected |= _links_and_pipes(root)
    return expected


def _links_and_pipes(root: Path) -> dict[str, str]:
    outside = root.parent / "outside"
    outside.mkdir()
    (outside / "x.png").write_bytes(written(photo(201, 48, 32), "PNG"))
    links = {
        "out.png": outside / "x.png", "zero.png": Path("/dev/zero"), "broken.png": root / "gone.png",
        "self.png": root / "b" / "self.png", "loop": root, "away": outside, "beside": root / "a",
    }  # fmt: skip
    for name, target in links.items():
        (root / "b" / name).symlink_to(target)
    os.mkfifo(root / "b" / "pipe.png")
    with socket.socket(socket.AF_UNIX) as bound:
        here = Path.cwd()
        os.chdir(root / "b")  # a socket's path is short
        try:
            bound.bind("socket.png")
        finally:
            os.chdir(here)
    reasons = {
        "out.png": "link out of the folder", "zero.png": "link out of the folder", "broken.png": "broken link",
        "self.png": "broken link", "loop/": "link to a folder", "away/": "link to a folder",
        "beside/": "link to a folder", "pipe.png": "not a regular file", "socket.png": "not a regular file",
    }  # fmt: skip
    return {f"b/{name}": reason for name, reason in reasons.items()}
