import os

import pytest

from tests.support.settled import aged, posix
from unfreeze.data import scan_cache as states
from unfreeze.data.scan_cache import state_of


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda path: path.write_bytes(b"tow"), id="bytes", marks=posix),
        pytest.param(lambda path: path.write_bytes(b"three"), id="size"),
        pytest.param(lambda path: os.utime(path), id="touch", marks=posix),
        pytest.param(lambda path: path.chmod(0o640), id="mode", marks=posix),
        pytest.param(
            lambda path: (path.with_name("new").write_bytes(b"two"), path.with_name("new").replace(path)), id="another"
        ),
    ],
)
def test_a_changed_file_has_another_state_even_if_its_time_was_put_back(tmp_path, settling, change):
    path = tmp_path / "a.jpg"
    path.write_bytes(b"two")
    before, times = state_of(aged(path)), path.stat()
    assert before == state_of(path) != ""
    change(path)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert path.stat().st_mtime_ns == times.st_mtime_ns
    assert state_of(aged(path)) not in ("", before)


def test_a_file_that_changed_just_now_or_is_not_there_has_no_state(tmp_path, monkeypatch):
    path = tmp_path / "a.jpg"
    path.write_bytes(b"two")
    changed = max(path.stat().st_mtime, path.stat().st_ctime)
    for seconds, known in ((0.0, False), (1.9, False), (2.1, True)):
        monkeypatch.setattr(states.time, "time", lambda seconds=seconds: changed + seconds)
        assert bool(state_of(path)) == known
    os.utime(path, (changed + 60, changed + 60))  # a time to come
    assert state_of(path) == state_of(tmp_path / "none") == state_of(tmp_path / "no\0ne") == ""
