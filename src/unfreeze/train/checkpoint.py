"""Checkpoint of a running cell, from which a killed run resumes.

One safetensors file per cell, replaced by one rename: tensors, and in the metadata the record and a checksum of both.
"""

import hashlib
import json
import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, from_numpy

from unfreeze.errors import UserError
from unfreeze.events import Emit, Warned
from unfreeze.storage.records import FORMAT, Altered, read_tensors, write_tensors
from unfreeze.storage.study_dir import StudyDir
from unfreeze.train.candidate_run import CandidateState
from unfreeze.train.early_stopping import StoppingState
from unfreeze.train.phase_run import EpochRow, EpochTotals, Position

EARLIER = "state"
"""The folder in a cell's directory where versions before 0.2 kept its state."""

TENSORS = ("weights", "best", "moments", "validation")
"""Entries of a candidate's state that hold tensors."""

DIVERGED, BEATEN, FROZEN_ROWS = "diverged", "ended", "frozen rows at once"
"""Names in the file."""

DAMAGED = "its training state was damaged, so it starts again"


@dataclass(frozen=True)
class BeatenCandidate:
    """A trained candidate that another one of its cell has beaten.

    Attributes:
        history: rows of its epochs.
        validation: logits of the validation images by epoch, where they are kept.
    """

    history: Sequence[EpochRow]
    validation: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class DivergedCandidate:
    """A candidate that diverged.

    Attributes:
        error: how.
        history: rows of its epochs.
        best: its best weights, where the cell keeps them if nothing else is left.
    """

    error: str
    history: Sequence[EpochRow]
    best: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class CellCheckpoint:
    """State of a cell: its candidates by name; those that have not begun are in none of these.

    Attributes:
        candidates: in training, and of those that are trained the best so far.
        beaten: the other trained ones.
        diverged: those that diverged.
        frozen_rows: how many rows frozen stages compute at once where memory ran short, by their label.
    """

    candidates: Mapping[str, CandidateState] = field(default_factory=dict)
    beaten: Mapping[str, BeatenCandidate] = field(default_factory=dict)
    diverged: Mapping[str, DivergedCandidate] = field(default_factory=dict)
    frozen_rows: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class FoundCheckpoint:
    """A state read from disk, if it can be used, and a warning if not."""

    state: CellCheckpoint | None = None
    warning: str = ""


def write_state(path: Path, bound_to: Mapping[str, Any], state: CellCheckpoint) -> None:
    """Write a cell's state over the one before, durably.

    Args:
        path: the file.
        bound_to: the conditions under which it may be resumed; JSON data.
        state: the state.

    Raises:
        UserError: the folder cannot be written to, or the disk is full; the state before is still there.
    """
    tensors = dict(_tensors_written(state))
    record = {
        "bound_to": bound_to,
        "candidates": {name: _written(candidate) for name, candidate in state.candidates.items()},
        BEATEN: {name: _rows_written(candidate.history) for name, candidate in state.beaten.items()},
        DIVERGED: {name: [one.error, _rows_written(one.history)] for name, one in state.diverged.items()},
        "extra": {FROZEN_ROWS: dict(state.frozen_rows)},
    }
    arrays = {name: np.asarray(tensor.detach().cpu().numpy(), order="C") for name, tensor in tensors.items()}
    text = json.dumps(record, allow_nan=False)
    write_tensors(path, arrays, {"record": text, "sha256": _sha256(text, arrays)})


def read_state(path: Path, bound_to: Mapping[str, Any]) -> FoundCheckpoint:
    """Return a cell's state if it is as it was written and bound to the same conditions."""
    if not path.is_file():
        return FoundCheckpoint()
    try:
        arrays, about = read_tensors(path)
    except (Altered, OSError):
        return FoundCheckpoint(None, DAMAGED)
    text = str(about.get("record"))
    if about != {"format": FORMAT, "record": text, "sha256": _sha256(text, arrays)}:
        return FoundCheckpoint(None, DAMAGED)
    record = json.loads(text)
    differences = list(_differences(record["bound_to"], bound_to))
    if differences:
        return FoundCheckpoint(None, f"its training state does not fit ({', '.join(differences)}), so it starts again")
    return FoundCheckpoint(_read(record, arrays))


def remove_state(store: StudyDir, cell_id: str) -> bool:
    """Delete a cell's state; return whether an earlier version had written one."""
    store.state(cell_id).unlink(missing_ok=True)
    earlier = store.cell(cell_id) / EARLIER
    found = earlier.is_dir()
    shutil.rmtree(earlier, ignore_errors=True)
    return found


