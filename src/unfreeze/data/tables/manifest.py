"""Read a table of files as data or as a further test set, and refuse a folder if a table in it has the labels."""

import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from unfreeze.config.schema import ColumnsConfig
from unfreeze.data.fixes import check_command, set_columns
from unfreeze.data.sources.path_labels import check_names
from unfreeze.data.sources.source import SPLIT_NAMES, Ignored, Item, Source
from unfreeze.data.tables.columns import Columns, read_columns
from unfreeze.data.tables.labels import check_boxes, check_votes, read_labels
from unfreeze.data.tables.paths import find_files, join_folders
from unfreeze.data.tables.pixels import refuse_pictures
from unfreeze.data.tables.read import IN_FOLDERS, TABLE, Table, fix_command, key, read_table, refuse_rows
from unfreeze.errors import UserError

GUESSED = ColumnsConfig()
"""Default settings: the meaning of the columns is found in the table."""

_LARGE = 100_000_000
"""Bytes from which a table in a folder is not read, since it is hardly a list of images."""


def read_manifest(file: Path, asked: ColumnsConfig = GUESSED) -> Source:
    """Read a table of files; paths in it are relative to its folder, or absolute.

    Raises:
        UserError: the table cannot be read; the meaning of a column is not clear; a path or label is missing, or a row
            has several labels; files are not found; splits contradict; there are fewer than two classes.
    """
    table = read_table(file)
    source, _ = _read(table, asked, "data")
    classes = set(source.classes)
    if len(classes) < 2:
        others = [str(name) for name in table.rows.columns if 1 < table.rows[name].nunique() <= len(table.rows) / 2]
        way = f", or name another column: {set_columns(label=others[0])}" if others else ": images/2.jpg,dog"
        raise UserError(
            f"{file} has {len(classes)} classes: {', '.join(classes)}",
            "at least two",
            f"add rows with another label{way}",
        )
    check_names("label", file, classes)
    guessed = (*table.guessed, *source.guessed, *_report_tables_beside(table))
    return Source(source.roots, source.items, source.ignored, source.classes, "table", source.split_names, guessed)


def read_test_table(name: str, file: Path, classes: Sequence[str], asked: ColumnsConfig = GUESSED) -> Source:
    """Read a table as a further test set: its labels are classes of the main data, its splits are not used.

    Raises:
        UserError: as for ``read_manifest``, or a label is not a class of the main data.
    """
    table = read_table(file)
    source, columns = _read(table, asked, f"tests.{name}")
    unknown = sorted(set(source.classes) - set(classes))
    if unknown:
        label = columns.labels[0]
        raise UserError(
            f"tests.{name}: {file} has labels that the main data lacks: {', '.join(unknown[:5])}",
            f"classes of the main data: {', '.join(classes[:10])}{', ...' if len(classes) > 10 else ''}",
            f"leave these rows out: {fix_command(table, f't = t[~t[{label!r}].str.strip().isin({unknown})]')}",
        )
    items = tuple(Item(item.path, item.label, "", name, item.group, "", item.more) for item in source.items)
    ignored = tuple(Ignored(entry.path, entry.reason, name) for entry in source.ignored)
    guessed = tuple(f"tests.{name}: {text}" for text in (*table.guessed, *source.guessed))
    return Source({name: source.roots[""]}, items, ignored, tuple(classes), "table", {}, guessed)


def refuse_folder_of_a_table(root: Path) -> None:
    """Refuse a folder if a table in it gives other labels than its class folders.

    Raises:
        UserError: with the command that reads the table.
    """
    _refuse_table_in_each_split(root)
    found = {file: source for file in _table_files(root) if (source := _readable(file)) and not _by_folder(*source)}
    if not found:
        return
    listed = ", ".join(f"{file.name} ({len(source.items)} images)" for file, (source, _) in found.items())
    train = next((file for file in found if "train" in file.name.lower()), min(found))
    raise UserError(
        f"data: {root} contains a table of its images with labels that are not those of folders: {listed}",
        "the table, or a folder of class folders",
        f"give the table: {check_command(train)}",
    )


