"""How many rows one network takes at once, as far as a device's memory allows: lowered when it does not."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class AtOnce:
    """Rows at once in training and in evaluation; None: as many as a batch has."""

    training: int | None = None
    evaluation: int | None = None


class Room:
    """What one network's training and evaluation found out about memory so far.

    Args:
        at_once: to begin with.
        on_less: is told each time that it is less.
    """

    def __init__(self, at_once: AtOnce | None = None, on_less: Callable[[], None] = lambda: None) -> None:
        self.at_once, self.on_less = at_once or AtOnce(), on_less
        self.batch_norm = False
        """Whether BatchNorm takes its statistics from as many rows as there are at once."""

    @property
    def training(self) -> int | None:
        """Rows at once in training."""
        return self.at_once.training

    @property
    def evaluation(self) -> int | None:
        """Rows at once in evaluation."""
        return self.at_once.evaluation

    def less(self, training: int | None = None, evaluation: int | None = None) -> None:
        """Take fewer rows at once from now on."""
        self.at_once = AtOnce(training or self.training, evaluation or self.evaluation)
        self.on_less()
