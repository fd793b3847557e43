"""Reject batch sizes that leave a batch of one image where BatchNorm trains."""

import itertools
from collections.abc import Collection

from unfreeze.errors import UserError
from unfreeze.text import join_words


def has_lone_batch(images: int, batch_size: int) -> bool:
    """Tell whether a pass over so many images has a batch of one."""
    return batch_size == 1 or images % batch_size == 1


def lone_batch(
    batch_size: int, images: Collection[int], key: str = "batch_size", taken: Collection[int] = ()
) -> UserError:
    """Return what is said where BatchNorm would have to take its statistics from a batch of one image.

    Args:
        batch_size: that leaves one.
        images: numbers of training images, at least two each.
        key: the setting that says it.
        taken: batch sizes that are no other choice.
    """

    def fits(size: int) -> bool:
        return size not in taken and not any(has_lone_batch(count, size) for count in images)

    counts = join_words([str(count) for count in sorted(set(images))])
    given = f"with {counts} training images leaves a last batch of one" if batch_size > 1 else "is one image a batch"
    better = next(filter(fits, itertools.count(batch_size + 1)))
    return UserError(
        f"batch_size: {batch_size} {given}",
        "at least two images in a batch, since the BatchNorm of stages with fresh weights (or batch_norm: train) "
        "takes its statistics from each",
        f"choose another, for example --set {key}={better}",
    )
