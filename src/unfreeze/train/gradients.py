"""Gradients of one batch, whole or in micro-batches."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer

from unfreeze.inputs.loader import Batch
from unfreeze.model.memory import halve_until_fits
from unfreeze.seeds import stream_seed
from unfreeze.train.device import Compute
from unfreeze.train.micro_batch import BatchNormStatistics, MicroBatch, WholeDropout, loss_weight, parts


@dataclass(frozen=True)
class Trainee:
    """A network in training.

    Attributes:
        network: from its inputs on.
        channels_last: whether inputs of four axes come in that memory format, which suits convolutions.
        class_weights: of the training loss, float32 (classes,).
    """

    network: nn.Module
    channels_last: bool = True
    class_weights: Tensor | None = None


class BatchResult(NamedTuple):
    """Mean loss () of a batch, its logits (b, classes) and labels (b,), on the device."""

    loss: Tensor
    logits: Tensor
    labels: Tensor


@dataclass(frozen=True)
class DropoutKey:
    """Seed and step that dropout is drawn from, however the batch is divided."""

    seed: int
    step: int


def batch_gradients(
    trainee: Trainee,
    optimizer: Optimizer,
    batch: Batch,
    smoothing: float,
    dropout: DropoutKey,
    compute: Compute,
    micro_batch: MicroBatch,
) -> BatchResult:
    """Add the gradients of a batch to the parameters' ``grad``, and return its loss and logits.

    Args:
        trainee: the network.
        optimizer: of its parameters; clears their gradients after an attempt that ran out of memory.
        batch: inputs, labels and indices.
        smoothing: of the labels.
        dropout: what dropout is drawn from.
        compute: device and precision.
        micro_batch: how many rows are computed at once; fewer from where memory runs short.

    Raises:
        OutOfMemory: not even the fewest rows fit into the device's memory.
    """
    network, before = trainee.network, BatchNormStatistics(trainee.network)
    count = len(batch[1])

    def undo() -> None:
        optimizer.zero_grad(set_to_none=True)
        before.restore()

    def attempt(rows: int) -> BatchResult:
        with _dropout_stream(dropout):
            if rows >= count:
                inputs, labels = _moved(batch, trainee.channels_last, compute)
                loss, logits = _forward(trainee, inputs, labels, smoothing, compute)
                loss.backward()
                return BatchResult(loss.detach(), logits.detach(), labels)
            inputs, labels, indices = batch[0], batch[1].to(compute.device), batch[2]
            divisor, losses, part_logits = loss_weight(labels, trainee.class_weights), list[Tensor](), list[Tensor]()
            masks = WholeDropout(count)
            with masks.inside(network):
                for part in parts(count, rows, before.least):
                    masks.turn_to(part)
                    some, wanted = _moved((inputs[part], labels[part], indices), trainee.channels_last, compute)
                    loss, logits = _forward(trainee, some, wanted, smoothing, compute, divisor)
                    loss.backward()
                    losses.append(loss.detach())
                    part_logits.append(logits.detach())
            return BatchResult(torch.stack(losses).sum(), torch.cat(part_logits), labels)

    asked = micro_batch.rows("training", count)
    result, rows = halve_until_fits(attempt, asked, compute.device, min(asked, before.least), undo)
    if rows < asked:
        micro_batch.less("training", rows)
    return result


def _moved(batch: Batch, channels_last: bool, compute: Compute) -> tuple[Tensor, Tensor]:
    inputs, labels, _ = batch
    return compute.move(inputs, channels_last), labels.to(compute.device, non_blocking=True)


def _forward(
    trainee: Trainee,
    inputs: Tensor,
    labels: Tensor,
    smoothing: float,
    compute: Compute,
    divisor: Tensor | int | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the loss and the logits of a batch, or of a part of one: then ``divisor`` is that of the whole batch."""
    with compute.forward_pass():
        logits = trainee.network(inputs)
        reduction = "mean" if divisor is None else "sum"
        loss = cross_entropy(
            logits.float(), labels, trainee.class_weights, reduction=reduction, label_smoothing=smoothing
        )
        return loss if divisor is None else loss / divisor, logits


@contextlib.contextmanager
def _dropout_stream(dropout: DropoutKey) -> Iterator[None]:
    """Seed torch's generators for one step, and restore the CPU's afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(dropout.seed, "dropout", dropout.step))
        yield
