"""The event log: a listener reads what workers wrote, whenever it starts and whichever worker was killed."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from unfreeze.events import (
    KINDS,
    BetweenSteps,
    CellFailed,
    CellFinished,
    CellResumed,
    CellsLeft,
    CellStarted,
    Checked,
    EpochEnded,
    Event,
    Planned,
    Preparing,
    Progress,
    Scanning,
    Understood,
    Warned,
    from_json,
    to_json,
)
from unfreeze.storage import event_log
from unfreeze.storage.event_log import COUNTS, LINE_BYTES, EventLog, EventReader, logged

CHECKED = Checked(({"kind": "imbalance", "severity": "note", "findings": 1, "count": 4, "note": "uneven"},), Path("c"))
EVENTS: list[Event] = [
    Scanning(1, 2), Understood(("a", "b"), {"classes": ["x", "y"]}), CHECKED, Planned(("a", "b"), ()), Warned("\udce4"),
    Preparing("decoding", 0, 2), CellStarted("a", 9), CellResumed("a", "", 2, 4), BetweenSteps(),
    Progress("a", "", 2, 5),
    EpochEnded("a", {"epoch": 2, "val_loss": 0.1}), CellFinished("a", {"test_accuracy": None}),
    CellFailed("b", "diverged: nan", True), CellsLeft(("c",)),
]  # fmt: skip


@pytest.fixture
def times(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Set both clocks."""

    def at(seconds: float) -> None:
        monkeypatch.setattr(event_log.time, "time", lambda: seconds)
        monkeypatch.setattr(event_log.time, "monotonic", lambda: seconds)

    return at


def test_each_kind_comes_back_from_json() -> None:
    assert {type(event) for event in EVENTS} == set(KINDS.values())
    assert [from_json(json.loads(json.dumps(to_json(event)))) for event in EVENTS] == EVENTS


@pytest.mark.parametrize(
    "record",
    [{"event": "CellMoved", "cell": "a"}, {"event": "CellStarted", "cell": "a"}, {"cell": "a"}, [1], "x", None],
)
def test_what_is_no_event_of_this_version_is_none(record: Any) -> None:
    assert from_json(record) is None


def test_a_field_of_a_later_version_is_ignored() -> None:
    assert from_json({"event": "Warned", "text": "hot", "since": 3}) == Warned("hot")


def test_a_listener_that_starts_late_sees_all_workers_in_the_order_of_time(
    tmp_path: Path, times: Callable[[float], None]
) -> None:
    assert EventReader(tmp_path).read() == []  # nobody has written yet
    one, other = EventLog(tmp_path, "slot-1"), EventLog(tmp_path, "slot-2")
    for second, (log, cell) in enumerate([(one, "a"), (other, "b"), (other, "c"), (one, "d")]):
        times(second)
        log.append(CellStarted(cell, 1))
    reader = EventReader(tmp_path)
    assert [event.cell for event in reader.read() if isinstance(event, CellStarted)] == ["a", "b", "c", "d"]
    assert reader.read() == []
    other.append(Warned("late"))
    EventLog(tmp_path, "slot-3").append(Warned("new"))
    assert sorted(event.text for event in reader.read() if isinstance(event, Warned)) == ["late", "new"]


def test_a_reader_may_skip_earlier_runs_and_other_workers(tmp_path: Path) -> None:
    for worker in ("main", "slot-1"):
        EventLog(tmp_path, worker).append(Warned("earlier"))
    reader = EventReader(tmp_path, from_now=True, workers="slot-*")
    for worker in ("main", "slot-1", "slot-2"):
        EventLog(tmp_path, worker).append(Warned(worker))
    assert sorted(event.text for event in reader.read() if isinstance(event, Warned)) == ["slot-1", "slot-2"]


