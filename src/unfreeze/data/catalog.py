"""Build the catalog: one row per file, with its label and whether it is used, set aside or ignored, and why."""

import hashlib
import math
import posixpath
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from unfreeze.config.schema import CheckConfig
from unfreeze.data.duplicates import DuplicateGroups, find_copies
from unfreeze.data.fixes import pages_as_png, scaled
from unfreeze.data.formats.reading import FULL, USUAL, Reading, bits_of, content_key, is_deep
from unfreeze.data.lookalikes import separate_scenes, set_conflicts_aside, within_clusters
from unfreeze.data.scan import QUIET, Callbacks, known_files, scan_files, scan_headers
from unfreeze.data.scan_cache import FileInfo, ScanCache
from unfreeze.data.sources.source import Item, Source
from unfreeze.data.unusable import TRUNCATED
from unfreeze.errors import UserError
from unfreeze.storage.records import any_text

COLUMNS = (
    "id", "path", "label", "sha256", "width", "height", "mode", "status", "reason", "group", "given_split", "source",
    "bytes", "pixels", "phash", "cluster", "brightness", "contrast", "sharpness", "colour", "given_fold", "note",
)  # fmt: skip

SAFE = CheckConfig()
"""Default handling of copies and label conflicts."""


@dataclass(frozen=True)
class Catalog:
    """All files of a study.

    Attributes:
        images: a row per file, columns `COLUMNS`, indexed 0..n-1, sorted by (source, path). Empty text means none.

            - `id`: first 16 hex digits of the content's sha256, with "-2", "-3" for further identical files in row
              order; "x" and digits of the path's sha256 if the content was not read.
            - `width`, `height`: pixels of the upright picture, 0 if unknown. `bytes`: size of the file.
            - `mode`: of the stored pixels, see ``decode.mode_of``.
            - `status`: used, set_aside or ignored, with the `reason`.
            - `cluster`: the same for images that are copies of each other. `given_fold`: fold that the data names.
            - `note`: what is unusual about a used file, see ``SEVERAL``, ``MISNAMED`` and ``CUT``.
            - `data_NAME`: further columns of the data. The rest: see `data.image_hash.ImageStats`, NaN if not decoded.
        roots: folder by source.
        classes: sorted names.
        likeness: correlation of near duplicates by the sha256 of both, the smaller one first.
        reading: how files were read.
        guessed: sentences on how pictures were read that do not say it themselves, each with the setting to change it.
        scenes: row positions of each scene's images, see ``data.lookalikes``.
    """

    images: pd.DataFrame
    roots: dict[str, Path]
    classes: tuple[str, ...]
    likeness: Mapping[tuple[str, str], float] = field(default_factory=dict)
    reading: Reading = USUAL
    guessed: tuple[str, ...] = ()
    scenes: Sequence[tuple[int, ...]] = ()


def build_catalog(
    source: Source,
    group: str | None = None,
    scan_cache: Path | None = None,
    check: CheckConfig = SAFE,
    workers: int | None = None,
    callbacks: Callbacks = QUIET,
) -> Catalog:
    """Hash the files of a source, decode each new content once, find duplicates, and return the catalog.

    Args:
        source: the files.
        group: a further column of the data that names the group of each image, or a regular expression searched in the
            path, whose first group (or whole match) names it.
        scan_cache: folder of the scan cache. Content decoded before is only hashed, and an unchanged file is not read.
            None: every content is decoded.
        check: how files are read, and what happens to copies and label conflicts.
        workers: threads, by default one per core; the result does not depend on it.
        callbacks: called while files are read and compared.

    Raises:
        UserError: `group` is neither a column nor a regular expression, the data already names groups, or the path of a
            used image does not match; the scan cache cannot be written.
    """
    grouping = _grouping(source, group)
    files = _files(source)

    def scan(paths: Sequence[Path], reading: Reading, report: Callable[[int, int], None] | None) -> list[FileInfo]:
        cache = ScanCache(scan_cache, reading)
        return scan_files(paths, cache, report, workers, callbacks.on_picture, callbacks.prepare, reading)

    found, reading = _with_bits(files, scan(files, _reading_before_scan(check), callbacks.progress), check, scan)
    near = check.near_duplicates != "ignore"
    copies = find_copies(_judged(found, check), files, scan_cache, near, progress=callbacks.comparing, reading=reading)
    return _catalog(source, found, grouping, copies, check, reading)


