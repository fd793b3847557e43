import io
import os
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.pictures import folder, save
from tests.support.settled import aged
from unfreeze.data import image_hash, scan, scan_cache
from unfreeze.data.decode import decode
from unfreeze.data.formats.reading import Reading
from unfreeze.data.scan import scan_files, scan_headers
from unfreeze.data.scan_cache import FileInfo, ScanCache
from unfreeze.data.unusable import Undecodable
from unfreeze.errors import UserError

FIT = FileInfo("ab" * 32, 640, 480, "RGB")
UNFIT = FileInfo("cd" * 32, 3, 2, "F", "values below 0")
DEEP = FileInfo("ef" * 32, 640, 480, "I;16", peak=4095)


def remember(folder: Path, *found: FileInfo) -> None:
    cache = ScanCache(folder)
    for info in found:
        cache.add(info)
    cache.write()


def test_scan_results_come_back(tmp_path):
    remember(tmp_path / "looks", FIT)
    remember(tmp_path / "looks", UNFIT, FIT)
    assert ScanCache(tmp_path / "looks").infos == {info.sha256: info for info in (FIT, UNFIT)}
    files = sorted((tmp_path / "looks").iterdir())
    assert len(files) == 2
    assert {path.read_text(encoding="utf-8").count("\n") for path in files} == {1}  # the second adds what is new


def test_nothing_is_written_without_new_results(tmp_path):
    remember(tmp_path / "looks", FileInfo(reason="cannot be read: permission denied"))
    assert not (tmp_path / "looks").exists()
    remember(tmp_path / "looks", FIT)
    remember(tmp_path / "looks", FIT)
    assert len(list((tmp_path / "looks").iterdir())) == 1


def test_a_content_decoded_once_is_usable(tmp_path):
    ill = FileInfo(FIT.sha256, reason="does not fit into memory")
    for first, second in ((FIT, ill), (ill, FIT)):
        remember(tmp_path / second.reason, first)
        remember(tmp_path / second.reason, second)
        assert ScanCache(tmp_path / second.reason).infos == {FIT.sha256: FIT}


def test_another_version_of_pillow_scans_again(tmp_path, monkeypatch):
    remember(tmp_path, FIT)
    monkeypatch.setattr(scan_cache.PIL, "__version__", "0.0")
    assert ScanCache(tmp_path).infos == {}


@pytest.mark.parametrize(
    ("reading", "key"),
    [
        (Reading(), "0cae0acade490be8"),
        (Reading((2, 1, 0)), "65a4d3c26c09cbf2"),
        (Reading(bits=12, max_pixels=10**9), "dc9a195b009a8c17"),
    ],
)
def test_the_keys_of_scan_results_have_not_changed(tmp_path, monkeypatch, reading, key):
    """As computed at 0.1.0; another key would have every file on people's disks read again."""
    monkeypatch.setattr(scan_cache.PIL, "__version__", "12.0.0")
    for rules, number in (("DECODE_RULES", 1), ("JUDGING_RULES", 1), ("LIKENESS_RULES", 7)):
        monkeypatch.setattr(scan_cache, rules, number)
    cache = ScanCache(tmp_path, reading)
    cache.add(FIT)
    cache.write()
    (path,) = tmp_path.iterdir()
    assert path.name.partition("-")[0] == key


def test_every_altered_line_is_noticed(tmp_path):
    remember(tmp_path, FIT, UNFIT)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    both = ScanCache(tmp_path).infos
    random = np.random.default_rng(0)
    for position, bit in zip(range(len(whole)), random.integers(0, 8, len(whole)), strict=True):
        altered = bytearray(whole)
        altered[position] ^= 1 << bit
        path.write_bytes(altered)
        found = ScanCache(tmp_path).infos
        assert found.items() < both.items(), position
        assert len(found) == 1 or whole[position] == ord("\n"), position  # without which two lines are one
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert len(ScanCache(tmp_path).infos) == (whole[:length].count(b"\n")), length
    path.write_bytes(whole + bytes(4096) + b"\n[]\n\xff\n" + whole[:50])
    assert ScanCache(tmp_path).infos == both
    path.unlink()
    path.mkdir()  # unreadable, whoever runs this
    assert ScanCache(tmp_path).infos == {}