def _sha256(text: str, arrays: Mapping[str, np.ndarray]) -> str:
    """Return the sha256 over a record's text and the name, type, shape and bytes of each array."""
    digest = hashlib.sha256(text.encode())
    for name, array in sorted(arrays.items()):
        digest.update(json.dumps([name, array.dtype.name, array.shape]).encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    for name in dict.fromkeys([*before, *now]):
        if before.get(name) != now.get(name):
            fingerprints = name in ("settings", "data")  # which say nothing to people
            if fingerprints:
                yield f"other {name}"
            elif name not in now:  # a package that an earlier version trained with
                yield f"{name}: {before[name]}, no longer used"
            else:
                yield f"{name}: {before.get(name)}, now {now[name]}"


def _tensors_written(state: CellCheckpoint) -> Iterator[tuple[str, Tensor]]:
    """Yield all tensors with their names in the file: position of the candidate, kind, name."""
    for position, candidate in enumerate(state.candidates.values()):
        for kind in TENSORS:
            for name, tensor in candidate[kind].items():  # type: ignore[literal-required]
                yield f"{position}.{kind}.{name}", tensor
    for position, diverged in enumerate(state.diverged.values()):
        for name, tensor in diverged.best.items():
            yield f"{position}.{DIVERGED}.{name}", tensor
    for position, beaten in enumerate(state.beaten.values()):
        for epoch, tensor in beaten.validation.items():
            yield f"{position}.{BEATEN}.{epoch}", tensor


def _written(candidate: CandidateState) -> dict[str, Any]:
    position = asdict(candidate["position"])
    position["stopping"] = _numbers_written(position["stopping"])
    return {
        "phase": candidate["phase"],
        "position": position,
        "stopped": candidate["stopped"],
        "history": _rows_written(candidate["history"]),
        "micro_batch": dict(candidate["micro_batch"]),
    }


def _rows_written(rows: Sequence[EpochRow]) -> list[dict[str, Any]]:
    return [_numbers_written(asdict(row)) for row in rows]


def _rows_read(rows: Sequence[Mapping[str, Any]]) -> list[EpochRow]:
    return [EpochRow(**_numbers_read(row)) for row in rows]


def _numbers_written(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values as JSON holds them: NaN as null; all other numbers are read to the last bit."""
    return {name: None if value != value else value for name, value in values.items()}


def _numbers_read(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: math.nan if value is None else value for name, value in values.items()}


def _read(record: Mapping[str, Any], arrays: Mapping[str, Any]) -> CellCheckpoint:
    tensors: dict[tuple[int, str], dict[str, Tensor]] = {}
    for key, array in arrays.items():
        position, kind, name = key.split(".", 2)
        tensors.setdefault((int(position), kind), {})[name] = from_numpy(array)
    return CellCheckpoint(
        candidates={
            name: _candidate_read(values, {kind: tensors.get((number, kind), {}) for kind in TENSORS})
            for number, (name, values) in enumerate(record["candidates"].items())
        },
        beaten={
            name: BeatenCandidate(_rows_read(rows), tensors.get((number, BEATEN), {}))
            for number, (name, rows) in enumerate(record[BEATEN].items())
        },
        diverged={
            name: DivergedCandidate(error, _rows_read(rows), tensors.get((number, DIVERGED), {}))
            for number, (name, (error, rows)) in enumerate(record[DIVERGED].items())
        },
        frozen_rows=record["extra"][FROZEN_ROWS],
    )


def _candidate_read(values: Mapping[str, Any], tensors: Mapping[str, Mapping[str, Tensor]]) -> CandidateState:
    position = values["position"]
    stopping, totals = StoppingState(**_numbers_read(position["stopping"])), EpochTotals(**position["totals"])
    return CandidateState(
        phase=values["phase"],
        position=Position(position["epoch"], position["step"], stopping, totals),
        stopped=values["stopped"],
        history=_rows_read(values["history"]),
        weights=tensors["weights"],
        best=tensors["best"],
        moments=tensors["moments"],
        validation=tensors["validation"],
        micro_batch=values["micro_batch"],
    )


SAVE_SECONDS = 60.0
"""Seconds of training that a killed process may lose; more where writing takes long, see ``SHARE``."""

SHARE = 1 / 30
"""Share of the time that writing states may take."""

END_SECONDS = 5.0
"""Seconds of unsaved training that are worth a state before a cell's images are predicted."""


class CheckpointTimer:
    """Saves the training states of some cells in the study directory, and says when that is due.

    Args:
        store: the study directory.
        bound_to: returns the conditions under which a cell's state may be resumed.
        emit: is called with a warning for a state that could not be saved or used.
        clock: returns seconds and never goes back.
    """

    def __init__(
        self,
        store: StudyDir,
        bound_to: Callable[[str], Mapping[str, Any]],
        emit: Emit,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.store, self.bound_to, self.emit, self.clock = store, bound_to, emit, clock
        self._saved_at, self._writing_seconds, self._has_warned = clock(), 0.0, False

    def load(self, cell_id: str) -> CellCheckpoint | None:
        """Return a cell's state, if it has one; delete one that cannot be used, with a warning."""
        self._saved_at = self.clock()
        found = read_state(self.store.state(cell_id), self.bound_to(cell_id))
        warning = found.warning
        if found.state is None and remove_state(self.store, cell_id):
            warning = "its training state is of an earlier version, so it starts again"
        if warning:
            self.emit(Warned(f"{cell_id}: {warning}"))
        return found.state

    def due(self, seconds: float = 0.0) -> bool:
        """Tell whether ``seconds`` (by default ``SAVE_SECONDS``) of training are unsaved."""
        return self.clock() - self._saved_at >= max(seconds or SAVE_SECONDS, self._writing_seconds / SHARE)

    def save(self, states: Mapping[str, Callable[[], CellCheckpoint]]) -> None:
        """Write the states of cells, one after another; a full disk costs the states, not the run."""
        started = self.clock()
        for cell_id, state in states.items():
            try:
                write_state(self.store.state(cell_id), self.bound_to(cell_id), state())
            except UserError as error:
                if not self._has_warned:
                    self._has_warned = True
                    self.emit(Warned(f"the state of training is not saved, but training continues: {error.given}"))
        self._saved_at = self.clock()
        self._writing_seconds = self._saved_at - started

    def remove(self, cell_id: str) -> None:
        """Delete a cell's state."""
        remove_state(self.store, cell_id)
