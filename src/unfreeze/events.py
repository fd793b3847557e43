"""What happens while a study runs, for whoever shows it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Scanning:
    """Images are read: ``done`` of ``total`` files."""

    done: int
    total: int


@dataclass(frozen=True)
class Understood:
    """What was understood of the data, before it is read: lines, and the same as JSON data."""

    lines: tuple[str, ...]
    layout: dict[str, Any]


@dataclass(frozen=True)
class Checked:
    """The images are looked at, and the study directory is there: what was found, and where a page of it belongs.

    ``catalog`` is a ``data.catalog.Catalog``, ``findings`` are ``data.quality.Finding``.
    """

    catalog: Any
    findings: tuple[Any, ...]
    page: Path


@dataclass(frozen=True)
class Planned:
    """The cells of the study in plan order, and those of them that are finished already."""

    cells: tuple[str, ...]
    finished: tuple[str, ...]


@dataclass(frozen=True)
class Warned:
    """Something the report will repeat."""

    text: str


@dataclass(frozen=True)
class Preparing:
    """Work beside the cells is done: ``what``, ``done`` of ``total`` images, or of backbones to calibrate."""

    what: str
    done: int
    total: int


@dataclass(frozen=True)
class CellStarted:
    """A cell begins; ``examples`` is what all its candidates will draw if nothing stops them early."""

    cell: str
    examples: int


@dataclass(frozen=True)
class CellResumed:
    """A cell that has begun goes on where its training state was saved: in an epoch, after so many examples."""

    cell: str
    candidate: str
    epoch: int
    examples: int


@dataclass(frozen=True)
class BetweenSteps:
    """Training stands between two steps: whoever ends the run here, by raising, loses nothing."""


@dataclass(frozen=True)
class Progress:
    """A step is done: examples drawn by this cell so far, over all its candidates."""

    cell: str
    candidate: str
    epoch: int
    examples: int


@dataclass(frozen=True)
class EpochEnded:
    """An epoch is done: its row of history."""

    cell: str
    row: dict[str, Any]


@dataclass(frozen=True)
class CellFinished:
    """A cell is written: its row of results."""

    cell: str
    result: dict[str, Any]


@dataclass(frozen=True)
class CellFailed:
    """A cell failed, or ``diverged``; the others go on."""

    cell: str
    error: str
    diverged: bool = False


@dataclass(frozen=True)
class CellsLeft:
    """Cells that the time limit left out; the same command without it runs them."""

    cells: tuple[str, ...]


Event = (
    Scanning
    | Understood
    | Checked
    | Planned
    | Warned
    | Preparing
    | CellStarted
    | CellResumed
    | BetweenSteps
    | Progress
    | EpochEnded
    | CellFinished
    | CellFailed
    | CellsLeft
)


MIDST = (Progress, EpochEnded, CellFinished, CellFailed)
"""Told in the midst of a step or a cell's end: ending the run there would lose what training has not saved."""


Emit = Callable[[Event], None]
