"""Settings and commands as messages about data print them: one way to write each.

Which fix suits is decided where a problem is found: for a file in ``data.unusable``, for a folder in ``data.sources``,
for a table in ``data.tables``. What an unknown key of the study file may have meant is for ``config.hints``.
"""

import json
import re
import shlex
from collections.abc import Collection, Mapping
from pathlib import Path

Value = str | bool | list[str] | Mapping[str, "Value | None"]
"""Value of a setting; entries of a mapping that are None are left out."""

_SPECIAL = frozenset('"$`\\!')
"""Characters with a meaning of their own between the double quotes of some shell."""


def as_setting(key: str, value: Value) -> str:
    """Return a setting as an option and as a line of a study file.

    >>> as_setting("check.follow_symlinks", True)
    '--set check.follow_symlinks=true (in a study file: check: {follow_symlinks: true})'
    """
    text = value if isinstance(value, str) else _yaml(value)
    whole = f"{key}={text}"
    # Double quotes suit every shell; a value without spaces needs quotes in some shells only.
    quoted = f'"{whole}"' if " " in text and not _SPECIAL & set(text) else f"{key}={shlex.quote(text)}"
    return f"--set {quoted} (in a study file: {as_line(key, value)})"


def as_line(key: str, value: Value) -> str:
    """Return a setting as a line of a study file: ``split: {group: '(.+)-'}``."""
    outer, _, inner = key.partition(".")
    return f"{outer}: {_yaml({inner: value} if inner else value)}"


def set_columns(**columns: str | list[str] | bool | None) -> str:
    """Return ``as_setting`` of what the columns of a table are; those that are None are left out."""
    return as_setting("columns", columns)


def columns_line(**columns: str | list[str] | bool | None) -> str:
    """Return ``as_line`` of what the columns of a table are."""
    return as_line("columns", columns)


def _yaml(value: Value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(_yaml, value))}]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name}: {_yaml(entry)}" for name, entry in value.items() if entry is not None) + "}"
    plain = re.fullmatch(r"[A-Za-z_./][\w./ -]*", value) and value.lower() not in ("true", "false", "null")
    return value if plain else "'" + value.replace("'", "''") + "'"


def python_command(script: str) -> str:
    """Return a Python script as a shell command, in double quotes if nothing in it is special to a shell."""
    return f'python -c "{script}"' if not _SPECIAL & set(script) else f"python -c {shlex.quote(script)}"


def move_command(old: Path, new: Path) -> str:
    """Return the command that renames a file or folder."""
    return f"mv {shlex.quote(str(old))} {shlex.quote(str(new))}"


def check_command(data: Path) -> str:
    """Return the command that checks a table or folder as data."""
    return f"unfreeze check {shlex.quote(str(data))}"


# --- commands that write changed copies of picture files into a folder beside theirs ---


def as_png(root: Path, suffixes: Collection[str]) -> str:
    """Return the command that saves the pictures with these suffixes, which Pillow can open, in ROOT-png."""
    return _convert(root, "png", suffixes, 'Image.open(p).save(q.with_suffix(".png"))')


def pages_as_png(root: Path, suffixes: Collection[str]) -> str:
    """Return the command that saves each page or frame as NAME.pageN.png in ROOT-pages."""
    save = 'page.save(q.with_suffix(f".page{n}.png"))'
    return _convert(root, "pages", suffixes, save, "for n, page in enumerate(ImageSequence.Iterator(Image.open(p)))")


def scaled(root: Path, suffixes: Collection[str]) -> str:
    """Return the command that saves 8-bit pictures in ROOT-scaled, with the largest value of all of them as white."""
    most = 'for m in [max(Image.open(p).convert("L").getextrema()[1] for p in files)] for p, q in zip(files, out)'
    save = 'Image.open(p).convert("L").point(lambda v: min(255, v * 255 // max(1, m))).save(q.with_suffix(".png"))'
    return _convert(root, "scaled", suffixes, save, all_files=most)


def slices_as_png(root: Path, suffixes: Collection[str]) -> str:
    """Return the command that saves the middle slice of each NIfTI volume, its largest value white, in ROOT-slices."""
    save = 'Image.fromarray((255 * v / max(1, v.max())).astype("uint8")).save(q.with_suffix(".png"))'
    middle = "for a in [nibabel.load(p).get_fdata()] for v in [a[:, :, a.shape[2] // 2].clip(0)]"
    return f"pip install nibabel && {_convert(root, 'slices', suffixes, save, middle, 'import nibabel; ')}"


_EACH_FILE = "for p, q in zip(files, out)"


def _convert(
    root: Path,
    name: str,
    suffixes: Collection[str],
    save: str,
    parts: str = "",
    imports: str = "",
    all_files: str = _EACH_FILE,
) -> str:
    ends = ", ".join(json.dumps(suffix) for suffix in sorted(suffixes))
    code = (
        f"{imports}from pathlib import Path; from PIL import Image, ImageSequence; "
        f"d = Path({json.dumps(str(root.resolve()), ensure_ascii=False)}); "
        f'files = sorted(p for p in d.rglob("*") if p.name.lower().endswith(({ends},))); '
        f'out = [Path(str(d) + "-{name}") / p.relative_to(d) for p in files]; '
        "[q.parent.mkdir(parents=True, exist_ok=True) for q in out]; "
        f"[{save} {all_files}{' ' if parts else ''}{parts}]"
    )
    return f"python -c {shlex.quote(code)}"
