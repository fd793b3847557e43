r"""Find the files that a table names, where they do not lie as it writes them.

Tried, in any combination: ``\`` as ``/``; other capitals or another Unicode form; a suffix that is missing, or another
one; a folder near the table in which the names lie; leading folders that are another machine's. One combination is
taken for all rows.
"""

import os
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

from unfreeze.data.fixes import columns_line, set_columns
from unfreeze.data.tables.head import PICTURES
from unfreeze.data.tables.read import Table
from unfreeze.errors import UserError
from unfreeze.text import near

_DEPTH, _AROUND = 4, 2
"""How many folders deep is looked below a table's folder, and below the one around it."""

_PROBES = 10

_COMPARED = 5000
"""Names among which the nearest one is looked for."""

_NO_PHOTOGRAPHS = ("mask", "segm", "annot", "label", "thumb", "depth", "truth")
_PHOTOGRAPHS = ("im", "jpg", "jpeg", "png", "photo", "pic")
_SPLITS = ("train", "test", "val")

_TABLES = ("annot", "label", "meta", "csv", "split", "table", "list")
"""Parts of the names of folders that hold tables only, and lie beside a folder of images."""

Parts = tuple[str, ...]


@dataclass(frozen=True)
class Found:
    """The files of a table's rows.

    Attributes:
        paths: by name as the table has it: posix path relative to the table's folder, or absolute.
        told: how they were found, where not as written, and how many do not exist.
    """

    paths: Mapping[str, str]
    told: tuple[str, ...] = ()


@dataclass(frozen=True)
class _File:
    """A file near the table: its path's parts below the folder looked through, and its folders without capitals."""

    parts: Parts
    folders: Parts


@dataclass(frozen=True)
class _Place:
    """Where names lie: below a folder, with so many of their leading parts left out; None: anywhere."""

    folder: Parts | None
    left_out: int = 0


_Index = Mapping[str, list[_File]]
"""Files by name, and pictures also by name without suffix; without capitals and in one Unicode form."""


def find_files(table: Table, names: Sequence[str], root: str | None, suffix: str | None) -> Found:
    """Find the files that a table names.

    Args:
        table: the table.
        names: the files, as written in it.
        root: the folder that they are relative to, itself relative to the table's folder; None for that folder.
        suffix: what the names lack at their end.

    Raises:
        UserError: more than half of the files do not exist, or names fit files in several folders.
    """
    folder, prefix = table.file.parent, "" if root is None else str(Path(root).expanduser())
    suffix = f".{suffix}" if suffix and f".{suffix.lower()}" in PICTURES else suffix
    full = {name: name + suffix if suffix and not name.endswith(suffix) else name for name in dict.fromkeys(names)}
    written = {name: PurePath(prefix, whole).as_posix() for name, whole in full.items()}
    absent = {name: _parts(full[name]) for name, path in written.items() if not os.path.isfile(folder / path)}
    if not absent:
        return Found(written)
    base, index = folder / prefix, _index(folder / prefix, _DEPTH)
    if root is None and not index and any(word in _fold(folder.name) for word in _TABLES):
        base, index = folder.parent, _index(folder.parent, _AROUND)
    wanted = list(dict.fromkeys(absent.values()))
    places = _places(wanted, index) if root is None else [_Place((), left) for left in range(len(max(wanted, key=len)))]
    place = _place(table, wanted, index, places)
    found = {name: _match(index, place, parts) for name, parts in absent.items()} if place else {}
    way = os.path.relpath(base, folder)
    moved = {name: PurePath(prefix or way, *parts).as_posix() for name, parts in found.items() if parts}
    missing = [name for name in absent if name not in moved]
    told = [_moved_text(moved, written, found, place, way if root is None else None)] if moved and place else []
    if missing:
        nearest = _nearest(missing[0], index, way)
        if 2 * len(missing) > len(written):
            raise _no_files(table, written, missing, nearest, index)
        told.append(
            f"{len(missing)} of {len(written)} files do not exist, first {missing[0]}{nearest}; "
            f"{columns_line(root='FOLDER')} says which folder the paths are relative to"
        )
    return Found(written | moved, tuple(told))


