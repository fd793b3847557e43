"""Progress of a running study: a board updated by events, for displays to read."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from unfreeze import events
from unfreeze.cli.findings import found_lines
from unfreeze.cli.tables import one_line
from unfreeze.metrics import METRICS, metric_text
from unfreeze.text import plural, seconds_text

State = Literal["waiting", "running", "finished", "earlier", "failed", "diverged", "left"]

TELLING_SHARE = 0.05
"""Share of a cell's examples before which its time left is not estimated: the first steps are slow."""

ENDED: tuple[State, ...] = ("finished", "earlier", "failed", "diverged")


@dataclass
class CellView:
    """One cell as a display shows it.

    Attributes:
        id: of the cell.
        state: ``earlier``: finished by an earlier run; ``left``: skipped because of the time limit.
        total: examples to train on, without early stopping.
        examples: examples trained on so far.
        before: examples trained on by an earlier run.
        epoch: current epoch, counted from 1.
        candidate: the candidate in training, "" without tuning.
        validation: validation metric: the latest while running, the reported one when finished.
        test: test metric; None without test images.
        started, ended: seconds on the board's clock.
        order: rank among the cells that ended, by time.
    """

    id: str
    state: State = "waiting"
    total: int = 0
    examples: int = 0
    before: int = 0
    epoch: int = 0
    candidate: str = ""
    validation: float | None = None
    test: float | None = None
    started: float = 0.0
    ended: float = 0.0
    order: int = 0

    @property
    def share(self) -> float:
        """Share of its examples trained on so far, 0 to 1."""
        return min(1.0, self.examples / self.total) if self.total else 0.0

    def seconds_left(self, now: float) -> float | None:
        """Estimated seconds that a running cell still needs; None while too little of it has run."""
        drawn = self.share - (self.before / self.total if self.total else 0.0)
        if drawn < TELLING_SHARE:
            return None
        return (now - self.started) * (1 - self.share) / drawn


@dataclass
class Board:
    """State of a run, updated by ``take``.

    Attributes:
        metric: the study's metric.
        epochs: epochs of a candidate by strategy, without early stopping.
        earlier: returns the result of a cell that an earlier run finished.
        clock: monotonic seconds.
        preparing: shared work in progress, or None.
    """

    metric: str
    epochs: Mapping[str, int]
    earlier: Callable[[str], Mapping[str, Any]]
    clock: Callable[[], float] = time.monotonic
    scanned: tuple[int, int] = (0, 0)
    preparing: events.Preparing | None = None
    planned: bool = False
    cells: dict[str, CellView] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    errors: dict[str, str] = field(default_factory=dict)
    began: float = field(init=False)

    def __post_init__(self) -> None:
        self.began = self.clock()

    def take(self, event: events.Event) -> None:
        """Update the board by an event."""
        match event:
            case events.Scanning(done, total):
                self.scanned = done, total
            case events.Preparing(_, done, total):
                self.preparing = event if done < total else None
            case events.Planned(cells, finished):
                self.cells = {name: CellView(name) for name in cells}
                for name in finished:
                    self._end(name, "earlier", self.earlier(name))
                self.planned = True
            case events.Warned(text):
                self.warnings.append(text)
            case events.CellStarted(name, total):
                self.preparing = None
                self.cells[name] = CellView(name, "running", total, started=self.clock())
            case events.Progress(name, candidate, epoch, examples):
                cell = self.cells[name]
                cell.candidate, cell.epoch, cell.examples = candidate, epoch, examples
            case events.EpochEnded(name, row):
                self.cells[name].validation = row["val_metric"]
            case events.CellFinished(name, result):
                self._end(name, "finished", result)
            case events.CellResumed(name, candidate, epoch, examples):
                cell = self.cells[name]
                cell.candidate, cell.epoch, cell.examples, cell.before = candidate, epoch, examples, examples
            case events.CellFailed(name, error, diverged):
                self.preparing = None  # it may have failed in the middle of shared work
                self.errors[name] = error
                self._end(name, "diverged" if diverged else "failed", {})
            case events.CellsLeft(names):
                for name in names:
                    self.cells[name].state = "left"

    def _end(self, name: str, state: State, result: Mapping[str, Any]) -> None:
        cell = self.cells[name]
        cell.state, cell.ended, cell.order = state, self.clock(), len(self.in_state(*ENDED))
        cell.validation, cell.test = result.get("val_metric"), result.get("test_metric")
        cell.epoch = result.get("epochs", cell.epoch)

    def in_state(self, *states: State) -> list[CellView]:
        """Return the cells in any of the states, in the order of the plan."""
        return [cell for cell in self.cells.values() if cell.state in states]

    def epochs_of(self, cell: CellView) -> int:
        """Return the number of epochs of each candidate of a cell."""
        return self.epochs[cell.id.split(".")[0]]

    def share(self) -> float:
        """Return the share of work done, in cells; a running cell counts by its own share."""
        done = len(self.in_state(*ENDED)) + sum(cell.share for cell in self.in_state("running"))
        return done / len(self.cells) if self.cells else 0.0

    def seconds_left(self) -> float | None:
        """Estimate the seconds left from the time of similar cells; None before any cell has run."""
        now = self.clock()
        known: dict[str, list[float]] = {}
        left = 0.0
        for cell in self.in_state("finished", "running"):
            rest = cell.seconds_left(now) if cell.state == "running" else 0.0
            if rest is not None:
                left += rest
                took = now - cell.started + rest if cell.state == "running" else cell.ended - cell.started
                for kind in _kinds(cell.id):
                    known.setdefault(kind, []).append(took)
        if not known:
            return None
        for cell in self.in_state("waiting"):
            similar = next(known[kind] for kind in _kinds(cell.id) if kind in known)
            left += sum(similar) / len(similar)
        return left


