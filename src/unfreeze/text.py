"""Format numbers, sizes, durations and plurals for the terminal and the report."""

import difflib
import math
from collections.abc import Iterable, Sequence

MISSING = "–"


def mean_count_text(mean: float) -> str:
    """Format a mean of counts, such as images per class: ``8``, or ``about 8`` for 7.667."""
    return f"{mean:,.0f}" if float(mean).is_integer() else f"about {mean:,.0f}"


def seconds_text(seconds: float) -> str:
    """Format a duration in seconds, minutes or hours."""
    if not math.isfinite(seconds):
        return MISSING
    if seconds < 1:
        return f"{seconds:.2f} s"
    if seconds < 59.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def count_text(count: float) -> str:
    """Format a count of parameters or operations with k, M or G."""
    if not math.isfinite(count):
        return MISSING
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if count >= size:
            return f"{count / size:.1f}{unit}"
    return f"{count:.0f}"


def bytes_text(size: float) -> str:
    """Format a size in powers of ten, e.g. ``512 bytes``, ``1.2 MB``."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def plural(count: int, noun: str, nouns: str = "") -> str:
    """Format a count with its noun, e.g. ``1 seed``, ``3 seeds``, ``1,600 images``.

    Args:
        count: the number.
        noun: singular.
        nouns: plural; by default the singular with an s.
    """
    return f"{count:,} {noun if count == 1 else nouns or f'{noun}s'}"


def join_words(words: Sequence[str]) -> str:
    """Join words as a list in a sentence: ``a``, ``a and b``, ``a, b and c``."""
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)


def near(name: str, names: Iterable[str]) -> list[str]:
    """Return the most similar of some names, in a list; an empty list if none is similar."""
    return difflib.get_close_matches(name, list(names), n=1)
