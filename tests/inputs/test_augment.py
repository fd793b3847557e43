import pickle
import re
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from tests.support.pictures import shas, smooth
from unfreeze.inputs.augment import AUGMENTATIONS, Preprocessing, ViewDataset, plain
from unfreeze.inputs.preprocess import DecodedPictures, base_picture
from unfreeze.inputs.sampler import passes

SHARED = Path(__file__).parents[2] / "../shared/data/trashnet"
RESIZES = ("crop", "squash", "pad")
AUGMENTED = [name for name in AUGMENTATIONS if name != "none"]


def preprocessing(size: int = 16, resize: str = "crop", **more) -> Preprocessing:
    values = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.25, 0.5), "interpolation": "bilinear", "crop_share": 0.875}
    return Preprocessing(size, resize, **{**values, **more})


def pictures(folder: Path, count: int = 5) -> tuple[list[Path], list[str]]:
    paths = []
    for number in range(count):
        pixels = np.roll(smooth(48 - 5 * number, 32), 7 * number, axis=1)
        paths.append(folder / f"{number}.png")
        Image.fromarray(pixels).save(paths[-1])
    return paths, [f"key{number}" for number in range(count)]


def views_of(paths, keys, settings: Preprocessing, augment: str, seed: int) -> ViewDataset:
    return ViewDataset(DecodedPictures(paths, shas(paths), settings.base), keys, settings, augment, seed)


def plain_view(picture: Image.Image, settings: Preprocessing) -> np.ndarray:
    return plain(np.asarray(base_picture(picture, settings.base)), settings)


def as_pixels(view: torch.Tensor, settings: Preprocessing) -> np.ndarray:
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (settings.mean, settings.std))
    return (255 * (view * std + mean)).permute(1, 2, 0).numpy()


@pytest.mark.parametrize("augment", AUGMENTATIONS)
@pytest.mark.parametrize("resize", RESIZES)
def test_a_view_is_a_normalised_square(tmp_path, augment, resize):
    settings = preprocessing(resize=resize)
    view, index = views_of(*pictures(tmp_path), settings, augment, 0)[3, 1]
    assert index == 3
    assert view.shape == (3, 16, 16)
    assert view.dtype == torch.float32
    assert view.is_contiguous()
    pixels = as_pixels(view, settings)
    assert -0.01 <= pixels.min() and pixels.max() <= 255.01
    assert np.abs(pixels - pixels.round()).max() < 0.01


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(48, 32), (32, 48), (40, 40), (341, 256), (300, 18), (9, 7)])
def test_the_plain_crop_is_the_centre_of_the_resized_picture(size, interpolation):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    shorter = 18  # 16 / 0.875
    scale = shorter / min(size)
    resized = picture.resize(
        (round(size[0] * scale), round(size[1] * scale)), getattr(Image.Resampling, interpolation.upper())
    )
    left, top = (resized.width - 16) // 2, (resized.height - 16) // 2
    expected = np.asarray(resized.crop((left, top, left + 16, top + 16))).astype(int)
    found = plain_view(picture, preprocessing(interpolation=interpolation)).astype(int)
    assert np.abs(found - expected).max() <= 1


def test_squash_keeps_the_whole_picture():
    picture = Image.fromarray(smooth())
    expected = picture.resize((16, 16), Image.Resampling.BILINEAR)
    assert plain_view(picture, preprocessing(resize="squash")).tobytes() == expected.tobytes()


@pytest.mark.parametrize(("size", "box"), [((48, 32), (0, 2, 16, 13)), ((32, 48), (2, 0, 13, 16))])
def test_pad_fits_the_picture_in_and_fills_with_the_mean(size, box):
    view = plain_view(Image.new("RGB", size, "white"), preprocessing(resize="pad"))
    expected = Image.new("RGB", (16, 16), (128, 102, 76))
    expected.paste("white", box)
    assert view.tolist() == np.asarray(expected).tolist()


@pytest.mark.parametrize("augment", AUGMENTATIONS)
@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize("size", [(1, 1), (1, 10_000), (10_000, 1), (3, 2)])
def test_extreme_shapes_have_views(tmp_path, size, resize, augment):
    Image.new("RGB", size, "red").save(tmp_path / "a.png")
    view, _ = views_of([tmp_path / "a.png"], ["a"], preprocessing(resize=resize), augment, 0)[0, 0]
    assert view.isfinite().all()


@pytest.mark.parametrize("resize", RESIZES)
def test_the_plain_view_heeds_neither_number_nor_seed(tmp_path, resize):
    paths, keys = pictures(tmp_path)
    first, second = (views_of(paths, keys, preprocessing(resize=resize), "none", seed) for seed in (0, 1))
    assert torch.equal(first[2, 0][0], second[2, 9][0])


