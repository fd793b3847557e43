"""Notebooks run whole, cell after cell, and hold no outputs."""

import json
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def code_of(path: Path) -> list[dict[str, Any]]:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_whole(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UNFREEZE_CACHE", str(tmp_path / "cache"))
    names: dict[str, Any] = {}
    for cell in code_of(path):
        exec(compile("".join(cell["source"]), path.name, "exec"), names)
    assert names["results"].table["status"].eq("finished").all()
    assert (tmp_path / "first_study" / "report.html").is_file()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_holds_no_outputs(path: Path) -> None:
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in code_of(path))


def test_there_is_a_notebook() -> None:
    assert NOTEBOOKS
