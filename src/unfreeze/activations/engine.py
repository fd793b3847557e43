"""Interface of an inference engine, its registry entry, and the error for a network that it cannot run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from unfreeze.model.network import Frozen

Settings = Mapping[str, str | int]
"""An engine and all that its numbers may depend on: name, version, precision, batch, threads. JSON data."""


class Engine(Protocol):
    """Frozen stages, ready to run: rows (n, ...) float32 to rows (n, ...) float32, one by one.

    The numbers of a row depend on that row alone: not on n, on its neighbours or on its place among them.
    """

    def __call__(self, rows: Tensor) -> Tensor:
        """Compute the stages' output for each row, contiguous, on the engine's device."""
        ...


@dataclass(frozen=True)
class EngineKind:
    """An entry of the registry of engines.

    Attributes:
        name: stands in study.json and in the identity of stored rows.
        offers: settings for a device, a precision and a number of threads, the preferred one first; none where the
            engine cannot run.
        build: makes an engine from settings, frozen stages, the shape of one row and a device. Raises ``EngineFailed``
            for stages that it cannot run.
        worth_seconds: frozen work that would take PyTorch less time is not worth building this engine.
        shares_batch: whether all threads work on one batch of rows, which may be halved where memory is short;
            otherwise each thread has a batch of its own.
    """

    name: str
    offers: Callable[[torch.device, str, int], Sequence[Settings]]
    build: Callable[[Settings, Frozen, tuple[int, ...], torch.device], Engine]
    worth_seconds: float
    shares_batch: bool


class EngineFailed(Exception):
    """The engine cannot convert or run these stages; another one can."""


def gist(error: Exception) -> str:
    """Return the last line of an error's message, or its type where it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[-1]