def join_folders(table: Table, path: str, root: str | None) -> tuple[Table, tuple[str, ...]]:
    """Put the folder that another column names before each file, where most files exist only so.

    Args:
        table: the table.
        path: the column that names the files.
        root: as for ``find_files``.

    Returns:
        the table with these paths in its column of files, and what is told; the table as it is where none is joined.
    """
    folder, rows = table.file.parent / Path(root or "").expanduser(), table.rows
    if os.path.isfile(folder / rows[path].iloc[0]):
        return table, ()
    for name in (str(name) for name in rows.columns if name != path):
        joined = rows[name] + "/" + rows[path]
        files = [folder / PurePath(*_parts(whole)) for whole in joined]
        # More than half is what find_files asks for, too.
        if any(map(os.path.isfile, files[:_PROBES])) and 2 * sum(map(os.path.isfile, files)) > len(files):
            reader = f"{table.reader}.pipe(lambda t: t.assign(**{{{path!r}: t[{name!r}] + '/' + t[{path!r}]}}))"
            otherwise = f"{columns_line(root='FOLDER')} says otherwise"
            guess = f"the column {name} names the folder of each file in {path}; {otherwise}"
            return replace(table, rows=rows.assign(**{path: joined}), reader=reader), (guess,)
    return table, ()


def _parts(name: str) -> Parts:
    """Return the parts of a path of any system, without drive, root and dots."""
    parts = re.split(r"[/\\]+", re.sub(r"^[A-Za-z]:(?=[/\\])", "", name))
    return tuple(part for part in parts if part not in ("", ".")) or (name,)


def _fold(text: str) -> str:
    return unicodedata.normalize("NFC", text).casefold()


def _bare(name: str) -> str | None:
    """Return a picture's name without its suffix; None where it has no suffix of a picture."""
    stem, suffix = os.path.splitext(name)
    return stem if suffix.lower() in PICTURES else None


def _index(base: Path, depth: int) -> _Index:
    """Index the files below a folder; hidden ones are left out, and links to folders around them not followed."""
    index: dict[str, list[_File]] = {}
    waiting: list[tuple[Parts, frozenset[str]]] = [((), frozenset({os.path.realpath(base)}))]
    pictures = False
    while waiting:
        parts, around = waiting.pop()
        here = os.path.join(base, *parts)
        try:
            with os.scandir(here) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError:  # a folder that cannot be read holds nothing that could be used
            continue
        folders = tuple(map(_fold, parts))
        for entry in found:
            if entry.name.startswith((".", "__MACOSX")):
                continue
            if os.path.isdir(entry.path):
                real = os.path.realpath(entry.path)
                if len(parts) < depth and real not in around:
                    waiting.append(((*parts, entry.name), around | {real}))
                continue
            file = _File((*parts, entry.name), folders)
            index.setdefault(_fold(entry.name), []).append(file)
            if (bare := _bare(entry.name)) is not None:
                pictures = True
                index.setdefault(_fold(bare), []).append(file)
    return index if pictures else {}


def _hits(index: _Index, name: str) -> list[tuple[int, _File]]:
    """Return the files that a name may mean, with how much they differ: 0 not, 1 in form, 2 and 3 in the suffix."""
    folded, bare = _fold(name), _bare(name)
    hits = [
        (0 if file.parts[-1] == name else 1 if _fold(file.parts[-1]) == folded else 2, file)
        for file in index.get(folded, ())
    ]
    if bare is not None:
        hits += [(3, file) for file in index.get(_fold(bare), ()) if _bare(file.parts[-1]) is not None]
    return hits


def _places(wanted: Sequence[Parts], index: _Index) -> list[_Place]:
    """Return the places where the first names with a file like them would lie, those that leave out least first."""
    places = dict[_Place, None]()
    probes = 0
    for parts in wanted:
        hits = _hits(index, parts[-1])
        probes += bool(hits)
        for _, file in hits:
            *above, _ = file.parts
            for left in range(len(parts)):
                tail = tuple(map(_fold, parts[left:-1]))
                if file.folders[len(file.folders) - len(tail) :] == tail and len(tail) <= len(above):
                    places[_Place(tuple(above[: len(above) - len(tail)]), left)] = None
        if probes == _PROBES:
            break
    return [*sorted(places, key=lambda place: (place.left_out, len(place.folder or ()))), _Place(None)]


def _match(index: _Index, place: _Place, parts: Parts) -> Parts | None:
    """Return the one file that a name means in a place, if there is one."""
    if place.left_out >= len(parts):
        return None
    hits = _hits(index, parts[-1])
    if place.folder is not None:
        target = tuple(map(_fold, (*place.folder, *parts[place.left_out : -1])))
        hits = [(level, file) for level, file in hits if file.folders == target]
    least = min((level for level, _ in hits), default=0)
    fitting = {file.parts for level, file in hits if level == least}
    return fitting.pop() if len(fitting) == 1 else None


