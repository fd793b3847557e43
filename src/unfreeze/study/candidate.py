"""Train one candidate: build the network phase by phase, keep its best weights and its history."""

import itertools
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from unfreeze.config.resolve import Strategy, expected_epochs
from unfreeze.config.study import Metric, RegimeConfig
from unfreeze.data.order import examples_after, steps_for_examples
from unfreeze.errors import UserError
from unfreeze.metrics import Logits
from unfreeze.model.backbone import Backbone, reinitialise
from unfreeze.model.describe import count_parameters
from unfreeze.model.head import build_head
from unfreeze.model.network import (
    Network,
    build_network,
    frozen_stages,
    frozen_state,
    load_trained_state,
    tensors_hash,
    trained_state,
)
from unfreeze.results.words import join_words
from unfreeze.train.device import Compute
from unfreeze.train.evaluate import evaluating
from unfreeze.train.loop import Course, Diverged, Position, Trainee, Watch, train_phase
from unfreeze.train.micro_batch import MicroBatch, batch_norm_trains
from unfreeze.train.optimizer import build_optimizer, moments, set_moments
from unfreeze.train.stopping import StoppingState


@dataclass(frozen=True)
class CandidateState:
    """All that the rest of a candidate's training depends on: from here on it goes as if it had never stopped.

    Attributes:
        phase: number of the phase that it is in; the number of phases where it is trained to its end.
        position: where in the phase.
        stopped: whether early stopping ended the last phase.
        history: its rows so far.
        weights: the trained tensors; none at the very beginning.
        best: the best of them so far, where they are kept.
        moments: the optimiser's.
        validation: logits of the validation images by epoch, where they are kept; see ``train_candidate``.
        micro_batch: how many rows of a batch it takes at once, see ``MicroBatch.record``.
    """

    phase: int = 0
    position: Position = Position(1, 0, StoppingState())
    stopped: bool = False
    history: Sequence[Mapping[str, Any]] = ()
    weights: Mapping[str, Tensor] = field(default_factory=dict)
    best: Mapping[str, Tensor] = field(default_factory=dict)
    moments: Mapping[str, Tensor] = field(default_factory=dict)
    validation: Mapping[str, Tensor] = field(default_factory=dict)
    micro_batch: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Need:
    """A step whose batch a candidate waits for, and the number of frozen stages that its inputs have passed.

    ``state`` gives what it would take to go on from here.
    """

    step: int
    cut: int
    state: Callable[[], CandidateState] = field(default=CandidateState, compare=False, repr=False)


@dataclass(frozen=True)
class Look:
    """The next batch of validation that a candidate waits for between two epochs, after so many frozen stages.

    None is the answer where there are no more.
    """

    cut: int


Training = Generator[Need | Look, Any, "Trained"]
"""A candidate on its way: it says what it waits for, and is sent that as ``Fed``."""


@dataclass(frozen=True)
class Trained:
    """A trained candidate: its network with the reported weights, its history, and what was counted.

    The network begins after ``cut`` stages, which nothing has trained. ``micro_batch`` says how many rows it takes at
    once, ``validation`` holds the logits of its validation images by epoch, where they are kept.
    """

    network: Network
    backbone: Backbone
    cut: int
    history: list[dict[str, Any]]
    best_epoch: int
    stopped_by: str
    params_total: int
    params_trained: int
    prefix_hash: str
    micro_batch: MicroBatch
    validation: Mapping[str, Tensor]

    @property
    def best(self) -> dict[str, Any]:
        """The history row of the reported epoch."""
        return next(row for row in self.history if row["epoch"] == self.best_epoch)

    def state(self, phases: int) -> CandidateState:
        """Return what it would take to have it again without training; ``phases`` is the number of its phases."""
        last = self.history[-1]
        return CandidateState(
            phase=phases,
            position=Position(last["epoch"], last["step"], StoppingState(best_epoch=self.best_epoch)),
            stopped=self.stopped_by == "early_stopping",
            history=self.history,
            weights=trained_state(self.network, self.backbone),
            validation=self.validation,
            micro_batch=self.micro_batch.record,
        )


