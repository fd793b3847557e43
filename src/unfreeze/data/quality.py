"""Find problems in the images of a catalog, the worst first; read no file and change nothing."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from unfreeze.config.schema import SplitConfig
from unfreeze.data.catalog import CUT, MISNAMED, SEVERAL, Catalog
from unfreeze.data.conflicts import conflicts, likeness_without_labels
from unfreeze.data.file_families import families
from unfreeze.data.scenes import example_group
from unfreeze.data.split import LEFT_OUT, TEST, TRAIN, VALIDATION, given_pools, given_use
from unfreeze.data.unusable import CONFLICT, Why, ways_out, why, without_way
from unfreeze.errors import UserError
from unfreeze.metrics import UNEVEN, imbalance

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

VERY_UNEVEN = 10
"""Imbalance above which uneven classes are a warning; from ``UNEVEN`` on they are a note."""

LONG = 4
"""Longer over shorter side from which on a picture is called odd: the middle is all that a crop sees of it."""

TINY = 32
"""Pixels of the shorter side below which a picture is called odd."""

GREY = 0.003
"""Colour (``ImageStats.colour``) below which a picture is grey; rounding alone gives 0.002, camera noise more."""

FLAT = 0.02
"""Contrast below which a picture is called blank."""

FENCES = 3.0
"""Interquartile ranges beyond the quartiles from which on a value is an outlier: Tukey's outer fence."""

_WHY: dict[Why, str] = {
    "damage": "cannot be decoded whole", "form": "not read as they are", "limit": "over a limit",
}  # fmt: skip

REASONS = 4
"""Number of reasons counted in the note on unreadable files; the page and the catalog list every file."""

_ENOUGH = 20  # images from which on outliers mean something


@dataclass(frozen=True)
class Finding:
    """A problem in the data that a person should review.

    Attributes:
        kind, severity: what is wrong, and how bad it is.
        rows: positions in ``catalog.images`` of the images concerned; of a group of duplicates all of its members.
        note: one sentence without a full stop.
        measure: by which findings of one kind are sorted, the largest first.
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
        image_size: pixels that a study asks for; smaller pictures are told. None: that is not looked at.
        folds: whether the folds that the data gives are used, so that copies in two of them are a leak.
        split: what the splits that the data gives are used for.
        earlier: see ``splits.given_pools``.
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
    """Return the images, indexed by position, with the pool that the data gives each of the main data's used ones."""
    images = catalog.images.reset_index(drop=True)
    main = (images["status"] == "used") & (images["source"] == "")
    images["pool"] = ""
    images.loc[main, "pool"] = given_pools(images[main], split, earlier)
    return images if folds else images.assign(given_fold="")


def worst_first(found: Sequence[Finding]) -> list[Finding]:
    """Return findings in the order in which they are reported."""
    return sorted(
        found,
        key=lambda one: (
            _SEVERITIES.index(one.severity), _KINDS.index(one.kind), -one.measure, -len(one.rows), one.rows,
        ),
    )  # fmt: skip


def refuse_losses(catalog: Catalog, most: float) -> None:
    """Stop a run if too many files are set aside or a class has no usable file.

    Args:
        catalog: the images.
        most: share of the files that may be set aside.

    Raises:
        UserError: more are, or a class has files of which none can be used.
    """
    images = catalog.images[catalog.images["status"] != "ignored"]
    aside = images[images["status"] == "set_aside"]
    main = images[images["source"] == ""]
    counts = main["label"].value_counts()
    usable = set(main.loc[main["status"] == "used", "label"])
    gone = [f"{label} (all {counts[label]})" for label in sorted(set(main["label"]) - usable)]
    if len(aside) <= most * len(images) and not gone:
        return
    reasons = Counter(aside["reason"]).most_common(3)
    counted = ", ".join(f"{count} {without_way(reason)}" for reason, count in reasons)
    every = len(aside) == len(images)
    lost = f"; classes that fall away: {', '.join(gone)}" if gone and not every else ""
    least = math.ceil(100 * len(aside) / max(1, len(images))) / 100
    shown = "" if every else "; 'unfreeze check DATA' shows them all"  # which shows nothing where nothing is usable
    anyway = "" if gone or least >= 1 else f"; to go on without these files: --set check.max_set_aside={least}"
    raise UserError(
        f"{'all' if every else f'{len(aside)} of'} {len(images)} files are set aside ({counted}){lost}",
        f"at most {most:.0%} of the files, and no whole class",
        f"{ways_out([reason for reason, _ in reasons])}{shown}{anyway}",
    )


