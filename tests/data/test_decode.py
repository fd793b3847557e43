import hashlib
import importlib
import io
import os
import pkgutil
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageFile

import unfreeze
from tests.support.photos import photo
from tests.support.pictures import png, smooth
from tests.support.watched import within
from unfreeze.data.decode import Truncated, decode, load, to_rgb
from unfreeze.data.formats.reading import MAX_PIXELS, Reading
from unfreeze.data.image_file import FORMATS, digest, open_regular, quiet_pillow
from unfreeze.data.unusable import Undecodable

SHARED = Path(__file__).parents[2] / "../shared/data"


def pixels(path: Path) -> np.ndarray:
    image = decode(path)
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


def reason(path: Path) -> str:
    with quiet_pillow(), pytest.raises(Undecodable) as caught, open_regular(path) as file:
        to_rgb(load(file))
    assert str(caught.value) == caught.value.reason
    return caught.value.reason


BACK = {  # what turns the upright picture into what is stored under each orientation
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, -1),
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_the_exif_orientation_is_applied(tmp_path, form, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(BACK[orientation](smooth())))
    extra = {"JPEG": {"quality": 98, "subsampling": 0}, "WEBP": {"lossless": True}}.get(form, {})
    stored.save(tmp_path / "a", format=form, exif=exif, **extra)
    difference = np.abs(pixels(tmp_path / "a") - smooth())
    assert difference.mean() <= (2 if form == "JPEG" else 0)


@pytest.mark.parametrize("value", [0, 9, 77])
def test_an_orientation_that_does_not_exist_is_none(tmp_path, value):
    exif = Image.Exif()
    exif[0x0112] = value
    Image.fromarray(smooth()).save(tmp_path / "a.png", exif=exif)
    assert (pixels(tmp_path / "a.png") == smooth()).all()


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_damaged_exif_block_says_nothing(tmp_path):
    Image.fromarray(smooth()).save(tmp_path / "a.png", exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff\x00")
    assert (pixels(tmp_path / "a.png") == smooth()).all()


@pytest.mark.parametrize(
    ("mode", "form"),
    [
        ("RGB", "PNG"),
        ("RGBA", "PNG"),
        ("RGB", "BMP"),
        ("RGB", "WEBP"),
        ("RGBA", "WEBP"),
        ("RGB", "TIFF"),
        ("RGBA", "TIFF"),
        ("CMYK", "TIFF"),
        ("CMYK", "JPEG"),
        ("RGB", "JPEG"),
        ("YCbCr", "TIFF"),
    ],
)
def test_an_opaque_picture_is_the_same_in_every_mode(tmp_path, mode, form):
    extra = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}.get(form, {})
    Image.fromarray(smooth()).convert(mode).save(tmp_path / "a", format=form, **extra)
    rounding = 4 if (mode, form) in (("RGB", "JPEG"), ("YCbCr", "TIFF")) else 2  # luma and chroma in 8 bits each
    assert np.abs(pixels(tmp_path / "a") - smooth()).max() <= rounding


@pytest.mark.parametrize(("mode", "form"), [("L", "PNG"), ("L", "JPEG"), ("LA", "PNG"), ("P", "PNG"), ("P", "GIF")])
def test_grey_and_palette_pictures_become_rgb(tmp_path, mode, form):
    grey = np.repeat(np.arange(0, 256, 4, dtype=np.uint8)[None], 32, axis=0)
    extra = {"quality": 100} if form == "JPEG" else {}
    Image.fromarray(grey).convert(mode).save(tmp_path / "a", format=form, **extra)
    assert np.abs(pixels(tmp_path / "a") - grey[..., None]).max() <= 2


def test_one_bit_becomes_black_and_white(tmp_path):
    Image.fromarray(np.array([[True, False]])).save(tmp_path / "a.png")
    assert pixels(tmp_path / "a.png").tolist() == [[[255] * 3, [0] * 3]]


@pytest.mark.parametrize("form", ["PNG", "WEBP", "TIFF"])
def test_alpha_is_composited_on_white(tmp_path, form):
    rgba = np.array([[[10, 20, 30, 255], [10, 20, 30, 0], [10, 20, 30, 51]]], dtype=np.uint8)
    extra = {"lossless": True, "exact": True} if form == "WEBP" else {}
    Image.fromarray(rgba).save(tmp_path / "a", format=form, **extra)
    assert pixels(tmp_path / "a").tolist() == [[[10, 20, 30], [255, 255, 255], [206, 208, 210]]]


