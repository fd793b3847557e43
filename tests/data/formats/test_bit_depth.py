"""Pictures of more than 8 bits: which bits of them count is found in the whole data set, and is the same for all."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.photos import photo
from tests.support.pictures import png
from unfreeze.config.schema import CheckConfig
from unfreeze.data.catalog import Catalog, build_catalog, keys_of, preview_catalog, used_keys
from unfreeze.data.decode import decode
from unfreeze.data.formats.reading import MAX_PIXELS, USUAL, Reading, bits_of, content_key, read_key
from unfreeze.data.scan_cache import ScanCache
from unfreeze.data.sources import open_source
from unfreeze.data.unusable import NO_LOW_BYTE
from unfreeze.inputs.preprocess import BaseTransform, DecodedPictures, pixel_store, store_pictures

BASE = BaseTransform(32, "squash", "bilinear", 1.0)
NOISE = np.random.default_rng(0)


def grey(number: int) -> np.ndarray:
    return np.asarray(photo(number, 48, 32).convert("L"))


def scaled(values: np.ndarray, bits: int) -> np.ndarray:
    """The same in more bits, with noise in those that are new; the largest value is in it."""
    more = bits - 8
    deep = values.astype(np.uint16) << more | NOISE.integers(0, 2**more, values.shape).astype(np.uint16)
    deep[0, 0] = 2**bits - 1
    return deep


def data(root: Path, bits: int, form: str = "png", colour: bool = False, count: int = 3) -> Path:
    """Two classes of pictures with so many bits."""
    for label in "ab":
        (root / label).mkdir(parents=True)
        for number in range(count):
            values = (
                np.asarray(photo(10 * (label == "b") + number, 48, 32))
                if colour
                else grey(number + 10 * (label == "b"))
            )
            deep = scaled(values, bits)
            path = root / label / f"{number}.{form}"
            if colour:
                rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in deep)
                path.write_bytes(png(48, 32, 16, 2, rows))
            else:
                Image.fromarray(deep).save(path)
    return root


def look(root: Path, scan_cache: Path | None = None, **check) -> Catalog:
    return build_catalog(open_source(str(root), {}, root), scan_cache=scan_cache, check=CheckConfig(**check))


def original(catalog: Catalog, row: int, colour: bool) -> np.ndarray:
    number = 10 * (catalog.images["label"].iloc[row] == "b") + int(catalog.images["path"].iloc[row][2])
    return np.asarray(photo(number, 48, 32)) if colour else np.repeat(grey(number)[..., None], 3, 2)


@pytest.mark.parametrize("colour", [False, True], ids=["grey", "colour"])
@pytest.mark.parametrize("bits", range(9, 17))
def test_pictures_are_scaled_by_the_bits_that_the_data_set_uses(tmp_path, bits, colour):
    catalog = look(data(tmp_path / "data", bits, colour=colour))
    assert catalog.reading == Reading(bits=bits)
    for row in range(len(catalog.images)):
        shown = np.asarray(decode(tmp_path / "data" / catalog.images["path"].iloc[row], reading=catalog.reading))
        assert np.abs(shown.astype(int) - original(catalog, row, colour))[0, 1:].max() <= 1
        assert np.abs(shown.astype(int) - original(catalog, row, colour))[1:].max() <= 1
    white = 2**bits - 1
    told = (
        f"6 images of more than 8 bits have no value above {white:,}: {bits} bits count, so {white:,} is white in all "
        f"of them (--set check.bits={bits} fixes that, --set check.bits=16 makes 65,535 white)"
    )
    # Of 16-bit colour the high byte says it.
    assert catalog.guessed == (() if bits == 16 else (told,))


def test_the_bits_are_those_of_the_picture_with_the_largest_value(tmp_path):
    data(tmp_path / "data", 10)
    Image.fromarray(scaled(grey(30), 13)).save(tmp_path / "data/a/bright.tif")
    assert look(tmp_path / "data").reading.bits == 13


def test_the_study_may_say_the_bits(tmp_path):
    data(tmp_path / "data", 10)
    catalog = look(tmp_path / "data", bits=12)
    assert (catalog.reading.bits, catalog.guessed) == (12, ())
    whole = look(tmp_path / "data", bits=16)
    assert whole.reading == USUAL
    assert (whole.images["brightness"] < 0.02).all()
    short = look(tmp_path / "data", bits=8)  # what is larger is white
    assert (short.images["brightness"] > 0.6).all()


@pytest.mark.parametrize(
    ("peak", "bits"), [(0, 1), (1, 1), (2, 8), (255, 8), (256, 9), (4095, 12), (4096, 13), (65_535, 16)]
)
def test_the_bits_of_a_largest_value(peak, bits):
    assert bits_of(peak) == bits


@pytest.mark.parametrize(("dtype", "top", "bits"), [("float32", 1.0, 1), ("float32", 4000.5, 12), ("int32", 1023, 10)])
def test_values_of_32_bits_are_scaled_as_well(tmp_path, dtype, top, bits):
    (tmp_path / "data/a").mkdir(parents=True)
    (tmp_path / "data/b").mkdir()
    values = np.linspace(0, top, 48 * 32).reshape(32, 48).astype(dtype)
    for number in range(6):
        Image.fromarray(np.roll(values, 5 * number, axis=1)).save(tmp_path / f"data/{'ab'[number % 2]}/{number}.tif")
    catalog = look(tmp_path / "data")
    assert catalog.reading.bits == bits
    shown = np.asarray(decode(tmp_path / "data/a/0.tif", reading=catalog.reading))[..., 0]
    assert np.abs(shown - values * 255 / (2**bits - 1)).max() <= 1.0


def test_a_transparent_colour_keeps_its_place(tmp_path):
    row = b"\0" + b"".join(value.to_bytes(2, "big") * 3 for value in (0x0307, 0x0308))
    (tmp_path / "a.png").write_bytes(png(2, 1, 16, 2, row, tRNS=b"\x03\x07" * 3))
    assert np.asarray(decode(tmp_path / "a.png", reading=Reading(bits=10)))[0, :, 0].tolist() == [255, 0x0308 >> 2]


def test_lower_bits_that_pillow_does_not_give_are_refused(tmp_path):
    (tmp_path / "data/a").mkdir(parents=True)
    (tmp_path / "data/b").mkdir()
    for number in range(6):
        row = b"\0" + b"".join(value.to_bytes(2, "big") + b"\xff\xff" for value in (0x0307, 0x0300 + number))
        (tmp_path / f"data/{'ab'[number % 2]}/{number}.png").write_bytes(png(2, 1, 16, 4, row))
    assert set(look(tmp_path / "data").images["reason"]) == {NO_LOW_BYTE}
    assert set(look(tmp_path / "data", bits=16, label_conflicts="keep").images["status"]) == {"used"}


def test_eight_bit_pictures_keep_their_names_in_every_cache(tmp_path):
    data(tmp_path / "data", 12)
    photo(50, 48, 32).save(tmp_path / "data/a/plain.png")
    catalog = look(tmp_path / "data")
    images = catalog.images.set_index("path")
    keys = dict(zip(images.index, used_keys(catalog), strict=True))
    assert keys["a/plain.png"] == images.loc["a/plain.png", "sha256"]
    assert keys["a/0.png"] == images.loc["a/0.png", "sha256"] + ".bits=12"
    assert keys_of(catalog, [images.loc["a/0.png", "id"]]) == [keys["a/0.png"]]
    whole = look(tmp_path / "data", bits=16)
    assert used_keys(whole) == list(whole.images["sha256"])


@pytest.mark.parametrize(
    ("mode", "reading", "key"),
    [
        ("RGB", Reading((0, 1, 2), 12), "ab"),
        ("I;16", USUAL, "ab"),
        ("I;16B", Reading((), 12), "ab.bits=12"),
        ("RGB;16", Reading((), 12), "ab.bits=12"),
        ("4 bands", Reading((0, 1, 2), 12), "ab.bands=0,1,2"),
        ("13 bands;16", Reading((3, 2, 1), 14), "ab.bands=3,2,1.bits=14"),
    ],
)
def test_a_key_says_how_a_picture_is_read(mode, reading, key):
    assert content_key("ab", mode, reading) == key
    sha256, again = read_key(key)
    assert (sha256, content_key(sha256, mode, again)) == ("ab", key)


def test_stored_pictures_of_other_bits_are_other_rows(tmp_path):
    data(tmp_path / "data", 12)
    store = pixel_store(tmp_path / "cache", BASE)
    shown = {}
    for bits in (12, 16):
        catalog = look(tmp_path / "data", bits=bits)
        paths = [tmp_path / "data" / path for path in catalog.images["path"]]
        keys = used_keys(catalog)
        assert store.missing([(key, 0) for key in keys]) == [(key, 0) for key in keys]
        store_pictures(store, paths, keys)
        shown[bits] = DecodedPictures(paths, keys, BASE)[0]
        rows = store.open([(key, 0) for key in keys], lambda _: None)
        assert (rows.read(0) == shown[bits]).all()
    assert shown[12].mean() > 10 * shown[16].mean()


def test_what_is_cached_depends_on_the_bits(tmp_path):
    data(tmp_path / "data", 12)
    first = look(tmp_path / "data", tmp_path / "looks").images
    assert look(tmp_path / "data", tmp_path / "looks", bits=16).images["brightness"].max() < 0.1
    again = look(tmp_path / "data", tmp_path / "looks")
    assert again.images.equals(first)
    assert {one.peak for one in ScanCache(tmp_path / "looks", Reading(bits=None)).infos.values()} == {4095}


@pytest.mark.parametrize("known", [False, True])
def test_a_preview_finds_the_same_bits(tmp_path, known):
    root = data(tmp_path / "data", 12)
    catalog = look(root, tmp_path / "looks" if known else None)
    glanced = preview_catalog(open_source(str(root), {}, root), scan_cache=tmp_path / "looks")
    assert (glanced.reading, glanced.guessed) == (catalog.reading, catalog.guessed)
    assert used_keys(glanced) == used_keys(catalog)


def test_pictures_of_many_files_are_scaled_in_processes_too(tmp_path, monkeypatch):
    monkeypatch.setattr("unfreeze.data.scan._MANY", 4)
    root = data(tmp_path / "data", 12)
    catalog = look(root)
    assert catalog.reading.bits == 12
    monkeypatch.undo()
    assert look(root).images.equals(catalog.images)


def test_the_bound_of_pixels_is_that_of_the_study_file():
    assert CheckConfig().max_pixels == MAX_PIXELS
