"""Refuse tables that contain the pictures themselves, with a command that writes the pictures as files."""

import json
import math
from dataclasses import replace
from typing import Any

import pandas as pd

from unfreeze.data.tables.head import PICTURES
from unfreeze.data.tables.read import BYTES, TABLE, Table, fix_command
from unfreeze.errors import UserError

_LEAST = 64
"""Fewest numbers in a row that are the pixels of a picture, 8 x 8."""

_BASE64 = ("data:image/", "/9j/", "iVBORw0KGgo", "R0lGOD", "UklGR", "Qk0")
_SAVE = "Image.fromarray(np.array({numbers}, 'uint8').reshape({shape})).save(p)"

_IMPORTS = {
    "base64.": "import base64", "json.": "import json", "np.": "import numpy as np",
    "Image.": "from PIL import Image", "q.": "import pyarrow.parquet as q",
}  # fmt: skip


def refuse_pictures(table: Table) -> None:
    """Refuse a table without names of files, of which one or many columns are pictures.

    Raises:
        UserError: with the columns, and a command that writes each picture as a file and a table of them.
    """
    rows = table.rows
    if any(rows[name].str.lower().str.endswith(PICTURES).mean() > 0.5 for name in rows.columns):
        return
    for name in map(str, rows.columns):
        column = rows[name]
        if (column == BYTES).all():
            content = "v if isinstance(v, bytes) else v['bytes']"
            whole = replace(table, reader=f"pd.read_parquet({table.file.as_posix()!r})")
            raise _refused(whole, [name], f"{name} holds bytes", content, None, _class_names(table))
        if column.str.startswith(_BASE64).all() and column.str.len().min() > _LEAST:
            content = "base64.b64decode(v.split(',')[-1])"
            raise _refused(table, [name], f"{name} holds pictures as base64", content, None)
        first = column.iloc[0].split()
        shape = _shape(len(first))
        if shape and column.str.fullmatch(r"\d{1,3}( \d{1,3})+").all():
            what = f"{name} holds {len(first)} numbers in each row"
            raise _refused(table, [name], what, "v.split()", shape)
    numbers = _pixel_columns(rows)
    shape = _shape(len(numbers))
    if shape:
        what = f"{numbers[0]} to {numbers[-1]} are {len(numbers)} columns of numbers"
        raise _refused(table, numbers, what, "v", shape)


def _shape(count: int) -> tuple[int, ...] | None:
    """Return the shape of a square picture with this many numbers, grey or in three colours; None if there is none."""
    for bands in (1, 3):
        side = math.isqrt(count // bands)
        if count >= _LEAST * bands and side * side * bands == count:
            return (side, side) if bands == 1 else (side, side, bands)
    return None


def _pixel_columns(rows: pd.DataFrame) -> list[str]:
    """Return the adjacent columns with equal names apart from numbers, and with values from 0 to 255."""
    alike = pd.Series(rows.columns.astype(str)).str.replace(r"\d+", "#", regex=True)
    most = alike[alike.str.contains("#")].value_counts()
    if most.empty or most.iloc[0] < _LEAST:
        return []
    names = [str(name) for name, like in zip(rows.columns, alike, strict=True) if like == most.index[0]]
    first = list(rows.columns).index(names[0])
    if list(rows.columns[first : first + len(names)]) != names:
        return []
    values = rows[names].apply(pd.to_numeric, errors="coerce")
    return names if bool(values.ge(0).all(axis=None) and values.le(255).all(axis=None)) else []


def _class_names(table: Table) -> str:
    """Return a statement that replaces numbers by the names of classes, if the file has them, else ""."""
    from pyarrow import parquet

    kept = (parquet.read_schema(table.file).metadata or {}).get(b"huggingface", b"{}")
    features: dict[str, Any] = json.loads(kept).get("info", {}).get("features", {})
    named = [name for name, feature in features.items() if isinstance(feature, dict) and feature.get("names")]
    kept_as = f"q.read_schema({table.file.as_posix()!r}).metadata[b'huggingface']"
    return "".join(
        f"; n = json.loads({kept_as})['info']['features'][{name!r}]['names']; t[{name!r}] = [n[i] for i in t[{name!r}]]"
        for name in named
    )


def _refused(
    table: Table, names: list[str], what: str, content: str, shape: tuple[int, ...] | None, further: str = ""
) -> UserError:
    """Return the error.

    Args:
        table: the table.
        names: the adjacent columns of pictures.
        what: description of their content.
        content: an expression of a row's value ``v``: the bytes of a file, or with a shape the numbers of the pixels.
        shape: of the pixels.
        further: further statements that change the table ``t``.
    """
    folder = table.file.with_name(f"{table.file.stem}_images")
    block = f"t.loc[:, {names[0]!r}:{names[-1]!r}]"
    values = f"t[{names[0]!r}]" if len(names) == 1 else f"{block}.astype(int).to_numpy()"
    if shape is None:
        suffix = "('.png' if b[1:4] == b'PNG' else '.jpg')"
        write = f"d = [{content} for v in {values}]; f = [o / (str(i) + {suffix}) for i, b in enumerate(d)]; "
        write += "[p.write_bytes(b) for p, b in zip(f, d)]"
    else:
        write = f"f = [o / (str(i) + '.png') for i in range(len(t))]; [{_SAVE.format(numbers=content, shape=shape)} "
        write += f"for p, v in zip(f, {values})]"
    needed = [statement for used, statement in _IMPORTS.items() if used in write + further]
    change = (
        f"{'; '.join(['import pathlib', *needed])}; o = pathlib.Path({folder.as_posix()!r}); o.mkdir(exist_ok=True); "
        f"{write}; t = t.drop(columns={block}.columns).assign(path=f){further}"
    )
    return UserError(
        f"data: {table.file}: {what}: the pictures are in the table itself, which names no files",
        TABLE,
        f"write each picture as a file, and a table of them: {fix_command(table, change)}",
    )
