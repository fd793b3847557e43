"""What an interval says in words, and what would make it say more."""

import math

from unfreeze.metrics import HIGHER_IS_BETTER
from unfreeze.results.crossed import Simultaneous

BETTER, WORSE = "better", "worse"
NO_DIFFERENCE, TOO_LITTLE = "no difference found", "too little to tell"

MARGINS = {"accuracy": 0.02, "balanced_accuracy": 0.02, "macro_f1": 0.02, "auroc": 0.02, "log_loss": 0.05}
"""A difference that a study should not miss, in units of the metric: an interval whose half-width is no larger and
that holds 0 says that no difference was found, a wider one that there is too little to tell. Two points (0.05 nats) are
a convention, about what people report as a gain; nothing is measured about it."""
MOST_SEEDS = 50
MOST_IMAGES = 100_000
SHARES = frozenset({"accuracy", "balanced_accuracy", "macro_f1", "auroc"})
"""Metrics from 0 to 1, in which one image more or less changes about 1 / images."""
FIRST_SEEDS = "at least two more seeds: one says nothing about others"


def verdict(metric: str, difference: float, half: float) -> str:
    """Return what the simultaneous interval ``difference`` +- ``half`` of a minus b says about a.

    Args:
        metric: decides whether more is better, and the margin.
        difference: a minus b, in units of the metric.
        half: half of the interval's width; NaN where there is none.
    """
    if not math.isfinite(difference) or not math.isfinite(half):
        return TOO_LITTLE
    if abs(difference) > half:
        return BETTER if (difference > 0) == HIGHER_IS_BETTER[metric] else WORSE
    return NO_DIFFERENCE if half <= MARGINS[metric] else TOO_LITTLE


def needed(metric: str, difference: float, part: Simultaneous) -> tuple[int | None, int | None]:
    """Return how many seeds, or else how many test units, would settle it; None where more than the most would not.

    Settled: the interval leaves out 0 if the difference is what it looks like, or is no wider than the margin on each
    side, whichever takes less. It rests on variances that are themselves estimates: read it as an order of size.
    """
    target = max(abs(difference), MARGINS[metric])
    seeds, images = part.found.seeds, part.found.images
    more_seeds = next((count for count in range(seeds + 1, MOST_SEEDS + 1) if part.at(count, images) < target), None)
    least, most = images, max(MOST_IMAGES, images)
    if part.at(seeds, most) >= target:
        return more_seeds, None
    while most - least > max(1, least // 100):  # to a hundredth: it is an estimate
        middle = (least + most) // 2
        least, most = (least, middle) if part.at(seeds, middle) < target else (middle, most)
    return more_seeds, most


def helps(metric: str, difference: float, part: Simultaneous | None, unit: str = "test image") -> str:
    """Say what would settle a comparison that is too little to tell: more seeds, more test images, and how many.

    Args:
        metric: the study's.
        difference: a minus b.
        part: its interval; None where there is one seed.
        unit: what a unit is called.
    """
    if part is None:
        return FIRST_SEEDS
    seeds, images = needed(metric, difference, part)
    now_seeds, now_images = part.found.seeds, part.found.images
    ways = []
    if seeds is not None:
        ways.append(f"about {seeds} seeds (now {now_seeds})")
    if images is not None:
        ways.append(f"about {rounded(images):,} {unit}s (now {now_images:,})")
    if len(ways) == 2:
        return " or ".join(ways)
    if seeds is not None:
        return f"{ways[0]}; more {unit}s alone would not do"
    if images is not None:
        return f"{ways[0]}; more seeds alone would not do"
    return f"more seeds and more {unit}s: neither {MOST_SEEDS} seeds nor {MOST_IMAGES:,} {unit}s alone would do"


def rounded(count: int) -> int:
    """Return the count rounded up to two digits: an estimate of an order of size pretends no more."""
    size = 10 ** max(0, len(str(count)) - 2)
    return -(-count // size) * size
