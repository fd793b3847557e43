"""Run the unfinished cells of a study and write its tables."""

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unfreeze.activations.batches import BatchSource, StoredWork
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
from unfreeze.study.cell import finished_otherwise
from unfreeze.study.disk import DiskEstimate, refuse, reserved, with_need, writes, writes_at_first
from unfreeze.study.environment import made_otherwise
from unfreeze.study.executors.executor import Executor
from unfreeze.study.executors.processes import ProcessExecutor
from unfreeze.study.executors.serial import SerialExecutor
from unfreeze.study.executors.worker import briefing
from unfreeze.study.images import look_at_data
from unfreeze.study.lockstep import CellTask, groups_of
from unfreeze.study.network_plan import as_record
from unfreeze.study.prepare import OpenedStudy, PreparedStudy, engines_fixed, first_fixed, open_study, prepare
from unfreeze.study.record import add_facts, engine_warnings, write_record
from unfreeze.study.schedule import Schedule
from unfreeze.train.checkpoint import remove_state


@dataclass(frozen=True)
class Outcome:
    """How a run ended: the cells that failed, those that the time limit left out, and what the study holds now.

    ``layout`` is how its data was understood, see ``data.summary``.
    """

    failed: tuple[str, ...]
    left: tuple[str, ...]
    evidence: StudyResults
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
        emit: is told what happens.
        source_text: the study file as given, kept as study.yaml.
        workers: processes that prepare batches (see ``default_workers``); no number depends on it.
        seconds: run only the cells that fit into this time, the most telling first; by default ``budget.time``.
        parallel: processes that run cells at once, each a network of its own in memory; no number depends on it.

    Raises:
        UserError: anything in the study, its data or the directory that has to be fixed first, too little room on its
            disk among it; another run has it.
        DiskFull: there was no room all the same.
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
    """How a study is run; see ``run_study``. ``seconds`` None: no limit."""

    source_text: str
    workers: int
    seconds: float | None
    parallel: int


@dataclass(frozen=True)
class PlannedRun:
    """A prepared study, what everything costs, what is stored of it, and which rows of the cache it needs."""

    prepared: PreparedStudy
    calibrated: Calibrations
    shared: ActivationPlan
    needed: Mapping[ArrayStore, set[Row]]
    folder: Path


