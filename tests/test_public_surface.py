"""Every public name, setting, option, exit code, event, file, column and key changes by decision only."""

import difflib
from pathlib import Path

import pytest

from tests.support.public_surface import STORED, public_surface

DECISION = """the public surface changed.
A change here is a decision: say it in CHANGELOG.md, then `python -m tests.support.public_surface` writes it down.
"""


def test_the_public_surface_is_what_is_written_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNFREEZE_CACHE", str(tmp_path / "cache"))
    found, stored = public_surface(tmp_path), STORED.read_text(encoding="utf-8").splitlines()
    changes = [line for line in difflib.ndiff(stored, found) if line[0] in "+-"]
    assert not changes, DECISION + "\n".join(changes)