def warnings_of(catalog: Catalog, found: Sequence[Finding]) -> list[str]:
    """Return the warnings that a run prints about its data.

    That is which images are alike and do not count as copies, pictures with two labels, and copies in two given splits
    (or folds).

    Args:
        catalog: the images.
        found: their findings, the worst first.
    """
    told = [one.note for one in found if one.warned]
    conflicts = [one for one in found if one.kind == "label_conflict"]
    leaks = [one for one in found if one.kind == "split_leak" and one.severity == "error"]
    if conflicts:
        rows = [row for one in conflicts for row in one.rows]
        aside = int((catalog.images["status"].iloc[rows] == "set_aside").sum())
        became = {0: "kept", len(rows): "set aside"}.get(aside, f"{aside} of them set aside")
        first, other = path_of(catalog, rows[0]), path_of(catalog, rows[1])
        way = "keep uses them" if aside else "set_aside leaves them out"
        told.append(
            f"{_pictures(conflicts)} copies with different labels, {len(rows)} images, {became}, "
            f"first {first} and {other} (--set check.label_conflicts={way})"
        )
    if leaks:
        first, other = (path_of(catalog, row) for row in leaks[0].rows[:2])
        told.append(
            f"{_pictures(leaks)} copies in two splits that the data gives, so test scores flatter; "
            f"first {first} and {other}"
        )
    return told


def _pictures(found: Sequence[Finding]) -> str:
    return "1 picture has" if len(found) == 1 else f"{len(found):,} pictures have"


