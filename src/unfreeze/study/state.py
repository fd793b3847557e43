"""A cell's training state on disk: all that the rest of its training depends on, with what it is bound to.

One safetensors file per cell, replaced by one rename: tensors, and in the metadata the record and a checksum of both.
"""

import hashlib
import json
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, from_numpy

from unfreeze.store import FORMAT, Altered, StudyDir, read_tensors, write_tensors
from unfreeze.train.candidate_run import CandidateState
from unfreeze.train.phase_run import EpochTotals, Position
from unfreeze.train.stopping import StoppingState

EARLIER = "state"
"""The folder in a cell's directory where versions before 0.2 kept its state."""
KINDS = ("weights", "best", "moments", "validation")
DIVERGED, ENDED = "diverged", "ended"
DAMAGED = "its training state was damaged, so it starts again"

Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class CellState:
    """Where a cell stands, its candidates by name; those that have not begun are in none of these.

    Attributes:
        candidates: in training, and of those that are trained the best so far.
        ended: the histories of those that are trained and were beaten.
        diverged: the histories of those that diverged, and how.
        diverged_best: the best weights of those of them that the cell keeps if nothing else is left.
        ended_validation: the logits of validation images, by epoch, of those that are trained and were beaten.
        extra: whatever else the rest of the training depends on; JSON data.
    """

    candidates: Mapping[str, CandidateState] = field(default_factory=dict)
    ended: Mapping[str, Rows] = field(default_factory=dict)
    diverged: Mapping[str, tuple[str, Rows]] = field(default_factory=dict)
    diverged_best: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)
    ended_validation: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Found:
    """What was found on disk: a state if one can be used, and what should be said about it."""

    state: CellState | None = None
    said: str = ""


def write_state(path: Path, bound_to: Mapping[str, Any], state: CellState) -> None:
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


def read_state(path: Path, bound_to: Mapping[str, Any]) -> Found:
    """Return a cell's state if it is as it was written and bound to the same things."""
    if not path.is_file():
        return Found()
    try:
        arrays, about = read_tensors(path)
    except (Altered, OSError):
        return Found(None, DAMAGED)
    text = str(about.get("record"))
    if about != {"format": FORMAT, "record": text, "sha256": _sha256(text, arrays)}:
        return Found(None, DAMAGED)
    record = json.loads(text)
    differences = list(_differences(record["bound_to"], bound_to))
    if differences:
        return Found(None, f"its training state does not fit ({', '.join(differences)}), so it starts again")
    return Found(_read(record, arrays))


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


def _written(candidate: CandidateState) -> dict[str, Any]:
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


def _read(record: Mapping[str, Any], arrays: Mapping[str, Any]) -> CellState:
    tensors: dict[tuple[str, str], dict[str, Tensor]] = {}
    for key, array in arrays.items():
        position, kind, name = key.split(".", 2)
        tensors.setdefault((position, kind), {})[name] = from_numpy(array)
    candidates = {}
    for number, (name, values) in enumerate(record["candidates"].items()):
        at = values["position"]
        candidates[name] = CandidateState(
            values["phase"],
            Position(
                at["epoch"], at["step"], StoppingState(**_numbers_read(at["stopping"])), EpochTotals(**at["totals"])
            ),
            values["stopped"],
            [_numbers_read(row) for row in values["history"]],
            **{kind: tensors.get((str(number), kind), {}) for kind in KINDS},
            micro_batch=values["micro_batch"],
        )
    return CellState(
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
