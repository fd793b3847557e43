"""Estimate what a study still writes to its directory, and refuse it where the disk has no room.

The bytes are upper bounds: nothing stops early, every cell of a group is saved while it trains, paths are long.
"""

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from heapq import nlargest
from pathlib import Path
from typing import Any

from unfreeze.config.resolve import Cell, expected_epochs
from unfreeze.config.schema import StudyConfig
from unfreeze.config.units import bytes_of
from unfreeze.errors import UserError
from unfreeze.model.summary import HEADER_BYTES
from unfreeze.storage.atomic import DiskFull
from unfreeze.storage.cache import folder_bytes, used_bytes
from unfreeze.storage.event_log import COUNTS, LINE_BYTES
from unfreeze.storage.records import Altered
from unfreeze.storage.study_dir import StudyDir
from unfreeze.study.cell import CellSpec
from unfreeze.study.finish import keeps_validation, kept_numbers
from unfreeze.study.lockstep import LOCKSTEP_BYTES, groups_of
from unfreeze.study.network_plan import NetworkPlan, Plan
from unfreeze.text import bytes_text
from unfreeze.train.optimizers import OPTIMIZERS

SPARE = 1.1
"""Factor on predicted bytes that have to be free: file systems need some room for themselves."""

HEAD_TENSORS = 8
"""Upper bound on the tensors of a head, each with an entry in a file's header."""

ID_BYTES = 24
"""Bytes of an image's id in the header of a cell's predictions."""

EPOCH_BYTES = 180
"""Bytes of a row of history.csv, and of an epoch in a training state."""

RECORD_BYTES, CANDIDATE_BYTES = 4_000, 1_500
"""Bytes of a cell's records, and of the settings of one of its candidates in them."""

CATALOG_BYTES, SPLIT_BYTES, USE_BYTES = 330, 32, 11
"""Bytes of an image in catalog.csv, in splits.csv, and there in the column of a regime and seed."""

REPORT_BYTES, SHOWN_BYTES = 5_200_000, 1_200_000
"""Bytes of the report, nearly all of it Plotly, and of the pictures of the best model, in the report and beside it."""

RUN_EVENTS_BYTES, CELL_EVENTS_BYTES, EPOCH_EVENT_BYTES = 60_000, 3_000, 600
"""Bytes in the log of events of a run, of a cell beside its counts, and of an epoch."""

PLANNED_BYTES = 5_000
"""Bytes of a cell in all tables, plan.json and the report."""


@dataclass(frozen=True)
class DiskEstimate:
    """Bytes that a study still writes to its directory, at most.

    Attributes:
        cells: models, predictions and records, which stay.
        states: training states of the cells that train at one time, which go.
        tables: tables and report, which every run writes again, and the log of events.
    """

    cells: int
    states: int
    tables: int

    @property
    def bytes(self) -> int:
        """All of them together."""
        return self.cells + self.states + self.tables

    @property
    def room(self) -> int:
        """Bytes that have to be free for them, with some to spare."""
        return round(SPARE * self.bytes)


@dataclass(frozen=True)
class _Predictions:
    """Bytes of a cell's predictions: those that stay, and those that its training states hold."""

    bytes: int
    kept: int


def estimate_writes_before_scan(store: StudyDir, plan: Plan, images: int) -> DiskEstimate:
    """Estimate what is certain before an image is read: models and records, without the predictions.

    Args:
        store: the study directory, which need not be there.
        plan: the study's.
        images: files of the data.
    """
    missing = {
        cell.id: plan.candidates[cell.strategy]
        for cell in plan.cells
        if not (store.cell(cell.id) / "result.json").is_file()
    }
    return _writes(store, plan.cells, images, missing, [[name] for name in missing], {})


