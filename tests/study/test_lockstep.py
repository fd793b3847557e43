"""Candidates in lock-step: each gets the batches of its own steps, and one that fails stops no other."""

from collections.abc import Generator, Sequence
from typing import Any

import pytest

from unfreeze.study.candidate import Need
from unfreeze.study.lockstep import train_together


class Recorded:
    """A stream that notes what it is asked for; the batch of ``broken`` cannot be made."""

    def __init__(self, broken: Need | None = None) -> None:
        self.broken, self.step, self.closed = broken, -1, False
        self.made: list[tuple[int, int]] = []

    def turn_to(self, step: int, cuts: Sequence[int]) -> None:
        self.step = step

    def batch(self, cut: int) -> Any:
        if Need(self.step, cut) == self.broken:
            raise OSError("gone")
        self.made.append((self.step, cut))
        return self.step, cut

    def close(self) -> None:
        self.closed = True


def member(cut: int, steps: range, fail_at: int | None = None, error: Exception | None = None) -> Generator:
    found = []
    for step in steps:
        fed = yield Need(step, cut)
        found.append(fed.batch)
        if step == fail_at:
            raise error or ValueError(f"failed at {step}")
    return found


def ends_of(members: dict[str, Generator], stream: Recorded) -> dict[str, Any]:
    ends: dict[str, Any] = {}
    train_together(members, stream, lambda key, end: ends.update({key: end}))  # type: ignore[arg-type]
    return ends


def test_each_member_gets_the_batches_of_its_own_steps_and_cut() -> None:
    stream = Recorded()
    ends = ends_of({"a": member(3, range(3)), "b": member(3, range(2)), "c": member(1, range(1, 4))}, stream)
    assert ends == {"a": [(0, 3), (1, 3), (2, 3)], "b": [(0, 3), (1, 3)], "c": [(1, 1), (2, 1), (3, 1)]}
    assert stream.closed


def test_a_member_that_fails_does_not_stop_the_others() -> None:
    stream = Recorded()
    ends = ends_of({"a": member(3, range(3), fail_at=1), "b": member(3, range(3)), "c": member(1, range(3))}, stream)
    assert str(ends["a"]) == "failed at 1"
    assert ends["b"] == [(0, 3), (1, 3), (2, 3)]
    assert ends["c"] == [(0, 1), (1, 1), (2, 1)]
    assert stream.closed


def test_a_member_that_fails_before_its_first_step_does_not_stop_the_others() -> None:
    def early() -> Generator:
        raise ValueError("early")
        yield

    ends = ends_of({"a": early(), "b": member(3, range(2))}, Recorded())
    assert str(ends["a"]) == "early"
    assert ends["b"] == [(0, 3), (1, 3)]


def test_a_batch_that_cannot_be_made_ends_those_that_wait_for_it_alone() -> None:
    members = {"a": member(3, range(3)), "b": member(3, range(3)), "c": member(1, range(3))}
    ends = ends_of(members, Recorded(broken=Need(1, 3)))
    assert [str(ends["a"]), str(ends["b"])] == ["gone", "gone"]
    assert ends["c"] == [(0, 1), (1, 1), (2, 1)]


def test_where_nobody_listens_any_more_everything_stops_and_the_stream_is_closed() -> None:
    stream = Recorded()
    with pytest.raises(BrokenPipeError):
        ends_of({"a": member(3, range(3), fail_at=0, error=BrokenPipeError()), "b": member(3, range(3))}, stream)
    assert stream.closed
