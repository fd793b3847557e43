"""The loop trains any module on any inputs; stopping and divergence are its only ways out before the end."""

import itertools
import math

import pytest
import torch
from torch import nn
from unfreeze.train.loop import Course, Diverged, Position, Trainee, Watch, train_phase

from unfreeze.config.resolve import Optimizer, Phase
from unfreeze.config.study import EarlyStopping, ScheduleConfig
from unfreeze.train.batches import Fed
from unfreeze.train.device import Compute
from unfreeze.train.evaluate import evaluating, predict
from unfreeze.train.optimizer import build_optimizer
from unfreeze.train.stopping import StoppingState

CPU = Compute(torch.device("cpu"), "float32")


def phase(lr: float = 0.1, epochs: int = 3, smoothing: float = 0.0) -> Phase:
    optimizer = Optimizer("sgd", lr, momentum=0.0, weight_decay=0.0, layer_decay=1.0)
    return Phase("all", epochs, optimizer, ScheduleConfig(name="constant", warmup=0), "frozen", False, smoothing)


def batches(inputs: torch.Tensor, labels: torch.Tensor) -> itertools.cycle:
    return itertools.cycle([(inputs, labels, torch.arange(len(labels)))])


def network(dropout: float = 0.0) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Dropout(dropout), nn.Linear(8, 3))


def fed(training, stream):
    """Answer every step with the next batch."""
    try:
        next(training)
        while True:
            training.send(Fed(next(stream)))
    except StopIteration as end:
        return end.value


def scored(losses=()):
    """Looks at validation that need no batch and give these losses, then ones."""
    given = itertools.chain(losses, itertools.repeat(1.0))

    def validate():
        yield from ()
        return {"val_loss": next(given), "val_accuracy": 0.5, "val_metric": 0.5, "seconds": 0.0}

    return validate


def train(net, settings, stream, stopping=None, losses=(), ends=(2, 4, 6), seed=0):
    rows, best = [], []
    training = train_phase(
        Trainee(net),
        build_optimizer([net], settings.optimizer),
        settings,
        Course(0, 1, 0, ends, seed),
        CPU,
        stopping,
        "accuracy",
        Position(1, 0, StoppingState()),
        Watch(scored(losses), lambda epoch, step: None, rows.append, lambda: best.append(len(rows) + 1)),
    )
    state, stopped = fed(training, stream)
    return state, stopped, rows, best


def data() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(12, 5, generator=generator)
    return inputs, (inputs[:, :3]).argmax(dim=1)


def test_training_on_activations_lowers_the_loss_and_writes_a_row_an_epoch() -> None:
    inputs, labels = data()
    _, stopped, rows, _ = train(network(), phase(lr=0.5, epochs=10), batches(inputs, labels), ends=range(10, 101, 10))
    assert not stopped
    assert [row["epoch"] for row in rows] == list(range(1, 11))
    assert [row["step"] for row in rows] == list(range(10, 101, 10))
    assert rows[-1]["train_loss"] < 0.3 * rows[0]["train_loss"]
    assert rows[-1]["train_accuracy"] == 1.0


def test_train_values_are_means_over_examples_not_over_batches() -> None:
    net = nn.Sequential(nn.Linear(5, 3))
    nn.init.zeros_(net[0].weight)
    nn.init.zeros_(net[0].bias)
    inputs, labels = data()
    stream = iter([(inputs[:8], labels[:8] * 0, None), (inputs[8:], labels[8:] * 0 + 1, None)])
    _, _, rows, _ = train(net, phase(lr=1e-12, epochs=1), stream, ends=(2,))
    assert rows[0]["train_loss"] == pytest.approx(math.log(3))
    assert rows[0]["train_accuracy"] == pytest.approx(8 / 12)


