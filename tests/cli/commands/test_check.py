"""``unfreeze check``: the table, the JSON, the page."""

import contextlib
import json
import sys
from pathlib import Path

import pytest
from rich.console import Console

from tests.support.commands import STUDY
from tests.support.nasty import write_pack
from tests.support.photos import COPIES, photo
from tests.support.watched import tree
from unfreeze.cli import tables
from unfreeze.data import scan, scan_cache
from unfreeze.data.catalog import build_catalog
from unfreeze.data.scan_cache import CacheNotWritten
from unfreeze.data.sources import open_source
from unfreeze.storage import cache


@pytest.fixture
def photos(folder: Path) -> Path:
    """Two classes; a conflict, two near duplicates, an unreadable file, and a name that is markup."""
    for label, start in (("red", 0), ("<img onerror=alert(1)>", 100)):
        (folder / "photos" / label).mkdir(parents=True)
        for number in range(start, start + 15):
            photo(number, 64, 48).save(folder / "photos" / label / f"{number}.png")
    photo(100, 64, 48).save(folder / "photos/red/same.bmp")
    COPIES["mirrored"](photo(1, 64, 48)).save(folder / "photos/red/mirrored.png")
    (folder / "photos/red/empty.jpg").write_bytes(b"")
    return folder / "photos"


def test_the_table_and_the_page(unfreeze, photos):
    code, said, told = unfreeze("check", "photos")
    assert (code, told) == (0, "")
    lines = said.splitlines()
    assert lines[:3] == [
        f"data: {photos}: class folders, 33 files in 2 classes, 15 (<img onerror=alert(1)>) to 18 (red) a class",
        "classes: <img onerror=alert(1)>, red",
        "split: drawn: 20% test, 25% validation, the rest training",
    ]
    assert lines[3] == "33 files in 2 classes: 30 used, 3 set aside, 0 ignored"
    kinds = [line.split()[:3] for line in lines if line.startswith(("error", "warning", "note"))]
    assert kinds == [
        ["error", "label_conflict", "2"],
        ["warning", "unreadable", "1"],
        ["warning", "near_duplicate", "2"],
    ]
    assert lines[-1] == "3 findings with images: check.html"
    page = Path("check.html").read_text(encoding="utf-8")
    assert page.count("data:image/jpeg;base64,") == 4
    assert "<img onerror" not in page
    assert "&lt;img onerror=alert(1)&gt;/100.png" in page
    assert "One picture with several labels" in page


def test_ignored_files_are_listed_with_the_reason(unfreeze, photos):
    for path in ("lost.png", "lost2.png", "red/.hidden.png"):
        photo(200).save(photos / path)
    (photos / "broken \x1b[31m\u202e.png").symlink_to("gone")
    _, said, _ = unfreeze("check", "photos")
    lines = said.splitlines()
    assert lines[4] == "37 files in 2 classes: 30 used, 3 set aside, 4 ignored"
    assert lines[3] == (
        "ignored: 2 not in a class folder (first lost.png), 1 broken link (first broken \\x1b[31m\\u202e.png), "
        "1 hidden (first red/.hidden.png)"
    )
    assert "Ignored: 2 not in a class folder (first lost.png), 1 broken" in Path("check.html").read_text("utf-8")
    Path("study.yaml").write_text(STUDY)
    _, said, _ = unfreeze("plan", "study.yaml")
    assert lines[3] in said.splitlines()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux takes any bytes as a name")
