"""Train one phase of any module on any inputs: rows, early stopping, divergence."""

import dataclasses
import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from unfreeze import metrics
from unfreeze.config.resolve import Optimizer, Phase
from unfreeze.config.schema import EarlyStopping, ScheduleConfig
from unfreeze.inputs.loader import TimedBatch
from unfreeze.train.device import Compute
from unfreeze.train.early_stopping import StoppingState
from unfreeze.train.evaluate import predict
from unfreeze.train.gradients import Trainee
from unfreeze.train.micro_batch import MicroBatch
from unfreeze.train.optimizers import build_optimizer
from unfreeze.train.phase_run import Diverged, EpochRow, PhaseRun, PhaseTask, Position

CPU = Compute(torch.device("cpu"), "float32")


def phase(lr: float = 0.1, epochs: int = 3, smoothing: float = 0.0) -> Phase:
    optimizer = Optimizer("sgd", lr, momentum=0.0, weight_decay=0.0, layer_decay=1.0)
    return Phase("all", epochs, optimizer, ScheduleConfig(name="constant", warmup=0), "frozen", False, smoothing)


def network(dropout: float = 0.0) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Dropout(dropout), nn.Linear(8, 3))


def data() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(12, 5, generator=generator)
    return inputs, (inputs[:, :3]).argmax(dim=1)


def batches(inputs: torch.Tensor, labels: torch.Tensor) -> Iterator[Any]:
    return itertools.cycle([(inputs, labels, torch.arange(len(labels)))])


def run_of(net: nn.Module, settings: Phase, stopping=None, ends=(2, 4, 6), seed=0, compute=CPU) -> PhaseRun:
    task = PhaseTask(0, settings, seed, 1, 0, ends, stopping, "accuracy")
    position = Position(1, 0, StoppingState())
    return PhaseRun(task, Trainee(net), build_optimizer([net], settings.optimizer), compute, MicroBatch(), position)


def fit(run: PhaseRun, stream: Iterator[Any]) -> list[EpochRow]:
    """Train a run to its end, with the training images for validation; return its rows."""
    rows = []
    while not run.is_over:
        while not run.epoch_is_over:
            run.train_step(TimedBatch(next(stream)))
        run.validation_step(TimedBatch(next(batches(*data()))))
        rows.append(run.end_epoch(0).row)
    return rows


def test_training_on_activations_lowers_the_loss_and_gives_a_row_an_epoch() -> None:
    run = run_of(network(), phase(lr=0.5, epochs=10), ends=range(10, 101, 10))
    rows = fit(run, batches(*data()))
    assert not run.stopped
    assert [row.epoch for row in rows] == list(range(1, 11))
    assert [row.step for row in rows] == list(range(10, 101, 10))
    assert rows[-1].train_loss < 0.3 * rows[0].train_loss
    assert rows[-1].train_accuracy == 1.0


def test_train_values_are_means_over_examples_not_over_batches() -> None:
    net = nn.Sequential(nn.Linear(5, 3))
    nn.init.zeros_(net[0].weight)
    nn.init.zeros_(net[0].bias)
    inputs, labels = data()
    stream = iter([(inputs[:8], labels[:8] * 0, None), (inputs[8:], labels[8:] * 0 + 1, None)])
    rows = fit(run_of(net, phase(lr=1e-12, epochs=1), ends=(2,)), stream)
    assert rows[0].train_loss == pytest.approx(math.log(3))
    assert rows[0].train_accuracy == pytest.approx(8 / 12)


def test_early_stopping_ends_the_phase_and_names_the_earliest_best(monkeypatch: pytest.MonkeyPatch) -> None:
    losses = iter([1.0, 0.5, 0.5, 0.6, 0.1])
    monkeypatch.setattr(metrics, "loss", lambda logits, labels: next(losses))
    run = run_of(network(), phase(epochs=9), EarlyStopping(patience=2), ends=range(2, 20, 2))
    rows = fit(run, batches(*data()))
    assert run.stopped
    assert [row.val_loss for row in rows] == [1.0, 0.5, 0.5, 0.6]
    assert run.position.stopping == StoppingState(best=0.5, best_epoch=2, waited=2)


