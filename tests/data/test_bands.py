"""Files with two, four or more bands: a blend of bands, or some of them, is never used as the photograph."""

import io
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.photos import photo
from tests.support.pictures import png
from unfreeze.config.schema import CheckConfig
from unfreeze.data.catalog import build_catalog, used_keys
from unfreeze.data.decode import decode, header, load, mode_of
from unfreeze.data.formats.reading import USUAL, Reading
from unfreeze.data.image_file import open_regular
from unfreeze.data.sources import open_source
from unfreeze.data.unusable import Undecodable

RGB = Reading((0, 1, 2))
SAMPLES, EXTRA, PHOTOMETRIC = 277, 338, 262
NOISE = np.random.default_rng(0).integers(0, 256, (24, 32, 16), dtype=np.uint8)


def why(path: Path, reading: Reading = USUAL) -> str:
    with pytest.raises(Undecodable) as caught:
        decode(path, reading=reading)
    return caught.value.reason


def of_bands(count: int) -> str:
    return f"{count} bands: --set check.bands=[0,1,2] reads the first three as red, green and blue"


TWO = "2 bands: --set check.bands=[0] reads the first one, [1] the second one"
FOURTH = "the fourth band is not transparency: --set check.bands=[0,1,2] reads the other three"


IN_PLANES = "16-bit colour of which each band lies by itself: --set check.bands=[0,1,2] reads it"


def infrared(path: Path) -> np.ndarray:
    """A photograph with another measurement as its fourth band."""
    colours = np.asarray(photo(0, 48, 32))
    Image.fromarray(np.dstack([colours, np.asarray(photo(1, 48, 32).convert("L"))])).save(path)
    return colours


@pytest.mark.parametrize("form", ["png", "tif"])
def test_a_fourth_band_that_is_not_alpha_is_never_blended(tmp_path, form):
    colours = infrared(tmp_path / f"a.{form}")
    assert why(tmp_path / f"a.{form}") == FOURTH
    assert (np.asarray(decode(tmp_path / f"a.{form}", reading=RGB)) == colours).all()


def test_a_second_band_that_is_not_alpha_is_never_blended(tmp_path):
    both = np.dstack([np.asarray(photo(number, 48, 32).convert("L")) for number in (0, 1)])
    Image.fromarray(both).save(tmp_path / "a.png")
    assert why(tmp_path / "a.png") == (
        "the second band is not transparency: --set check.bands=[0] reads the first one alone"
    )
    for band in (0, 1):
        assert (np.asarray(decode(tmp_path / "a.png", reading=Reading((band,)))) == both[..., band, None]).all()


def test_a_picture_that_is_transparent_everywhere_is_reported(tmp_path):
    colours = np.asarray(photo(0, 48, 32))
    Image.fromarray(np.dstack([colours, np.zeros((32, 48), np.uint8)])).save(tmp_path / "a.png")
    assert why(tmp_path / "a.png") == ("transparent everywhere: --set check.bands=[0,1,2] reads it without its alpha")
    assert (np.asarray(decode(tmp_path / "a.png", reading=RGB)) == colours).all()


@pytest.mark.parametrize("alpha", ["cut out", "soft edge", "half", "opaque"])
def test_alpha_that_is_alpha_is_composited_as_before(tmp_path, alpha):
    across = np.tile(np.arange(48), (32, 1))
    levels = {
        "cut out": np.where(across < 20, 0, 255),
        "soft edge": np.clip((across - 16) * 16, 0, 255),
        "half": np.full((32, 48), 128),
        "opaque": np.full((32, 48), 255),
    }[alpha].astype(np.uint8)
    colours = np.asarray(photo(0, 48, 32))
    Image.fromarray(np.dstack([colours, levels])).save(tmp_path / "a.png")
    share = levels[..., None] / 255
    shown = np.asarray(decode(tmp_path / "a.png"))
    assert np.abs(shown - (colours * share + 255 * (1 - share))).max() <= 1