class StudyRun:
    """One run of a study: from its data to its tables.

    Args:
        study: what to run.
        out: the study directory.
        emit: is told what happens.
        options: how.
    """

    def __init__(self, study: StudyConfig, out: Path, emit: Emit, options: RunOptions) -> None:
        self.study, self.out, self.options = study, out, options
        self.listener, self.emit = emit, logged(out, emit)
        self._started = time.perf_counter()
        self._scan_seconds = 0.0
        self._needed: Callable[[], DiskEstimate] | None = None
        """Estimates what the study still writes, once that is known."""

    def run(self) -> Outcome:
        """Run the cells that are not finished, and write the study's tables.

        Raises:
            UserError, DiskFull: see ``run_study``.
        """
        try:
            return self._run()
        except DiskFull as error:
            if self._needed is None:
                raise
            raise with_need(error, self.out, self._needed()) from error

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
        evidence = read_study_results(opened.store)
        write_table(self.out / "results.csv", evidence.table)
        write_table(self.out / "comparisons.csv", evidence.comparisons)
        explain(opened.store, evidence.cell, prepared.catalog, opened.compute, self.emit)
        understood = layout(source, self.study.split, prepared.catalog)
        return Outcome(tuple(name for name in prepared.cells if name in failed), tuple(left_out), evidence, understood)

    def _scan(self, opened: OpenedStudy, source: Source) -> Catalog:
        """Read and decode the images that are not known yet."""
        cache = opened.cache
        if cache:
            remove_leftovers(cache)
            tidy(cache)
        expected = self._expect(lambda: writes_at_first(opened.store, opened.plan, opened.files))
        reserve = reserved(cache, self.out, expected) if cache else 0
        began = time.perf_counter()
        with contextlib.ExitStack() as stack:
            if cache:  # wait for another process that reads the same images: it remembers what it sees
                seen = waiting(self.emit, "reads the same images")
                stack.enter_context(scanning(cache, source.roots.values(), seen))
            catalog = look_at_data(self.study, source, opened.plan, cache, self.emit, reserve)
        self._scan_seconds = time.perf_counter() - began
        refuse_losses(catalog, self.study.check.max_set_aside)
        return catalog

    def _expect(self, needed: Callable[[], DiskEstimate]) -> DiskEstimate:
        """Remember how to estimate what the study still writes; refuse it if the disk has no room for that."""
        self._needed = needed
        estimate = needed()
        refuse(self.out, estimate)
        return estimate

    @contextlib.contextmanager
    def _planned(self, prepared: PreparedStudy) -> Iterator[PlannedRun]:
        """Decide what is stored and make room for it; rows of the cache that are needed stay until the end."""
        opened, catalog = prepared.opened, prepared.catalog
        cache, parallel = opened.cache, self.options.parallel
        expected = self._expect(
            lambda: writes(opened.store, opened.plan, opened.files, prepared.cells, prepared.works, parallel)
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
        needed = needed_rows(shared, calibrated, catalog, folder)
        with in_use(needed) as marks:
            keep = {one.folder: rows for one, rows in needed.items()}
            allowed = make_room(cache, shared.bytes_missing, budget, keep, marks)
            if allowed < shared.bytes_missing:  # another study has begun meanwhile, or something cannot be deleted
                fits = plan_less(prepared, calibrated, cache, shared, allowed)
                self.emit(Warned(less_stored(self.study, shared, fits)))
                shared, needed = fits, needed_rows(fits, calibrated, catalog, cache)
            yield PlannedRun(prepared, calibrated, shared, needed, folder)

    def _calibrate(self, prepared: PreparedStudy, folder: Path) -> Calibrations:
        """Measure, with the engines that the study has been using; say which of them are used no more."""
        store, compute = prepared.opened.store, prepared.opened.compute
        sample = next(iter(prepared.cells.values())).selection.train
        fixed = prepared.opened.engines
        calibrated = calibrate(prepared, sample, folder, fixed, self.emit)
        now = engines_fixed(first_fixed(store, lambda _: None), compute)  # what was altered is said already
        if now != fixed:  # a run that no lock kept out fixed them meanwhile
            fixed = now
            calibrated = calibrate(prepared, sample, folder, fixed, self.emit)
        for warning in engine_warnings(fixed, calibrated, compute.precision):
            self.emit(Warned(warning))
        return calibrated

    def _run_cells(self, planned: PlannedRun) -> tuple[list[str], list[str]]:
        """Run the cells that are not finished; return which failed, and which the time limit left out."""
        prepared, shared = planned.prepared, planned.shared
        store = prepared.opened.store
        finished = self._write_plan(planned)
        supply = self._batch_source(planned)
        shares = shared.shares()
        todo = {
            work.cell: CellTask(work.spec, work.networks, work.reads, shares)
            for work in prepared.works
            if work.cell not in finished
        }

        def record() -> None:
            times = {
                "scan": self._scan_seconds,
                "calibration": planned.calibrated.seconds,
                "cells": executor.seconds,
                "total": time.perf_counter() - self._started,
            }
            add_facts(store, shared, supply, planned.needed, executor.predicted, planned.calibrated.stages, times)

        seconds, executor = self.options.seconds, self._executor(planned, supply, todo)
        try:
            with executor:
                remaining = None if seconds is None else seconds - (time.perf_counter() - self._started)
                failed, left_out = Schedule(todo, shared, supply, executor, self.emit).run(remaining)
        except BaseException:  # the report counts what was found until then
            with contextlib.suppress(UserError):  # the disk is full, say, which is what ended it
                record()
            raise
        if todo:
            record()
        return failed, left_out

    def _write_plan(self, planned: PlannedRun) -> list[str]:
        """Write the study's record, tell what is planned, and return the cells that are finished."""
        prepared = planned.prepared
        store, cells = prepared.opened.store, prepared.cells
        plan = as_record(prepared.opened.plan, {name: cell.fingerprint for name, cell in cells.items()})
        plan |= shared_record(planned.shared, planned.calibrated.stages)
        write_record(prepared, planned.calibrated, plan, self.options.source_text)
        for name in store.set_aside_altered(plan["cells"]):
            self.emit(Warned(f"{name}: a file of this finished cell was altered or lost, so it runs again"))
        finished = [cell["cell"] for cell in plan["cells"] if store.is_finished(cell)]
        for name in finished:
            remove_state(store, name)  # of a run that was killed in between
        stale = finished_otherwise(store, cells)
        for warning in [*stale, *made_otherwise(store, finished, prepared.opened.compute)]:
            self.emit(Warned(warning))
        self.emit(check_of_run(self.study.name, prepared.catalog, prepared.findings, self.out / "check.html"))
        self.emit(Planned(tuple(cells), tuple(finished)))
        return finished

    def _batch_source(self, planned: PlannedRun) -> BatchSource:
        calibrated, shared = planned.calibrated, planned.shared
        return BatchSource(
            planned.prepared.catalog,
            calibrated.preprocessing,
            calibrated.prefixes,
            StoredWork(shared.rows(), shared.starts(), shared.pixel_bytes > 0),
            planned.folder,
            self.options.workers,
            self.emit,
        )

    def _executor(self, planned: PlannedRun, supply: BatchSource, tasks: Mapping[str, CellTask]) -> Executor:
        """Return what runs the cells: this process, or as many slots as there are groups to run, at most."""
        opened, parallel = planned.prepared.opened, min(self.options.parallel, len(groups_of(tasks)))
        if parallel <= 1:
            return SerialExecutor(tasks, supply, opened.plan.backbone, opened.store, opened.compute, self.emit)
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
    """Return how many processes prepare batches: one per core that this process may use but one, at most eight."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(8, cores - 1)
