"""The training loop: the same for every strategy, device and kind of input."""

import contextlib
import math
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer

from unfreeze.config.resolve import Phase
from unfreeze.config.study import EarlyStopping
from unfreeze.model.fitting import fitted
from unfreeze.streams import stream_seed
from unfreeze.train.batches import Batch, Fed
from unfreeze.train.device import Compute
from unfreeze.train.micro_batch import MicroBatch, Statistics, WholeDropout, loss_weight, parts
from unfreeze.train.optimizer import gradient_sum, gradients_are_finite, learning_rate, set_learning_rate
from unfreeze.train.stopping import StoppingState, after_epoch, should_stop


class Diverged(Exception):
    """A loss, a gradient or a prediction is no longer a number.

    Args:
        text: which, and where.
        best: the best trained tensors so far, where they are kept.
    """

    def __init__(self, text: str, best: Mapping[str, Tensor] | None = None) -> None:
        super().__init__(text)
        self.best = dict(best or {})


@dataclass(frozen=True)
class Trainee:
    """What one phase trains: the network from its inputs on.

    ``channels_last`` says that inputs of four axes should come in that order: wherever convolutions follow.
    ``class_weights``, float32 (classes,), weigh the training loss.
    """

    network: nn.Module
    channels_last: bool = True
    class_weights: Tensor | None = None


@dataclass(frozen=True)
class Course:
    """Where a phase lies: its number, its epochs' last steps, and what came before it."""

    phase: int
    first_epoch: int
    first_step: int
    epoch_ends: Sequence[int]
    seed: int


@dataclass(frozen=True)
class Seen:
    """What an epoch has seen so far: examples, the sum of their losses, hits, and seconds of this network's own."""

    examples: int = 0
    loss: float = 0.0
    hits: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Position:
    """Where training stands between two steps.

    With the network's tensors and the optimiser's this is all that the rest depends on: rates, batches and dropout are
    functions of the step.

    Attributes:
        epoch: the next step's, counted from 1.
        step: how many are done, over all phases.
        stopping: early stopping so far.
        seen: in this epoch.
    """

    epoch: int
    step: int
    stopping: StoppingState
    seen: Seen = Seen()


@dataclass(frozen=True)
class Watch:
    """What the loop calls: to look at validation, after each step and epoch, and when weights are the best so far.

    ``validate`` is sent its batches as ``evaluate.evaluating`` is, and returns the same.
    """

    validate: Callable[[], Generator[None, Fed | None, dict[str, float]]]
    on_step: Callable[[int, int], None]
    on_epoch: Callable[[dict[str, float]], None]
    on_best: Callable[[], None]


def train_phase(
    trainee: Trainee,
    optimizer: Optimizer,
    phase: Phase,
    course: Course,
    compute: Compute,
    stopping: EarlyStopping | None,
    metric: str,
    begin: Position,
    watch: Watch,
    micro_batch: MicroBatch | None = None,
) -> Generator[Position | None, Any, tuple[StoppingState, bool]]:
    """Train one phase from a position on: yield the position before a step, be sent that step's batch, and so on.

    After an epoch it yields None instead, to be sent a batch of validation, and again until it is sent None for the
    end of them. Batches come as ``Fed``.

    Several networks that meet the same batches can thus train in lock-step, each as if it were alone. An epoch's
    seconds are this network's own, whatever happens between a yield and its answer.

    Args:
        trainee: the network, with its tensors as they were at ``begin``.
        optimizer: over its trained parameters, with what it remembered there.
        phase: how it is trained.
        course: where the phase lies.
        compute: device and precision.
        stopping: settings of early stopping.
        metric: the study's.
        begin: the phase's first step, or a position that was yielded before.
        watch: is told what happens.
        micro_batch: how many rows of a batch it takes at once; fewer from where memory runs short.

    Returns:
        The state of early stopping, and whether it ended the phase.

    Raises:
        Diverged: a loss or a gradient became infinite or NaN.
        NoRoom: not even one row fits.
    """
    micro_batch = micro_batch or MicroBatch()
    steps = course.epoch_ends[-1] - course.first_step
    step, state, seen = begin.step, begin.stopping, begin.seen
    for epoch in range(begin.epoch, course.first_epoch + len(course.epoch_ends)):
        trainee.network.train()
        while step < course.epoch_ends[epoch - course.first_epoch]:
            fed: Fed = yield Position(epoch, step, state, seen)
            started = time.perf_counter()
            rate = learning_rate(phase.schedule, phase.optimizer.lr, step - course.first_step, steps)
            set_learning_rate(optimizer, rate)
            draw = course.seed, step
            loss, logits, labels = _gradients(trainee, optimizer, fed.batch, phase, draw, compute, micro_batch)
            optimizer.step()
            step += 1
            mean, hits = _measured(loss, logits, labels, optimizer, step)
            optimizer.zero_grad(set_to_none=True)  # now, so that networks in lock-step hold no gradients meanwhile
            spent = seen.seconds + fed.seconds + time.perf_counter() - started
            seen = Seen(seen.examples + len(labels), seen.loss + mean * len(labels), seen.hits + hits, spent)
            watch.on_step(epoch, step)
        row = {"phase": course.phase, "epoch": epoch, "step": step, "lr": rate}
        row |= {"train_loss": seen.loss / seen.examples, "train_accuracy": seen.hits / seen.examples}
        row |= yield from watch.validate()
        if not math.isfinite(row["val_loss"]):
            raise Diverged(f"the validation loss is {row['val_loss']} after epoch {epoch}")
        row["seconds"] += seen.seconds
        state, seen = after_epoch(state, stopping, metric, row, epoch), Seen()
        if state.best_epoch == epoch:
            watch.on_best()
        watch.on_epoch(row)
        if should_stop(state, stopping):
            return state, True
    return state, False


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


