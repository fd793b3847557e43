import hashlib
import io
import pickle
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL
import pytest
from hypothesis import given
from hypothesis import strategies as some
from PIL import Image

from tests.support.pictures import catalog, folder, save, smooth
from unfreeze.data.catalog import build_catalog, paths_of, rows_of
from unfreeze.data.decode import decode
from unfreeze.data.scan import Callbacks
from unfreeze.data.sources import open_source
from unfreeze.errors import UserError
from unfreeze.inputs.preprocess import (
    BaseTransform,
    DecodedPictures,
    StoredPictures,
    base_picture,
    picture_bytes,
    pixel_store,
    store_pictures,
)
from unfreeze.storage.array_store import ArrayStore
from unfreeze.storage.shards import MissingRows

SHARED = Path(__file__).parents[2] / "../shared/data/trashnet"
RESIZES = ("crop", "squash", "pad")
BASES = [BaseTransform(16, resize, method, 0.875) for resize in RESIZES for method in ("bilinear", "bicubic")]
SIZES = [(48, 32), (32, 48), (40, 40), (300, 200), (9, 7), (1, 1), (1, 10_000), (10_000, 1), (144, 18), (7, 6)]


def noise(width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def photographs(root: Path) -> tuple[list[Path], list[str]]:
    """JPEGs of several sizes, subsampled, turned by their EXIF; one grey, and a PNG with transparency."""
    root.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[0x0112] = 6
    for number, (width, height) in enumerate([(120, 90), (90, 120), (64, 64), (333, 50)]):
        pixels = np.roll(smooth(width, height), 11 * number, axis=1)
        Image.fromarray(pixels).save(root / f"{number}.jpg", quality=85, exif=exif if number % 2 else b"")
    Image.fromarray(smooth()[..., 0]).save(root / "grey.jpg")
    alpha = np.where(smooth()[..., :1] > 120, np.uint8(255), np.uint8(51))
    Image.fromarray(np.dstack([smooth(), alpha])).save(root / "clear.png")
    paths = sorted(root.iterdir())
    return paths, [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]


def stored(store: ArrayStore, keys: list[str]) -> StoredPictures:
    def altered(chunks: int) -> None:
        raise AssertionError(f"{chunks} chunks were altered")

    return StoredPictures(store.open([(key, 0) for key in keys], altered))


def test_the_identity_holds_what_the_pixels_depend_on_and_no_more():
    crop = BaseTransform(128, "crop", "bilinear", 0.875)
    assert crop.identity() == {
        "format": [1, 1],
        "pillow": PIL.__version__,
        "resize": "crop",
        "side": 146,
        "interpolation": "bilinear",
    }
    assert replace(crop, image_size=146, crop_share=1.0).identity() == crop.identity()
    assert replace(crop, image_size=129).identity() != crop.identity()
    assert replace(crop, interpolation="bicubic").identity() != crop.identity()
    for resize in ("squash", "pad"):
        other = replace(crop, resize=resize)
        assert other.identity() != crop.identity()
        assert replace(other, crop_share=0.5).identity() == other.identity()
        assert replace(other, image_size=127).identity() != other.identity()


@pytest.mark.parametrize(
    ("base", "name"),
    [
        (BaseTransform(224, "crop", "bilinear", 0.875), "crop-256-bilinear-0191235dbe95562d"),
        (BaseTransform(32, "squash", "bicubic", 1.0), "squash-32-bicubic-6137b2a2b856a348"),
        (BaseTransform(224, "pad", "bicubic", 0.9), "pad-224-bicubic-6fbfc806b372446a"),
    ],
)
def test_an_entry_has_the_name_that_it_always_had(monkeypatch: pytest.MonkeyPatch, base: BaseTransform, name: str):
    """As computed at 0.1.0; another name would leave what is stored on people's disks unread."""
    monkeypatch.setattr(PIL, "__version__", "12.0.0")
    assert pixel_store(Path("cache"), base).folder == Path("cache/pixels") / name


def test_an_unknown_interpolation_is_refused():
    with pytest.raises(ValueError, match="^unknown interpolation 'nearest'$"):
        BaseTransform(16, "crop", "nearest", 0.875)


@pytest.mark.parametrize("base", BASES, ids=str)
@pytest.mark.parametrize("size", SIZES)
def test_a_base_picture_has_the_size_foretold(size, base):
    picture = base_picture(noise(*size), base)
    assert picture.mode == "RGB"
    assert picture.size == base.size(*size)
    expected = {"crop": min, "pad": max, "squash": min}[base.resize]
    assert expected(picture.size) == base.side
    assert max(picture.size) <= 4 * base.side
    assert base.size(*picture.size) == picture.size  # as the views demand


@given(
    some.integers(1, 20_000),
    some.integers(1, 20_000),
    some.sampled_from(RESIZES),
    some.integers(1, 600),
    some.floats(0.1, 1.0),
)
def test_every_size_has_a_base_that_is_its_own_base(width, height, resize, image_size, share):
    base = BaseTransform(image_size, resize, "bilinear", share)
    wide, high = base.size(width, height)
    assert wide >= 1 and high >= 1
    assert base.size(wide, high) == (wide, high)
    if resize == "crop":
        assert min(wide, high) == round(image_size / share) >= image_size
        assert max(wide, high) <= 4 * min(wide, high)


@pytest.mark.parametrize("method", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(48, 32), (32, 48), (300, 200), (9, 7)])
def test_the_base_of_a_crop_is_the_whole_picture_resized(size, method):
    base = BaseTransform(16, "crop", method, 0.875)
    expected = noise(*size).resize(base.size(*size), getattr(Image.Resampling, method.upper()))
    assert base_picture(noise(*size), base).tobytes() == expected.tobytes()


