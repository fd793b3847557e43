"""Micro-batches give the step of the whole batch but for rounding, wherever memory runs out."""

import itertools
from collections.abc import Callable, Collection, Mapping

import pytest
import torch
from torch import Tensor, nn

from unfreeze.config.resolve import Optimizer, Phase
from unfreeze.config.schema import ScheduleConfig
from unfreeze.inputs.loader import TimedBatch
from unfreeze.model.memory import OutOfMemory
from unfreeze.train.device import Compute
from unfreeze.train.early_stopping import StoppingState
from unfreeze.train.evaluate import predict
from unfreeze.train.gradients import Trainee
from unfreeze.train.micro_batch import BatchNormStatistics, MicroBatch, WholeDropout, batch_norm_trains, parts
from unfreeze.train.optimizers import build_optimizer
from unfreeze.train.phase_run import EpochRow, PhaseRun, PhaseTask, Position

STEPS = 6
CPU = Compute(torch.device("cpu"), "float32")


def network(dropout: float = 0.0) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Dropout(dropout), nn.Linear(8, 3))


def data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(12, 5, generator=generator)
    return inputs, (inputs[:, :3]).argmax(dim=1)


def out_of_memory() -> Exception:
    return torch.OutOfMemoryError("CUDA out of memory.")


class Failing(nn.Module):
    """A network whose calls of some numbers fail after all was computed, so that nothing stays undone by itself."""

    def __init__(self, inner: nn.Module, at: Collection[int], error: Callable[[], Exception] = out_of_memory) -> None:
        super().__init__()
        self.inner, self.at, self.error, self.rows = inner, at, error, list[int]()
        self.counts = True

    def forward(self, inputs: Tensor) -> Tensor:
        found = self.inner(inputs)
        if not self.counts:
            return found
        self.rows.append(len(inputs))
        if len(self.rows) in self.at:
            raise self.error()
        return found


def trained(
    at: Collection[int] = (),
    optimizer: str = "sgd",
    weights: Tensor | None = None,
    smoothing: float = 0.0,
    micro_batch: MicroBatch | None = None,
    error: Callable[[], Exception] = out_of_memory,
    inner: nn.Module | None = None,
) -> tuple[Failing, list[EpochRow]]:
    net = Failing(network(dropout=0.5) if inner is None else inner, at, error)
    rows: list[EpochRow] = []
    settings = Optimizer(optimizer, 0.05, momentum=0.9, weight_decay=0.01, layer_decay=1.0)
    phase = Phase("all", 3, settings, ScheduleConfig(name="constant", warmup=0), "frozen", False, smoothing)
    inputs, labels = data()
    batches = itertools.cycle([(inputs[:8], labels[:8], None), (inputs[8:], labels[8:], None)])
    task = PhaseTask(0, phase, 0, 1, 0, [2, 4, STEPS], None, "accuracy")
    begin = Position(1, 0, StoppingState())
    trainee = Trainee(net, class_weights=weights)
    run = PhaseRun(task, trainee, build_optimizer([net], settings), CPU, micro_batch or MicroBatch(), begin)
    while not run.is_over:
        run.train_step(TimedBatch(next(batches)))
        if run.epoch_is_over:
            net.counts = False
            run.validation_step(TimedBatch((inputs, labels, None)))
            net.counts = True
            rows.append(run.end_epoch(0).row)
    return net, rows


def difference(one: nn.Module, other: nn.Module) -> float:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return max(float((a - b).abs().max()) for a, b in pairs)


WEIGHTS = torch.tensor([0.5, 2.0, 1.0])
HOW = {
    "plain": {},
    "class weights and smoothing": {"weights": WEIGHTS, "smoothing": 0.1},
    "adamw": {"optimizer": "adamw", "weights": WEIGHTS},
}


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("at", [[1], [2], [3, 4, 5], [1, 8]], ids=str)
def test_weights_differ_by_rounding_from_those_of_whole_batches(at: list[int], how: str) -> None:
    whole, expected = trained(**HOW[how])
    assert whole.rows == [8, 4] * 3
    micro_batch = MicroBatch()
    found, rows = trained(at, micro_batch=micro_batch, **HOW[how])
    assert micro_batch.record == {"training": min(found.rows)}
    assert len(found.rows) > len(whole.rows)
    assert difference(found, whole) <= 1e-5
    assert [row.train_accuracy for row in rows] == [row.train_accuracy for row in expected]
    assert [row.train_loss for row in rows] == pytest.approx([row.train_loss for row in expected], abs=1e-6)


def test_rows_at_once_are_halved_and_stay_so() -> None:
    told: list[Mapping[str, int]] = []
    micro_batch = MicroBatch(on_less=lambda: told.append(micro_batch.record))
    net, _ = trained([3, 4], micro_batch=micro_batch)
    assert net.rows == [8, 4, 8, 4, *[2] * 12]
    assert told == [{"training": 2}]


