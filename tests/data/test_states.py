import os

import pytest

from tests.data.settled import aged, posix
from unfreeze.data import states
from unfreeze.data.states import state_of


@posix
@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.write_bytes(b"tow"),
        lambda path: path.write_bytes(b"three"),
        lambda path: os.utime(path),
        lambda path: path.chmod(0o640),
        lambda path: (path.with_name("new").write_bytes(b"two"), path.with_name("new").replace(path)),
    ],
    ids=["bytes", "size", "touch", "mode", "another"],
)
def test_a_file_that_was_changed_is_in_another_state_even_if_its_time_was_put_back(tmp_path, settling, change):
    path = tmp_path / "a.jpg"
    path.write_bytes(b"two")
    before, times = state_of(aged(path)), path.stat()
    assert before == state_of(path) != ""
    change(path)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert path.stat().st_mtime_ns == times.st_mtime_ns
    assert state_of(aged(path)) not in ("", before)


@posix
def test_a_file_changed_just_now_or_that_cannot_be_read_is_in_no_known_state(tmp_path, monkeypatch):
    path = tmp_path / "a.jpg"
    path.write_bytes(b"two")
    assert state_of(path) == ""
    monkeypatch.setattr(states.time, "time", lambda: path.stat().st_ctime + states.SETTLED + 1)
    assert state_of(path)
    coarse = path.stat().st_mtime_ns // 10**7 * 10**7
    state = os.stat_result((*path.stat()[:10], *[coarse / 1e9] * 3, *[coarse] * 3))
    with monkeypatch.context() as patch:
        patch.setattr(states.os, "fstat", lambda _: state)
        assert state_of(path) == ""

    def gone():
        raise FileNotFoundError(2, "No such file or directory")

    def refused(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(states.os, "open", refused)
    assert state_of(path) == ""
    with monkeypatch.context() as patch:
        patch.chdir(tmp_path)
        assert states.state(path.stat(), "a.jpg") == states.state(path.stat(), str(path)) != ""
        patch.setattr(states.os, "getcwd", gone)
        assert states.state(path.stat(), "a.jpg") == ""
        assert states.state(path.stat(), str(path))
    assert state_of(tmp_path) == state_of(tmp_path / "none") == state_of(tmp_path / "no\0ne") == ""