def test_a_loss_that_is_not_a_number_ends_training_within_a_step() -> None:
    inputs, labels = data()
    drawn = []

    def stream() -> Iterator[Any]:
        for step in itertools.count():
            drawn.append(step)
            yield (inputs * float("nan") if step == 3 else inputs), labels, None

    with pytest.raises(Diverged, match=r"^the training loss is nan at step 4$"):
        fit(run_of(network(), phase()), stream())
    assert drawn == [0, 1, 2, 3]


def test_a_validation_loss_that_is_not_a_number_ends_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "loss", lambda logits, labels: math.inf)
    with pytest.raises(Diverged, match=r"^the validation loss is inf after epoch 1$"):
        fit(run_of(network(), phase()), batches(*data()))


def test_dropout_depends_on_seed_and_step_alone() -> None:
    def weights(seed: int, disturb: bool) -> torch.Tensor:
        net = network(dropout=0.5)
        torch.manual_seed(99 if disturb else 7)
        fit(run_of(net, phase(), seed=seed), batches(*data()))
        return net[0].weight.detach()

    assert torch.equal(weights(0, False), weights(0, True))
    assert not torch.equal(weights(0, False), weights(1, False))


def test_the_global_generator_is_left_as_it_was() -> None:
    net = network(dropout=0.5)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    fit(run_of(net, phase()), batches(*data()))
    assert torch.equal(torch.rand(3), expected)


def test_label_smoothing_raises_the_loss_of_sure_predictions() -> None:
    inputs, labels = data()
    plain, smoothed = (
        fit(run_of(network(), phase(lr=1e-12, epochs=1, smoothing=smoothing), ends=(1,)), batches(inputs * 20, labels))
        for smoothing in (0.0, 0.2)
    )
    assert plain[0].train_loss < smoothed[0].train_loss


def test_bfloat16_trains_too() -> None:
    net = network()
    run = run_of(net, phase(lr=0.5, epochs=1), ends=(50,), compute=Compute(torch.device("cpu"), "bfloat16"))
    rows = fit(run, batches(*data()))
    assert rows[0].train_loss < 1.0
    assert net[0].weight.dtype == torch.float32


def test_a_run_resumes_from_its_position_between_any_two_steps() -> None:
    def trained(stop: int) -> tuple[list[EpochRow], torch.Tensor]:
        """Train with dropout and momentum-free SGD; at ``stop`` steps a new run takes over."""
        inputs, labels = data()
        settings, net = phase(epochs=2), network(dropout=0.5)
        run, rows = run_of(net, settings, ends=(3, 6)), []
        while not run.is_over:
            if run.position.step == stop:
                heir = network(dropout=0.5)
                heir.load_state_dict(net.state_dict())
                optimizer = build_optimizer([heir], settings.optimizer)
                net, run = heir, PhaseRun(run.task, Trainee(heir), optimizer, CPU, MicroBatch(), run.position)
            run.train_step(TimedBatch((inputs, labels, None)))
            if run.epoch_is_over:
                run.validation_step(TimedBatch((inputs, labels, None)))
                rows.append(dataclasses.replace(run.end_epoch(0).row, seconds=0.0))
        return rows, net[0].weight.detach()

    expected, weights = trained(-1)
    for stop in range(6):
        rows, found = trained(stop)
        assert rows == expected
        assert torch.equal(found, weights)


def test_seconds_of_an_epoch_are_those_of_its_batches_and_its_own() -> None:
    inputs, labels = data()
    net = network()
    run = run_of(net, phase(epochs=1), ends=(1,))
    run.train_step(TimedBatch((inputs, labels, None), 100.0))
    for some in (slice(0, 8), slice(8, 12)):
        run.validation_step(TimedBatch((inputs[some], labels[some], None), 15.0))
    row, found = run.end_epoch(7)
    logits, _ = predict(net, [(inputs, labels, None)], CPU)
    assert np.array_equal(found, logits)
    assert row.examples == 7
    assert row.val_accuracy == (logits.argmax(axis=1) == labels.numpy()).mean()
    assert 130.0 < row.seconds < 140.0
