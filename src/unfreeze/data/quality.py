"""Find problems in the images of a catalog and sort them by severity; no file is read and nothing changed."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from unfreeze.config.schema import SplitConfig
from unfreeze.data.catalog import CUT, MISNAMED, SEVERAL, Catalog
from unfreeze.data.lookalikes import alike_across_labels, find_conflicts, find_families, suggest_group
from unfreeze.data.split import LEFT_OUT, TEST, TRAIN, VALIDATION, given_pools, given_use
from unfreeze.data.unusable import CONFLICT, Why, fixes_for, why, without_fix
from unfreeze.errors import UserError
from unfreeze.metrics import IMBALANCED, imbalance
from unfreeze.text import plural

Kind = Literal[
    "unreadable", "exact_duplicate", "near_duplicate", "label_conflict", "small_class", "imbalance", "odd_size",
    "outlier", "split_leak",
]  # fmt: skip

Severity = Literal["error", "warning", "note"]
_SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")

_KINDS: tuple[Kind, ...] = (
    "unreadable", "label_conflict", "split_leak", "small_class", "exact_duplicate", "near_duplicate", "imbalance",
    "odd_size", "outlier",
)  # fmt: skip

FEW = 10
"""A class with fewer used images is called small."""

VERY_IMBALANCED = 10
"""Imbalance above which it is a warning; from ``IMBALANCED`` on it is a note."""

LONG = 4
"""Aspect ratio from which a picture has an odd size, since a crop keeps only its middle."""

TINY = 32
"""Pixels of the shorter side below which a picture has an odd size."""

GREY = 0.003
"""Colour (``ImageStats.colour``) below which a picture is grey; rounding alone gives up to 0.002, camera noise more."""

FLAT = 0.02
"""Contrast below which a picture is blank."""

FENCES = 3.0
"""Interquartile ranges beyond the quartiles from which a value is an outlier: Tukey's outer fence."""

_WHY: dict[Why, str] = {
    "damage": "cannot be decoded whole", "form": "not read as they are", "limit": "over a limit",
}  # fmt: skip

REASONS = 4
"""Number of reasons counted in the note on unreadable files; the page and the catalog list every file."""

_MIN_FOR_OUTLIERS = 20  # images


@dataclass(frozen=True)
class Finding:
    """A problem in the data that a person should review.

    Attributes:
        kind, severity: what is wrong, and how bad it is.
        rows: row positions of the images concerned in ``catalog.images``; for duplicates all of their group.
        note: one sentence without a full stop.
        measure: sorts findings of one kind, the largest first.
        warned: whether a run prints the note as a warning.
    """

    kind: Kind
    severity: Severity
    rows: tuple[int, ...]
    note: str
    measure: float = 0.0
    warned: bool = False


AS_GIVEN = SplitConfig()
"""Default split settings for judging the splits that the data gives."""


def findings(
    catalog: Catalog,
    image_size: int | None = None,
    folds: bool = True,
    split: SplitConfig = AS_GIVEN,
    earlier: Mapping[str, str] | None = None,
) -> list[Finding]:
    """Return the problems in a catalog, the worst first.

    Args:
        catalog: the images.
        image_size: input size of the study in pixels; smaller pictures are a finding. None: only tiny ones are.
        folds: whether the folds that the data names are used, so that copies in two of them are a leak.
        split: what the splits that the data gives are used for.
        earlier: see ``split.given_pools``.
    """
    images = _images(catalog, folds, split, earlier)
    used = images[images["status"] == "used"]
    found = [
        *_unreadable(images),
        *_alike(images, catalog),
        *_duplicates(images, catalog),
        *_classes(used, catalog.classes, split),
        *_sizes(used, image_size),
        *_outliers(used),
        *_noted(used),
    ]
    return worst_first(found)


def _images(catalog: Catalog, folds: bool, split: SplitConfig, earlier: Mapping[str, str] | None) -> pd.DataFrame:
    """Return the images with a column ``pool``: what the data's own split makes of each used image of the main data."""
    images = catalog.images.reset_index(drop=True)
    main = (images["status"] == "used") & (images["source"] == "")
    images["pool"] = ""
    images.loc[main, "pool"] = given_pools(images[main], split, earlier)
    return images if folds else images.assign(given_fold="")


def worst_first(found: Sequence[Finding]) -> list[Finding]:
    """Sort findings by severity, kind, measure and number of images."""
    return sorted(
        found,
        key=lambda finding: (
            _SEVERITIES.index(finding.severity),
            _KINDS.index(finding.kind),
            -finding.measure,
            -len(finding.rows),
            finding.rows,
        ),
    )


