"""Train one phase: any network, any inputs, one optimiser."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from unfreeze import metrics
from unfreeze.config.resolve import Phase
from unfreeze.config.schema import EarlyStopping
from unfreeze.inputs.loader import TimedBatch
from unfreeze.train.device import Compute
from unfreeze.train.early_stopping import StoppingState, after_epoch, should_stop
from unfreeze.train.evaluate import logits_of
from unfreeze.train.gradients import BatchResult, DropoutKey, Trainee, batch_gradients
from unfreeze.train.micro_batch import MicroBatch
from unfreeze.train.optimizers import gradient_sum, gradients_are_finite, learning_rate, set_learning_rate


class Diverged(Exception):
    """A loss, a gradient or a prediction is not a finite number.

    Args:
        text: which number, and where.
        best: the best trained tensors so far, where they are kept.
    """

    def __init__(self, text: str, best: Mapping[str, Tensor] | None = None) -> None:
        super().__init__(text)
        self.best = dict(best or {})


@dataclass(frozen=True)
class PhaseTask:
    """A phase, and its place in the training of a candidate.

    Attributes:
        number: of the phase, from 0.
        phase: its settings.
        seed: of dropout.
        first_epoch, first_step: where it begins: an epoch from 1, a step from 0.
        epoch_ends: the steps after which its epochs end, counted over all phases.
        early_stopping: None trains all epochs.
        metric: the study's metric, measured on validation.
    """

    number: int
    phase: Phase
    seed: int
    first_epoch: int
    first_step: int
    epoch_ends: Sequence[int]
    early_stopping: EarlyStopping | None
    metric: str


@dataclass(frozen=True)
class EpochRow:
    """Results of an epoch: a row of history.csv.

    Attributes:
        phase: its number, from 0.
        epoch: its number over all phases, from 1.
        step: steps done, over all phases.
        lr: learning rate of the last step.
        train_loss, train_accuracy: means over the epoch's examples, each from before its step.
        val_loss, val_accuracy, val_metric: of the validation images after the epoch.
        seconds: of the network's own work, with its share of what the batches took.
        examples: training images drawn, over all phases.
    """

    phase: int
    epoch: int
    step: int
    lr: float
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float
    val_metric: float
    seconds: float
    examples: int


class EpochResult(NamedTuple):
    """Row of an epoch, and the logits of its validation images, float32 (n, classes)."""

    row: EpochRow
    logits: metrics.Logits


@dataclass(frozen=True)
class EpochTotals:
    """Totals of an epoch so far: examples, the sum of their losses, hits, and this network's own seconds."""

    examples: int = 0
    loss: float = 0.0
    hits: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Position:
    """Position of training between two steps.

    With the tensors of the network and the optimiser this is all that the rest of training depends on: learning rates,
    batches and dropout are functions of the step.

    Attributes:
        epoch: of the next step, from 1.
        step: steps done, over all phases.
        stopping: state of early stopping.
        totals: of this epoch so far.
    """

    epoch: int
    step: int
    stopping: StoppingState
    totals: EpochTotals = EpochTotals()


