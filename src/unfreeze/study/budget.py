"""Time: how long a cell will take, from the work in it and the speed seen so far."""

import statistics
from collections.abc import Mapping

from unfreeze.config.resolve import expected_epochs
from unfreeze.config.units import seconds_of
from unfreeze.data.order import examples_after
from unfreeze.errors import UserError
from unfreeze.study.candidate import epoch_ends
from unfreeze.study.cell import Job
from unfreeze.study.plan import NetworkPlan


def parse_duration(text: str) -> float:
    """Return seconds of a duration such as 90s, 30m, 1h30m or 2d.

    Raises:
        UserError: it is none.
    """
    try:
        return seconds_of(text)
    except ValueError as error:
        given = f"time {text!r} is no duration"
        raise UserError(given, "a number with s, m, h or d", "for example 30m or 1h30m") from error


def work(job: Job, networks: Mapping[str, NetworkPlan]) -> float:
    """Return the FLOPs of a cell if nothing stops it early: training and validation, all candidates by name."""
    images, tests = len(job.selection.train), sum(len(test) for test in job.selection.tests.values())
    shown = job.regime.validation.examples or len(job.selection.validation)
    total = 0.0
    for name, network in networks.items():
        strategy, epoch = network.strategy, 0
        ends = [0, *epoch_ends(images, strategy.batch_size, job.regime, expected_epochs(strategy))]
        drawn = [examples_after(images, strategy.batch_size, end) for end in ends]
        for phase, flops in zip(strategy.phases, network.flops_per_example(), strict=True):
            total += (drawn[epoch + phase.epochs] - drawn[epoch]) * flops
            epoch += phase.epochs
        total += epoch * shown * network.flops_forward()
        if name == next(iter(networks)):  # one candidate, whichever wins, meets the tests
            total += tests * network.flops_forward()
    return total


class Pace:
    """The speed seen so far, in FLOPs a second, to predict the next cell with."""

    def __init__(self) -> None:
        self.speeds: dict[str, list[float]] = {}

    def measured(self, strategy: str, flops: float, seconds: float) -> None:
        """Take note of a finished cell."""
        self.speeds.setdefault(strategy, []).append(flops / max(seconds, 1e-3))

    def seconds(self, strategy: str, flops: float) -> float:
        """Predict the seconds of a cell: at its strategy's speed, else at the lowest seen; 0 while none was seen."""
        if strategy in self.speeds:
            return flops / statistics.median(self.speeds[strategy])
        slowest = min((min(speeds) for speeds in self.speeds.values()), default=None)
        return 0.0 if slowest is None else flops / slowest