def test_nasty_names_are_printed_as_text(unfreeze, folder):
    expected = write_pack(folder / "pack")
    before = tree(folder / "pack")
    code, said, told = unfreeze("check", "pack", "--json")
    assert (code, told) == (0, "")
    found = json.loads(said)
    assert found["images"] == len(expected) == found["used"] + found["set_aside"] + found["ignored"]
    assert {one["kind"] for one in found["findings"]} >= {"unreadable", "exact_duplicate", "odd_size", "outlier"}
    assert {one["severity"] for one in found["findings"]} <= {"error", "warning", "note"}
    assert all(one["count"] == len(one["images"]) for one in found["findings"])
    _, said, _ = unfreeze("check", "pack")
    assert said.replace("\n", "").isprintable()
    page = Path("check.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert tree(folder / "pack") == before


def test_json_output(unfreeze, photos):
    code, said, told = unfreeze("check", "photos", "--json", "--out", "page.html")
    assert (code, told) == (0, "")
    found = json.loads(said)
    assert list(found) == ["images", "used", "set_aside", "ignored", "classes", "findings", "ignored_because", "layout"]
    assert (found["images"], found["used"], found["set_aside"], found["ignored"]) == (33, 30, 3, 0)
    assert found["classes"] == {"<img onerror=alert(1)>": 14, "red": 16}
    assert [list(one) for one in found["findings"]] == [["kind", "severity", "count", "images", "note"]] * 3
    assert found["findings"][0]["images"] == ["<img onerror=alert(1)>/100.png", "red/same.bmp"]
    assert found["layout"] == {
        "kind": "class folders", "classes": ["<img onerror=alert(1)>", "red"], "splits": None, "ignored": {},
        "guessed": [],
    }  # fmt: skip
    assert Path("page.html").is_file()
    assert unfreeze("check", "photos", "--json")[1] == said
    assert not Path("check.html").exists()


def test_json_output_with_ignored_files_and_a_cache_warning_on_stderr(unfreeze, photos, monkeypatch):
    (photos / "lost.png").write_bytes(b"")
    (photos / "red" / ".hidden.png").write_bytes(b"")
    (photos / "red" / ".another.png").write_bytes(b"")
    (photos.parent / "file").write_bytes(b"")
    monkeypatch.setenv("UNFREEZE_CACHE", str(photos.parent / "file"))
    code, said, told = unfreeze("check", "photos", "--json")
    assert (code, json.loads(said)["ignored_because"]) == (0, {"hidden": 2, "not in a class folder": 1})
    assert told == (
        f"warning: the cache {photos.parent / 'file'} cannot be written to (File exists), so all images are "
        "read again each time and frozen stages run live; name another folder in UNFREEZE_CACHE\n"
    )


def test_a_full_disk_of_the_cache_loses_no_finding(unfreeze, photos, monkeypatch):
    whole = unfreeze("check", "photos", "--json")

    def full(*_):
        raise CacheNotWritten("cannot write looks: No space left on device", "room", "free space")

    monkeypatch.setattr(scan_cache, "write_lines", full)
    monkeypatch.setenv("UNFREEZE_CACHE", str(photos.parent / "another"))
    code, said, told = unfreeze("check", "photos", "--json")
    assert (code, said) == (0, whole[1])
    assert told == (
        "warning: the scan cache is incomplete, so the next check reads some images again: "
        "cannot write looks: No space left on device\n"
    )


def test_many_findings_of_one_kind_hide_no_other(unfreeze, photos):
    for number in range(20):
        (photos / f"small{number:02}").mkdir()
        photo(300 + number, 64, 48).save(photos / f"small{number:02}" / "1.png")
    _, said, _ = unfreeze("check", "photos")
    rows = [line.split()[:2] for line in said.splitlines() if line.startswith(("error", "warning", "note"))]
    assert rows == [
        ["error", "label_conflict"],
        *[["error", "small_class"]] * 4,
        ["warning", "unreadable"],
        ["warning", "near_duplicate"],
        ["warning", "imbalance"],
    ]
    assert "and 16 more of small_class\n" in said
    assert Path("check.html").read_text("utf-8").count("has 1 usable image<") == 20


def test_a_progress_bar_is_shown_only_on_a_terminal(unfreeze, photos, monkeypatch):
    monkeypatch.setattr(tables, "stderr", lambda: Console(stderr=True, force_terminal=True, width=100))
    code, said, told = unfreeze("check", "photos", "--json")
    assert code == 0
    assert "reading images" in told and "33/33" in told
    assert "comparing" in told
    json.loads(said)


def test_a_second_check_prints_the_same(unfreeze, photos):
    first, second = unfreeze("check", "photos", "--json"), unfreeze("check", "photos", "--json")
    assert first == second


def test_a_setting_of_the_study(unfreeze, photos):
    _, said, _ = unfreeze("check", "photos", "--json", "--set", "check.label_conflicts=keep")
    assert json.loads(said)["used"] == 32


def test_nothing_is_written_into_the_data(unfreeze, photos):
    code, said, told = unfreeze("check", "photos", "--out", "photos/check.html")
    assert (code, said) == (2, "")
    assert told == (
        f"unfreeze: the page photos/check.html is in the folder of images {photos.resolve()}\n"
        "  expected: a file outside of it, since nothing is ever written there\n"
        "  fix:      give another with --out FILE\n"
    )


def test_a_page_that_is_a_directory(unfreeze, photos):
    Path("pages").mkdir()
    assert unfreeze("check", "photos", "--out", "pages") == (
        2,
        "",
        "unfreeze: --out pages is a directory\n"
        "  expected: a file, or a path where one can be made\n"
        "  fix:      give another --out FILE\n",
    )


def test_clean_data(unfreeze, folder):
    for label, start in (("red", 0), ("blue", 100)):
        (folder / "clean" / label).mkdir(parents=True)
        for number in range(start, start + 12):
            photo(number, 64, 48).save(folder / "clean" / label / f"{number}.png")
    _, said, _ = unfreeze("check", "clean")
    assert "no problems found\n" in said
    assert "No problems were found." in Path("check.html").read_text(encoding="utf-8")


def test_classes_too_small_for_a_study(unfreeze, photos):
    regimes = "regimes: {few: {train_per_class: 30}, more: {train_per_class: 30}}\n"
    Path("study.yaml").write_text(
        f"data: photos\nbackbone: test_resnet\nimage_size: 32\nstrategies: {{head: {{train: head}}}}\n{regimes}"
    )
    _, said, _ = unfreeze("check", "study.yaml", "--json", "--out", "check.html")
    small = [one for one in json.loads(said)["findings"] if one["kind"] == "small_class"]
    assert [one["severity"] for one in small] == ["warning", "warning"]
    assert all(one["note"].startswith("regimes few and more: class ") for one in small)
    assert "regimes few and more: class red gives " in Path("check.html").read_text(encoding="utf-8")
    _, said, _ = unfreeze("check", "photos", "--json")
    assert not [one for one in json.loads(said)["findings"] if one["kind"] == "small_class"]


@pytest.mark.parametrize("command", [("check", "photos"), ("run", "study.yaml")])
def test_check_waits_for_another_process_that_reads_the_same_images(unfreeze, study, monkeypatch, command):
    """Else both would decode all of it; what the first one saw, the second need not look at."""
    other, waited = contextlib.ExitStack(), 0

    def sleep(seconds: float) -> None:
        nonlocal waited
        waited += 1
        if waited == 3:
            build_catalog(open_source("photos", {}, study), scan_cache=study / "cache" / "looks")
            monkeypatch.setattr(
                scan, "decode_and_describe", lambda file: pytest.fail("an image is decoded a second time")
            )
            other.close()

    other.enter_context(cache.scanning(study / "cache", [study / "photos"], lambda: None))
    monkeypatch.setattr(cache.time, "sleep", sleep)
    code, said, told = unfreeze(*command)
    assert (code, waited) == (0, 3)
    assert (said + told).count("waiting for another process that reads the same images") == 1
