"""Processes that decode: the same looks as threads give, and a crash costs one file."""

import io
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.data.pictures import save
from tests.data.settled import aged, posix
from unfreeze.data import looking, workers
from unfreeze.data.likeness import as_values, likeness
from unfreeze.data.look import Look
from unfreeze.data.looking import look_at_all
from unfreeze.data.looks import Remembered
from unfreeze.data.reading import Reading
from unfreeze.data.sketch import Seen
from unfreeze.data.states import state_of
from unfreeze.data.workers import CRASHED, Ended, Workers, _answers
from unfreeze.errors import UserError

DYING = """
import os, unfreeze.data.worker as worker
seen = worker._seen
worker._seen = lambda file, *more: os._exit(3) if "bad" in file.name else seen(file, *more)
worker.main()
"""

SLOW = """
import os, time, unfreeze.data.worker as worker
seen = worker._seen
slow = lambda file: os.path.exists(os.path.dirname(file.name) + "/slow")
worker._seen = lambda file, *more: time.sleep(60 * slow(file)) or seen(file, *more)
worker.main()
"""


def in_threads(paths: list[Path]) -> list[Look]:
    return look_at_all(paths, Remembered(None), None, 1, lambda *_: None)


@pytest.fixture
def soon(monkeypatch):
    """Processes begin early, and get few files at once."""
    monkeypatch.setattr(looking, "_MANY", 10)
    monkeypatch.setattr(looking, "_SOME", 2)
    monkeypatch.setattr(looking, "_MOST", 4)


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


@pytest.mark.parametrize(("count", "quick"), [(1, 60.0), (3, 60.0), (3, 0.0)])
def test_processes_find_what_threads_find_in_the_same_order(tmp_path, monkeypatch, soon, count, quick):
    monkeypatch.setattr(looking, "_QUICK", quick)  # hashed one thread at a time, or side by side
    paths = mixed(tmp_path / "photos")
    started, start = [], Workers._started
    monkeypatch.setattr(Workers, "_started", lambda self: started.append(1) or start(self))
    expected = in_threads(paths)
    there, looks_at = [], workers.looks_at
    monkeypatch.setattr(workers, "looks_at", lambda files: looks_at(there.extend(files := list(files)) or files))
    told = []
    found = look_at_all(
        paths, Remembered(tmp_path / "looks"), lambda done, total: told.append((done, total)), count, None
    )
    assert found == expected
    assert 1 <= len(started) <= count
    assert {look.reason for look in found} >= {"truncated", "not an image", "empty file"}
    assert told == [(done + 1, len(paths)) for done in range(len(paths))]
    assert len(there) >= 20
    contents = [sha256 for sha256, *_ in there]
    assert len(set(contents)) == len(contents)  # each content once
    there.clear()
    assert look_at_all(paths, Remembered(tmp_path / "looks"), None, count, None) == expected
    assert {sha256 for sha256, *_ in there} <= {one.sha256 for one in expected if one.reason}  # only what is unfit


def test_where_many_are_unknown_none_is_decoded_here(tmp_path, monkeypatch, soon):
    paths = [save(tmp_path / f"{number:02}.png", number) for number in range(12)]
    expected = in_threads(paths)
    monkeypatch.setattr(looking, "decoded", None)
    assert look_at_all(paths, Remembered(None), None, 2, None) == expected


def test_a_file_that_kills_the_process_is_named_and_costs_nothing_else(tmp_path, monkeypatch, soon):
    paths = [save(tmp_path / f"{number:02}.png", number) for number in range(30)]
    expected = in_threads(paths)
    bad = (17, 18, 27)  # not among the first four parts, which threads may all begin before they know of new files
    for number in bad:
        paths[number] = paths[number].rename(tmp_path / f"bad{number}.png")
    monkeypatch.setattr(workers, "_COMMAND", ("-c", DYING))
    found = look_at_all(paths, Remembered(tmp_path / "looks"), None, 2, None)
    for number in bad:
        size = paths[number].stat().st_size
        assert found[number] == Look(expected[number].sha256, reason=CRASHED, bytes=size)
    rest = [number for number in range(30) if number not in bad]
    assert [found[number] for number in rest] == [expected[number] for number in rest]


def test_a_file_written_to_since_it_was_hashed_is_set_aside(tmp_path):
    paths = [save(tmp_path / f"{number}.png", number) for number in range(3)]
    expected = in_threads(paths)
    paths[2].unlink()

    def claim(sha256: str) -> bool:  # asked once they are hashed
        if sha256 == expected[1].sha256:
            paths[1].write_bytes(paths[1].read_bytes() + b"more")
        return True

    with Workers(2) as processes:
        found = [look for look, _ in processes.look(paths, claim)]
    assert found[0] == expected[0]
    assert [look.reason for look in found[1:]] == [
        "changed while it was read",
        "cannot be read: no such file or directory",
    ]


def test_what_is_not_claimed_is_only_hashed_and_a_copy_not_decoded(tmp_path):
    paths = [save(tmp_path / f"{number}.png", number) for number in range(2)]
    paths += [Path(shutil.copy(paths[1], tmp_path / "copy.png"))]
    first, second, _ = in_threads(paths)
    with Workers(1) as processes:
        found = processes.look(paths, lambda sha256: sha256 == second.sha256)
    assert [look for look, _ in found] == [first.sha256, second, second.sha256]


