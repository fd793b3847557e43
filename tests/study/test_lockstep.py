"""Candidates in lock-step: each gets the batches of its own steps, and one that fails stops no other."""

import weakref
from collections.abc import Generator, Sequence
from typing import Any

import pytest
from unfreeze.study.candidate import Look, Need
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


def looker(cut: int, steps: range, fail_at: Any = None) -> Generator:
    """A member that looks at validation after each step; fails when it sees ``fail_at``."""
    found = []
    for step in steps:
        found.append((yield Need(step, cut)).batch)
        while (fed := (yield Look(cut))) is not None:
            found.append(fed.batch)
            if fed.batch == fail_at:
                raise ValueError(f"failed at {fail_at}")
    return found


class Validation:
    """Batches 1, 2 and so on of validation at any cut, of which it notes each one that is read; it may break."""

    def __init__(self, count: int = 2, breaks: bool = False) -> None:
        self.count, self.breaks = count, breaks
        self.made, self.read = list[int](), list[tuple[int, int]]()

    def __call__(self, cut: int) -> Any:
        self.made.append(cut)
        return _Passes(self, cut)


class _Passes:
    def __init__(self, told: Validation, cut: int) -> None:
        self.told, self.cut = told, cut

    def __iter__(self) -> Any:
        for number in range(1, self.told.count + 1):
            if self.told.breaks:
                raise OSError("gone")
            self.told.read.append((self.cut, number))
            yield self.cut, number


def ends_of(members: dict[str, Generator], stream: Recorded, validation: Validation | None = None) -> dict[str, Any]:
    ends: dict[str, Any] = {}
    train_together(
        members,  # type: ignore[arg-type]
        stream,  # type: ignore[arg-type]
        validation or Validation(),
        lambda key, end: ends.update({key: end}),
    )
    return ends


def test_each_member_gets_the_batches_of_its_own_steps_and_cut() -> None:
    stream = Recorded()
    ends = ends_of({"a": member(3, range(3)), "b": member(3, range(2)), "c": member(1, range(1, 4))}, stream)
    assert ends == {"a": [(0, 3), (1, 3), (2, 3)], "b": [(0, 3), (1, 3)], "c": [(1, 1), (2, 1), (3, 1)]}
    assert stream.made == [(0, 3), (1, 1), (1, 3), (2, 1), (2, 3), (3, 1)]  # each once, whoever waits for it
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


def test_members_at_one_cut_look_at_validation_in_one_pass() -> None:
    validation = Validation()
    members = {"a": looker(3, range(2)), "b": looker(3, range(1)), "c": looker(1, range(2)), "d": looker(3, range(1))}
    ends = ends_of(members, Recorded(), validation)
    deep, low = [(3, 1), (3, 2)], [(1, 1), (1, 2)]
    assert ends["a"] == [(0, 3), *deep, (1, 3), *deep]
    assert ends["b"] == ends["d"] == [(0, 3), *deep]
    assert ends["c"] == [(0, 1), *low, (1, 1), *low]
    assert validation.read == [*low, *deep, *low, *deep]
    assert sorted(validation.made) == [1, 3]  # processes that prepare it are kept from epoch to epoch


def test_a_member_that_fails_in_validation_leaves_it_to_the_others() -> None:
    ends = ends_of({"a": looker(3, range(1), fail_at=(3, 1)), "b": looker(3, range(1))}, Recorded())
    assert str(ends["a"]) == "failed at (3, 1)"
    assert ends["b"] == [(0, 3), (3, 1), (3, 2)]


def test_validation_that_cannot_be_read_ends_those_that_look_at_it() -> None:
    members = {"a": looker(3, range(2)), "b": looker(3, range(2)), "c": member(3, range(2))}
    ends = ends_of(members, Recorded(), Validation(breaks=True))
    assert [str(ends["a"]), str(ends["b"])] == ["gone", "gone"]
    assert ends["c"] == [(0, 3), (1, 3)]


def test_validation_that_nobody_needs_any_more_is_let_go() -> None:
    validation, alive = Validation(), list[Any]()

    def phases() -> Generator:
        yield from looker(3, range(1))
        yield from looker(0, range(1, 3))

    def made(cut: int) -> Any:
        alive.append(weakref.ref(found := validation(cut)))
        return found

    seen = list[list[bool]]()

    def between(waiting: Any) -> None:
        seen.append([one() is not None for one in alive])

    ended = list[bool]()
    train_together(
        {"a": phases()},
        Recorded(),  # type: ignore[arg-type]
        made,
        lambda key, end: ended.extend(one() is not None for one in alive),
        between,
    )
    assert validation.made == [3, 0]
    assert seen == [[], [True], [False, True]]
    assert ended == [False, False]  # none of its processes is there when the cell is reported