def _refuse_table_in_each_split(root: Path) -> None:
    """Refuse a folder of split folders that each contain a table of their images, of the same name.

    Raises:
        UserError: with the command that makes one table of them.
    """
    folders = [folder for folder in sorted(root.iterdir()) if folder.name.lower() in SPLIT_NAMES and folder.is_dir()]
    names = {file.name for folder in folders for file in _table_files(folder)}
    for name in sorted(names):
        found = {folder.name: folder / name for folder in folders if (folder / name).is_file()}
        read = [_readable(file) for file in found.values()]
        if len(found) < 2 or None in read:
            continue
        first, (source, columns) = next(iter(found.values())), next(entry for entry in read if entry)
        if _by_folder(source, columns):
            continue
        table = read_table(first)
        one = table.reader.replace(repr(first.as_posix()), f"{root.as_posix()!r} + '/' + s + '/{name}'")
        path = columns.path
        change = (
            f"t = pd.concat([{one}.rename(columns=str.strip).pipe(lambda t: "
            f"t.assign(**{{{path!r}: s + '/' + t[{path!r}], 'split': s}})) for s in {list(found)}])"
        )
        listed = ", ".join(file.relative_to(root).as_posix() for file in found.values())
        raise UserError(
            f"data: {root} contains a table of images in each split's folder: {listed}",
            "one table of all splits, or a folder of class folders",
            f"make one of them: {fix_command(replace(table, file=root / name), change)}",
        )


def _table_files(root: Path) -> list[Path]:
    return sorted(
        file
        for file in root.iterdir()
        if file.suffix.lower() in IN_FOLDERS and not file.name.startswith(".") and file.is_file()
        and file.stat().st_size < _LARGE
    )  # fmt: skip


def _readable(file: Path) -> tuple[Source, Columns] | None:
    """Return the files of a table, None if it is not a table of labelled images; a folder may contain other tables."""
    try:
        source, columns = _read(read_table(file), GUESSED, "data")
    except UserError:
        return None
    return (source, columns) if len(source.classes) > 1 else None


def _by_folder(source: Source, columns: Columns) -> bool:
    """Tell whether the files seem to be in class folders: in several folders that agree with the table's labels."""
    rows = pd.DataFrame(
        [(os.path.dirname(item.path), item.label) for item in source.items], columns=["folder", "label"]
    )
    if rows["folder"].nunique() > 1 and not columns.known:
        return True
    counts = rows.value_counts().unstack(fill_value=0)
    agreeing = counts.max(axis=1).sum() / len(rows)
    return bool(counts.idxmax(axis=1).nunique() > 1 and agreeing > 0.9)


def _read(table: Table, asked: ColumnsConfig, what: str) -> tuple[Source, Columns]:
    """Read the rows; the source has no kind yet, and its classes are not checked."""
    if asked.path is None and "path" not in map(key, table.rows.columns):
        refuse_pictures(table)
    columns = read_columns(table, asked, lambda names: _exist(table, names, asked))
    if not columns.labels:
        raise _unlabelled(table, columns, what)
    names = table.rows[columns.path]
    strip = f"t = t[t[{columns.path!r}].str.strip().ne('')]"
    refuse_rows(table, names.index[names == ""], f"no {columns.path}", f"a {columns.path} in every row", strip)
    nul = names.index[names.str.contains("\0", regex=False)]
    change = f"t = t[~t[{columns.path!r}].str.contains(chr(0), regex=False)]"
    refuse_rows(table, nul, "a NUL in the path", "paths of files", change)
    labels, on_labels = read_labels(table, columns)
    table, folders = join_folders(table, columns.path, asked.root)
    names = table.rows[columns.path]
    found = find_files(table, list(names), asked.root, asked.suffix)
    paths = [found.paths[name] for name in names]
    boxes = check_boxes(table, columns, labels, paths)
    guessed = (*columns.guessed, *on_labels, *boxes, *folders, *found.guessed)
    check_votes(table, columns, labels, paths)
    items, ignored = _items(table, columns, paths, list(labels))
    classes = tuple(sorted(set(labels)))
    return Source({"": table.file.parent}, items, ignored, classes, "", columns.split_names, guessed), columns


