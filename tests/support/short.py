"""Memory that is short: at some calls of a training step or an evaluation, or whenever too many rows are asked for."""

from collections.abc import Callable, Collection
from typing import Any

import pytest
import torch
from torch import Tensor

from unfreeze.model.network import Frozen, Network


def out_of_memory() -> torch.OutOfMemoryError:
    return torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


class Short:
    """Networks run out of memory after their forward pass, which has then drawn and changed what it draws and changes.

    Args:
        training, evaluation: at which calls of networks in that mode, counted from 1 while ``counting``.
        frozen: rows that frozen stages have memory for; None: for all. May be set later, too.
        error: what is raised.
        backward: whether it is raised in the backward pass instead, when the later stages have their gradients.
    """

    def __init__(
        self,
        patch: pytest.MonkeyPatch,
        training: Collection[int] = (),
        evaluation: Collection[int] = (),
        frozen: int | None = None,
        error: Callable[[], Exception] = out_of_memory,
        backward: bool = False,
    ) -> None:
        self.at = {True: training, False: evaluation}
        self.calls, self.rows = {True: 0, False: 0}, {True: list[int](), False: list[int]()}
        self.frozen, self.frozen_rows = frozen, list[int]()
        self.counting = False
        real, real_frozen = Network.forward, Frozen.forward

        def forward(network: Network, inputs: Tensor) -> Tensor:
            found = real(network, inputs)
            if not self.counting:
                return found
            mode = network.training
            self.calls[mode] += 1
            self.rows[mode].append(len(inputs))
            if self.calls[mode] in self.at[mode]:
                if not backward:
                    raise error()
                _fail_backward(network, error)
            return found

        def frozen_forward(stages: Frozen, inputs: Tensor) -> Tensor:
            if len(stages.stages) and self.counting:
                self.frozen_rows.append(len(inputs))
                if self.frozen is not None and len(inputs) > self.frozen:
                    raise error()
            return real_frozen(stages, inputs)

        patch.setattr(Network, "forward", forward)
        patch.setattr(Frozen, "forward", frozen_forward)


def _fail_backward(network: Network, error: Callable[[], Exception]) -> None:
    first = next(parameter for parameter in network.parameters() if parameter.requires_grad)

    def fail(gradient: Any) -> None:
        handle.remove()
        raise error()

    handle = first.register_hook(fail)
