"""Train candidates in lock-step: each gets the batches of its own steps, and failures stay alone."""

import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pytest

from unfreeze.train.trainer import Callbacks, Trainer


class Batches:
    """A training stream that notes what it is asked for; the batch of ``broken``, a step and a cut, cannot be made."""

    def __init__(self, broken: tuple[int, int] | None = None, error: Exception | None = None) -> None:
        self.broken, self.error, self.step, self.closed = broken, error or OSError("gone"), -1, False
        self.made: list[tuple[int, int]] = []

    def turn_to(self, step: int, cuts: Sequence[int]) -> None:
        self.step = step

    def batch(self, cut: int) -> Any:
        if (self.step, cut) == self.broken:
            raise self.error
        self.made.append((self.step, cut))
        return self.step, cut

    def close(self) -> None:
        self.closed = True


class Run:
    """A candidate that takes the given steps, each at its cut, and notes its batches; it fails at ``fails``.

    With ``validates`` each step is an epoch.
    """

    def __init__(self, steps: Mapping[int, int], validates: bool = False, fails: Any = None, error: Any = None) -> None:
        self.steps, self.validates, self.fails, self.error = list(steps.items()), validates, fails, error
        self.found: list[Any] = []
        self.epoch_is_over = False

    @property
    def is_over(self) -> bool:
        return not self.steps

    @property
    def step(self) -> int:
        return self.steps[0][0]

    @property
    def cut(self) -> int:
        return self.steps[0][1]

    def train_step(self, fed: Any) -> None:
        self._note(fed.batch)
        self.epoch_is_over = self.validates or len(self.steps) == 1
        if not self.epoch_is_over:
            self.steps.pop(0)

    def validation_step(self, fed: Any) -> None:
        if self.validates:
            self._note(fed.batch)

    def end_epoch(self) -> dict[str, Any]:
        self.epoch_is_over = False
        self.steps.pop(0)
        return {}

    def result(self) -> Any:
        return self.found

    def _note(self, batch: Any) -> None:
        if batch == self.fails:
            raise self.error or ValueError(f"failed at {batch}")
        self.found.append(batch)


class Validation:
    """Batches 1, 2 and so on of validation at any cut, of which it notes each one that is read; it may break."""

    def __init__(self, count: int = 2, breaks: bool = False) -> None:
        self.count, self.breaks = count, breaks
        self.made, self.read = list[int](), list[tuple[int, int]]()

    def __call__(self, cut: int) -> Any:
        self.made.append(cut)
        return _Passes(self, cut)


class _Passes:
    def __init__(self, validation: Validation, cut: int) -> None:
        self.validation, self.cut = validation, cut

    def __iter__(self) -> Any:
        for number in range(1, self.validation.count + 1):
            if self.validation.breaks:
                raise OSError("gone")
            self.validation.read.append((self.cut, number))
            yield self.cut, number


def steps(cut: int, *numbers: int) -> dict[int, int]:
    return dict.fromkeys(numbers, cut)


def fit(
    runs: Mapping[str, Run],
    batches: Batches,
    validation: Callable[[int], Iterable[Any]] | None = None,
    before_step: Callable[[Any], None] = lambda runs: None,
    on_end: Callable[[str], None] = lambda key: None,
) -> dict[str, Any]:
    ends: dict[str, Any] = {}

    def ended(key: str, result: Any) -> None:
        ends[key] = result
        on_end(key)

    callbacks = Callbacks[str](before_step, lambda key, run: None, lambda key, row: None, ended)
    trainer = Trainer(batches, validation or Validation(), callbacks)
    for key, run in runs.items():
        trainer.add(key, run)  # type: ignore[arg-type]
    trainer.fit()
    return ends


def test_each_run_gets_the_batches_of_its_own_steps_and_cut() -> None:
    batches = Batches()
    runs = {"a": Run(steps(3, 0, 1, 2)), "b": Run(steps(3, 0, 1)), "c": Run(steps(1, 1, 2, 3))}
    ends = fit(runs, batches)
    assert ends == {"a": [(0, 3), (1, 3), (2, 3)], "b": [(0, 3), (1, 3)], "c": [(1, 1), (2, 1), (3, 1)]}
    assert batches.made == [(0, 3), (1, 1), (1, 3), (2, 1), (2, 3), (3, 1)]  # each once, whoever waits for it
    assert batches.closed


def test_a_run_that_fails_does_not_stop_the_others() -> None:
    batches = Batches()
    runs = {"a": Run(steps(3, 0, 1, 2), fails=(1, 3)), "b": Run(steps(3, 0, 1)), "c": Run(steps(1, 0, 1))}
    ends = fit(runs, batches)
    assert str(ends["a"]) == "failed at (1, 3)"
    assert (ends["b"], ends["c"]) == ([(0, 3), (1, 3)], [(0, 1), (1, 1)])
    assert batches.closed


