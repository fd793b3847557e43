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
from unfreeze.activations.reads import all_reads
from unfreeze.config.schema import StudyConfig
from unfreeze.data.catalog import Catalog
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
from unfreeze.study.network_plan import Plan, make_plan, preprocessings, weight_hashes
from unfreeze.study.prepare import PreparedStudy
from unfreeze.train.device import Compute, pick


class _Leave(BaseException):
    """The parent wants this slot to leave; not an Exception, so that no cell takes it for its own failure."""


def briefing(
    prepared: PreparedStudy, calibrated: Calibrations, shared: ActivationPlan, cache: Path, workers: int
) -> dict[str, Any]:
    """Return what a slot needs of a planned study, as JSON data; its images are in catalog.csv."""
    study, catalog, specs, stored = prepared.opened.config, prepared.catalog, prepared.cells, shared.stored_work
    return {
        "study": study.model_dump(mode="json", exclude_unset=True),  # what is unset decides where a default comes from
        "out": str(prepared.opened.store.path),
        "roots": {name: str(root) for name, root in catalog.roots.items()},
        "classes": list(catalog.classes),
        "reading": catalog.reading.as_text(),
        "threads": torch.get_num_threads(),
        "cells": {
            cell_id: {"selection": _selection_name(spec), "fingerprint": spec.fingerprint}
            for cell_id, spec in specs.items()
        },
        "selections": {_selection_name(spec): asdict(spec.selection) for spec in specs.values()},
        "calibrations": [
            {"prefix": asdict(key), "calibration": found.as_record()} for key, found in calibrated.calibrations.items()
        ],
        "stored": [
            {"key": asdict(key), "start": asdict(stored.starts[key]) if key in stored.starts else None}
            for key in stored.rows
        ],
        "shares": [{"key": asdict(key), "share": share} for key, share in stored.shares.items()],
        "pixels": stored.pixels,
        "cache": str(cache),
        "workers": workers,
    }


def _selection_name(spec: CellSpec) -> str:
    return json.dumps([spec.cell.regime, spec.cell.seed, spec.cell.fold])


def _key(record: Mapping[str, Any]) -> ActivationKey:
    return ActivationKey(**{**record, "prefix": PrefixKey(**record["prefix"])})


def _selection(record: Mapping[str, Any]) -> Selection:
    tests = {name: tuple(ids) for name, ids in record["tests"].items()}
    rest: dict[str, Any] = {name: tuple(ids) for name, ids in record.items() if name != "tests"}
    return Selection(tests=tests, **rest)


def _catalog(brief: Mapping[str, Any]) -> Catalog:
    images = read_table(Path(brief["out"]) / "catalog.csv")
    roots = {name: Path(root) for name, root in brief["roots"].items()}
    return Catalog(images, roots, tuple(brief["classes"]), reading=Reading.from_text(brief["reading"]))


def _specs(
    brief: Mapping[str, Any], study: StudyConfig, catalog: Catalog, plan: Plan, compute: Compute
) -> dict[str, CellSpec]:
    """Return the cells as the parent has them.

    Raises:
        RuntimeError: a cell is not the parent's; something has changed since it was planned.
    """
    weights, device = weight_hashes(plan), compute.device.type
    selections = {name: _selection(record) for name, record in brief["selections"].items()}
    specs = dict[str, CellSpec]()
    for cell in plan.cells:
        told, networks = brief["cells"][cell.id], plan.candidates[cell.strategy]
        spec = CellSpec(cell, study, catalog, selections[told["selection"]], networks, weights, device)
        if spec.fingerprint != told["fingerprint"]:
            raise RuntimeError(f"{cell.id} is not the cell that was planned: images or weights have changed meanwhile")
        specs[cell.id] = spec
    return specs


def executor_of(brief: Mapping[str, Any], emit: Emit) -> SerialExecutor:
    """Return the executor that runs the study's cells in this process, with the cells as the parent has them.

    Raises:
        RuntimeError: a cell is not the parent's; something has changed since it was planned.
        UserError: a backbone or its weights can no longer be loaded.
    """
    study = StudyConfig.model_validate(brief["study"])
    torch.set_num_threads(brief["threads"])  # as the study fixed them: sums depend on it
    compute, catalog, cache = pick(study.device, study.precision), _catalog(brief), Path(brief["cache"])
    plan = make_plan(study, len(catalog.classes), weights=True)
    specs = _specs(brief, study, catalog, plan, compute)
    prefixes = {}
    for record in brief["calibrations"]:
        key = PrefixKey(**record["prefix"])
        backbone = plan.backbones[key.backbone, key.weights, key.image_size]
        calibration = Calibration.from_record(record["calibration"])
        prefixes[key] = Prefix(backbone, calibration, study.activations, compute.device)
    rows = all_reads(spec.reads for spec in specs.values()).rows
    stored = StoredWork(
        rows={key: rows[key] for key in (_key(record["key"]) for record in brief["stored"])},
        starts={_key(record["key"]): _key(record["start"]) for record in brief["stored"] if record["start"]},
        shares={_key(record["key"]): record["share"] for record in brief["shares"]},
        pixels=brief["pixels"],
    )
    supply = BatchSource(catalog, preprocessings(plan), prefixes, stored, cache, brief["workers"], emit)
    return SerialExecutor(specs, supply, plan.backbone, StudyDir(Path(brief["out"])), compute, emit)


