import hashlib
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageFile

from tests.support.photos import cut_jpegs
from tests.support.pictures import folder, png, save
from unfreeze.config.schema import CheckConfig
from unfreeze.data import image_hash
from unfreeze.data.catalog import COLUMNS, CUT, Catalog, build_catalog, paths_of, preview_catalog, rows_of
from unfreeze.data.scan import Callbacks
from unfreeze.data.sources import open_source
from unfreeze.errors import UserError
from unfreeze.storage.records import read_table, write_table

SHARED = Path(__file__).parents[2] / "../shared/data/trashnet"


SEEN = ["pixels", "phash", "cluster", "brightness", "contrast", "sharpness", "colour"]
"""Columns that only a decoded picture fills."""


def keeping_keys_in(handed: list[str]) -> Callbacks:
    return Callbacks(on_picture=lambda sha256, _: handed.append(sha256))


def build(root: Path, group: str | None = None, **tests: str) -> Catalog:
    return build_catalog(open_source(str(root), tests, root), group)


def nasty(root: Path) -> Path:
    """A folder with every kind of row."""
    folder(root, {"a": 2, "b": 2})
    shutil.copy(root / "a/000.png", root / "b/copy.png")
    shutil.copy(root / "a/000.png", root / "a/zcopy.png")
    (root / "b/empty.jpg").write_bytes(b"")
    (root / "b/notes.jpg").write_text("a text", encoding="utf-8")
    (root / "b/short.png").write_bytes((root / "a/001.png").read_bytes()[:90])
    (root / "b/bomb.png").write_bytes(png(9_600, 9_600, 1, 0, b""))
    (root / "b/.hidden.png").write_bytes(b"x")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.zeros((6, 8), np.uint16)).save(root / "b/turned.png", exif=exif)
    return root


def test_every_file_has_one_row(tmp_path):
    images = build(nasty(tmp_path)).images
    assert tuple(images.columns) == COLUMNS
    assert list(images.index) == list(range(len(images)))
    assert list(images["path"]) == sorted(images["path"])
    assert images["id"].is_unique
    on_disk = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert set(images["path"]) == on_disk
    assert dict(images.set_index("path")["status"] + ": " + images.set_index("path")["reason"]) == {
        "a/000.png": "set_aside: copies have different labels: a and b",
        "a/001.png": "used: ",
        "a/zcopy.png": "set_aside: copies have different labels: a and b",
        "b/.hidden.png": "ignored: hidden",
        "b/000.png": "used: ",
        "b/001.png": "used: ",
        "b/bomb.png": "set_aside: too large, more than 89.5 million pixels: --set check.max_pixels=120M",
        "b/copy.png": "set_aside: copies have different labels: a and b",
        "b/empty.jpg": "set_aside: empty file",
        "b/notes.jpg": "set_aside: not an image",
        "b/short.png": "set_aside: truncated",
        "b/turned.png": "used: ",
    }
    used = images[images["status"] == "used"]
    assert (used["label"] == used["path"].str.split("/").str[0]).all()


def test_truncated_jpegs_are_kept_where_that_is_asked_for(tmp_path):
    (cut,) = cut_jpegs(tmp_path / "photos")
    source = open_source("photos", {}, tmp_path)
    handed: list[str] = []
    aside = build_catalog(source, scan_cache=tmp_path / "looks", callbacks=keeping_keys_in(handed))
    kept = build_catalog(source, scan_cache=tmp_path / "looks", check=CheckConfig(truncated="keep"))
    for found in (kept, preview_catalog(source, scan_cache=tmp_path / "looks", check=CheckConfig(truncated="keep"))):
        rows = found.images.set_index("path")
        assert tuple(rows.loc["a/00.jpg", ["status", "reason", "note"]]) == ("used", "", CUT)
        assert tuple(rows.loc["b/cut.png", ["status", "reason", "note"]]) == ("set_aside", "truncated", "")
        assert tuple(rows.loc["a/00.jpg", ["width", "height", "mode"]]) == (96, 64, "RGB")
    rows = aside.images.set_index("path")
    assert tuple(rows.loc["a/00.jpg", ["status", "reason", "note"]]) == ("set_aside", "truncated", "")
    assert len(handed) == 11  # of pictures that are fit for use
    assert hashlib.sha256(cut.read_bytes()).hexdigest() not in handed
    differ = (aside.images != kept.images) & ~(aside.images.isna() & kept.images.isna())
    assert differ.any(axis=1).sum() == 1


def test_a_copy_of_a_truncated_picture_is_found_where_it_is_kept(tmp_path):
    (cut,) = cut_jpegs(tmp_path)
    shutil.copy(cut, tmp_path / "b/copy.jpg")
    found = build_catalog(open_source(str(tmp_path), {}, tmp_path), check=CheckConfig(truncated="keep"))
    rows = found.images.set_index("path")
    assert set(rows.loc[["a/00.jpg", "b/copy.jpg"], "reason"]) == {"copies have different labels: a and b"}


