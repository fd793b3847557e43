"""The catalog: one row per file seen, each used, set aside or ignored with its reason."""

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
from unfreeze.data.duplicates import SAME, DuplicateGroups, Progress, clusters, find_copies
from unfreeze.data.formats.reading import FULL, USUAL, Reading, bits_of, content_key, is_deep
from unfreeze.data.scan import OnPicture, Prepare, glance_at_all, look_at_all, looks_known
from unfreeze.data.scan_cache import FileInfo, ScanCache
from unfreeze.data.scenes import LEAST, pictures, set_scenes_apart, within
from unfreeze.data.sources.source import Item, Source
from unfreeze.data.unusable import TRUNCATED, pages_as_png, scaled
from unfreeze.errors import UserError
from unfreeze.storage.records import any_text

COLUMNS = (
    "id", "path", "label", "sha256", "width", "height", "mode", "status", "reason", "group", "given_split", "source",
    "bytes", "pixels", "phash", "cluster", "brightness", "contrast", "sharpness", "colour", "given_fold", "note",
)  # fmt: skip


SAFE = CheckConfig()
"""What becomes of copies and conflicts where nothing is said."""


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
            `data.likeness.Likeness`, NaN where nothing was decoded.
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
    progress: Callable[[int, int], None] | None = None,
    workers: int | None = None,
    looks: Path | None = None,
    on_picture: OnPicture | None = None,
    prepare: Prepare | None = None,
    check: CheckConfig = SAFE,
    comparing: Progress | None = None,
) -> Catalog:
    """Hash each file of a source that may have changed; wholly decode each content that is not known to be fit for use.

    Args:
        source: the files.
        group: a further column of the data, which names the group that an image belongs to; or a regular expression
            searched in the path: its first group, or the whole match where it has none, does.
        progress: called with (files done, files in all) after each file, in this thread.
        workers: threads, by default one per core; the result does not depend on it.
        looks: folder of the cache in which it is remembered which contents are fit for use, `looks/`; what was
            decoded once is only hashed, and not even that where its file is as it was. None: every content is decoded.
        on_picture: called with (key, see ``reading.content_key``, upright 8-bit RGB picture) once for each content that
            was decoded and is fit for use, in the thread that decoded it (never this one), in one at a time; what it
            raises ends the whole.
        prepare: called with each such picture first, in several threads at once; on_picture then gets what it returns.
        check: how files are read, and what becomes of copies and of pictures with two labels.
        comparing: called with (pairs compared, pairs in all) while pictures that look alike are compared.

    Raises:
        UserError: `group` is neither a column nor a regular expression, the data names groups already, or a used
            image's path does not match; the folder of looks cannot be written to.
    """
    grouping = _grouping(source, group)
    files = _files(source)

    def look(paths: Sequence[Path], reading: Reading, report: Callable[[int, int], None] | None) -> list[FileInfo]:
        remembered = ScanCache(looks, reading)
        return look_at_all(paths, remembered, report, workers, on_picture, prepare, reading)

    found, reading = _with_bits(files, look(files, _asked(check), progress), check, look)
    near = check.near_duplicates != "ignore"
    copies = find_copies(_judged(found, check), files, looks, near, progress=comparing, reading=reading)
    return _catalog(source, found, grouping, copies, check, reading)


def glance(
    source: Source,
    group: str | None = None,
    progress: Callable[[int, int], None] | None = None,
    workers: int | None = None,
    looks: Path | None = None,
    check: CheckConfig = SAFE,
) -> Catalog:
    """Hash each file of a source that may have changed, and read headers only, but for pictures of more than 8 bits.

    This is the catalog as it will be if what has a header is whole.

    A file is set aside if its header is bad, or if it is known from `looks` to be unfit for use; copies are those that
    an earlier look found. Nothing is written. Arguments and errors are those of `build_catalog`.
    """
    grouping = _grouping(source, group)
    files = _files(source)

    def look(paths: Sequence[Path], reading: Reading, report: Callable[[int, int], None] | None) -> list[FileInfo]:
        return glance_at_all(paths, ScanCache(looks, reading), report, workers, reading)

    first = look(files, _asked(check), progress)
    found, reading = _with_bits(files, _with_peaks(files, first, check, workers), check, look)
    near = check.near_duplicates != "ignore"
    copies = find_copies(_judged(found, check), files, looks, near, decoding=False, reading=reading)
    return _catalog(source, found, grouping, copies, check, reading)


def known_contents(source: Source, looks: Path, check: CheckConfig = SAFE) -> set[str]:
    """Return the keys of the contents of those files that have not changed since they were read; none is read now."""
    known = looks_known(_files(source), ScanCache(looks, _asked(check)))
    reading = _told(known, check)
    return {content_key(look.sha256, look.mode, reading) for look in known}


def _asked(check: CheckConfig) -> Reading:
    """Return how files are read before it is known how many bits they use."""
    return Reading(check.bands or (), None, check.max_pixels)


