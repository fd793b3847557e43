"""Select the images of a cell: nested subsets of the split's pools, by regime and seed."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import pandas as pd

from unfreeze.config.schema import RegimeConfig, SplitConfig
from unfreeze.data.catalog import Catalog, rows_of
from unfreeze.data.quality import Finding, Severity
from unfreeze.data.split import LEFT_OUT, TEST, TRAIN, VALIDATION, draw_split
from unfreeze.errors import UserError
from unfreeze.seeds import stream_seed

_LINES = 5
"""Most classes that get a warning each; more are listed in one."""


@dataclass(frozen=True)
class Selection:
    """The images of one cell, as ids, class after class.

    Attributes:
        train: training images.
        validation: validation images; with `split: {val: test}` test images.
        tests: images by test set: "test" (absent if the data has no test split) and the further test sets.
        warnings: a sentence on each class that has too few images.
        ranking: the whole validation pool, which no regime and no seed trains on; recipes are ranked on it.
    """

    train: tuple[str, ...]
    validation: tuple[str, ...]
    tests: dict[str, tuple[str, ...]]
    warnings: tuple[str, ...]
    ranking: tuple[str, ...] = ()


def select(
    catalog: Catalog, split: pd.Series, regime: RegimeConfig, seed: int, validate_on_test: bool = False
) -> Selection:
    """Select the images of a regime for one seed; those of a smaller regime are among those of a larger one.

    In each class the first images are taken in the order of the stream (seed, "subset", sha256).

    Args:
        catalog: the images.
        split: result of `draw_split`.
        regime: how many images.
        seed: of the stream.
        validate_on_test: take validation images from the test images.

    Raises:
        UserError: a class has no training or validation image, or too few and `regime.strict` is set. A class without
            a test image is a warning, since its recall is not known.
    """
    pools = _pools(catalog, split, seed)
    if validate_on_test:
        pools[VALIDATION] = pools.get(TEST, {})
    _check_present(pools, catalog.classes, validate_on_test)
    train, few = _take(pools[TRAIN], regime.train_per_class, regime.train_fraction)
    validation, few_validation = _take(pools[VALIDATION], regime.val_per_class, None)
    warnings = _shortfall(few, regime.train_per_class, "training", regime.strict)
    warnings += _shortfall(few_validation, regime.val_per_class, "validation", regime.strict)
    warnings += _untested(pools, catalog.classes)
    tests = {
        name if name == TEST else name.removeprefix("test_"): _take(pool, None, None)[0]
        for name, pool in pools.items()
        if name not in (TRAIN, VALIDATION, LEFT_OUT)
    }
    ranking, _ = _take(pools[VALIDATION], None, None)
    return Selection(train, validation, tests, warnings, ranking)


def _pools(catalog: Catalog, split: pd.Series, seed: int) -> dict[str, dict[str, list[str]]]:
    """Return ids by split and class, in the order in which they are taken."""
    rows = rows_of(catalog, list(split.index))
    keys = [stream_seed(seed, "subset", sha256) for sha256 in rows["sha256"]]
    pools: dict[str, dict[str, list[str]]] = {}
    for _, name, label, pool in sorted(zip(keys, rows.index, rows["label"], split, strict=True)):
        pools.setdefault(pool, {}).setdefault(label, []).append(name)
    return {pool: dict(sorted(pools[pool].items())) for pool in sorted(pools)}


def _check_present(
    pools: Mapping[str, Mapping[str, list[str]]], classes: tuple[str, ...], validate_on_test: bool
) -> None:
    wanted = [(TRAIN, "training")]
    wanted += [(VALIDATION, "validation")] if not validate_on_test else []
    wanted += [(TEST, "test")] if validate_on_test else []
    missing = [
        f"{label} has no {word} image" for label in classes for pool, word in wanted if label not in pools.get(pool, {})
    ]
    if missing:
        raise UserError(
            ", ".join(missing),
            "at least one image of each class in each split: " + ", ".join(word for _, word in wanted),
            "add images there, or remove these classes",
        )


def _untested(pools: Mapping[str, Mapping[str, list[str]]], classes: tuple[str, ...]) -> tuple[str, ...]:
    """Return a warning on classes without a test image, if there is a test set."""
    missing = [label for label in classes if TEST in pools and label not in pools[TEST]]
    return (f"{no_test_images(missing)}; add some to the test images to know it",) if missing else ()


def no_test_images(labels: Sequence[str]) -> str:
    """Return a sentence on classes without a test image; of many classes the first are named."""
    more = f" and {len(labels) - _LINES} more" if len(labels) > _LINES else ""
    their = "its recall is" if len(labels) == 1 else "their recall is"
    return f"no test image of {', '.join(labels[:_LINES])}{more}: {their} not known, and AUROC is not defined"


def _take(
    pool: Mapping[str, list[str]], count: int | None, fraction: float | None
) -> tuple[tuple[str, ...], dict[str, int]]:
    """Return the ids taken, and the number of images of each class that has fewer than `count`."""
    taken: list[str] = []
    for ids in pool.values():
        # Exactly the decimal fraction: 0.07 of 100 is 7, although the float is a little larger.
        share = len(ids) if fraction is None else math.ceil(Fraction(repr(fraction)) * len(ids))
        taken += ids[: share if count is None else count]
    few = {label: len(ids) for label, ids in pool.items() if count is not None and len(ids) < count}
    return tuple(taken), few


def _shortfall(few: Mapping[str, int], wanted: int | None, word: str, strict: bool) -> tuple[str, ...]:
    """Return warnings on classes with fewer images than wanted, or raise UserError if strict."""
    if not few:
        return ()
    listed = ", ".join(f"{label} {count}" for label, count in few.items())
    if strict:
        raise UserError(
            f"too few {word} images for a strict regime: {listed}",
            f"{wanted} {word} images of each class",
            "add images, lower the regime's number, or remove strict from the regime",
        )
    if len(few) > _LINES:
        return (f"{len(few)} classes give fewer than {wanted} {word} images: {listed}",)
    return tuple(f"class {label} gives {count} of {wanted} {word} images" for label, count in few.items())


def shortfalls(catalog: Catalog, split: SplitConfig, regimes: Mapping[str, RegimeConfig]) -> list[Finding]:
    """Return a finding for each class that has too few images for some regimes.

    An error ends a run before training, a warning is printed by the run. With folds only the first is drawn, whose
    classes stand for those of the others.
    """
    try:
        drawn = draw_split(catalog, split, None if split.folds is None else 0)
    except UserError as error:
        return [Finding("small_class", "error", (), error.given)]
    names: dict[tuple[Severity, str], list[str]] = {}
    for name, regime in regimes.items():
        try:
            for text in select(catalog, drawn, regime, 0, split.val == TEST).warnings:
                names.setdefault(("warning", text), []).append(name)
        except UserError as error:
            names.setdefault(("error", error.given), []).append(name)
    return [
        Finding("small_class", severity, (), f"regime{'s' * (len(asking) > 1)} {' and '.join(asking)}: {text}")
        for (severity, text), asking in names.items()
    ]
