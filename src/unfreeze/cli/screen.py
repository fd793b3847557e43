"""Consoles and tables that read well on a terminal of any width, and in a pipe."""

import sys

from rich import box
from rich.console import Console
from rich.table import Table

PIPE_WIDTH = 1000
"""In a pipe nothing is cut or wrapped: a table is as wide as its text."""


def stdout() -> Console:
    """Return a console on stdout; names in brackets are text, not markup."""
    width = None if sys.stdout.isatty() else PIPE_WIDTH
    return Console(width=width, markup=False, highlight=False, emoji=False)


def stderr() -> Console:
    """Return a console on stderr."""
    return Console(stderr=True, markup=False, highlight=False, emoji=False)


def table(*columns: str, numbers: tuple[str, ...] = ()) -> Table:
    """Return an empty table; columns named in ``numbers`` stand to the right and are never wrapped or cut."""
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
    for column in columns:
        if column in numbers:
            made.add_column(column, justify="right", no_wrap=True)
        else:
            made.add_column(column, overflow="fold")
    return made


def show(console: Console, made: Table) -> None:
    """Print a table; on a terminal that is too narrow for its numbers, lines run over rather than lose digits."""
    needed = sum(
        max(console.measure(cell).minimum if not column.no_wrap else console.measure(cell).maximum for cell in cells)
        + 2
        for column in made.columns
        if (cells := [column.header, *column.cells])
    )
    if needed > console.width:
        console = Console(file=console.file, width=needed, markup=False, highlight=False, emoji=False, soft_wrap=True)
    console.print(made)
    console.print()
