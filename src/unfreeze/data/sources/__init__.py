"""Find the labelled files of a study; each source is a module that reads one kind of data into a ``Source``.

Only names are read here; whether a file is an image is checked when the catalog is built. No user file is written.
"""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from unfreeze.config.schema import ColumnsConfig, StudyConfig
from unfreeze.data.fixes import as_setting
from unfreeze.data.sources.folders import read_folder, read_test_folder
from unfreeze.data.sources.food101 import FOOD101, read_lists, unpacked_in
from unfreeze.data.sources.huggingface import HUGGINGFACE
from unfreeze.data.sources.layout import FOLDERS
from unfreeze.data.sources.source import DataRequest, Ignored, Item, Source, SourceKind
from unfreeze.data.tables.manifest import GUESSED, read_manifest, read_test_table, refuse_folder_of_a_table
from unfreeze.data.tables.read import SUFFIXES, looks_like_a_table
from unfreeze.errors import UserError
from unfreeze.registry import Registry
from unfreeze.storage.cache import cache_folder, refuse_inside, usable_cache
from unfreeze.text import near

__all__ = ["Ignored", "Item", "Source", "cache_folder", "open_source", "refuse_inside", "source_of", "usable_cache"]
_SHOWN = 3


def source_of(study: StudyConfig, base: Path) -> Source:
    """List the files of a study, see ``open_source``."""
    follow = study.check.follow_symlinks
    return open_source(study.data, study.tests, base, follow, study.columns, study.labels_from)


def open_source(
    data: str,
    tests: Mapping[str, str],
    base: Path,
    follow_symlinks: bool = False,
    columns: ColumnsConfig = GUESSED,
    labels_from: str | None = None,
) -> Source:
    """List the files of the main data and of further test sets.

    Args:
        data: see ``supported``.
        tests: folders of class folders, or tables, by name; each image in them is a test image.
        base: the folder that relative paths refer to.
        follow_symlinks: whether links to other folders and to files outside of a folder are followed.
        columns: meaning of the columns of tables; ``split: False`` also holds for folders.
        labels_from: part of a picture's path that is its label, see ``label_finder``; for folders.

    Raises:
        UserError: data is missing or unreadable, there are fewer than two classes, two class names differ only in
            case, white space or Unicode form, a further test set has a class that the main data lacks, or there is
            more than one way to read a folder.
    """
    main = _main(DataRequest(data, base, follow_symlinks, columns, labels_from))
    main = (
        _without_splits(main)
        if columns.split is False
        else replace(main, guessed=(*main.guessed, *_report_untrained(main)))
    )
    roots, items, ignored, guessed = dict(main.roots), list(main.items), list(main.ignored), list(main.guessed)
    for name, value in tests.items():
        key = f"tests.{name}"
        if _is_table(value, base):
            further = read_test_table(name, _file(value, base, key), main.classes, columns)
        else:
            folder = _folder(value, base, key, f"{FOLDERS}, or a table")
            further = read_test_folder(name, folder, main.classes, follow_symlinks, labels_from)
        roots |= further.roots
        items += further.items
        ignored += further.ignored
        guessed += further.guessed
    return Source(
        roots,
        tuple(sorted(items, key=lambda item: (item.source, item.path, item.label))),
        tuple(sorted(ignored, key=lambda entry: (entry.source, entry.path))),
        main.classes,
        main.kind,
        main.split_names,
        tuple(guessed),
    )


def _without_splits(source: Source) -> Source:
    """Return a source without the splits that it gives."""
    items = tuple(replace(item, given_split="") for item in source.items)
    kind = "class folders" if source.kind == "split folders" else source.kind
    return replace(source, items=items, kind=kind, split_names={})


def _report_untrained(source: Source) -> list[str]:
    """Report classes with images in other splits but none to train on."""
    splits = {item.given_split for item in source.items}
    trained = {item.label for item in source.items if item.given_split in ("train", "")}
    lacking = sorted({item.label for item in source.items} - trained)
    if "train" not in splits or not lacking:
        return []
    listed = ", ".join(lacking[:_SHOWN]) + (f" and {len(lacking) - _SHOWN} more" if len(lacking) > _SHOWN else "")
    return [
        f"there is no training image of {listed}, so {'it' if len(lacking) == 1 else 'they'} cannot be learned; to "
        f"draw new splits from all images: {as_setting('columns.split', False)}"
    ]


def known_classes(study: StudyConfig, base: Path) -> int:
    """Return the number of classes of a study's data if it is known without its files, else 0."""
    return _kind_of(study.data, base).classes


def _kind_of(data: str, base: Path) -> SourceKind:
    return next(kind for kind in reversed(list(SOURCES.values())) if kind.is_kind_of(data, base))


def _main(request: DataRequest) -> Source:
    kind = _kind_of(request.data, request.base)
    if request.labels_from is not None and not kind.labels_in_paths:
        raise UserError(
            f"labels_from: {request.labels_from}: data: {request.data} gives the labels itself",
            "labels_from only with a folder of pictures",
            "remove labels_from from the study",
        )
    return kind.read(request)


def _read_folder(request: DataRequest) -> Source:
    folder = _folder(request.data, request.base, "data", supported())
    if request.labels_from is None:
        if food101 := unpacked_in(folder):
            return read_lists(food101, request.follow_symlinks)
        refuse_folder_of_a_table(folder)
    return read_folder(folder, request.follow_symlinks, request.labels_from)


def _read_table(request: DataRequest) -> Source:
    return read_manifest(_file(request.data, request.base, "data"), request.columns)


def _is_table(value: str, base: Path) -> bool:
    path = base / Path(value).expanduser()
    return (value.lower().endswith(SUFFIXES) and not path.is_dir()) or (path.is_file() and looks_like_a_table(path))


def _file(value: str, base: Path, key: str) -> Path:
    """Return the real path of an existing file."""
    path = base / Path(value).expanduser()
    if path.is_file():
        return path.resolve()
    raise _missing(key, value, path, "file", supported())


def _folder(value: str, base: Path, key: str, expected: str) -> Path:
    """Return the real path of an existing folder."""
    path = base / Path(value).expanduser()
    if path.is_dir():
        return path.resolve()
    raise _missing(key, value, path, "folder", expected)


def _missing(key: str, value: str, path: Path, kind: str, expected: str) -> UserError:
    what = "is a file" if path.exists() else "does not exist"
    close = [] if path.exists() or not path.parent.is_dir() else near(path.name, os.listdir(path.parent))
    hint = f"; did you mean {path.parent / close[0]}?" if close else ""
    return UserError(f"{key}: {value}: the {kind} {path} {what}", expected, f"correct the path{hint}")


def supported() -> str:
    """Return the supported kinds of data as text."""
    *others, last = (kind.supported for kind in SOURCES.values())
    return f"{', '.join(others)}, or {last}"


SOURCES: Registry[SourceKind] = Registry("source")
"""Kinds of data. If several recognise the data of a study, the last one reads it."""
SOURCES.register(
    "folder",
    SourceKind(
        "a folder of class folders, a folder with train/, val/ and test/ of class folders",
        _read_folder,
        recognises=lambda data, base: True,
        labels_in_paths=True,
    ),
)
SOURCES.register("table", SourceKind("a .csv or .parquet manifest", _read_table, recognises=_is_table))
SOURCES.register("huggingface", HUGGINGFACE)
SOURCES.register("food101", FOOD101)
