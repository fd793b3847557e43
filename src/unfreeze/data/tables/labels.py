"""Read the label of each row of a table; refuse several labels per row, and labels that are quantities."""

import json
from collections import Counter
from collections.abc import Sequence

import pandas as pd

from unfreeze.data.fixes import set_columns
from unfreeze.data.tables.columns import BINARY, BOXES, Columns
from unfreeze.data.tables.read import Table, fix_command, key, refuse_rows
from unfreeze.errors import UserError

_MISSING = {"", "nan", "<na>", "null"}
_SEPARATORS = "|;, "

_MANY = 20
"""Most distinct numbers that may be classes."""

_BINS = 4
_LISTED = 5


def read_labels(table: Table, columns: Columns) -> tuple[pd.Series, tuple[str, ...]]:
    """Return the label of each row as text, and sentences on what was guessed.

    Args:
        table: the table.
        columns: meaning of its columns, with at least one of labels.

    Raises:
        UserError: rows lack a label or have several, or the labels are continuous numbers.
    """
    if len(columns.labels) > 1:
        return _one_hot(table, columns.labels), ()
    (name,) = columns.labels
    labels = table.rows[name]
    change = f"t = t[~t[{name!r}].str.strip().str.lower().isin({sorted(_MISSING)})]"
    missing = labels.index[labels.str.lower().isin(_MISSING)]
    refuse_rows(table, missing, f"no {name}", f"a {name} in every row", change)
    labels = _out_of_lists(table, name, labels)
    _refuse_several(table, name, labels)
    return labels, _numbers(table, name, labels)


def check_boxes(table: Table, columns: Columns, labels: pd.Series, paths: Sequence[str]) -> tuple[str, ...]:
    """Return a sentence that boxes are not used, if the table has boxes.

    Raises:
        UserError: images have boxes with different labels.
    """
    keys = {key(str(name)): str(name) for name in table.rows.columns if str(name) not in columns.used}
    boxes = next((sorted(keys[part] for part in box) for box in BOXES if box <= keys.keys()), None)
    if boxes is None:
        return ()
    kinds = labels.groupby(list(paths)).nunique()
    several = kinds.index[kinds > 1]
    if len(several):
        label, path = columns.labels[0], columns.path
        raise UserError(
            f"data: {table.file}: {len(several)} of {len(kinds)} images have boxes with different labels, first "
            f"{several[0]}",
            "one label for each image; boxes are not used",
            "cut each box out into a file of its own, or leave these images out: "
            + fix_command(table, f"t = t[t.groupby({path!r})[{label!r}].transform('nunique') == 1]"),
        )
    return (
        f"{', '.join(boxes)} give positions within an image, which are not used: each whole image has one label; if "
        "the boxes are the images, cut them out into files of their own",
    )


def check_votes(table: Table, columns: Columns, labels: pd.Series, paths: Sequence[str]) -> None:
    """Refuse a table with several rows for most images, some with different labels: these are votes.

    Raises:
        UserError: with commands that keep the label of most rows, or the images on which all rows agree.
    """
    kinds = labels.groupby(list(paths)).agg(["size", "nunique"])
    several = kinds.index[kinds["nunique"] > 1]
    if len(columns.labels) > 1 or not len(several) or (kinds["size"] > 1).mean() <= 0.5:
        return
    label, path = columns.labels[0], columns.path
    votes = f"t.groupby({path!r})[{label!r}]"
    most = f"m = {votes}.agg(lambda v: v.mode()[0] if len(v.mode()) == 1 else ''); m = m[m != '']"
    once = f".drop_duplicates({path!r})"
    ways = ["keep only images on which all rows agree: "
            + fix_command(table, f"t = t[{votes}.transform('nunique') == 1]{once}")]  # fmt: skip
    modes = labels.groupby(list(paths)).agg(lambda column: len(column.mode()))
    if (modes[several] == 1).any():
        change = f"{most}; t = t[t[{path!r}].isin(m.index)]{once}; t[{label!r}] = t[{path!r}].map(m)"
        ways.insert(
            0, f"take the most frequent label, and leave out images without one: "
            f"{fix_command(table, change)}",
        )  # fmt: skip
    raise UserError(
        f"data: {table.file}: {len(several)} of {len(kinds)} images have rows with different labels, first "
        f"{several[0]}, and most images have several rows",
        "one label for each image",
        "; or ".join(ways),
    )