class _Exchange:
    """Messages between this slot and its parent: groups to run, which cells ended, and the cost of shared work.

    Cells record their share of that cost, whichever slot did the work.

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
        """Tell the parent what this supply computes, from now on, and count there what other slots compute."""
        self._supply, self._known = supply, facts_of(supply)

    def groups(self) -> Iterator[list[str]]:
        """Yield the ids of the cells of each group that the parent asks for, until it asks no more."""
        while True:
            while not self._groups:
                self._hear(self.parent.asked.get())
            cell_ids = self._groups.popleft()
            if cell_ids is None:
                return
            yield cell_ids

    def emit(self, event: Event) -> None:
        """Log an event; leave if the parent wants that and training loses nothing here."""
        self.share_facts()
        self.log.append(event)
        if isinstance(event, CellFinished | CellFailed):
            self.parent.tell(cell=event.cell, failed=isinstance(event, CellFailed))
        if self.parent.leaving.is_set() and not isinstance(event, MIDST):
            raise _Leave

    def share_facts(self) -> None:
        """Tell the parent what was computed here since the last call, and count what other slots computed."""
        if self._supply is None:
            return
        now, unstored = facts_of(self._supply), self._supply.facts.unstored
        if now != self._known:
            self.parent.tell(facts=_difference(now, self._known))
        if unstored != self._unstored:
            self.parent.tell(unstored=unstored)
        while not self.parent.asked.empty():
            self._hear(self.parent.asked.get())
        self._known, self._unstored = facts_of(self._supply), unstored

    def _hear(self, message: dict[str, Any] | None) -> None:
        if message is not None and "facts" in message:
            add_facts(self._supply, message["facts"])  # type: ignore[arg-type]
            self._known = facts_of(self._supply)  # type: ignore[arg-type]  # not this slot's work
        else:
            self._groups.append(None if message is None else message["run"])


def facts_of(supply: BatchSource) -> dict[str, list[float]]:
    """Return the cost of shared work so far as JSON data: by key, by prefix, and how much of the cache was altered."""
    facts = supply.facts
    return {
        "seconds": [facts.seconds.get(key, 0.0) for key in supply.rows],
        "rows": [facts.computed.get(key, 0) for key in supply.rows],
        "forwards": [prefix.forwards for prefix in supply.prefixes.values()],
        "altered": [facts.altered_chunks],
    }


def _difference(now: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was added between two results of ``facts_of``."""
    return {name: [new - old for new, old in zip(now[name], before[name], strict=True)] for name in now}


def add_facts(supply: BatchSource, facts: Mapping[str, Any], forwards: bool = False) -> None:
    """Count the shared work of another process; its forwards and altered chunks only where asked."""
    known = supply.facts
    for key, seconds, rows in zip(supply.rows, facts["seconds"], facts["rows"], strict=True):
        if rows:
            known.seconds[key] = known.seconds.get(key, 0.0) + seconds
            known.computed[key] = known.computed.get(key, 0) + rows
    if forwards:
        for prefix, count in zip(supply.prefixes.values(), facts["forwards"], strict=True):
            prefix.forwards += count
        known.altered_chunks += facts["altered"][0]


def run_cells(brief: Mapping[str, Any], parent: Parent) -> None:
    """Run groups until the parent asks no more, or wants this slot to leave.

    Args:
        brief: what ``briefing`` returned, and as ``log`` the name of this slot's log.
        parent: asks for groups.
    """
    try:
        _serve(brief, parent)
    except _Leave:
        pass
    except DiskFull as error:
        parent.tell(full={"path": str(error.path), **_words(error)})
    except UserError as error:  # not a cell's, whose errors are its own: the run's
        parent.tell(refused=_words(error))
    gc.collect()  # loaders go, and end their processes before this one ends


def _words(error: UserError) -> dict[str, str]:
    return {"given": error.given, "expected": error.expected, "fix": error.fix}


def _serve(brief: Mapping[str, Any], parent: Parent) -> None:
    exchange = _Exchange(parent, EventLog(Path(brief["out"]), brief["log"]))
    executor = executor_of(brief, exchange.emit)
    exchange.count(executor.supply)
    for cell_ids in exchange.groups():
        parent.tell(began=cell_ids)
        executor.submit(cell_ids, 0.0)
        exchange.share_facts()
        parent.tell(ended=cell_ids)
