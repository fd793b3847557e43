"""Run what is missing of a study, cell by cell; a failing cell does not stop the others."""

import os
import platform
import time
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from unfreeze.config.fingerprint import fingerprint, plain
from unfreeze.config.study import StudyConfig
from unfreeze.config.units import seconds_of
from unfreeze.data.catalog import Catalog, build_catalog
from unfreeze.data.regimes import Selection, select
from unfreeze.data.sources import open_source
from unfreeze.data.splits import draw_split
from unfreeze.errors import UserError
from unfreeze.model.backbone import load_backbone
from unfreeze.results.tables import results_table
from unfreeze.results.words import plural
from unfreeze.store import StudyDir, write_json, write_table, write_text
from unfreeze.study.budget import Pace, work
from unfreeze.study.cell import Job, run_cell, weights_key
from unfreeze.study.events import CellFailed, CellsLeft, Emit, Planned, Scanning, Warned
from unfreeze.study.plan import Plan, all_problems, as_record, make_plan
from unfreeze.train.device import Compute, pick


@dataclass(frozen=True)
class Outcome:
    """How a run ended: the cells that failed, and those that the time limit left out."""

    failed: tuple[str, ...]
    left: tuple[str, ...]


def run_study(
    study: StudyConfig,
    out: Path,
    emit: Emit,
    source_text: str = "",
    workers: int | None = None,
    seconds: float | None = None,
) -> Outcome:
    """Run the cells of a study that are not finished, and write its tables.

    Args:
        study: what to run.
        out: the study directory; made if it is not there.
        emit: is told what happens.
        source_text: the study file as given, kept as study.yaml.
        workers: processes that prepare batches (see ``default_workers``); no number depends on it.
        seconds: run only the cells that fit into this time, the most telling first; by default ``budget.time``.

    Raises:
        UserError: anything in the study, its data or the directory that has to be mended first.
    """
    started = time.perf_counter()
    if seconds is None and study.budget.time is not None:
        seconds = seconds_of(study.budget.time)
    store = StudyDir(out)
    compute = pick(study.device, study.precision)
    _check_directory(study, out)
    catalog = look_at_data(study, emit)
    plan = make_plan(study, len(catalog.classes))
    jobs = make_jobs(study, catalog, plan, load_all_weights(plan), compute)
    for warning in dict.fromkeys(warning for job in jobs.values() for warning in job.selection.warnings):
        emit(Warned(warning))
    record = as_record(plan, {name: job.fingerprint for name, job in jobs.items()})
    _write_study(store, study, catalog, record, jobs, compute, source_text)
    finished = [cell["cell"] for cell in record["cells"] if store.is_finished(cell)]
    stale = [cell["cell"] for cell in record["cells"] if store.is_stale(cell)]
    if stale:
        emit(Warned(f"finished with other settings or images, so not part of this study now: {', '.join(stale)}"))
    emit(Planned(tuple(jobs), tuple(finished)))
    waiting = {name: job for name, job in jobs.items() if name not in finished}
    failed, left = _run_cells(waiting, plan, store, compute, emit, workers, seconds, started)
    write_table(out / "results.csv", results_table(store))
    return Outcome(tuple(failed), tuple(left))


def _check_directory(study: StudyConfig, out: Path) -> None:
    """Refuse a study directory that is a file, or lies inside the images' folder: there it would be a class."""
    if out.exists() and not out.is_dir():
        raise UserError(
            f"--out {out} is a file", "a directory, or a path where one can be made", "give another --out DIR"
        )
    for folder in (Path(folder) for folder in (study.data, *study.tests.values()) if Path(folder).is_dir()):
        if out.resolve().is_relative_to(folder.resolve()):
            raise UserError(
                f"the study directory {out} lies in the images' folder {folder}",
                "a directory outside of it, since nothing is ever written there",
                "give another with --out DIR",
            )


def look_at_data(study: StudyConfig, emit: Emit) -> Catalog:
    """Read and decode every image of a study's data."""
    source = open_source(study.data, study.tests, Path.cwd())
    return build_catalog(source, study.split.group, lambda done, total: emit(Scanning(done, total)))


def load_all_weights(plan: Plan) -> dict[tuple[str, str], str]:
    """Load each backbone's initial weights once, before anything runs, and return their sha256 by what names them.

    Raises:
        UserError: names every strategy whose weights are not to be had or do not fit.
    """
    found: dict[tuple[str, str], str] = {}
    problems: dict[str, UserError] = {}
    for name, networks in plan.candidates.items():
        for network in networks.values():
            backbone, key = network.strategy.backbone, weights_key(network.strategy)
            try:
                if key not in found:
                    loaded = load_backbone(backbone.name, backbone.weights, network.strategy.image_size, seed=0)
                    found[key] = loaded.weights.sha256
            except UserError as error:
                problems[name] = error
    if problems:
        raise all_problems("strategies", problems)
    return found


