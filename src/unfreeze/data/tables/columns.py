"""Find the columns of a table that name the files and give their labels, splits, groups and folds.

Settings of the study come first, then the names ``path``, ``label``, ``split``, ``group`` and ``fold``, then names that
are usual elsewhere and the look of the values, if only one reading is possible.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from unfreeze.config.schema import ColumnsConfig
from unfreeze.data.fixes import columns_line, set_columns
from unfreeze.data.sources.source import SPLIT_NAMES
from unfreeze.data.tables.head import PICTURES
from unfreeze.data.tables.read import TABLE, Table, key, refuse_rows
from unfreeze.errors import UserError
from unfreeze.text import near

_PATHS = {
    "path", "paths", "filepath", "filepaths", "file", "files", "filename", "filenames", "fname", "image", "images",
    "imagepath", "imagepaths", "imgpath", "imagefile", "imagefilename", "imagename", "imgname", "imageid", "imgid",
    "imageindex", "imageurl", "img", "imgs", "picture", "photo", "photoid", "idcode", "id",
}  # fmt: skip

_LABELS = {
    "label", "labels", "class", "classes", "classname", "classid", "classlabel", "labelname", "labelid", "category",
    "categoryname", "categoryid", "categories", "target", "targets", "diagnosis", "dx", "species", "breed", "variety",
    "y", "groundtruth", "grade", "level", "finding", "findinglabels", "disease", "emotion", "tag", "tags", "annotation",
    "choice", "result", "verdict",
}  # fmt: skip

_NO_LABELS = {"", "index", "width", "height", "depth", "channels", "size", "filesize"}
"""Columns that describe files, or count rows."""

_SPLITS = {
    "split", "splits", "set", "subset", "usage", "partition", "phase", "dataset", "datasplit", "datasetsplit",
    "splitname", "purpose", "fold",
}  # fmt: skip

_FLAGS = {
    "isvalid": "validation", "isval": "validation", "isvalidation": "validation", "istest": "test", "istrain": "train",
    "istraining": "train",
}  # fmt: skip
"""Columns of true and false, and the split that true means."""

_VALUES = {**SPLIT_NAMES, "dev": "validation", "publictest": "validation", "privatetest": "test", "holdout": "test"}
_TRUE, _FALSE = {"1", "1.0", "true", "t", "yes", "y"}, {"0", "0.0", "false", "f", "no", "n"}
BINARY = {"0", "1", "0.0", "1.0", "true", "false"}

BOXES = (
    {"xmin", "ymin", "xmax", "ymax"}, {"x1", "y1", "x2", "y2"}, {"x", "y", "w", "h"}, {"x", "y", "width", "height"},
    {"left", "top", "right", "bottom"}, {"bbox"}, {"bndbox"}, {"boundingbox"}, {"box"}, {"segmentation"},
)  # fmt: skip
"""Columns, by their keys, that give positions within an image."""

_READINGS = 3


@dataclass(frozen=True)
class Columns:
    """Meaning of the columns of a table.

    Attributes:
        path: the column that names the files.
        labels: the column of labels, or several columns of 0 and 1; empty if the table has no labels.
        split: the split of each row (train, validation, test), "" for all rows without splits.
        split_names: split by the value that gives it, such as ``usage=Training``.
        group, fold: columns, or None.
        used: all of these columns.
        guessed: sentences on what was guessed.
    """

    path: str
    labels: tuple[str, ...]
    split: tuple[str, ...]
    split_names: Mapping[str, str]
    group: str | None
    fold: str | None
    used: frozenset[str]
    guessed: tuple[str, ...]

    @property
    def known(self) -> bool:
        """Whether the column of labels has a usual name, and is not only the remaining one."""
        return len(self.labels) > 1 or key(self.labels[0]) in _LABELS


def read_columns(table: Table, asked: ColumnsConfig, exist: Callable[[Sequence[str]], bool]) -> Columns:
    """Find the meaning of the columns of a table.

    Args:
        table: the table.
        asked: settings of the study.
        exist: tells whether files of these names exist.

    Raises:
        UserError: a column of the settings does not exist, several readings are possible, or splits contradict.
    """
    rows = table.rows
    names = [str(name) for name in rows.columns]
    labels = [asked.label] if isinstance(asked.label, str) else list(asked.label or ())
    for role, name in (("path", asked.path), *(("label", name) for name in labels), ("split", asked.split or None),
                       ("group", asked.group)):  # fmt: skip
        if isinstance(name, str) and name not in names:
            raise _absent(table, asked, role, name, names)
    path = asked.path or _path(table, names, exist, asked)
    fold = _only(names, {"fold", "folds"}, {path, *labels})
    split, split_names, split_columns, guessed = _split(table, asked, {path, *labels})
    group = asked.group or _only(names, {"group", "groups"}, {path, *labels, *split_columns})
    fold = None if fold in split_columns else fold
    taken = {path, *split_columns, *(name for name in (group, fold) if name)}
    chosen = tuple(labels) or _labels(table, [name for name in names if name not in taken], path, asked)
    usual = key(path) == "path" and [key(name) for name in chosen] == ["label"]
    if not (usual or (asked.path and asked.label)) and chosen:
        label = (
            f"{chosen[0]} is the label" if len(chosen) == 1 else f"the label is that of {', '.join(chosen)} which is 1"
        )
        says = columns_line(path=path, label=chosen[0] if len(chosen) == 1 else list(chosen))
        guessed.insert(0, f"the column {path} names the files, and {label}; {says} says otherwise")
    if len(chosen) == 1 and not asked.label:
        guessed += [
            f"the column {name} is not used as the label, but {chosen[0]} is; {columns_line(label=name)} says otherwise"
            for name in names
            if key(name) in _LABELS - _boxes(names) and name not in (*chosen, path) and name not in taken
        ]
    if fold:
        count = len(set(rows[fold]) - {""})
        guessed.append(
            f"the column {fold} gives the folds of a study with split: {{folds: {count}}}, and is not used otherwise"
        )
    return Columns(path, chosen, split, split_names, group, fold, frozenset({*taken, *chosen}), tuple(guessed))


def _absent(table: Table, asked: ColumnsConfig, role: str, name: str, names: list[str]) -> UserError:
    close = (near(name, names) or [other for other in names if key(other) == key(name)] or names)[0]
    return UserError(
        f"columns.{role}: {name}: {table.file} has no such column",
        f"one of {', '.join(names)}",
        f"name one that is there: {set_columns(**{role: close})}",
    )


def _only(names: Sequence[str], keys: set[str], taken: set[str]) -> str | None:
    found = [name for name in names if key(name) in keys and name not in taken]
    return found[0] if len(found) == 1 else None


def _path(table: Table, names: list[str], exist: Callable[[Sequence[str]], bool], asked: ColumnsConfig) -> str:
    exact = [name for name in names if key(name) == "path"]
    if len(exact) == 1:
        return exact[0]
    shaped = [name for name in names if _are_pictures(table.rows[name])]
    known = _called(names, _PATHS)
    found = exact or ([name for name in shaped if name in known] or shaped or known)
    if len(found) != 1:
        there = [name for name in found or names if exist(_some(table.rows[name]))]
        found = there or found
    if len(found) == 1:
        return found[0]
    readings = found or names
    others = [name for name in names if key(name) in _LABELS] or names
    pairs = [(name, next((other for other in others if other != name), None)) for name in readings[:_READINGS]]
    what = f"{' and '.join(found)} could each name the files" if found else "and none of them names files"
    raise UserError(
        f"data: {table.file} has columns {', '.join(names)}, {what}",
        TABLE,
        "name the columns: " + "; or ".join(set_columns(path=path, label=label) for path, label in pairs),
    )


def _are_pictures(column: pd.Series) -> bool:
    """Tell whether nearly all values of a column end like names of picture files."""
    return bool(column.str.lower().str.endswith(PICTURES).mean() > 0.9)


def _some(column: pd.Series) -> list[str]:
    return list(dict.fromkeys(column[column != ""]))[:20]


def _labels(table: Table, names: list[str], path: str, asked: ColumnsConfig) -> tuple[str, ...]:
    """Return the column of labels, or several columns of 0 and 1; none if no column could be one."""
    rows = table.rows
    exact = [name for name in names if key(name) == "label"]
    if len(exact) == 1:
        return (exact[0],)
    boxes = _boxes(names)
    known = [name for name in _called(names, _LABELS - boxes) if (rows[name] != "").any()]
    if known:
        codes = {name: tuple(pd.factorize(rows[name])[0]) for name in known}
        if len(set(codes.values())) == 1:  # the same classes as names and as numbers
            texts = [name for name in known if not _are_numbers(rows[name])]
            return ((texts or known)[0],)
        raise _several_labels(table, path, known, f"{' and '.join(known)} could each be the label", asked)
    others = [
        name
        for name in names
        if key(name) not in _NO_LABELS | _PATHS | boxes
        and not key(name).startswith("unnamed")
        and (rows[name] != "").any()
    ]
    others = [name for name in others if not _count_rows(rows[name])] or others
    binary = [name for name in others if len(others) > 1 and rows[name].str.lower().isin(BINARY).all()]
    if len(binary) > 1 and (binary == others or _ones(rows[binary]).sum(axis=1).eq(1).all()):
        return tuple(binary)
    if not others:  # Id may name the individual in the image
        others = [name for name in names if key(name) in _PATHS and rows[name].nunique() < len(rows)]
    if len(others) > 1:
        raise _several_labels(table, path, others, "and which of them is the label is not clear", asked)
    return tuple(others)


def _called(names: Sequence[str], words: set[str]) -> list[str]:
    """Return the columns whose name, or its part after a dot as in ``meta.class-name``, is one of the words."""
    return [name for name in names if key(name) in words or key(name.rpartition(".")[2]) in words]


def _count_rows(column: pd.Series) -> bool:
    """Tell whether a column is a different integer in each row."""
    return bool(len(column) > 2 and column.is_unique and column.str.fullmatch(r"\d+").all())


def _boxes(names: Sequence[str]) -> set[str]:
    """Return the keys of the columns that give positions within an image."""
    return {part for box in BOXES for part in box if box <= {key(name) for name in names}}


def _several_labels(table: Table, path: str, names: list[str], what: str, asked: ColumnsConfig) -> UserError:
    distinct = {name: table.rows[name].nunique() for name in names}
    likely = sorted(names, key=lambda name: (not 1 < distinct[name] <= max(2, len(table.rows) // 2), names.index(name)))
    return UserError(
        f"data: {table.file} has columns {', '.join(map(str, table.rows.columns))}, {what}",
        TABLE,
        "name the right one: "
        + "; or ".join(set_columns(path=path, label=name, root=asked.root) for name in likely[:_READINGS]),
    )


def _are_numbers(column: pd.Series) -> bool:
    return bool(pd.to_numeric(column, errors="coerce").notna().all())


def _ones(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.apply(lambda column: column.str.lower().isin(_TRUE))


def _split(
    table: Table, asked: ColumnsConfig, taken: set[str]
) -> tuple[tuple[str, ...], dict[str, str], list[str], list[str]]:
    """Return the split of each row, the split by value, the columns used, and sentences on what was guessed."""
    rows = table.rows
    names = [name for name in map(str, rows.columns) if name not in taken]
    none = ("",) * len(rows)
    if asked.split is False:
        return none, {}, [], []
    exact = [name for name in names if key(name) == "split"]
    flags = [name for name in names if key(name) in _FLAGS and rows[name].str.lower().isin(_TRUE | _FALSE).all()]
    readings: dict[str, list[str]] = {
        name: _words(rows[name]) for name in names if key(name) != "label" and _fits(rows[name])
    }
    if flags:
        readings[flags[0]] = _flagged(table, flags)
    chosen = str(asked.split) if asked.split else (exact[0] if len(exact) == 1 else None)
    if chosen is None and readings:
        if len(set(map(tuple, readings.values()))) > 1:
            raise UserError(
                f"data: {table.file}: {' and '.join(readings)} contradict each other",
                "one column that says which split a row is in",
                "name the right one: " + "; or ".join(set_columns(split=name) for name in readings),
            )
        chosen = next(iter(readings))
    guessed = [
        f"the column {name} looks like a split, but is not used, since its values are {_listed(rows[name])}; once "
        f"they are train, val and test, {columns_line(split=name)} uses it"
        for name in names
        if key(name) in (_SPLITS - {"fold"}) | _FLAGS.keys() and name not in readings and name != chosen
        and rows[name].nunique() <= 5
    ]  # fmt: skip
    if chosen is None or (rows[chosen] == "").all():
        return none, {}, [chosen] if chosen else [], guessed
    guessed += [
        f"the column {name} looks like a split, but {chosen} is used; {columns_line(split=name)} says otherwise"
        for name, words in readings.items()
        if name != chosen and words != readings.get(chosen)
    ]
    used = flags if chosen in flags and not asked.split else [chosen]
    if chosen in flags:
        found = _flagged(table, used)
    else:
        found = _checked(table, chosen)
    values = (
        ["=".join((used[0], value)) for value in rows[used[0]]] if len(used) == 1 else [", ".join(used)] * len(rows)
    )
    split_names = dict(zip(values, found, strict=True)) if len(used) == 1 else _flag_names(used, found)
    if chosen != asked.split and key(chosen) != "split":
        guessed.append(
            f"the column {' and '.join(used)} gives the splits; {columns_line(split=False)} draws them instead"
        )
    return tuple(found), split_names, used, guessed


def _flag_names(flags: list[str], found: Sequence[str]) -> dict[str, str]:
    names = {f"{flag}=true": _FLAGS[key(flag)] for flag in flags}
    rest = next(iter(set(found) - set(names.values())), None)
    return names | ({f"no {' nor '.join(flags)}": rest} if rest else {})


def _fits(column: pd.Series) -> bool:
    """Tell whether a column's values are names of splits, train and another."""
    values = {_word(value) for value in set(column)}
    return "" not in values and "train" in values and len(values) > 1