def test_ids_come_from_the_content(tmp_path):
    rows = build(nasty(tmp_path)).images.set_index("path")
    sha256 = hashlib.sha256((tmp_path / "a/000.png").read_bytes()).hexdigest()
    copies = ["a/000.png", "a/zcopy.png", "b/copy.png"]
    assert list(rows.loc[copies, "sha256"]) == [sha256] * 3
    assert list(rows.loc[copies, "id"]) == [sha256[:16], f"{sha256[:16]}-2", f"{sha256[:16]}-3"]
    assert rows.loc["b/.hidden.png", "id"] == "x" + hashlib.sha256(b"b/.hidden.png").hexdigest()[:16]
    assert rows.loc["b/.hidden.png", "sha256"] == ""


def test_sizes_are_upright_and_modes_as_stored(tmp_path):
    rows = build(nasty(tmp_path)).images.set_index("path")
    assert tuple(rows.loc["a/000.png", ["width", "height", "mode"]]) == (8, 6, "RGB")
    assert tuple(rows.loc["b/turned.png", ["width", "height", "mode"]]) == (6, 8, "I;16")
    assert tuple(rows.loc["b/notes.jpg", ["width", "height", "mode"]]) == (0, 0, "")


def test_the_number_of_workers_does_not_matter(tmp_path):
    source = open_source(str(nasty(tmp_path)), {}, tmp_path)
    one, four = (build_catalog(source, workers=workers).images for workers in (1, 4))
    pd.testing.assert_frame_equal(one, four)


def test_a_file_that_vanishes_is_set_aside(tmp_path):
    source = open_source(str(folder(tmp_path, {"a": 2, "b": 1})), {}, tmp_path)
    (tmp_path / "a/000.png").unlink()
    row = build_catalog(source).images.iloc[0]
    assert (row["status"], row["reason"]) == ("set_aside", "cannot be read: no such file or directory")
    assert row["id"] == "x" + hashlib.sha256(b"a/000.png").hexdigest()[:16]


def test_progress_counts_every_file(tmp_path):
    calls = []
    source = open_source(str(folder(tmp_path, {"a": 2, "b": 1})), {}, tmp_path)
    build_catalog(source, callbacks=Callbacks(progress=lambda done, total: calls.append((done, total))))
    assert calls == [(1, 3), (2, 3), (3, 3)]


def test_further_test_sets_come_after_the_main_data(tmp_path):
    folder(tmp_path / "main", {"a": 1, "b": 1})
    save(tmp_path / "site/a/000.png", 99)
    catalog = build(tmp_path / "main", site="../site")
    assert list(catalog.images["source"]) == ["", "", "site"]
    assert paths_of(catalog, [catalog.images["id"][2]]) == [(tmp_path / "site").resolve() / "a/000.png"]


@pytest.mark.parametrize(
    ("group", "expected"),
    [(r"p(\d+)_", ["1", "1", "2"]), (r"p\d+", ["p1", "p1", "p2"]), (r".*p1(_)|", ["_", "_", ""])],
)
def test_groups_come_from_the_path(tmp_path, group, expected):
    for number, path in enumerate(("a/p1_x.png", "b/p1_y.png", "b/p2_x.png")):
        save(tmp_path / path, number)
    save(tmp_path / "b/.p1_hidden.png")
    images = build(tmp_path, group).images
    assert list(images.loc[images["status"] == "used", "group"]) == expected


def test_a_path_without_a_group_is_refused(tmp_path):
    for number, path in enumerate(("a/p1_x.png", "b/y.png", "b/z.png")):
        save(tmp_path / path, number)
    with pytest.raises(UserError) as caught:
        build(tmp_path, r"p(\d+)_")
    assert str(caught.value) == (
        "split.group: p(\\d+)_: 2 of 3 paths do not match, first b/y.png\n"
        "  expected: an expression that matches the path of every image\n"
        "  fix:      widen the expression; .*(PART)| leaves images without PART in no group"
    )


def test_a_group_that_is_not_an_expression_is_refused(tmp_path):
    folder(tmp_path, {"a": 1, "b": 1})
    with pytest.raises(UserError) as caught:
        build(tmp_path, "p(")
    assert str(caught.value) == (
        "split.group: p(: missing ), unterminated subpattern at position 1\n"
        "  expected: a regular expression, such as patient(\\d+)\n"
        "  fix:      correct the expression"
    )


def test_a_catalog_comes_back_from_its_file(tmp_path):
    root = nasty(tmp_path / "photos")
    save(root / "a/NA,\n'é\".png", 77)
    save(root / "a/NA", 78)
    catalog = build(root, r"(\d)?\.?")
    write_table(tmp_path / "catalog.csv", catalog.images)
    again = read_table(tmp_path / "catalog.csv")
    pd.testing.assert_frame_equal(again, catalog.images, check_dtype=False)


