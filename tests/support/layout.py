"""The list of modules in docs/layout.md: ``python -m tests.support.layout`` writes it anew."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE, PAGE = ROOT / "src" / "unfreeze", ROOT / "docs" / "layout.md"
BEGIN, END = "<!-- modules: python -m tests.support.layout -->\n", "<!-- end of modules -->\n"


def first_line(path: Path) -> str:
    """Return the first paragraph of a module's docstring, on one line."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return " ".join(text.split("\n\n")[0].split())


def listing() -> str:
    """Return a section for each folder of the package, with a line for each module."""
    folders = [PACKAGE, *sorted(path.parent for path in PACKAGE.rglob("*/__init__.py"))]
    lines = []
    for folder in folders:
        name = folder.relative_to(PACKAGE).as_posix()
        modules = [path for path in sorted(folder.glob("*.py")) if path.name != "__init__.py"]
        lines += ["", f"### {'unfreeze' if name == '.' else name + '/'}", "", first_line(folder / "__init__.py"), ""]
        lines += [f"- `{path.stem}`: {first_line(path)}" for path in modules]
    return "\n".join(lines) + "\n\n"


def written(page: str) -> str:
    """Return the page with the list as it is now."""
    before, _, rest = page.partition(BEGIN)
    return before + BEGIN + listing() + END + rest.partition(END)[2]


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
