"""Events of a running study, as plain data with a JSON form."""

import typing
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Scanning:
    """Images are read: ``done`` of ``total`` files."""

    done: int
    total: int


@dataclass(frozen=True)
class Understood:
    """How the data was understood before it is read, as lines and as JSON data."""

    lines: tuple[str, ...]
    layout: dict[str, Any]


@dataclass(frozen=True)
class Checked:
    """The data is checked and the study directory exists.

    Attributes:
        findings: one entry per kind of finding, the worst first: kind, severity, findings (their number), count (of
            images) and note.
        page: the page that shows them all; written unless they are notes alone.
    """

    findings: tuple[dict[str, Any], ...]
    page: Path

    @property
    def has_page(self) -> bool:
        """Whether something was found that is worth a line and a page: notes alone are not."""
        return any(kind["severity"] != "note" for kind in self.findings)


@dataclass(frozen=True)
class Planned:
    """The cells of the study in plan order, and those of them that are finished already."""

    cells: tuple[str, ...]
    finished: tuple[str, ...]


@dataclass(frozen=True)
class Warned:
    """A warning, which the report repeats."""

    text: str


@dataclass(frozen=True)
class Preparing:
    """Progress of work beside the cells: ``what``, ``done`` of ``total`` images, or of backbones to calibrate."""

    what: str
    done: int
    total: int


@dataclass(frozen=True)
class CellStarted:
    """A cell starts; ``examples`` are what all its candidates will draw if nothing stops them early."""

    cell: str
    examples: int


@dataclass(frozen=True)
class CellResumed:
    """A cell resumes from its saved state: a candidate, in an epoch, after ``examples`` of the whole cell."""

    cell: str
    candidate: str
    epoch: int
    examples: int


@dataclass(frozen=True)
class BetweenSteps:
    """Training is between two steps: a listener that raises here ends the run without a loss."""


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
    """A cell failed, or ``diverged``; the others continue."""

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
"""Events within a step or at a cell's end, where ending the run would lose unsaved training."""

Emit = Callable[[Event], None]

KINDS: Mapping[str, type[Event]] = {kind.__name__: kind for kind in typing.get_args(Event)}
"""Events by the name that their JSON form holds."""


def to_json(event: Event) -> dict[str, Any]:
    """Return an event as JSON data: its kind as ``event``, and its fields."""
    values = {name: str(value) if isinstance(value, Path) else value for name, value in asdict(event).items()}
    return {"event": type(event).__name__, **values}


def from_json(record: Any) -> Event | None:
    """Return the event of a record of ``to_json``; None for an unknown one, as of a later version."""
    kind = KINDS.get(record.get("event", "")) if isinstance(record, dict) else None
    if kind is None:
        return None
    values = {name: _value(hint, record[name]) for name, hint in _HINTS[kind.__name__].items() if name in record}
    try:
        return kind(**values)
    except TypeError:  # a field is missing
        return None


_HINTS = {name: typing.get_type_hints(kind) for name, kind in KINDS.items()}


def _value(hint: Any, value: Any) -> Any:
    """Return a field's value from JSON data, which knows neither paths nor tuples."""
    if hint is Path:
        return Path(value)
    return tuple(value) if typing.get_origin(hint) is tuple else value
