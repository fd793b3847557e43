"""Progress board: its state after events, and its estimate of the time left."""

import pytest

from tests.support.board import CELLS, EPOCH, RESULT, Clock
from unfreeze.cli.progress import Board, line_of
from unfreeze.events import (
    CellFailed,
    CellFinished,
    CellsLeft,
    CellStarted,
    EpochEnded,
    Planned,
    Progress,
    Scanning,
    Warned,
)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def board(clock) -> Board:
    made = Board("accuracy", {"head": 5, "all": 5}, lambda cell: RESULT, clock)
    made.take(Planned(CELLS, ()))
    return made


def test_a_cell_from_start_to_finish(board, clock):
    board.take(CellStarted(CELLS[0], 200))
    board.take(Progress(CELLS[0], "", 2, 50))
    clock.now += 10
    cell = board.cells[CELLS[0]]
    assert (cell.state, cell.epoch, cell.share, cell.seconds_left(clock())) == ("running", 2, 0.25, 30)
    board.take(EpochEnded(CELLS[0], EPOCH))
    assert (cell.validation, cell.test) == (0.7, None)
    board.take(CellFinished(CELLS[0], RESULT))
    assert (cell.state, cell.validation, cell.test, cell.epoch) == ("finished", 0.8, 0.7, 5)
    assert board.share() == 0.25


def test_cells_of_an_earlier_run_show_their_results(clock):
    board = Board("accuracy", {"head": 5}, {CELLS[0]: RESULT}.__getitem__, clock)
    board.take(Planned(CELLS[:1], CELLS[:1]))
    cell = board.cells[CELLS[0]]
    assert (cell.state, cell.validation, cell.test) == ("earlier", 0.8, 0.7)
    assert (board.share(), board.seconds_left()) == (1.0, None)


def test_time_of_waiting_cells_is_estimated_from_similar_cells(board, clock):
    assert board.seconds_left() is None
    for cell, seconds in ((CELLS[0], 10), (CELLS[1], 40)):
        board.take(CellStarted(cell, 100))
        clock.now += seconds
        board.take(CellFinished(cell, RESULT))
    assert board.seconds_left() == 50
    board.take(CellStarted(CELLS[2], 100))
    board.take(Progress(CELLS[2], "", 1, 50))
    clock.now += 6  # so this one takes 12 in all
    assert board.seconds_left() == 6 + 40


def test_no_estimate_from_the_first_steps(board, clock):
    board.take(CellStarted(CELLS[0], 1000))
    board.take(Progress(CELLS[0], "", 1, 10))
    clock.now += 5
    assert board.seconds_left() is None


def test_failed_and_skipped_cells(board):
    board.take(CellStarted(CELLS[0], 10))
    board.take(CellFailed(CELLS[0], "broken"))
    board.take(CellsLeft(CELLS[1:]))
    assert [cell.state for cell in board.cells.values()] == ["failed", "left", "left", "left"]
    assert board.errors == {CELLS[0]: "broken"}
    assert board.share() == 0.25


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (Scanning(3, 10), None),
        (Scanning(1, 1), "read 1 image file"),
        (Planned(CELLS, ()), "4 cells to run"),
        (Planned(CELLS, CELLS[:1]), "4 cells, 1 already finished: 3 to run"),
        (Planned(CELLS, CELLS), "4 cells, all finished: nothing to run"),
        (Planned(CELLS[:1], CELLS[:1]), "1 cell, finished: nothing to run"),
        (Warned("class a gives 3 of 5 training images"), "warning: class a gives 3 of 5 training images"),
        (CellStarted(CELLS[0], 1200), "[0/4] head.few.s0: started, 1,200 examples to train on"),
        (Progress(CELLS[0], "", 1, 1), None),
        (
            EpochEnded(CELLS[0], EPOCH),
            "[0/4] head.few.s0: epoch 3: training loss 0.500, accuracy 75.0 %; "
            "validation loss 0.400, accuracy 80.0 %; 2.0 s",
        ),
        (
            EpochEnded(CELLS[0], EPOCH | {"candidate": "lr=0.1"}),
            "[0/4] head.few.s0: lr=0.1, epoch 3: training loss 0.500, accuracy 75.0 %; "
            "validation loss 0.400, accuracy 80.0 %; 2.0 s",
        ),
        (
            CellFinished(CELLS[0], RESULT),
            "[1/4] head.few.s0: finished; accuracy on validation 80.0 %, test 70.0 %; epoch 3 of 5; 12 s",
        ),
        (
            CellFinished(CELLS[0], RESULT | {"test_metric": None}),
            "[1/4] head.few.s0: finished; accuracy on validation 80.0 %; epoch 3 of 5; 12 s",
        ),
        (CellFailed(CELLS[0], "no room"), "[1/4] head.few.s0: failed: no room"),
        (CellsLeft(CELLS[2:]), "skipped because of the time limit: head.few.s1, all.few.s1"),
    ],
)
def test_line_of_each_event(board, event, line):
    board.take(event)
    assert line_of(event, board) == line


def test_an_epoch_line_has_the_metric_of_the_study(clock):
    board = Board("log_loss", {"head": 5}, {}.__getitem__, clock)
    board.take(Planned(CELLS[:1], ()))
    board.take(CellStarted(CELLS[0], 5))
    assert line_of(EpochEnded(CELLS[0], EPOCH), board) == (
        "[0/1] head.few.s0: epoch 3: training loss 0.500, accuracy 75.0 %; validation loss 0.400, accuracy 80.0 %; "
        "log loss 0.700; 2.0 s"
    )


def test_a_finished_line_has_the_label_of_the_metric(clock):
    board = Board("auroc", {"head": 5}, {}.__getitem__, clock)
    board.take(Planned(CELLS[:1], ()))
    event = CellFinished(CELLS[0], RESULT)
    board.take(event)
    line = "[1/1] head.few.s0: finished; AUROC on validation 0.800, test 0.700; epoch 3 of 5; 12 s"
    assert line_of(event, board) == line
