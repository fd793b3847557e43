"""Run what is missing of a study, cell by cell; a failing cell does not stop the others."""

import contextlib
import os
import platform
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image

from unfreeze.config.fingerprint import fingerprint, plain
from unfreeze.config.study import StudyConfig
from unfreeze.config.units import seconds_of
from unfreeze.data.cache import in_use, make_room, used_bytes
from unfreeze.data.catalog import Catalog, build_catalog
from unfreeze.data.pixels import base_picture, pixel_store
from unfreeze.data.regimes import Selection, select
from unfreeze.data.sources import Source, cache_folder, open_source
from unfreeze.data.splits import draw_split
from unfreeze.errors import UserError
from unfreeze.model.backbone import Backbone, load_backbone
from unfreeze.results.tables import results_table
from unfreeze.results.words import plural
from unfreeze.reuse.engines import Settings
from unfreeze.store import StudyDir, read_json, write_json, write_table, write_text
from unfreeze.study.cell import Job
from unfreeze.study.cells import CellsRun, add_facts
from unfreeze.study.events import Emit, Planned, Scanning, Warned
from unfreeze.study.forecast import (
    BackboneKey,
    Calibrated,
    backbone_of,
    bases_of,
    calibrate_study,
    disk_budget,
    preprocessings,
    share,
    works_of,
)
from unfreeze.study.group import GroupJob
from unfreeze.study.measure import processor
from unfreeze.study.plan import Plan, all_problems, as_record, make_plan
from unfreeze.study.shared import Shared
from unfreeze.study.shared import as_record as shared_record
from unfreeze.study.supply import Supply
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
    before = _before(store)
    if "threads" in before:
        torch.set_num_threads(int(before["threads"]))  # as fixed by the first run: sums depend on it
    source = open_source(study.data, study.tests, Path.cwd())
    plan = make_plan(study, len(source.classes))
    backbones, weights = load_all_weights(plan)
    cache = usable_cache(emit)
    scanned = time.perf_counter()
    catalog = look_at_data(study, source, plan, backbones, cache, emit)
    scanned = time.perf_counter() - scanned
    jobs = make_jobs(study, catalog, plan, weights, compute)
    for warning in dict.fromkeys(warning for job in jobs.values() for warning in job.selection.warnings):
        emit(Warned(warning))
    sample = next(iter(jobs.values())).selection.train
    folder = cache or out  # then it holds calibrations alone, since the budget is 0
    fixed = {label: found["engine"] for label, found in before.get("engines", {}).items()}
    works = works_of(jobs, plan)
    calibrated = calibrate_study(study, plan, works, backbones, catalog, sample, compute, folder, fixed, emit)
    for warning in _engine_warnings(fixed, calibrated):
        emit(Warned(warning))
    budget = disk_budget(study, cache) if cache else 0
    shared = share(study, works, calibrated, catalog, folder, budget)
    supply = _supply(catalog, calibrated, shared, folder, workers, emit)
    with in_use(supply.stores() if cache else []):
        if cache:
            needed = shared.bytes_missing
            allowed = make_room(cache, needed, budget, supply.stores())
            if allowed < needed:  # others are in use
                shared = share(study, works, calibrated, catalog, folder, shared.bytes - needed + allowed)
                supply = _supply(catalog, calibrated, shared, folder, workers, emit)
        record = as_record(plan, {name: job.fingerprint for name, job in jobs.items()})
        record |= shared_record(shared, calibrated.stages)
        _write_study(store, study, catalog, record, jobs, compute, calibrated, source_text)
        finished = [cell["cell"] for cell in record["cells"] if store.is_finished(cell)]
        stale = [cell["cell"] for cell in record["cells"] if store.is_stale(cell)]
        if stale:
            emit(Warned(f"finished with other settings or images, so not part of this study now: {', '.join(stale)}"))
        emit(Planned(tuple(jobs), tuple(finished)))
        waiting = [work for work in works if work.cell not in finished]
        shares = shared.shares()
        run = CellsRun(
            {work.cell: GroupJob(jobs[work.cell], work.networks, work.needs, shares) for work in waiting},
            shared,
            supply,
            lambda strategy, seed: backbone_of(strategy, backbones, seed),
            store,
            compute,
            emit,
        )
        failed, left = run.all(None if seconds is None else seconds - (time.perf_counter() - started))
    if waiting:
        times = {"scan": scanned, "calibration": calibrated.seconds, "total": time.perf_counter() - started}
        add_facts(store, shared, supply, run.predicted, calibrated.stages, times)
    write_table(out / "results.csv", results_table(store))
    return Outcome(tuple(failed), tuple(left))


def _before(store: StudyDir) -> dict[str, Any]:
    """Return what the first run fixed."""
    path = store.path / "study.json"
    return read_json(path) if path.is_file() else {}


def usable_cache(emit: Emit) -> Path | None:
    """Return the folder of the cache, or None and a warning if nothing can be written there."""
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        emit(
            Warned(
                f"the cache {folder} cannot be written to ({error.strerror or error}), so nothing is stored and frozen "
                "stages run live; name another folder in UNFREEZE_CACHE"
            )
        )
        return None