def _told(looks: Sequence[FileInfo], check: CheckConfig) -> Reading:
    """Return how files are read: pictures of more than 8 bits by those bits that all of them use, or that are given."""
    peaks = [look.peak for look in looks if look.peak is not None]
    bits = FULL if not peaks else bits_of(max(peaks)) if check.bits == "auto" else check.bits
    return replace(_asked(check), bits=bits)


_LookAt = Callable[[Sequence[Path], Reading, Callable[[int, int], None] | None], list[FileInfo]]


def _with_bits(
    files: Sequence[Path], found: Sequence[FileInfo], check: CheckConfig, look: _LookAt
) -> tuple[list[FileInfo], Reading]:
    """Return the looks with those at pictures of more than 8 bits taken anew, scaled, and how files are read."""
    reading, looks = _told(found, check), list(found)
    deep = [number for number, one in enumerate(looks) if one.peak is not None]
    for number, again in zip(
        deep, look([files[number] for number in deep], reading, None) if deep else (), strict=True
    ):
        looks[number] = replace(again, peak=again.peak if again.peak is not None else looks[number].peak)
    return looks, reading


def _with_peaks(
    files: Sequence[Path], found: Sequence[FileInfo], check: CheckConfig, workers: int | None
) -> list[FileInfo]:
    """Return looks at headers with those at pictures of more than 8 bits decoded, so that their bits are known."""
    looks = list(found)
    deep = [number for number, one in enumerate(looks) if is_deep(one.mode) and one.peak is None and not one.reason]
    if deep:
        reading = _asked(check)
        paths = [files[number] for number in deep]
        for number, one in zip(
            deep, look_at_all(paths, ScanCache(None), None, workers, None, None, reading), strict=True
        ):
            looks[number] = one
    return looks


def _files(source: Source) -> list[Path]:
    return [source.roots[item.source] / item.path for item in source.items]


def _judged(looks: Sequence[FileInfo], check: CheckConfig) -> list[FileInfo]:
    """Return the looks, with those at truncated pictures fit for use where these are kept."""
    return [replace(look, reason=_reason(look, check)) if look.reason else look for look in looks]


def _reason(look: FileInfo, check: CheckConfig) -> str:
    """Return why a file is set aside, "" if it is not; of a truncated one that is kept there must be a picture."""
    kept = check.truncated == "keep" and look.reason == TRUNCATED and look.likeness is not None
    return "" if kept else look.reason