def cuts_of(strategy: Strategy, backbone: Backbone) -> list[int]:
    """Return the number of frozen stages in each phase.

    Raises:
        UserError: a cut does not exist.
    """
    names = [stage.name for stage in backbone.stages]
    return [frozen_stages(phase.train, len(names), names) for phase in strategy.phases]


def epoch_ends(images: int, batch_size: int, regime: RegimeConfig, epochs: int) -> list[int]:
    """Return the number of steps after which each epoch ends."""
    examples = regime.examples_per_epoch or images
    ends: list[int] = []
    for epoch in range(1, epochs + 1):
        wanted = steps_for_examples(images, batch_size, examples * epoch)
        ends.append(max(wanted, ends[-1] + 1 if ends else 1))  # an epoch shorter than a batch is one step
    return ends


def has_lone_batch(images: int, batch_size: int) -> bool:
    """Tell whether a pass over so many images has a batch of one."""
    return batch_size == 1 or images % batch_size == 1


def _check_batches(network: Network, images: int, batch_size: int) -> None:
    """Refuse a batch of one image where BatchNorm would have to take its statistics."""
    if batch_norm_trains(network.suffix) and has_lone_batch(images, batch_size):
        raise lone_batch(batch_size, [images])


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


def feed_cuts(cuts: Sequence[int]) -> list[int]:
    """Return, by phase, how many stages nothing has trained yet: what a phase's inputs may have passed already."""
    return [min(cuts[: number + 1]) for number in range(len(cuts))]


