import io

import numpy as np
import pytest
import xxhash
from PIL import Image, ImageFilter, ImageOps, JpegImagePlugin

from tests.support.photos import TURNED, photo
from unfreeze.data import image_hash as likeness_module
from unfreeze.data.decode import load
from unfreeze.data.image_file import open_regular
from unfreeze.data.image_hash import as_values, from_values, image_stats, turned_hashes


def stored(picture: Image.Image, kind: str) -> Image.Image:
    written = io.BytesIO()
    picture.save(written, kind, **({"lossless": True} if kind == "WEBP" else {}))
    return Image.open(io.BytesIO(written.getvalue())).convert("RGB")


def apart(one: int, other: int) -> int:
    return (one ^ other).bit_count()


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "WEBP"])
def test_a_copy_stored_without_loss_has_the_same_pixels(kind):
    assert image_stats(stored(photo(0), kind)) == image_stats(photo(0))


def test_one_value_more_in_one_pixel_is_another_picture():
    pixels = np.array(photo(0))
    pixels[5, 7, 1] ^= 1
    assert image_stats(Image.fromarray(pixels)).pixels != image_stats(photo(0)).pixels


def test_the_same_bytes_in_another_shape_are_another_picture():
    grey = Image.new("RGB", (6, 4), "grey")
    assert image_stats(grey).pixels != image_stats(grey.resize((4, 6))).pixels


@pytest.mark.parametrize("number", range(20))
def test_the_hash_of_the_mirror_image_is_known_without_mirroring(number):
    upright, mirrored = image_stats(photo(number)), image_stats(ImageOps.mirror(photo(number)))
    assert apart(upright.hashes[1], mirrored.hashes[0]) <= 4
    assert apart(upright.hashes[3], mirrored.hashes[2]) <= 4
    assert apart(upright.hashes[0], mirrored.hashes[0]) > 10


def test_the_hashes_of_a_turned_picture_are_known_from_the_thumbnail():
    turns = ("flip_top_bottom", "rotate_180", "transpose", "rotate_270", "rotate_90", "transverse")
    for picture in map(photo, range(20)):
        thumbnail = np.frombuffer(image_stats(picture).thumbnail, np.uint8).reshape(1, 16, 16)
        (hashes,) = turned_hashes(thumbnail).tolist()
        expected = [image_stats(TURNED[turn](picture)).hashes[0] for turn in turns]
        assert max(map(apart, hashes, expected)) <= 4
        assert min(apart(one, other) for one in hashes for other in hashes if one != other) > 10


@pytest.mark.parametrize("number", range(20))
def test_the_hash_without_the_rim_is_that_of_what_is_left_of_a_cropped_picture(number):
    picture = photo(number, 400, 320)
    inside = picture.crop((10, 8, 390, 312))
    near = apart(image_stats(picture).hashes[2], image_stats(inside).hashes[0])
    assert near <= min(10, apart(image_stats(picture).hashes[0], image_stats(inside).hashes[0]))


def test_what_is_measured():
    black, white = (image_stats(Image.new("RGB", (50, 40), name)) for name in ("black", "white"))
    assert (black.brightness, white.brightness) == (0.0, 1.0)
    assert black.contrast == black.sharpness == black.colour == 0.0
    sharp = image_stats(photo(1))
    blurred = image_stats(photo(1).filter(ImageFilter.GaussianBlur(3)))
    assert blurred.sharpness < 0.2 * sharp.sharpness
    assert abs(blurred.brightness - sharp.brightness) < 0.01
    assert image_stats(photo(1).convert("L").convert("RGB")).colour == 0.0 < 0.05 < sharp.colour


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (2, 2), (3000, 40)])
def test_extreme_shapes_are_described(size):
    found = image_stats(Image.new("RGB", size, (10, 20, 30)))
    assert len(found.thumbnail) == 16 * 16
    assert all(0 <= one < 2**64 for one in found.hashes)


def test_a_description_is_read_back_as_it_was():
    found = image_stats(photo(3))
    assert from_values(as_values(found)) == found


def test_brightness_contrast_and_sharpness_are_what_numpy_says():
    found = image_stats(photo(2).resize((120, 90)))  # small enough to be measured as it is
    greys = np.asarray(photo(2).resize((120, 90)).convert("L"), np.float64)
    laplacian = laplacian_of(greys)
    assert (found.brightness, found.contrast) == (round(greys.mean() / 255, 4), round(greys.std() / 255, 4))
    assert found.sharpness == round(laplacian.std(), 2)


def test_sharpness_of_a_larger_picture_is_that_of_two_strips_across_it():
    picture = photo(2).resize((300, 400))
    parts = [picture.crop((0, top, 300, top + 50)).convert("L").reduce(3) for top in (100, 250)]
    values = np.stack([laplacian_of(np.asarray(part, np.float64)) for part in parts])
    assert image_stats(picture).sharpness == round(values.std(), 2)


@pytest.mark.parametrize("size", [(1280, 40), (40, 1280), (128, 3), (4000, 100)])
def test_the_sharpness_of_a_long_picture_is_measured(size):
    assert image_stats(photo(2, *size)).sharpness > 1


def laplacian_of(greys: np.ndarray) -> np.ndarray:
    return greys[:-2, 1:-1] + greys[2:, 1:-1] + greys[1:-1, :-2] + greys[1:-1, 2:] - 4 * greys[1:-1, 1:-1]


def test_the_hash_of_the_pixels_does_not_depend_on_how_many_are_copied_at_once(monkeypatch):
    whole = image_stats(photo(1)).pixels
    assert whole == xxhash.xxh3_128(b"%d %d " % photo(1).size + photo(1).tobytes()).hexdigest()
    for pixels in (1, 1000):
        monkeypatch.setattr(likeness_module, "_BLOCK", pixels)
        assert image_stats(photo(1)).pixels == whole


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("progressive", [False, True])
def test_the_pixels_of_a_jpeg_are_those_of_its_copy_without_loss(tmp_path, subsampling, progressive):
    for number, width in enumerate((1, 2, 7, 8, 15, 16, 17, 31, 33, 129)):
        path = tmp_path / f"{number}.jpg"
        photo(number, width, 2 * width).save(path, subsampling=subsampling, progressive=progressive)
        with open_regular(path) as file:
            jpeg = load(file)
        assert isinstance(jpeg, JpegImagePlugin.JpegImageFile)
        assert image_stats(jpeg) == image_stats(Image.fromarray(np.array(jpeg)))


def test_the_padding_byte_of_a_pixel_does_not_count():
    values = np.array(photo(1))
    for fourth in (0, 7, 255):
        beside = np.dstack([values, np.full(values.shape[:2], fourth, np.uint8)]).tobytes()
        picture = Image.frombytes("RGB", photo(1).size, beside, "raw", "RGBX")
        assert image_stats(picture) == image_stats(photo(1))
    over = photo(1)
    over.paste(photo(2), mask=Image.new("L", over.size, 120))
    assert image_stats(over).pixels == image_stats(Image.fromarray(np.array(over))).pixels
