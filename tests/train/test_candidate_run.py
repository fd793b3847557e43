"""Train a candidate in memory: phases, best weights, and a state that resumes to the same numbers."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support.choices import parse_study, resolved
from unfreeze.config.schema import RegimeConfig
from unfreeze.errors import UserError
from unfreeze.inputs.loader import TimedBatch
from unfreeze.model.backbone import load_backbone, own_copy
from unfreeze.model.cuts import cuts_of
from unfreeze.model.network import frozen_state, tensors_hash
from unfreeze.train.candidate_run import CandidateRun, CandidateState, CandidateTask, TrainedCandidate
from unfreeze.train.device import Compute
from unfreeze.train.micro_batch import MicroBatch
from unfreeze.train.phase_run import Diverged

SIZE, BATCH, IMAGES = 32, 4, 12
CPU = Compute(torch.device("cpu"), "float32")
WEIGHTS = load_backbone("test_resnet", "none", SIZE, seed=0)

HEAD = {"train": "head", "epochs": 1, "optimizer": {"name": "adamw", "lr": 1e-2}}
LAST = {"train": {"last": 1}, "epochs": 2, "optimizer": {"name": "sgd", "lr": 1e-2, "momentum": 0.9}}
STRATEGIES = {
    "phases": {"phases": [HEAD, LAST], "head": {"hidden": [8], "dropout": [0.5]}},
    "scratch": {"weights": "none", "train": "all", "epochs": 2},
    "reinit": {"phases": [HEAD, {**LAST, "reinit": True}]},
    "frozen again": {
        "phases": [
            {**HEAD, "train": {"last": 2}, "batch_norm": "train"},
            {**LAST, "epochs": 1, "batch_norm": "train"},
        ]
    },
    "stopped in two phases": {
        "phases": [{**HEAD, "epochs": 3, "optimizer": {"lr": 0.1}}, {"train": "all", "epochs": 2}],
        "early_stopping": {"patience": 1, "min_delta": 0.05},
    },
    "stopped": {"train": "head", "epochs": 3, "early_stopping": {"monitor": "val_accuracy", "patience": 1}},
}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small lose time by sharing their work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def task_of(settings: dict[str, Any], **changes: Any) -> CandidateTask:
    study = {"data": "x", "backbone": "test_resnet", "image_size": SIZE, "batch_size": BATCH, "regimes": {"r": {}}}
    asked = parse_study({**study, "strategies": {"s": settings}}, "study.yaml")
    strategy = resolved(asked, asked.strategies["s"])
    values: dict[str, Any] = {
        "strategy": strategy,
        "regime": RegimeConfig(),
        "metric": "accuracy",
        "seed": 0,
        "class_count": 3,
        "image_count": IMAGES,
        "class_weights": None,
        "keep_validation": True,
    }
    values["prefix_sha256"] = tensors_hash(frozen_state(WEIGHTS, min(cuts_of(strategy, WEIGHTS))))
    return CandidateTask(**{**values, **changes})


def run_of(task: CandidateTask, state: CandidateState | None = None) -> CandidateRun:
    return CandidateRun(task, own_copy(WEIGHTS, 0), CPU, MicroBatch(), state)


def batch(run: CandidateRun, step: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return random pictures of a step, after the stages that are frozen in this phase."""
    generator = torch.Generator().manual_seed(step)
    pixels = torch.randn(BATCH, 3, SIZE, SIZE, generator=generator)
    labels = torch.randint(0, 3, (BATCH,), generator=generator)
    with torch.inference_mode():
        for stage in WEIGHTS.stages[: run.cut]:
            pixels = stage.module.eval()(pixels)
    return pixels.clone(), labels, torch.arange(BATCH)


def fit(task: CandidateTask, stops: tuple[int, ...] = ()) -> TrainedCandidate:
    """Train to the end; before each step of ``stops`` a new run takes over from the state of the one before."""
    run = run_of(task)
    while not run.is_over:
        if run.step in stops:
            run = run_of(task, run.state_dict())
        run.train_step(TimedBatch(batch(run, run.step)))
        if run.epoch_is_over:
            run.validation_step(TimedBatch(batch(run, 1000)))
            run.end_epoch()
    return run.result()


