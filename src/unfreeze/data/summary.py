"""Summarise how data was read, before anything is trained: the same lines and numbers in every command."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from unfreeze.config.schema import CheckConfig, SplitConfig
from unfreeze.data.catalog import Catalog, build_catalog
from unfreeze.data.fixes import as_png, check_command
from unfreeze.data.quality import path_of
from unfreeze.data.sources.source import Source
from unfreeze.data.split import LEFT_OUT, TEST, TRAIN, VALIDATION, given_pools, given_use, validation_share, with_share
from unfreeze.data.unusable import CONFLICT, fixes_for, without_fix
from unfreeze.errors import UserError
from unfreeze.text import plural

SHOWN = 10
"""Most classes named in the lines; the JSON has all."""

_REASONS = 6  # most reasons that are counted separately
_FIRST, _GROWTH = 8, 4  # files decoded first to find a usable one, and the factor for each further step
_CONVERTIBLE = frozenset(("ppm", "jpeg 2000", "avif", "photoshop"))  # formats that the installed Pillow converts
_SPLITS = {"train": "train", "validation": "val", "test": "test"}


class NothingUsable(UserError):
    """No file of the data can be used."""


def lines(
    data: str,
    source: Source,
    split: SplitConfig,
    tests: Mapping[str, str] | None = None,
    catalog: Catalog | None = None,
) -> tuple[str, ...]:
    """Return how the data was read, as lines of text.

    Args:
        data: path or name of the data, as given.
        source: its files.
        split: how a study draws the splits that the data does not give.
        tests: further test sets as given.
        catalog: of the source, if its files were scanned.
    """
    counts = _class_counts(source)
    files = sum(counts.values())
    kind = source.kind or "files"
    text = [
        f"data: {data}: {kind}, {plural(files, 'file')} in {len(counts)} classes, {range_text(counts)}",
        f"classes: {_names(source.classes)}",
    ]
    for name, folder in (tests or {}).items():
        text.append(f"test set {name}: {folder}: {plural(sum(item.source == name for item in source.items), 'file')}")
    text.append(f"split: {_split(source, split)}")
    if source.ignored:
        text.append(f"ignored: {_ignored(source)}")
    return (*text, *(f"guessed: {sentence}" for sentence in _guessed(source, catalog)))


def layout(source: Source, split: SplitConfig, catalog: Catalog | None = None) -> dict[str, Any]:
    """Return how the data was read, as JSON data: kind, classes, splits, ignored, guessed.

    ``splits`` has the number of files that the data gives for train, val and test, or is None if they are drawn.
    """
    given = Counter(item.given_split for item in source.items if not item.source)
    use = given_use(given.keys() - {""}, split)
    splits = dict.fromkeys(_SPLITS.values(), 0)
    for name, role in use.items():
        splits[_SPLITS[role]] += given[name]
    return {
        "kind": source.kind,
        "classes": list(source.classes),
        "splits": splits if use else None,
        "ignored": dict(Counter(entry.reason for entry in source.ignored).most_common()),
        "guessed": _guessed(source, catalog),
    }


def _guessed(source: Source, catalog: Catalog | None) -> list[str]:
    return [*source.guessed, *(catalog.guessed if catalog else ())]


def _class_counts(source: Source) -> dict[str, int]:
    counts = Counter(item.label for item in source.items if not item.source)
    return {label: counts[label] for label in source.classes}


def range_text(counts: Mapping[str, int]) -> str:
    """Return the sizes of the smallest and the largest class as text."""
    least, most = min(counts, key=lambda label: counts[label]), max(counts, key=lambda label: counts[label])
    if counts[least] == counts[most]:
        return f"{counts[least]:,} a class"
    return f"{counts[least]:,} ({least}) to {counts[most]:,} ({most}) a class"


def _names(classes: Sequence[str]) -> str:
    more = f" and {len(classes) - SHOWN:,} more" if len(classes) > SHOWN else ""
    return ", ".join(classes[:SHOWN]) + more


def _split(source: Source, split: SplitConfig) -> str:
    given = Counter(item.given_split for item in source.items if not item.source)
    use = given_use(given.keys() - {""}, split)
    if not use:
        return f"drawn: {_drawn(with_share(split, given.total(), given=False))}"
    parts = []
    for name in (name for name in _SPLITS if given[name]):
        folders = [folder for folder, split in source.split_names.items() if split == name and folder != use[name]]
        parts.append(f"{use[name]} {plural(given[name], 'file')}" + (f" ({', '.join(folders)})" if folders else ""))
    text = f"given: {', '.join(parts)}"
    if "validation" in use.values() or "test" not in use.values():
        return text
    if split.val == "test":
        return f"{text}; validation on the test images"
    share = validation_share(with_share(split, given["train"], given=True))
    return f"{text}; {share:.0%} of the training images are drawn for validation"


def _drawn(split: SplitConfig) -> str:
    test = f"{split.folds} folds" if split.folds else f"{split.test:.0%} test"
    val = "validation on the test images" if isinstance(split.val, str) else f"{split.val:.0%} validation"
    group = f", groups by {split.group}" if split.group else ""
    return f"{test}, {val}, the rest training{group}"


def _ignored(source: Source) -> str:
    """Return the number of ignored files and folders by reason, the most frequent first, each with its first path."""
    counts = Counter(entry.reason for entry in source.ignored).most_common()
    first: dict[str, str] = {}
    for entry in source.ignored:
        first.setdefault(entry.reason, entry.path)
    counted = [f"{count:,} {reason} (first {first[reason]})" for reason, count in counts[:_REASONS]]
    rest = sum(count for _, count in counts[_REASONS:])
    return ", ".join(counted + [f"{rest:,} for other reasons"] * bool(rest))


# --- nothing usable ---


def refuse_unusable(source: Source, check: CheckConfig) -> None:
    """Decode files, more at each step, until one is usable.

    Raises:
        NothingUsable: no file is usable; counts the reasons.
    """
    main = [item for item in source.items if not item.source]
    reasons = Counter[str]()
    start, size = 0, _FIRST
    while start < len(main):
        part = replace(source, items=tuple(main[start : start + size]), ignored=())
        images = build_catalog(part, check=check).images
        if ((images["status"] == "used") | images["reason"].str.startswith(CONFLICT)).any():
            return
        reasons.update(images["reason"])
        start, size = start + size, size * _GROWTH
    raise nothing_usable(source, reasons)


def refuse_none_used(source: Source, catalog: Catalog) -> None:
    """Refuse data of which no file is used after all were decoded.

    Raises:
        NothingUsable: no file is used; counts the reasons.
    """
    images = catalog.images[(catalog.images["source"] == "") & (catalog.images["status"] != "ignored")]
    if not (images["status"] == "used").any():
        raise nothing_usable(source, Counter(images["reason"]))


def nothing_usable(source: Source, reasons: Mapping[str, int]) -> NothingUsable:
    """Return the error for data of which no file is usable, with the most frequent reasons and the fix for each."""
    frequent = Counter(reasons).most_common(3)
    listed = ", ".join(f"{count:,} {without_fix(reason)}" for reason, count in frequent)
    first = next((item.path for item in source.items if not item.source), "")
    root, fixes = source.roots[""], fixes_for([reason for reason, _ in frequent])
    if {reason.partition(" is not supported")[0] for reason in reasons} <= _CONVERTIBLE:
        suffixes = {Path(item.path).suffix.lower() for item in source.items if not item.source}
        fixes = f"convert them: {as_png(root, suffixes)} and then: {check_command(Path(f'{root}-png'))}"
    return NothingUsable(
        f"{root}: nothing usable in {plural(sum(reasons.values()), 'file')}: {listed} (first {first})",
        "pictures: JPEG, PNG, WebP, GIF, BMP or TIFF",
        fixes,
    )


def split_notes(catalog: Catalog, split: SplitConfig, earlier: Mapping[str, str] | None = None) -> list[str]:
    """Return a sentence on the use of a single given split next to training, and one on copies of test images.

    Args:
        catalog: the images.
        split: settings of the study.
        earlier: see ``split.given_pools``.
    """
    images = catalog.images.reset_index(drop=True)
    images = images[(images["status"] == "used") & (images["source"] == "")]
    images = images.assign(pool=given_pools(images, split, earlier))
    return [*_second_split(images, split), *_left_out(images, catalog)]


def _second_split(images: pd.DataFrame, split: SplitConfig) -> list[str]:
    if set(images["given_split"]) != {TRAIN, VALIDATION} or split.val == "given":
        return []
    second = images[images["given_split"] == VALIDATION]
    given = f"besides training images the data gives one split, {VALIDATION} ({len(second):,} images)"
    if TEST not in set(second["pool"]):
        return [
            f"{given}: it is used as in the first run of this study, and there is no test set; "
            "give another --out DIR to make it the test set"
        ]
    if split.val == TEST:
        return [f"{given}: it is the test set, and with split.val: test the validation set, too"]
    return [
        f"{given}: it is the test set, and validation images are drawn from the training images; "
        "--set split.val=given validates on it, without a test set"
    ]


def _left_out(images: pd.DataFrame, catalog: Catalog) -> list[str]:
    left_out = images[images["pool"] == LEFT_OUT]
    if left_out.empty:
        return []
    tested = images[images["pool"] == TEST]
    row = left_out.index[0]
    originals = tested["sha256"] == left_out["sha256"].iloc[0]
    if left_out["cluster"].iloc[0]:
        originals |= tested["cluster"] == left_out["cluster"].iloc[0]
    first, original = path_of(catalog, row), path_of(catalog, tested.index[originals][0])
    same = left_out["sha256"].isin(set(tested["sha256"])) | left_out["pixels"].isin(set(tested["pixels"]) - {""})
    others = "" if same.all() else "; --set check.near_duplicates=ignore leaves out only those with the same pixels"
    are = "image is a copy of a test image" if len(left_out) == 1 else "images are copies of test images"
    return [
        f"{len(left_out):,} training or validation {are} and left out (left_out in splits.csv): {first} of {original}"
        + (" is the first" if len(left_out) > 1 else "")
        + others
    ]


@dataclass(frozen=True)
class Pools:
    """Files of one class in total and by split; expected numbers if the split is drawn.

    Attributes:
        exact: whether the data gives the splits, so that the numbers are exact.
    """

    files: int
    train: float
    validation: float
    test: float
    exact: bool


def pools_by_class(source: Source, split: SplitConfig) -> dict[str, Pools]:
    """Return the pools of each class, in the order of the classes, without further test sets."""
    main = [item for item in source.items if not item.source]
    use = given_use({item.given_split for item in main} - {""}, split)
    counts = Counter((item.label, use.get(item.given_split, "")) for item in main)
    given = set(use.values())
    drawn_from = sum(count for (_, name), count in counts.items() if name == ("train" if given else ""))
    split = with_share(split, drawn_from, bool(given))
    return {label: _pools(counts, label, given, split) for label in source.classes}


def _pools(counts: Counter[tuple[str, str]], label: str, given: set[str], split: SplitConfig) -> Pools:
    on_test = split.val == "test"
    val = 0.0 if isinstance(split.val, str) else split.val
    if not given:
        files = counts[label, ""]
        test = files * (1 / split.folds if split.folds else split.test)
        return Pools(files, files * (1 - val) - test, test if on_test else files * val, test, False)
    train, validation, test = (float(counts[label, name]) for name in ("train", "validation", "test"))
    files, drawn = int(train + validation + test), 0.0
    if "validation" not in given and "test" in given and not on_test:
        drawn = train * val / (1 - split.test)
    return Pools(files, train - drawn, test if on_test else validation + drawn, test, not drawn)