def test_a_torn_last_line_waits_until_it_is_whole(tmp_path: Path) -> None:
    log = EventLog(tmp_path, "slot-1")
    log.append(Warned("whole"))
    line = log.path.read_bytes()
    reader = EventReader(tmp_path)
    with log.path.open("ab") as file:
        file.write(line[:20])
    assert reader.read() == [Warned("whole")]
    assert reader.read() == []
    with log.path.open("ab") as file:
        file.write(line[20:])
    assert reader.read() == [Warned("whole")]


def test_a_line_that_a_killed_worker_left_torn_costs_the_next_run_nothing(tmp_path: Path) -> None:
    log = EventLog(tmp_path, "main")
    log.append(Warned("first"))
    log.append(Warned("torn"))
    os.truncate(log.path, log.path.stat().st_size - 3)
    late = EventReader(tmp_path, from_now=True)
    EventLog(tmp_path, "main").append(Warned("second"))
    assert EventReader(tmp_path).read() == [Warned("first"), Warned("second")]
    assert late.read() == [Warned("second")]


def test_lines_that_are_no_events_are_skipped(tmp_path: Path) -> None:
    log = EventLog(tmp_path, "main")
    log.append(Warned("known"))
    with log.path.open("ab") as file:
        file.write(b'{"event": "CellMoved", "time": 5.0, "cell": "a"}\n\nno JSON\n[]\n')
    log.append(Warned("known, too"))
    assert EventReader(tmp_path).read() == [Warned("known"), Warned("known, too")]


def test_counts_are_thinned_and_nothing_else_is(tmp_path: Path, times: Callable[[float], None]) -> None:
    log = EventLog(tmp_path, "main")
    steps = 5000
    log.append(CellStarted("head.small.s0", steps))
    for step in range(1, steps + 1):
        times(step * 0.01)
        log.append(BetweenSteps())
        log.append(Progress("head.small.s0", "lr=0.001", 1, step))
        log.append(Scanning(step, steps))
        log.append(Warned(str(step)))
    events = EventReader(tmp_path).read()
    assert [event.text for event in events if isinstance(event, Warned)] == [str(step) for step in range(1, steps + 1)]
    progress = [event for event in events if isinstance(event, Progress)]
    scanning = [event for event in events if isinstance(event, Scanning)]
    assert 90 <= len(progress) <= 101 and len(scanning) <= 102  # 50 seconds, two a second
    assert scanning[-1] == Scanning(steps, steps)
    assert max(len(line) for line in log.path.read_bytes().splitlines() if b'"Progress"' in line) < LINE_BYTES


def test_a_long_cell_has_a_bounded_number_of_lines(tmp_path: Path, times: Callable[[float], None]) -> None:
    log = EventLog(tmp_path, "main")
    log.append(CellStarted("a", 10_000))
    for step in range(1, 10_001):
        times(10.0 * step)
        log.append(Progress("a", "", 1, step))
    progress = [event for event in EventReader(tmp_path).read() if isinstance(event, Progress)]
    assert COUNTS / 2 <= len(progress) <= COUNTS + 1


def test_a_listener_gets_every_event_and_the_log_none_before_the_directory_is_there(tmp_path: Path) -> None:
    told: list[Event] = []
    emit = logged(tmp_path, told.append)
    for event in EVENTS[:2]:
        emit(event)
    assert list(tmp_path.iterdir()) == []
    for event in EVENTS[2:]:
        emit(event)
    assert told == EVENTS
    assert EventReader(tmp_path).read() == [event for event in EVENTS if not isinstance(event, BetweenSteps)]
    assert [path.name for path in (tmp_path / "events").iterdir()] == ["main.jsonl"]


def test_a_log_that_cannot_be_written_is_said_once_and_the_run_continues(tmp_path: Path) -> None:
    (tmp_path / "events").write_text("a file")
    told: list[Event] = []
    emit = logged(tmp_path, told.append)
    emit(CHECKED)
    emit(Warned("next"))
    (warned, *rest) = told
    assert isinstance(warned, Warned)
    assert warned.text.startswith(f"events are not logged from now on: cannot write {tmp_path}/events/main.jsonl: ")
    assert rest == [CHECKED, Warned("next")]