def _place(table: Table, wanted: Sequence[Parts], index: _Index, places: Sequence[_Place]) -> _Place | None:
    """Return the place where most names lie; where all lie in several places, the one that is plainly meant.

    Raises:
        UserError: none is.
    """
    best, most, whole = None, 0, dict[tuple[Parts | None, ...], _Place]()
    for place in places:
        if whole and (place.folder is None or place.left_out > next(iter(whole.values())).left_out):
            break  # the whole path says more than its end, and a folder that has them all more than names alone
        files = tuple(_match(index, place, parts) for parts in wanted)
        count = sum(file is not None for file in files)
        if count > most:
            best, most = place, count
        if count == len(wanted):
            whole.setdefault(files, place)
    if len(whole) < 2:
        return best
    meant = _meant(table, list(whole.values()))
    if meant is None:
        roots = sorted("/".join(place.folder or ()) or "." for place in whole.values())
        raise UserError(
            f"data: {table.file}: the files lie in several folders: {', '.join(roots)}",
            "one file for each row",
            f"say which folder is meant: {set_columns(root=roots[0])}",
        )
    return meant


def _meant(table: Table, places: list[_Place]) -> _Place | None:
    """Return the only place with the table's split in its name, else the only one whose name says photographs."""

    def named(words: Iterable[str], among: Sequence[_Place]) -> list[_Place]:
        return [place for place in among if any(word in _fold("/".join(place.folder or ())) for word in words)]

    masks = named(_NO_PHOTOGRAPHS, places)
    left = [place for place in places if place not in masks]
    splits = [word for word in _SPLITS if word in _fold(table.file.stem)]
    for chosen in (left, named(splits, left), named(_PHOTOGRAPHS, left)):
        if len(chosen) == 1:
            return chosen[0]
    return None


def _moved_text(
    moved: Mapping[str, str],
    written: Mapping[str, str],
    found: Mapping[str, Parts | None],
    place: _Place,
    way: str | None,
) -> str:
    """Say how files were found; ``way``: from the table's folder to the one looked through, None where root says it."""
    first = next(iter(moved))
    how = []
    if any("\\" in name for name in moved):
        how.append("\\ read as /")
    if place.left_out:
        parts = "part" if place.left_out == 1 else f"{place.left_out} parts"
        how.append(f"without the first {parts} of the path")
    root = None
    if place.folder is None:
        how.append("by name, in whatever folder")
    elif way is not None and (place.folder or way != "."):
        root = PurePath(way, *place.folder).as_posix()
        how.append(f"in the folder {root}")
    ends = [(_parts(name)[-1], parts[-1]) for name, parts in found.items() if parts]
    if any(_fold(given) == _fold(real) and given != real for given, real in ends):
        how.append("in other capitals or another Unicode form")
    added = sorted(
        {os.path.splitext(real)[1] for given, real in ends if _fold(os.path.splitext(real)[0]) == _fold(given)}
    )
    if added:
        how.append(f"with {' or '.join(added)} added")
    if any(_bare(given) is not None and _fold(given) != _fold(real) for given, real in ends if _bare(real) != given):
        how.append("with another suffix")
    says = columns_line(root=root or "FOLDER", suffix=added[0] if len(added) == 1 else None)
    return (
        f"{len(moved)} of {len(written)} files are not where the table says, and were found ({'; '.join(how)}): "
        f"{first} is {moved[first]}; {says} says otherwise"
    )


def _nearest(name: str, index: _Index, way: str) -> str:
    files = [file for files in list(index.values())[:_COMPARED] for file in files]
    close = near(_parts(name)[-1], [file.parts[-1] for file in files])
    like = [file for _, file in _hits(index, _parts(name)[-1])]
    parts = next((file.parts for file in like or files if like or [file.parts[-1]] == close), None)
    return f" (the nearest is {PurePath(way, *parts).as_posix()})" if parts else ""


def _no_files(
    table: Table, written: Mapping[str, str], missing: Sequence[str], nearest: str, index: _Index
) -> UserError:
    first = missing[0]
    ends = sorted(
        {os.path.splitext(file.parts[-1])[1] for level, file in _hits(index, _parts(first)[-1]) if level == 2}
    )
    if len(ends) > 1:
        fix = f"say which of {', '.join(ends)} is meant: {set_columns(suffix=ends[0])}"
    elif re.match(r"[a-z][a-z0-9+.-]+://", first.lower()):
        fix = f"nothing is downloaded: download the files, then name their folder: {set_columns(root='FOLDER')}"
    else:
        fix = f"name their folder: {set_columns(root='FOLDER')}"
    return UserError(
        f"data: {table.file}: {len(missing)} of {len(written)} files do not exist, first {first}{nearest}",
        f"paths or names of files below {table.file.parent}, or absolute paths",
        fix,
    )
