"""The training loop: the same for every strategy, device and kind of input."""

import contextlib
import math
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from unfreeze.config.resolve import Phase
from unfreeze.config.study import EarlyStopping
from unfreeze.streams import stream_seed
from unfreeze.train.batches import Batch
from unfreeze.train.device import Compute
from unfreeze.train.optimizer import build_optimizer, learning_rate, set_learning_rate
from unfreeze.train.stopping import StoppingState, after_epoch, should_stop


class Diverged(Exception):
    """The training loss is no longer a number."""


@dataclass(frozen=True)
class Trainee:
    """What one phase trains: the network from its inputs on, its trained layers in order (stages, then the head).

    ``channels_last`` says that inputs of four axes should come in that order: wherever convolutions follow.
    ``class_weights``, float32 (classes,), weigh the training loss.
    """

    network: nn.Module
    layers: Sequence[nn.Module]
    channels_last: bool = True
    class_weights: Tensor | None = None


@dataclass(frozen=True)
class Fed:
    """A step's batch, and this trainee's share of the seconds that it took to have it ready."""

    batch: Batch
    seconds: float = 0.0


@dataclass(frozen=True)
class Course:
    """Where a phase lies: its number, its epochs' last steps, and what came before it."""

    phase: int
    first_epoch: int
    first_step: int
    epoch_ends: Sequence[int]
    seed: int


@dataclass(frozen=True)
class Watch:
    """What the loop calls: for validation scores, after each step and epoch, and when weights are the best so far."""

    validate: Callable[[], dict[str, float]]
    on_step: Callable[[int, int], None]
    on_epoch: Callable[[dict[str, float]], None]
    on_best: Callable[[], None]


def train_phase(
    trainee: Trainee,
    phase: Phase,
    course: Course,
    compute: Compute,
    stopping: EarlyStopping | None,
    metric: str,
    state: StoppingState,
    watch: Watch,
) -> Generator[int, Fed, tuple[StoppingState, bool]]:
    """Train one phase: yield the number of a step, be sent its batch, and so on.

    Several networks that meet the same batches can thus train in lock-step, each as if it were alone. An epoch's
    seconds are this network's own, whatever happens between a yield and its answer.

    Returns:
        The state of early stopping, and whether it ended the phase.

    Raises:
        Diverged: the loss became infinite or NaN.
    """
    optimizer = build_optimizer(trainee.layers, phase.optimizer)
    steps = course.epoch_ends[-1] - course.first_step
    step = course.first_step
    for epoch, end in enumerate(course.epoch_ends, start=course.first_epoch):
        trainee.network.train()
        seen, loss_sum, hits, spent = 0, 0.0, 0, 0.0
        while step < end:
            fed = yield step
            started = time.perf_counter()
            rate = learning_rate(phase.schedule, phase.optimizer.lr, step - course.first_step, steps)
            set_learning_rate(optimizer, rate)
            inputs, labels = _moved(fed.batch, trainee.channels_last, compute)
            with _dropout_stream(course.seed, step):
                loss, logits = _forward(trainee, inputs, labels, phase.label_smoothing, compute)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)  # now, so that networks in lock-step hold no gradients meanwhile
            step += 1
            seen += len(labels)
            loss_sum += loss.item() * len(labels)
            hits += int((logits.detach().argmax(dim=1) == labels).sum())
            if not loss_sum < float("inf"):  # NaN compares false
                raise Diverged(f"the training loss is {loss.item()} at step {step}")
            spent += fed.seconds + time.perf_counter() - started
            watch.on_step(epoch, step)
        started = time.perf_counter()
        row = {"phase": course.phase, "epoch": epoch, "step": step, "lr": rate}
        row |= {"train_loss": loss_sum / seen, "train_accuracy": hits / seen}
        row |= watch.validate()
        if not math.isfinite(row["val_loss"]):
            raise Diverged(f"the validation loss is {row['val_loss']} after epoch {epoch}")
        row["seconds"] = spent + time.perf_counter() - started
        state = after_epoch(state, stopping, metric, row, epoch)
        if state.best_epoch == epoch:
            watch.on_best()
        watch.on_epoch(row)
        if should_stop(state, stopping):
            return state, True
    return state, False


def _moved(batch: Batch, channels_last: bool, compute: Compute) -> tuple[Tensor, Tensor]:
    inputs, labels, _ = batch
    return compute.move(inputs, channels_last), labels.to(compute.device, non_blocking=True)


def _forward(
    trainee: Trainee, inputs: Tensor, labels: Tensor, smoothing: float, compute: Compute
) -> tuple[Tensor, Tensor]:
    with compute.autocast():
        logits = trainee.network(inputs)
        loss = cross_entropy(logits.float(), labels, trainee.class_weights, label_smoothing=smoothing)
        return loss, logits


@contextlib.contextmanager
def _dropout_stream(seed: int, step: int) -> Iterator[None]:
    """Fix torch's generators for one step, so that dropout depends on (seed, step) alone; leave the CPU's as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(seed, "dropout", step))
        yield
