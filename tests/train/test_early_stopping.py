"""Early stopping: patience, min_delta, direction, NaN, and off."""

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unfreeze.config.schema import EarlyStopping
from unfreeze.train.early_stopping import StoppingState, after_epoch, should_stop


def course(values: list[float], asked: EarlyStopping | None, metric: str = "accuracy") -> tuple[StoppingState, int]:
    """Return the last state, and the epoch after which training ended (from 1)."""
    state = StoppingState()
    for epoch, value in enumerate(values, start=1):
        state = after_epoch(state, asked, metric, value, epoch)
        if should_stop(state, asked):
            return state, epoch
    return state, len(values)


def stopping(**changes: Any) -> EarlyStopping:
    return EarlyStopping(**{"patience": 2, **changes})


def test_it_stops_after_patience_epochs_in_a_row_without_improvement() -> None:
    state, ended = course([1.0, 0.9, 0.95, 0.8, 0.85, 0.9, 0.1], stopping())
    assert (state, ended) == (StoppingState(0.8, 4, 2), 6)


def test_an_improvement_starts_the_count_again() -> None:
    assert course([1.0, 1.1, 0.9, 1.1, 0.8, 1.1], stopping()) == (StoppingState(0.8, 5, 1), 6)


def test_of_equal_epochs_the_earliest_is_best() -> None:
    assert course([0.5, 0.5, 0.5, 0.5], stopping()) == (StoppingState(0.5, 1, 2), 3)


def test_patience_1_stops_at_the_first_epoch_that_is_no_better() -> None:
    assert course([0.5, 0.4, 0.6], stopping(patience=1)) == (StoppingState(0.4, 2, 1), 3)


def test_small_gains_do_not_count_and_do_not_move_the_mark() -> None:
    # each epoch gains 0.25; only their sum is more than min_delta
    state, ended = course([2.0, 1.75, 1.5, 1.25], stopping(min_delta=0.25, patience=3))
    assert (state, ended) == (StoppingState(1.5, 3, 1), 4)


@pytest.mark.parametrize(
    ("monitor", "metric", "rising"),
    [
        ("val_loss", "accuracy", False),
        ("train_loss", "accuracy", False),
        ("val_accuracy", "log_loss", True),
        ("val_metric", "accuracy", True),
        ("val_metric", "auroc", True),
        ("val_metric", "macro_f1", True),
        ("val_metric", "balanced_accuracy", True),
        ("val_metric", "log_loss", False),
    ],
)
def test_each_monitor_knows_its_direction(monitor: Any, metric: str, rising: bool) -> None:
    state, _ = course([0.5, 0.7, 0.3], stopping(monitor=monitor), metric)
    assert state == (StoppingState(0.7, 2, 1) if rising else StoppingState(0.3, 3, 0))


def test_nan_is_no_improvement_and_is_beaten_by_any_number() -> None:
    nan = math.nan
    assert course([nan, 0.9, nan, nan], stopping()) == (StoppingState(0.9, 2, 2), 4)
    state, ended = course([nan, nan, nan], stopping())
    assert (state.best_epoch, state.waited, ended) == (0, 2, 2)
    assert math.isnan(state.best)


def test_an_infinite_loss_is_beaten() -> None:
    assert course([math.inf, 3.0], stopping()) == (StoppingState(3.0, 2, 0), 2)


def test_off_means_every_epoch_and_the_last_one_counts() -> None:
    state, ended = course([0.1, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9], None)
    assert (state.best_epoch, state.waited, ended) == (7, 0, 7)


def test_the_state_given_is_not_changed() -> None:
    state = StoppingState(0.5, 1, 0)
    after_epoch(state, stopping(), "accuracy", 0.4, 2)
    assert state == StoppingState(0.5, 1, 0)


@settings(deadline=None)
@given(st.lists(st.floats(0, 10), min_size=1, max_size=30), st.integers(1, 5))
def test_best_is_the_earliest_least_of_what_was_seen(values: list[float], patience: int) -> None:
    state, ended = course(values, stopping(patience=patience))
    seen = values[:ended]
    assert (state.best, state.best_epoch) == (min(seen), seen.index(min(seen)) + 1)
    assert ended == len(values) or ended - state.best_epoch == patience