def numbers(trained: TrainedCandidate) -> tuple[Any, ...]:
    history = [dataclasses.replace(row, seconds=0.0) for row in trained.history]
    return history, trained.best_epoch, trained.stopped_by, trained.params_total, trained.params_trained


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_run_resumes_from_its_state_between_any_two_steps(name: str) -> None:
    task = task_of(STRATEGIES[name])
    whole = fit(task)
    steps = whole.history[-1].step
    found = fit(task, stops=tuple(range(steps)))
    assert numbers(found) == numbers(whole)
    expected = whole.network.state_dict()
    assert all(torch.equal(tensor, expected[key]) for key, tensor in found.network.state_dict().items())
    assert found.validation.keys() == whole.validation.keys()
    assert all(torch.equal(tensor, whole.validation[epoch]) for epoch, tensor in found.validation.items())


@pytest.mark.parametrize("name", ["phases", "stopped"])
def test_a_trained_candidate_is_restored_without_training(name: str) -> None:
    task = task_of(STRATEGIES[name])
    whole = fit(task)
    again = run_of(task, whole.state_dict())
    assert again.is_over
    assert numbers(again.result()) == numbers(whole)


def test_the_phases_of_a_run_begin_where_their_frozen_stages_end() -> None:
    run = run_of(task_of(STRATEGIES["phases"]))
    cuts = []
    while not run.is_over:
        cuts.append(run.cut)
        run.train_step(TimedBatch(batch(run, run.step)))
        if run.epoch_is_over:
            run.validation_step(TimedBatch(batch(run, 1000)))
            run.end_epoch()
    stages = len(WEIGHTS.stages)
    assert cuts == [stages] * 3 + [stages - 1] * 6


def test_the_best_weights_are_restored_and_leave_with_what_diverges() -> None:
    task = task_of({"train": "head", "epochs": 3, "early_stopping": {"monitor": "val_loss", "patience": 3}})
    run = run_of(task)
    for _ in range(3):
        run.train_step(TimedBatch(batch(run, run.step)))
    run.validation_step(TimedBatch(batch(run, 1000)))
    run.end_epoch()
    best = {key: tensor.clone() for key, tensor in run.state_dict()["best"].items()}
    assert best
    inputs, labels, indices = batch(run, run.step)
    with pytest.raises(Diverged, match=r"^the training loss is nan at step 4$") as caught:
        run.train_step(TimedBatch((inputs * float("nan"), labels, indices)))
    assert all(torch.equal(caught.value.best[key], tensor) for key, tensor in best.items())


def test_no_step_follows_the_last() -> None:
    task = task_of(STRATEGIES["scratch"])
    run = run_of(task, fit(task).state_dict())
    with pytest.raises(RuntimeError, match=r"^the candidate is trained to its end and takes no more steps$"):
        run.train_step(TimedBatch(batch(run_of(task), 0)))


def test_batchnorm_that_would_train_on_one_image_is_refused() -> None:
    with pytest.raises(UserError, match=r"^batch_size: 4 with 13 training images leaves a last batch of one\n"):
        run_of(task_of(STRATEGIES["scratch"], image_count=13))


def test_frozen_stages_that_changed_are_a_bug() -> None:
    task = task_of(STRATEGIES["stopped"], prefix_sha256="")
    run = run_of(task)
    with torch.no_grad():
        next(run.backbone.model.parameters()).add_(1.0)
    while not run.is_over:
        run.train_step(TimedBatch(batch(run, run.step)))
        if run.epoch_is_over:
            run.validation_step(TimedBatch(batch(run, 1000)))
            run.end_epoch()
    with pytest.raises(RuntimeError, match=r"^the frozen stages of test_resnet changed"):
        run.result()


def test_class_weights_change_the_training_loss_and_not_the_draws() -> None:
    settings = STRATEGIES["stopped"] | {"early_stopping": None, "epochs": 2}
    plain, weighted = fit(task_of(settings)), fit(task_of(settings, class_weights=[0.5, 2.0, 1.0]))
    assert [row.examples for row in plain.history] == [row.examples for row in weighted.history] == [12, 24]
    assert plain.history[-1].train_loss != weighted.history[-1].train_loss