def train_candidate(
    strategy: Strategy,
    regime: RegimeConfig,
    metric: Metric,
    seed: int,
    classes: int,
    backbone: Backbone,
    prefix_hash: str,
    images: int,
    class_weights: Sequence[float] | None,
    compute: Compute,
    on_step: Callable[[int, int], None],
    on_epoch: Callable[[dict[str, Any]], None],
    begin: CandidateState,
    micro_batch: MicroBatch,
    keep_validation: bool = False,
) -> Training:
    """Train all phases of one candidate: yield what is needed, be sent that batch, and so on.

    Args:
        strategy: what to train, all values known.
        regime: gives the length of an epoch.
        metric: the study's metric, measured on validation each epoch.
        seed: of the streams init, order and dropout.
        classes: number of classes.
        backbone: its own: it is trained in place. Stages that stay frozen may share tensors with others.
        prefix_hash: of the tensors of the stages that no phase trains.
        images: number of training images, repeated ones counted each time.
        class_weights: of the training loss; None weighs all images alike.
        compute: device and precision.
        on_step: called with (epoch, examples drawn) after each step.
        on_epoch: called with each new history row.
        begin: the first step of all, or the state of an earlier ``Need``.
        micro_batch: how many rows of a batch it takes at once; fewer from where memory runs short.
        keep_validation: keep the logits of the validation images: of every epoch that may be restored as the best, else
            of the last. Cross-fitting chooses among them once more (``results.crossfit``).

    Raises:
        UserError: a cut does not exist.
        Diverged: a loss or a gradient became infinite or NaN; carries the best weights so far, if they are kept.
        NoRoom: not even one image fits into the device's memory.
    """
    head = build_head(strategy.head, backbone, classes, seed)
    cuts = cuts_of(strategy, backbone)
    ends = epoch_ends(images, strategy.batch_size, regime, expected_epochs(strategy))
    stopping = strategy.early_stopping
    fresh_from = 0 if strategy.backbone.weights == "none" else len(backbone.stages)
    # The weights that anything trains, whatever the phase: what is restored, saved and counted.
    lowest = min(cuts)
    weights = None if class_weights is None else torch.tensor(class_weights, device=compute.device)
    everything = build_network(backbone, head, lowest, "train", start=lowest).to(compute.device)
    history = [dict(row) for row in begin.history]
    best = dict(begin.best)
    validation = dict(begin.validation)
    restores = stopping is not None and stopping.restore_best
    state, stopped = begin.position.stopping, begin.stopped
    for number, (phase, cut, start) in enumerate(zip(strategy.phases, cuts, feed_cuts(cuts), strict=True)):
        if phase.reinit:
            reinitialise(backbone, cut, seed)
            fresh_from = min(fresh_from, cut)
        network = build_network(backbone, head, cut, phase.batch_norm, fresh_from, start)
        network.to(compute.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        micro_batch.batch_norm = micro_batch.batch_norm or batch_norm_trains(network.suffix)
        if number < begin.phase:  # what it trained is among the weights
            continue
        if number == begin.phase and begin.weights:
            load_trained_state(everything, backbone, begin.weights)
        _check_batches(network, images, strategy.batch_size)
        before = tensors_hash(frozen_state(backbone, cut)) if cut > start else ""
        first_epoch, first_step = _after([row for row in history if row["phase"] < number])
        position = Position(first_epoch, first_step, replace(state, waited=0))
        optimizer = build_optimizer([*network.suffix.stages, head], phase.optimizer)
        if number == begin.phase:
            position = begin.position
            set_moments(optimizer, begin.moments)
            begin = replace(begin, weights={}, best={}, moments={}, validation={})  # so that they are not held twice
        channels_last = start < len(backbone.stages)
        looked_at: list[Logits] = []  # of the epoch that ends

        def keep(row: dict[str, Any], looked_at: list[Logits] = looked_at) -> None:
            if keep_validation and not restores:
                validation.clear()
            if keep_validation:
                validation[str(row["epoch"])] = torch.from_numpy(looked_at[-1])
            looked_at.clear()
            history.append({**row, "examples": examples_after(images, strategy.batch_size, row["step"])})
            on_epoch(history[-1])

        def keep_best() -> None:
            if restores:
                best.update(trained_state(everything, backbone))

        def here(at: Position, number: int = number, optimizer: torch.optim.Optimizer = optimizer) -> CandidateState:
            tensors = trained_state(everything, backbone)
            found = dict(best), moments(optimizer), dict(validation), micro_batch.record
            return CandidateState(number, at, False, list(history), tensors, *found)

        training = train_phase(
            Trainee(network, channels_last, weights),
            optimizer,
            phase,
            Course(number, first_epoch, first_step, ends[first_epoch - 1 : first_epoch - 1 + phase.epochs], seed),
            compute,
            stopping,
            metric,
            position,
            Watch(
                partial(evaluating, network, compute, metric, channels_last, micro_batch, looked_at.append),
                lambda epoch, step: on_step(epoch, examples_after(images, strategy.batch_size, step)),
                keep,
                keep_best,
            ),
            micro_batch,
        )
        try:
            state, stopped = yield from _needing(training, start, here)
        except Diverged as error:
            raise Diverged(str(error), best) from error
        if before:
            _check_frozen(backbone, cut, before)
        if best:
            load_trained_state(everything, backbone, best)
    if begin.phase == len(strategy.phases):
        load_trained_state(everything, backbone, begin.weights)
    _check_frozen(backbone, lowest, prefix_hash)
    return Trained(
        network=everything,
        backbone=backbone,
        cut=lowest,
        history=history,
        best_epoch=(state.best_epoch or history[-1]["epoch"]) if restores else history[-1]["epoch"],
        stopped_by="early_stopping" if stopped else "epochs",
        params_total=count_parameters(backbone.model) + count_parameters(head),
        params_trained=count_parameters(everything.suffix) + count_parameters(head),
        prefix_hash=prefix_hash,
        micro_batch=micro_batch,
        validation=validation,
    )


def _check_frozen(backbone: Backbone, frozen: int, before: str) -> None:
    if tensors_hash(frozen_state(backbone, frozen)) != before:
        raise RuntimeError(f"the frozen stages of {backbone.name} changed while the others trained; this is a bug")


def _after(history: Sequence[Mapping[str, Any]]) -> tuple[int, int]:
    """Return the epoch that follows (from 1) and the steps that are done."""
    return (history[-1]["epoch"] + 1, history[-1]["step"]) if history else (1, 0)


def _needing(
    training: Generator[Position | None, Any, tuple[StoppingState, bool]],
    cut: int,
    state: Callable[[Position], CandidateState],
) -> Generator[Need | Look, Any, tuple[StoppingState, bool]]:
    """Say of each batch that a phase waits for at which cut it is needed."""
    try:
        at = next(training)
        while True:
            at = training.send((yield Look(cut) if at is None else Need(at.step, cut, partial(state, at))))
    except StopIteration as end:
        return end.value