def test_a_number_of_rows_that_is_given_is_kept_to() -> None:
    micro_batch = MicroBatch({"training": 3})
    net, _ = trained(micro_batch=micro_batch)
    assert net.rows == [3, 3, 2, 3, 1] * 3
    assert micro_batch.record == {"training": 3}


def test_one_row_that_does_not_fit_ends_training() -> None:
    with pytest.raises(OutOfMemory):
        trained(range(3, 99))


@pytest.mark.parametrize("text", ["CUDA error: device-side assert triggered", "out of memory"])
def test_other_errors_are_never_swallowed(text: str) -> None:
    micro_batch = MicroBatch()
    with pytest.raises(RuntimeError, match=f"^{text}$"):
        trained([4], micro_batch=micro_batch, error=lambda: RuntimeError(text))
    assert micro_batch.record == {}


def test_memory_that_is_short_in_the_backward_pass_leaves_no_gradients() -> None:
    whole, _ = trained()
    inner = network(dropout=0.5)
    calls = itertools.count(1)

    def fail(gradient: Tensor) -> None:
        if next(calls) == 3:
            raise out_of_memory()

    inner[0].weight.register_hook(fail)  # the last one to get its gradient
    found, _ = trained(inner=inner)
    assert 4 in found.rows[3:]
    assert difference(found, whole) <= 1e-5


def test_dropout_of_parts_is_that_of_the_whole_batch() -> None:
    layers = nn.Sequential(nn.Dropout(0.5), nn.Linear(6, 7), nn.Dropout(0.3), nn.Dropout(0.0))
    inputs = torch.randn(10, 6, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(3)
    whole = layers[0](inputs)
    torch.manual_seed(3)
    masks = WholeDropout(10)
    with masks.inside(layers):
        found = []
        for start in range(0, 10, 3):
            masks.turn_to(slice(start, start + 3))
            found.append(layers[0](inputs[start : start + 3]))
            layers[1:](found[-1])
    assert torch.equal(torch.cat(found), whole)
    assert all(layer.training for layer in layers)
    assert not any(layer._forward_hooks for layer in layers)


def test_batch_norm_gets_its_statistics_back_and_never_a_single_row() -> None:
    torch.manual_seed(0)
    inner = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))
    assert batch_norm_trains(inner)
    net, _ = trained([1, 2], inner=inner)
    assert net.rows[:2] == [8, 4]
    assert set(net.rows[2:]) == {2}
    assert int(inner[1].num_batches_tracked) == len(net.rows) - 2
    inner.train()
    assert BatchNormStatistics(inner).least == 2
    inner.eval()
    assert not batch_norm_trains(inner)
    assert BatchNormStatistics(inner).least == 1


def test_batch_norm_that_does_not_get_two_rows_ends_training() -> None:
    inner = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))
    with pytest.raises(OutOfMemory) as caught:
        trained(range(1, 99), inner=inner)
    assert caught.value.least == 2


@pytest.mark.parametrize("at", [[1], [2], [2, 3], [3]], ids=str)
def test_predictions_are_those_of_whole_batches(at: list[int]) -> None:
    inputs, labels = data()
    batches = [(inputs[:8], labels[:8], None), (inputs[8:], labels[8:], None)]
    expected, _ = predict(network(), batches, CPU)
    micro_batch, net = MicroBatch(), Failing(network(), at)
    found, answers = predict(net, batches, CPU, micro_batch=micro_batch)
    assert abs(found - expected).max() <= 1e-6
    assert answers.tolist() == labels.tolist()
    assert micro_batch.record == ({} if at == [3] else {"evaluation": min(net.rows)})


def test_predictions_fail_for_other_reasons_as_they_did() -> None:
    inputs, labels = data()
    with pytest.raises(RuntimeError, match=r"^no$"):
        predict(Failing(network(), [1], lambda: RuntimeError("no")), [(inputs, labels, None)], CPU)
    with pytest.raises(OutOfMemory):
        predict(Failing(network(), range(99)), [(inputs, labels, None)], CPU)


@pytest.mark.parametrize(
    ("count", "rows", "least", "expected"),
    [(8, 4, 1, [4, 4]), (7, 4, 1, [4, 3]), (5, 4, 1, [4, 1]), (5, 4, 2, [5]), (9, 4, 2, [4, 5]), (3, 8, 1, [3])],
)
def test_parts_are_all_rows_in_order(count: int, rows: int, least: int, expected: list[int]) -> None:
    found = [list(range(count))[part] for part in parts(count, rows, least)]
    assert [row for part in found for row in part] == list(range(count))
    assert [len(part) for part in found] == expected
