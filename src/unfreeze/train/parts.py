"""What makes a step in parts the step of the whole batch: its dropout, its loss, its BatchNorm before the step."""

import contextlib
from collections.abc import Iterator

from torch import Tensor, nn
from torch.nn.functional import dropout
from torch.nn.modules.batchnorm import _BatchNorm


class Statistics:
    """The running statistics of BatchNorm layers in training, as they are now, to be had back."""

    def __init__(self, network: nn.Module) -> None:
        layers = [module for module in network.modules() if _trains(module)]
        self._kept = [(buffer, buffer.clone()) for layer in layers for buffer in layer.buffers()]

    @property
    def least(self) -> int:
        """The fewest rows at once: such a layer takes no statistics from one."""
        return 2 if self._kept else 1

    def put_back(self) -> None:
        """Make them what they were."""
        for buffer, before in self._kept:
            buffer.copy_(before)


def batch_norm_trains(network: nn.Module) -> bool:
    """Tell whether a BatchNorm layer takes its statistics from batches: parts of a batch then give other numbers."""
    return any(map(_trains, network.modules()))


def _trains(module: nn.Module) -> bool:
    return isinstance(module, _BatchNorm) and module.training


class WholeDropout:
    """Lets dropout draw for a whole batch of ``rows`` although the network sees it part by part.

    What is dropped is drawn when the first part comes by, in the order of the layers, as for the whole batch at once.
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
