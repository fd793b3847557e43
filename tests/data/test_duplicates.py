from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.photos import COPIES, TURNED, cropped, jpeg, leaves, parts_of_photographs, photo
from unfreeze.data.catalog import build_catalog
from unfreeze.data.duplicates import ALIKE, _correlation, _prepare, cluster_numbers, find_near_duplicates
from unfreeze.data.image_hash import image_stats
from unfreeze.data.quality import findings
from unfreeze.data.sources import open_source

MANY = 100
SHARED = Path(__file__).parents[2] / "../shared/data"


def found(pictures: list[Image.Image]) -> set[tuple[int, int]]:
    seen = [image_stats(picture) for picture in pictures]
    hashes = np.array([one.hashes for one in seen], np.uint64)
    thumbnails = np.frombuffer(b"".join(one.thumbnail for one in seen), np.uint8).reshape(-1, 16, 16)
    pairs = find_near_duplicates(hashes, thumbnails, pictures.__getitem__)
    assert all(first < second and ALIKE <= value <= 1.001 for (first, second), value in pairs.items())
    return set(pairs)


@pytest.mark.parametrize("kind", COPIES)
def test_of_a_hundred_planted_copies_95_are_found_and_nothing_else(kind):
    originals = [photo(number) for number in range(MANY)]
    pairs = found(originals + [COPIES[kind](picture) for picture in originals])
    planted = {(number, MANY + number) for number in range(MANY)}
    assert len(pairs & planted) >= 95
    assert len(pairs - planted) == 0


@pytest.mark.parametrize("turn", TURNED)
def test_copies_are_found_in_every_orientation_and_if_they_were_changed_as_well(turn):
    originals = [photo(number) for number in range(MANY)]
    planted = {(number, MANY + number) for number in range(MANY)}
    turned = [TURNED[turn](picture) for picture in originals]
    assert found(originals + turned) == planted
    parts = parts_of_photographs()
    planted = {(number, len(parts) + number) for number in range(len(parts))}
    assert found(parts + [cropped(TURNED[turn](picture)) for picture in parts]) == planted
    assert found([TURNED[turn](jpeg(picture, 50)) for picture in parts] + parts) == planted


@pytest.mark.parametrize("size", [(100, 75), (64, 64)])
def test_all_copies_of_small_photographs_are_found(size):
    originals = [part.resize(size, Image.Resampling.LANCZOS) for part in parts_of_photographs()]
    for copy in COPIES.values():
        pairs = found(originals + [copy(picture) for picture in originals])
        assert pairs == {(number, len(originals) + number) for number in range(len(originals))}


LOST = {f"{share} all round": (share, share, 1 - share, 1 - share) for share in (0.01, 0.015, 0.02, 0.03)}
LOST |= {"right": (0, 0, 0.97, 1), "top": (0, 0.03, 1, 1), "left and right": (0.03, 0, 0.97, 1)}
LOST |= {"top and bottom": (0, 0.03, 1, 0.97)}


@pytest.mark.parametrize("sides", LOST)
def test_photographs_that_lost_a_little_of_their_sides_are_found(sides):
    originals = parts_of_photographs()
    pairs = found(originals + [cropped(picture, *LOST[sides]) for picture in originals])
    assert pairs == {(number, len(originals) + number) for number in range(len(originals))}


@pytest.mark.parametrize("size", [(100, 75), (48, 64), (33, 50)])
def test_a_small_picture_and_its_mirror_image_are_compared_as_mirror_images(size):
    picture = leaves(0).resize(size)
    one, other = _prepare(picture), _prepare(COPIES["mirrored"](picture))
    assert np.abs(one.whole[..., ::-1].astype(int) - other.whole).max() <= 1
    differences = np.abs(one.inner[..., ::-1].astype(int) - other.inner).max(axis=(1, 2, 3))
    assert max(differences[place] for place in (0, 2, 3, 6, 7)) <= 1  # the others begin at one side


def test_copies_of_pictures_with_fine_detail_are_found():
    originals = [leaves(number) for number in range(10)]
    copies = [copy(picture) for copy in COPIES.values() for picture in originals]
    same = {(number % 10, other % 10) for number, other in found(originals + copies)}
    assert same == {(number, number) for number in range(10)}
    pairs = found(originals + [COPIES["3 % cropped"](picture) for picture in originals])
    assert pairs == {(number, 10 + number) for number in range(10)}


