"""One phase of training: any network, any inputs, one optimiser."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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
from unfreeze.train.gradients import Trainee, batch_gradients
from unfreeze.train.micro_batch import MicroBatch
from unfreeze.train.optimizers import gradient_sum, gradients_are_finite, learning_rate, set_learning_rate


class Diverged(Exception):
    """A loss, a gradient or a prediction is not a finite number.

    Args:
        text: which one, and where.
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
class EpochTotals:
    """Totals of an epoch so far: examples, the sum of their losses, hits, and this network's own seconds."""

    examples: int = 0
    loss: float = 0.0
    hits: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Position:
    """Where training stands between two steps.

    With the network's tensors and the optimiser's this is all that the rest depends on: learning rates, batches and
    dropout are functions of the step.

    Attributes:
        epoch: of the next step, from 1.
        step: steps done, over all phases.
        stopping: early stopping so far.
        totals: of this epoch.
    """

    epoch: int
    step: int
    stopping: StoppingState
    totals: EpochTotals = EpochTotals()


class PhaseRun:
    """One phase in training.

    Several phase runs that meet the same batches can be stepped in turn, each as if it were alone. An epoch's seconds
    are this network's own, with its share of what the batches cost.

    Args:
        task: what to train, and when.
        trainee: the network, with its tensors as they were at ``position``.
        optimizer: over its trained parameters, with its moments as they were there.
        compute: device and precision.
        micro_batch: how many rows of a batch it takes at once; fewer from where memory runs short.
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
        self.task, self.trainee, self.optimizer, self.compute, self.micro_batch = (
            task,
            trainee,
            optimizer,
            compute,
            micro_batch,
        )
        self.position = position
        self.stopped = False
        self.logits: metrics.Logits | None = None
        """Logits of the last epoch's validation, float32 (n, classes)."""
        self._found: list[metrics.Logits] = []
        self._labels: list[metrics.Labels] = []
        self._seconds = 0.0  # of this epoch's validation
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
        at, phase, draw = self.position, self.task.phase, (self.task.seed, self.position.step)
        set_learning_rate(self.optimizer, self._learning_rate(at.step))
        found = batch_gradients(
            self.trainee, self.optimizer, fed.batch, phase.label_smoothing, draw, self.compute, self.micro_batch
        )
        self.optimizer.step()
        mean, hits = _measured(*found, self.optimizer, at.step + 1)
        self.optimizer.zero_grad(set_to_none=True)  # now, so that networks in lock-step hold no gradients meanwhile
        seconds = at.totals.seconds + fed.seconds + time.perf_counter() - started
        count = len(found[2])
        totals = EpochTotals(at.totals.examples + count, at.totals.loss + mean * count, at.totals.hits + hits, seconds)
        self.position = Position(at.epoch, at.step + 1, at.stopping, totals)

    def validation_step(self, fed: TimedBatch) -> None:
        """Predict one batch of validation images.

        Raises:
            OutOfMemory: not even one row fits into the device's memory.
        """
        started = time.perf_counter()
        if not self._found:
            self.trainee.network.eval()
        inputs, labels, _ = fed.batch
        self._found += logits_of(
            self.trainee.network, inputs, self.compute, self.trainee.channels_last, self.micro_batch
        )
        self._labels.append(labels.numpy())
        self._seconds += fed.seconds + time.perf_counter() - started

    def end_epoch(self) -> dict[str, Any]:
        """Score the epoch, update early stopping and go to the next epoch; return the epoch's history row.

        Raises:
            Diverged: the validation loss is infinite or NaN.
        """
        started, at, task = time.perf_counter(), self.position, self.task
        self.logits, labels = np.concatenate(self._found), np.concatenate(self._labels)
        row: dict[str, Any] = {
            "phase": task.number,
            "epoch": at.epoch,
            "step": at.step,
            "lr": self._learning_rate(at.step - 1),
            "train_loss": at.totals.loss / at.totals.examples,
            "train_accuracy": at.totals.hits / at.totals.examples,
            "val_loss": metrics.loss(self.logits, labels),
            "val_accuracy": metrics.score("accuracy", self.logits, labels),
            "val_metric": metrics.score(task.metric, self.logits, labels),
        }
        if not math.isfinite(row["val_loss"]):
            raise Diverged(f"the validation loss is {row['val_loss']} after epoch {at.epoch}")
        row["seconds"] = at.totals.seconds + self._seconds + time.perf_counter() - started
        self._found, self._labels, self._seconds = [], [], 0.0
        stopping = after_epoch(at.stopping, task.early_stopping, task.metric, row, at.epoch)
        self.position = Position(at.epoch + 1, at.step, stopping)
        self.stopped = should_stop(stopping, task.early_stopping)
        if not self.is_over:
            self.trainee.network.train()
        return row

    def _learning_rate(self, step: int) -> float:
        phase, first = self.task.phase, self.task.first_step
        return learning_rate(phase.schedule, phase.optimizer.lr, step - first, self.task.epoch_ends[-1] - first)


def _measured(loss: Tensor, logits: Tensor, labels: Tensor, optimizer: Optimizer, step: int) -> tuple[float, int]:
    """Return a step's mean loss and hits, in one exchange with the device.

    Raises:
        Diverged: the loss or a gradient is infinite or NaN.
    """
    hits = (logits.detach().argmax(dim=1) == labels).sum()
    mean, total, count = torch.stack([loss.detach(), gradient_sum(optimizer), hits.float()]).tolist()
    if not math.isfinite(mean):
        raise Diverged(f"the training loss is {mean} at step {step}")
    if not math.isfinite(total) and not gradients_are_finite(optimizer):
        raise Diverged(f"a gradient is not a finite number at step {step}")
    return mean, int(count)
