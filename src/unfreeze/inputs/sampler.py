"""Order of training examples, and the conversion between epochs, steps and examples."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from unfreeze.config.schema import RegimeConfig
from unfreeze.seeds import stream_generator

Copies = Sequence[tuple[int, int]]
"""For each index the number of its copy among the copies of its image, from 0, and the number of copies."""


def copies_of(keys: Sequence[str]) -> Copies:
    """Return the copy number of each index; equal keys mean the same image."""
    counts, seen, found = Counter(keys), Counter[str](), []
    for key in keys:
        found.append((seen[key], counts[key]))
        seen[key] += 1
    return found


def passes(
    n: int,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    views: int | None = None,
    copies: Copies | None = None,
) -> Iterator[list[tuple[int, int]]]:
    """Yield batches of (index, view) endlessly, from step `start_step` on, counted from 0.

    Pass p is a permutation of range(n) from the stream (seed, "order", p), whose last batch may be short. Its images
    are drawn in view p, or p modulo `views` of a bank. Each of an image's `copies` has a view of its own: copy k of r
    is drawn in view p r + k. Starting at a step equals starting at 0 and skipping the steps before.

    Raises:
        ValueError: n, batch_size or views is below 1, or start_step below 0.
    """
    steps = steps_per_pass(n, batch_size)
    if start_step < 0:
        raise ValueError(f"start_step must be 0 or more, not {start_step}")
    if views is not None and views < 1:
        raise ValueError(f"views must be 1 or more, not {views}")
    if copies is not None and len(copies) != n:
        raise ValueError(f"copies must have {n} entries, not {len(copies)}")
    return _batches(n, batch_size, seed, views, copies, *divmod(start_step, steps))


@dataclass(frozen=True)
class DrawOrder:
    """The endless order in which training images are drawn; see ``passes``.

    Attributes:
        images: number of images.
        batch_size: batch size of a step.
        seed: of the stream "order".
        views: number of views of each image; None: always new ones.
        copies: copy numbers of images that occur several times.
    """

    images: int
    batch_size: int
    seed: int
    views: int | None = None
    copies: Copies | None = None

    def steps(self, start: int, stop: int) -> Iterator[list[tuple[int, int]]]:
        """Yield the batches of (index, view) of the steps from ``start`` up to ``stop``."""
        drawn = passes(self.images, self.batch_size, self.seed, start, self.views, self.copies)
        return islice(drawn, stop - start)


def view_of(number: int, copy: tuple[int, int], views: int | None) -> int:
    """Return the view of copy k of r in a pass."""
    view = number * copy[1] + copy[0]
    return view if views is None else view % views


def steps_per_pass(n: int, batch_size: int) -> int:
    """Return the number of batches in one pass over n images, the short last one included.

    >>> steps_per_pass(10, 4)
    3
    """
    if n < 1 or batch_size < 1:
        raise ValueError(f"n and batch_size must be 1 or more, not {n} and {batch_size}")
    return -(-n // batch_size)


def steps_for_examples(n: int, batch_size: int, examples: int) -> int:
    """Return the smallest number of steps after which at least `examples` images have been drawn."""
    whole, rest = divmod(examples, n)
    return whole * steps_per_pass(n, batch_size) + -(-rest // batch_size)


def examples_after(n: int, batch_size: int, steps: int) -> int:
    """Return the number of images drawn in the first `steps` steps.

    >>> [examples_after(10, 4, steps) for steps in range(5)]
    [0, 4, 8, 10, 14]
    """
    whole, rest = divmod(steps, steps_per_pass(n, batch_size))
    return whole * n + min(rest * batch_size, n)


def _batches(
    n: int, batch_size: int, seed: int, views: int | None, copies: Copies | None, number: int, skip: int
) -> Iterator[list[tuple[int, int]]]:
    while True:
        order = stream_generator(seed, "order", number).permutation(n).tolist()
        for start in range(skip * batch_size, n, batch_size):
            yield [
                (index, view_of(number, copies[index] if copies else (0, 1), views))
                for index in order[start : start + batch_size]
            ]
        number, skip = number + 1, 0


def epoch_ends(images: int, batch_size: int, regime: RegimeConfig, epochs: int) -> list[int]:
    """Return the number of steps after which each epoch ends."""
    examples = regime.examples_per_epoch or images
    ends: list[int] = []
    for epoch in range(1, epochs + 1):
        wanted = steps_for_examples(images, batch_size, examples * epoch)
        ends.append(max(wanted, ends[-1] + 1 if ends else 1))  # an epoch has at least one step
    return ends
