r"""Find the files that a table names, also if they are not where it says.

Tried in any combination: ``\`` as ``/``; different case or Unicode form; a missing or different suffix; a folder near
the table that contains the names; without leading folders, which are those of another machine. One combination is used
for all rows.
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
"""Depth of the search below a table's folder, and below the folder around it."""

_PROBES = 10

_COMPARED = 5000
"""Most names among which the nearest one is searched."""

_NO_PHOTOGRAPHS = ("mask", "segm", "annot", "label", "thumb", "depth", "truth")
_PHOTOGRAPHS = ("im", "jpg", "jpeg", "png", "photo", "pic")
_SPLITS = ("train", "test", "val")

_TABLES = ("annot", "label", "meta", "csv", "split", "table", "list")
"""Parts of names of folders that contain only tables, next to a folder of images."""

Parts = tuple[str, ...]


@dataclass(frozen=True)
class Found:
    """Files of a table's rows.

    Attributes:
        paths: posix path relative to the table's folder, or absolute, by the name in the table.
        guessed: sentences on how they were found, if not as written, and on missing files.
    """

    paths: Mapping[str, str]
    guessed: tuple[str, ...] = ()


@dataclass(frozen=True)
class _File:
    """A file near the table: the parts of its path below the searched folder, and its folders in folded case."""

    parts: Parts
    folders: Parts


@dataclass(frozen=True)
class _Place:
    """Where names are: below a folder (None: anywhere), without their first ``left_out`` parts."""

    folder: Parts | None
    left_out: int = 0


_Index = Mapping[str, list[_File]]
"""Files by name, pictures also by name without suffix, in folded case and one Unicode form."""


