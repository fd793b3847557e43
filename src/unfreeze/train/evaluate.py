"""Predictions of every image, none missing, and their scores."""

from collections.abc import Iterable

import numpy as np
import torch
from torch import nn

from unfreeze import metrics
from unfreeze.train.batches import Batch
from unfreeze.train.device import Compute


def predict(
    network: nn.Module, batches: Iterable[Batch], compute: Compute, channels_last: bool = True
) -> tuple[metrics.Logits, metrics.Labels]:
    """Return logits (n, classes) float32 and labels (n,) int64 of all draws, in the order they were drawn."""
    network.eval()
    logits, labels = [], []
    with torch.inference_mode(), compute.autocast():
        for inputs, answers, _ in batches:
            logits.append(network(compute.move(inputs, channels_last)).float().cpu().numpy())
            labels.append(answers.numpy())
    return np.concatenate(logits), np.concatenate(labels)


def evaluate(
    network: nn.Module, batches: Iterable[Batch], compute: Compute, metric: str, channels_last: bool = True
) -> dict[str, float]:
    """Return ``val_loss``, ``val_accuracy`` and ``val_metric`` over all draws."""
    logits, labels = predict(network, batches, compute, channels_last)
    return {
        "val_loss": metrics.loss(logits, labels),
        "val_accuracy": metrics.score("accuracy", logits, labels),
        "val_metric": metrics.score(metric, logits, labels),
    }
