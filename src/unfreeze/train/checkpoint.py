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
from unfreeze.train.candidate_run import CandidateCheckpoint
from unfreeze.train.early_stopping import StoppingState
from unfreeze.train.phase_run import EpochTotals, Position

EARLIER = "state"
"""The folder in a cell's directory where versions before 0.2 kept its state."""

KINDS = ("weights", "best", "moments", "validation")
DIVERGED, ENDED = "diverged", "ended"
DAMAGED = "its training state was damaged, so it starts again"
Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class CellCheckpoint:
    """Where a cell stands, its candidates by name; those that have not begun are in none of these.

    Attributes:
        candidates: in training, and of those that are trained the best so far.
        ended: the histories of those that are trained and were beaten.
        diverged: the histories of those that diverged, and how.
        diverged_best: the best weights of those of them that the cell keeps if nothing else is left.
        ended_validation: the logits of validation images, by epoch, of those that are trained and were beaten.
        extra: whatever else the rest of the training depends on; JSON data.
    """

    candidates: Mapping[str, CandidateCheckpoint] = field(default_factory=dict)
    ended: Mapping[str, Rows] = field(default_factory=dict)
    diverged: Mapping[str, tuple[str, Rows]] = field(default_factory=dict)
    diverged_best: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)
    ended_validation: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class FoundCheckpoint:
    """What was found on disk: a state if one can be used, and what should be said about it."""

    state: CellCheckpoint | None = None
    said: str = ""


def write_state(path: Path, bound_to: Mapping[str, Any], state: CellCheckpoint) -> None:
    """Write a cell's state over the one before, durably.

    Args:
        path: the file.
        bound_to: what it can be used with; JSON data.
        state: the state.

    Raises:
        UserError: the folder cannot be written to, or the disk is full; the state before is still there.
    """
    tensors = {
        **{
            f"{position}.{kind}.{name}": tensor
            for position, candidate in enumerate(state.candidates.values())
            for kind in KINDS
            for name, tensor in getattr(candidate, kind).items()
        },
        **{
            f"{position}.{DIVERGED}.{name}": tensor
            for position, candidate in enumerate(state.diverged)
            for name, tensor in state.diverged_best.get(candidate, {}).items()
        },
        **{
            f"{position}.{ENDED}.{epoch}": tensor
            for position, candidate in enumerate(state.ended)
            for epoch, tensor in state.ended_validation.get(candidate, {}).items()
        },
    }
    record = {
        "bound_to": bound_to,
        "candidates": {name: _written(candidate) for name, candidate in state.candidates.items()},
        "ended": {name: _rows_written(rows) for name, rows in state.ended.items()},
        "diverged": {name: [text, _rows_written(rows)] for name, (text, rows) in state.diverged.items()},
        "extra": dict(state.extra),
    }
    arrays = {name: np.asarray(tensor.detach().cpu().numpy(), order="C") for name, tensor in tensors.items()}
    text = json.dumps(record, allow_nan=False)
    write_tensors(path, arrays, {"record": text, "sha256": _sha256(text, arrays)})


def read_state(path: Path, bound_to: Mapping[str, Any]) -> FoundCheckpoint:
    """Return a cell's state if it is as it was written and bound to the same things."""
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


def remove_state(store: StudyDir, cell: str) -> bool:
    """Delete a cell's state; return whether an earlier version had written one."""
    store.state(cell).unlink(missing_ok=True)
    earlier = store.cell(cell) / EARLIER
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


def _written(candidate: CandidateCheckpoint) -> dict[str, Any]:
    position = asdict(candidate.position)
    position["stopping"] = _numbers_written(position["stopping"])
    return {
        "phase": candidate.phase,
        "position": position,
        "stopped": candidate.stopped,
        "history": _rows_written(candidate.history),
        "micro_batch": dict(candidate.micro_batch),
    }


def _rows_written(rows: Rows) -> list[dict[str, Any]]:
    return [_numbers_written(row) for row in rows]


def _numbers_written(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values as JSON has them: a number that is not defined as null; all others come back to the last bit."""
    return {name: None if value != value else value for name, value in values.items()}


def _numbers_read(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: math.nan if value is None else value for name, value in values.items()}


def _read(record: Mapping[str, Any], arrays: Mapping[str, Any]) -> CellCheckpoint:
    tensors: dict[tuple[str, str], dict[str, Tensor]] = {}
    for key, array in arrays.items():
        position, kind, name = key.split(".", 2)
        tensors.setdefault((position, kind), {})[name] = from_numpy(array)
    candidates = {}
    for number, (name, values) in enumerate(record["candidates"].items()):
        at = values["position"]
        candidates[name] = CandidateCheckpoint(
            values["phase"],
            Position(
                at["epoch"], at["step"], StoppingState(**_numbers_read(at["stopping"])), EpochTotals(**at["totals"])
            ),
            values["stopped"],
            [_numbers_read(row) for row in values["history"]],
            **{kind: tensors.get((str(number), kind), {}) for kind in KINDS},
            micro_batch=values["micro_batch"],
        )
    return CellCheckpoint(
        candidates,
        {name: [_numbers_read(row) for row in rows] for name, rows in record["ended"].items()},
        {name: (text, [_numbers_read(row) for row in rows]) for name, (text, rows) in record["diverged"].items()},
        {
            name: tensors[str(number), DIVERGED]
            for number, name in enumerate(record["diverged"])
            if (str(number), DIVERGED) in tensors
        },
        {
            name: tensors[str(number), ENDED]
            for number, name in enumerate(record["ended"])
            if (str(number), ENDED) in tensors
        },
        record["extra"],
    )


SAVE_SECONDS = 60.0
"""Of training that a killed process may lose; more where writing takes long, see ``SHARE``."""

SHARE = 1 / 30
"""Of the time that writing states may take."""

END_SECONDS = 5.0
"""Of unsaved training that are worth a state before a cell's test images are looked at."""


class CheckpointTimer:
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

    def begin(self, cell: str) -> CellCheckpoint:
        """Return where a cell stands; a state that cannot be used is deleted, and that is said."""
        self._saved = self.clock()
        found = read_state(self.store.state(cell), self.bound_to(cell))
        said = found.said
        if found.state is None and remove_state(self.store, cell):
            said = "its training state is of an earlier version, so it starts again"
        if said:
            self.emit(Warned(f"{cell}: {said}"))
        return found.state or CellCheckpoint()

    def due(self, seconds: float = 0.0) -> bool:
        """Tell whether it is time to save: there are ``seconds`` (by default ``SAVE_SECONDS``) of unsaved training."""
        return self.clock() - self._saved >= max(seconds or SAVE_SECONDS, self._took / SHARE)

    def save(self, states: Mapping[str, Callable[[], CellCheckpoint]]) -> None:
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