def test_sixteen_bit_colour_with_a_fourth_band(tmp_path):
    values = np.random.default_rng(1).integers(0, 4096, (8, 8, 4)).astype(np.uint16)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    (tmp_path / "a.png").write_bytes(png(8, 8, 16, 6, rows))
    shown = np.asarray(decode(tmp_path / "a.png", reading=Reading((2, 1, 0), 12)))
    assert (shown == values[..., [2, 1, 0]] >> 4).all()


def test_bands_turn_with_the_picture(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.dstack([NOISE[..., :3], NOISE[..., 3]])).save(tmp_path / "a.png", exif=exif)
    shown = np.asarray(decode(tmp_path / "a.png", reading=RGB))
    assert (shown == np.rot90(NOISE[..., :3], -1)).all()


@pytest.mark.parametrize("reading", [Reading((0,)), RGB, Reading((3, 2, 1))])
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "grey.png", "palette.png", "cmyk.tif"])
def test_files_of_one_or_three_bands_are_read_as_before(tmp_path, name, reading):
    modes = {"grey": "L", "palette": "P", "cmyk": "CMYK"}
    photo(0, 48, 32).convert(modes.get(name.split(".")[0], "RGB")).save(tmp_path / name)
    assert (np.asarray(decode(tmp_path / name, reading=reading)) == np.asarray(decode(tmp_path / name))).all()


def test_a_band_that_a_file_does_not_have_is_reported(tmp_path):
    infrared(tmp_path / "a.png")
    assert why(tmp_path / "a.png", Reading((4, 1, 2))) == (
        "4 bands, numbered from 0: check.bands asks for [4, 1, 2]; name others, as --set check.bands=[0,1,2]"
    )


def written(values: np.ndarray, planes: bool = False, **how) -> bytes:
    tifffile = pytest.importorskip("tifffile", reason="tifffile is not installed: pip install unfreeze[bands]")
    file = io.BytesIO()
    if planes:
        values = np.ascontiguousarray(np.moveaxis(values, 2, 0))
    how = {"photometric": "minisblack", "planarconfig": "separate" if planes else "contig", **how}
    tifffile.imwrite(file, values, **how)
    return file.getvalue()


@pytest.mark.parametrize("packed", [None, "zlib"])
@pytest.mark.parametrize("planes", [False, True])
@pytest.mark.parametrize("deep", [False, True], ids=["8 bits", "12 bits"])
@pytest.mark.parametrize("colours", ["minisblack", "rgb"])
@pytest.mark.parametrize("count", [2, 3, 4, 5, 6, 13])
def test_named_bands_of_a_tiff_are_read_and_others_reported(tmp_path, count, colours, deep, planes, packed):
    if colours == "rgb" and count < 3:
        pytest.skip("three bands make a colour")
    values = NOISE[..., :count].astype(np.uint16) * 16 + 7 if deep else NOISE[..., :count]
    (tmp_path / "a.tif").write_bytes(written(values, planes, photometric=colours, compression=packed))
    asked = Reading((0,) if count == 2 else (0, 1, 2), 12 if deep else 16)
    with open_regular(tmp_path / "a.tif") as file:
        told = header(file, asked)
    with open_regular(tmp_path / "a.tif") as file:
        assert told == (mode_of(load(file, reading=asked)), (32, 24), ("TIFF", False))
    expected = np.repeat(NOISE[..., :1], 3, axis=2) if count == 2 else NOISE[..., :3]
    assert (np.asarray(decode(tmp_path / "a.tif", reading=asked)) == expected).all()
    if count == 3 and colours == "rgb":
        if deep and planes:
            assert why(tmp_path / "a.tif", Reading(bits=12)) == (
                "16-bit colour of which each band lies by itself: --set check.bands=[0,1,2] reads it"
            )
        else:
            assert (np.asarray(decode(tmp_path / "a.tif", reading=Reading((), asked.bits))) == expected).all()
    else:
        reason = why(tmp_path / "a.tif", Reading(bits=asked.bits))
        others = {2: {TWO}, 4: {of_bands(4), FOURTH, IN_PLANES}}
        assert reason in others.get(count, {of_bands(count)})


def test_any_three_bands_and_any_one_may_be_named(tmp_path):
    (tmp_path / "a.tif").write_bytes(written(NOISE[..., :13]))
    for bands in ((3, 2, 1), (12, 0, 7), (11,)):
        shown = np.asarray(decode(tmp_path / "a.tif", reading=Reading(bands)))
        assert (shown == NOISE[..., list(bands)]).all()