def test_a_file_that_has_not_changed_is_not_read_again(tmp_path, settling, monkeypatch):
    root = tmp_path / "pictures"
    root.mkdir()
    save(root / "a.png", 7)
    (root / "bad.png").write_text("no picture", encoding="utf-8")
    paths = [aged(path) for path in sorted(root.iterdir())]
    cache = tmp_path / "looks"
    first = scan_files(paths, ScanCache(cache), None, 2, None)
    assert [info.reason for info in first] == ["", "not an image"]
    opened = []
    real = scan.open_regular
    monkeypatch.setattr(scan, "open_regular", lambda path: (opened.append(path.name), real(path))[1])
    told = []
    for again in (scan_files, scan_headers):
        more = {"on_picture": None} if again is scan_files else {}
        found = again(paths, ScanCache(cache), lambda done, total: told.append((done, total)), 2, **more)
        assert found == first
    assert opened == ["bad.png"] * 2  # what is unfit is tried anew
    assert told == [(1, 2), (2, 2)] * 2
    save(root / "a.png", 8)
    (changed, _) = scan_files(paths, ScanCache(cache), None, 2, None)
    assert changed.sha256 != first[0].sha256


@pytest.mark.parametrize("name", ["in_threads", "scan_in_slots"])
def test_a_file_replaced_during_the_scan_is_not_cached_under_the_old_state(tmp_path, settling, monkeypatch, name):
    """Renaming a folder changes no time of its files."""
    for number, side in enumerate(("new", "old")):
        for file in range(4):
            save(tmp_path / side / f"{file}.png", 10 * number + file)
    expected = {
        side: scan_files(sorted((tmp_path / side).iterdir()), ScanCache(None), None, 2, None) for side in ("new", "old")
    }
    paths = [aged(path) for path in sorted((tmp_path / "old").iterdir())]
    if name == "scan_in_slots":
        monkeypatch.setattr(scan, "_MANY", 4)
    start, started = getattr(scan, name), []

    def swapped(*asked):
        if not started:  # it is known which files to read, and none is read
            (tmp_path / "old").rename(tmp_path / "older")
            (tmp_path / "new").rename(tmp_path / "old")
        started.append(1)
        return start(*asked)

    monkeypatch.setattr(scan, name, swapped)
    cache = tmp_path / "looks"
    assert scan_files(paths, ScanCache(cache), None, 2, None) == expected["new"]
    (tmp_path / "old").rename(tmp_path / "new")
    (tmp_path / "older").rename(tmp_path / "old")
    assert scan_files(paths, ScanCache(cache), None, 2, None) == expected["old"]


def test_an_altered_state_is_ignored(tmp_path):
    cache = ScanCache(tmp_path)
    cache.add(FIT, "1:2:3:4:5")
    cache.write()
    assert ScanCache(tmp_path).unchanged("1:2:3:4:5") == FIT
    assert ScanCache(tmp_path).unchanged("1:2:3:4:6") is ScanCache(tmp_path).unchanged("") is None
    (path,) = tmp_path.glob("states-*")
    whole = path.read_bytes()
    for position in range(len(whole)):
        altered = bytearray(whole)
        altered[position] ^= 2
        path.write_bytes(altered)
        assert ScanCache(tmp_path).unchanged("1:2:3:4:5") is None, position


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path):
    (tmp_path / "looks").write_text("a file", encoding="utf-8")
    cache = ScanCache(tmp_path / "looks")
    cache.add(FIT)
    with pytest.raises(UserError) as caught:
        cache.write()
    assert str(caught.value).replace(str(tmp_path), "TMP").split("\n")[0].startswith("cannot write TMP/looks/")
    assert caught.value.expected == "a cache folder that can be written to, with room on its disk"
    assert caught.value.fix == "set UNFREEZE_CACHE to another folder, or free space and run the same command again"