def estimate_writes(
    store: StudyDir,
    plan: Plan,
    images: int,
    specs: Mapping[str, CellSpec],
    parallel: int = 1,
) -> DiskEstimate:
    """Estimate what a study still writes.

    Args:
        store: the study directory, which need not be there.
        plan: the study's.
        images: files of the data.
        specs: its cells, by id.
        parallel: processes that run groups of cells at once.
    """
    missing = {cell_id: spec for cell_id, spec in specs.items() if not _is_finished(store, cell_id, spec.fingerprint)}
    predictions = {cell_id: _predictions(spec) for cell_id, spec in missing.items()}
    networks = {cell_id: spec.networks for cell_id, spec in missing.items()}
    return _writes(store, plan.cells, images, networks, groups_of(missing), predictions, parallel)


def _predictions(spec: CellSpec) -> _Predictions:
    images = len(spec.shas.validation) + len(spec.shas.ranking) + len(spec.shas.tests)
    kept = 4 * kept_numbers(spec) if keeps_validation(spec) else 0
    return _Predictions(images * (4 * len(spec.catalog.classes) + ID_BYTES), kept)


def _is_finished(store: StudyDir, cell: str, fingerprint: str) -> bool:
    try:
        return store.is_finished({"cell": cell, "fingerprint": fingerprint})
    except Altered:  # it will run again
        return False


def _writes(
    store: StudyDir,
    planned: Sequence[Cell],
    images: int,
    missing: Mapping[str, Mapping[str, NetworkPlan]],
    groups: Sequence[Sequence[str]],
    predictions: Mapping[str, _Predictions],
    parallel: int = 1,
) -> DiskEstimate:
    nothing = _Predictions(0, 0)
    cells = states_there = 0
    for name, networks in missing.items():
        states_there += folder_bytes(store.state(name))
        cells += _cell_bytes(networks) + predictions.get(name, nothing).bytes
    each = (
        _group_bytes([missing[name] for name in group]) + 2 * sum(predictions.get(name, nothing).kept for name in group)
        for group in groups
    )
    states = sum(nlargest(parallel, each))
    columns = len({(cell.regime, cell.seed, cell.fold) for cell in planned})
    folds = len({cell.fold for cell in planned})
    tables = images * (CATALOG_BYTES + folds * SPLIT_BYTES + columns * USE_BYTES) + len(planned) * PLANNED_BYTES
    tables += REPORT_BYTES + SHOWN_BYTES + RUN_EVENTS_BYTES + sum(map(_events_bytes, missing.values()))
    return DiskEstimate(cells, max(0, states - states_there), tables)


def _events_bytes(networks: Mapping[str, NetworkPlan]) -> int:
    """Return the most bytes that a cell's events take in the log."""
    epochs = sum(expected_epochs(network.strategy) for network in networks.values())
    return CELL_EVENTS_BYTES + COUNTS * LINE_BYTES + epochs * EPOCH_EVENT_BYTES


def _cell_bytes(networks: Mapping[str, NetworkPlan]) -> int:
    epochs = sum(expected_epochs(network.strategy) for network in networks.values())
    records = RECORD_BYTES + len(networks) * CANDIDATE_BYTES + epochs * EPOCH_BYTES
    return max(map(_trained_bytes, networks.values())) + records


def _trained_bytes(network: NetworkPlan, cut: int | None = None) -> int:
    """Return the bytes of the tensors from a cut on (by default the lowest), as a file holds them."""
    cut = min(network.cuts) if cut is None else cut
    stages = sum(stage.file_bytes for stage in network.stages[cut:])
    return stages + 4 * network.head.params + HEAD_TENSORS * HEADER_BYTES


def _group_bytes(cells: Sequence[Mapping[str, NetworkPlan]]) -> int:
    """Return the bytes of the states of cells that train together: one of each, and one that is being written."""
    # Of a candidate that has ended, while others train.
    trained = [max(map(_trained_bytes, networks.values())) if len(networks) > 1 else 0 for networks in cells]
    each = [sum(map(_state_bytes, networks.values())) for networks in cells]
    largest = max(_state_bytes(network) for networks in cells for network in networks.values())
    most = max(LOCKSTEP_BYTES, largest)  # more do not train at once
    return min(sum(each), most) + sum(trained) + min(max(each), most) + max(trained)


