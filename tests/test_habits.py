"""What contributors are told to run is what `make check` runs, and examples in docstrings hold."""

import doctest
import importlib
import re
import shutil
from pathlib import Path

import pytest

from tests.support.kept import KEPT

ROOT = Path(__file__).parents[1]
WITH_EXAMPLES = (
    "unfreeze.config.units",
    "unfreeze.metrics",
    "unfreeze.seeds",
    "unfreeze.inputs.sampler",
    "unfreeze.study.api",
)


def test_hooks_run_what_make_check_runs() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    check = re.search(r"^check:.*\n((?:\t.*\n)+)", makefile, re.M)
    assert check is not None
    wanted = [line.strip().replace("$(BIN)", ".venv/bin").removesuffix(" .") for line in check[1].splitlines()]
    hooks = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    assert re.findall(r"^ +entry: (.*)$", hooks, re.M) == wanted


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples_in_docstrings_hold(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "runs").mkdir()
    shutil.copytree(KEPT / "out", tmp_path / "runs" / "mine")
    monkeypatch.chdir(tmp_path)
    found = doctest.testmod(importlib.import_module(name))
    assert found.attempted
    assert not found.failed


def test_every_page_is_in_the_navigation() -> None:
    listed = re.findall(r": ([\w-]+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.M)
    assert sorted(listed) == sorted(path.name for path in (ROOT / "docs").glob("*.md"))
