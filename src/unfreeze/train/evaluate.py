"""Predictions of every image, none missing, and their scores."""

import time
from collections.abc import Callable, Generator, Iterable

import numpy as np
import torch
from torch import Tensor, nn

from unfreeze import metrics
from unfreeze.model.fitting import fitted
from unfreeze.train.batches import Batch, Fed
from unfreeze.train.device import Compute
from unfreeze.train.micro_batch import MicroBatch


def predict(
    network: nn.Module,
    batches: Iterable[Batch],
    compute: Compute,
    channels_last: bool = True,
    micro_batch: MicroBatch | None = None,
) -> tuple[metrics.Logits, metrics.Labels]:
    """Return logits (n, classes) float32 and labels (n,) int64 of all draws, in the order they were drawn.

    Raises:
        NoRoom: not even one row fits into the device's memory.
    """
    micro_batch = micro_batch or MicroBatch()
    network.eval()
    logits, labels = [], []
    for inputs, answers, _ in batches:
        logits += _logits(network, inputs, compute, channels_last, micro_batch)
        labels.append(answers.numpy())
    return np.concatenate(logits), np.concatenate(labels)


def _logits(
    network: nn.Module, inputs: Tensor, compute: Compute, channels_last: bool, micro_batch: MicroBatch
) -> list[metrics.Logits]:
    def attempt(rows: int) -> list[metrics.Logits]:
        return [network(compute.move(some, channels_last)).float().cpu().numpy() for some in inputs.split(rows)]

    asked = micro_batch.rows("evaluation", len(inputs))
    with torch.inference_mode(), compute.forward_pass():  # here, since frozen stages before it have ways of their own
        found, rows = fitted(attempt, asked, compute.device)
    if rows < asked:
        micro_batch.less("evaluation", rows)
    return found


def evaluating(
    network: nn.Module,
    compute: Compute,
    metric: str,
    channels_last: bool = True,
    micro_batch: MicroBatch | None = None,
    on_logits: Callable[[metrics.Logits], None] | None = None,
) -> Generator[None, Fed | None, dict[str, float]]:
    """Look at validation: be sent its batches one by one, and None after the last.

    Several networks can thus look at the same batches. ``on_logits`` is given the logits (n, classes) of all draws.

    Returns:
        ``val_loss``, ``val_accuracy`` and ``val_metric`` over all draws, and the ``seconds`` that it took.

    Raises:
        NoRoom: not even one row fits into the device's memory.
    """
    micro_batch = micro_batch or MicroBatch()
    network.eval()
    found, answers, seconds = list[metrics.Logits](), list[metrics.Labels](), 0.0
    while (fed := (yield)) is not None:
        started = time.perf_counter()
        inputs, some, _ = fed.batch
        found += _logits(network, inputs, compute, channels_last, micro_batch)
        answers.append(some.numpy())
        seconds += fed.seconds + time.perf_counter() - started
    started = time.perf_counter()
    logits, labels = np.concatenate(found), np.concatenate(answers)
    if on_logits is not None:
        on_logits(logits)
    scores = {
        "val_loss": metrics.loss(logits, labels),
        "val_accuracy": metrics.score("accuracy", logits, labels),
        "val_metric": metrics.score(metric, logits, labels),
    }
    return scores | {"seconds": seconds + time.perf_counter() - started}
