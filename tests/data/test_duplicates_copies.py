from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.photos import COPIES, photo
from unfreeze.data import duplicates as copies_module
from unfreeze.data.duplicates import DuplicateGroups, find_copies
from unfreeze.data.scan import scan_files
from unfreeze.data.scan_cache import FileInfo, ScanCache


def write(folder: Path) -> list[Path]:
    """Two pictures alone, one stored twice without loss, one with a mirrored copy, one file that is no image."""
    folder.mkdir()
    paths = [folder / name for name in ("a.png", "b.png", "c.png", "c.bmp", "d.png", "d_mirrored.png", "no.png")]
    for path, number in zip(paths, (0, 1, 2, 2, 3, 3), strict=False):
        photo(number).save(path)
    COPIES["mirrored"](photo(3)).save(paths[5])
    paths[6].write_text("no image")
    return paths


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    return write(tmp_path / "pictures")


def look(paths: list[Path]) -> list[FileInfo]:
    return scan_files(paths, ScanCache(None), None, 1, None)


def partners(found: DuplicateGroups) -> list[set[int]]:
    by_name: dict[str, set[int]] = {}
    for number, name in enumerate(found.cluster):
        if name:
            by_name.setdefault(name, set()).add(number)
    return list(by_name.values())


def test_copies_share_a_cluster_named_after_the_smallest_content(paths):
    looks = look(paths)
    found = find_copies(looks, paths, None)
    assert partners(found) == [{2, 3}, {4, 5}]
    assert found.cluster[2] == min(looks[2].sha256, looks[3].sha256)[:16]
    assert list(found.likeness) == [tuple(sorted((looks[4].sha256, looks[5].sha256)))]


def test_the_order_of_the_images_does_not_matter(paths):
    turned = paths[::-1]
    one, other = find_copies(look(paths), paths, None), find_copies(look(turned), turned, None)
    assert one.cluster == other.cluster[::-1]
    assert one.likeness == other.likeness


def test_without_near_duplicates_only_equal_pixels_count(paths):
    found = find_copies(look(paths), paths, None, near=False)
    assert partners(found) == [{2, 3}]
    assert found.likeness == {}


def test_a_search_is_cached(paths, tmp_path, monkeypatch):
    cache, looks = tmp_path / "looks", look(paths)
    unseen = find_copies(looks, paths, cache, decoding=False)
    assert partners(unseen) == [{2, 3}]
    first = find_copies(looks, paths, cache)
    opened = []
    monkeypatch.setattr(copies_module, "decode", opened.append)
    assert find_copies(looks, paths, cache) == find_copies(looks, paths, cache, decoding=False) == first
    assert opened == []


def test_copies_are_cached_per_set_of_images(paths, tmp_path, monkeypatch):
    cache, looks = tmp_path / "looks", look(paths)
    first = find_copies(looks, paths, cache)
    assert first.likeness
    asked = []
    real = copies_module.find_near_duplicates
    monkeypatch.setattr(copies_module, "find_near_duplicates", lambda *given: (asked.append(1), real(*given))[1])
    assert find_copies(looks, paths, cache) == find_copies(looks, paths, cache, decoding=False) == first
    assert asked == []
    fewer = find_copies(looks[:-2], paths[:-2], cache)
    assert asked == [1]
    assert fewer == find_copies(looks[:-2], paths[:-2], None)


@pytest.mark.parametrize("kind", ["unopened", "gone"])
def test_a_search_that_left_pictures_out_is_made_again(paths, tmp_path, kind):
    cache, looks = tmp_path / "looks", look(paths)
    kept = paths[5].read_bytes()
    if kind == "gone":
        paths[5].unlink()
    assert find_copies(looks, paths, cache, decoding=kind == "gone").likeness == {}
    paths[5].write_bytes(kept)
    assert find_copies(looks, paths, cache) == find_copies(looks, paths, None)
    assert find_copies(looks, paths, cache).likeness


def test_without_a_search_near_duplicates_are_those_that_earlier_ones_found(paths, tmp_path):
    cache, looks = tmp_path / "looks", look(paths)
    found = find_copies(looks[:-1], paths[:-1], cache)
    more = [*paths, tmp_path / "pictures/b_mirrored.png"]
    COPIES["mirrored"](photo(1)).save(more[-1])
    assert find_copies(look(more), more, cache, decoding=False).likeness == found.likeness != {}
    assert len(find_copies(look(more), more, cache).likeness) == 2
    fewer = [path for path in more if path.name != "d.png"]
    assert len(find_copies(look(fewer), fewer, cache, decoding=False).likeness) == 1


def test_an_altered_search_is_made_again(paths, tmp_path):
    cache, looks = tmp_path / "looks", look(paths)
    first = find_copies(looks, paths, cache)
    assert first.likeness
    (file,) = cache.glob("copies-*")
    whole = file.read_bytes()
    for position in range(len(whole)):
        file.write_bytes(whole[:position] + bytes([whole[position] ^ 4]) + whole[position + 1 :])
        assert find_copies(looks, paths, cache, decoding=False).likeness == {}, position
    file.write_bytes(whole[: len(whole) // 2] + bytes(64))
    assert find_copies(looks, paths, cache) == first


def test_a_picture_that_is_gone_has_no_copy(paths):
    looks = look(paths)
    paths[5].unlink()
    assert partners(find_copies(looks, paths, None)) == [{2, 3}]


def test_progress_is_reported(tmp_path):
    (tmp_path / "p").mkdir()
    paths = [tmp_path / "p" / f"{number}.png" for number in range(4)]
    for number, path in enumerate(paths):
        Image.fromarray(np.array(photo(0)) + np.uint8(number)).save(path)
    told = []
    find_copies(look(paths), paths, None, progress=lambda *counts: told.append(counts))
    assert told[-1] == (6, 6)