def test_a_batch_that_cannot_be_made_ends_those_that_wait_for_it_alone() -> None:
    runs = {"a": Run(steps(3, 0, 1, 2)), "b": Run(steps(3, 0, 1, 2)), "c": Run(steps(1, 0, 1, 2))}
    ends = fit(runs, Batches(broken=(1, 3)))
    assert [str(ends["a"]), str(ends["b"])] == ["gone", "gone"]
    assert ends["c"] == [(0, 1), (1, 1), (2, 1)]


def test_where_nobody_listens_any_more_everything_stops_and_the_batches_are_closed() -> None:
    batches = Batches()
    runs = {"a": Run(steps(3, 0, 1), fails=(0, 3), error=BrokenPipeError()), "b": Run(steps(3, 0, 1))}
    with pytest.raises(BrokenPipeError):
        fit(runs, batches)
    assert batches.closed


def test_where_nobody_listens_while_a_batch_is_made_everything_stops() -> None:
    batches = Batches(broken=(0, 3), error=BrokenPipeError())
    with pytest.raises(BrokenPipeError):
        fit({"a": Run(steps(3, 0)), "b": Run(steps(1, 1))}, batches)
    assert batches.closed


def test_a_run_that_is_over_from_the_start_ends_without_a_step() -> None:
    batches = Batches()
    runs = {"a": Run({}), "b": Run(steps(1, 0)), "c": Run({})}
    assert fit(runs, batches) == {"a": [], "b": [(0, 1)], "c": []}
    assert batches.made == [(0, 1)]


def test_runs_at_one_cut_meet_validation_in_one_pass() -> None:
    validation = Validation()
    runs = {
        "a": Run(steps(3, 0, 1), validates=True),
        "b": Run(steps(3, 0), validates=True),
        "c": Run(steps(1, 0, 1), validates=True),
        "d": Run(steps(3, 0), validates=True),
    }
    ends = fit(runs, Batches(), validation)
    deep, low = [(3, 1), (3, 2)], [(1, 1), (1, 2)]
    assert ends["a"] == [(0, 3), *deep, (1, 3), *deep]
    assert ends["b"] == ends["d"] == [(0, 3), *deep]
    assert ends["c"] == [(0, 1), *low, (1, 1), *low]
    assert validation.read == [*low, *deep, *low, *deep]
    assert sorted(validation.made) == [1, 3]  # processes that prepare it are kept from epoch to epoch


def test_a_run_that_fails_in_validation_leaves_it_to_the_others() -> None:
    runs = {"a": Run(steps(3, 0), validates=True, fails=(3, 1)), "b": Run(steps(3, 0), validates=True)}
    ends = fit(runs, Batches())
    assert str(ends["a"]) == "failed at (3, 1)"
    assert ends["b"] == [(0, 3), (3, 1), (3, 2)]


def test_validation_that_cannot_be_read_ends_the_runs_that_wait_for_it() -> None:
    runs = {"a": Run(steps(3, 0, 1), validates=True), "b": Run(steps(3, 0, 1), validates=True)}
    ends = fit(runs, Batches(), Validation(breaks=True))
    assert [str(ends["a"]), str(ends["b"])] == ["gone", "gone"]


def test_validation_that_no_run_needs_any_more_is_let_go() -> None:
    validation, alive = Validation(), list[Any]()

    def made(cut: int) -> Any:
        alive.append(weakref.ref(found := validation(cut)))
        return found

    seen, ended = list[list[bool]](), list[bool]()
    fit(
        {"a": Run({0: 3, 1: 0, 2: 0}, validates=True)},
        Batches(),
        made,
        lambda runs: seen.append([one() is not None for one in alive]),
        lambda key: ended.extend(one() is not None for one in alive),
    )
    assert validation.made == [3, 0]
    assert seen == [[], [True], [False, True]]
    assert ended == [False, False]  # none of its processes is there when the cell is reported


def test_a_run_that_is_over_is_let_go_while_others_train() -> None:
    run = Run(steps(3, 0))
    trainer_holds, alive = weakref.ref(run), list[bool]()
    runs = {"a": run, "b": Run(steps(3, 0, 1))}
    callbacks = Callbacks[str](
        lambda runs: alive.append(trainer_holds() is not None), lambda *a: None, lambda *a: None, lambda *a: None
    )
    trainer = Trainer(Batches(), Validation(), callbacks)
    for key in list(runs):
        trainer.add(key, runs.pop(key))  # type: ignore[arg-type]
    del run
    trainer.fit()
    assert alive == [True, False]
