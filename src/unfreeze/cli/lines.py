"""A run as plain lines: one an event that matters, for logs and pipes."""

from unfreeze.cli.board import ENDED, Board
from unfreeze.cli.found import found_lines
from unfreeze.cli.screen import one_line
from unfreeze.results.words import METRIC_NAMES, metric_text, plural, seconds_text
from unfreeze.study import events


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
        parts.append(f"{METRIC_NAMES[board.metric]} {metric_text(board.metric, row['val_metric'])}")
    return f"{tuned}epoch {row['epoch']}: {'; '.join(parts)}; {seconds_text(row['seconds'])}"


def _finished(result: dict, board: Board) -> str:
    scores = [
        f"{where} {metric_text(board.metric, value)}"
        for where, value in (("validation", result["val_metric"]), ("test", result["test_metric"]))
        if value is not None
    ]
    return (
        f"{METRIC_NAMES[board.metric]} on {', '.join(scores)}; epoch {result['best_epoch']} of {result['epochs']}; "
        f"{seconds_text(result['seconds_total'])}"
    )