def _state_bytes(network: NetworkPlan) -> int:
    """Return the bytes of one candidate's state: its weights, the best so far, the optimiser's moments, history.

    A step's count is taken for one more tensor.
    """
    strategy, trained = network.strategy, _trained_bytes(network)
    stopping = strategy.early_stopping
    best = trained if stopping and stopping.restore_best else 0
    phases = zip(strategy.phases, network.cuts, strict=True)
    kept = ((OPTIMIZERS[phase.optimizer.name].moments(phase.optimizer), cut) for phase, cut in phases)
    moments = max(count * _trained_bytes(network, cut) for count, cut in kept)
    return trained + best + moments + expected_epochs(strategy) * EPOCH_BYTES + CANDIDATE_BYTES


def nearest_existing(path: Path) -> Path:
    """Return the nearest folder above a path, or the path itself, that is there."""
    return next(each for each in (path.absolute(), *path.absolute().parents) if each.exists())


def free_bytes(path: Path) -> int:
    """Return the bytes that this user may still write on the disk of a path, which need not be there."""
    return shutil.disk_usage(nearest_existing(path)).free


def same_disk(one: Path, other: Path) -> bool:
    """Tell whether two paths, which need not be there, are on one disk."""
    return os.stat(nearest_existing(one)).st_dev == os.stat(nearest_existing(other)).st_dev


def reserved(cache: Path, out: Path, found: DiskEstimate) -> int:
    """Return the bytes that the cache has to leave on its disk, since the study directory needs them."""
    return found.room if same_disk(cache, out) else 0


def refusal(out: Path, found: DiskEstimate) -> UserError | None:
    """Return the error of a study whose directory's disk has no room for it; None if it has."""
    free = free_bytes(out)
    if free >= found.room:
        return None
    return UserError(
        f"{out} is on a disk with {bytes_text(free)} free, and the study may still write {estimate_text(found)} there",
        f"{bytes_text(found.room)} free, a tenth more than that",
        f"free {bytes_text(found.room - free)} on that disk, give another with --out DIR, or ask for fewer cells",
    )


def refuse_without_room(out: Path, found: DiskEstimate) -> None:
    """Refuse a study whose directory's disk has no room for it.

    Raises:
        UserError: the disk has no room.
    """
    error = refusal(out, found)
    if error is not None:
        raise error


def as_record(out: Path, found: DiskEstimate) -> dict[str, Any]:
    """Return the estimate in the form of the JSON output of ``unfreeze plan``."""
    return {
        "directory": str(out),
        "directory_bytes": found.bytes,
        "models_bytes": found.cells,
        "states_bytes": found.states,
        "directory_free": free_bytes(out),
    }


def estimate_text(found: DiskEstimate) -> str:
    """Describe in words how much a study still writes."""
    return (
        f"{bytes_text(found.bytes)} ({bytes_text(found.cells)} of models and predictions, "
        f"{bytes_text(found.states)} of training states, {bytes_text(found.tables)} of tables and report)"
    )


def with_need(error: DiskFull, out: Path, needed: DiskEstimate) -> DiskFull:
    """Add to a disk-full error the space that the study directory ``out`` still needs."""
    return DiskFull(
        error.path,
        f"{error.given} ({bytes_text(free_bytes(error.path))} free)",
        f"room for what the study still writes: {estimate_text(needed)}",
        f"free {bytes_text(needed.room)} on the disk of {out} and run the same command again, which resumes from what "
        "is finished and from the last checkpoints",
    )


def disk_budget(study: StudyConfig, cache: Path, reserve: int = 0) -> int:
    """Return the bytes that the whole cache may have: the study's budget, or what its disk has room for.

    Args:
        study: has the budget.
        cache: the folder of the cache.
        reserve: bytes that stay free on its disk.
    """
    return min(bytes_of(study.budget.disk), used_bytes(cache) + int(max(0, free_bytes(cache) - reserve) / SPARE))
