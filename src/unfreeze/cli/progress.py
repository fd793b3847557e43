"""What a running study looks like at any moment: a board that events are written on, for displays to read."""

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
"""The first steps are slow: memory is fetched, workers start."""

ENDED: tuple[State, ...] = ("finished", "earlier", "failed", "diverged")


@dataclass
class CellView:
    """One cell as a display shows it.

    Attributes:
        id: of the cell.
        state: ``earlier`` is finished by an earlier run, ``left`` left out by the time limit.
        total: examples that it will draw if nothing stops it early.
        examples: drawn so far.
        before: drawn by an earlier run.
        epoch: the epoch it is in, counted from 1.
        candidate: the candidate in training, "" without tuning.
        validation: the metric on validation: the latest while it runs, the reported one when it is finished.
        test: the metric on the test images, None where there is none.
        started, ended: seconds on the board's clock.
        order: counts the cells that ended, to tell the latest ones.
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
        """The share of its examples that it has drawn, 0 to 1."""
        return min(1.0, self.examples / self.total) if self.total else 0.0

    def seconds_left(self, now: float) -> float | None:
        """Seconds that a running cell still needs at its pace so far; None before that tells anything."""
        drawn = self.share - (self.before / self.total if self.total else 0.0)
        if drawn < TELLING_SHARE:
            return None
        return (now - self.started) * (1 - self.share) / drawn


@dataclass
class Board:
    """The state of a run.

    Attributes:
        metric: the study's metric.
        epochs: epochs of each strategy's candidates, if nothing stops them early.
        earlier: gives the record of a cell that an earlier run finished.
        clock: seconds, never going back.
        preparing: shared work in progress, if there is any.
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
        """Write an event on the board."""
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
        """Return the cells in one of these states, in plan order."""
        return [cell for cell in self.cells.values() if cell.state in states]

    def epochs_of(self, cell: CellView) -> int:
        """Return the epochs of each of a cell's candidates."""
        return self.epochs[cell.id.split(".")[0]]

    def share(self) -> float:
        """Return the share of cells that are done, a running one by its part."""
        done = len(self.in_state(*ENDED)) + sum(cell.share for cell in self.in_state("running"))
        return done / len(self.cells) if self.cells else 0.0

    def seconds_left(self) -> float | None:
        """Guess the seconds until the end: waiting cells take what cells like them took; None if nothing is known."""
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
            took_alike = next(known[kind] for kind in _kinds(cell.id) if kind in known)
            left += sum(took_alike) / len(took_alike)
        return left


def _kinds(cell: str) -> tuple[str, ...]:
    """Return what a cell is like, the nearest first: strategy and regime, strategy, any."""
    strategy, regime, *_ = cell.split(".")
    return f"{strategy}.{regime}", strategy, ""


def line_of(event: events.Event, board: Board) -> str | None:
    """Return the line for an event that is on the board already; None for one that has none."""
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
            return f"{_count(board)} {name}: started, {plural(examples, 'example')} to draw"
        case events.EpochEnded(name, row):
            return f"{_count(board)} {name}: {_epoch(row, board)}"
        case events.CellFinished(name, result):
            return f"{_count(board)} {name}: finished; {_finished(result, board)}"
        case events.CellResumed(name, candidate, epoch, examples):
            where = f"{candidate}, epoch {epoch}" if candidate else f"epoch {epoch}"
            return f"{_count(board)} {name}: goes on in {where}, after {plural(examples, 'example')}"
        case events.CellFailed(name, error, diverged):
            return f"{_count(board)} {name}: {error}" if diverged else f"{_count(board)} {name}: failed: {error}"
        case events.CellsLeft(names):
            return f"left out by the time limit: {', '.join(names)}"
    return None


def planned_line(cells: int, finished: int) -> str:
    """Say how many cells there are and how many of them are finished already."""
    if not finished:
        return f"{plural(cells, 'cell')} to run"
    if finished == cells:
        return f"{plural(cells, 'cell')}, finished already: nothing to run"
    return f"{plural(cells, 'cell')}, {finished} finished already: {cells - finished} to run"


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
