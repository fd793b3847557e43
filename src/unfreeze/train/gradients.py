"""Gradients of one batch, whole or in micro-batches."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer

from unfreeze.inputs.loader import Batch
from unfreeze.model.memory import fitted
from unfreeze.seeds import stream_seed
from unfreeze.train.device import Compute
from unfreeze.train.micro_batch import BatchNormStatistics, MicroBatch, WholeDropout, loss_weight, parts


@dataclass(frozen=True)
class Trainee:
    """A network that a phase trains, from its inputs on.

    ``channels_last`` says that inputs of four axes come in that memory format: wherever convolutions follow.
    ``class_weights``, float32 (classes,), weight the training loss.
    """

    network: nn.Module
    channels_last: bool = True
    class_weights: Tensor | None = None


def batch_gradients(
    trainee: Trainee,
    optimizer: Optimizer,
    batch: Batch,
    smoothing: float,
    draw: tuple[int, int],
    compute: Compute,
    micro_batch: MicroBatch,
) -> tuple[Tensor, Tensor, Tensor]:
    """Leave a batch's gradients with the parameters; return its mean loss (), logits (b, classes) and labels (b,).

    Args:
        trainee: the network.
        optimizer: over its parameters; its gradients are cleared where an attempt ran out of memory.
        batch: inputs, labels and indices.
        smoothing: of the labels.
        draw: the seed and step that dropout depends on, however the batch is divided.
        compute: device and precision.
        micro_batch: how many rows it takes at once; fewer from where memory runs short.

    Raises:
        OutOfMemory: not even the fewest rows fit into the device's memory.
    """
    network, before = trainee.network, BatchNormStatistics(trainee.network)
    count = len(batch[1])

    def undo() -> None:
        optimizer.zero_grad(set_to_none=True)
        before.put_back()

    def attempt(rows: int) -> tuple[Tensor, Tensor, Tensor]:
        with _dropout_stream(*draw):
            if rows >= count:
                inputs, labels = _moved(batch, trainee.channels_last, compute)
                loss, logits = _forward(trainee, inputs, labels, smoothing, compute)
                loss.backward()
                return loss.detach(), logits.detach(), labels
            inputs, labels, indices = batch[0], batch[1].to(compute.device), batch[2]
            whole, losses, found = loss_weight(labels, trainee.class_weights), list[Tensor](), list[Tensor]()
            masks = WholeDropout(count)
            with masks.inside(network):
                for part in parts(count, rows, before.least):
                    masks.turn_to(part)
                    some, wanted = _moved((inputs[part], labels[part], indices), trainee.channels_last, compute)
                    loss, logits = _forward(trainee, some, wanted, smoothing, compute, whole)
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
    """Return a batch's mean loss, or a part's share of it where ``whole`` is the batch's weight, and its logits."""
    with compute.forward_pass():
        logits = trainee.network(inputs)
        how = "mean" if whole is None else "sum"
        loss = cross_entropy(logits.float(), labels, trainee.class_weights, reduction=how, label_smoothing=smoothing)
        return loss if whole is None else loss / whole, logits


@contextlib.contextmanager
def _dropout_stream(seed: int, step: int) -> Iterator[None]:
    """Fix torch's generators for one step, so that dropout depends on (seed, step) alone; restore the CPU's after."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(seed, "dropout", step))
        yield
