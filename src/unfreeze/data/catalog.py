"""The catalog: one row per file seen, each used, set aside or ignored with its reason."""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from unfreeze.data.looks import Look, OnPicture, Prepare, Remembered, glance_at_all, look_at_all
from unfreeze.data.sources import Source
from unfreeze.errors import UserError

COLUMNS = (
    "id", "path", "label", "sha256", "width", "height", "mode", "status", "reason", "group", "given_split", "source",
)  # fmt: skip


@dataclass(frozen=True)
class Catalog:
    """All files of a study.

    Attributes:
        images: a row per file, columns `COLUMNS`, indexed 0..n-1, sorted by (source, path). `id` is the first 16 hex
            digits of the content's sha256, with "-2", "-3" for further identical files in the order of the rows, and
            "x" and the path's sha256 where the content was not read. `width` and `height` are in pixels, upright, 0
            where unknown; `mode` is Pillow's name of the stored pixel mode; `status` is used, set_aside or ignored;
            text is "" where there is none.
        roots: folder by source.
        classes: sorted names.
    """

    images: pd.DataFrame
    roots: dict[str, Path]
    classes: tuple[str, ...]


def build_catalog(
    source: Source,
    group: str | None = None,
    progress: Callable[[int, int], None] | None = None,
    workers: int | None = None,
    looks: Path | None = None,
    on_picture: OnPicture | None = None,
    prepare: Prepare | None = None,
) -> Catalog:
    """Hash every file of a source, and wholly decode each content that is not known to be fit for use.

    Args:
        source: the files.
        group: regular expression searched in the path; its first group, or the whole match where it has none, names
            the group that the image belongs to.
        progress: called with (files done, files in all) after each file, in this thread.
        workers: threads, by default one per core; the result does not depend on it.
        looks: folder of the cache in which it is remembered which contents are fit for use, `looks/`; what was
            decoded there once is only hashed. None: every content is decoded.
        on_picture: called with (sha256, upright 8-bit RGB picture) once for each content that was decoded and is fit
            for use, in the thread that decoded it (never this one), in one at a time; what it raises ends the whole.
        prepare: called with each such picture first, in several threads at once; on_picture then gets what it returns.

    Raises:
        UserError: `group` is no regular expression, or a used image's path does not match it; the folder of looks
            cannot be written to.
    """
    pattern = _compile(group)
    found = look_at_all(_files(source), Remembered(looks), progress, workers, on_picture, prepare)
    return _catalog(source, found, pattern)


def glance(
    source: Source,
    group: str | None = None,
    progress: Callable[[int, int], None] | None = None,
    workers: int | None = None,
    looks: Path | None = None,
) -> Catalog:
    """Hash every file of a source, and read its header only: the catalog as it will be if what has a header is whole.

    A file is set aside if its header is bad, or if it is known from `looks` to be unfit for use. Nothing is written.
    Arguments and errors are those of `build_catalog`.
    """
    pattern = _compile(group)
    return _catalog(source, glance_at_all(_files(source), Remembered(looks), progress, workers), pattern)


def _files(source: Source) -> list[Path]:
    return [source.roots[item.source] / item.path for item in source.items]


def _catalog(source: Source, looks: Sequence[Look], pattern: re.Pattern[str] | None) -> Catalog:
    rows = []
    for item, look in zip(source.items, looks, strict=True):
        status = "set_aside" if look.reason else "used"
        rows.append(
            ("", item.path, item.label, look.sha256, look.width, look.height, look.mode, status, look.reason)
            + ("", item.given_split, item.source)
        )
    rows += [("", path, "", "", 0, 0, "", "ignored", reason, "", "", name) for path, reason, name in source.ignored]
    rows.sort(key=lambda row: (row[11], row[1]))
    images = pd.DataFrame(rows, columns=pd.Index(COLUMNS))
    images["id"] = _ids(images["sha256"], images["path"])
    if pattern is not None:
        images["group"] = _groups(images, pattern)
    return Catalog(images, source.roots, source.classes)


def rows_of(catalog: Catalog, ids: Sequence[str]) -> pd.DataFrame:
    """Return the rows of `catalog.images` with these ids, in their order, indexed by id; KeyError for an unknown id."""
    return catalog.images.set_index("id").loc[list(ids)]


def paths_of(catalog: Catalog, ids: Sequence[str]) -> list[Path]:
    """Return the files with these ids, in their order."""
    rows = rows_of(catalog, ids)
    return [catalog.roots[name] / path for name, path in zip(rows["source"], rows["path"], strict=True)]


def _ids(sha256s: pd.Series, paths: pd.Series) -> list[str]:
    seen: Counter[str] = Counter()
    ids = []
    for sha256, path in zip(sha256s, paths, strict=True):
        name = sha256[:16] or "x" + hashlib.sha256(path.encode("utf-8", "surrogateescape")).hexdigest()[:16]
        seen[name] += 1
        ids.append(name if seen[name] == 1 else f"{name}-{seen[name]}")
    return ids


def _compile(group: str | None) -> re.Pattern[str] | None:
    try:
        return None if group is None else re.compile(group)
    except re.error as error:
        raise UserError(
            f"split.group: {group}: {error}", "a regular expression, such as patient(\\d+)", "correct the expression"
        ) from error


def _groups(images: pd.DataFrame, pattern: re.Pattern[str]) -> list[str]:
    """Name the group of each used image; a path without a match is refused, since a group overlooked is a leak."""
    used = images["status"] == "used"
    matches = [pattern.search(path) if take else None for path, take in zip(images["path"], used, strict=True)]
    missed = [path for path, take, match in zip(images["path"], used, matches, strict=True) if take and match is None]
    if missed:
        raise UserError(
            f"split.group: {pattern.pattern}: {len(missed)} of {used.sum()} paths do not match, first {missed[0]}",
            "an expression that matches the path of every image",
            "widen the expression; .*(PART)| leaves images without PART in no group",
        )
    return ["" if match is None else (match.group(1 if pattern.groups else 0) or "") for match in matches]