def paths_in(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*.png"))


@pytest.mark.parametrize("workers", [1, 8])
def test_each_content_is_decoded_once_and_on_picture_called_by_one_thread_at_a_time(tmp_path, monkeypatch, workers):
    folder(tmp_path / "photos", {"a": 6, "b": 6})
    for number in range(12):
        shutil.copy(tmp_path / "photos/a/000.png", tmp_path / f"photos/a/copy{number}.png")
    decoded, inside, handed = [], threading.Lock(), {}
    load = image_hash.load
    monkeypatch.setattr(image_hash, "load", lambda file, **more: decoded.append(file.name) or load(file, **more))

    def on_picture(sha256: str, picture: Image.Image) -> None:
        assert inside.acquire(blocking=False)
        assert threading.current_thread() is not threading.main_thread()
        handed[sha256] = picture.tobytes()
        inside.release()

    paths = paths_in(tmp_path / "photos")
    found = scan_files(paths, ScanCache(tmp_path / "looks"), None, workers, on_picture)
    assert len(decoded) == 12
    assert handed == {info.sha256: decode(path).tobytes() for info, path in zip(found, paths, strict=True)}
    again = scan_files(paths, ScanCache(tmp_path / "looks"), None, workers, on_picture)
    assert again == found
    assert len(decoded) == 12


def test_pictures_are_prepared_in_parallel(tmp_path):
    paths, together = (
        [save(tmp_path / f"{number}.png", number) for number in range(2)],
        threading.Barrier(2, timeout=20),
    )
    handed = {}

    def prepare(picture: Image.Image) -> tuple[int, bytes]:
        return together.wait(), picture.tobytes()

    found = scan_files(paths, ScanCache(None), None, 2, handed.__setitem__, prepare)
    assert {sha256: pixels for sha256, (_, pixels) in handed.items()} == {
        info.sha256: decode(path).tobytes() for info, path in zip(found, paths, strict=True)
    }


def test_unusable_files_are_not_passed_to_on_picture_and_are_scanned_again(tmp_path):
    paths = [save(tmp_path / f"{number}.png", number) for number in range(3)]
    paths[1].write_bytes(paths[1].read_bytes()[:90])
    handed = []
    for _ in range(2):
        found = scan_files(paths, ScanCache(tmp_path / "looks"), None, 2, lambda sha256, _: handed.append(sha256))
        assert [info.reason for info in found] == ["", "truncated", ""]
    assert sorted(handed) == sorted([found[0].sha256, found[2].sha256])
    known = ScanCache(tmp_path / "looks").infos[found[1].sha256]
    assert known.reason == "truncated"
    # The disk gave other bytes then, say: remembered as truncated, but whole.
    remember(tmp_path / "looks2", FileInfo(found[0].sha256, reason="truncated"))
    assert scan_files(paths[:1], ScanCache(tmp_path / "looks2"), None, 1, None) == found[:1]
    assert ScanCache(tmp_path / "looks2").infos == {found[0].sha256: found[0]}


def test_a_file_written_to_meanwhile_is_set_aside_and_its_twin_is_not(tmp_path, monkeypatch):
    paths = [save(tmp_path / f"{number}.png") for number in range(4)]
    load = image_hash.load

    def slow(file, **more):
        image = load(file, **more)
        if file.name == str(paths[0]):
            with paths[0].open("ab") as writing:
                writing.write(b"more")
        return image

    monkeypatch.setattr(image_hash, "load", slow)
    handed = []
    found = scan_files(paths, ScanCache(tmp_path / "looks"), None, 4, lambda sha256, _: handed.append(sha256))
    assert {info.reason for info in found[1:]} == {""}
    # Whether the first file was the one of the four that was decoded, the threads decide.
    assert found[0] in (FileInfo(reason="changed while it was read"), found[1])
    assert handed == [found[1].sha256]
    assert scan_files(paths[:1], ScanCache(None), None, 1, None) == [FileInfo(reason="changed while it was read")]


def test_an_exception_of_on_picture_ends_the_scan_and_results_so_far_are_cached(tmp_path):
    paths = [save(tmp_path / f"{number}.png", number) for number in range(30)]
    handed = []

    def on_picture(sha256: str, _: Image.Image) -> None:
        handed.append(sha256)
        if len(handed) == 10:
            raise OSError("the disk is full")

    with pytest.raises(OSError, match="^the disk is full$"):
        scan_files(paths, ScanCache(tmp_path / "looks"), None, 1, on_picture)
    assert set(ScanCache(tmp_path / "looks").infos) == set(handed[:9])


def test_files_that_cannot_be_opened_or_read_say_why(tmp_path, monkeypatch):
    missing, fine = tmp_path / "missing.png", save(tmp_path / "fine.png")
    with pytest.raises(Undecodable):
        decode(missing)

    class Failing(io.FileIO):
        def read(self, size: int = -1) -> bytes:
            raise OSError(5, os.strerror(5))

    assert scan_files([missing], ScanCache(None), None, 1, None) == [
        FileInfo(reason="cannot be read: no such file or directory")
    ]
    monkeypatch.setattr(scan, "open_regular", lambda path: io.BufferedReader(Failing(path)))
    assert scan_files([fine], ScanCache(None), None, 1, None) == [FileInfo(reason="cannot be read: input/output error")]
