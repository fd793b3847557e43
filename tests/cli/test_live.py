"""Live display: it fits the screen, shows all digits and the relevant cells."""

import io

import pytest
from rich.console import Console

from tests.support.board import CELLS, EPOCH, RESULT, Clock
from unfreeze.cli.live import LiveView, shortened, visible
from unfreeze.cli.progress import Board
from unfreeze.events import CellFailed, CellFinished, CellStarted, EpochEnded, Planned, Preparing, Progress, Scanning


def drawn(board: Board, width: int = 80, height: int = 24) -> list[str]:
    console = Console(file=io.StringIO(), force_terminal=True, width=width, height=height, color_system=None)
    console.print(LiveView(board))
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def board_of(cells: tuple[str, ...]) -> Board:
    strategies = {cell.split(".")[0]: 50 for cell in cells}
    board = Board("accuracy", strategies, lambda cell: RESULT, Clock())
    board.take(Planned(cells, ()))
    return board


def test_display_before_the_plan_is_known():
    board = Board("accuracy", {}, {}.__getitem__, Clock())
    assert drawn(board) == ["starting …"]
    board.take(Scanning(500, 2000))
    (line,) = drawn(board)
    assert line.startswith("reading images ━━━")
    assert line.endswith(" 500 of 2,000")


def test_shared_work_has_a_bar_until_it_is_done():
    board = Board("accuracy", {}, {}.__getitem__, Clock())
    board.take(Preparing("calibrating", 1, 2))
    (line,) = drawn(board)
    assert line.startswith("calibrating ━━━") and line.endswith(" 1 of 2")
    board = board_of(CELLS)
    before = drawn(board)
    board.take(Preparing("frozen stages of vgg16, 128 pixels, after block5", 64, 1750))
    assert [line for line in drawn(board) if "vgg16" in line][0].endswith(" 64 of 1,750")
    assert len(drawn(board)) == len(before) + 2
    board.take(Preparing("frozen stages of vgg16, 128 pixels, after block5", 1750, 1750))
    assert drawn(board) == before


def test_shared_work_that_failed_leaves_no_bar():
    board = board_of(CELLS)
    board.take(Preparing("decoding images", 3, 10))
    board.take(CellFailed(CELLS[0], "broken"))
    assert not [line for line in drawn(board) if "decoding" in line]


def test_display_of_a_running_study():
    board = board_of(CELLS)
    clock = board.clock
    board.take(CellStarted(CELLS[0], 100))
    clock.now += 90
    board.take(CellFinished(CELLS[0], RESULT))
    board.take(CellStarted(CELLS[1], 100))
    board.take(CellFailed(CELLS[1], "broken"))
    board.take(CellStarted(CELLS[2], 100))
    board.take(Progress(CELLS[2], "", 12, 25))
    board.take(EpochEnded(CELLS[2], EPOCH))
    clock.now += 5
    assert drawn(board) == [
        "cell         state            epoch   valid.     test          time",
        "head.few.s0  finished          5/50   80.0 %   70.0 %       1.5 min",
        "all.few.s0   failed                                          0.00 s",
        "head.few.s1  ━━╸         25%  12/50   70.0 %              15 s left",
        "all.few.s1   waiting",
        "",
        "━━━━━━━━━━━━━━━━━━━╸                2 of 4 cells, 1.6 min, about 1.2 min left",
    ]


@pytest.mark.parametrize("width", [80, 100, 120, 200])
@pytest.mark.parametrize("height", [10, 24, 50])
def test_many_cells_fit_the_screen(width, height):
    cells = tuple(
        f"last_quarter_slowly.{regime}.s{seed}" for seed in range(12) for regime in ("images_10_augmented", "full")
    )
    board = board_of(cells)
    for cell in cells[:9]:
        board.take(CellStarted(cell, 100))
        board.clock.now += 100
        board.take(CellFinished(cell, RESULT | {"val_metric": 1.0}))
    board.take(CellStarted(cells[9], 100))
    board.take(Progress(cells[9], "", 3, 50))
    board.clock.now += 50
    lines = drawn(board, width, height)
    assert len(lines) < height
    assert max(map(len, lines)) <= width
    shown = [line for line in lines if ".s" in line]
    running = [line for line in shown if "50%" in line]
    assert len(running) == 1
    assert running[0].endswith("50 s left")
    assert all(
        "100.0 %   70.0 %" in " ".join(line.split("  ")) or "100.0 %" in line for line in shown if "finished" in line
    )
    if len(shown) < len(cells):
        assert "  of 24 cells: 9 finished, 1 running, 14 waiting" in lines


def test_running_recent_and_next_cells_are_shown():
    cells = tuple(f"head.few.s{seed}" for seed in range(20))
    board = board_of(cells)
    for cell in cells[:10]:
        board.take(CellStarted(cell, 100))
        board.take(CellFinished(cell, RESULT))
    board.take(CellStarted(cells[10], 100))
    assert [cell.id for cell in visible(board, 7)] == [f"head.few.s{seed}" for seed in range(6, 13)]
    assert [cell.id for cell in visible(board, 1)] == ["head.few.s10"]
    assert len(visible(board, 20)) == 20


def test_number_of_recent_and_next_cells_shown():
    cells = tuple(f"head.few.s{seed}" for seed in range(20))
    board = board_of(cells)
    assert [cell.id for cell in visible(board, 5)] == list(cells[:5])
    for cell in cells:
        board.take(CellStarted(cell, 100))
        board.take(CellFinished(cell, RESULT))
    assert [cell.id for cell in visible(board, 5)] == list(cells[-5:])


@pytest.mark.parametrize(
    ("width", "text"),
    [
        (30, "fine_tune.images_10.s1"),
        (22, "fine_tune.images_10.s1"),
        (18, "fine_t…mages_10.s1"),
        (10, "fin…_10.s1"),
    ],
)
def test_long_names_are_shortened_in_the_middle(width, text):
    assert shortened("fine_tune.images_10.s1", width) == text
    assert len(text) <= width
