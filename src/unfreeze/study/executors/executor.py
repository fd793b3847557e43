"""Interface of what runs cells, and what becomes of a cell that fails."""

import traceback
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from unfreeze.errors import UserError
from unfreeze.events import CellFailed, Emit
from unfreeze.storage.records import sealed, write_json
from unfreeze.storage.study_dir import StudyDir
from unfreeze.study.finish import CELL_FILES
from unfreeze.train.phase_run import Diverged


class Executor(AbstractContextManager["Executor"], Protocol):
    """Runs groups of cells, as a context manager; after ``__exit__`` nothing of it runs any more.

    Cells are named by their ids. What runs them reads the plan that the executor was made with, writes results through
    ``StudyDir`` and the cache, and appends events to a log of its own (``storage.event_log``): only ids go out, and
    only ids of cells that failed come back. The cells of a group train in lock-step, so a group stays in one place. A
    group whose process ends is run once more; then its cells fail (``report_failure``). A cell that has finished
    meanwhile is not run again. No number depends on where a cell runs, or on the order of groups.

    After an exception inside ``with``, cells save their state before ``__exit__`` returns.

    Attributes:
        failed: ids of the cells that failed so far.
        predicted: predicted seconds of the groups that have ended.
        seconds: their measured seconds, and those so far of groups that were cut off.
    """

    failed: list[str]
    predicted: float
    seconds: float

    def wait(self) -> None:
        """Return when another group can be submitted."""
        ...

    def submit(self, cell_ids: Sequence[str], predicted: float) -> None:
        """Run a group, or start to run it.

        Args:
            cell_ids: its cells.
            predicted: predicted seconds.
        """
        ...

    def finish(self) -> None:
        """Return when every submitted group has ended."""
        ...


def report_failure(
    store: StudyDir,
    cell_id: str,
    fingerprint: str,
    error: Exception,
    emit: Emit,
    write_files: Callable[[Path], None] | None = None,
) -> None:
    """Write the ``error.json`` of a cell that failed or diverged, and emit the event.

    Args:
        store: the study directory.
        cell_id, fingerprint: of the cell.
        error: what ended it.
        emit: is called with the event.
        write_files: writes the files that the cell has nevertheless into a folder.
    """
    known = isinstance(error, UserError | Diverged)
    diverged = isinstance(error, Diverged)
    text = f"diverged: {error}" if diverged else str(error) if known else f"{type(error).__name__}: {error}"
    trace = "" if known else "".join(traceback.format_exception(error))
    status = "diverged" if diverged else "failed"
    record = {"error": text, "traceback": trace, "status": status, "fingerprint": fingerprint}
    with store.new_cell(cell_id, fingerprint) as folder:
        if write_files is not None:
            write_files(folder)
        write_json(folder / "error.json", {**record, "files": sealed(folder, CELL_FILES)})
    emit(CellFailed(cell_id, text, diverged))


def died_twice(given: str, fix: str) -> UserError:
    """Return the error of a cell whose process died, was replaced, and died again.

    Args:
        given: which process, and how it died.
        fix: what to do.
    """
    expected = "a process that lives until its cells are finished; where memory runs out, the system ends one"
    return UserError(given, expected, fix)