def _word(value: str) -> str:
    """Return the split that a value names, or ""."""
    name = key(value)
    return _VALUES.get(name) or _VALUES.get(name.removesuffix("set")) or ""


def _words(column: pd.Series) -> list[str]:
    return [_word(value) for value in column]


def _flagged(table: Table, flags: Sequence[str]) -> list[str]:
    """Return the splits by columns of true and false; a row without true is in the first split that has no column."""
    meanings = [_FLAGS[key(name)] for name in flags]
    rest = next((split for split in ("train", "test", "validation") if split not in meanings), "train")
    found = [rest] * len(table.rows)
    both = []
    for name, split in zip(flags, meanings, strict=True):
        for place, value in enumerate(table.rows[name].str.lower().isin(_TRUE)):
            if value and found[place] not in (rest, split):
                both.append(table.rows.index[place])
            if value:
                found[place] = split
    change = f"t = t[sum(t[c].str.lower().isin(['1', 'true', 'yes']) for c in {list(flags)}) < 2]"
    refuse_rows(table, both, f"{' and '.join(flags)} at once", "one split for each row", change)
    return found


def _checked(table: Table, name: str) -> list[str]:
    """Return the splits that a column names."""
    column = table.rows[name]
    words = column.map(_word)
    wrong = column.index[(column != "") & (words == "")]
    listed = ", ".join(sorted(set(column[wrong]))[:5])
    keep = f"t = t[~t[{name!r}].str.strip().isin({sorted(set(column[wrong]))})]"
    refuse_rows(table, wrong, f"{name} {listed}", "train, val or test", keep)
    refuse_rows(
        table, column.index[column == ""], f"no {name}, although others have one", f"a {name} in every row, or in none",
        f"t = t[t[{name!r}].str.strip().ne('')]",
    )  # fmt: skip
    return list(words)


def _listed(column: pd.Series) -> str:
    return ", ".join(value or "(none)" for value in sorted(set(column)))