def _engine_warnings(fixed: Mapping[str, Settings], calibrated: Calibrated) -> list[str]:
    return [
        f"{key.label}: the study used {_engine_words(fixed[key.label])}, which is not there any more; frozen stages "
        f"now run on {_engine_words(found.engine)}, and new cells may differ in the last digits"
        for key, found in calibrated.calibrations.items()
        if key.label in fixed and dict(fixed[key.label]) != dict(found.engine)
    ]


def _engine_words(settings: Settings) -> str:
    threads = "1 thread" if settings.get("threads") == 1 else f"{settings.get('threads')} threads"
    return f"{settings.get('name')} {settings.get('version')} ({settings.get('precision')}, {threads})"


def _supply(
    catalog: Catalog, calibrated: Calibrated, shared: Shared, cache: Path, workers: int | None, emit: Emit
) -> Supply:
    return Supply(
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
    for folder in (Path(folder) for folder in (study.data, *study.tests.values()) if Path(folder).is_dir()):
        if out.resolve().is_relative_to(folder.resolve()):
            raise UserError(
                f"the study directory {out} lies in the images' folder {folder}",
                "a directory outside of it, since nothing is ever written there",
                "give another with --out DIR",
            )


def look_at_data(
    study: StudyConfig,
    source: Source,
    plan: Plan,
    backbones: Mapping[BackboneKey, Backbone],
    cache: Path | None,
    emit: Emit,
) -> Catalog:
    """Read and decode every image of a study's data that is not known yet, keeping its base pictures on the way."""

    def progress(done: int, total: int) -> None:
        emit(Scanning(done, total))

    if cache is None:
        return build_catalog(source, study.split.group, progress)
    room = disk_budget(study, cache) - used_bytes(cache)
    with contextlib.ExitStack() as stack:
        stores = [(base, pixel_store(cache, base)) for base in bases_of(preprocessings(plan, backbones))]
        stack.enter_context(in_use([store for _, store in stores]))
        keepers = [(base, stack.enter_context(store.writer()), store.held()) for base, store in stores]

        def prepare(picture: Image.Image) -> list[np.ndarray]:
            return [np.asarray(base_picture(picture, base)) for base, _, _ in keepers]

        def keep(sha256: str, pictures: list[np.ndarray]) -> None:
            nonlocal room
            for (_, writer, held), pixels in zip(keepers, pictures, strict=True):
                if pixels.nbytes <= room and (sha256, 0) not in held:
                    writer.add((sha256, 0), pixels)
                    room -= pixels.nbytes

        return build_catalog(
            source, study.split.group, progress, looks=cache / "looks", on_picture=keep, prepare=prepare
        )


def load_all_weights(plan: Plan) -> tuple[dict[BackboneKey, Backbone], dict[tuple[str, str], str]]:
    """Load each backbone's initial weights once, before anything runs.

    Returns:
        The backbones, and the sha256 of their weights by what names these.

    Raises:
        UserError: names every strategy whose weights are not to be had or do not fit.
    """
    loaded: dict[BackboneKey, Backbone] = {}
    problems: dict[str, UserError] = {}
    for name, networks in plan.candidates.items():
        for network in networks.values():
            backbone, size = network.strategy.backbone, network.strategy.image_size
            key = backbone.name, backbone.weights, size
            try:
                if key not in loaded:
                    loaded[key] = load_backbone(backbone.name, backbone.weights, size, seed=0)
            except UserError as error:
                problems[name] = error
    if problems:
        raise all_problems("strategies", problems)
    return loaded, {(name, weights): backbone.weights.sha256 for (name, weights, _), backbone in loaded.items()}


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


def default_workers() -> int:
    """Return how many processes prepare batches: one per core that this process may use but one, at most eight."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(8, cores - 1)


def _write_study(
    store: StudyDir,
    study: StudyConfig,
    catalog: Catalog,
    plan: Mapping[str, Any],
    jobs: dict[str, Job],
    compute: Compute,
    calibrated: Calibrated,
    source_text: str,
) -> None:
    if source_text:
        write_text(store.path / "study.yaml", source_text)
    write_json(store.path / "study.json", study_record(study, catalog, compute, calibrated))
    write_json(store.path / "plan.json", plan)
    write_json(store.path / "environment.json", environment(compute))
    write_table(store.path / "catalog.csv", catalog.images)
    write_table(store.path / "splits.csv", _splits(study, catalog, jobs.values()))


def study_record(study: StudyConfig, catalog: Catalog, compute: Compute, calibrated: Calibrated) -> dict[str, Any]:
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
        "engines": {key.label: plain(found) for key, found in calibrated.calibrations.items()},
        "notes": notes,
    }


def environment(compute: Compute) -> dict[str, Any]:
    """Return what the numbers were computed with."""
    packages = ("torch", "ncnn", "openvino", "torchvision", "timm", "pillow", "numpy", "unfreeze")
    return {
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in packages},
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if compute.device.type == "cuda" else str(compute.device),
        "platform": platform.platform(),
    }


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