def test_copies_of_files_that_are_opened_at_a_fraction_of_their_size_are_found(tmp_path):
    for number, label in enumerate("aaabb"):
        (tmp_path / label).mkdir(exist_ok=True)
        leaves(number).save(tmp_path / f"{label}/{number}.jpg", quality=90)
        cropped(leaves(number), 0.02, 0.02, 0.98, 0.98).save(tmp_path / f"{label}/{number} cropped.jpg", quality=90)
    images = build_catalog(open_source(str(tmp_path), {}, tmp_path)).images
    assert images["cluster"].iloc[::2].tolist() == images["cluster"].iloc[1::2].tolist()
    assert images["cluster"].nunique() == 5


def test_at_most_1_percent_of_distinct_pictures_are_joined():
    joined = {number for pair in found([photo(number) for number in range(1000, 1500)]) for number in pair}
    assert len(joined) <= 5


def test_a_tenth_of_another_picture_leaves_it_the_same_and_three_tenths_do_not():
    """Their likeness is 0.990 to 0.995, and 0.88 to 0.94: on both sides of the threshold, and not far from it."""
    for share, count in ((0.1, 20), (0.3, 0)):
        originals = [photo(number) for number in range(20)]
        mixed = [Image.blend(picture, photo(500 + number), share) for number, picture in enumerate(originals)]
        assert len(found(originals + mixed)) == count


@pytest.mark.parametrize(
    ("name", "conflicts", "exact", "near"), [("trashnet", 3, 0, 27), ("flowers", 4, 2, 13)]
)  # all were looked at: docs/data.md
def test_copies_among_real_photographs_are_those_found_by_eye(tmp_path, name, conflicts, exact, near):
    if not (SHARED / name).is_dir():
        pytest.skip(f"{SHARED / name} is not here")
    catalog = build_catalog(open_source(str(SHARED / name), {}, tmp_path))
    told = Counter(one.kind for one in findings(catalog))
    assert (told["label_conflict"], told["exact_duplicate"], told["near_duplicate"]) == (conflicts, exact, near)


def test_blank_pictures_are_not_near_duplicates():
    assert found([Image.new("RGB", (60, 40), (shade, shade, shade)) for shade in range(0, 250, 10)]) == set()
    assert found([Image.new("RGB", (60, 40), (shade, 20, 30)) for shade in range(0, 250, 10)]) == set()


def test_parts_are_correlated_channel_by_channel():
    one, other = (_prepare(photo(number)) for number in (3, 4))
    expected = []
    for row, column in np.ndindex(7, 7):
        first = one.whole[:, row : row + 26, column : column + 26].astype(np.float64)
        second = other.whole[:, 3:29, 3:29].astype(np.float64)
        first, second = (values - values.mean(axis=(1, 2), keepdims=True) for values in (first, second))
        expected.append((first * second).sum() / np.sqrt((first**2).sum() * (second**2).sum()))
    assert abs(_correlation(one.whole, other.whole[None, :, 3:29, 3:29]) - max(expected)) < 1e-3


def test_a_picture_that_is_gone_is_like_none():
    pictures = [photo(0), COPIES["mirrored"](photo(0)), photo(0, 256, 192)]
    assert found(pictures) == {(0, 1), (0, 2), (1, 2)}
    pictures[1] = None
    seen = [image_stats(picture or photo(0)) for picture in pictures]
    hashes = np.array([one.hashes for one in seen], np.uint64)
    thumbnails = np.frombuffer(b"".join(one.thumbnail for one in seen), np.uint8).reshape(-1, 16, 16)
    assert set(find_near_duplicates(hashes, thumbnails, pictures.__getitem__)) == {(0, 2)}


def test_clusters_join_as_far_as_pairs_reach():
    numbers = cluster_numbers(6, [(0, 3), (3, 5), (1, 2)])
    assert numbers[0] == numbers[3] == numbers[5]
    assert numbers[1] == numbers[2]
    assert len(set(numbers.tolist())) == 3
    assert len(set(cluster_numbers(3, []).tolist())) == 3