def _gradients(
    trainee: Trainee,
    optimizer: Optimizer,
    batch: Batch,
    phase: Phase,
    draw: tuple[int, int],
    compute: Compute,
    micro_batch: MicroBatch,
) -> tuple[Tensor, Tensor, Tensor]:
    """Leave a batch's gradients with the parameters, all at once or in parts; return its mean loss, logits and labels.

    ``draw`` is the seed and step that dropout depends on, however the batch is divided.
    """
    network, before = trainee.network, Statistics(trainee.network)
    count = len(batch[1])

    def undo() -> None:
        optimizer.zero_grad(set_to_none=True)
        before.put_back()

    def attempt(rows: int) -> tuple[Tensor, Tensor, Tensor]:
        with _dropout_stream(*draw):
            if rows >= count:
                inputs, labels = _moved(batch, trainee.channels_last, compute)
                loss, logits = _forward(trainee, inputs, labels, phase.label_smoothing, compute)
                loss.backward()
                return loss.detach(), logits.detach(), labels
            inputs, labels, indices = batch[0], batch[1].to(compute.device), batch[2]
            whole, losses, found = loss_weight(labels, trainee.class_weights), list[Tensor](), list[Tensor]()
            masks = WholeDropout(count)
            with masks.inside(network):
                for part in parts(count, rows, before.least):
                    masks.turn_to(part)
                    some, wanted = _moved((inputs[part], labels[part], indices), trainee.channels_last, compute)
                    loss, logits = _forward(trainee, some, wanted, phase.label_smoothing, compute, whole)
                    loss.backward()
                    losses.append(loss.detach())
                    found.append(logits.detach())
            return torch.stack(losses).sum(), torch.cat(found), labels

    asked = micro_batch.rows("training", count)
    made, rows = fitted(attempt, asked, compute.device, min(asked, before.least), undo)
    if rows < asked:
        micro_batch.less("training", rows)
    return made


def _moved(batch: Batch, channels_last: bool, compute: Compute) -> tuple[Tensor, Tensor]:
    inputs, labels, _ = batch
    return compute.move(inputs, channels_last), labels.to(compute.device, non_blocking=True)


def _forward(
    trainee: Trainee,
    inputs: Tensor,
    labels: Tensor,
    smoothing: float,
    compute: Compute,
    whole: Tensor | int | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the mean loss of a batch, or a part's share of it where ``whole`` is the batch's weight, and logits."""
    with compute.forward_pass():
        logits = trainee.network(inputs)
        how = "mean" if whole is None else "sum"
        loss = cross_entropy(logits.float(), labels, trainee.class_weights, reduction=how, label_smoothing=smoothing)
        return loss if whole is None else loss / whole, logits


@contextlib.contextmanager
def _dropout_stream(seed: int, step: int) -> Iterator[None]:
    """Fix torch's generators for one step, so that dropout depends on (seed, step) alone; leave the CPU's as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(seed, "dropout", step))
        yield
