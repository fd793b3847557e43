"""When training states are written, and what is said about them."""

import time
from collections.abc import Callable, Mapping
from typing import Any

from unfreeze.errors import UserError
from unfreeze.store import StudyDir
from unfreeze.study.events import Emit, Warned
from unfreeze.study.state import CellState, read_state, remove_state, write_state

SAVE_SECONDS = 60.0
"""Of training that a killed process may lose; more where writing takes long, see ``SHARE``."""
SHARE = 1 / 30
"""Of the time that writing states may take."""
END_SECONDS = 5.0
"""Of unsaved training that are worth a state before a cell's test images are looked at."""


class Saving:
    """Keeps the training states of some cells in the study directory.

    Args:
        store: the study directory.
        bound_to: gives what a cell's state can be used with.
        emit: is told what could not be saved or used.
        clock: seconds, never going back.
    """

    def __init__(
        self,
        store: StudyDir,
        bound_to: Callable[[str], Mapping[str, Any]],
        emit: Emit,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.store, self.bound_to, self.emit, self.clock = store, bound_to, emit, clock
        self._saved, self._took, self._failed = clock(), 0.0, False

    def begin(self, cell: str) -> CellState:
        """Return where a cell stands; a state that cannot be used is deleted, and that is said."""
        self._saved = self.clock()
        found = read_state(self.store.state(cell), self.bound_to(cell))
        said = found.said
        if found.state is None and remove_state(self.store, cell):
            said = "its training state is of an earlier version, so it starts again"
        if said:
            self.emit(Warned(f"{cell}: {said}"))
        return found.state or CellState()

    def due(self, seconds: float = 0.0) -> bool:
        """Tell whether it is time to save: there are ``seconds`` (by default ``SAVE_SECONDS``) of unsaved training."""
        return self.clock() - self._saved >= max(seconds or SAVE_SECONDS, self._took / SHARE)

    def save(self, states: Mapping[str, Callable[[], CellState]]) -> None:
        """Write the states of cells, one after another; a disk that is full costs the state, not the run."""
        began = self.clock()
        for cell, state in states.items():
            try:
                write_state(self.store.state(cell), self.bound_to(cell), state())
            except UserError as error:
                if not self._failed:
                    self._failed = True
                    self.emit(Warned(f"the state of training is not saved, though training goes on: {error.given}"))
        self._saved = self.clock()
        self._took = self._saved - began

    def remove(self, cell: str) -> None:
        """Forget a cell's state."""
        remove_state(self.store, cell)