def test_rows_come_in_the_given_order(tmp_path):
    catalog = build(folder(tmp_path, {"a": 2, "b": 1}))
    ids = list(reversed(catalog.images["id"]))
    assert list(rows_of(catalog, ids)["path"]) == ["b/000.png", "a/001.png", "a/000.png"]
    assert paths_of(catalog, ids)[0] == tmp_path.resolve() / "b/000.png"
    with pytest.raises(KeyError):
        rows_of(catalog, ["gone"])


def test_a_catalog_does_not_depend_on_what_is_cached(tmp_path):
    source = open_source(str(nasty(tmp_path / "photos")), {}, tmp_path)
    expected = build_catalog(source).images
    for _ in range(2):
        pd.testing.assert_frame_equal(build_catalog(source, scan_cache=tmp_path / "looks").images, expected)
    names = [path.name for path in (tmp_path / "looks").iterdir() if not path.name.startswith("states-")]
    assert sorted(name.startswith("copies-") for name in names) == [False, False, True]  # the second time wrote nothing


def test_what_is_known_is_not_decoded_again_wherever_it_is(tmp_path, monkeypatch):
    folder(tmp_path / "photos", {"a": 3, "b": 2})
    build_catalog(open_source(str(tmp_path / "photos"), {}, tmp_path), scan_cache=tmp_path / "looks")
    (tmp_path / "photos").rename(tmp_path / "moved")
    (tmp_path / "moved/a/000.png").rename(tmp_path / "moved/b/renamed.jpeg")
    (tmp_path / "moved/a/001.png").touch()
    save(tmp_path / "moved/a/002.png", 50)
    decoded, handed = [], []
    load = image_hash.load
    monkeypatch.setattr(
        image_hash, "load", lambda file, **more: decoded.append(Path(file.name).name) or load(file, **more)
    )
    source = open_source(str(tmp_path / "moved"), {}, tmp_path)
    catalog = build_catalog(source, scan_cache=tmp_path / "looks", callbacks=keeping_keys_in(handed))
    assert decoded == ["002.png"]
    assert handed == list(catalog.images.loc[catalog.images["path"] == "a/002.png", "sha256"])


def test_a_preview_equals_the_catalog_if_headers_are_right(tmp_path, monkeypatch):
    root = nasty(tmp_path / "photos")
    exif = Image.Exif()
    exif[0x0112] = 8
    picture = Image.fromarray(np.zeros((6, 9, 3), np.uint8))
    for name in ("jpeg", "webp", "tiff", "png"):
        picture.save(root / f"a/turned.{name}", exif=exif)
    picture.convert("CMYK").save(root / "a/cmyk.jpg")
    picture.convert("P").save(root / "a/first.gif", save_all=True, append_images=[Image.new("P", (9, 6), 3)])
    picture.convert("1").save(root / "a/bits.bmp")
    picture.convert("L").save(root / "a/grey.tif", compression="tiff_lzw")
    source = open_source(str(root), {}, tmp_path)
    expected = build_catalog(source, r"(\d)?", scan_cache=tmp_path / "looks").images
    assert set(expected.loc[expected["path"].str.contains("turned"), ["width", "height"]].itertuples(index=False)) == {
        (6, 9),
        (6, 8),
    }

    load_any = ImageFile.ImageFile.load

    def refuse(image):
        assert image.mode == "I;16", "a pixel is decoded"  # of which the values say how many bits count
        return load_any(image)

    monkeypatch.setattr(ImageFile.ImageFile, "load", refuse)
    calls = []
    glanced = preview_catalog(source, r"(\d)?", progress=lambda done, total: calls.append((done, total)), workers=2)
    assert calls == [(number, len(source.items)) for number in range(1, len(source.items) + 1)]
    assert glanced.classes == ("a", "b")
    short = glanced.images["path"] == "b/short.png"
    pd.testing.assert_frame_equal(glanced.images[~short].drop(columns=SEEN), expected[~short].drop(columns=SEEN))
    assert tuple(glanced.images.loc[short, ["width", "height", "mode", "status", "reason"]].iloc[0]) == (
        8,
        6,
        "RGB",
        "used",
        "",
    )
    # Once a file was decoded, a preview knows better.
    pd.testing.assert_frame_equal(preview_catalog(source, r"(\d)?", scan_cache=tmp_path / "looks").images, expected)
    with pytest.raises(UserError, match=r"^split\.group: p\(: missing"):
        preview_catalog(source, "p(")


@pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/data/trashnet is not here")
def test_a_second_scan_of_real_photographs_decodes_nothing(tmp_path, monkeypatch):
    source = open_source(str(SHARED), {}, tmp_path)
    first = build_catalog(source, scan_cache=tmp_path / "looks").images
    monkeypatch.setattr(image_hash, "load", None)
    pd.testing.assert_frame_equal(build_catalog(source, scan_cache=tmp_path / "looks").images, first)
    told = [*SEEN, "status", "reason"]  # which of them are copies, and so in conflict, only their pixels say
    pd.testing.assert_frame_equal(preview_catalog(source).images.drop(columns=told), first.drop(columns=told))