def test_grey_alpha_is_composited_on_white(tmp_path):
    Image.fromarray(np.array([[[10, 255], [10, 0], [10, 51]]], dtype=np.uint8), "LA").save(tmp_path / "a.png")
    assert pixels(tmp_path / "a.png")[0, :, 0].tolist() == [10, 255, 206]


@pytest.mark.parametrize("transparency", [1, bytes([255, 0, 51])])
def test_transparent_palette_entries_are_composited_on_white(tmp_path, transparency):
    image = Image.fromarray(np.array([[0, 1, 2]], dtype=np.uint8), "P")
    image.putpalette([10, 20, 30, 40, 50, 60, 10, 20, 30])
    image.save(tmp_path / "a.png", transparency=transparency)
    last = [206, 208, 210] if isinstance(transparency, bytes) else [10, 20, 30]
    assert pixels(tmp_path / "a.png").tolist() == [[[10, 20, 30], [255, 255, 255], last]]


@pytest.mark.parametrize(
    ("depth", "colour", "row", "key", "expected"),
    [
        (1, 0, bytes([0b01000000]), b"\x00\x01", [0, 255]),  # the white one is transparent, hence white
        (1, 0, bytes([0b01000000]), b"\x00\x00", [255, 255]),
        (2, 0, bytes([0b01100000]), b"\x00\x01", [255, 170]),
        (4, 0, bytes([0x3A]), b"\x00\x03", [255, 170]),
        (8, 0, bytes([3, 9]), b"\x00\x03", [255, 9]),
        (16, 0, bytes([3, 7, 3, 8]), b"\x03\x07", [255, 3]),
        (8, 2, bytes([3, 3, 3, 9, 9, 9]), b"\x00\x03" * 3, [255, 9]),
        (16, 2, bytes([3, 7] * 3 + [9, 7] * 3), b"\x03\x07" * 3, [255, 9]),
    ],
)
def test_a_transparent_colour_is_white_at_every_depth(tmp_path, depth, colour, row, key, expected):
    (tmp_path / "a.png").write_bytes(png(2, 1, depth, colour, b"\x00" + row, tRNS=key))
    assert pixels(tmp_path / "a.png")[0, :, 0].tolist() == expected


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_and_not_clipped(tmp_path, form):
    ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    Image.fromarray(ramp).save(tmp_path / "a", format=form)
    assert (pixels(tmp_path / "a") == (ramp >> 8)[..., None]).all()


def test_sixteen_bit_colour_is_scaled(tmp_path):
    row = b"\x00" + bytes([0x12, 0xFF, 0x34, 0x00, 0xFF, 0x80])
    (tmp_path / "a.png").write_bytes(png(1, 1, 16, 2, row))
    assert pixels(tmp_path / "a.png").tolist() == [[[0x12, 0x34, 0xFF]]]


@pytest.mark.parametrize(
    ("dtype", "value"), [(np.int32, -1), (np.int32, 65_536), (np.float32, -0.5), (np.float32, np.nan)]
)
def test_values_without_a_known_range_are_refused(tmp_path, dtype, value):
    Image.fromarray(np.full((2, 2), value, dtype)).save(tmp_path / "a.tif")
    assert reason(tmp_path / "a.tif") == (
        "values below 0 or above 65,535, so nothing says which is white: scale them, and save it as 8 or 16 bits"
    )


def test_inverted_sixteen_bits_are_refused(tmp_path):
    Image.fromarray(np.zeros((2, 2), np.uint16)).save(tmp_path / "a.tif", tiffinfo={262: 0})
    assert reason(tmp_path / "a.tif") == "16-bit values of which 0 is white: save it with 0 as black"


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize("profile", ["XYZ", "LAB", "none"])
def test_colour_profiles_are_not_applied(tmp_path, form, profile):
    extra = {"JPEG": {"quality": 98}, "WEBP": {"lossless": True}}.get(form, {})
    space = b"no profile" if profile == "none" else ImageCms.ImageCmsProfile(ImageCms.createProfile(profile)).tobytes()
    Image.fromarray(smooth()).save(tmp_path / "plain", format=form, **extra)
    Image.fromarray(smooth()).save(tmp_path / "profiled", format=form, icc_profile=space, **extra)
    assert space in (tmp_path / "profiled").read_bytes() or form == "PNG"  # there it is compressed
    assert (pixels(tmp_path / "profiled") == pixels(tmp_path / "plain")).all()


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG", "TIFF", "MPO"])
def test_the_first_frame_counts(tmp_path, form):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    extra = {"lossless": True} if form == "WEBP" else {}
    frames[0].save(tmp_path / "a", format=form, save_all=True, append_images=frames[1:], **extra)
    assert np.abs(pixels(tmp_path / "a") - [255, 0, 0]).max() <= 1


