"""Build the catalog: one row per file, which is used, set aside or ignored, with the reason."""

import hashlib
import math
import posixpath
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd

from unfreeze.config.schema import CheckConfig
from unfreeze.data.conflicts import set_conflicts_aside
from unfreeze.data.duplicates import DuplicateGroups, find_copies
from unfreeze.data.formats.reading import FULL, USUAL, Reading, bits_of, content_key, is_deep
from unfreeze.data.scan import QUIET, Callbacks, known_files, scan_files, scan_headers
from unfreeze.data.scan_cache import FileInfo, ScanCache
from unfreeze.data.scenes import set_scenes_apart, within
from unfreeze.data.sources.source import Item, Source
from unfreeze.data.unusable import TRUNCATED, pages_as_png, scaled
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
        images: a row per file, columns `COLUMNS`, indexed 0..n-1, sorted by (source, path). `id` is the first 16 hex
            digits of the content's sha256, with "-2", "-3" for further identical files in the order of the rows, and
            "x" and the path's sha256 where the content was not read. `width` and `height` are in pixels, upright, 0
            where unknown; `mode` is that of the stored pixels, see ``decode.mode_of``; `status` is used, set_aside or
            ignored; text is "" where there is none. `bytes` is the file's size; images of one `cluster` are copies of
            each other; `given_fold` is the fold that the data says; `note` says what is odd about a file that is used,
            see ``SEVERAL``, ``MISNAMED`` and ``CUT``; `data_NAME` are further columns of the data; the rest is that of
            `data.image_hash.ImageStats`, NaN where nothing was decoded.
        roots: folder by source.
        classes: sorted names.
        likeness: of near duplicates, by the sha256 of both, the smaller one first.
        reading: how files were read.
        guessed: sentences on how pictures were read where they do not say it themselves, each with the setting that
            says otherwise.
        scenes: positions in `images` of those that are alike and yet no copies, scene by scene, see ``data.scenes``.
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
    looks: Path | None = None,
    check: CheckConfig = SAFE,
    workers: int | None = None,
    callbacks: Callbacks = QUIET,
) -> Catalog:
    """Hash the files of a source and decode every content that is not known yet.

    Args:
        source: the files.
        group: a further column of the data, which names the group of each image; or a regular expression searched in
            the path: its first group, or the whole match where it has none, names the group.
        looks: folder of the scan cache, `looks/`. A content that was decoded before is only hashed, and a file that has
            not changed is not even read. None: every content is decoded.
        check: how files are read, and what happens to copies and to pictures with two labels.
        workers: threads, by default one per core; the result does not depend on it.
        callbacks: called while files are read and compared.

    Raises:
        UserError: `group` is neither a column nor a regular expression, the data names groups already, or the path of a
            used image does not match; the scan cache cannot be written to.
    """
    grouping = _grouping(source, group)
    files = _files(source)

    def scan(paths: Sequence[Path], reading: Reading, report: Callable[[int, int], None] | None) -> list[FileInfo]:
        cache = ScanCache(looks, reading)
        return scan_files(paths, cache, report, workers, callbacks.on_picture, callbacks.prepare, reading)

    found, reading = _with_bits(files, scan(files, _reading_before_scan(check), callbacks.progress), check, scan)
    near = check.near_duplicates != "ignore"
    copies = find_copies(_judged(found, check), files, looks, near, progress=callbacks.comparing, reading=reading)
    return _catalog(source, found, grouping, copies, check, reading)