def _kinds(cell: str) -> tuple[str, ...]:
    """Return keys of similar cells, the most similar first: strategy and regime, strategy, any."""
    strategy, regime, *_ = cell.split(".")
    return f"{strategy}.{regime}", strategy, ""


def line_of(event: events.Event, board: Board) -> str | None:
    """Return the line to print for an event after ``Board.take``, or None."""
    match event:
        case events.Scanning(done, total):
            return f"read {plural(total, 'image file')}" if done == total else None
        case events.Understood(lines):
            return "\n".join(map(one_line, lines))
        case events.Checked():
            return "\n".join(found_lines(event)) or None
        case events.Planned(cells, finished):
            return planned_line(len(cells), len(finished))
        case events.Preparing(what, done, total):
            return f"{what}: {done:,} of {total:,}" if total and done in (0, total) else None
        case events.Warned(text):
            return f"warning: {text}"
        case events.CellStarted(name, examples):
            return f"{_count(board)} {name}: started, {plural(examples, 'example')} to train on"
        case events.EpochEnded(name, row):
            return f"{_count(board)} {name}: {_epoch(row, board)}"
        case events.CellFinished(name, result):
            return f"{_count(board)} {name}: finished; {_finished(result, board)}"
        case events.CellResumed(name, candidate, epoch, examples):
            where = f"{candidate}, epoch {epoch}" if candidate else f"epoch {epoch}"
            return f"{_count(board)} {name}: resumes in {where}, after {plural(examples, 'example')}"
        case events.CellFailed(name, error, diverged):
            return f"{_count(board)} {name}: {error}" if diverged else f"{_count(board)} {name}: failed: {error}"
        case events.CellsLeft(names):
            return f"skipped because of the time limit: {', '.join(names)}"
    return None


def planned_line(cells: int, finished: int) -> str:
    """Return how many cells there are, and how many of them are already finished."""
    if not finished:
        return f"{plural(cells, 'cell')} to run"
    if finished == cells:
        return f"{plural(cells, 'cell')}, {'all ' if cells > 1 else ''}finished: nothing to run"
    return f"{plural(cells, 'cell')}, {finished} already finished: {cells - finished} to run"


def _count(board: Board) -> str:
    return f"[{len(board.in_state(*ENDED))}/{len(board.cells)}]"


def _epoch(row: dict, board: Board) -> str:
    tuned = f"{row['candidate']}, " if row["candidate"] else ""
    parts = [
        f"training loss {row['train_loss']:.3f}, accuracy {metric_text('accuracy', row['train_accuracy'])}",
        f"validation loss {row['val_loss']:.3f}, accuracy {metric_text('accuracy', row['val_accuracy'])}",
    ]
    if board.metric != "accuracy":
        parts.append(f"{METRICS[board.metric].label} {metric_text(board.metric, row['val_metric'])}")
    return f"{tuned}epoch {row['epoch']}: {'; '.join(parts)}; {seconds_text(row['seconds'])}"


def _finished(result: dict, board: Board) -> str:
    scores = [
        f"{where} {metric_text(board.metric, value)}"
        for where, value in (("validation", result["val_metric"]), ("test", result["test_metric"]))
        if value is not None
    ]
    return (
        f"{METRICS[board.metric].label} on {', '.join(scores)}; "
        f"epoch {result['best_epoch']} of {result['epochs']}; {seconds_text(result['seconds_total'])}"
    )
