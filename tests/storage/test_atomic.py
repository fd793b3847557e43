"""Files appear whole or not at all."""

import os
import stat
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.ages import make_old
from unfreeze.errors import UserError
from unfreeze.storage import atomic as durable
from unfreeze.storage.atomic import (
    delete,
    new_folder,
    remove_leftovers,
    remove_leftovers_of,
    replacing,
    time_of,
    write_text,
)


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    write_text(tmp_path / "deep" / "er" / "a.txt", "one\n")
    write_text(tmp_path / "deep" / "er" / "a.txt", "twö\n")
    assert (tmp_path / "deep" / "er" / "a.txt").read_bytes() == "twö\n".encode()
    assert names(tmp_path / "deep" / "er") == ["a.txt"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, ValueError])
def test_a_failing_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(error), replacing(path) as temporary:
        assert temporary.parent.parent == tmp_path
        temporary.write_text("half of the ne")
        raise error
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_a_full_disk_leaves_the_old_file_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(durable.os, "fsync", full)
    with pytest.raises(UserError) as caught:
        write_text(path, "new")
    assert str(caught.value) == (
        f"cannot write {path} of 3 bytes: No space left on device\n"
        "  expected: a directory with room on its disk\n"
        "  fix:      free space and run the same command again, which resumes from what is finished, or give another "
        "directory with --out DIR"
    )
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("below", ["a.txt", "runs/x/a.txt"])
def test_a_file_where_a_directory_is_expected(tmp_path: Path, below: str) -> None:
    (tmp_path / "out").write_text("mine")
    path = tmp_path / "out" / below
    with pytest.raises(UserError) as caught:
        write_text(path, "new")
    problem = "File exists" if below == "a.txt" else "Not a directory"
    assert str(caught.value) == (
        f"cannot write {path}: {problem}\n"
        "  expected: a directory that can be written to, with room on its disk\n"
        "  fix:      give another directory with --out DIR, or free space and run the same command again"
    )
    assert (tmp_path / "out").read_text() == "mine"


def test_a_directory_where_a_file_is_expected(tmp_path: Path) -> None:
    (tmp_path / "a.txt").mkdir()
    with pytest.raises(UserError, match="^cannot write .*a.txt: Is a directory\n"):
        write_text(tmp_path / "a.txt", "new")
    assert names(tmp_path) == ["a.txt"]


def test_the_file_is_synced_before_it_is_renamed_and_its_directory_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, done = tmp_path / "a.txt", []
    sync, replace = durable._sync, Path.replace
    monkeypatch.setattr(durable, "_sync", lambda target: (done.append(("sync", target.is_dir())), sync(target)))
    monkeypatch.setattr(Path, "replace", lambda self, to: (done.append(("rename", to)), replace(self, to)))
    write_text(path, "new")
    assert done == [("sync", False), ("rename", path), *([("sync", True)] if os.name == "posix" else [])]


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_a_team_can_read_what_one_wrote(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        write_text(tmp_path / "a.txt", "new")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o644
    before = os.umask(0o027)
    try:
        with new_folder(tmp_path / "cell", lambda: False) as folder, replacing(folder / "a.txt") as temporary:
            os.close(os.open(temporary, os.O_CREAT | os.O_WRONLY, 0o600))  # as some libraries make files
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "cell").stat().st_mode) == 0o750
    assert stat.S_IMODE((tmp_path / "cell" / "a.txt").stat().st_mode) == 0o640


@pytest.mark.parametrize("before", [(), ("b.txt", "c.txt")])
def test_a_folder_appears_by_one_rename_in_place_of_any_other(tmp_path: Path, before: tuple[str, ...]) -> None:
    for name in before:
        write_text(tmp_path / "cells" / "a" / name, "old")
    with new_folder(tmp_path / "cells" / "a", lambda: False) as folder:
        write_text(folder / "b.txt", "new")
        assert (tmp_path / "cells" / "a").exists() == bool(before)
    assert names(tmp_path / "cells") == ["a"]
    assert names(tmp_path / "cells" / "a") == ["b.txt"]
    assert (tmp_path / "cells" / "a" / "b.txt").read_text() == "new"


def test_a_folder_that_another_process_wrote_first_stays(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with new_folder(path, lambda: (path / "b.txt").exists()) as folder:
        write_text(folder / "b.txt", "second")
        write_text(path / "b.txt", "first")
    assert names(tmp_path) == ["a"]
    assert (path / "b.txt").read_text() == "first"


def test_a_failing_writer_leaves_the_old_folder_and_nothing_else(tmp_path: Path) -> None:
    write_text(tmp_path / "a" / "b.txt", "old")
    with pytest.raises(BrokenPipeError), new_folder(tmp_path / "a", lambda: False) as folder:
        write_text(folder / "b.txt", "new")
        raise BrokenPipeError  # not taken for an error of writing
    assert names(tmp_path) == ["a"]
    assert (tmp_path / "a" / "b.txt").read_text() == "old"


def test_a_file_where_a_new_folder_is_expected(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("mine")
    with pytest.raises(UserError, match="^cannot write .*a: Not a directory\n"):
        with new_folder(tmp_path / "a", lambda: False) as folder:
            write_text(folder / "b.txt", "new")
    assert (tmp_path / "a").read_text() == "mine"


def test_a_folder_is_deleted_once(tmp_path: Path) -> None:
    write_text(tmp_path / "a" / "b.txt", "old")
    assert delete(tmp_path / "a")
    assert not delete(tmp_path / "a")
    assert names(tmp_path) == []


def left_by_killed(folder: Path, hours: float) -> Path:
    """Make what a killed process leaves, so old."""
    left = folder / f".a.txt.{hours}.tmp"
    left.mkdir()
    (left / "a.txt").write_text("half of the ne")
    make_old(left, hours=hours)
    return left


def test_only_what_is_a_day_old_is_nobody_s(tmp_path: Path) -> None:
    old, new = left_by_killed(tmp_path, 24.5), left_by_killed(tmp_path, 23.5)
    earlier = tmp_path / ".b.txt.earlier.tmp"  # of a version whose temporary files lay in no folder
    earlier.touch()
    make_old(earlier)
    remove_leftovers_of(tmp_path / "a.txt")
    assert names(tmp_path) == sorted([new.name, earlier.name])
    remove_leftovers(tmp_path.parent)
    assert names(tmp_path) == [new.name]
    assert not old.exists()


def test_folders_that_others_delete_meanwhile_are_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = left_by_killed(tmp_path, 25)
    (tmp_path / "entry").mkdir()
    scandir = os.scandir

    def vanishing(folder: Any) -> Any:
        if not isinstance(folder, int) and Path(folder).name == "entry":
            Path(folder).rmdir()
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", vanishing)
    remove_leftovers(tmp_path)
    assert not old.exists() and not (tmp_path / "entry").exists()


def test_age_goes_by_the_file_system_s_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left, now = left_by_killed(tmp_path, 23), time.time()
    monkeypatch.setattr(time, "time", lambda: now + 10 * 3600)
    remove_leftovers(tmp_path)
    assert left.exists()
    monkeypatch.setattr(durable, "time_of", lambda folder: now + 2 * 3600)
    remove_leftovers(tmp_path)
    assert not left.exists()


def test_where_nothing_can_be_written_nothing_is_old(tmp_path: Path) -> None:
    assert time_of(tmp_path / "is not there") is None
    remove_leftovers_of(tmp_path / "is not there" / "a.txt")