def find_files(table: Table, names: Sequence[str], root: str | None, suffix: str | None) -> Found:
    """Find the files that a table names.

    Args:
        table: the table.
        names: names of the files in the table.
        root: the folder that they are relative to, relative to the table's folder; None for that folder.
        suffix: suffix to add to the names.

    Raises:
        UserError: more than half of the files do not exist, or names match files in several folders.
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
    guessed = [_moved_text(moved, written, found, place, way if root is None else None)] if moved and place else []
    if missing:
        nearest = _nearest(missing[0], index, way)
        if 2 * len(missing) > len(written):
            raise _no_files(table, written, missing, nearest, index)
        guessed.append(
            f"{len(missing)} of {len(written)} files do not exist, first {missing[0]}{nearest}; "
            f"{columns_line(root='FOLDER')} says which folder the paths are relative to"
        )
    return Found(written | moved, tuple(guessed))


def join_folders(table: Table, path: str, root: str | None) -> tuple[Table, tuple[str, ...]]:
    """Prepend to each file the folder in another column, if most files exist only there.

    Args:
        table: the table.
        path: the column that names the files.
        root: as for ``find_files``.

    Returns:
        The table with these paths in its column of files, and a sentence on it; else the unchanged table.
    """
    folder, rows = table.file.parent / Path(root or "").expanduser(), table.rows
    if os.path.isfile(folder / rows[path].iloc[0]):
        return table, ()
    for name in (str(name) for name in rows.columns if name != path):
        joined = rows[name] + "/" + rows[path]
        files = [folder / PurePath(*_parts(whole)) for whole in joined]
        # More than half, as in find_files.
        if any(map(os.path.isfile, files[:_PROBES])) and 2 * sum(map(os.path.isfile, files)) > len(files):
            reader = f"{table.reader}.pipe(lambda t: t.assign(**{{{path!r}: t[{name!r}] + '/' + t[{path!r}]}}))"
            otherwise = f"{columns_line(root='FOLDER')} says otherwise"
            guess = f"the column {name} names the folder of each file in {path}; {otherwise}"
            return replace(table, rows=rows.assign(**{path: joined}), reader=reader), (guess,)
    return table, ()


def _parts(name: str) -> Parts:
    """Return the parts of a path of any operating system, without drive, root and dots."""
    parts = re.split(r"[/\\]+", re.sub(r"^[A-Za-z]:(?=[/\\])", "", name))
    return tuple(part for part in parts if part not in ("", ".")) or (name,)


def _fold(text: str) -> str:
    return unicodedata.normalize("NFC", text).casefold()


def _bare(name: str) -> str | None:
    """Return a picture's name without its suffix; None if it is not a picture's suffix."""
    stem, suffix = os.path.splitext(name)
    return stem if suffix.lower() in PICTURES else None


def _index(base: Path, depth: int) -> _Index:
    """Index the files below a folder, without hidden ones; links to folders around them are not followed."""
    index: dict[str, list[_File]] = {}
    waiting: list[tuple[Parts, frozenset[str]]] = [((), frozenset({os.path.realpath(base)}))]
    pictures = False
    while waiting:
        parts, around = waiting.pop()
        here = os.path.join(base, *parts)
        try:
            with os.scandir(here) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError:  # a folder that cannot be read has no usable files
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
    """Return the files that a name may mean, with their difference: 0 none, 1 form, 2 added suffix, 3 other suffix."""
    folded, bare = _fold(name), _bare(name)
    hits = [
        (0 if file.parts[-1] == name else 1 if _fold(file.parts[-1]) == folded else 2, file)
        for file in index.get(folded, ())
    ]
    if bare is not None:
        hits += [(3, file) for file in index.get(_fold(bare), ()) if _bare(file.parts[-1]) is not None]
    return hits


def _places(wanted: Sequence[Parts], index: _Index) -> list[_Place]:
    """Return the possible places of the first names with matching files, with the fewest parts left out first."""
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
    """Return the only file that a name matches in a place, else None."""
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
    """Return the place with files for most names; of several with files for all names, the one that is meant.

    Raises:
        UserError: it is not clear which one is meant.
    """
    best, most, whole = None, 0, dict[tuple[Parts | None, ...], _Place]()
    for place in places:
        if whole and (place.folder is None or place.left_out > next(iter(whole.values())).left_out):
            break  # longer paths identify files better, and a folder with all files better than names alone
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
            f"data: {table.file}: the files are in several folders: {', '.join(roots)}",
            "one file for each row",
            f"name the right folder: {set_columns(root=roots[0])}",
        )
    return meant


def _meant(table: Table, places: list[_Place]) -> _Place | None:
    """Return the only place without masks, or named like the table's split, or named like photographs; else None."""

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
    """Return how files were found; ``way`` leads from the table's folder to the searched one, None with a root."""
    first = next(iter(moved))
    how = []
    if any("\\" in name for name in moved):
        how.append("\\ read as /")
    if place.left_out:
        parts = "part" if place.left_out == 1 else f"{place.left_out} parts"
        how.append(f"without the first {parts} of the path")
    root = None
    if place.folder is None:
        how.append("by name, in any folder")
    elif way is not None and (place.folder or way != "."):
        root = PurePath(way, *place.folder).as_posix()
        how.append(f"in the folder {root}")
    ends = [(_parts(name)[-1], parts[-1]) for name, parts in found.items() if parts]
    if any(_fold(given) == _fold(real) and given != real for given, real in ends):
        how.append("with different case or Unicode form")
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
        fix = f"say which of {', '.join(ends)} is right: {set_columns(suffix=ends[0])}"
    elif re.match(r"[a-z][a-z0-9+.-]+://", first.lower()):
        fix = f"nothing is downloaded: download the files, then name their folder: {set_columns(root='FOLDER')}"
    else:
        fix = f"name their folder: {set_columns(root='FOLDER')}"
    return UserError(
        f"data: {table.file}: {len(missing)} of {len(written)} files do not exist, first {first}{nearest}",
        f"paths or names of files below {table.file.parent}, or absolute paths",
        fix,
    )