def refuse_losses(catalog: Catalog, most: float) -> None:
    """Stop a run if too many files are set aside or a class has no usable file.

    Args:
        catalog: the images.
        most: largest share of the files that may be set aside.

    Raises:
        UserError: more are set aside, or a class has no usable file.
    """
    images = catalog.images[catalog.images["status"] != "ignored"]
    aside = images[images["status"] == "set_aside"]
    main = images[images["source"] == ""]
    counts = main["label"].value_counts()
    usable = set(main.loc[main["status"] == "used", "label"])
    lost = [f"{label} (all {counts[label]})" for label in sorted(set(main["label"]) - usable)]
    if len(aside) <= most * len(images) and not lost:
        return
    reasons = Counter(aside["reason"]).most_common(3)
    counted = ", ".join(f"{count} {without_fix(reason)}" for reason, count in reasons)
    every = len(aside) == len(images)
    lost_classes = f"; classes without a usable file: {', '.join(lost)}" if lost and not every else ""
    share = math.ceil(100 * len(aside) / max(1, len(images))) / 100
    more = "" if every else "; 'unfreeze check DATA' lists them all"  # with no usable file it has nothing to show
    anyway = "" if lost or share >= 1 else f"; to run without these files: --set check.max_set_aside={share}"
    raise UserError(
        f"{'all' if every else f'{len(aside)} of'} {len(images)} files are set aside ({counted}){lost_classes}",
        f"at most {most:.0%} of the files, and no whole class",
        f"{fixes_for([reason for reason, _ in reasons])}{more}{anyway}",
    )


def warnings_of(catalog: Catalog, found: Sequence[Finding]) -> list[str]:
    """Return the warnings that a run prints about its data.

    They name images that look alike but are not copies, label conflicts, and copies in two given splits (or folds).

    Args:
        catalog: the images.
        found: their findings, the worst first.
    """
    warnings = [finding.note for finding in found if finding.warned]
    conflicts = [finding for finding in found if finding.kind == "label_conflict"]
    leaks = [finding for finding in found if finding.kind == "split_leak" and finding.severity == "error"]
    if conflicts:
        rows = [row for finding in conflicts for row in finding.rows]
        aside = int((catalog.images["status"].iloc[rows] == "set_aside").sum())
        outcome = {0: "kept", len(rows): "set aside"}.get(aside, f"{aside} of them set aside")
        first, second = path_of(catalog, rows[0]), path_of(catalog, rows[1])
        setting = "keep uses them" if aside else "set_aside leaves them out"
        warnings.append(
            f"{_pictures(conflicts)} copies with different labels, {len(rows)} images, {outcome}, "
            f"first {first} and {second} (--set check.label_conflicts={setting})"
        )
    if leaks:
        first, second = (path_of(catalog, row) for row in leaks[0].rows[:2])
        warnings.append(
            f"{_pictures(leaks)} copies in two splits that the data gives, so test scores are optimistic; "
            f"first {first} and {second}"
        )
    return warnings


def _pictures(found: Sequence[Finding]) -> str:
    return "1 picture has" if len(found) == 1 else f"{len(found):,} pictures have"


def path_of(catalog: Catalog, row: int) -> str:
    """Return an image's path as findings name it: relative to its folder, with the name of a further test set in front.

    Bytes that are not UTF-8 are written as \\xNN.
    """
    source, path = catalog.images["source"].iloc[row], _readable(str(catalog.images["path"].iloc[row]))
    return f"{source}:{path}" if source else path


def _readable(name: str) -> str:
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _unreadable(images: pd.DataFrame) -> list[Finding]:
    rows = images[(images["status"] == "set_aside") & ~images["reason"].str.startswith(CONFLICT)]
    if rows.empty:
        return []
    found = []
    kinds = rows["reason"].map(why)
    for kind, words in _WHY.items():
        if not (of_kind := rows[kinds == kind]).empty:
            reasons = Counter(of_kind["reason"]).most_common()
            counted = [f"{count} {reason}" for reason, count in reasons[:REASONS]]
            if rest := sum(count for _, count in reasons[REASONS:]):
                counted.append(f"{rest} for other reasons")
            note = f"{words}: {(', ' if kind == 'damage' else '; ').join(counted)}"
            found.append(Finding("unreadable", "warning", tuple(of_kind.index), note))
    return found


