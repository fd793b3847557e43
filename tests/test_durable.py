"""Files appear whole or not at all."""

import os
import stat
from pathlib import Path

import pytest

from unfreeze import durable
from unfreeze.durable import replacing, write_text
from unfreeze.errors import UserError


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
        assert temporary.parent == tmp_path
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
        "  to mend:  free space and run the same command again, which goes on from what is finished, or give another "
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
        "  to mend:  give another directory with --out DIR, or free space and run the same command again"
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