def _catalog(
    source: Source,
    looks: Sequence[FileInfo],
    grouping: "_Grouping",
    copies: DuplicateGroups,
    check: CheckConfig,
    reading: Reading,
) -> Catalog:
    rows = []
    more = _further_columns(source)
    for item, look, cluster in zip(source.items, looks, copies.cluster, strict=True):
        reason, seen = _reason(look, check), look.likeness
        status = "set_aside" if reason else "used"
        rows.append(
            ("", item.path, item.label, look.sha256, look.width, look.height, look.mode, status, reason)
            + (item.group, item.given_split, item.source, look.bytes)
            + (_NOT_SEEN if seen is None else (seen.pixels, f"{seen.hashes[0]:016x}"))
            + (cluster,)
            + (_NOT_MEASURED if seen is None else (seen.brightness, seen.contrast, seen.sharpness, seen.colour))
            + (item.fold, "" if reason else _note(item.path, look), *_values(item, more))
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
        _set_conflicts_aside(images, likeness)
    if isinstance(grouping, re.Pattern):
        with any_text():
            images["group"] = _groups(images, grouping, more)
    elif grouping is not None:
        images["group"] = images[f"data_{grouping}"]
    guessed = (*_guessed(looks, check, reading), *_paged(source, looks), *_dark(source, looks))
    return Catalog(images, source.roots, source.classes, likeness, reading, guessed, scenes)


def _guessed(looks: Sequence[FileInfo], check: CheckConfig, reading: Reading) -> tuple[str, ...]:
    """Say which bits were found to count in pictures of more than 8."""
    peaks = [look.peak for look in looks if look.peak is not None]
    if not peaks or check.bits != "auto" or reading.bits == FULL:
        return ()
    white = 2 ** (reading.bits or FULL) - 1
    return (
        f"{len(peaks):,} images of more than 8 bits have no value above {max(peaks):,}: {reading.bits} bits count, so "
        f"{white:,} is white in all of them (--set check.bits={reading.bits} fixes that, --set check.bits={FULL} makes "
        f"{2**FULL - 1:,} white)",
    )


def _paged(source: Source, looks: Sequence[FileInfo]) -> tuple[str, ...]:
    """Say that files are stacks or films, of which the first page is used, where half of them or more are."""
    files = list(zip(source.items, looks, strict=True))
    # Beside a JPEG's photograph lie previews and gain maps, and nobody means them.
    stacks = [item.path for item, look in files if look.several and look.format != "JPEG" and not item.source]
    if not stacks or 2 * len(stacks) < sum(not item.source for item, _ in files):
        return ()
    root = source.roots[""]
    suffixes = {posixpath.splitext(path)[1].lower() for path in stacks}
    return (
        f"{len(stacks):,} files have several pages or frames, and the first alone is used (first {min(stacks)}); to "
        f"use all: {pages_as_png(root, suffixes)} and on {root}-pages: --set 'split.group=(.+)[.]page'",
    )


def _dark(source: Source, looks: Sequence[FileInfo]) -> tuple[str, ...]:
    """Say that pictures are black to the eye, where half of them or more are, as with few levels in files of 8 bits."""
    seen = [(item.path, look.likeness) for item, look in zip(source.items, looks, strict=True) if not item.source]
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


def _note(path: str, look: FileInfo) -> str:
    misnamed = look.format and _SUFFIXES.get(posixpath.splitext(path)[1].lower(), look.format) != look.format
    notes = [f"{look.format} {MISNAMED}"] * bool(misnamed) + [SEVERAL] * look.several
    notes += [CUT] * bool(look.reason)
    return "; ".join(notes)


def _values(item: Item, columns: Sequence[str]) -> list[str]:
    """Return what the data says of an item in its further columns."""
    given = dict(item.more)
    return [given.get(column, "") for column in columns]


_NOT_SEEN, _NOT_MEASURED = ("", ""), (math.nan,) * 4


def _set_conflicts_aside(images: pd.DataFrame, likeness: Mapping[tuple[str, str], float]) -> None:
    """Set aside, in place, every image of which a copy has another label: which of them is right nobody knows."""
    for rows in conflicts(images, likeness):
        images.loc[rows, "status"] = "set_aside"
        images.loc[rows, "reason"] = f"{CONFLICT}: {' and '.join(sorted(set(images.loc[rows, 'label'])))}"


def conflicts(images: pd.DataFrame, likeness: Mapping[tuple[str, str], float]) -> list[list[int]]:
    """Return the positions of images that show one picture under several labels, picture by picture.

    One picture are images with the same pixels, or two that were compared and are alike by ``duplicates.SAME``. Those
    that are less alike, or only by others between them, may well be photographs of two things. So may all that have not
    the same pixels, see ``likeness_without_labels``.

    Args:
        images: of a catalog, indexed 0..n-1.
        likeness: of near duplicates, see ``Catalog``.
    """
    return _conflicts(images, {} if likeness_without_labels(images, likeness) else likeness)


def likeness_without_labels(images: pd.DataFrame, likeness: Mapping[tuple[str, str], float]) -> list[int]:
    """Return the positions of images that are like one with another label, if they are most of all, else none.

    Nobody labels most of them wrongly: then labels say what likeness does not see, such as a small defect in pictures
    of some fixed cameras, or which way a picture was turned.
    """
    disputed = sorted(row for rows in _conflicts(images, likeness) for row in rows)
    seen = (images["status"] != "ignored").sum()
    return disputed if len(disputed) >= LEAST and 2 * len(disputed) > seen else []


def _conflicts(images: pd.DataFrame, likeness: Mapping[tuple[str, str], float]) -> list[list[int]]:
    copied = images[(images["cluster"] != "") & (images["status"] != "ignored")]
    shown = pictures(copied)
    rows_of: dict[str, list[int]] = {}
    for row, picture in zip(copied.index, shown, strict=True):
        rows_of.setdefault(picture, []).append(row)
    label_of = dict(zip(copied.index, copied["label"], strict=True))
    picture_of = dict(zip(copied["sha256"], shown, strict=True))
    places = {picture: place for place, picture in enumerate(rows_of)}
    labels = [{label_of[row] for row in rows} for rows in rows_of.values()]
    pairs = [(place, place) for place, names in enumerate(labels) if len(names) > 1]
    for (one, other), value in likeness.items():
        if value >= SAME and one in picture_of and other in picture_of:
            first, second = places[picture_of[one]], places[picture_of[other]]
            if len(labels[first] | labels[second]) > 1:
                pairs.append((first, second))
    disputed = sorted({place for pair in pairs for place in pair})
    joined = clusters(len(labels), pairs)
    every = list(rows_of.values())
    found: dict[int, list[int]] = {}
    for place in disputed:
        found.setdefault(joined[place], []).extend(every[place])
    return sorted(sorted(rows) for rows in found.values())


CONFLICT = "copies have different labels"
"""Begins the reason why an image with a label conflict is set aside."""


def keys_of(catalog: Catalog, ids: Sequence[str]) -> list[str]:
    """Return what names the pictures of images with these ids in every cache, see ``reading.content_key``."""
    return _keys(catalog, rows_of(catalog, ids))


def used_keys(catalog: Catalog) -> list[str]:
    """Return what names the pictures of all images that are used, see ``keys_of``."""
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
"""What names the groups: an expression, a further column of the data, or neither (then a column group may)."""


def _further_columns(source: Source) -> list[str]:
    return list(dict.fromkeys(column for item in source.items for column, _ in item.more))


def _grouping(source: Source, group: str | None) -> _Grouping:
    """Return what ``split.group`` asks for; told before anything is read."""
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
