"""A cell's training state on disk: all that the rest of its training depends on, with what it is bound to.

A generation is ``N.safetensors`` and, written after it, ``N.json`` with its sha256. The latest two are kept.
"""

import contextlib
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, from_numpy

from unfreeze.errors import UserError
from unfreeze.store import Altered, file_sha256, read_json, read_tensors, write_json, write_tensors
from unfreeze.study.candidate import CandidateState
from unfreeze.train.loop import Position, Seen
from unfreeze.train.room import AtOnce
from unfreeze.train.stopping import StoppingState

FOLDER = "state"
GENERATIONS = 2
KINDS = ("weights", "best", "moments", "validation")
DIVERGED, ENDED = "diverged", "ended"

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
    """

    candidates: Mapping[str, CandidateState] = field(default_factory=dict)
    ended: Mapping[str, Rows] = field(default_factory=dict)
    diverged: Mapping[str, tuple[str, Rows]] = field(default_factory=dict)
    diverged_best: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)
    ended_validation: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)


@dataclass(frozen=True)
class Found:
    """What was found on disk: a state if one can be used, and what should be said about it."""

    state: CellState | None = None
    said: str = ""


def write_state(folder: Path, bound_to: Mapping[str, Any], state: CellState) -> None:
    """Write the next generation of a cell's state, durably, and delete those that are too old.

    Args:
        folder: of the cell's states.
        bound_to: what it can be used with; JSON data.
        state: the state.

    Raises:
        UserError: the folder cannot be written to, or the disk is full; the generation before is still there.
    """
    before = _generations(folder)
    number = max(before, default=0) + 1
    try:
        _write_generation(folder, number, bound_to, state)
    except UserError:
        _remove_generation(folder, number)
        raise
    for old in sorted([*before, number])[:-GENERATIONS]:
        _remove_generation(folder, old)


def _write_generation(folder: Path, number: int, bound_to: Mapping[str, Any], state: CellState) -> None:
    tensors = folder / f"{number}.safetensors"
    write_tensors(
        tensors,
        {
            f"{position}.{kind}.{name}": tensor.detach().cpu().numpy()
            for position, candidate in enumerate(state.candidates.values())
            for kind in KINDS
            for name, tensor in getattr(candidate, kind).items()
        }
        | {
            f"{position}.{DIVERGED}.{name}": tensor.detach().cpu().numpy()
            for position, candidate in enumerate(state.diverged)
            for name, tensor in state.diverged_best.get(candidate, {}).items()
        }
        | {
            f"{position}.{ENDED}.{epoch}": tensor.detach().cpu().numpy()
            for position, candidate in enumerate(state.ended)
            for epoch, tensor in state.ended_validation.get(candidate, {}).items()
        },
        {},
    )
    record = {
        "bound_to": bound_to,
        "tensors": file_sha256(tensors),
        "candidates": {name: _written(candidate) for name, candidate in state.candidates.items()},
        "ended": {name: _rows_written(rows) for name, rows in state.ended.items()},
        "diverged": {name: [text, _rows_written(rows)] for name, (text, rows) in state.diverged.items()},
    }
    write_json(folder / f"{number}.json", record)


def _remove_generation(folder: Path, number: int) -> None:
    for path in (folder / f"{number}.json", folder / f"{number}.safetensors"):
        path.unlink(missing_ok=True)


def read_state(folder: Path, bound_to: Mapping[str, Any]) -> Found:
    """Return the latest state that is as it was written, if it is bound to the same things."""
    damaged = 0
    for number in sorted(_generations(folder), reverse=True):
        try:
            record = read_json(folder / f"{number}.json")
            if file_sha256(folder / f"{number}.safetensors") != record["tensors"]:
                raise Altered(f"{number}.safetensors")
            differences = list(_differences(record["bound_to"], bound_to))
            if differences:
                return Found(None, f"its training state does not fit ({', '.join(differences)}), so it begins anew")
            state = _read(record, read_tensors(folder / f"{number}.safetensors")[0])
        except (Altered, OSError):
            damaged += 1
            continue
        return Found(state, "its latest training state was damaged; it goes on from the one before" if damaged else "")
    return Found(None, "its training state was damaged, so it begins anew" if damaged else "")


def remove_state(folder: Path) -> None:
    """Delete a cell's states."""
    shutil.rmtree(folder, ignore_errors=True)


def _generations(folder: Path) -> set[int]:
    """Return the numbers of what is there, whole or not."""
    numbers = set[int]()
    for path in folder.iterdir() if folder.is_dir() else ():
        with contextlib.suppress(ValueError):
            numbers.add(int(path.stem))
    return numbers


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
        "at_once": asdict(candidate.at_once),
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
            Position(at["epoch"], at["step"], StoppingState(**_numbers_read(at["stopping"])), Seen(**at["seen"])),
            values["stopped"],
            [_numbers_read(row) for row in values["history"]],
            **{kind: tensors.get((str(number), kind), {}) for kind in KINDS},
            at_once=AtOnce(**values.get("at_once", {})),
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
    )
