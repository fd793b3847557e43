"""Every UserError says what was given, what was expected and how to fix it."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "unfreeze"
REBUILT = {"study/executors/processes.py", "inputs/loader.py"}
"""Where an error of another process is raised here once more, from all that it said."""


def refusals(path: Path) -> list[ast.Call]:
    """Return the calls in a file that make a ``UserError``, or one of the errors that are such."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and getattr(node.func, "id", getattr(node.func, "attr", "")) in ("UserError", "Untrainable", "Unstored")
        and not (path.relative_to(PACKAGE).as_posix() in REBUILT and len(node.args) == 1)
    ]


FILES = [path for path in sorted(PACKAGE.rglob("*.py")) if refusals(path)]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_every_user_error_has_three_parts(path: Path) -> None:
    for call in refusals(path):
        where = f"{path.name}, line {call.lineno}: {ast.unparse(call)}"
        said = [*call.args, *(word.value for word in call.keywords)]
        assert len(said) == 3 and not any(isinstance(one, ast.Starred) for one in said), where
        for one in said:
            assert not (isinstance(one, ast.Constant) and not str(one.value).strip()), where


def test_files_that_raise_user_errors_are_found() -> None:
    assert len(FILES) > 30