def glance(
    source: Source,
    group: str | None = None,
    looks: Path | None = None,
    check: CheckConfig = SAFE,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Catalog:
    """Return the catalog as it will be if every file with a valid header is whole.

    Files that may have changed are hashed; only headers are read, except of pictures of more than 8 bits. A file is set
    aside if its header is bad, or if the scan cache says that it cannot be decoded; copies are those that an earlier
    scan found. Nothing is written. Arguments and errors are those of `build_catalog`; `progress` is called with (files
    done, files in all).
    """
    grouping = _grouping(source, group)
    files = _files(source)

    def scan(paths: Sequence[Path], reading: Reading, report: Callable[[int, int], None] | None) -> list[FileInfo]:
        return scan_headers(paths, ScanCache(looks, reading), report, workers, reading)

    first = scan(files, _reading_before_scan(check), progress)
    found, reading = _with_bits(files, _with_peaks(files, first, check, workers), check, scan)
    near = check.near_duplicates != "ignore"
    copies = find_copies(_judged(found, check), files, looks, near, decoding=False, reading=reading)
    return _catalog(source, found, grouping, copies, check, reading)


def known_contents(source: Source, looks: Path, check: CheckConfig = SAFE) -> set[str]:
    """Return the content keys of the files that have not changed since they were read; read no file."""
    known = known_files(_files(source), ScanCache(looks, _reading_before_scan(check)))
    reading = _reading(known, check)
    return {content_key(info.sha256, info.mode, reading) for info in known}


def _reading_before_scan(check: CheckConfig) -> Reading:
    """Return how files are read before the number of bits that they use is known."""
    return Reading(check.bands or (), None, check.max_pixels)


def _reading(infos: Sequence[FileInfo], check: CheckConfig) -> Reading:
    """Return how files are read; pictures of more than 8 bits are scaled by the bits in use, or by those given."""
    peaks = [info.peak for info in infos if info.peak is not None]
    bits = FULL if not peaks else bits_of(max(peaks)) if check.bits == "auto" else check.bits
    return replace(_reading_before_scan(check), bits=bits)


_Scan = Callable[[Sequence[Path], Reading, Callable[[int, int], None] | None], list[FileInfo]]


def _with_bits(
    files: Sequence[Path], found: Sequence[FileInfo], check: CheckConfig, scan: _Scan
) -> tuple[list[FileInfo], Reading]:
    """Scan pictures of more than 8 bits again, now scaled; return all results and how files are read."""
    reading, infos = _reading(found, check), list(found)
    deep = [number for number, one in enumerate(infos) if one.peak is not None]
    for number, again in zip(
        deep, scan([files[number] for number in deep], reading, None) if deep else (), strict=True
    ):
        infos[number] = replace(again, peak=again.peak if again.peak is not None else infos[number].peak)
    return infos, reading


def _with_peaks(
    files: Sequence[Path], found: Sequence[FileInfo], check: CheckConfig, workers: int | None
) -> list[FileInfo]:
    """Decode pictures of more than 8 bits, so that their bits are known; return all results."""
    infos = list(found)
    deep = [number for number, one in enumerate(infos) if is_deep(one.mode) and one.peak is None and not one.reason]
    if deep:
        reading = _reading_before_scan(check)
        paths = [files[number] for number in deep]
        for number, one in zip(
            deep, scan_files(paths, ScanCache(None), None, workers, None, None, reading), strict=True
        ):
            infos[number] = one
    return infos


def _files(source: Source) -> list[Path]:
    return [source.roots[item.source] / item.path for item in source.items]


def _judged(infos: Sequence[FileInfo], check: CheckConfig) -> list[FileInfo]:
    """Clear the reason of truncated pictures where the check settings keep them."""
    return [replace(info, reason=_reason(info, check)) if info.reason else info for info in infos]


def _reason(info: FileInfo, check: CheckConfig) -> str:
    """Return why a file is set aside, "" if it is not; a truncated file is kept only if it has a picture."""
    kept = check.truncated == "keep" and info.reason == TRUNCATED and info.likeness is not None
    return "" if kept else info.reason


def _catalog(
    source: Source,
    infos: Sequence[FileInfo],
    grouping: "_Grouping",
    copies: DuplicateGroups,
    check: CheckConfig,
    reading: Reading,
) -> Catalog:
    rows = []
    more = _further_columns(source)
    for item, info, cluster in zip(source.items, infos, copies.cluster, strict=True):
        reason, seen = _reason(info, check), info.likeness
        status = "set_aside" if reason else "used"
        rows.append(
            ("", item.path, item.label, info.sha256, info.width, info.height, info.mode, status, reason)
            + (item.group, item.given_split, item.source, info.bytes)
            + (_NOT_SEEN if seen is None else (seen.pixels, f"{seen.hashes[0]:016x}"))
            + (cluster,)
            + (_NOT_MEASURED if seen is None else (seen.brightness, seen.contrast, seen.sharpness, seen.colour))
            + (item.fold, "" if reason else _note(item.path, info), *_values(item, more))
        )
    rows += [
        ("", path, "", "", 0, 0, "", "ignored", reason, "", "", name, 0, *_NOT_SEEN, "", *_NOT_MEASURED, "", "")
        + ("",) * len(more)
        for path, reason, name in source.ignored
    ]
    rows.sort(key=lambda row: (row[11], row[1]))
    with any_text():
        images = pd.DataFrame(rows, columns=pd.Index([*COLUMNS, *(f"data_{column}" for column in more)]))
    images["id"] = _ids(images["sha256"], images["path"])
    scenes = set_scenes_apart(images)
    likeness = within(copies.likeness, images) if scenes else copies.likeness
    if check.label_conflicts == "set_aside":
        set_conflicts_aside(images, likeness)
    if isinstance(grouping, re.Pattern):
        with any_text():
            images["group"] = _groups(images, grouping, more)
    elif grouping is not None:
        images["group"] = images[f"data_{grouping}"]
    guessed = (*_guessed(infos, check, reading), *_paged(source, infos), *_dark(source, infos))
    return Catalog(images, source.roots, source.classes, likeness, reading, guessed, scenes)


def _guessed(infos: Sequence[FileInfo], check: CheckConfig, reading: Reading) -> tuple[str, ...]:
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


def _paged(source: Source, infos: Sequence[FileInfo]) -> tuple[str, ...]:
    """Report that only the first page is used, if at least half of the files have several pages or frames."""
    files = list(zip(source.items, infos, strict=True))
    # Beside a JPEG's photograph lie previews and gain maps, and nobody means them.
    stacks = [item.path for item, info in files if info.several and info.format != "JPEG" and not item.source]
    if not stacks or 2 * len(stacks) < sum(not item.source for item, _ in files):
        return ()
    root = source.roots[""]
    suffixes = {posixpath.splitext(path)[1].lower() for path in stacks}
    return (
        f"{len(stacks):,} files have several pages or frames, and the first alone is used (first {min(stacks)}); to "
        f"use all: {pages_as_png(root, suffixes)} and on {root}-pages: --set 'split.group=(.+)[.]page'",
    )


def _dark(source: Source, infos: Sequence[FileInfo]) -> tuple[str, ...]:
    """Report that pictures look black, if at least half of them do; 8-bit files may use a few levels only."""
    seen = [(item.path, info.likeness) for item, info in zip(source.items, infos, strict=True) if not item.source]
    dark = [path for path, one in seen if one and one.brightness < _BLACK and one.contrast < _BLACK]
    if not dark or 2 * len(dark) < len(seen):
        return ()
    root = source.roots[""]
    suffixes = {posixpath.splitext(path)[1].lower() for path in dark}
    return (
        f"{len(dark):,} pictures are almost black, as where values use few of 8 bits (first {min(dark)}); to make the "
        f"largest value of all of them white: {scaled(root, suffixes)} and use {root}-scaled",
    )


_BLACK = 0.07
"""Brightness and contrast, of 1, below which a picture is black to the eye: 16 of 255 levels, or so."""

SEVERAL = "only the first frame or page is used"
MISNAMED = "by its content"

CUT = "truncated: a part of the picture may be missing"
"""What a note says: of an animation or of several pages, after the format of a file whose name says another, and of a
truncated JPEG that is kept."""

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


def _values(item: Item, columns: Sequence[str]) -> list[str]:
    """Return the values of the further columns for an item."""
    given = dict(item.more)
    return [given.get(column, "") for column in columns]


_NOT_SEEN, _NOT_MEASURED = ("", ""), (math.nan,) * 4


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
    """Parse ``split.group``, so that an error is reported before any file is read."""
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
    """Name the group of each used image; a path without a match is refused, since a group overlooked is a leak."""
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
