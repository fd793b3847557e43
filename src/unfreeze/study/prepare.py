"""Prepare a study for run, plan and workers: its networks, images and cells."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from unfreeze.activations.engine import Settings
from unfreeze.config.schema import StudyConfig
from unfreeze.data.catalog import Catalog
from unfreeze.data.quality import Finding, findings, warnings_of
from unfreeze.data.sources.source import Source
from unfreeze.data.summary import split_notes
from unfreeze.events import Emit, Warned
from unfreeze.storage.cache import usable_cache
from unfreeze.storage.records import Altered, read_json
from unfreeze.storage.study_dir import StudyDir
from unfreeze.study.cell import CellSpec, left_over
from unfreeze.study.images import DatasetDiff, draw_splits, make_jobs, refuse_lone_batches, since_last_run
from unfreeze.study.lockstep import CellWork
from unfreeze.study.network_plan import Plan, make_plan, weight_hashes
from unfreeze.train.device import Compute, pick


@dataclass(frozen=True)
class OpenedStudy:
    """A study with its directory, device and networks; its images are not looked at yet.

    Attributes:
        config: the study.
        files: how many its data has.
        store: its directory, which need not be there.
        before: what the first run fixed, see ``first_fixed``.
        compute: device and precision.
        plan: cells and networks, with their weights.
        cache: the folder of the cache; None where none can be used.
    """

    config: StudyConfig
    files: int
    store: StudyDir
    before: Mapping[str, Any]
    compute: Compute
    plan: Plan
    cache: Path | None

    @property
    def engines(self) -> dict[str, Settings]:
        """The engine of each frozen part that the first run chose, by its label; none on another device."""
        return engines_fixed(self.before, self.compute)


@dataclass(frozen=True)
class PreparedStudy:
    """A study whose cells are ready to be planned and run.

    Attributes:
        opened: its directory, device and networks.
        diff: its images, and what changed since its last run.
        splits: the split of each image, by fold.
        cells: by id, in plan order.
        notes: warnings about the data.
        findings: of the data check, the worst first; none where the images were not decoded.
    """

    opened: OpenedStudy
    diff: DatasetDiff
    splits: Mapping[int | None, pd.Series]
    cells: Mapping[str, CellSpec]
    notes: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()

    @property
    def catalog(self) -> Catalog:
        """The images."""
        return self.diff.catalog

    @cached_property
    def works(self) -> list[CellWork]:
        """The cells as the plan of shared work sees them."""
        candidates = self.opened.plan.candidates
        return [CellWork(cell, candidates[cell.cell.strategy]) for cell in self.cells.values()]


def open_study(study: StudyConfig, source: Source, out: Path, emit: Emit) -> OpenedStudy:
    """Load a study's networks and what its directory says of earlier runs.

    Sets torch's number of threads to the one that the first run fixed: sums depend on it.

    Raises:
        UserError: names every strategy whose network cannot be built or loaded; a device that is not there.
    """
    store = StudyDir(out)
    before = first_fixed(store, emit)
    compute = pick(study.device, study.precision)
    if "threads" in before:
        torch.set_num_threads(int(before["threads"]))
    plan = make_plan(study, len(source.classes), weights=True)
    cache = usable_cache(lambda text: emit(Warned(text)))
    return OpenedStudy(study, len(source.items), store, before, compute, plan, cache)


def prepare(opened: OpenedStudy, catalog: Catalog, emit: Emit, decoded: bool = True) -> PreparedStudy:
    """Split a study's images and give each cell its own.

    Args:
        opened: the study.
        catalog: its images.
        emit: is told of warnings about the data.
        decoded: whether the images were decoded, or only their headers read: then less is known, and less is said.

    Raises:
        UserError: a regime that the data cannot give; a strategy that cannot train on any of its cells.
    """
    study, store, plan = opened.config, opened.store, opened.plan
    diff = since_last_run(store, opened.before, study, catalog, " (listed in study.json)" if decoded else "")
    drawn = diff.drawn.get(None)
    notes = [*split_notes(diff.catalog, study.split, drawn), *diff.warnings]
    found: list[Finding] = []
    if decoded:
        found = findings(diff.catalog, study.image_size, study.split.folds is not None, study.split, drawn)
        quality = warnings_of(diff.catalog, found)
        notes = [*diff.catalog.guessed, *quality, *notes, *left_over(store, [cell.id for cell in plan.cells])]
    for note in notes:
        emit(Warned(note))
    splits = draw_splits(study, diff.catalog, plan, diff.drawn)
    cells = make_jobs(study, diff.catalog, plan, splits, weight_hashes(plan), opened.compute)
    if decoded:
        for warning in dict.fromkeys(text for cell in cells.values() for text in cell.selection.warnings):
            emit(Warned(warning))
    refuse_lone_batches(cells, plan)
    return PreparedStudy(opened, diff, splits, cells, tuple(notes), tuple(found))


def first_fixed(store: StudyDir, emit: Emit) -> dict[str, Any]:
    """Return the record of what the first run of a study fixed: threads, engines, the split; empty before it."""
    path = store.path / "study.json"
    try:
        return read_json(path) if path.is_file() else {}
    except Altered:
        emit(Warned(f"{path} was altered or cut short; threads, engines and the split are chosen anew"))
        return {}


def engines_fixed(before: Mapping[str, Any], compute: Compute) -> dict[str, Settings]:
    """Return the engine of each frozen part that the first run chose, by its label; none on another device."""
    as_before = (before.get("device"), before.get("dtype")) == (str(compute.device), compute.precision)
    return {label: found["engine"] for label, found in before.get("engines", {}).items() if as_before}
