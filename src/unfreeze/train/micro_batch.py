"""Micro-batches for short memory, with the numbers of the whole batch.

Dropout is drawn for the whole batch, the loss has its divisor, and BatchNorm's statistics are restored before a step is
repeated. The number of rows is saved in the checkpoint, so that a resumed run divides its batches as before.
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
    """Number of rows of a batch that a network computes at once, which falls where the device's memory runs short.

    Args:
        rows: in ``training`` and in ``evaluation``, where they are known: what ``record`` returned.
        on_less: is called each time the number falls.
    """

    def __init__(self, rows: Mapping[str, int] | None = None, on_less: Callable[[], None] = lambda: None) -> None:
        self._rows, self._on_less = dict(rows or {}), on_less
        self.batch_norm = False
        """Whether BatchNorm takes its statistics from the rows of a micro-batch."""

    @property
    def record(self) -> Mapping[str, int]:
        """Rows at once by kind of work, as JSON data; empty where whole batches fit into memory."""
        return dict(self._rows)

    def add_network(self, network: nn.Module) -> None:
        """Add a network in training mode whose batches are divided."""
        self.batch_norm = self.batch_norm or batch_norm_trains(network)

    def rows(self, work: str, count: int) -> int:
        """Return how many of ``count`` rows are computed at once; ``work`` is ``training`` or ``evaluation``."""
        return min(self._rows.get(work, count), count)

    def less(self, work: str, rows: int) -> None:
        """Compute at most ``rows`` at once from now on."""
        self._rows[work] = rows
        self._on_less()

    def warnings(self, strategy: str, batch_size: int, device: str) -> list[str]:
        """Return a warning for each number of rows that memory has reduced, with its effect on results."""
        warnings, training, evaluation = [], self._rows.get("training"), self._rows.get("evaluation")
        if training and training < batch_size:
            effect = "so its batches stay what they are and its numbers differ by rounding"
            if self.batch_norm:
                effect = (
                    f"but BatchNorm takes its statistics from those {training}, so its results are not those of whole "
                    f"batches; batch_size: {training} fits, and so may a smaller image_size"
                )
            warnings.append(
                f"{strategy}: a batch of {batch_size} images does not fit into the memory of {device}; it trains on "
                f"{training} at a time and adds up their gradients, {effect}"
            )
        if evaluation:
            warnings.append(
                f"{strategy}: {EVALUATION_BATCH} images at once do not fit into the memory of {device}; it predicts "
                f"{evaluation} at a time, so its numbers may differ by rounding"
            )
        return warnings


def parts(count: int, rows: int, least: int = 1) -> list[slice]:
    """Divide ``count`` rows into parts of ``rows``; a last part of fewer than ``least`` joins the one before."""
    starts = list(range(0, count, rows))
    if len(starts) > 1 and count - starts[-1] < least:
        starts.pop()
    return [slice(start, stop) for start, stop in zip(starts, [*starts[1:], count], strict=True)]


class BatchNormStatistics:
    """Copy of the running statistics of BatchNorm layers in training, to restore them."""

    def __init__(self, network: nn.Module) -> None:
        layers = [module for module in network.modules() if _trains(module)]
        self._kept = [(buffer, buffer.clone()) for layer in layers for buffer in layer.buffers()]

    @property
    def least(self) -> int:
        """The fewest rows at once: BatchNorm cannot take statistics from one."""
        return 2 if self._kept else 1

    def restore(self) -> None:
        """Restore the statistics."""
        for buffer, before in self._kept:
            buffer.copy_(before)


def batch_norm_trains(network: nn.Module) -> bool:
    """Tell whether a BatchNorm layer takes its statistics from batches, so that micro-batches change numbers."""
    return any(map(_trains, network.modules()))


def _trains(module: nn.Module) -> bool:
    return isinstance(module, _BatchNorm) and module.training


class WholeDropout:
    """Dropout whose masks are drawn for a whole batch of ``rows``, though the network sees it in parts.

    Masks are drawn with the first part, in the order of the layers, as they would be for the whole batch.
    """

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self._masks: list[Tensor] = []
        self._part, self._met = slice(0, rows), 0

    def turn_to(self, part: slice) -> None:
        """Start the forward pass of a part."""
        self._part, self._met = part, 0

    @contextlib.contextmanager
    def inside(self, network: nn.Module) -> Iterator[None]:
        """Replace the network's dropout layers that are in training mode."""
        layers = [module for module in network.modules() if type(module) is nn.Dropout and module.training]
        handles = [layer.register_forward_hook(self._drop) for layer in layers]
        for layer in layers:
            layer.training = False  # the layer then returns its input
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
    """Return the divisor of a batch's mean loss: the sum of the weights of its rows."""
    return len(labels) if class_weights is None else class_weights[labels].sum()


def has_lone_batch(images: int, batch_size: int) -> bool:
    """Tell whether a pass over the images has a batch of one image."""
    return batch_size == 1 or images % batch_size == 1


def lone_batch(
    batch_size: int, images: Collection[int], key: str = "batch_size", taken: Collection[int] = ()
) -> UserError:
    """Return the error of a batch of one image, from which BatchNorm would have to take its statistics.

    Args:
        batch_size: the batch size.
        images: numbers of training images, each at least two.
        key: path of the setting.
        taken: batch sizes that cannot be suggested, since the study tunes over them.
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