def test_the_base_of_a_very_long_picture_is_its_middle():
    base = BaseTransform(16, "crop", "bilinear", 0.875)
    picture = Image.fromarray(smooth(400, 20))
    middle = np.asarray(picture.resize((360, 18), Image.Resampling.BILINEAR)).astype(int)[:, 144:216]
    found = np.asarray(base_picture(picture, base)).astype(int)
    assert found.shape == (18, 72, 3)
    assert np.abs(found - middle).max() <= 1


@pytest.mark.parametrize("base", BASES, ids=str)
def test_stored_pictures_equal_decoded_ones(tmp_path, base):
    paths, keys = photographs(tmp_path / "photos")
    store = pixel_store(tmp_path / "cache", base)
    store_pictures(store, paths, keys, workers=3)
    order = [3, 0, 0, 5, 1, 2, 4]
    decoded = DecodedPictures([paths[index] for index in order], [keys[index] for index in order], base)
    pictures = stored(store, [keys[index] for index in order])
    assert len(decoded) == len(pictures) == 7
    for index in range(7):
        assert decoded[index].dtype == pictures[index].dtype == np.uint8
        assert np.array_equal(decoded[index], pictures[index])
    for given_pictures in (decoded, pictures):
        assert np.array_equal(pickle.loads(pickle.dumps(given_pictures))[3], decoded[3])


def test_a_share_of_the_same_shorter_side_has_the_same_store(tmp_path):
    first, second = (
        pixel_store(tmp_path, BaseTransform(*size))
        for size in ((128, "crop", "bilinear", 0.875), (146, "crop", "bilinear", 1.0))
    )
    assert first.folder == second.folder
    assert first.folder.parent == tmp_path / "pixels"
    assert first.folder.name.startswith("crop-146-bilinear-")
    assert first.identity["about"] == {"size": "shorter side 146", "view": "base picture, bilinear"}


def test_a_catalog_fills_the_store_while_it_looks(tmp_path, monkeypatch):
    folder(tmp_path / "photos", {"a": 3, "b": 3})
    (tmp_path / "photos/b/short.png").write_bytes((tmp_path / "photos/a/000.png").read_bytes()[:90])
    base = BASES[0]
    store = pixel_store(tmp_path / "cache", base)
    with store.writer() as writer:
        made = build_catalog(
            open_source(str(tmp_path / "photos"), {}, tmp_path),
            workers=4,
            callbacks=Callbacks(
                on_picture=lambda sha256, pixels: writer.add((sha256, 0), pixels),
                prepare=lambda picture: np.asarray(base_picture(picture, base)),
            ),
        )
    ids = list(made.images.loc[made.images["status"] == "used", "id"])
    keys = list(rows_of(made, ids)["sha256"])
    assert store.held() == {(key, 0) for key in keys}
    decoded, pictures = DecodedPictures(paths_of(made, ids), keys, base), stored(store, keys)
    for index in range(6):
        assert np.array_equal(pictures[index], decoded[index])


def test_each_content_is_stored_once_and_progress_reported(tmp_path):
    paths, keys = photographs(tmp_path / "photos")
    store, calls = pixel_store(tmp_path / "cache", BASES[0]), []
    store_pictures(store, paths[:2] * 2, keys[:2] * 2, lambda done, total: calls.append((done, total)), workers=1)
    assert calls == [(1, 2), (2, 2)]
    assert store.held() == {(key, 0) for key in keys[:2]}
    assert store.missing([(key, 0) for key in keys]) == [(key, 0) for key in keys[2:]]
    store_pictures(store, [], [])


def test_threads_are_gone_afterwards(tmp_path):
    paths, keys = photographs(tmp_path / "photos")
    before = threading.active_count()
    store_pictures(pixel_store(tmp_path / "cache", BASES[0]), paths, keys, workers=4)
    assert threading.active_count() == before


