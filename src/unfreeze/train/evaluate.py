"""Predict every image of a set."""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn

from unfreeze import metrics
from unfreeze.inputs.loader import Batch
from unfreeze.model.memory import halve_until_fits
from unfreeze.train.device import Compute
from unfreeze.train.micro_batch import MicroBatch


def predict(
    network: nn.Module,
    batches: Iterable[Batch],
    compute: Compute,
    channels_last: bool = True,
    micro_batch: MicroBatch | None = None,
) -> tuple[metrics.Logits, metrics.Labels]:
    """Return logits (n, classes) float32 and labels (n,) int64 of all batches, in order.

    Raises:
        OutOfMemory: not even one row fits into the device's memory.
    """
    micro_batch = micro_batch or MicroBatch()
    network.eval()
    logits, labels = [], []
    for inputs, answers, _ in batches:
        logits += logits_of(network, inputs, compute, channels_last, micro_batch)
        labels.append(answers.numpy())
    return np.concatenate(logits), np.concatenate(labels)


def logits_of(
    network: nn.Module, inputs: Tensor, compute: Compute, channels_last: bool, micro_batch: MicroBatch
) -> list[metrics.Logits]:
    """Return the logits of one batch, float32, in micro-batches; the network is in evaluation mode already.

    Raises:
        OutOfMemory: not even one row fits into the device's memory.
    """

    def attempt(rows: int) -> list[metrics.Logits]:
        return [network(compute.move(some, channels_last)).float().cpu().numpy() for some in inputs.split(rows)]

    asked = micro_batch.rows("evaluation", len(inputs))
    # Not around the batches, whose frozen stages set their own modes.
    with torch.inference_mode(), compute.forward_pass():
        found, rows = halve_until_fits(attempt, asked, compute.device)
    if rows < asked:
        micro_batch.less("evaluation", rows)
    return found
