"""Prepare a study for run and plan: its networks, images and cells."""

from collections.abc import Mapping
from dataclasses import dataclass
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
from unfreeze.study.cell import CellSpec, leftover_warnings
from unfreeze.study.images import DatasetDiff, cell_specs, draw_splits, refuse_lone_batches, since_last_run
from unfreeze.study.network_plan import Plan, make_plan
from unfreeze.train.device import Compute, pick


@dataclass(frozen=True)
class OpenedStudy:
    """A study with its directory, device and networks, before its images are read.

    Attributes:
        config: the study.
        files: number of files of its data.
        store: its directory, which need not exist.
        last_record: study.json as the last run wrote it, see ``read_last_record``.
        compute: device and precision.
        plan: cells and networks, with their weights.
        cache: the folder of the cache; None where none can be used.
    """

    config: StudyConfig
    files: int
    store: StudyDir
    last_record: Mapping[str, Any]
    compute: Compute
    plan: Plan
    cache: Path | None

    @property
    def engines(self) -> dict[str, Settings]:
        """Engines of frozen stages that the last run used, see ``engines_of``."""
        return engines_of(self.last_record, self.compute)


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


def open_study(study: StudyConfig, source: Source, out: Path, emit: Emit) -> OpenedStudy:
    """Load a study's networks and the record of its last run.

    Sets torch's number of threads to that of the first run: sums depend on it.

    Raises:
        UserError: names every strategy whose network cannot be built or loaded; a device that is not there.
    """
    store = StudyDir(out)
    record = read_last_record(store, emit)
    compute = pick(study.device, study.precision)
    if "threads" in record:
        torch.set_num_threads(int(record["threads"]))
    plan = make_plan(study, len(source.classes), weights=True)
    cache = usable_cache(lambda text: emit(Warned(text)))
    return OpenedStudy(study, len(source.items), store, record, compute, plan, cache)


def prepare(opened: OpenedStudy, catalog: Catalog, emit: Emit, decoded: bool = True) -> PreparedStudy:
    """Split a study's images and give each cell its own.

    Args:
        opened: the study.
        catalog: its images.
        emit: is called with warnings about the data.
        decoded: whether the images were decoded. If only their headers were read, the data check is left out.

    Raises:
        UserError: a regime that the data cannot give; a strategy that cannot train on any of its cells.
    """
    study, store, plan = opened.config, opened.store, opened.plan
    diff = since_last_run(store, opened.last_record, study, catalog, " (listed in study.json)" if decoded else "")
    drawn = diff.drawn.get(None)
    notes = [*split_notes(diff.catalog, study.split, drawn), *diff.warnings]
    found: list[Finding] = []
    if decoded:
        found = findings(diff.catalog, study.image_size, study.split.folds is not None, study.split, drawn)
        quality = warnings_of(diff.catalog, found)
        notes = [*diff.catalog.guessed, *quality, *notes, *leftover_warnings(store, [cell.id for cell in plan.cells])]
    for note in notes:
        emit(Warned(note))
    splits = draw_splits(study, diff.catalog, plan, diff.drawn)
    cells = cell_specs(study, diff.catalog, plan, splits, opened.compute)
    if decoded:
        for warning in dict.fromkeys(text for cell in cells.values() for text in cell.selection.warnings):
            emit(Warned(warning))
    refuse_lone_batches(cells, plan)
    return PreparedStudy(opened, diff, splits, cells, tuple(notes), tuple(found))


def read_last_record(store: StudyDir, emit: Emit) -> dict[str, Any]:
    """Return study.json as the last run wrote it, with the threads, engines and split to keep; {} before the first."""
    path = store.path / "study.json"
    try:
        return read_json(path) if path.is_file() else {}
    except Altered:
        emit(Warned(f"{path} was altered or cut short; threads, engines and the split are chosen again"))
        return {}


def engines_of(record: Mapping[str, Any], compute: Compute) -> dict[str, Settings]:
    """Return the engine of each frozen part in a study's record, by its label; none if it ran on another device."""
    as_before = (record.get("device"), record.get("dtype")) == (str(compute.device), compute.precision)
    return {label: found["engine"] for label, found in record.get("engines", {}).items() if as_before}
