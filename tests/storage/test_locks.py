"""A study directory has one run at a time, and locks only save work."""

import errno
import fcntl
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from unfreeze.errors import UserError
from unfreeze.storage.locks import HOLDER, LOCK, held

HOLD = """
import sys
from pathlib import Path
from unfreeze.storage.locks import held
with held(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
"""


def test_a_second_run_is_refused_with_the_process_that_holds_the_directory(tmp_path: Path) -> None:
    out = tmp_path / "study"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, out], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdin
        assert other.stdout
        assert other.stdout.readline() == "held\n"
        with pytest.raises(UserError) as caught, held(out):
            pass
        assert str(caught.value) == (
            f"{out} is being run by process {other.pid} on {platform.node()}\n"
            "  expected: one run at a time in a study directory\n"
            "  fix:      wait for it, stop it, or give another --out DIR"
        )
        other.stdin.write("\n")
        other.stdin.flush()
        assert other.wait() == 0
    with held(out):
        assert (out / HOLDER).is_file()
        (out / "study.json").touch()
    assert sorted(path.name for path in out.iterdir()) == [LOCK, "study.json"]


def test_a_directory_that_was_made_for_nothing_goes(tmp_path: Path) -> None:
    with pytest.raises(KeyError), held(tmp_path / "runs" / "study"):
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_a_killed_run_holds_nothing(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout
        other.stdout.readline()
        other.kill()
    with held(tmp_path):
        assert f'"process": {os.getpid()}' in (tmp_path / HOLDER).read_text()


def test_without_locks_nothing_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with held(tmp_path / "study"), held(tmp_path / "study"):
        assert (tmp_path / "study" / HOLDER).is_file()
    assert list(tmp_path.iterdir()) == []
