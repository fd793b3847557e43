"""Show the progress of a run: a live table on a terminal, plain lines elsewhere."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from unfreeze import events
from unfreeze.cli.interrupts import Check
from unfreeze.cli.progress import ENDED, Board, CellView, line_of
from unfreeze.events import Preparing
from unfreeze.metrics import metric_text
from unfreeze.text import MISSING, plural, seconds_text


@contextmanager
def watching(board: Board, live: bool, check: Check) -> Iterator[events.Emit]:
    """Yield a callback for events that updates the board and shows progress on stderr.

    ``check`` is called after each event at which the run can be interrupted without a loss.
    """
    if live:
        from rich.live import Live
        from rich.text import Text

        from unfreeze.cli.tables import stderr

        console = stderr()
        with Live(LiveView(board), console=console, transient=True, refresh_per_second=4):

            def show(event: events.Event) -> None:
                board.take(event)
                has_line = isinstance(event, events.Warned | events.Understood | events.Checked)
                if has_line and (line := line_of(event, board)):
                    console.print(Text(line, style="yellow" if isinstance(event, events.Warned) else ""))
                _may_end(event, check)

            yield show
        return

    def tell(event: events.Event) -> None:
        board.take(event)
        line = line_of(event, board)
        if line is not None:
            print(line, file=sys.stderr, flush=True)
        _may_end(event, check)

    yield tell


def _may_end(event: events.Event, check: Check) -> None:
    if not isinstance(event, events.MIDST):
        check()


def is_terminal() -> bool:
    """Return whether stderr is a terminal that can show a live table."""
    from unfreeze.cli.tables import stderr

    console = stderr()
    return console.is_terminal and not console.is_dumb_terminal


AROUND = 7
"""Lines beside the cells: table header, counts, overall bar, and an empty line."""

WIDE = 100
"""Terminal width from which bars are longer and headings are not abbreviated."""

STYLES = {"running": "bold", "earlier": "dim", "failed": "red", "diverged": "red", "waiting": "dim", "left": "dim"}
STATES = {"earlier": "finished before", "left": "skipped"}


class LiveView:
    """A rich renderable of the board, drawn again at each refresh."""

    def __init__(self, board: Board) -> None:
        self.board = board

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield view(self.board, options.max_width, console.height)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(options.max_width, options.max_width)


def view(board: Board, width: int, height: int) -> RenderableType:
    """Draw the board for a screen of ``width`` columns and ``height`` lines."""
    if not board.planned:
        return _scanning(board, width) if board.preparing is None else _bar(board.preparing, width)
    around = AROUND if board.preparing is None else AROUND + 2
    shown = visible(board, max(1, height - around))
    parts: list[RenderableType] = [_cells(board, shown, width)]
    if len(shown) < len(board.cells):
        parts.append(Text(f"  {_counts(board)}", style="dim"))
    if board.preparing is not None:
        parts += [Text(), _bar(board.preparing, width)]
    return Group(*parts, Text(), _overall(board, width))


def visible(board: Board, rows: int) -> list[CellView]:
    """Return the cells to show: all if they fit, else those running, the last that ended and the next to run."""
    if len(board.cells) <= rows:
        return list(board.cells.values())
    running = board.in_state("running")[:rows]
    waiting = board.in_state("waiting", "left")
    ended = sorted(board.in_state(*ENDED), key=lambda cell: cell.order)
    room = rows - len(running)
    after = min(len(waiting), max(room // 3, room - len(ended)))
    before = min(len(ended), room - after)
    return [*ended[len(ended) - before :], *running, *waiting[:after]]


def _scanning(board: Board, width: int) -> RenderableType:
    done, total = board.scanned
    if not total:
        return Text("starting …")
    grid = Table.grid(padding=(0, 1))
    grid.add_row("reading images", ProgressBar(total, done, width=max(10, width - 50)), f"{done:,} of {total:,}")
    return grid


def _bar(work: Preparing, width: int) -> RenderableType:
    """Draw the progress of shared work."""
    count = f"{work.done:,} of {work.total:,}"
    words = work.what[: max(1, width - len(count) - 14)]
    grid = Table.grid(padding=(0, 1))
    grid.add_row(words, ProgressBar(work.total, work.done, width=max(10, width - len(words) - len(count) - 4)), count)
    return grid


def _cells(board: Board, cells: list[CellView], width: int) -> Table:
    wide = width >= WIDE
    bar, scores, gap = (24, ("validation", "test"), 3) if wide else (10, ("valid.", "test"), 2)
    epochs = [_epoch(board, cell) for cell in board.cells.values()]
    fixed = [bar + 5, max(5, *map(len, epochs)), max(7, len(scores[0])), 7, 12]
    name = min(max(map(len, board.cells)), width - sum(fixed) - gap * len(fixed))
    table = Table(box=None, padding=(0, gap, 0, 0), pad_edge=False, header_style="dim")
    for heading, columns in zip(("cell", "state", "epoch", *scores, "time"), (name, *fixed), strict=True):
        left = heading in ("cell", "state")
        table.add_column(heading, width=max(4, columns), no_wrap=True, justify="left" if left else "right")
    for cell in cells:
        table.add_row(
            shortened(cell.id, name),
            _state(cell, bar),
            _epoch(board, cell),
            _score(board, cell, cell.validation),
            _score(board, cell, cell.test),
            _time(board, cell),
            style=STYLES.get(cell.state, ""),
        )
    return table


def shortened(name: str, width: int) -> str:
    """Shorten a cell's name to a width by cutting its middle, since the seed stands at the end."""
    if len(name) <= width:
        return name
    end = min(len(name.split(".", 1)[-1]), max(0, width - 1) * 2 // 3)
    return f"{name[: max(0, width - 1 - end)]}…{name[len(name) - end :]}"


def _state(cell: CellView, bar: int) -> RenderableType:
    if cell.state != "running":
        return STATES.get(cell.state, cell.state)
    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_row(ProgressBar(1.0, cell.share, width=bar), f"{cell.share:4.0%}")
    return grid


def _epoch(board: Board, cell: CellView) -> str:
    return f"{cell.epoch}/{board.epochs_of(cell)}" if cell.epoch else ""


def _score(board: Board, cell: CellView, value: float | None) -> str:
    if value is None:
        return MISSING if cell.state in ("finished", "earlier") else ""
    return metric_text(board.metric, value)


def _time(board: Board, cell: CellView) -> str:
    if cell.state == "running":
        if cell.share == 1:  # training is done: predicts the test images and writes files
            return "testing"
        left = cell.seconds_left(board.clock())
        return "" if left is None else f"{seconds_text(left)} left"
    ended = cell.state in ("finished", "failed", "diverged")
    return seconds_text(cell.ended - cell.started) if ended and cell.started else ""


def _counts(board: Board) -> str:
    counts = {
        "finished": len(board.in_state("finished", "earlier")),
        "failed": len(board.in_state("failed")),
        "diverged": len(board.in_state("diverged")),
        "running": len(board.in_state("running")),
        "waiting": len(board.in_state("waiting")),
        "skipped": len(board.in_state("left")),
    }
    words = [f"{count} {name}" for name, count in counts.items() if count]
    return f"of {plural(len(board.cells), 'cell')}: {', '.join(words)}"


def _overall(board: Board, width: int) -> RenderableType:
    left = board.seconds_left()
    spent = seconds_text(board.clock() - board.began)
    done = f"{len(board.in_state(*ENDED))} of {plural(len(board.cells), 'cell')}"
    words = f"{done}, {spent}" + ("" if left is None else f", about {seconds_text(left)} left")
    grid = Table.grid(padding=(0, 1))
    grid.add_row(ProgressBar(1.0, board.share(), width=max(10, width - len(words) - 4)), words)
    return grid
