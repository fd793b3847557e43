"""Interface of inference engines, their registry entry, and the error for stages that an engine cannot run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from unfreeze.model.network import Frozen

Settings = Mapping[str, str | int]
"""An engine and everything that its results may depend on (version, precision, batch, threads), as JSON data."""


class Engine(Protocol):
    """Compiled frozen stages: map float32 rows (n, ...) to float32 rows (n, ...).

    The output of a row depends on that row alone: not on n, on other rows or on its position.
    """

    def __call__(self, rows: Tensor) -> Tensor:
        """Return the output for each row, contiguous, on the engine's device."""
        ...


@dataclass(frozen=True)
class EngineKind:
    """Registry entry of an engine.

    Attributes:
        name: name in study.json and in the identity of stored rows.
        offers: returns settings for a device, a precision and a number of threads, the preferred one first; none where
            the engine cannot run.
        build: builds an engine from settings, frozen stages, the shape of one row and a device; raises
            ``EngineFailed`` for stages that it cannot run.
        worth_seconds: least time of the frozen work in PyTorch for which building this engine is worthwhile.
        shares_batch: whether all threads work on one batch, which is halved where memory is short; otherwise each
            thread has a batch of its own.
    """

    name: str
    offers: Callable[[torch.device, str, int], Sequence[Settings]]
    build: Callable[[Settings, Frozen, tuple[int, ...], torch.device], Engine]
    worth_seconds: float
    shares_batch: bool


class EngineFailed(Exception):
    """The engine cannot convert or run these stages."""


def last_line(error: Exception) -> str:
    """Return the last line of an error's message, or the name of its type."""
    return (str(error).strip() or type(error).__name__).splitlines()[-1]