def path_of(catalog: Catalog, row: int) -> str:
    """Return an image's path as findings name it: relative to its folder, further test sets' with their name first.

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
        if not (mine := rows[kinds == kind]).empty:
            reasons = Counter(mine["reason"]).most_common()
            counted = [f"{count} {reason}" for reason, count in reasons[:REASONS]]
            if rest := sum(count for _, count in reasons[REASONS:]):
                counted.append(f"{rest} for other reasons")
            note = f"{words}: {(', ' if kind == 'damage' else '; ').join(counted)}"
            found.append(Finding("unreadable", "warning", tuple(mine.index), note))
    return found


def _alike(images: pd.DataFrame, catalog: Catalog) -> list[Finding]:
    """Return findings on images that are alike and do not count as copies, and on names that say that files are."""
    used = images[images["status"] == "used"]
    found = []
    for rows in catalog.scenes:
        note = (
            f"{len(rows)} images look like one picture, {_labelled(images['label'].iloc[list(rows)])}, as of a fixed "
            "camera, so they do not count as copies: all are used, on every side of the split"
        )
        if not (used["group"] != "").any():
            example = example_group(used["path"].tolist(), used["label"].tolist())
            note += f"; keep those of one time or part together, such as by split: {{group: '{example}'}}"
        found.append(Finding("near_duplicate", "warning", rows, note, len(rows), warned=True))
    if rows := tuple(likeness_without_labels(images, catalog.likeness)):
        note = (
            f"{len(rows)} images, most of all, are nearly equal to one with another label, so labels say what likeness "
            "does not: all are used, and those alike stay on one side of the split, but for "
            "check: {near_duplicates: ignore}"
        )
        found.append(Finding("near_duplicate", "warning", rows, note, len(rows), warned=True))
    if named := families(used):
        note = (
            f"{len(named.rows)} images have {named.names} names but for suffixes as of augmented copies "
            f"({_readable(', '.join(named.suffixes))}), and the split may divide them; keep those of one name together "
            f"by split: {{group: '{named.group}'}}"
        )
        found.append(Finding("near_duplicate", "warning", named.rows, note, len(named.rows), warned=True))
    return found


def _labelled(labels: pd.Series) -> str:
    names = sorted(set(labels))
    return f"all {names[0]}" if len(names) == 1 else f"labelled {' and '.join(names)}"


def _duplicates(images: pd.DataFrame, catalog: Catalog) -> list[Finding]:
    """Return findings: pictures with several labels, groups of copies, and those of them in several splits."""
    found = []
    copied = images[(images["cluster"] != "") & (images["status"] != "ignored")]
    least = _least_likeness(copied, catalog)
    disputed = set[tuple[int, ...]]()
    for numbers in conflicts(images, catalog.likeness):
        shown = images.loc[numbers]
        count, same = _copies(shown, least)
        note = f"{count}, labelled {' and '.join(sorted(set(shown['label'])))}"
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
    """Return a finding if used images that belong together lie in several places that the data gives.

    It is a warning where a run leaves those out that are copies of test images.
    """
    used = group[group["status"] == "used"]
    kept = used[used["pool"] != LEFT_OUT]
    everywhere, places = _places(used), _places(kept)
    if len(places) > 1 and not (kept["pool"].eq(TEST) | kept["source"].ne("")).all():
        return [Finding("split_leak", "error", tuple(used.index), f"{what}, in {' and '.join(everywhere)}")]
    if len(kept) < len(used):
        note = f"{what}, in {' and '.join(everywhere)}: those that are not test images are left out"
        return [Finding("split_leak", "warning", tuple(used.index), note)]
    return []  # copies in two test sets flatter no score


def _places(images: pd.DataFrame) -> list[str]:
    given = set(zip(images["given_split"], images["given_fold"], images["source"], strict=True))
    return sorted({_place(*one) for one in given})


def _place(given_split: str, given_fold: str, source: str) -> str:
    """Return where an image was put: a given split or fold, a further test set, or what a split is drawn from."""
    fold = f"fold {given_fold}" if given_fold else ""
    return f"the test set {source}" if source else given_split or fold or "the main data"


def _least_likeness(copied: pd.DataFrame, catalog: Catalog) -> dict[str, float]:
    """Return the smallest likeness of two near duplicates, by cluster."""
    clusters = dict(zip(copied["sha256"], copied["cluster"], strict=True))
    least: dict[str, float] = {}
    for (one, _), value in catalog.likeness.items():
        if one in clusters:
            least[clusters[one]] = min(value, least.get(clusters[one], 1.0))
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
        found.append(
            Finding(
                "small_class",
                severity,
                rows_of.get(label, ()),
                f"class {label} has {count} usable image{'s' * (count != 1)}",
                -count,
            )
        )
    use = given_use(set(main["given_split"]) - {""}, split)
    if use:  # then there must be some to train on, and to validate on: those are drawn only where a test set is given
        use |= {TRAIN: TRAIN} if TEST in use.values() else {TRAIN: TRAIN, VALIDATION: VALIDATION}
    for name in (name for name in (TRAIN, VALIDATION, TEST) if name in use):
        in_it = set(main.loc[main["given_split"] == name, "label"])
        missing = [label for label in classes if label not in in_it]
        if missing and use[name] == TEST:
            note = f"{name} has no image of {', '.join(missing)}, so no recall either"
            found.append(Finding("small_class", "warning", (), note))
        elif missing:
            found.append(Finding("small_class", "error", (), f"{name} has no image of {', '.join(missing)}"))
    least, most = min(counts, key=lambda label: counts[label]), max(counts, key=lambda label: counts[label])
    ratio = imbalance(counts.values())
    if ratio >= UNEVEN:
        note = f"class {most} has {counts[most]} images, {least} {counts[least] or 'none'}"
        note += f": {ratio:.1f} times as many" if counts[least] else ""
        found.append(Finding("imbalance", "warning" if ratio > VERY_UNEVEN else "note", (), note))
    return found


def _sizes(used: pd.DataFrame, image_size: int | None) -> list[Finding]:
    shorter, longer = used[["width", "height"]].min(axis=1), used[["width", "height"]].max(axis=1)
    found = []
    long = used.index[longer >= LONG * shorter]
    if len(long):
        note = f"{LONG} times as long as wide, or more: a crop sees the middle of them only"
        found.append(Finding("odd_size", "note", tuple(long), note))
    least = TINY if image_size is None else image_size
    small = used.index[(shorter < least) & (longer < LONG * shorter)]
    if len(small):
        note = f"a shorter side below {'the study’s ' if image_size else ''}{least} pixels, so they are enlarged"
        found.append(Finding("odd_size", "note", tuple(small), note))
    return found


def _outliers(used: pd.DataFrame) -> list[Finding]:
    seen = used[used["brightness"].notna()]
    if len(seen) < _ENOUGH:
        return []
    bright, sharp = seen["brightness"], np.log(seen["sharpness"].clip(lower=0.1))
    grey = seen["colour"] < GREY
    blank = seen["contrast"] < FLAT
    measured = seen["sharpness"] > 0  # which is 0 of pictures of one or two rows
    picked = {
        "blank: hardly any contrast": blank,
        "much darker than the others": (bright < _fence(bright, -1)) & (bright < 0.2) & ~blank,
        "much brighter than the others": (bright > _fence(bright, 1)) & (bright > 0.8) & ~blank,
        "much more blurred than the others": (sharp < _fence(sharp, -1)) & ~blank & measured,
    }
    if 0 < grey.sum() < 0.2 * len(seen):  # where many are grey, grey is what the data looks like
        picked["grey among pictures in colour"] = grey
    return [
        Finding("outlier", "note", tuple(seen.index[chosen]), words) for words, chosen in picked.items() if chosen.any()
    ]


def _noted(used: pd.DataFrame) -> list[Finding]:
    """Return findings about files rather than their pictures."""
    told = {SEVERAL: SEVERAL, MISNAMED: "another format than the name says: the content counts", CUT: CUT}
    rows = {words: used.index[used["note"].str.contains(mark, regex=False)] for mark, words in told.items()}
    return [Finding("outlier", "note", tuple(found), words) for words, found in rows.items() if len(found)]


def _fence(values: pd.Series, side: int) -> float:
    """Return Tukey's outer fence, below (-1) or above (1)."""
    low, high = values.quantile([0.25, 0.75])
    return float(high + FENCES * (high - low)) if side > 0 else float(low - FENCES * (high - low))