def _alike(images: pd.DataFrame, catalog: Catalog) -> list[Finding]:
    """Return findings on scenes, on images alike across labels, and on file names of augmented copies."""
    used = images[images["status"] == "used"]
    found = []
    for rows in catalog.scenes:
        note = (
            f"{len(rows)} images look like one picture, {_labelled(images['label'].iloc[list(rows)])}, as from a fixed "
            "camera, so they do not count as copies: all are used and may lie in different splits"
        )
        if not (used["group"] != "").any():
            example = suggest_group(used["path"].tolist(), used["label"].tolist())
            note += f"; to keep images of one time or part together: split: {{group: '{example}'}}"
        found.append(Finding("near_duplicate", "warning", rows, note, len(rows), warned=True))
    if rows := tuple(alike_across_labels(images, catalog.likeness)):
        note = (
            f"{len(rows)} images, more than half of all, are nearly equal to one with another label, so labels mark "
            "differences that a comparison of pictures does not see: all are used, and images that look alike stay in "
            "one split, unless check: {near_duplicates: ignore}"
        )
        found.append(Finding("near_duplicate", "warning", rows, note, len(rows), warned=True))
    if family := find_families(used):
        note = (
            f"{len(family.rows)} images have {family.names} names apart from suffixes of augmented copies "
            f"({_readable(', '.join(family.suffixes))}), and the split may separate them; to keep images of one name "
            f"together: split: {{group: '{family.group}'}}"
        )
        found.append(Finding("near_duplicate", "warning", family.rows, note, len(family.rows), warned=True))
    return found


def _labelled(labels: pd.Series) -> str:
    names = sorted(set(labels))
    return f"all {names[0]}" if len(names) == 1 else f"labelled {' and '.join(names)}"


def _duplicates(images: pd.DataFrame, catalog: Catalog) -> list[Finding]:
    """Return findings on label conflicts, on groups of copies, and on copies and groups in several splits."""
    found = []
    copied = images[(images["cluster"] != "") & (images["status"] != "ignored")]
    least = _least_likeness(copied, catalog)
    disputed = set[tuple[int, ...]]()
    for numbers in find_conflicts(images, catalog.likeness):
        of_picture = images.loc[numbers]
        count, same = _copies(of_picture, least)
        note = f"{count}, labelled {' and '.join(sorted(set(of_picture['label'])))}"
        found.append(Finding("label_conflict", "error", tuple(numbers), note, same))
        disputed.add(tuple(numbers))
    for _, group in copied.groupby("cluster", sort=True):
        count, same = _copies(group, least)
        rows = tuple(group.index)
        if rows not in disputed:
            kind: Kind = "exact_duplicate" if same else "near_duplicate"
            found.append(Finding(kind, "warning", rows, f"{count}, {_labelled(group['label'])}"))
        found += _leak(group, count)
    grouped = images[(images["group"] != "") & (images["status"] == "used")]
    for name, group in grouped.groupby("group", sort=True):
        found += _leak(group, f"{len(group)} images of the group {_readable(str(name))}")
    return found


def _copies(group: pd.DataFrame, least: Mapping[str, float]) -> tuple[str, bool]:
    """Return the size and likeness of a cluster as text, and whether its images have the same pixels."""
    same = group["pixels"].nunique() == 1
    how = "the same pixels" if same else f"likeness {least.get(str(group['cluster'].iloc[0]), 1.0):.3f} or more"
    return f"{len(group)} images, {how}", same


def _leak(group: pd.DataFrame, what: str) -> list[Finding]:
    """Return a finding if used images that belong together lie in several given splits, folds or test sets.

    It is a warning if a run leaves out the copies of test images.
    """
    used = group[group["status"] == "used"]
    kept = used[used["pool"] != LEFT_OUT]
    everywhere, places = _places(used), _places(kept)
    if len(places) > 1 and not (kept["pool"].eq(TEST) | kept["source"].ne("")).all():
        return [Finding("split_leak", "error", tuple(used.index), f"{what}, in {' and '.join(everywhere)}")]
    if len(kept) < len(used):
        note = f"{what}, in {' and '.join(everywhere)}: those that are not test images are left out"
        return [Finding("split_leak", "warning", tuple(used.index), note)]
    return []  # copies in two test sets make no score optimistic


def _places(images: pd.DataFrame) -> list[str]:
    given = set(zip(images["given_split"], images["given_fold"], images["source"], strict=True))
    return sorted({_place(*place) for place in given})


def _place(given_split: str, given_fold: str, source: str) -> str:
    """Return where the data puts an image: a split, a fold, a further test set, or the main data."""
    fold = f"fold {given_fold}" if given_fold else ""
    return f"the test set {source}" if source else given_split or fold or "the main data"


def _least_likeness(copied: pd.DataFrame, catalog: Catalog) -> dict[str, float]:
    """Return the smallest likeness of two near duplicates, by cluster."""
    clusters = dict(zip(copied["sha256"], copied["cluster"], strict=True))
    least: dict[str, float] = {}
    for (first, _), value in catalog.likeness.items():
        if first in clusters:
            least[clusters[first]] = min(value, least.get(clusters[first], 1.0))
    return least