class PhaseRun:
    """Training of one phase.

    Several phase runs can take the same batches in turn, each as if it were alone. An epoch's seconds are this
    network's own, with its share of what the batches cost.

    Args:
        task: the phase.
        trainee: the network, with its tensors as they were at ``position``.
        optimizer: over its trained parameters, with its moments as they were there.
        compute: device and precision.
        micro_batch: how many rows of a batch are computed at once; fewer from where memory runs short.
        position: the phase's first step, or the ``position`` of an earlier run.
    """

    def __init__(
        self,
        task: PhaseTask,
        trainee: Trainee,
        optimizer: Optimizer,
        compute: Compute,
        micro_batch: MicroBatch,
        position: Position,
    ) -> None:
        self.task, self.trainee, self.optimizer = task, trainee, optimizer
        self.compute, self.micro_batch, self.position = compute, micro_batch, position
        self.stopped = False
        self._logits: list[metrics.Logits] = []  # of this epoch's validation, with labels and seconds
        self._labels: list[metrics.Labels] = []
        self._seconds = 0.0
        trainee.network.train()

    @property
    def is_over(self) -> bool:
        """Whether the last epoch is done, or early stopping ended the phase."""
        return self.stopped or self.position.epoch >= self.task.first_epoch + len(self.task.epoch_ends)

    @property
    def epoch_is_over(self) -> bool:
        """Whether all steps of the epoch are done, so that validation comes next."""
        epoch = self.position.epoch - self.task.first_epoch
        return not self.is_over and self.position.step >= self.task.epoch_ends[epoch]

    def train_step(self, fed: TimedBatch) -> None:
        """Take one optimiser step on a batch.

        Raises:
            Diverged: the loss or a gradient is infinite or NaN.
            OutOfMemory: not even one row fits into the device's memory.
        """
        started = time.perf_counter()
        at, smoothing = self.position, self.task.phase.label_smoothing
        dropout = DropoutKey(self.task.seed, at.step)
        set_learning_rate(self.optimizer, self._learning_rate(at.step))
        result = batch_gradients(
            self.trainee, self.optimizer, fed.batch, smoothing, dropout, self.compute, self.micro_batch
        )
        self.optimizer.step()
        mean, hits = _measured(result, self.optimizer, at.step + 1)
        self.optimizer.zero_grad(set_to_none=True)  # now, so that networks in lock-step hold no gradients meanwhile
        seconds = at.totals.seconds + fed.seconds + time.perf_counter() - started
        count = len(result.labels)
        totals = EpochTotals(at.totals.examples + count, at.totals.loss + mean * count, at.totals.hits + hits, seconds)
        self.position = Position(at.epoch, at.step + 1, at.stopping, totals)

    def validation_step(self, fed: TimedBatch) -> None:
        """Predict one batch of validation images.

        Raises:
            OutOfMemory: not even one row fits into the device's memory.
        """
        started = time.perf_counter()
        if not self._logits:
            self.trainee.network.eval()
        inputs, labels, _ = fed.batch
        self._logits += logits_of(
            self.trainee.network, inputs, self.compute, self.trainee.channels_last, self.micro_batch
        )
        self._labels.append(labels.numpy())
        self._seconds += fed.seconds + time.perf_counter() - started

    def end_epoch(self, examples: int) -> EpochResult:
        """Score the epoch, update early stopping and go to the next epoch.

        Args:
            examples: training images drawn so far, over all phases.

        Raises:
            Diverged: the validation loss is infinite or NaN.
        """
        started, at, task = time.perf_counter(), self.position, self.task
        logits, labels = np.concatenate(self._logits), np.concatenate(self._labels)
        val_loss = metrics.loss(logits, labels)
        if not math.isfinite(val_loss):
            raise Diverged(f"the validation loss is {val_loss} after epoch {at.epoch}")
        row = EpochRow(
            phase=task.number,
            epoch=at.epoch,
            step=at.step,
            lr=self._learning_rate(at.step - 1),
            train_loss=at.totals.loss / at.totals.examples,
            train_accuracy=at.totals.hits / at.totals.examples,
            val_loss=val_loss,
            val_accuracy=metrics.score("accuracy", logits, labels),
            val_metric=metrics.score(task.metric, logits, labels),
            seconds=at.totals.seconds + self._seconds + time.perf_counter() - started,
            examples=examples,
        )
        self._logits, self._labels, self._seconds = [], [], 0.0
        settings = task.early_stopping
        value = math.nan if settings is None else getattr(row, settings.monitor)
        stopping = after_epoch(at.stopping, settings, task.metric, value, at.epoch)
        self.position = Position(at.epoch + 1, at.step, stopping)
        self.stopped = should_stop(stopping, settings)
        if not self.is_over:
            self.trainee.network.train()
        return EpochResult(row, logits)

    def _learning_rate(self, step: int) -> float:
        phase, first = self.task.phase, self.task.first_step
        return learning_rate(phase.schedule, phase.optimizer.lr, step - first, self.task.epoch_ends[-1] - first)


def _measured(result: BatchResult, optimizer: Optimizer, step: int) -> tuple[float, int]:
    """Return a step's mean loss and hits, in one exchange with the device.

    Raises:
        Diverged: the loss or a gradient is infinite or NaN.
    """
    hits = (result.logits.argmax(dim=1) == result.labels).sum()
    mean, gradients, hit_count = torch.stack([result.loss, gradient_sum(optimizer), hits.float()]).tolist()
    if not math.isfinite(mean):
        raise Diverged(f"the training loss is {mean} at step {step}")
    if not math.isfinite(gradients) and not gradients_are_finite(optimizer):
        raise Diverged(f"a gradient is not a finite number at step {step}")
    return mean, int(hit_count)