def make_jobs(
    study: StudyConfig, catalog: Catalog, plan: Plan, weights: Mapping[tuple[str, str], str], compute: Compute
) -> dict[str, Job]:
    """Give each cell its images.

    Raises:
        UserError: names every regime that the data cannot give.
    """
    splits = {fold: draw_split(catalog, study.split, fold) for fold in dict.fromkeys(cell.fold for cell in plan.cells)}
    jobs, problems = dict[str, Job](), dict[str, UserError]()
    chosen: dict[tuple[str, int, int | None], Selection] = {}
    for cell in plan.cells:
        key = (cell.regime, cell.seed, cell.fold)
        try:
            if key not in chosen:
                regime = study.regimes[cell.regime]
                chosen[key] = select(catalog, splits[cell.fold], regime, cell.seed, study.split.val == "test")
            jobs[cell.id] = Job(cell, study, catalog, chosen[key], weights, compute.device.type)
        except UserError as error:
            problems[cell.regime] = error
    if problems:
        raise all_problems("regimes", problems)
    return jobs


def _run_cells(
    jobs: dict[str, Job],
    plan: Plan,
    store: StudyDir,
    compute: Compute,
    emit: Emit,
    workers: int | None,
    seconds: float | None,
    started: float,
) -> tuple[list[str], list[str]]:
    """Run cells in plan order, or under a time limit the most telling first: a whole grid before the next seed."""
    works = {name: work(job, plan.candidates[job.cell.strategy]) for name, job in jobs.items()}
    order = list(jobs)
    if seconds is not None:
        order.sort(key=lambda name: (jobs[name].cell.seed, jobs[name].cell.fold or 0, works[name]))
    pace, failed, left = Pace(), list[str](), list[str]()
    count = default_workers() if workers is None else workers
    for name in order:
        job, before = jobs[name], time.perf_counter()
        if seconds is not None and before - started + pace.seconds(job.cell.strategy, works[name]) > seconds:
            left.append(name)
            continue
        try:
            run_cell(job, store, compute, count, emit)
            pace.measured(job.cell.strategy, works[name], time.perf_counter() - before)
        except BrokenPipeError:  # whoever was told went away: not the cell's failure
            raise
        except UserError as error:
            failed.append(name)
            _record_failure(store, name, str(error), emit)
        except Exception as error:  # whatever it is, it is recorded and shown, and the other cells go on
            failed.append(name)
            _record_failure(store, name, f"{type(error).__name__}: {error}", emit, traceback.format_exc())
    if left:
        emit(CellsLeft(tuple(left)))
    return failed, left


def default_workers() -> int:
    """Return how many processes prepare batches: one per core that this process may use but one, at most eight."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(8, cores - 1)


def _record_failure(store: StudyDir, cell: str, error: str, emit: Emit, trace: str = "") -> None:
    write_json(store.cell(cell) / "error.json", {"error": error, "traceback": trace})
    emit(CellFailed(cell, error))


def _write_study(
    store: StudyDir,
    study: StudyConfig,
    catalog: Catalog,
    plan: Mapping[str, Any],
    jobs: dict[str, Job],
    compute: Compute,
    source_text: str,
) -> None:
    if source_text:
        write_text(store.path / "study.yaml", source_text)
    write_json(store.path / "study.json", study_record(study, catalog, compute))
    write_json(store.path / "plan.json", plan)
    write_json(store.path / "environment.json", environment(compute))
    write_table(store.path / "catalog.csv", catalog.images)
    write_table(store.path / "splits.csv", _splits(study, catalog, jobs.values()))


def study_record(study: StudyConfig, catalog: Catalog, compute: Compute) -> dict[str, Any]:
    """Return the resolved study as study.json holds it."""
    notes = []
    if study.split.val == "test":
        notes.append(
            "Validation images are the test images: what stopped and chose also reports, so scores are optimistic."
        )
    set_aside = int((catalog.images["status"] == "set_aside").sum())
    if set_aside:
        notes.append(f"Could not be decoded and set aside: {plural(set_aside, 'image')}; catalog.csv says why.")
    return {
        "name": study.name,
        "metric": study.metric,
        "data": study.data,
        "study": plain(study),
        "fingerprint": fingerprint(study),
        "classes": list(catalog.classes),
        "device": str(compute.device),
        "dtype": compute.precision,
        "threads": torch.get_num_threads(),
        "notes": notes,
    }


def environment(compute: Compute) -> dict[str, Any]:
    """Return what the numbers were computed with."""
    packages = ("torch", "torchvision", "timm", "pillow", "numpy", "unfreeze")
    return {
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in packages},
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if compute.device.type == "cuda" else str(compute.device),
        "platform": platform.platform(),
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _splits(study: StudyConfig, catalog: Catalog, jobs: Iterable[Job]) -> pd.DataFrame:
    """Return a row an image (and fold): its split, and per regime and seed what it is used for."""
    tables = []
    by_fold: dict[int | None, dict[tuple[str, int], Job]] = {}
    for job in jobs:
        by_fold.setdefault(job.cell.fold, {})[job.cell.regime, job.cell.seed] = job
    for fold, chosen in by_fold.items():
        split = draw_split(catalog, study.split, fold)
        table = pd.DataFrame({"id": split.index, "split": split.to_numpy(), "fold": fold})
        for (regime, seed), job in chosen.items():
            use = dict.fromkeys(job.selection.validation, "validation") | dict.fromkeys(job.selection.train, "train")
            table[f"{regime}.s{seed}"] = table["id"].map(use).fillna("")
        tables.append(table)
    return pd.concat(tables, ignore_index=True)
