"""Run cells in a slot (``unfreeze.slots``), with the parent's plan rebuilt here.

The parent asks for groups, as the ids of their cells, and says what other slots computed meanwhile. The slot answers
what it computed and which cells and groups ended. Events go to the slot's log.
"""

import gc
import json
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from unfreeze.activations.batches import BatchSource, StoredWork
from unfreeze.activations.keys import ActivationKey, PrefixKey
from unfreeze.activations.prefix import Calibration, Prefix
from unfreeze.config.schema import StudyConfig
from unfreeze.data.catalog import Catalog
from unfreeze.data.dataset_diff import DatasetChanges
from unfreeze.data.formats.reading import Reading
from unfreeze.data.subset import Selection
from unfreeze.errors import UserError
from unfreeze.events import MIDST, CellFailed, CellFinished, Emit, Event
from unfreeze.slots import Parent
from unfreeze.storage.atomic import DiskFull
from unfreeze.storage.event_log import EventLog
from unfreeze.storage.records import read_table
from unfreeze.storage.study_dir import StudyDir
from unfreeze.study.activation_plan import ActivationPlan
from unfreeze.study.calibrations import Calibrations
from unfreeze.study.cell import CellSpec
from unfreeze.study.executors.serial import SerialExecutor
from unfreeze.study.images import DatasetDiff
from unfreeze.study.lockstep import CellTask, together
from unfreeze.study.network_plan import make_plan, preprocessings, weight_hashes
from unfreeze.study.prepare import OpenedStudy, PreparedStudy
from unfreeze.train.device import pick


class _Left(BaseException):
    """The parent wants this slot to leave; not an Exception, so that no cell takes it for its own failure."""


def briefing(
    prepared: PreparedStudy, calibrated: Calibrations, shared: ActivationPlan, cache: Path, workers: int
) -> dict[str, Any]:
    """Return what a process has to know of a study that is planned, as JSON data; its images are in catalog.csv."""
    study, catalog, cells = prepared.opened.config, prepared.catalog, prepared.cells
    return {
        "study": study.model_dump(mode="json", exclude_unset=True),  # what is unset decides where a default comes from
        "out": str(prepared.opened.store.path),
        "roots": {name: str(root) for name, root in catalog.roots.items()},
        "classes": list(catalog.classes),
        "reading": catalog.reading.as_text(),
        "threads": torch.get_num_threads(),
        "cells": {name: [_selection_key(cell), cell.fingerprint] for name, cell in cells.items()},
        "selections": {_selection_key(cell): asdict(cell.selection) for cell in cells.values()},
        "calibrations": [[asdict(key), found.as_record()] for key, found in calibrated.calibrations.items()],
        "stored": [asdict(activation_key) for activation_key in shared.rows()],
        "starts": [[asdict(activation_key), asdict(start)] for activation_key, start in shared.starts().items()],
        "shares": [[asdict(activation_key), share] for activation_key, share in shared.shares().items()],
        "pixels": shared.pixel_bytes > 0,
        "cache": str(cache),
        "workers": workers,
    }


def _selection_key(spec: CellSpec) -> str:
    return json.dumps([spec.cell.regime, spec.cell.seed, spec.cell.fold])


def _key(record: Mapping[str, Any]) -> ActivationKey:
    return ActivationKey(**{**record, "prefix": PrefixKey(**record["prefix"])})


def _selection(record: Mapping[str, Any]) -> Selection:
    tests = {name: tuple(ids) for name, ids in record["tests"].items()}
    train, validation, warnings, ranking = (
        tuple(record[name]) for name in ("train", "validation", "warnings", "ranking")
    )
    return Selection(train, validation, tests, warnings, ranking)


def _prepared(brief: Mapping[str, Any]) -> PreparedStudy:
    """Return the study as the parent prepared it.

    Raises:
        RuntimeError: a cell is not the parent's; something has changed since it was planned.
        UserError: a backbone or its weights cannot be loaded any more.
    """
    study = StudyConfig.model_validate(brief["study"])
    torch.set_num_threads(brief["threads"])  # as the study fixed them: sums depend on it
    compute, store = pick(study.device, study.precision), StudyDir(Path(brief["out"]))
    roots = {name: Path(root) for name, root in brief["roots"].items()}
    images, reading = read_table(store.path / "catalog.csv"), Reading.from_text(brief["reading"])
    catalog = Catalog(images, roots, tuple(brief["classes"]), reading=reading)
    plan = make_plan(study, len(catalog.classes), weights=True)
    weights, selections = weight_hashes(plan), {key: _selection(one) for key, one in brief["selections"].items()}
    by_id = {cell.id: cell for cell in plan.cells}
    cells = {
        name: CellSpec(by_id[name], study, catalog, selections[key], weights, compute.device.type)
        for name, (key, _) in brief["cells"].items()
    }
    for name, (_, fingerprint) in brief["cells"].items():
        if cells[name].fingerprint != fingerprint:
            raise RuntimeError(f"{name} is not the cell that was planned: images or weights have changed meanwhile")
    opened = OpenedStudy(study, len(catalog.images), store, {}, compute, plan, Path(brief["cache"]))
    return PreparedStudy(opened, DatasetDiff(catalog, {}, DatasetChanges(), ()), {}, cells)


