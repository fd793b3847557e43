"""Micro-batches for short memory, with the numbers of the whole batch.

Dropout is drawn for the whole batch, losses have its divisor, and BatchNorm's statistics are undone before a step is
repeated. The number of rows goes into the checkpoint, so that a resumed run divides its batches as before.
"""

import contextlib
import itertools
from collections.abc import Callable, Collection, Iterator, Mapping

from torch import Tensor, nn
from torch.nn.functional import dropout
from torch.nn.modules.batchnorm import _BatchNorm

from unfreeze.errors import UserError
from unfreeze.inputs.loader import EVALUATION_BATCH
from unfreeze.text import join_words


class MicroBatch:
    """How many rows of a batch one network takes at once; fewer from where a device's memory runs short.

    Args:
        rows: in ``training`` and in ``evaluation``, as far as they are known: what ``record`` returned.
        on_less: is called each time they become fewer.
    """

    def __init__(self, rows: Mapping[str, int] | None = None, on_less: Callable[[], None] = lambda: None) -> None:
        self._rows, self._on_less = dict(rows or {}), on_less
        self.batch_norm = False
        """Whether BatchNorm takes its statistics from as many rows as there are at once."""

    @property
    def record(self) -> Mapping[str, int]:
        """The rows at once by kind of work, JSON data; empty where memory suffices for whole batches."""
        return dict(self._rows)

    def rows(self, work: str, count: int) -> int:
        """Return how many rows of a batch of ``count`` are taken at once in ``training`` or ``evaluation``."""
        return min(self._rows.get(work, count), count)

    def less(self, work: str, rows: int) -> None:
        """Take fewer rows at once from now on."""
        self._rows[work] = rows
        self._on_less()

    def said(self, strategy: str, batch_size: int, device: str) -> list[str]:
        """Return what fewer rows at once mean for a strategy's numbers."""
        said, training, evaluation = [], self._rows.get("training"), self._rows.get("evaluation")
        if training and training < batch_size:
            means = "so its batches stay what they are and its numbers differ by rounding"
            if self.batch_norm:
                means = (
                    f"but BatchNorm takes its statistics from those {training}, so its results are not those of whole "
                    f"batches; batch_size: {training} fits, and so may a smaller image_size"
                )
            said.append(
                f"{strategy}: a batch of {batch_size} images does not fit into the memory of {device}; it trains on "
                f"{training} at a time and adds up their gradients, {means}"
            )
        if evaluation:
            said.append(
                f"{strategy}: {EVALUATION_BATCH} images at once do not fit into the memory of {device}; it predicts "
                f"{evaluation} at a time, so its numbers may differ by rounding"
            )
        return said


def parts(count: int, rows: int, least: int = 1) -> list[slice]:
    """Divide ``count`` rows into parts of ``rows``; one of fewer than ``least`` at the end joins the part before."""
    starts = list(range(0, count, rows))
    if len(starts) > 1 and count - starts[-1] < least:
        starts.pop()
    return [slice(start, stop) for start, stop in zip(starts, [*starts[1:], count], strict=True)]


class BatchNormStatistics:
    """The running statistics of BatchNorm layers in training as they are now, so that they can be restored."""

    def __init__(self, network: nn.Module) -> None:
        layers = [module for module in network.modules() if _trains(module)]
        self._kept = [(buffer, buffer.clone()) for layer in layers for buffer in layer.buffers()]

    @property
    def least(self) -> int:
        """The fewest rows at once: such a layer takes no statistics from one."""
        return 2 if self._kept else 1

    def put_back(self) -> None:
        """Restore them."""
        for buffer, before in self._kept:
            buffer.copy_(before)


def batch_norm_trains(network: nn.Module) -> bool:
    """Tell whether a BatchNorm layer takes its statistics from batches: parts of a batch then give other numbers."""
    return any(map(_trains, network.modules()))


def _trains(module: nn.Module) -> bool:
    return isinstance(module, _BatchNorm) and module.training


class WholeDropout:
    """Lets dropout draw for a whole batch of ``rows`` although the network sees it part by part.

    Masks are drawn with the first part, in the order of the layers, as they are for the whole batch at once.
    """

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self._masks: list[Tensor] = []
        self._part, self._met = slice(0, rows), 0

    def turn_to(self, part: slice) -> None:
        """Begin a part's forward pass."""
        self._part, self._met = part, 0

    @contextlib.contextmanager
    def inside(self, network: nn.Module) -> Iterator[None]:
        """Stand in for a network's dropout layers that are in training mode."""
        layers = [module for module in network.modules() if type(module) is nn.Dropout and module.training]
        handles = [layer.register_forward_hook(self._drop) for layer in layers]
        for layer in layers:
            layer.training = False  # then it gives its input as it is
        try:
            yield
        finally:
            for layer, handle in zip(layers, handles, strict=True):
                layer.training = True
                handle.remove()

    def _drop(self, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        if self._met == len(self._masks):
            ones = output.new_ones(self.rows, *output.shape[1:])
            self._masks.append(dropout(ones, float(layer.p)))  # type: ignore[arg-type]
        mask = self._masks[self._met]
        self._met += 1
        return output * mask[self._part]


def loss_weight(labels: Tensor, class_weights: Tensor | None) -> Tensor | int:
    """Return what the mean loss of a batch divides the sum of its rows' losses by."""
    return len(labels) if class_weights is None else class_weights[labels].sum()


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