def _classes(used: pd.DataFrame, classes: Sequence[str], split: SplitConfig) -> list[Finding]:
    main = used[used["source"] == ""]
    rows_of = {label: tuple(rows) for label, rows in main.groupby("label").groups.items()}
    counts = {label: len(rows_of.get(label, ())) for label in classes}
    found = []
    for label, count in counts.items():
        if count >= FEW:
            continue
        severity: Severity = "error" if count < 3 else "warning"
        note = f"class {label} has {plural(count, 'usable image')}"
        found.append(Finding("small_class", severity, rows_of.get(label, ()), note, -count))
    use = given_use(set(main["given_split"]) - {""}, split)
    if use:  # given splits must include training images; validation is drawn only if a test set is given
        use |= {TRAIN: TRAIN} if TEST in use.values() else {TRAIN: TRAIN, VALIDATION: VALIDATION}
    for name in (name for name in (TRAIN, VALIDATION, TEST) if name in use):
        present = set(main.loc[main["given_split"] == name, "label"])
        missing = [label for label in classes if label not in present]
        if missing and use[name] == TEST:
            note = f"{name} has no image of {', '.join(missing)}, so no recall either"
            found.append(Finding("small_class", "warning", (), note))
        elif missing:
            found.append(Finding("small_class", "error", (), f"{name} has no image of {', '.join(missing)}"))
    least, most = min(counts, key=lambda label: counts[label]), max(counts, key=lambda label: counts[label])
    ratio = imbalance(counts.values())
    if ratio >= IMBALANCED:
        note = f"class {most} has {counts[most]} images, {least} {counts[least] or 'none'}"
        note += f": {ratio:.1f} times as many" if counts[least] else ""
        found.append(Finding("imbalance", "warning" if ratio > VERY_IMBALANCED else "note", (), note))
    return found


def _sizes(used: pd.DataFrame, image_size: int | None) -> list[Finding]:
    shorter, longer = used[["width", "height"]].min(axis=1), used[["width", "height"]].max(axis=1)
    found = []
    long = used.index[longer >= LONG * shorter]
    if len(long):
        note = f"{LONG} times as long as wide, or more: a crop keeps only the middle"
        found.append(Finding("odd_size", "note", tuple(long), note))
    least = TINY if image_size is None else image_size
    small = used.index[(shorter < least) & (longer < LONG * shorter)]
    if len(small):
        note = f"a shorter side below {'the study’s ' if image_size else ''}{least} pixels, so they are enlarged"
        found.append(Finding("odd_size", "note", tuple(small), note))
    return found


def _outliers(used: pd.DataFrame) -> list[Finding]:
    decoded = used[used["brightness"].notna()]
    if len(decoded) < _MIN_FOR_OUTLIERS:
        return []
    bright, sharp = decoded["brightness"], np.log(decoded["sharpness"].clip(lower=0.1))
    grey = decoded["colour"] < GREY
    blank = decoded["contrast"] < FLAT
    measured = decoded["sharpness"] > 0  # 0 for pictures of one or two rows
    picked = {
        "blank: hardly any contrast": blank,
        "much darker than the others": (bright < _fence(bright, -1)) & (bright < 0.2) & ~blank,
        "much brighter than the others": (bright > _fence(bright, 1)) & (bright > 0.8) & ~blank,
        "much more blurred than the others": (sharp < _fence(sharp, -1)) & ~blank & measured,
    }
    if 0 < grey.sum() < 0.2 * len(decoded):  # if many are grey, grey is usual in this data
        picked["grey among pictures in colour"] = grey
    return [
        Finding("outlier", "note", tuple(decoded.index[chosen]), words)
        for words, chosen in picked.items()
        if chosen.any()
    ]


def _noted(used: pd.DataFrame) -> list[Finding]:
    """Return findings on files that the catalog has a note on."""
    notes = {SEVERAL: SEVERAL, MISNAMED: "another format than the name says: the content counts", CUT: CUT}
    rows = {words: used.index[used["note"].str.contains(note, regex=False)] for note, words in notes.items()}
    return [Finding("outlier", "note", tuple(found), words) for words, found in rows.items() if len(found)]


def _fence(values: pd.Series, side: int) -> float:
    """Return Tukey's outer fence, below (-1) or above (1)."""
    low, high = values.quantile([0.25, 0.75])
    return float(high + FENCES * (high - low)) if side > 0 else float(low - FENCES * (high - low))
