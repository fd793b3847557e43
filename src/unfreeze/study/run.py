"""Run what is missing of a study, cell by cell; a failing cell does not stop the others."""

import contextlib
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from unfreeze.activations.batches import BatchSource
from unfreeze.activations.engine import Settings
from unfreeze.config.schema import StudyConfig
from unfreeze.config.units import seconds_of
from unfreeze.data.catalog import Catalog
from unfreeze.data.quality import findings, refuse_losses, warnings_of
from unfreeze.data.sources import source_of
from unfreeze.data.sources.source import Source
from unfreeze.data.summary import layout, lines, split_notes
from unfreeze.errors import UserError
from unfreeze.events import Checked, Emit, Planned, Understood, Warned
from unfreeze.explain.explain import explain
from unfreeze.model.backbone import Backbone
from unfreeze.statistics.study_results import StudyResults, read_evidence
from unfreeze.storage.atomic import remove_leftovers
from unfreeze.storage.cache import in_use, looking, make_room, refuse_inside, tidy, usable_cache
from unfreeze.storage.locks import held, waiting
from unfreeze.storage.records import write_table
from unfreeze.storage.study_dir import StudyDir
from unfreeze.study.activation_plan import ActivationPlan
from unfreeze.study.activation_plan import as_record as shared_record
from unfreeze.study.disk import DiskEstimate, refuse, reserved, saying_what_is_needed, writes, writes_at_first
from unfreeze.study.environment import made_otherwise
from unfreeze.study.executors.processes import ProcessExecutor
from unfreeze.study.executors.worker import briefing
from unfreeze.study.images import draw_splits, look_at_data, make_jobs, refuse_lone_batches, since_last_run
from unfreeze.study.lockstep import CellTask, groups_of
from unfreeze.study.network_plan import BackboneKey, as_record, make_plan, weight_hashes
from unfreeze.study.prepare import (
    Calibrations,
    backbone_of,
    calibrate_study,
    needed_rows,
    share,
    share_less,
    share_on_disk,
    taken,
    works_of,
)
from unfreeze.study.record import (
    engine_warnings,
    engines_fixed,
    finished_otherwise,
    first_fixed,
    left_over,
    write_record,
)
from unfreeze.study.schedule import Executor, Schedule, SerialExecutor, add_facts
from unfreeze.train.checkpoint import remove_state
from unfreeze.train.device import pick


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
        UserError: anything in the study, its data or the directory that has to be mended first, too little room on its
            disk among it; another run has it.
        DiskFull: there was no room all the same.
    """
    if parallel < 1:
        raise UserError(f"parallel: {parallel}", "a number of processes from 1", "leave it out, or say 2 or more")
    _check_directory(study, out)
    left: list[Callable[[], DiskEstimate]] = []
    with held(out), saying_what_is_needed(out, left):
        return _run(study, out, emit, source_text, workers, seconds, parallel, left)


def _run(
    study: StudyConfig,
    out: Path,
    emit: Emit,
    source_text: str,
    workers: int | None,
    seconds: float | None,
    parallel: int,
    left: list[Callable[[], DiskEstimate]],
) -> Outcome:
    started = time.perf_counter()
    if seconds is None and study.budget.time is not None:
        seconds = seconds_of(study.budget.time)
    store = StudyDir(out)
    compute = pick(study.device, study.precision)
    remove_leftovers(out)
    before = first_fixed(store, emit)
    if "threads" in before:
        torch.set_num_threads(int(before["threads"]))  # as fixed by the first run: sums depend on it
    source = _understood(study, emit)
    backbones: dict[BackboneKey, Backbone] = {}
    plan = make_plan(study, len(source.classes), backbones)
    cache = usable_cache(lambda text: emit(Warned(text)))
    if cache:
        remove_leftovers(cache)
        tidy(cache)
    left.append(lambda: writes_at_first(store, plan, len(source.items)))
    refuse(out, expected := left[-1]())
    scanned = time.perf_counter()
    reserve = reserved(cache, out, expected) if cache else 0
    with _one_looker(source, cache, emit):
        catalog = look_at_data(study, source, plan, backbones, cache, emit, reserve)
    scanned = time.perf_counter() - scanned
    refuse_losses(catalog, study.check.max_set_aside)
    since = since_last_run(store, before, study, catalog, " (listed in study.json)")
    catalog = since.catalog
    told = [
        *catalog.guessed,
        *warnings_of(catalog, study.split.folds is not None, study.split, since.drawn.get(None)),
        *split_notes(catalog, study.split, since.drawn.get(None)),
        *since.warnings,
        *left_over(store, [cell.id for cell in plan.cells]),
    ]
    for warning in told:
        emit(Warned(warning))
    splits = draw_splits(study, catalog, plan, since.drawn)
    jobs = make_jobs(study, catalog, plan, splits, weight_hashes(backbones), compute)
    for warning in dict.fromkeys(warning for job in jobs.values() for warning in job.selection.warnings):
        emit(Warned(warning))
    refuse_lone_batches(jobs, backbones)
    sample = next(iter(jobs.values())).selection.train
    folder = cache or out  # then it holds calibrations alone, since the budget is 0
    fixed = engines_fixed(before, compute)
    works = works_of(jobs, plan)
    left.append(lambda: writes(store, plan, len(source.items), jobs, works, parallel))
    refuse(out, expected := left[-1]())

    def calibrate(fixed: Mapping[str, Settings]) -> Calibrations:
        return calibrate_study(study, plan, works, backbones, catalog, sample, compute, folder, fixed, emit)

    calibrated = calibrate(fixed)
    if engines_fixed(first_fixed(store, emit), compute) != fixed:  # a run that no lock kept out fixed them meanwhile
        fixed = engines_fixed(first_fixed(store, emit), compute)
        calibrated = calibrate(fixed)
    for warning in engine_warnings(fixed, calibrated, compute.precision):
        emit(Warned(warning))
    if cache:
        reserve = reserved(cache, out, expected)
        shared, budget, warnings = share_on_disk(study, works, calibrated, catalog, cache, reserve)
        for warning in warnings:
            emit(Warned(warning))
    else:
        shared = share(study, works, calibrated, catalog, folder, 0)
    needed = needed_rows(shared, calibrated, catalog, folder)
    with in_use(needed if cache else []) as marks:
        if cache:
            keep = {one.folder: rows for one, rows in needed.items()}
            allowed = make_room(cache, shared.bytes_missing, budget, keep, marks)
            if allowed < shared.bytes_missing:  # another study has begun meanwhile, or something cannot be deleted
                fits = share_less(study, works, calibrated, catalog, cache, shared, allowed)
                emit(Warned(taken(study, shared, fits)))
                shared, needed = fits, needed_rows(fits, calibrated, catalog, cache)
        supply = _supply(catalog, calibrated, shared, folder, workers, emit)
        record = as_record(plan, {name: job.fingerprint for name, job in jobs.items()})
        record |= shared_record(shared, calibrated.stages)
        write_record(store, study, catalog, splits, since, told, before, record, jobs, compute, calibrated, source_text)
        for name in store.set_aside_altered(record["cells"]):
            emit(Warned(f"{name}: a file of this finished cell was altered or lost, so it runs again"))
        finished = [cell["cell"] for cell in record["cells"] if store.is_finished(cell)]
        for name in finished:
            remove_state(store, name)  # of a run that was killed in between
        for warning in [*finished_otherwise(store, jobs), *made_otherwise(store, finished, compute)]:
            emit(Warned(warning))
        folds, earlier = study.split.folds is not None, since.drawn.get(None)
        found = findings(catalog, study.image_size, folds, study.split, earlier)
        emit(Checked(catalog, tuple(found), out / "check.html"))
        emit(Planned(tuple(jobs), tuple(finished)))
        unfinished = [work for work in works if work.cell not in finished]
        shares = shared.shares()
        todo = {work.cell: CellTask(jobs[work.cell], work.networks, work.needs, shares) for work in unfinished}
        parallel = min(parallel, len(groups_of(todo)))
        several: contextlib.AbstractContextManager[Executor]
        if parallel > 1:
            known = briefing(study, out, catalog, jobs, calibrated, shared, folder, -(-supply.workers // parallel))
            several = ProcessExecutor(parallel, known, supply, store, emit)
        else:
            several = contextlib.nullcontext(
                SerialExecutor(
                    supply, lambda strategy, seed: backbone_of(strategy, backbones, seed), store, compute, emit
                )
            )

        def tell() -> None:
            times = {
                "scan": scanned,
                "calibration": calibrated.seconds,
                "cells": hands.spent,
                "total": time.perf_counter() - started,
            }
            add_facts(store, shared, supply, needed, hands.predicted, calibrated.stages, times)

        try:
            with several as hands:
                remaining = None if seconds is None else seconds - (time.perf_counter() - started)
                failed, left_out = Schedule(todo, shared, supply, hands, emit).all(remaining)
        except BaseException:  # the report counts what was found until then
            with contextlib.suppress(UserError):  # the disk is full, say, which is what ended it
                tell()
            raise
        if unfinished:
            tell()
        with contextlib.suppress(OSError):  # not there, or with the states of cells that failed or were left out
            store.running.rmdir()
    evidence = read_evidence(store)
    write_table(out / "results.csv", evidence.results)
    write_table(out / "comparisons.csv", evidence.comparisons)
    explain(store, evidence.cell, catalog, compute, emit)
    understood = layout(source, study.split, catalog)
    return Outcome(tuple(name for name in jobs if name in failed), tuple(left_out), evidence, understood)


def _understood(study: StudyConfig, emit: Emit) -> Source:
    """Open a study's data, and tell how it was understood before any of it is read."""
    source = source_of(study, Path.cwd())
    emit(Understood(lines(study.data, source, study.split, study.tests), layout(source, study.split)))
    return source


def _one_looker(source: Source, cache: Path | None, emit: Emit) -> contextlib.AbstractContextManager[None]:
    """Wait for another process that looks at the same images: it remembers what it sees."""
    if cache is None:
        return contextlib.nullcontext()
    return looking(cache, source.roots.values(), waiting(emit, "looks at the same images"))


def _supply(
    catalog: Catalog, calibrated: Calibrations, shared: ActivationPlan, cache: Path, workers: int | None, emit: Emit
) -> BatchSource:
    return BatchSource(
        catalog,
        calibrated.preprocessing,
        calibrated.prefixes,
        shared.rows(),
        shared.starts(),
        shared.pixel_bytes > 0,
        cache,
        default_workers() if workers is None else workers,
        emit,
    )


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
