"""Show a run as it goes: live on a terminal, plain lines elsewhere."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from unfreeze.cli.board import Board
from unfreeze.cli.interrupts import Check
from unfreeze.cli.lines import line_of
from unfreeze.study import events


@contextmanager
def watching(board: Board, live: bool, check: Check) -> Iterator[events.Emit]:
    """Yield what to tell events to; they are written on the board and shown on stderr.

    ``check`` is called after each that work can end at without a loss.
    """
    if live:
        from rich.live import Live
        from rich.text import Text

        from unfreeze.cli.live import LiveView
        from unfreeze.cli.screen import stderr

        console = stderr()
        with Live(LiveView(board), console=console, transient=True, refresh_per_second=4):

            def show(event: events.Event) -> None:
                board.take(event)
                told = isinstance(event, events.Warned | events.Understood | events.Checked)
                if told and (line := line_of(event, board)):
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
    """Tell whether stderr is a terminal that can be drawn on."""
    from unfreeze.cli.screen import stderr

    console = stderr()
    return console.is_terminal and not console.is_dumb_terminal