def test_without_tifffile_the_extra_is_named(tmp_path, monkeypatch):
    (tmp_path / "a.tif").write_bytes(written(NOISE[..., :13]))
    monkeypatch.setitem(sys.modules, "tifffile", None)
    assert why(tmp_path / "a.tif") == of_bands(13)
    assert why(tmp_path / "a.tif", RGB) == 'these bands are read by tifffile: pip install "unfreeze[bands]"'


def test_five_bands_that_pillow_reads_need_no_tifffile(tmp_path, monkeypatch):
    (tmp_path / "a.tif").write_bytes(written(NOISE[..., :5], photometric="rgb"))
    monkeypatch.setitem(sys.modules, "tifffile", None)
    assert why(tmp_path / "a.tif") == of_bands(5)
    assert (np.asarray(decode(tmp_path / "a.tif", reading=RGB)) == NOISE[..., :3]).all()


def test_a_damaged_file_of_many_bands_is_damaged(tmp_path):
    content = written(NOISE[..., :13], compression="zlib")
    (tmp_path / "a.tif").write_bytes(content[: len(content) * 2 // 3])
    assert why(tmp_path / "a.tif", RGB) in ("damaged", "truncated")


def test_a_folder_of_many_bands_is_read_with_the_setting_in_the_message(tmp_path):
    for label in "ab":
        (tmp_path / label).mkdir()
        for number in range(3):
            values = np.roll(NOISE[..., :13].astype(np.uint16) * 32, 5 * number + 3 * (label == "b"), axis=0)
            (tmp_path / label / f"{number}.tif").write_bytes(written(values))
    source = open_source(str(tmp_path), {}, tmp_path)
    assert set(build_catalog(source).images["reason"]) == {of_bands(13)}
    catalog = build_catalog(source, check=CheckConfig(bands=(3, 2, 1)))
    assert set(catalog.images["mode"]) == {"13 bands;16"}
    assert catalog.reading == Reading((3, 2, 1), 13)
    assert all(key.endswith(".bands=3,2,1.bits=13") for key in used_keys(catalog))


PREVIEW = "a preview of another image comes first in it: save the image itself as a TIFF file of its own"
RAW = "raw camera file, of which only a preview opens: develop it, and save it as TIFF or JPEG"


@pytest.mark.parametrize(
    ("name", "tags", "expected"),
    [
        ("a.dng", {50706: b"\x01\x04\x00\x00", 254: 1}, RAW),
        ("a.nef", {254: 1, 271: "NIKON CORPORATION"}, RAW),
        ("A.ARW", {271: "SONY"}, RAW),
        ("a.tif", {50706: b"\x01\x04\x00\x00"}, RAW),
        ("a.tif", {254: 1}, PREVIEW),
    ],
)
def test_a_preview_is_never_taken_for_the_photograph(tmp_path, name, tags, expected):
    photo(0, 48, 32).save(tmp_path / name, format="TIFF", tiffinfo=tags)
    assert why(tmp_path / name) == expected
    with open_regular(tmp_path / name) as file, pytest.raises(Undecodable, match=expected.split(":")[0]):
        header(file)


def test_a_canon_raw_file_is_known_by_its_header(tmp_path):
    file = io.BytesIO()
    photo(0, 48, 32).save(file, format="TIFF")
    content = bytearray(b"II*\0\x10\0\0\0CR\x02\0\0\0\0\0" + file.getvalue()[8:])
    (tmp_path / "a.jpg").write_bytes(content)
    assert why(tmp_path / "a.jpg") == RAW


@pytest.mark.parametrize("name", ["a.tif", "page.TIFF"])
def test_a_tiff_file_of_several_pages_is_no_preview(tmp_path, name):
    pages = [photo(number, 48, 32) for number in (0, 1)]
    pages[0].save(tmp_path / name, format="TIFF", save_all=True, append_images=pages[1:])
    assert (np.asarray(decode(tmp_path / name)) == np.asarray(pages[0])).all()
