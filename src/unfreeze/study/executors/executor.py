"""What runs cells: this process, slots on this machine, or whatever has the methods of ``Executor``."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol


class Executor(AbstractContextManager["Executor"], Protocol):
    """Runs groups of cells, for use in ``with``; at its end nothing of it runs any more.

    Cells are named by their ids. Whoever runs them reads the plan from what it was given when it was made, writes what
    it finds through ``StudyDir`` and the cache, and appends events to a log of its own (``storage.event_log``): only
    ids go out, and only the names of cells that failed come back. A group stays in one place, since its cells train in
    lock-step. A group that is lost with its worker is run once more; then its cells fail (``write_failure``). A cell
    that finished meanwhile is not run again. No number depends on where a cell runs, or on the order of groups.

    After an exception inside ``with``, cells save where they stand before ``__exit__`` returns.

    Attributes:
        failed: ids of the cells that failed so far.
        predicted: seconds predicted for the groups that have ended.
        seconds: seconds that these took, and the time so far of groups that were cut off.
    """

    failed: list[str]
    predicted: float
    seconds: float

    def wait(self) -> None:
        """Return when another group can be submitted."""
        ...

    def submit(self, cells: Sequence[str], predicted: float) -> None:
        """Run a group that is predicted to take so many seconds, or start to.

        Args:
            cells: ids.
            predicted: seconds.
        """
        ...

    def finish(self) -> None:
        """Return when every submitted group has ended."""
        ...
