"""Fixtures of the command line: a folder to run in, photographs, a small study file."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.command_images import write_photos
from tests.support.commands import STUDY
from unfreeze.cli.app import main

Say = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="session", autouse=True)
def _sigint_is_heard() -> Iterator[None]:
    """Hear it even where a shell started the tests in the background, with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that commands run in; its photographs and study.yaml come from ``study``."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UNFREEZE_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture
def study(folder: Path) -> Path:
    """A folder with photographs in three classes and a study of two cells."""
    write_photos(folder / "photos")
    (folder / "study.yaml").write_text(STUDY)
    return folder


@pytest.fixture
def unfreeze(capsys: pytest.CaptureFixture[str]) -> Say:
    """Run a command in this process: its exit code, stdout and stderr."""

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(arguments)
        said = capsys.readouterr()
        return code, said.out, said.err

    return run