def test_early_stopping_ends_the_phase_and_names_the_earliest_best() -> None:
    inputs, labels = data()
    stopping = EarlyStopping(patience=2)
    state, stopped, rows, best = train(
        network(),
        phase(epochs=9),
        batches(inputs, labels),
        stopping,
        losses=[1.0, 0.5, 0.5, 0.6, 0.1],
        ends=range(2, 20, 2),
    )
    assert stopped
    assert len(rows) == 4
    assert best == [1, 2]
    assert state == StoppingState(best=0.5, best_epoch=2, waited=2)


def test_a_loss_that_is_no_number_stops_within_a_step() -> None:
    inputs, labels = data()
    seen = []

    def stream():
        for step in itertools.count():
            seen.append(step)
            yield (inputs * float("nan") if step == 3 else inputs), labels, None

    with pytest.raises(Diverged, match=r"^the training loss is nan at step 4$"):
        train(network(), phase(), stream())
    assert seen == [0, 1, 2, 3]


def test_dropout_depends_on_seed_and_step_alone() -> None:
    inputs, labels = data()

    def weights(seed: int, disturb: bool) -> torch.Tensor:
        net = network(dropout=0.5)
        torch.manual_seed(99 if disturb else 7)
        train(net, phase(), batches(inputs, labels), seed=seed)
        return net[0].weight.detach()

    assert torch.equal(weights(0, False), weights(0, True))
    assert not torch.equal(weights(0, False), weights(1, False))


def test_the_global_generator_is_left_as_it_was() -> None:
    inputs, labels = data()
    net = network(dropout=0.5)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train(net, phase(), batches(inputs, labels))
    assert torch.equal(torch.rand(3), expected)


def test_label_smoothing_raises_the_loss_of_sure_predictions() -> None:
    inputs, labels = data()
    losses = []
    for smoothing in (0.0, 0.2):
        net = network()
        _, _, rows, _ = train(
            net, phase(lr=1e-12, epochs=1, smoothing=smoothing), batches(inputs * 20, labels), ends=(1,)
        )
        losses.append(rows[0]["train_loss"])
    assert losses[0] != losses[1]


def test_bfloat16_trains_too() -> None:
    inputs, labels = data()
    net = network()
    rows = []
    training = train_phase(
        Trainee(net),
        build_optimizer([net], phase(lr=0.5).optimizer),
        phase(lr=0.5, epochs=1),
        Course(0, 1, 0, [50], 0),
        Compute(torch.device("cpu"), "bfloat16"),
        None,
        "accuracy",
        Position(1, 0, StoppingState()),
        Watch(scored(), lambda epoch, step: None, rows.append, lambda: None),
    )
    fed(training, batches(inputs, labels))
    assert rows[0]["train_loss"] < 1.0
    assert net[0].weight.dtype == torch.float32


def test_validation_is_looked_at_batch_by_batch_and_its_seconds_are_the_epoch_s() -> None:
    inputs, labels = data()
    net, rows, given = network(), [], []
    training = train_phase(
        Trainee(net),
        build_optimizer([net], phase().optimizer),
        phase(epochs=1),
        Course(0, 1, 0, [1], 0),
        CPU,
        None,
        "accuracy",
        Position(1, 0, StoppingState()),
        Watch(lambda: evaluating(net, CPU, "accuracy"), lambda epoch, step: None, rows.append, lambda: None),
    )
    validation = [Fed((inputs[:8], labels[:8], None), 10.0), Fed((inputs[8:], labels[8:], None), 20.0), None]
    with pytest.raises(StopIteration):
        asked = next(training)
        for answer in [Fed((inputs, labels, None), 100.0), *validation]:
            given.append(asked)
            asked = training.send(answer)
    assert given == [Position(1, 0, StoppingState()), None, None, None]
    logits, _ = predict(net, [(inputs, labels, None)], CPU)
    assert rows[0]["val_accuracy"] == (logits.argmax(axis=1) == labels.numpy()).mean()
    assert 130.0 < rows[0]["seconds"] < 140.0
