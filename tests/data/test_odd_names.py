"""Any file name is kept unchanged, and output that contains it is valid UTF-8."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.support.nasty import names
from tests.support.pictures import save
from unfreeze.cli.commands.check import _as_json
from unfreeze.config.schema import SplitConfig
from unfreeze.data.catalog import build_catalog, paths_of
from unfreeze.data.quality import findings
from unfreeze.data.sources import open_source
from unfreeze.data.split import draw_split
from unfreeze.errors import UserError
from unfreeze.report.check_page import write_check_page
from unfreeze.storage.records import read_table, write_table

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux takes any bytes as a name")

CLUTTER = {b"thumbs.db", b"desktop.ini", b"__macosx"}
TEXTS = st.text(min_size=1, max_size=60).map(lambda text: text.encode("utf-8", "ignore"))
ANY = TEXTS | st.binary(min_size=1, max_size=20)
FILES = ANY.map(lambda name: name.translate(None, b"/\0")[:255]).filter(
    lambda name: name and not name.startswith(b".") and name.lower() not in CLUTTER
)
LABELS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1, max_size=40).filter(
    lambda name: not name.startswith(".") and name.lower().encode() not in CLUTTER
)


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    folder = tmp_path_factory.mktemp("content")
    return [save(folder / f"{number}.png", number).read_bytes() for number in range(40)]


@pytest.fixture(scope="module")
def _quick() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:  # pictures and the disk take longest, and know no names
        patch.setattr("unfreeze.storage.atomic._sync", lambda _: None)
        patch.setattr("unfreeze.report.check_page._picture", lambda *_: "")
        yield


@pytest.mark.usefixtures("_quick")
@settings(deadline=None, max_examples=40)
@given(files=st.lists(FILES, min_size=1, max_size=6, unique=True), labels=st.tuples(LABELS, LABELS))
@example(files=names(), labels=("=1+1", "<img src=x onerror=alert(1)>"))
@example(files=[b"x"], labels=("caf\u00e9", "cafe\u0301"))
@example(files=[b"x"], labels=("Case", "case"))
@example(files=[b"x"], labels=("\u202egnp", "line\nbreak\r\t"))
def test_any_name_comes_back(tmp_path_factory, content, files, labels):
    root = tmp_path_factory.mktemp("names")
    paths = set()
    for number, (label, name) in enumerate([*((labels[0], name) for name in files), (labels[1], b"other.png")]):
        path = root / "photos" / label / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content[number])
        paths.add(f"{label}/{os.fsdecode(name)}")
    try:
        source = open_source("photos", {}, root)
    except UserError as error:  # class names that a report could not tell apart, or one class only
        str(error).encode()
        assert (
            "differ only in case, white space or Unicode form" in error.given or "holds one class only" in error.given
        )
        return
    catalog = build_catalog(source)
    assert set(catalog.images["path"]) == paths
    assert set(catalog.images["status"]) == {"used"}
    assert catalog.classes == tuple(sorted(labels))
    write_table(root / "catalog.csv", catalog.images)
    again = read_table(root / "catalog.csv")
    for column in ("path", "label", "id"):
        assert list(again[column]) == list(catalog.images[column])
    assert all(path.is_file() for path in paths_of(catalog, list(again["id"])))
    found = findings(catalog, image_size=64)  # all of them are smaller, so that all are told
    said = json.loads(json.dumps(_as_json(catalog, found), ensure_ascii=False).encode())
    assert set(said["classes"]) == set(labels)
    page = write_check_page(root / "check.html", "names", catalog, found)
    text = page.read_bytes().decode()
    assert "<img src=x" not in text and "<script" not in text


def test_the_page_of_a_check_escapes_every_place_of_a_name(tmp_path):
    hostile = "<img src=x onerror=alert(1)>\"'"
    for split in ("train", "test"):
        for label in (hostile, "b"):
            Path(tmp_path / "p" / split / label).mkdir(parents=True)
            for number in range(3):
                save(tmp_path / "p" / split / label / f"{hostile}{number}.png", number + 3 * (label == "b"))
    (tmp_path / "p/train" / hostile / "cut.png").write_bytes(b"x")
    catalog = build_catalog(open_source("p", {}, tmp_path))
    found = findings(catalog)
    assert {"split_leak", "exact_duplicate", "unreadable"} <= {one.kind for one in found}
    text = write_check_page(tmp_path / "c.html", hostile, catalog, found).read_text(encoding="utf-8")
    assert "<img src=x" not in text
    assert "&lt;img src=x onerror=alert(1)&gt;&#34;&#39;" in text


def test_groups_may_have_any_name(tmp_path):
    """Copies of one group in two given splits are told, and a study splits by groups, whatever bytes name them."""
    for number, name in enumerate([b"\xffp", b"p\xc3\xa9", b"<b>", b"\n"] * 3):
        for label in "ab":
            place = Path(os.fsdecode(os.fsencode(tmp_path / "p" / label) + b"/" + name))
            place.mkdir(parents=True, exist_ok=True)
            save(place / f"{number}.png", 2 * number + (label == "b"))
    source = open_source("p", {}, tmp_path, labels_from="^([^/]+)/")
    catalog = build_catalog(source, group="[^/]+/([^/]+)/")
    assert set(catalog.images["group"]) == {os.fsdecode(name) for name in (b"\xffp", b"p\xc3\xa9", b"<b>", b"\n")}
    drawn = draw_split(catalog, SplitConfig(test=0.3, val=0.3))
    assert (catalog.images.assign(split=list(drawn)).groupby("group")["split"].nunique() == 1).all()
    write_table(tmp_path / "catalog.csv", catalog.images)
    assert list(read_table(tmp_path / "catalog.csv")["group"]) == list(catalog.images["group"])
    catalog.images["given_split"] = ["train", "test"] * 12
    told = json.dumps(_as_json(catalog, findings(catalog)), ensure_ascii=False).encode()
    assert b"of the group \\\\xffp, in test and train" in told
