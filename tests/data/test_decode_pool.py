"""Scanning in slots: the same results as in threads, and a crash costs one file."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from tests.support.pictures import save
from tests.support.settled import aged, posix
from unfreeze import slots
from unfreeze.data import decode_pool as workers
from unfreeze.data import scan
from unfreeze.data.decode_pool import scan_in_slots
from unfreeze.data.formats.reading import USUAL
from unfreeze.data.scan import scan_files
from unfreeze.data.scan_cache import FileInfo, ScanCache, state_of
from unfreeze.data.unusable import CRASHED
from unfreeze.errors import UserError

DYING = """
import os, unfreeze.data.decode_pool as worker
from unfreeze.worker import main
decoded = worker.decode_and_describe
worker.decode_and_describe = lambda file, *more: os._exit(3) if "bad" in file.name else decoded(file, *more)
main()
"""

WAITING = """
import os, time, unfreeze.data.decode_pool as worker
from unfreeze.worker import main
decoded = worker.decode_and_describe
def wait(file):
    folder, name = os.path.split(file.name)
    while name >= "100.png" and not os.path.exists(folder + "/go"):
        time.sleep(0.01)
worker.decode_and_describe = lambda file, *more: wait(file) or decoded(file, *more)
main()
"""

SLOW = """
import os, time, unfreeze.data.decode_pool as worker
from unfreeze.worker import main
decoded = worker.decode_and_describe
slow = lambda file: os.path.exists(os.path.dirname(file.name) + "/slow")
worker.decode_and_describe = lambda file, *more: time.sleep(60 * slow(file)) or decoded(file, *more)
main()
"""


def in_threads(paths: list[Path]) -> list[FileInfo]:
    return scan_files(paths, ScanCache(None), None, 1, lambda *_: None)


def in_slots(paths: list[Path], count: int, **known: FileInfo) -> list[tuple[FileInfo, str]]:
    return list(scan_in_slots(paths, known, USUAL, count))


@pytest.fixture
def soon(monkeypatch):
    """Slots start where there are few files."""
    monkeypatch.setattr(scan, "_MANY", 10)


@pytest.fixture
def started(monkeypatch) -> list[subprocess.Popen]:
    """The processes that were started, in order."""
    processes, start = [], slots.subprocess.Popen
    monkeypatch.setattr(
        slots.subprocess, "Popen", lambda *told, **more: processes.append(start(*told, **more)) or processes[-1]
    )
    return processes


def mixed(folder: Path) -> list[Path]:
    """Pictures, copies of some, a cut one, one that is no image, a bomb, a pipe, one that is not there."""
    paths = [save(folder / f"{number:02}.png", number) for number in range(30)]
    paths += [Path(shutil.copy(paths[number], folder / f"copy{number}.png")) for number in (0, 1, 29)]
    for name, content in (("cut.png", paths[5].read_bytes()[:90]), ("no.png", b"no image"), ("empty.png", b"")):
        (folder / name).write_bytes(content)
    Image.new("1", (12_000, 9_000)).save(folder / "bomb.png")
    paths += [folder / name for name in ("cut.png", "no.png", "empty.png", "bomb.png", "gone.png", "\udcff.png")]
    shutil.copy(paths[0], paths[-1])
    if hasattr(os, "mkfifo"):
        os.mkfifo(folder / "pipe.png")
        paths.append(folder / "pipe.png")
    return paths


@pytest.mark.parametrize("count", [1, 3])
def test_slots_find_what_threads_find_in_the_same_order(tmp_path, soon, started, count):
    paths = mixed(tmp_path / "photos")
    expected = in_threads(paths)
    told = []
    found = scan_files(
        paths, ScanCache(tmp_path / "looks"), lambda done, total: told.append((done, total)), count, None
    )
    assert found == expected
    assert len(started) == count
    assert {info.reason for info in found} >= {"truncated", "not an image", "empty file"}
    assert told == [(done + 1, len(paths)) for done in range(len(paths))]
    assert scan_files(paths, ScanCache(tmp_path / "looks"), None, count, None) == expected


def test_none_is_decoded_here(tmp_path, monkeypatch, soon):
    paths = [save(tmp_path / f"{number:02}.png", number) for number in range(12)]
    expected = in_threads(paths)
    monkeypatch.setattr(scan, "decode_and_describe", None)
    assert scan_files(paths, ScanCache(None), None, 2, None) == expected


def test_a_file_that_kills_its_slot_is_named_and_costs_nothing_else(tmp_path, monkeypatch, soon, started):
    paths = [save(tmp_path / f"{number:03}.png", number) for number in range(60)]
    expected = in_threads(paths)
    bad = (7, 8, 27)
    for number in bad:
        paths[number] = paths[number].rename(tmp_path / f"bad{number}.png")
    monkeypatch.setattr(slots, "_COMMAND", ("-P", "-c", DYING))
    found = scan_files(paths, ScanCache(tmp_path / "looks"), None, 2, None)
    for number in bad:
        size = paths[number].stat().st_size
        assert found[number] == FileInfo(expected[number].sha256, reason=CRASHED, bytes=size)
    rest = [number for number in range(60) if number not in bad]
    assert [found[number] for number in rest] == [expected[number] for number in rest]
    assert all(process.returncode is not None for process in started)


@posix
def test_a_slot_that_is_killed_costs_nothing(tmp_path, soon, started, monkeypatch):
    """Files from 100 on wait for the kill, so that there is work left for a new slot."""
    paths = [save(tmp_path / f"{number:03}.png", number) for number in range(200)]
    expected = in_threads(paths)
    monkeypatch.setattr(slots, "_COMMAND", ("-P", "-c", WAITING))

    def kill(done: int, total: int) -> None:
        if done == 20:
            os.kill(started[0].pid, signal.SIGKILL)
            (tmp_path / "go").touch()

    assert scan_files(paths, ScanCache(None), kill, 2, None) == expected
    assert len(started) == 3


def test_a_known_content_is_not_decoded_nor_is_a_copy(tmp_path, monkeypatch):
    paths = [save(tmp_path / f"{number}.png", number) for number in range(2)]
    paths += [Path(shutil.copy(paths[1], tmp_path / "copy.png"))]
    first, second, _ = in_threads(paths)
    paths[0] = paths[0].rename(tmp_path / "bad.png")
    monkeypatch.setattr(slots, "_COMMAND", ("-P", "-c", DYING))
    found = in_slots(paths, 1, **{first.sha256: first})
    assert [info for info, _ in found] == [first, second, second]


@posix
def test_a_result_has_the_state_of_the_file_when_it_was_read(tmp_path):
    old = aged(save(tmp_path / "old.png"))
    before = state_of(old)
    (_, told), (gone, none) = in_slots([old, tmp_path / "gone.png"], 1)
    assert (told, none) == (before, "")
    assert gone.reason == "cannot be read: no such file or directory"


def test_all_slots_end_also_where_the_scan_is_interrupted(tmp_path, soon, started):
    paths = [save(tmp_path / f"{number:02}.png", number) for number in range(60)]

    def interrupt(done: int, total: int) -> None:
        if done == 30:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scan_files(paths, ScanCache(tmp_path / "looks"), interrupt, 2, None)
    assert started
    assert all(process.returncode is not None for process in started)
    assert len(ScanCache(tmp_path / "looks").infos) == 30


def test_an_interrupt_does_not_wait_for_what_the_slots_are_at(tmp_path, monkeypatch, soon):
    paths = [save(tmp_path / f"{number:02}.png", number) for number in range(60)]
    monkeypatch.setattr(slots, "_COMMAND", ("-P", "-c", SLOW))
    interrupted = []

    def interrupt(done: int, total: int) -> None:
        if done == 10:
            (tmp_path / "slow").touch()
            time.sleep(0.5)  # until both are at a file that takes a minute, unless they have read all
            interrupted.append(time.monotonic())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scan_files(paths, ScanCache(tmp_path / "looks"), interrupt, 2, None)
    assert time.monotonic() - interrupted[0] < 10
    assert len(ScanCache(tmp_path / "looks").infos) == 10


def test_a_slot_finds_the_package_where_no_path_leads_to_it(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [path for path in sys.path if not Path(path, "unfreeze").exists()])
    monkeypatch.delenv("PYTHONPATH", raising=False)
    ((info, _),) = in_slots([save(tmp_path / "1.png")], 1)
    assert info.reason == ""


def test_a_python_that_does_not_start_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(slots, "_COMMAND", ("-P", "-c", "raise SystemExit(3)"))
    with pytest.raises(UserError) as caught:
        in_slots([save(tmp_path / "1.png")], 2)
    assert str(caught.value) == (
        f"{sys.executable} cannot be started as a worker: it ended with exit code 3 before it could be asked\n"
        "  expected: a Python that can start another one\n"
        "  fix:      free memory, or run the command with the Python that unfreeze is installed in"
    )


def test_towards_the_end_chunks_are_small(tmp_path):
    paths = [tmp_path / f"{number}" for number in range(500)]
    scan, sizes = workers._Scan(paths, {}, USUAL, tmp_path), []
    while scan._waiting:
        sizes.append(len(scan._chunk(4)))
    assert sum(sizes) == 500
    assert sizes == sorted(sizes, reverse=True)
    assert (sizes[0], sizes[-8:]) == (16, [1] * 8)
