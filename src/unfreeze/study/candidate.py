"""Train one candidate: build the network phase by phase, keep its best weights and its history."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from unfreeze.config.resolve import Strategy, expected_epochs
from unfreeze.config.study import Metric, RegimeConfig
from unfreeze.data.order import examples_after, steps_for_examples
from unfreeze.errors import UserError
from unfreeze.model.backbone import Backbone, load_backbone, reinitialise
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
from unfreeze.train.batches import EvaluationBatches, ImageSet, training_batches
from unfreeze.train.device import Compute
from unfreeze.train.evaluate import evaluate
from unfreeze.train.loop import Course, Trainee, Watch, train_phase
from unfreeze.train.stopping import StoppingState


@dataclass(frozen=True)
class Images:
    """The images of a cell as its strategy sees them."""

    train: ImageSet
    validation: ImageSet


@dataclass(frozen=True)
class Trained:
    """A trained candidate: its network with the reported weights, its history, and what was counted."""

    network: Network
    backbone: Backbone
    images: Images
    history: list[dict[str, Any]]
    best_epoch: int
    stopped_by: str
    params_total: int
    params_trained: int
    prefix_hash: str

    @property
    def best(self) -> dict[str, Any]:
        """The history row of the reported epoch."""
        return next(row for row in self.history if row["epoch"] == self.best_epoch)


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


def _check_batches(network: Network, images: int, batch_size: int) -> None:
    """Refuse a last batch of one image where BatchNorm would have to take its statistics."""
    training = any(module.training for module in network.suffix.modules() if isinstance(module, _BatchNorm))
    if training and images % batch_size == 1:
        raise UserError(
            f"batch_size: {batch_size} with {images} training images leaves a last batch of one",
            "at least two images in a batch, since the BatchNorm of stages with fresh weights (or batch_norm: train) "
            "takes its statistics from each",
            "choose another batch_size, or another number of images",
        )


def train_candidate(
    strategy: Strategy,
    regime: RegimeConfig,
    metric: Metric,
    seed: int,
    classes: int,
    images: Callable[[Backbone], Images],
    compute: Compute,
    workers: int,
    on_step: Callable[[int, int], None],
    on_epoch: Callable[[dict[str, Any]], None],
) -> Trained:
    """Train all phases of one candidate.

    Args:
        strategy: what to train, all values known.
        regime: gives the length of an epoch and how validation is seen.
        metric: the study's metric, measured on validation each epoch.
        seed: of the streams init, order, augment and dropout.
        classes: number of classes.
        images: gives the images, preprocessed as the backbone's weights want them.
        compute: device and precision.
        workers: processes that prepare batches; no number depends on it.
        on_step: called with (epoch, examples drawn) after each step.
        on_epoch: called with each history row.

    Raises:
        UserError: the backbone, its weights or a cut does not exist.
        Diverged: the loss became infinite or NaN.
    """
    backbone = load_backbone(strategy.backbone.name, strategy.backbone.weights, strategy.image_size, seed)
    head = build_head(strategy.head, backbone, classes, seed)
    cuts = cuts_of(strategy, backbone)
    shown = images(backbone)
    validation = EvaluationBatches(shown.validation, workers, regime.validation.examples, seed)
    ends = epoch_ends(len(shown.train), strategy.batch_size, regime, expected_epochs(strategy))
    # The weights that anything trains, whatever the phase: what is restored, saved and counted.
    everything = build_network(backbone, head, min(cuts), "train").to(compute.device)
    stopping = strategy.early_stopping
    fresh_from = 0 if strategy.backbone.weights == "none" else len(backbone.stages)
    state, history = StoppingState(), list[dict[str, Any]]()
    best: dict[str, Tensor] = {}
    first_epoch, first_step, stopped = 1, 0, False
    for number, (phase, cut) in enumerate(zip(strategy.phases, cuts, strict=True)):
        if phase.reinit:
            reinitialise(backbone, cut, seed)
            fresh_from = min(fresh_from, cut)
        network = build_network(backbone, head, cut, phase.batch_norm, fresh_from)
        network.to(compute.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        _check_batches(network, len(shown.train), strategy.batch_size)
        before = tensors_hash(frozen_state(network, backbone))
        last_epoch = first_epoch + phase.epochs - 1

        def validate(network: Network = network) -> dict[str, float]:
            return evaluate(network, validation, compute, metric)

        def keep(row: dict[str, Any]) -> None:
            history.append({**row, "examples": examples_after(len(shown.train), strategy.batch_size, row["step"])})
            on_epoch(history[-1])

        def keep_best() -> None:
            if stopping and stopping.restore_best:
                best.update(trained_state(everything, backbone))

        state, stopped = train_phase(
            Trainee(network, [*network.suffix.stages, head]),
            phase,
            Course(number, first_epoch, first_step, ends[first_epoch - 1 : last_epoch], seed),
            training_batches(shown.train, strategy.batch_size, seed, first_step, ends[last_epoch - 1], workers),
            compute,
            stopping,
            metric,
            replace(state, waited=0),
            Watch(
                validate,
                lambda epoch, step: on_step(epoch, examples_after(len(shown.train), strategy.batch_size, step)),
                keep,
                keep_best,
            ),
        )
        if tensors_hash(frozen_state(network, backbone)) != before:
            raise RuntimeError(f"the frozen stages of {backbone.name} changed while the others trained; this is a bug")
        if best:
            load_trained_state(everything, backbone, best)
        first_epoch, first_step = history[-1]["epoch"] + 1, history[-1]["step"]
    keeps = stopping is not None and stopping.restore_best
    return Trained(
        network=everything,
        backbone=backbone,
        images=shown,
        history=history,
        best_epoch=(state.best_epoch or history[-1]["epoch"]) if keeps else history[-1]["epoch"],
        stopped_by="early_stopping" if stopped else "epochs",
        params_total=count_parameters(backbone.model) + count_parameters(head),
        params_trained=count_parameters(everything.suffix) + count_parameters(head),
        prefix_hash=tensors_hash(frozen_state(everything, backbone)),
    )
