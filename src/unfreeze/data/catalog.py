"""The catalog: one row per file seen, each used, set aside or ignored with its reason."""

import hashlib
import os
import re
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from PIL import Image

from unfreeze.data.decode import Undecodable, load, open_regular, to_rgb, upright_size
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


@dataclass(frozen=True)
class _Look:
    """What looking at one file gave."""

    sha256: str = ""
    width: int = 0
    height: int = 0
    mode: str = ""
    reason: str = ""


def build_catalog(
    source: Source,
    group: str | None = None,
    progress: Callable[[int, int], None] | None = None,
    workers: int | None = None,
) -> Catalog:
    """Hash and wholly decode every file of a source.

    Args:
        source: the files.
        group: regular expression searched in the path; its first group, or the whole match where it has none, names
            the group that the image belongs to.
        progress: called with (files done, files in all) after each file, in this thread.
        workers: threads, by default one per core; the result does not depend on it.

    Raises:
        UserError: `group` is no regular expression, or a used image's path does not match it.
    """
    pattern = _compile(group)
    rows = []
    for item, look in zip(source.items, _look_at_all(source, progress, workers), strict=True):
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


def _look_at_all(source: Source, progress: Callable[[int, int], None] | None, workers: int | None) -> list[_Look]:
    """Look at each item, in threads (Pillow and hashlib let go of the interpreter's lock), results in order."""
    paths = [source.roots[item.source] / item.path for item in source.items]
    looks = []
    # Set once, around all threads: filters belong to the process.
    with warnings.catch_warnings():
        # Pillow warns of odd metadata; whether the file is fit for use, the whole decode says.
        warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        pool = ThreadPoolExecutor(workers or os.cpu_count())
        try:
            for look in pool.map(_look_at, paths):
                looks.append(look)
                if progress is not None:
                    progress(len(looks), len(paths))
        finally:
            pool.shutdown(cancel_futures=True)  # an interrupt does not wait for the files not yet begun
    return looks


def _look_at(path: Path) -> _Look:
    sha256, width, height, mode = "", 0, 0, ""
    try:
        with open_regular(path) as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            file.seek(0)
            image = load(file)
            mode, (width, height) = image.mode, upright_size(image)
            to_rgb(image)
    except Undecodable as error:
        return _Look(sha256, width, height, mode, error.reason)
    except OSError as error:
        return _Look(reason=f"cannot be read: {(error.strerror or str(error)).lower()}")
    return _Look(sha256, width, height, mode)


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