def preview_catalog(
    source: Source,
    group: str | None = None,
    scan_cache: Path | None = None,
    check: CheckConfig = SAFE,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Catalog:
    """Return the catalog as ``build_catalog`` would if every file with a valid header can be decoded; write nothing.

    Files that may have changed are hashed, and only their headers are read (pixels only of pictures of more than 8
    bits). A file is set aside if its header is invalid or if the scan cache knows that it cannot be decoded; duplicates
    are those that an earlier scan found. Arguments and errors are those of `build_catalog`; `progress` is called with
    (files done, files in total).
    """
    grouping = _grouping(source, group)
    files = _files(source)

    def scan(paths: Sequence[Path], reading: Reading, report: Callable[[int, int], None] | None) -> list[FileInfo]:
        return scan_headers(paths, ScanCache(scan_cache, reading), report, workers, reading)

    first = scan(files, _reading_before_scan(check), progress)
    found, reading = _with_bits(files, _with_peaks(files, first, check, workers), check, scan)
    near = check.near_duplicates != "ignore"
    copies = find_copies(_judged(found, check), files, scan_cache, near, decoding=False, reading=reading)
    return _catalog(source, found, grouping, copies, check, reading)


def known_contents(source: Source, scan_cache: Path, check: CheckConfig = SAFE) -> set[str]:
    """Return the content keys of the files that are unchanged since they were last read; read no file."""
    known = known_files(_files(source), ScanCache(scan_cache, _reading_before_scan(check)))
    reading = _reading(known, check)
    return {content_key(info.sha256, info.mode, reading) for info in known}


def _reading_before_scan(check: CheckConfig) -> Reading:
    """Return how files are read while the number of bits in use is unknown."""
    return Reading(check.bands or (), None, check.max_pixels)


def _reading(infos: Sequence[FileInfo], check: CheckConfig) -> Reading:
    """Return how files are read: pictures of more than 8 bits are scaled by ``check.bits``, or by the bits in use."""
    peaks = [info.peak for info in infos if info.peak is not None]
    bits = FULL if not peaks else bits_of(max(peaks)) if check.bits == "auto" else check.bits
    return replace(_reading_before_scan(check), bits=bits)


_Scan = Callable[[Sequence[Path], Reading, Callable[[int, int], None] | None], list[FileInfo]]


def _with_bits(
    files: Sequence[Path], found: Sequence[FileInfo], check: CheckConfig, scan: _Scan
) -> tuple[list[FileInfo], Reading]:
    """Scan pictures of more than 8 bits again, now scaled; return all results and how files are read."""
    reading, infos = _reading(found, check), list(found)
    deep = [number for number, info in enumerate(infos) if info.peak is not None]
    rescanned = scan([files[number] for number in deep], reading, None) if deep else ()
    for number, info in zip(deep, rescanned, strict=True):
        infos[number] = replace(info, peak=info.peak if info.peak is not None else infos[number].peak)
    return infos, reading


def _with_peaks(
    files: Sequence[Path], found: Sequence[FileInfo], check: CheckConfig, workers: int | None
) -> list[FileInfo]:
    """Decode pictures of more than 8 bits to learn their largest value; return all results."""
    infos = list(found)
    deep = [number for number, info in enumerate(infos) if is_deep(info.mode) and info.peak is None and not info.reason]
    if deep:
        paths, reading = [files[number] for number in deep], _reading_before_scan(check)
        decoded = scan_files(paths, ScanCache(None), None, workers, None, None, reading)
        for number, info in zip(deep, decoded, strict=True):
            infos[number] = info
    return infos


def _files(source: Source) -> list[Path]:
    return [source.roots[item.source] / item.path for item in source.items]


def _judged(infos: Sequence[FileInfo], check: CheckConfig) -> list[FileInfo]:
    """Clear the reason of truncated pictures that the check settings keep."""
    return [replace(info, reason=_reason(info, check)) if info.reason else info for info in infos]


def _reason(info: FileInfo, check: CheckConfig) -> str:
    """Return why a file is set aside, or ""; a truncated file is kept only if part of its picture was decoded."""
    kept = check.truncated == "keep" and info.reason == TRUNCATED and info.stats is not None
    return "" if kept else info.reason


def _catalog(
    source: Source,
    infos: Sequence[FileInfo],
    grouping: "_Grouping",
    copies: DuplicateGroups,
    check: CheckConfig,
    reading: Reading,
) -> Catalog:
    columns = _further_columns(source)
    rows = [
        *(
            _row(item, info, cluster, _reason(info, check), columns)
            for item, info, cluster in zip(source.items, infos, copies.cluster, strict=True)
        ),
        *(_ignored_row(path, reason, name, columns) for path, reason, name in source.ignored),
    ]
    rows.sort(key=lambda row: (row[11], row[1]))
    with any_text():
        images = pd.DataFrame(rows, columns=pd.Index([*COLUMNS, *(f"data_{column}" for column in columns)]))
    images["id"] = _ids(images["sha256"], images["path"])
    scenes = separate_scenes(images)
    likeness = within_clusters(copies.likeness, images) if scenes else copies.likeness
    if check.label_conflicts == "set_aside":
        set_conflicts_aside(images, likeness)
    if isinstance(grouping, re.Pattern):
        with any_text():
            images["group"] = _groups(images, grouping, columns)
    elif grouping is not None:
        images["group"] = images[f"data_{grouping}"]
    guessed = (*_report_bits(infos, check, reading), *_report_pages(source, infos), *_report_dark(source, infos))
    return Catalog(images, source.roots, source.classes, likeness, reading, guessed, scenes)


def _row(item: Item, info: FileInfo, cluster: str, reason: str, columns: Sequence[str]) -> tuple[Any, ...]:
    stats, further = info.stats, dict(item.more)
    return (
        ("", item.path, item.label, info.sha256, info.width, info.height, info.mode, "set_aside" if reason else "used")
        + (reason, item.group, item.given_split, item.source, info.bytes)
        + (_NO_HASHES if stats is None else (stats.pixels, f"{stats.hashes[0]:016x}"))
        + (cluster,)
        + (_NO_STATS if stats is None else (stats.brightness, stats.contrast, stats.sharpness, stats.colour))
        + (item.fold, "" if reason else _note(item.path, info), *(further.get(column, "") for column in columns))
    )


def _ignored_row(path: str, reason: str, source: str, columns: Sequence[str]) -> tuple[Any, ...]:
    known = ("", path, "", "", 0, 0, "", "ignored", reason, "", "", source, 0)
    return (*known, *_NO_HASHES, "", *_NO_STATS, "", "") + ("",) * len(columns)


_NO_HASHES, _NO_STATS = ("", ""), (math.nan,) * 4


def _report_bits(infos: Sequence[FileInfo], check: CheckConfig, reading: Reading) -> tuple[str, ...]:
    """Report the number of bits found in use in pictures of more than 8 bits."""
    peaks = [info.peak for info in infos if info.peak is not None]
    if not peaks or check.bits != "auto" or reading.bits == FULL:
        return ()
    white = 2 ** (reading.bits or FULL) - 1
    return (
        f"{len(peaks):,} images of more than 8 bits have no value above {max(peaks):,}: {reading.bits} bits count, so "
        f"{white:,} is white in all of them (--set check.bits={reading.bits} fixes that, --set check.bits={FULL} makes "
        f"{2**FULL - 1:,} white)",
    )


def _report_pages(source: Source, infos: Sequence[FileInfo]) -> tuple[str, ...]:
    """Report that only the first page is used, if at least half of the files have several pages or frames."""
    files = list(zip(source.items, infos, strict=True))
    # Further frames of a JPEG are previews and gain maps, which nobody means.
    stacks = [item.path for item, info in files if info.several and info.format != "JPEG" and not item.source]
    if not stacks or 2 * len(stacks) < sum(not item.source for item, _ in files):
        return ()
    root = source.roots[""]
    suffixes = {posixpath.splitext(path)[1].lower() for path in stacks}
    return (
        f"{len(stacks):,} files have several pages or frames, and the first alone is used (first {min(stacks)}); to "
        f"use all: {pages_as_png(root, suffixes)} and on {root}-pages: --set 'split.group=(.+)[.]page'",
    )


def _report_dark(source: Source, infos: Sequence[FileInfo]) -> tuple[str, ...]:
    """Report that pictures look black, if at least half of them do: 8-bit files may use only a few levels."""
    stats = [(item.path, info.stats) for item, info in zip(source.items, infos, strict=True) if not item.source]
    dark = [path for path, of in stats if of and of.brightness < _BLACK and of.contrast < _BLACK]
    if not dark or 2 * len(dark) < len(stats):
        return ()
    root = source.roots[""]
    suffixes = {posixpath.splitext(path)[1].lower() for path in dark}
    return (
        f"{len(dark):,} pictures are almost black, as where values use few of 8 bits (first {min(dark)}); to make the "
        f"largest value of all of them white: {scaled(root, suffixes)} and use {root}-scaled",
    )


_BLACK = 0.07
"""Brightness and contrast, 0 to 1, below which a picture counts as black: about 16 of 255 levels."""

SEVERAL = "only the first frame or page is used"
"""Note on an animation or a file of several pages."""

MISNAMED = "by its content"
"""End of the note on a file whose name says another format than its content."""

CUT = "truncated: a part of the picture may be missing"
"""Note on a truncated JPEG that is kept."""

_SUFFIXES = {
    ".jpg": "JPEG", ".jpeg": "JPEG", ".jpe": "JPEG", ".jfif": "JPEG", ".png": "PNG", ".apng": "PNG", ".webp": "WEBP",
    ".gif": "GIF", ".bmp": "BMP", ".dib": "BMP", ".tif": "TIFF", ".tiff": "TIFF", ".heic": "HEIC", ".avif": "AVIF",
    ".dcm": "DICOM",
}  # fmt: skip


def _note(path: str, info: FileInfo) -> str:
    misnamed = info.format and _SUFFIXES.get(posixpath.splitext(path)[1].lower(), info.format) != info.format
    notes = [f"{info.format} {MISNAMED}"] * bool(misnamed) + [SEVERAL] * info.several
    notes += [CUT] * bool(info.reason)
    return "; ".join(notes)


def keys_of(catalog: Catalog, ids: Sequence[str]) -> list[str]:
    """Return the cache keys of the images with these ids, see ``reading.content_key``."""
    return _keys(catalog, rows_of(catalog, ids))


def used_keys(catalog: Catalog) -> list[str]:
    """Return the cache keys of all used images, see ``keys_of``."""
    return _keys(catalog, catalog.images[catalog.images["status"] == "used"])


def _keys(catalog: Catalog, rows: pd.DataFrame) -> list[str]:
    return [content_key(sha, mode, catalog.reading) for sha, mode in zip(rows["sha256"], rows["mode"], strict=True)]


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


_Grouping = re.Pattern[str] | str | None
"""Source of the groups: a regular expression, a further column, or None (then a column named group, if any)."""


def _further_columns(source: Source) -> list[str]:
    return list(dict.fromkeys(column for item in source.items for column, _ in item.more))


def _grouping(source: Source, group: str | None) -> _Grouping:
    """Parse ``split.group`` before any file is read, so that an error is reported at once."""
    given = any(item.group for item in source.items)
    if group is None or (given and group == "group"):
        return None
    if given:
        raise UserError(
            f"split.group: {group}: the data has a column group already",
            "one way to say which images belong together",
            "take split.group out of the study, or the column out of the data",
        )
    if group in _further_columns(source):
        return group
    try:
        return re.compile(group)
    except re.error as error:
        raise UserError(
            f"split.group: {group}: {error}", "a regular expression, such as patient(\\d+)", "correct the expression"
        ) from error


def _groups(images: pd.DataFrame, pattern: re.Pattern[str], columns: Sequence[str]) -> list[str]:
    """Return the group of each used image; refuse a path without a match, since an overlooked group is a leak."""
    used = images["status"] == "used"
    matches = [pattern.search(path) if take else None for path, take in zip(images["path"], used, strict=True)]
    missed = [path for path, take, match in zip(images["path"], used, matches, strict=True) if take and match is None]
    if missed:
        raise UserError(
            f"split.group: {pattern.pattern}: {len(missed)} of {used.sum()} paths do not match, first {missed[0]}",
            "an expression that matches the path of every image"
            + (f", or a column of the data: {', '.join(columns)}" if columns else ""),
            "widen the expression; .*(PART)| leaves images without PART in no group",
        )
    return ["" if match is None else (match.group(1 if pattern.groups else 0) or "") for match in matches]