def executor_of(brief: Mapping[str, Any], emit: Emit) -> SerialExecutor:
    """Return the executor that runs the study's cells in this process, with the cells as the parent has them.

    Raises:
        RuntimeError, UserError: see ``_prepared``.
    """
    prepared = _prepared(brief)
    opened, works = prepared.opened, prepared.works
    prefixes = {}
    for record, found in brief["calibrations"]:
        key = PrefixKey(**record)
        backbone = opened.plan.backbones[key.backbone, key.weights, key.image_size]
        activations = opened.config.activations
        prefixes[key] = Prefix(backbone, Calibration.from_record(found), activations, opened.compute.device)
    rows = together(work.reads for work in works).rows
    stored = StoredWork(
        {key: rows[key] for key in map(_key, brief["stored"])},
        {_key(key): _key(start) for key, start in brief["starts"]},
        brief["pixels"],
    )
    preprocessing, cache = preprocessings(opened.plan), Path(brief["cache"])
    supply = BatchSource(prepared.catalog, preprocessing, prefixes, stored, cache, brief["workers"], emit)
    shares = {_key(activation_key): share for activation_key, share in brief["shares"]}
    tasks = {work.cell: CellTask(work.spec, work.networks, work.reads, shares) for work in works}
    return SerialExecutor(tasks, supply, opened.plan.backbone, opened.store, opened.compute, emit)


class _Exchange:
    """What this slot and its parent say to each other: groups to run, which cells ended, and what shared work took.

    Cells record their share of such work, whichever slot did it.

    Args:
        parent: the parent.
        log: where events go.
    """

    def __init__(self, parent: Parent, log: EventLog) -> None:
        self.parent, self.log = parent, log
        self._groups = deque[list[str] | None]()
        self._supply: BatchSource | None = None
        self._known, self._unstored = dict[str, Any](), ""

    def count(self, supply: BatchSource) -> None:
        """Say from now on what this supply computes, and count there what other slots compute."""
        self._supply, self._known = supply, record_of(supply)

    def groups(self) -> Iterator[list[str]]:
        """Yield the cells of each group that the parent asks for, until it asks no more."""
        while True:
            while not self._groups:
                self._hear(self.parent.asked.get())
            cells = self._groups.popleft()
            if cells is None:
                return
            yield cells

    def emit(self, event: Event) -> None:
        """Log an event; where training can stop without a loss, leave if the parent wants that."""
        self.share_facts()
        self.log.append(event)
        if isinstance(event, CellFinished | CellFailed):
            self.parent.tell(cell=event.cell, failed=isinstance(event, CellFailed))
        if self.parent.leaving.is_set() and not isinstance(event, MIDST):
            raise _Left

    def share_facts(self) -> None:
        """Say what was computed here since the last time, and count what was computed elsewhere."""
        if self._supply is None:
            return
        now, unstored = record_of(self._supply), self._supply.facts.unstored
        if now != self._known:
            self.parent.tell(facts=less(now, self._known))
        if unstored != self._unstored:
            self.parent.tell(unstored=unstored)
        while not self.parent.asked.empty():
            self._hear(self.parent.asked.get())
        self._known, self._unstored = record_of(self._supply), unstored

    def _hear(self, message: dict[str, Any] | None) -> None:
        if message is not None and "facts" in message:
            add_record(self._supply, message["facts"])  # type: ignore[arg-type]
            self._known = record_of(self._supply)  # type: ignore[arg-type]  # which is no work of this slot
        else:
            self._groups.append(None if message is None else message["run"])


def record_of(supply: BatchSource) -> dict[str, Any]:
    """Return what shared work took so far as JSON data: by key, by prefix, and what was altered."""
    facts = supply.facts
    return {
        "seconds": [facts.seconds.get(key, 0.0) for key in supply.rows],
        "rows": [facts.computed.get(key, 0) for key in supply.rows],
        "forwards": [prefix.forwards for prefix in supply.prefixes.values()],
        "altered": [facts.altered_chunks],
    }


def less(now: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    """Return what came to be between two records."""
    return {name: [new - old for new, old in zip(now[name], before[name], strict=True)] for name in now}


def add_record(supply: BatchSource, record: Mapping[str, Any], forwards: bool = False) -> None:
    """Count another process's work to what shared work took; ``forwards`` and what was altered only where asked."""
    facts = supply.facts
    for key, seconds, rows in zip(supply.rows, record["seconds"], record["rows"], strict=True):
        if rows:
            facts.seconds[key] = facts.seconds.get(key, 0.0) + seconds
            facts.computed[key] = facts.computed.get(key, 0) + rows
    if forwards:
        for prefix, count in zip(supply.prefixes.values(), record["forwards"], strict=True):
            prefix.forwards += count
        facts.altered_chunks += record["altered"][0]


def run_cells(brief: Mapping[str, Any], parent: Parent) -> None:
    """Run groups until the parent asks no more, or wants this slot to leave.

    Args:
        brief: what ``briefing`` returned, and as ``worker`` the name of this slot's log.
        parent: asks for groups.
    """
    try:
        _serve(brief, parent)
    except _Left:
        pass
    except DiskFull as error:
        parent.tell(full=[str(error.path), error.given, error.expected, error.fix])
    except UserError as error:  # not a cell's, whose errors are its own: the run's
        parent.tell(refused=[error.given, error.expected, error.fix])
    gc.collect()  # loaders go, and end their processes before this one ends


def _serve(brief: Mapping[str, Any], parent: Parent) -> None:
    exchange = _Exchange(parent, EventLog(Path(brief["out"]), brief["worker"]))
    executor = executor_of(brief, exchange.emit)
    exchange.count(executor.supply)
    for cells in exchange.groups():
        parent.tell(began=cells)
        executor.submit(cells, 0.0)
        exchange.share_facts()
        parent.tell(ended=cells)