def _exist(table: Table, names: Sequence[str], asked: ColumnsConfig) -> bool:
    try:
        return bool(find_files(table, names, asked.root, asked.suffix))
    except UserError:
        return False


def _items(
    table: Table, columns: Columns, paths: Sequence[str], labels: Sequence[str]
) -> tuple[tuple[Item, ...], tuple[Ignored, ...]]:
    """Return an item for each file and label, and the rows that repeat one."""
    rows = table.rows
    same = f"t = t.assign(_file=[p.replace(chr(92), '/').removeprefix('./') for p in t[{columns.path!r}]])"
    given = {str(name): list(rows[name]) for name in rows.columns}
    nothing = [""] * len(rows)
    folds = given[columns.fold] if columns.fold else nothing
    groups = given[columns.group] if columns.group else nothing
    more = [name for name in given if name not in columns.used]
    items, ignored, seen, contradicting = [], [], dict[tuple[str, str], int](), []
    for position, (path, label) in enumerate(zip(paths, labels, strict=True)):
        whole = os.path.join(table.file.parent, path)  # an absolute and a relative path may name the same file
        first = seen.setdefault((whole, label), position)
        if first != position:
            ignored.append(Ignored(path, "listed twice with the same label"))
            if any(values[first] != values[position] for values in (columns.split, folds, groups)):
                contradicting.append(position)
            continue
        values = tuple((name, given[name][position]) for name in more)
        items.append(Item(path, label, columns.split[position], "", groups[position], folds[position], values))
    refuse_rows(
        table, rows.index[contradicting], "a file that was listed before with another split, fold or group",
        "one split, fold and group for each file", f"{same}.drop_duplicates('_file').drop(columns='_file')",
    )  # fmt: skip
    return tuple(items), tuple(ignored)


def _unlabelled(table: Table, columns: Columns, what: str) -> UserError:
    labelled = (
        [] if what != "data" else [file for file in _others(table.file, ("train", "training")) if _readable(file)]
    )
    if what != "data":
        fix = f"take {what} out of the study, or add a column of labels: {columns.path},label"
    elif labelled:
        fix = f"give the table with labels: {check_command(labelled[0])}"
    else:
        fix = f"add a column of labels: {columns.path},label"
    return UserError(f"{what}: {table.file} has no labels, only {', '.join(map(str, table.rows.columns))}", TABLE, fix)


def _others(file: Path, words: Sequence[str]) -> list[Path]:
    """Return the tables next to one whose names differ only in the split that they contain."""
    split = re.compile(r"(?<![a-z])(train|training|test|testing|val|valid|validation)(?![a-z])")
    name = split.sub("*", file.stem.lower())
    if "*" not in name:
        return []
    others = [other for other in _table_files(file.parent) if other.name != file.name]
    return [
        other
        for other in others
        if split.sub("*", other.stem.lower()) == name and set(split.findall(other.stem.lower())) & set(words)
    ]


def _report_tables_beside(table: Table) -> list[str]:
    """Report tables next to a table of training images that name another split."""
    found = []
    file = table.file
    if not re.search("train", file.stem.lower()):
        return []
    for other in _others(file, ("test", "testing", "val", "valid", "validation")):
        name = re.sub(r"[^A-Za-z0-9]+", "_", other.name).strip("_")
        if _readable(other) is None:
            found.append(f"{other.name} lies beside it and has no labels that can be read, so it is not used")
        elif "test" in other.stem.lower():
            found.append(
                f"{other.name} lies beside it and is not used; tests: {{{name}: {other.name}}} in the study file, or "
                f"--set tests.{name}={other}, tests on it as well, and with split: {{test: 0}} on it alone"
            )
        else:
            both = f"t = pd.concat([t.assign(split='train'), pd.read_csv({other.as_posix()!r}).assign(split='val')])"
            found.append(f"{other.name} lies beside it and is not used; to validate on it: {fix_command(table, both)}")
    return found