def _one_hot(table: Table, names: Sequence[str]) -> pd.Series:
    """Return the name of the column that is 1 in each row."""
    rows = table.rows[list(names)]
    wrong = rows.index[~rows.apply(lambda column: column.str.lower().isin(BINARY)).all(axis=1)]
    count = f"t[{list(names)}].apply(lambda c: c.str.strip().str.lower().isin(['1', '1.0', 'true'])).sum(axis=1)"
    expected = f"exactly one 1 in each row of {', '.join(names)}"
    refuse_rows(table, wrong, "other values than 0 and 1", expected, f"t = t[{count} == 1]")
    ones = rows.apply(lambda column: column.str.lower().isin({"1", "1.0", "true"}))
    counts = ones.sum(axis=1)
    several, none = int((counts > 1).sum()), int((counts == 0).sum())
    if several or none:
        wrong_rows = [f"{several} of {len(rows)} rows have several labels"] * bool(several)
        wrong_rows += [f"{none} of {len(rows)} rows have none"] * bool(none)
        if several:
            change, what = f"t = t[{count} == 1]", "keep the rows with one label"
        else:
            change, what = f"t['none'] = ({count} == 0).astype(int)", "make none a class"
        raise UserError(
            f"data: {table.file}: {'; '.join(wrong_rows)}", expected, f"{what}: {fix_command(table, change)}"
        )
    return ones.idxmax(axis=1).astype(str)


def _out_of_lists(table: Table, name: str, labels: pd.Series) -> pd.Series:
    """Return the label in lists with one entry, ``['cat']``.

    Raises:
        UserError: a list contains several labels, or none.
    """
    if not (labels.str.startswith("[") & labels.str.endswith("]")).all():
        return labels
    lists = labels.map(_listed)
    if lists.isna().any():
        return labels
    wrong = labels.index[lists.map(len) != 1]
    if len(wrong):
        raise _several(table, name, labels, len(wrong), labels[wrong[0]], f"t[{name!r}].str.count(',') == 0")
    return lists.str[0]


def _listed(text: str) -> list[str] | None:
    """Return the entries of a list in JSON or Python notation, None if it is neither."""
    try:
        found = json.loads(text.replace("'", '"'))
    except ValueError:
        return None
    return [str(entry).strip() for entry in found] if all(isinstance(entry, str | int) for entry in found) else None


def _refuse_several(table: Table, name: str, labels: pd.Series) -> None:
    """Refuse labels such as ``cat|dog`` if cat and dog are labels themselves, or occur in several combinations."""
    counts = Counter(labels)
    for separator in _SEPARATORS:
        joined = {label for label in counts if separator in label}
        parts = {label: [part.strip() for part in label.split(separator)] for label in joined}
        # In a|b, a|c, b|c the parts that occur several times are labels, although none has a row of its own.
        within = Counter(part for found in parts.values() for part in set(found)) if separator in "|;" else Counter()
        known = {part for part, times in within.items() if times > 1} | counts.keys()
        parted = {label for label, found in parts.items() if all(found) and known.issuperset(found)}
        if parted:
            number = sum(counts[label] for label in parted)
            keep = f"~t[{name!r}].str.strip().isin({sorted(parted)})" if len(parted) <= _LISTED else (
                f"~t[{name!r}].str.contains({separator!r}, regex=False)"
            )  # fmt: skip
            if number == len(labels):
                raise _combined(table, name, separator, number, min(parted))
            raise _several(table, name, labels, number, min(parted), keep)


def _several(table: Table, name: str, labels: pd.Series, number: int, first: str, keep: str) -> UserError:
    return UserError(
        f"data: {table.file}: {number} of {len(labels)} rows have several labels in {name}, first {first}",
        "one label for each image",
        f"keep the rows with one: {fix_command(table, f't = t[{keep}]')}",
    )


def _combined(table: Table, name: str, separator: str, number: int, first: str) -> UserError:
    change = f"t[{name!r}] = t[{name!r}].str.replace({separator!r}, ' with ', regex=False)"
    return UserError(
        f"data: {table.file}: all {number} rows have several labels in {name}, first {first}",
        "one label for each image",
        f"name another column: {set_columns(label='COLUMN')}; or take each combination as a class: "
        f"{fix_command(table, change)}",
    )


def _numbers(table: Table, name: str, labels: pd.Series) -> tuple[str, ...]:
    """Return a sentence that numbers are used as classes, if the labels are numbers.

    Raises:
        UserError: the numbers are quantities: fractions, or different in nearly every row.
    """
    numbers = pd.to_numeric(labels, errors="coerce")
    distinct = labels.nunique()
    if numbers.isna().any() or distinct < 3:
        return ()
    fractions = bool((numbers % 1 != 0).any())
    change = f"t[{name!r}] = pd.qcut(t[{name!r}].astype(float), {_BINS}, duplicates='drop').astype(str)"
    if (fractions and distinct > _MANY) or (len(labels) >= _MANY and distinct > len(labels) / 2):
        raise UserError(
            f"data: {table.file}: {name} has {distinct} different numbers in {len(labels)} rows: a quantity",
            "a label that many images share",
            f"make {_BINS} classes of equal size of it: {fix_command(table, change)}",
        )
    listed = sorted(set(labels), key=float)
    shown = ", ".join(listed if len(listed) <= 2 * _LISTED else [*listed[:_LISTED], "...", listed[-1]])
    sentence = f"the labels in {name} are numbers ({shown}): each is a class of its own, and their order is not used"
    if distinct > _MANY:
        sentence += f"; if they are a quantity, make classes of it: {fix_command(table, change)}"
    return (sentence,)