@posix
def test_the_state_is_told_that_a_file_was_in_when_it_was_read(tmp_path):
    old, new = map(aged, [save(tmp_path / f"{number}.png", number) for number in range(2)])
    before = state_of(old)

    def claim(_: str) -> bool:  # asked once they are hashed
        new.rename(old)
        return True

    with Workers(1) as processes:
        (_, told), (_, none) = processes.look([old, tmp_path / "gone.png"], claim)
    assert (told, none) == (before, "")
    assert state_of(old) != before


def test_all_processes_end_also_where_the_scan_is_interrupted(tmp_path, monkeypatch, soon):
    paths = [save(tmp_path / f"{number:02}.png", number) for number in range(60)]
    started, start = [], Workers._started
    monkeypatch.setattr(Workers, "_started", lambda self: started.append(start(self)) or started[-1])

    def interrupt(done: int, total: int) -> None:
        if done == 30:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        look_at_all(paths, Remembered(tmp_path / "looks"), interrupt, 2, None)
    assert started
    assert all(process.returncode is not None for process in started)
    assert len(Remembered(tmp_path / "looks").looks) == 30


def test_an_interrupt_does_not_wait_for_what_the_processes_are_at(tmp_path, monkeypatch, soon):
    paths = [save(tmp_path / f"{number:02}.png", number) for number in range(60)]
    monkeypatch.setattr(workers, "_COMMAND", ("-c", SLOW))
    interrupted = []

    def interrupt(done: int, total: int) -> None:
        if done == 10:
            (tmp_path / "slow").touch()
            time.sleep(0.5)  # till both are at a file that takes a minute
            interrupted.append(time.monotonic())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        look_at_all(paths, Remembered(tmp_path / "looks"), interrupt, 2, None)
    assert time.monotonic() - interrupted[0] < 10
    assert len(Remembered(tmp_path / "looks").looks) == 10


def test_after_the_end_nothing_is_asked(tmp_path):
    with Workers(1) as processes:
        processes.end()
        with pytest.raises(Ended):
            processes.look([save(tmp_path / "1.png")], lambda _: True)


def test_a_process_to_which_nobody_listens_ends_quietly(tmp_path):
    path = os.pathsep.join([*sys.path, str(Path(workers.__file__).parents[2])])
    process = subprocess.Popen(
        [sys.executable, *workers._COMMAND, Reading().as_text()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert process.stdout.readline() == workers.READY
    process.stdout.close()
    process.stdin.write(json.dumps([str(save(tmp_path / "1.png"))]).encode() + b"\n")
    process.stdin.close()
    assert (process.wait(), process.stderr.read()) == (0, b"")
    process.stderr.close()


def test_a_process_that_ends_within_an_answer_has_not_answered():
    seen = Seen("RGB", (8, 6), "", ("PNG", True), likeness(Image.new("RGB", (8, 6))), 4095)
    line = json.dumps([[True, *seen[:4], as_values(seen.likeness), 4095], [False, "gone"]]).encode() + b"\n"
    assert _answers(io.BytesIO(line)) == [seen, "gone"]
    for length in (0, len(line) // 2, len(line) - 1):
        assert _answers(io.BytesIO(line[:length])) is None


def test_a_process_finds_the_package_where_no_path_leads_to_it(tmp_path, monkeypatch):
    package = str(Path(workers.__file__).parents[2])
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path not in (package, "")])
    monkeypatch.delenv("PYTHONPATH", raising=False)
    with Workers(1) as processes:
        ((look, _),) = processes.look([save(tmp_path / "1.png")], lambda _: True)
    assert look.reason == ""


def test_a_python_that_does_not_start_is_named(tmp_path, monkeypatch):
    paths = [save(tmp_path / "1.png")]
    monkeypatch.setattr(workers, "_COMMAND", ("-c", "raise SystemExit(3)"))
    with Workers(2) as processes, pytest.raises(UserError) as caught:
        processes.look(paths, lambda _: True)
    assert str(caught.value) == (
        f"{sys.executable} cannot be started to decode images: it ended with 3 before it could be asked\n"
        "  expected: a Python that can start another one\n"
        "  to mend:  free memory, or run the command with the Python that unfreeze is installed in"
    )


def test_of_large_files_a_process_gets_few_at_once(tmp_path):
    for name, size in (("small", 20_000), ("large", 300_000), ("huge", 5_000_000)):
        (tmp_path / name).write_bytes(bytes(size))
    together = {name: looking._together([tmp_path / name] * 500) for name in ("small", "large", "huge", "gone")}
    assert together == {"small": 32, "large": 6, "huge": 4, "gone": 4}
    assert looking._together([tmp_path / "small", tmp_path / "gone", tmp_path / "no\0ne"]) == 32
    assert looking._together([]) == 4


@given(st.integers(0, 5000), st.integers(1, 130), st.integers(4, 32))
def test_the_parts_are_all_files_once_and_the_last_are_small(count, threads, together):
    parts = list(looking._parts(count, threads, together))
    assert [number for low, high in parts for number in range(low, high)] == list(range(count))
    sizes = [high - low for low, high in parts]
    assert all(4 <= size <= together for size in sizes[:-1])
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-2:] == [] or max(sizes[-2:]) <= max(4, count // threads)
