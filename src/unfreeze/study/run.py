"""Run the unfinished cells of a study and write its tables."""

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unfreeze.activations.batches import BatchSource
from unfreeze.config.schema import StudyConfig
from unfreeze.config.units import seconds_of
from unfreeze.data.catalog import Catalog
from unfreeze.data.quality import refuse_losses
from unfreeze.data.sources import source_of
from unfreeze.data.sources.source import Source
from unfreeze.data.summary import layout, lines
from unfreeze.errors import UserError
from unfreeze.events import Emit, Planned, Understood, Warned
from unfreeze.explain.explain import explain
from unfreeze.report.check_page import check_of_run
from unfreeze.statistics.study_results import StudyResults, read_study_results
from unfreeze.storage.array_store import ArrayStore
from unfreeze.storage.atomic import DiskFull, remove_leftovers
from unfreeze.storage.cache import in_use, make_room, refuse_inside, scanning, tidy
from unfreeze.storage.event_log import logged
from unfreeze.storage.locks import held, waiting
from unfreeze.storage.records import write_table
from unfreeze.storage.shards import Row
from unfreeze.study.activation_plan import ActivationPlan
from unfreeze.study.activation_plan import as_record as shared_record
from unfreeze.study.cache_plan import less_stored, needed_rows, plan_activations, plan_activations_on_disk, plan_less
from unfreeze.study.calibrations import Calibrations, calibrate
from unfreeze.study.cell import CellSpec, conditions_warnings, stale_warnings
from unfreeze.study.disk import (
    DiskEstimate,
    estimate_writes,
    estimate_writes_before_scan,
    refuse_without_room,
    reserved,
    with_need,
)
from unfreeze.study.executors.executor import Executor
from unfreeze.study.executors.processes import ProcessExecutor
from unfreeze.study.executors.schedule import Schedule
from unfreeze.study.executors.serial import SerialExecutor
from unfreeze.study.executors.slot_cells import briefing
from unfreeze.study.images import look_at_data
from unfreeze.study.lockstep import groups_of
from unfreeze.study.network_plan import as_record
from unfreeze.study.prepare import OpenedStudy, PreparedStudy, engines_of, open_study, prepare, read_last_record
from unfreeze.study.record import engine_warnings, record_run_stats, write_record
from unfreeze.train.checkpoint import remove_state


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        failed: ids of the cells that failed.
        left_out: ids of the cells that the time limit left out.
        results: of all finished cells of the study.
        layout: how its data was understood, see ``data.summary``.
    """

    failed: tuple[str, ...]
    left_out: tuple[str, ...]
    results: StudyResults
    layout: Mapping[str, Any]


def run_study(
    study: StudyConfig,
    out: Path,
    emit: Emit,
    source_text: str = "",
    workers: int | None = None,
    seconds: float | None = None,
    parallel: int = 1,
) -> Outcome:
    """Run the cells of a study that are not finished, and write its tables.

    Args:
        study: what to run.
        out: the study directory; made if it is not there.
        emit: is called with each event.
        source_text: the study file as given, kept as study.yaml.
        workers: processes that prepare batches (see ``default_workers``); no number depends on it.
        seconds: run only the cells that fit into this time, one seed after another; by default ``budget.time``.
        parallel: processes that run cells at once, each with its own network in memory; no number depends on it.

    Raises:
        UserError: the study, its data or the directory cannot be used, such as a disk with too little room, or a
            directory that another run uses.
        DiskFull: the disk became full during the run.
    """
    if parallel < 1:
        raise UserError(f"parallel: {parallel}", "a number of processes from 1", "leave it out, or say 2 or more")
    if seconds is None and study.budget.time is not None:
        seconds = seconds_of(study.budget.time)
    _check_directory(study, out)
    options = RunOptions(source_text, default_workers() if workers is None else workers, seconds, parallel)
    with held(out):
        return StudyRun(study, out, emit, options).run()


@dataclass(frozen=True)
class RunOptions:
    """Options of a run, see ``run_study``; ``seconds`` None: no limit."""

    source_text: str
    workers: int
    seconds: float | None
    parallel: int


@dataclass(frozen=True)
class PlannedRun:
    """A prepared study with its plan.

    Attributes:
        prepared: the study.
        calibrated: what everything costs.
        shared: which activations are stored.
        cache_rows: rows of the cache that the study reads, by entry.
        folder: of the cache, or the study directory where no cache can be used.
    """

    prepared: PreparedStudy
    calibrated: Calibrations
    shared: ActivationPlan
    cache_rows: Mapping[ArrayStore, set[Row]]
    folder: Path


class StudyRun:
    """One run of a study: from its data to its tables.

    Args:
        study: what to run.
        out: the study directory.
        emit: is called with each event.
        options: of the run.
    """

    def __init__(self, study: StudyConfig, out: Path, emit: Emit, options: RunOptions) -> None:
        self.study, self.out, self.options = study, out, options
        self.listener, self.emit = emit, logged(out, emit)
        self._started = time.perf_counter()
        self._scan_seconds = 0.0
        self._disk_estimate: Callable[[], DiskEstimate] | None = None  # of what the study still writes, once known

    def run(self) -> Outcome:
        """Run the cells that are not finished, and write the study's tables.

        Raises:
            UserError, DiskFull: see ``run_study``.
        """
        try:
            return self._run()
        except DiskFull as error:
            if self._disk_estimate is None:
                raise
            raise with_need(error, self.out, self._disk_estimate()) from error

    def _run(self) -> Outcome:
        remove_leftovers(self.out)
        source = source_of(self.study, Path.cwd())
        understood = layout(source, self.study.split)
        self.emit(Understood(lines(self.study.data, source, self.study.split, self.study.tests), understood))
        opened = open_study(self.study, source, self.out, self.emit)
        prepared = prepare(opened, self._scan(opened, source), self.emit)
        with self._planned(prepared) as planned:
            failed, left_out = self._run_cells(planned)
            with contextlib.suppress(OSError):  # not there, or with the states of cells that failed or were left out
                opened.store.running.rmdir()
        results = read_study_results(opened.store)
        write_table(self.out / "results.csv", results.table)
        write_table(self.out / "comparisons.csv", results.comparisons)
        explain(opened.store, results.cell, prepared.catalog, opened.compute, self.emit)
        understood = layout(source, self.study.split, prepared.catalog)
        failed = [cell_id for cell_id in prepared.cells if cell_id in failed]
        return Outcome(tuple(failed), tuple(left_out), results, understood)

    def _scan(self, opened: OpenedStudy, source: Source) -> Catalog:
        """Read and decode the images that are not known yet."""
        cache = opened.cache
        if cache:
            remove_leftovers(cache)
            tidy(cache)
        expected = self._estimate_and_refuse(
            lambda: estimate_writes_before_scan(opened.store, opened.plan, opened.files)
        )
        reserve = reserved(cache, self.out, expected) if cache else 0
        started = time.perf_counter()
        with contextlib.ExitStack() as stack:
            if cache:  # wait for another process that reads the same images, and use its results
                seen = waiting(self.emit, "reads the same images")
                stack.enter_context(scanning(cache, source.roots.values(), seen))
            catalog = look_at_data(self.study, source, opened.plan, cache, self.emit, reserve)
        self._scan_seconds = time.perf_counter() - started
        refuse_losses(catalog, self.study.check.max_set_aside)
        return catalog

    def _estimate_and_refuse(self, disk_estimate: Callable[[], DiskEstimate]) -> DiskEstimate:
        """Estimate what the study still writes, and refuse it if the disk has no room for that."""
        self._disk_estimate = disk_estimate
        estimate = disk_estimate()
        refuse_without_room(self.out, estimate)
        return estimate

    @contextlib.contextmanager
    def _planned(self, prepared: PreparedStudy) -> Iterator[PlannedRun]:
        """Plan what is stored and make room for it; rows that the study reads are kept in the cache until the end."""
        opened, catalog = prepared.opened, prepared.catalog
        cache, parallel = opened.cache, self.options.parallel
        expected = self._estimate_and_refuse(
            lambda: estimate_writes(opened.store, opened.plan, opened.files, prepared.cells, parallel)
        )
        folder = cache or self.out  # then it holds calibrations alone, since the budget is 0
        calibrated = self._calibrate(prepared, folder)
        if cache is None:
            shared = plan_activations(prepared, calibrated, folder, 0)
            yield PlannedRun(prepared, calibrated, shared, needed_rows(shared, calibrated, catalog, folder), folder)
            return
        shared, budget, warnings = plan_activations_on_disk(
            prepared, calibrated, cache, reserved(cache, self.out, expected)
        )
        for warning in warnings:
            self.emit(Warned(warning))
        cache_rows = needed_rows(shared, calibrated, catalog, folder)
        with in_use(cache_rows) as marks:
            keep = {store.folder: rows for store, rows in cache_rows.items()}
            allowed = make_room(cache, shared.bytes_missing, budget, keep, marks)
            if allowed < shared.bytes_missing:  # another study has begun meanwhile, or something cannot be deleted
                fits = plan_less(prepared, calibrated, cache, shared, allowed)
                self.emit(Warned(less_stored(self.study, shared, fits)))
                shared, cache_rows = fits, needed_rows(fits, calibrated, catalog, cache)
            yield PlannedRun(prepared, calibrated, shared, cache_rows, folder)

    def _calibrate(self, prepared: PreparedStudy, folder: Path) -> Calibrations:
        """Measure, with the engines that earlier runs have used; warn of those that can no longer be used."""
        store, compute = prepared.opened.store, prepared.opened.compute
        sample = next(iter(prepared.cells.values())).selection.train
        fixed = prepared.opened.engines
        calibrated = calibrate(prepared, sample, folder, fixed, self.emit)
        now = engines_of(read_last_record(store, lambda _: None), compute)  # of an altered one a warning was given
        if now != fixed:  # a run that no lock kept out chose others meanwhile
            fixed = now
            calibrated = calibrate(prepared, sample, folder, fixed, self.emit)
        for warning in engine_warnings(fixed, calibrated, compute.precision):
            self.emit(Warned(warning))
        return calibrated

    def _run_cells(self, planned: PlannedRun) -> tuple[list[str], list[str]]:
        """Run the cells that are not finished; return which failed, and which the time limit left out."""
        prepared, stages = planned.prepared, planned.calibrated.stages
        store = prepared.opened.store
        finished = self._write_plan(planned)
        supply = self._batch_source(planned)
        unfinished = {cell_id: spec for cell_id, spec in prepared.cells.items() if cell_id not in finished}

        def record() -> None:
            times = {
                "scan": self._scan_seconds,
                "calibration": planned.calibrated.seconds,
                "cells": executor.seconds,
                "total": time.perf_counter() - self._started,
            }
            record_run_stats(store, planned.shared, supply, planned.cache_rows, executor.predicted, stages, times)

        seconds, executor = self.options.seconds, self._executor(planned, supply, unfinished)
        try:
            with executor:
                remaining = None if seconds is None else seconds - (time.perf_counter() - self._started)
                failed, left_out = Schedule(unfinished, planned.shared, supply, executor, self.emit).run(remaining)
        except BaseException:  # the report counts what was computed until then
            with contextlib.suppress(UserError):  # the disk is full, say, which is what ended it
                record()
            raise
        if unfinished:
            record()
        return failed, left_out

    def _write_plan(self, planned: PlannedRun) -> list[str]:
        """Write the study's record, emit the plan, and return the ids of the finished cells."""
        prepared = planned.prepared
        store, cells = prepared.opened.store, prepared.cells
        plan = as_record(prepared.opened.plan, {cell_id: spec.fingerprint for cell_id, spec in cells.items()})
        plan |= shared_record(planned.shared, planned.calibrated.stages)
        write_record(prepared, planned.calibrated, plan, self.options.source_text)
        for name in store.set_aside_altered(plan["cells"]):
            self.emit(Warned(f"{name}: a file of this finished cell was altered or lost, so it runs again"))
        finished = [cell["cell"] for cell in plan["cells"] if store.is_finished(cell)]
        for name in finished:
            remove_state(store, name)  # of a run that was killed in between
        stale = stale_warnings(store, cells)
        for warning in [*stale, *conditions_warnings(store, finished, prepared.opened.compute)]:
            self.emit(Warned(warning))
        self.emit(check_of_run(self.study.name, prepared.catalog, prepared.findings, self.out / "check.html"))
        self.emit(Planned(tuple(cells), tuple(finished)))
        return finished

    def _batch_source(self, planned: PlannedRun) -> BatchSource:
        calibrated = planned.calibrated
        return BatchSource(
            planned.prepared.catalog,
            calibrated.preprocessing,
            calibrated.prefixes,
            planned.shared.stored_work,
            planned.folder,
            self.options.workers,
            self.emit,
        )

    def _executor(self, planned: PlannedRun, supply: BatchSource, specs: Mapping[str, CellSpec]) -> Executor:
        """Return what runs the cells: this process, or as many slots as there are groups to run, at most."""
        opened, parallel = planned.prepared.opened, min(self.options.parallel, len(groups_of(specs)))
        if parallel <= 1:
            return SerialExecutor(specs, supply, opened.plan.backbone, opened.store, opened.compute, self.emit)
        known = briefing(
            planned.prepared, planned.calibrated, planned.shared, planned.folder, -(-supply.workers // parallel)
        )
        return ProcessExecutor(parallel, known, supply, opened.store, self.emit, self.listener)


def _check_directory(study: StudyConfig, out: Path) -> None:
    """Refuse a study directory that is a file, or lies inside the images' folder: there it would be a class."""
    if out.exists() and not out.is_dir():
        raise UserError(
            f"--out {out} is a file", "a directory, or a path where one can be made", "give another --out DIR"
        )
    refuse_inside(out, "study directory", "a directory", "--out DIR", (study.data, *study.tests.values()))


def default_workers() -> int:
    """Return how many processes prepare batches: one fewer than the cores that this process may use, at most eight."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(8, cores - 1)
