"""Time: how long a cell will take, from the work in it and the speed seen so far."""

import re
import statistics

from unfreeze.config.resolve import expected_epochs
from unfreeze.data.order import examples_after
from unfreeze.errors import UserError
from unfreeze.study.candidate import epoch_ends
from unfreeze.study.cell import Job
from unfreeze.study.plan import NetworkPlan

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_FIRST_GUESS = 5e10
"""FLOPs a second of a slow laptop, until the first cell has been measured."""


def parse_duration(text: str) -> float:
    """Return seconds of a duration such as 90s, 30m, 1h30m or 2d.

    Raises:
        UserError: it is none.
    """
    parts = re.findall(r"(\d+(?:\.\d+)?)([smhd])", text.strip())
    if not parts or "".join(number + unit for number, unit in parts) != text.strip().replace(" ", ""):
        raise UserError(f"time {text!r} is no duration", "a number with s, m, h or d", "for example 30m or 1h30m")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def work(job: Job, network: NetworkPlan) -> float:
    """Return the FLOPs of a cell if nothing stops it early: training and validation, all candidates."""
    images, total = len(job.selection.train), 0.0
    for strategy in job.candidates.values():
        ends = [0, *epoch_ends(images, strategy.batch_size, job.regime, expected_epochs(strategy))]
        epoch = 0
        for phase, flops in zip(strategy.phases, network.flops_per_example(), strict=True):
            first, last = ends[epoch], ends[epoch + phase.epochs]
            drawn = examples_after(images, strategy.batch_size, last) - examples_after(
                images, strategy.batch_size, first
            )
            total += drawn * flops
            epoch += phase.epochs
        shown = job.regime.validation.examples or len(job.selection.validation)
        total += epoch * shown * network.flops_forward()
    return total + sum(len(test) for test in job.selection.tests.values()) * network.flops_forward()


class Pace:
    """The speed seen so far, in FLOPs a second, to predict the next cell with."""

    def __init__(self) -> None:
        self.speeds: dict[str, list[float]] = {}

    def measured(self, strategy: str, flops: float, seconds: float) -> None:
        """Take note of a finished cell."""
        self.speeds.setdefault(strategy, []).append(flops / max(seconds, 1e-3))

    def seconds(self, strategy: str, flops: float) -> float:
        """Predict the seconds of a cell: at its strategy's speed, else at the lowest seen, else at a first guess."""
        if strategy in self.speeds:
            return flops / statistics.median(self.speeds[strategy])
        return flops / min((min(speeds) for speeds in self.speeds.values()), default=_FIRST_GUESS)