def test_the_content_says_the_format_and_not_the_name(tmp_path):
    Image.fromarray(smooth()).save(tmp_path / "a.jpg", format="PNG")
    assert (pixels(tmp_path / "a.jpg") == smooth()).all()


@pytest.mark.parametrize("form", FORMATS)
def test_a_truncated_file_is_not_used(tmp_path, form):
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, format=form)
    content = file.getvalue()
    for percent in range(10, 100):
        (tmp_path / "a").write_bytes(content[: len(content) * percent // 100])
        assert reason(tmp_path / "a") in ("truncated", "damaged"), percent
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


@pytest.mark.parametrize("progressive", [False, True])
def test_of_a_truncated_jpeg_there_is_what_came_before_the_end(tmp_path, progressive):
    photo(3, 240, 160).save(tmp_path / "a", format="JPEG", quality=90, progressive=progressive)
    content, whole = (tmp_path / "a").read_bytes(), pixels(tmp_path / "a")
    shown = 0
    for percent in range(5, 100, 5):
        (tmp_path / "a").write_bytes(content[: len(content) * percent // 100])
        try:
            with open_regular(tmp_path / "a") as file:
                load(file)
        except Truncated as error:
            assert error.image.size == (240, 160)
            cut = pixels(tmp_path / "a")
            same = (cut == whole).all(axis=(1, 2))
            rows = int(same.argmin())  # whole rows of blocks, from the top
            assert not same.all()
            if not progressive:
                assert (cut[-1, -8:] == 128).all()
                assert rows >= 160 * (percent - 45) / 100
            else:
                assert np.abs(cut - whole).mean() < 40
            shown += 1
        except Undecodable as error:
            assert error.reason == "truncated"  # noqa: PT017 (within the header there is no picture yet)
        else:
            pytest.fail(f"whole at {percent} %")
    assert shown > 12
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


def test_a_jpeg_of_many_frames_can_be_truncated_too(tmp_path):
    frames = [photo(number, 64, 48) for number in range(2)]
    frames[0].save(tmp_path / "a", format="MPO", save_all=True, append_images=frames[1:])
    content = (tmp_path / "a").read_bytes()
    (tmp_path / "a").write_bytes(content[: len(content) * 2 // 5])
    assert reason(tmp_path / "a") == "truncated"
    assert pixels(tmp_path / "a").shape == (48, 64, 3)


VIDEO = "video is not supported: take frames out of it (ffmpeg -i FILE frame%03d.png)"
RAW = "raw camera file, of which only a preview opens: develop it, and save it as TIFF or JPEG"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "empty file"),
        (b"not a picture, but a text", "not an image"),
        (b"<html><body></body></html>", "web page in place of the file: download it again"),
        (b"\xef\xbb\xbf\n<!DOCTYPE html>\n<title>", "web page in place of the file: download it again"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "svg is not supported: convert it to png"),
        (b"<?xml version='1.0'?>\n<!-- by hand --><svg width='9'>", "svg is not supported: convert it to png"),
        (b"<?xml version='1.0'?><annotation/>", "not an image"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
            "Git LFS pointer in place of the file: git lfs pull",
        ),
        (b"%PDF-1.7\n", "pdf is not supported: convert its pages to jpeg or png"),
        (b"\x00\x00\x00\x18ftypisom\x00\x00\x02\x00isomiso2", VIDEO),
        (b"\x00\x00\x00\x14ftypqt  ", VIDEO),
        (b"RIFF\x00\x10\x00\x00AVI LIST", VIDEO),
        (b"\x1aE\xdf\xa3\x01", VIDEO),
        (b"PK\x03\x04" + bytes(40), "archive is not supported: unpack it"),
        (b"FUJIFILMCCD-RAW 0201", RAW),
        (b"IIU\x00\x18\x00\x00\x00", RAW),
        (b"\x00\x00\x00\x18ftypcrx \x00\x00\x00\x01", RAW),
        (
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
            "postscript is not supported: convert it to jpeg or png",
        ),
        (b"8BPS\x00\x01" + bytes(40), "photoshop is not supported: convert it to jpeg or png"),
        (b"SIMPLE  =                    T", "fits is not supported: convert it to jpeg or png"),
        (b"\xff\xd8\xff", "damaged"),
        (b"\x89PNG\r\n\x1a\n", "damaged"),
        (b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00", "heic is not supported: convert it to jpeg or png"),
        (b"\x00\x00\x00\x18ftypavif\x00\x00\x00\x00", "avif is not supported: convert it to jpeg or png"),
        (b"\x00\x00\x00\x0cjP  \r\n\x87\n", "jpeg 2000 is not supported: convert it to jpeg or png"),
        (b"\xff\x0a\x00\x00", "jpeg xl is not supported: convert it to jpeg or png"),
    ],
)
def test_what_is_not_an_image_says_so(tmp_path, content, expected, monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", None)  # no Ghostscript, no anything
    (tmp_path / "a.jpg").write_bytes(content)
    assert reason(tmp_path / "a.jpg") == expected


def test_a_plugin_for_another_format_changes_nothing(tmp_path, monkeypatch):
    """What is read depends on the list of formats, never on what is installed beside."""
    content = b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00"
    (tmp_path / "a.heic").write_bytes(content)
    Image.init()
    monkeypatch.setitem(Image.OPEN, "HEIF", (lambda *_: Image.new("RGB", (8, 8)), lambda start: start[4:8] == b"ftyp"))
    monkeypatch.setattr(Image, "ID", [*Image.ID, "HEIF"])
    assert Image.open(io.BytesIO(content)).size == (8, 8)  # Pillow itself would use it
    assert reason(tmp_path / "a.heic") == "heic is not supported: convert it to jpeg or png"


@pytest.mark.parametrize(("form", "told"), [("AVIF", "avif"), ("JPEG2000", "jpeg 2000")])
def test_formats_that_pillow_reads_and_we_do_not(tmp_path, form, told):
    Image.fromarray(smooth()).save(tmp_path / "a.jpg", format=form)
    assert reason(tmp_path / "a.jpg") == f"{told} is not supported: convert it to jpeg or png"


def test_nothing_that_is_imported_makes_pillow_accept_truncated_files():
    for module in pkgutil.walk_packages(unfreeze.__path__, "unfreeze."):
        importlib.import_module(module.name)
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False
    assert Image.MAX_IMAGE_PIXELS == MAX_PIXELS


BOMB = "too large, more than 89.5 million pixels: "


@pytest.mark.parametrize("side", [9_600, 20_000])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_bomb_is_refused_from_its_header(tmp_path, side):
    (tmp_path / "a.png").write_bytes(png(side, side, 1, 0, b""))
    assert reason(tmp_path / "a.png") == BOMB + f"--set check.max_pixels={'120M' if side == 9_600 else '500M'}"


def test_a_bomb_is_refused_where_warnings_are_errors(tmp_path):
    (tmp_path / "a.png").write_bytes(png(9_600, 9_600, 1, 0, b""))
    assert reason(tmp_path / "a.png") == BOMB + "--set check.max_pixels=120M"
    assert MAX_PIXELS == Image.MAX_IMAGE_PIXELS


def test_a_lying_gif_header_is_refused_without_memory(tmp_path):
    file = io.BytesIO()
    Image.new("P", (4, 4)).save(file, format="GIF")
    content = bytearray(file.getvalue())
    content[6:10] = b"\xff\xff\xff\xff"
    (tmp_path / "a.gif").write_bytes(content)
    assert reason(tmp_path / "a.gif") == BOMB + "cut it up, or make it smaller"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no named pipes in folders")
def test_a_pipe_is_never_opened(tmp_path):
    os.mkfifo(tmp_path / "a.jpg")
    assert within(5, lambda: reason(tmp_path / "a.jpg")) == "not a regular file"


def test_a_missing_file_and_a_folder_say_so(tmp_path):
    assert reason(tmp_path / "a.jpg") == "cannot be read: no such file or directory"
    assert reason(tmp_path) == "not a regular file"


@pytest.mark.parametrize("size", [(1, 1), (1, 10_000), (10_000, 1)])
def test_extreme_shapes_are_pictures(tmp_path, size):
    Image.new("RGB", size, "red").save(tmp_path / "a.png")
    assert decode(tmp_path / "a.png").size == size


def encodings() -> list[bytes]:
    image, found = Image.fromarray(smooth(16, 12)), []
    for form in FORMATS:
        for mode in {"JPEG": ["RGB", "L", "CMYK"], "WEBP": ["RGB", "RGBA"]}.get(form, ["RGB", "L", "P", "1"]):
            file = io.BytesIO()
            image.convert(mode).save(file, format=form)
            found.append(file.getvalue())
    return found


ENCODINGS = encodings()


@pytest.mark.filterwarnings("ignore")
@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_mutated_files_decode_or_are_undecodable(tmp_path, data):
    content = bytearray(data.draw(st.sampled_from(ENCODINGS)))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    (tmp_path / "a").write_bytes(content)
    try:
        assert decode(tmp_path / "a").mode == "RGB"
    except Undecodable as error:
        assert error.reason and error.reason == error.reason.replace("\n", " ")


@pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/data is not here")
def test_real_photographs_decode():
    paths = sorted(SHARED.glob("*/*/*.jpg"))[::200]
    assert paths
    for path in paths:
        assert min(decode(path).size) >= 128


@pytest.mark.parametrize("size", [0, 1, 2**20 - 1, 2**20, 2**20 + 1, 3 * 2**20])
def test_the_digest_is_that_of_the_whole_content(tmp_path, size):
    content = np.random.default_rng(size).bytes(size)
    (tmp_path / "a").write_bytes(content)
    with open_regular(tmp_path / "a") as file:
        assert digest(file) == hashlib.sha256(content).hexdigest()
        assert file.read() == content


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "BMP", "GIF"])
def test_a_picture_over_the_limit_is_read_where_it_is_allowed(tmp_path, form):
    Image.fromarray(smooth()).save(tmp_path / "a", format=form)
    with pytest.raises(Undecodable) as caught:
        decode(tmp_path / "a", reading=Reading(max_pixels=48 * 32 - 1))
    assert caught.value.size == (48, 32)
    assert decode(tmp_path / "a", reading=Reading(max_pixels=48 * 32)).size == (48, 32)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF"])
def test_pillows_own_bound_stops_nobody_who_allows_more(tmp_path, monkeypatch, form):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    Image.fromarray(smooth()).save(tmp_path / "a", format=form)
    with quiet_pillow():
        assert decode(tmp_path / "a").size == (48, 32)


TELLING = """
import sys
from pathlib import Path
from unfreeze.config.schema import CheckConfig
from unfreeze.data import scan
from unfreeze.data.catalog import build_catalog, preview_catalog
from unfreeze.data.sources import open_source
source = open_source(sys.argv[1], {}, Path.cwd())
print(len(preview_catalog(source).images), len(build_catalog(source).images))
scan._MANY = 4
print(len(build_catalog(source, check=CheckConfig(bands=(0, 1, 2))).images))
"""


def noisy_files(root: Path) -> int:
    """Write files of which libraries print or log what is wrong with them; return how many there are."""
    noise = np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)
    count = 0
    for label in "ab":
        (root / label).mkdir(parents=True)
        for compression in ("tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits"):
            file = io.BytesIO()
            Image.fromarray(noise).save(file, "TIFF", compression=compression)
            for place in range(200, len(file.getvalue()), len(file.getvalue()) // 5):
                content = bytearray(file.getvalue())
                content[place : place + 40] = bytes([label == "a"]) * 40
                (root / label / f"{compression}{place}.tif").write_bytes(content)
                count += 1
        file = io.BytesIO()
        Image.fromarray(noise).save(file, "TIFF", tiffinfo={277: 300 + (label == "a")})
        many = bytearray(file.getvalue())
        place = many.index(struct.pack("<HHI", 277, 3, 1))
        many[place + 8 : place + 10] = struct.pack("<H", 300 + (label == "a"))
        (root / label / "many.tif").write_bytes(many)
        Image.fromarray(noise).save(root / label / "odd.png", exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff\x00")
        count += 2
    return count


def test_nothing_that_libraries_say_reaches_the_terminal(tmp_path):
    count = noisy_files(tmp_path)
    done = subprocess.run(
        [sys.executable, "-W", "default", "-c", TELLING, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == (f"{count} {count}\n{count}\n", "")
