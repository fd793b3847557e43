"""How many files a study can use, told from names alone: nothing is decoded, so all of it is about files."""

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unfreeze.config.study import SplitConfig
    from unfreeze.data.sources import Source


@dataclass(frozen=True)
class Pools:
    """Files of one class: all, and those that training, validation and test get, about that many where they are drawn.

    Attributes:
        exact: the folders say which is which, so that the numbers are no expectations.
    """

    files: int
    train: float
    validation: float
    test: float
    exact: bool


def pools_by_class(source: "Source", split: "SplitConfig") -> dict[str, Pools]:
    """Return the pools of each class, in the order of the classes; further test sets do not count."""
    from unfreeze.data.splits import given_use, with_share

    main = [item for item in source.items if not item.source]
    use = given_use({item.given_split for item in main} - {""}, split)
    counts = Counter((item.label, use.get(item.given_split, "")) for item in main)
    given = set(use.values())
    drawn_from = sum(count for (_, name), count in counts.items() if name == ("train" if given else ""))
    split = with_share(split, drawn_from, bool(given))
    return {label: _pools(counts, label, given, split) for label in source.classes}


def _pools(counts: Counter[tuple[str, str]], label: str, given: set[str], split: "SplitConfig") -> Pools:
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