@pytest.mark.parametrize("base", BASES, ids=str)
def test_bytes_are_foretold_exactly(tmp_path, base):
    paths, _ = photographs(tmp_path / "photos/a")
    save(tmp_path / "photos/b/0.png", 7)
    (tmp_path / "photos/b/copy.jpg").write_bytes(paths[0].read_bytes())
    noise(1, 500).save(tmp_path / "photos/b/long.png")
    made = build_catalog(open_source(str(tmp_path / "photos"), {}, tmp_path))
    ids, keys = list(made.images["id"]), list(made.images["sha256"])
    store = pixel_store(tmp_path / "cache", base)
    store_pictures(store, paths_of(made, ids), keys)
    pictures = stored(store, list(dict.fromkeys(keys)))
    assert len(pictures) == len(ids) - 1
    assert picture_bytes(made, ids, base) == sum(pictures[index].nbytes for index in range(len(pictures)))
    assert picture_bytes(made, [], base) == 0


def test_bytes_of_a_catalog_of_given_sizes():
    rows = [{"sha256": name, "label": "a", "width": 640, "height": 480} for name in "xyx"]
    made = catalog(rows)
    assert (
        picture_bytes(made, list(made.images["id"]), BaseTransform(128, "crop", "bilinear", 0.875)) == 2 * 3 * 146 * 195
    )


def as_it_was(path: Path, what: str) -> str:
    return (
        f"{path}: {what}\n"
        "  expected: the image as it was when the study began\n"
        "  fix:      restore the file, or start a new study without it"
    )


@pytest.mark.parametrize("ill", ["gone", "other", "truncated"])
def test_a_file_that_changed_is_named(tmp_path, ill):
    paths, keys = photographs(tmp_path / "photos")
    path = paths[3]
    if ill == "gone":
        path.unlink()
        reason = "cannot be read: no such file or directory"
    elif ill == "truncated":
        path.write_bytes(path.read_bytes()[:700])
        reason = "its content has changed"
    else:
        path.write_bytes(paths[4].read_bytes())
        reason = "its content has changed"
    store = pixel_store(tmp_path / "cache", BASES[0])
    with pytest.raises(UserError) as caught:
        store_pictures(store, paths, keys, workers=2)
    assert str(caught.value) == as_it_was(path, reason)
    with pytest.raises(MissingRows):
        stored(store, keys)
    with pytest.raises(UserError) as caught:
        DecodedPictures(paths, keys, BASES[0])[3]
    assert str(caught.value) == as_it_was(path, reason)


def test_a_file_that_is_known_but_cannot_be_decoded_is_named(tmp_path):
    content = io.BytesIO()
    noise(20, 20).save(content, "PNG")
    (tmp_path / "a.png").write_bytes(content.getvalue()[:300])
    key = hashlib.sha256(content.getvalue()[:300]).hexdigest()
    with pytest.raises(UserError) as caught:
        store_pictures(pixel_store(tmp_path / "cache", BASES[0]), [tmp_path / "a.png"], [key])
    assert str(caught.value) == as_it_was(tmp_path / "a.png", "truncated")


def test_of_a_truncated_jpeg_there_is_what_came_before_the_end(tmp_path):
    """A catalog says whether it is used; then every place sees the same pixels."""
    noise(80, 60).save(tmp_path / "a.jpg", "JPEG")
    content = (tmp_path / "a.jpg").read_bytes()
    content = content[: len(content) // 2]
    (tmp_path / "a.jpg").write_bytes(content)
    key = hashlib.sha256(content).hexdigest()
    store = pixel_store(tmp_path / "cache", BASES[0])
    store_pictures(store, [tmp_path / "a.jpg"], [key])
    (pixels,) = stored(store, [key])
    assert (DecodedPictures([tmp_path / "a.jpg"], [key], BASES[0])[0] == pixels).all()
    assert (pixels[-1, -1] == 128).all()


def test_keys_and_paths_belong_together(tmp_path):
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        store_pictures(pixel_store(tmp_path, BASES[0]), [tmp_path / "a.png"], [])


@pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/data/trashnet is not here")
def test_stored_pictures_equal_decoded_ones_on_real_photographs(tmp_path):
    paths = sorted(SHARED.glob("*/*.jpg"))[::100]
    keys = [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
    for base in (BaseTransform(128, "crop", "bilinear", 0.875), BaseTransform(96, "pad", "bicubic", 1.0)):
        store = pixel_store(tmp_path, base)
        store_pictures(store, paths, keys)
        decoded, pictures = DecodedPictures(paths, keys, base), stored(store, keys)
        for index, path in enumerate(paths):
            assert np.array_equal(pictures[index], decoded[index])
            assert pictures[index].shape[1::-1] == base.size(*decode(path).size)
