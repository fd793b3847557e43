"""Consoles and tables that read well on a terminal of any width, and in a pipe."""

import sys

from rich import box
from rich.console import Console
from rich.table import Table

PIPE_WIDTH = 1000
"""In a pipe nothing is cut or wrapped: a table is as wide as its text."""

GAP = 3
"""Columns between two columns of a table."""


def stdout() -> Console:
    """Return a console on stdout; names in brackets are text, not markup."""
    width = None if sys.stdout.isatty() else PIPE_WIDTH
    return Console(width=width, markup=False, highlight=False, emoji=False)


def stderr() -> Console:
    """Return a console on stderr."""
    return Console(stderr=True, markup=False, highlight=False, emoji=False)


def one_line(text: str) -> str:
    """Return text with what is not printable spelled out, so that no name moves the cursor or turns the text round."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in text
    )


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
    width = console.width
    console.width = max(width, least_width(console, made))
    with console.capture() as written:
        console.print(made)
    console.width = width
    text = written.get()
    # In a pipe the padding to the right is only in the way.
    console.file.write(text if console.is_terminal else "\n".join(line.rstrip() for line in text.split("\n")))
    console.print()


def least_width(console: Console, made: Table) -> int:
    """Return the columns that a table needs for its numbers and for the longest word of everything else."""
    measures = [[console.measure(cell) for cell in (column.header, *column.cells)] for column in made.columns]
    parts = [
        max(measure.maximum if column.no_wrap else measure.minimum for measure in measured)
        for column, measured in zip(made.columns, measures, strict=True)
    ]
    return sum(parts) + GAP * len(parts)