@pytest.mark.parametrize("augment", AUGMENTED)
@pytest.mark.parametrize("resize", RESIZES)
def test_a_view_depends_on_seed_key_and_number_alone(tmp_path, augment, resize):
    paths, keys = pictures(tmp_path)
    settings = preprocessing(resize=resize)
    dataset = views_of(paths, keys, settings, augment, 0)
    views = {number: dataset[1, number][0] for number in range(8)}
    torch.manual_seed(5)
    alone = views_of(paths[1:2], keys[1:2], settings, augment, 0)
    for number in reversed(range(8)):
        assert torch.equal(alone[0, number][0], views[number])
    distinct = {view.numpy().tobytes() for view in views.values()}
    assert len(distinct) >= 4  # flip_crop has but 50 views of a squashed picture of this size
    others = [views_of(paths, keys, settings, augment, 1), views_of(paths, ["other"] * 5, settings, augment, 0)]
    for other in others:
        assert any(not torch.equal(other[1, number][0], views[number]) for number in range(8))


@pytest.mark.parametrize("augment", AUGMENTED)
def test_drawing_a_view_leaves_the_global_generator_alone(tmp_path, augment):
    dataset = views_of(*pictures(tmp_path), preprocessing(), augment, 0)
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    dataset[0, 0]
    assert torch.equal(torch.rand(3), expected)


def test_flip_crop_is_a_part_of_the_resized_picture_or_its_mirror(tmp_path):
    picture = Image.fromarray(smooth(27, 18))
    picture.save(tmp_path / "a.png")
    settings = preprocessing()  # the resized picture is the picture
    dataset = views_of([tmp_path / "a.png"], ["a"], settings, "flip_crop", 0)
    pixels = np.asarray(picture)
    parts = {}
    for top in range(3):
        for left in range(12):
            part = pixels[top : top + 16, left : left + 16]
            parts[part.tobytes()] = (top, left, False)
            parts[part[:, ::-1].tobytes()] = (top, left, True)
    seen = {
        parts[as_pixels(dataset[0, number][0], settings).round().astype(np.uint8).tobytes()] for number in range(300)
    }
    assert {top for top, _, _ in seen} == {0, 1, 2}
    assert {left for _, left, _ in seen} == set(range(12))
    assert {flipped for _, _, flipped in seen} == {True, False}


def test_flip_crop_reflects_beyond_a_squashed_picture(tmp_path):
    picture = Image.fromarray(smooth(16, 16))
    picture.save(tmp_path / "a.png")
    settings = preprocessing(resize="squash")
    dataset = views_of([tmp_path / "a.png"], ["a"], settings, "flip_crop", 0)
    padded = np.pad(np.asarray(picture), ((2, 2), (2, 2), (0, 0)), mode="reflect")
    parts = {}
    for top in range(5):
        for left in range(5):
            part = padded[top : top + 16, left : left + 16]
            parts[part.tobytes()] = parts[part[:, ::-1].tobytes()] = (top, left)
    seen = {
        parts[as_pixels(dataset[0, number][0], settings).round().astype(np.uint8).tobytes()] for number in range(200)
    }
    assert seen == {(top, left) for top in range(5) for left in range(5)}


def test_article_moves_within_its_bounds_and_fills_with_the_mean(tmp_path):
    """Follow two bright discs: their distance tells the zoom, their bearing the rotation, their middle the shift."""
    size = 96
    down, across = np.mgrid[0:size, 0:size] + 0.5
    pixels = np.zeros((size, size, 3), np.uint8)
    for channel, x in ((0, 32), (1, 64)):
        pixels[..., channel] = 255 * ((across - x) ** 2 + (down - 48) ** 2 < 25)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    settings = preprocessing(size, "squash", mean=(0.0, 0.0, 0.5))
    dataset = views_of([tmp_path / "a.png"], ["a"], settings, "article", 0)
    angles, middles, distances, flips, filled = [], [], [], [], 0
    for number in range(200):
        view = as_pixels(dataset[0, number][0], settings)
        centres = []
        for channel in (0, 1):
            weight = view[..., channel] / view[..., channel].sum()
            centres.append(np.array([(weight * across).sum(), (weight * down).sum()]))
        arrow = centres[1] - centres[0]
        flips.append(arrow[0] < 0)
        if arrow[0] < 0:
            arrow[0] = -arrow[0]
        angles.append(np.degrees(np.arctan2(arrow[1], arrow[0])))
        distances.append(np.hypot(*arrow) / 32)
        middles.append((centres[0] + centres[1]) / 2 - size / 2)
        filled += bool((view[..., 2] > 100).any())
    # A zoom that differs between the axes turns the bearing by a few degrees more.
    assert 17 < np.abs(angles).max() < 24
    assert 1.08 < max(distances) < 1.13 and 0.89 < min(distances) < 0.93
    assert 0.08 * size < np.abs(middles).max() < 0.1 * size + 1
    assert 60 < sum(flips) < 140
    assert filled > 150


