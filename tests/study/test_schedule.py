"""Cells that a time limit leaves out, by predicted seconds; nothing trains and no clock runs."""

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from unfreeze.config.resolve import Cell
from unfreeze.events import CellsLeft
from unfreeze.study.executors import schedule as cells
from unfreeze.study.executors.schedule import Schedule

PIECE = "activations"


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


class PlannedExecutor:
    """Takes as long for a group as is predicted, times ``slower``, and computes the rows that its cells need."""

    def __init__(self, clock: Clock, store: "Store", specs: Mapping[str, Any], slower: float = 1.0) -> None:
        self.clock, self.store, self.specs, self.slower = clock, store, specs, slower
        self.failed, self.taken = list[str](), list[tuple[list[str], float]]()
        self.predicted = self.seconds = 0.0

    def wait(self) -> None:
        pass

    def submit(self, cells: Sequence[str], predicted: float) -> None:
        self.taken.append((list(cells), predicted))
        self.predicted += predicted
        self.seconds += self.slower * predicted
        self.clock.now += self.slower * predicted
        for cell in cells:
            self.store.there |= set(self.specs[cell].reads.rows.get(PIECE, ()))

    def finish(self) -> None:
        pass


class Store:
    def __init__(self) -> None:
        self.there = set[int]()

    def missing(self, rows: list[int]) -> list[int]:
        return [row for row in rows if row not in self.there]


def left_of(
    monkeypatch: pytest.MonkeyPatch,
    seconds: Mapping[str, float],
    limit: float | None,
    groups: Any = None,
    rows: Mapping[str, range] | None = None,
    slower: float = 1.0,
) -> tuple[list[str], list[tuple[list[str], float]]]:
    """Run cells of so many predicted seconds; return which were left out, and the groups that were taken."""
    clock, store, told = Clock(), Store(), list[Any]()
    monkeypatch.setattr(cells, "time", clock)
    monkeypatch.setattr(cells, "groups_of", lambda order: groups or [[name] for name in order])
    specs = {
        name: SimpleNamespace(
            cell=Cell(name, "small", 0),
            reads=SimpleNamespace(rows={PIECE: (rows or {})[name]} if name in (rows or {}) else {}),
        )
        for name in seconds
    }
    key = SimpleNamespace(key=PIECE, seconds=10.0, rows=range(10), held=0, stored=True)  # a second a row
    shared = SimpleNamespace(
        activations=(key,), cells={name: SimpleNamespace(seconds=each) for name, each in seconds.items()}
    )
    executor = PlannedExecutor(clock, store, specs, slower)
    supply = SimpleNamespace(missing=lambda key, rows: store.missing(rows))
    run = Schedule(specs, shared, supply, executor, told.append)  # type: ignore[arg-type]
    failed, left = run.run(limit)
    assert failed == []
    assert told == ([CellsLeft(tuple(left))] if left else [])
    return left, executor.taken


def test_cells_run_soonest_first_until_the_next_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {"long": 50.0, "short": 10.0, "medium": 20.0}
    assert left_of(monkeypatch, seconds, 45.0) == (["long"], [(["short"], 10.0), (["medium"], 20.0)])
    assert left_of(monkeypatch, seconds, 80.0)[0] == []
    assert left_of(monkeypatch, seconds, 79.0)[0] == ["long"]
    assert left_of(monkeypatch, seconds, 29.0)[0] == ["medium", "long"]
    assert left_of(monkeypatch, seconds, 9.0)[0] == ["short", "medium", "long"]
    assert [names for names, _ in left_of(monkeypatch, seconds, None)[1]] == [["long"], ["short"], ["medium"]]


def test_of_a_group_those_that_fit_run_together(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {"a": 10.0, "b": 30.0, "c": 15.0}
    left, taken = left_of(monkeypatch, seconds, 26.0, groups=[["a", "b", "c"]])
    assert (left, taken) == (["b"], [(["a", "c"], 25.0)])


def test_rows_that_cells_share_count_once(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {"a": 1.0, "b": 2.0, "c": 3.0}
    rows = {"a": range(6), "b": range(6), "c": range(10)}
    assert left_of(monkeypatch, seconds, 9.0, rows=rows) == (["c"], [(["a"], 7.0), (["b"], 2.0)])
    together = left_of(monkeypatch, seconds, 15.0, groups=[["a", "b", "c"]], rows=rows)
    assert together == (["c"], [(["a", "b"], 9.0)])
    assert left_of(monkeypatch, seconds, 16.0, groups=[["a", "b", "c"]], rows=rows)[0] == []


def test_the_first_group_corrects_what_is_predicted_for_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {"a": 10.0, "b": 20.0}
    assert left_of(monkeypatch, seconds, 60.0, slower=2.0)[0] == []
    assert left_of(monkeypatch, seconds, 59.0, slower=2.0)[0] == ["b"]
    assert left_of(monkeypatch, seconds, 21.0, slower=0.7)[0] == []
    assert left_of(monkeypatch, seconds, 20.9, slower=0.7)[0] == ["b"]


def test_a_group_that_was_done_in_part_before_does_not_make_predictions_too_small(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seconds = {"a": 10.0, "b": 20.0}  # half the time for the second, and one is spent
    assert left_of(monkeypatch, seconds, 11.0, slower=0.1)[0] == []
    assert left_of(monkeypatch, seconds, 10.9, slower=0.1)[0] == ["b"]
