"""Time one training step of a network; FLOPs scale it to other cuts."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
from torch.nn.functional import cross_entropy

from unfreeze.config.identity import fingerprint, head_record
from unfreeze.config.resolve import Strategy
from unfreeze.model.backbone import Backbone, own_copy
from unfreeze.model.memory import OutOfMemory, halve_until_fits
from unfreeze.model.network import build_network
from unfreeze.seeds import stream_seed
from unfreeze.storage.measurements import Measurements
from unfreeze.train.device import Compute
from unfreeze.train.heads import build_head
from unfreeze.train.optimizers import build_optimizer

TIMED_SECONDS = 0.7
"""Seconds that one timed batch may take; where a whole batch would take longer, fewer examples are timed."""

SECONDS_PER_FLOP = 1e-11
"""Assumed speed of a machine on which nothing has been timed yet."""


@dataclass(frozen=True)
class StepCost:
    """Cost of training one network, in seconds; FLOPs are those of one example.

    Attributes:
        forward: seconds per FLOP of the forward pass.
        backward: seconds of the backward pass and the update, per FLOP of the forward pass through what trains.
        step: seconds of a step that do not depend on FLOPs.
    """

    forward: float
    backward: float
    step: float = 1e-3

    def train(self, passed: int, trained: int) -> float:
        """Return the seconds of training on one example.

        Args:
            passed: FLOPs of the stages and the head that the example passes.
            trained: FLOPs of those among them that train.
        """
        return self.forward * passed + self.backward * trained

    def evaluate(self, passed: int) -> float:
        """Return the seconds of predicting one example; ``passed`` as in ``train``."""
        return self.forward * passed


@dataclass(frozen=True)
class TimedStep:
    """A training step to be timed.

    Attributes:
        strategy: whose network it is.
        phase: number of the phase.
        cut: number of frozen stages.
        start: number of stages that the inputs have passed.
        classes: of the head.
        passed, trained: FLOPs of an example from ``start`` on, and from ``cut`` on.
    """

    strategy: Strategy
    phase: int
    cut: int
    start: int
    classes: int
    passed: int
    trained: int

    @property
    def network(self) -> str:
        """Key of its network and batch size: steps with the same key differ only by their cuts."""
        return network_key(self.strategy, self.classes)


def network_key(strategy: Strategy, classes: int) -> str:
    """Return the key of a strategy's network and batch size, whatever its cuts."""
    head = head_record(strategy.head)
    return fingerprint(strategy.backbone.name, strategy.image_size, head, strategy.batch_size, classes)


def step_cost(
    step: TimedStep,
    backbone: Callable[[], Backbone],
    measurements: Measurements,
    compute: Compute,
    seconds_per_flop: float = SECONDS_PER_FLOP,
) -> StepCost:
    """Time one batch of random inputs, or return the remembered time.

    Where not even two images fit into the device's memory, the cost is predicted from FLOPs; the cells will find out
    whether the network can be trained.

    Args:
        step: the step to time.
        backbone: returns the backbone, which is not changed.
        measurements: of this machine.
        compute: device and precision.
        seconds_per_flop: of frozen stages, from which the number of examples for ``TIMED_SECONDS`` follows.
    """
    flops = step.passed + 2 * step.trained
    count = min(step.strategy.batch_size, max(2, int(TIMED_SECONDS / (max(1, flops) * seconds_per_flop))))

    def measure() -> dict[str, float]:
        def attempt(rows: int) -> StepCost:
            return _time(step, backbone(), compute, rows)

        return asdict(halve_until_fits(attempt, count, compute.device, min(2, count))[0])

    try:
        return StepCost(**measurements.once({"network": step.network, "cut": [step.start, step.cut]}, measure))
    except OutOfMemory:
        return StepCost(seconds_per_flop, 2 * seconds_per_flop)


def _time(step: TimedStep, backbone: Backbone, compute: Compute, count: int) -> StepCost:
    """Time the second of two steps on ``count`` examples: the first one allocates and chooses kernels."""
    backbone, settings = own_copy(backbone, step.cut), step.strategy.phases[step.phase]
    head = build_head(step.strategy.head, backbone, step.classes, 0)
    network = build_network(backbone, head, step.cut, settings.batch_norm, None, step.start)
    network.to(compute.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    network.train()
    optimizer = build_optimizer([*network.suffix.stages, head], settings.optimizer)
    size = backbone.image_size
    shape = backbone.stages[step.start - 1].output_shape if step.start else (3, size, size)
    generator = torch.Generator().manual_seed(stream_seed(0, "order", "measure"))
    inputs = compute.move(torch.randn(count, *shape, generator=generator), step.start < len(backbone.stages))
    labels = torch.arange(count, device=compute.device) % step.classes
    points = [0.0, 0.0, 0.0]
    with torch.random.fork_rng(devices=[]):  # dropout draws
        for _ in range(2):
            points[0] = _now(compute)
            with compute.forward_pass():
                loss = cross_entropy(network(inputs).float(), labels)
            points[1] = _now(compute)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            points[2] = _now(compute)
    forward, backward = points[1] - points[0], points[2] - points[1]
    return StepCost(forward / count / max(1, step.passed), backward / count / max(1, step.trained))


def _now(compute: Compute) -> float:
    if compute.device.type == "cuda":
        torch.cuda.synchronize()
    elif compute.device.type == "mps":
        torch.mps.synchronize()
    return time.perf_counter()
