"""Format numbers, sizes, durations and plurals for the terminal and the report."""

import difflib
import math
from collections.abc import Iterable, Sequence

MISSING = "–"


METRIC_NAMES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "auroc": "AUROC",
    "log_loss": "log loss",
}


_PERCENT = frozenset({"accuracy", "balanced_accuracy"})


def metric_text(metric: str, value: float) -> str:
    """Write a metric: a share of images in percent with one decimal, anything else with three decimals.

    >>> metric_text("accuracy", 0.8973), metric_text("macro_f1", 0.8973)
    ('89.7 %', '0.897')
    """
    if not math.isfinite(value):
        return MISSING
    return f"{100 * value:.1f} %" if metric in _PERCENT else f"{value:.3f}"


def change_text(metric: str, value: float) -> str:
    """Write a difference of two metrics with its sign: points (of percent) or three decimals."""
    if not math.isfinite(value):
        return MISSING
    digits, unit = (1, " points") if metric in _PERCENT else (3, "")
    rounded = round(100 * value if metric in _PERCENT else value, digits)
    return f"{rounded:+.{digits}f}{unit}" if rounded else f"{0:.{digits}f}{unit}"  # what rounds to 0 has no sign


def mean_count_text(mean: float) -> str:
    """Write a mean number of things that come whole, such as images a class: ``8``, or ``about 8`` of 7.667."""
    return f"{mean:,.0f}" if float(mean).is_integer() else f"about {mean:,.0f}"


def spread_text(metric: str, value: float) -> str:
    """Write a standard deviation of a metric, in points (of percent) or with three decimals."""
    return change_text(metric, value).lstrip("+")


def between_text(metric: str, low: float, high: float) -> str:
    """Write an interval of a metric without its unit, e.g. ``88.1 to 92.7``; nothing where there is none."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return ""
    return " to ".join(metric_text(metric, bound).removesuffix(" %") for bound in (low, high))


def change_between_text(metric: str, low: float, high: float) -> str:
    """Write an interval of a difference without its unit, e.g. ``-0.4 to +2.1``; nothing where there is none."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return ""
    return " to ".join(change_text(metric, bound).removesuffix(" points") for bound in (low, high))


def estimate_text(metric: str, value: float, low: float, high: float) -> str:
    """Write a metric with its interval, e.g. ``90.6 % (88.1 to 92.7)``."""
    interval = between_text(metric, low, high)
    return f"{metric_text(metric, value)} ({interval})" if interval else metric_text(metric, value)


def difference_text(metric: str, value: float, low: float, high: float) -> str:
    """Write a difference with its interval, e.g. ``+1.3 points (-0.4 to +2.1)``."""
    interval = change_between_text(metric, low, high)
    return f"{change_text(metric, value)} ({interval})" if interval else change_text(metric, value)


def seconds_text(seconds: float) -> str:
    """Write a duration given in seconds with a unit that suits its size."""
    if not math.isfinite(seconds):
        return MISSING
    if seconds < 1:
        return f"{seconds:.2f} s"
    if seconds < 59.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def count_text(count: float) -> str:
    """Write a count of parameters or operations in three to four digits with k, M or G."""
    if not math.isfinite(count):
        return MISSING
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if count >= size:
            return f"{count / size:.1f}{unit}"
    return f"{count:.0f}"


def bytes_text(size: float) -> str:
    """Write a size in powers of ten, e.g. ``512 bytes``, ``1.2 MB``."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


FEW_IMAGES, FEW_IN_A_CLASS = 200, 20
"""Validation images below which a choice among recipes rests on few, in all and in the smallest class."""


def small_pool_text(metric: str, images: int, smallest: int, can_fold: bool = True) -> str:
    """Say how coarse a ranking on few validation images is, and what makes it finer; "" where there are enough.

    Args:
        metric: that they rank by.
        images: validation images in all, at least 1.
        smallest: validation images of the class that has the fewest.
        can_fold: whether the study may draw folds: has none, and no splits that the data gives.
    """
    if images >= FEW_IMAGES and smallest >= FEW_IN_A_CLASS:
        return ""
    way = "--set split.folds=5 validates on others in each of five turns" if can_fold else "more images tell more"
    share = 100 / images
    weight = f"is {share:.1f} points" if metric in _PERCENT else f"weighs {share:.1f} %"
    return f"validation has {plural(images, 'image')} ({smallest:,} in the smallest class): one image {weight}; {way}"


def point_text(metric: str) -> str:
    """Name the difference below which recipes count as alike: 0.01 of any metric."""
    return "a point" if metric in _PERCENT else "0.01"


def plural(count: int, noun: str) -> str:
    """Write a count with its noun, e.g. ``1 seed``, ``3 seeds``, ``1,600 images``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def join_words(words: Sequence[str]) -> str:
    """Join words as a list in a sentence: ``a``, ``a and b``, ``a, b and c``."""
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)


def near(name: str, names: Iterable[str]) -> list[str]:
    """Return the one of some names that is most like a name, if any is."""
    return difflib.get_close_matches(name, list(names), n=1)