def test_article_sees_beyond_the_crop_where_there_is_picture(tmp_path):
    Image.new("RGB", (400, 300), (10, 200, 10)).save(tmp_path / "a.png")
    settings = preprocessing(64, mean=(0.9, 0.1, 0.9))
    dataset = views_of([tmp_path / "a.png"], ["a"], settings, "article", 0)
    views = np.stack([as_pixels(dataset[0, number][0], settings) for number in range(100)])
    filled = (np.abs(views - [10, 200, 10]).max(axis=3) > 1).mean()
    squashed = views_of([tmp_path / "a.png"], ["a"], preprocessing(64, "squash", mean=(0.9, 0.1, 0.9)), "article", 0)
    views = np.stack([as_pixels(squashed[0, number][0], settings) for number in range(100)])
    assert filled < 0.5 * (np.abs(views - [10, 200, 10]).max(axis=3) > 1).mean()


@pytest.mark.parametrize("augment", ["none", "trivial"])
def test_the_number_of_workers_does_not_matter(tmp_path, augment):
    dataset = views_of(*pictures(tmp_path), preprocessing(), augment, 0)
    batches = {}
    for workers in (0, 1, 2):
        loader = DataLoader(dataset, batch_sampler=list(islice(passes(5, 2, 0), 6)), num_workers=workers)
        batches[workers] = [(views, indices) for views, indices in loader]
    for workers in (1, 2):
        for (views, indices), (expected, expected_indices) in zip(batches[workers], batches[0], strict=True):
            assert torch.equal(views, expected)
            assert torch.equal(indices, expected_indices)


@pytest.mark.parametrize("augment", AUGMENTATIONS)
def test_a_data_set_can_be_pickled(tmp_path, augment):
    dataset = views_of(*pictures(tmp_path), preprocessing(), augment, 0)
    again = pickle.loads(pickle.dumps(dataset))
    assert len(again) == 5
    assert torch.equal(again[0, 1][0], dataset[0, 1][0])


@pytest.mark.parametrize("augment", AUGMENTATIONS)
@pytest.mark.parametrize("resize", RESIZES)
def test_views_come_from_the_base_picture_alone(tmp_path, resize, augment):
    """A file of the base picture's own pixels gives the same views: it is its own base picture."""
    paths, keys = pictures(tmp_path, 1)
    settings = preprocessing(resize=resize)
    Image.fromarray(DecodedPictures(paths, shas(paths), settings.base)[0]).save(tmp_path / "base.png")
    original, again = (views_of(files, keys, settings, augment, 0) for files in (paths, [tmp_path / "base.png"]))
    for number in range(4):
        assert torch.equal(original[0, number][0], again[0, number][0])


@pytest.mark.parametrize("augment", ["none", "flip_crop", "article"])
def test_threads_may_draw_at_the_same_time(tmp_path, augment):
    dataset = views_of(*pictures(tmp_path), preprocessing(), augment, 0)
    draws = [(index, number) for number in range(20) for index in range(5)]
    expected = [dataset[draw][0] for draw in draws]
    with ThreadPoolExecutor(4) as pool:
        for (found, _), view in zip(pool.map(dataset.__getitem__, draws), expected, strict=True):
            assert torch.equal(found, view)


def test_drawing_leaves_the_base_picture_alone():
    pixels = smooth(40, 18)
    for augment in AUGMENTATIONS:
        ViewDataset([pixels], ["a"], preprocessing(), augment, 0)[0, 0]
    assert np.array_equal(pixels, smooth(40, 18))


@pytest.mark.parametrize("resize", RESIZES)
def test_a_picture_made_for_other_settings_is_refused(resize):
    settings = preprocessing(resize=resize)
    dataset = ViewDataset([smooth(20, 21)], ["a"], settings, "none", 0)
    with pytest.raises(
        ValueError, match=f"^a picture of 20 x 21 pixels was not made as {re.escape(repr(settings.base))}$"
    ):
        dataset[0, 0]


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="^1 pictures and 0 keys$"):
        views_of([Path(__file__)], [], preprocessing(), "none", 0)
    with pytest.raises(KeyError, match="unknown augmentation 'mirror'; known are none, flip_crop, "):
        views_of([], [], preprocessing(), "mirror", 0)


@pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/data/trashnet is not here")
def test_plain_views_equal_those_of_torchvision_on_real_photographs():
    paths = sorted(SHARED.glob("*/*.jpg"))[::300]
    for size in (64, 224):
        settings = preprocessing(size, interpolation="bicubic")
        dataset = views_of(paths, [str(path) for path in paths], settings, "none", 0)
        usual = v2.Compose(
            [
                v2.Resize(round(size / 0.875), v2.InterpolationMode.BICUBIC),
                v2.CenterCrop(size),
                v2.ToImage(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(settings.mean, settings.std),
            ]
        )
        for index, path in enumerate(paths):
            difference = (dataset[index, 0][0] - usual(Image.open(path))).abs()
            # A side rounded, not cut off, and so half a pixel of offset, is all that may differ.
            assert difference.mean() < 0.05
