"""The record of a study in its directory: written by a run, and what of it binds the next one."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd
import torch

from unfreeze.config.identity import study_fingerprint, study_record
from unfreeze.config.study import StudyConfig
from unfreeze.data.catalog import Catalog
from unfreeze.data.duplicates import ALIKE, SAME
from unfreeze.data.pairing import NEAREST, RADIUS
from unfreeze.durable import write_text
from unfreeze.results.words import plural
from unfreeze.reuse import engines
from unfreeze.reuse.calibrate import engine_label
from unfreeze.reuse.engines.kind import Settings
from unfreeze.reuse.prefix import Calibration
from unfreeze.store import Altered, StudyDir, accepted, read_json, table_text, write_json
from unfreeze.study.cell import Job
from unfreeze.study.environment import environment
from unfreeze.study.events import Emit, Warned
from unfreeze.study.forecast import Calibrated
from unfreeze.study.images import Since
from unfreeze.study.needs import label_of
from unfreeze.train.device import Compute


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


def engine_warnings(fixed: Mapping[str, Settings], calibrated: Calibrated, precision: str) -> list[str]:
    """Say which frozen stages run otherwise than before, or than was asked for."""
    labelled = _labelled(calibrated)
    refused = [
        f"{label}: frozen stages run in {found.engine['precision']}, since {precision} is not near enough "
        f"({'; '.join(dict.fromkeys((found.refused or {}).values()))}); precision: float32 is the same for all"
        for label, found in labelled.items()
        if found.engine["precision"] != precision
    ]
    return refused + [
        f"{label}: this study used {_engine_words(fixed[label])}, which {_why_not(fixed[label], found)}; using "
        f"{_engine_words(found.engine)} from now on. Finished cells keep their numbers, activations are computed again "
        "for the others, whose numbers may differ in the last digits; another --out computes all cells with one engine"
        for label, found in labelled.items()
        if label in fixed and dict(fixed[label]) != dict(found.engine)
    ]


def _why_not(settings: Settings, found: Calibration) -> str:
    """Say why an engine that a study used is not used any more."""
    edited = "pointwise" in settings  # until 0.1 OpenVINO's models were edited to take another kernel for some layers
    if edited or settings.get("name") not in engines.ENGINES:
        return "is no longer supported"
    reason = (found.refused or {}).get(engine_label(settings))
    return "is not available any more" if reason is None else f"cannot compute all of its frozen stages ({reason})"


def _labelled(calibrated: Calibrated) -> dict[str, Calibration]:
    return {label_of(key, calibrated.stages): found for key, found in calibrated.calibrations.items()}


def _engine_words(settings: Settings) -> str:
    threads = "1 thread" if settings.get("threads") == 1 else f"{settings.get('threads')} threads"
    kernels = f", {settings['pointwise']}" if "pointwise" in settings else ""
    return f"{settings.get('name')} {settings.get('version')} ({settings.get('precision')}, {threads}{kernels})"


def write_record(
    store: StudyDir,
    study: StudyConfig,
    catalog: Catalog,
    splits: Mapping[int | None, pd.Series],
    since: Since,
    told: Sequence[str],
    before: Mapping[str, Any],
    plan: Mapping[str, Any],
    jobs: Mapping[str, Job],
    compute: Compute,
    calibrated: Calibrated,
    source_text: str,
) -> None:
    """Write what a study is and does before its cells run: settings, plan, images, splits, environment.

    Args:
        store: the study directory.
        study: as asked for.
        catalog, splits: its images, and the split of each by fold.
        since: what changed in them.
        told: warnings about them.
        before: see ``first_fixed``.
        plan: plan.json's content.
        jobs: the cells, by id.
        compute, calibrated: device, precision and engines.
        source_text: the study file as given, kept as study.yaml.
    """
    if source_text:
        write_text(store.path / "study.yaml", source_text)
    record = _study_record(study, catalog, compute, calibrated)
    record["notes"] += told
    # A run that goes on after a crash sees no change: the list of the one before stays.
    record["changes"] = (
        since.changed.as_record() if since.changed.words or "changes" not in before else before["changes"]
    )
    tables = {
        "catalog.csv": table_text(catalog.images),
        "splits.csv": table_text(_splits(splits, jobs.values())),
    }
    record["files"] = accepted(store.path, tables, before.get("files", {}))
    write_json(store.path / "study.json", record)
    write_json(store.path / "plan.json", plan)
    write_json(store.path / "environment.json", environment(compute))
    for name, text in tables.items():
        write_text(store.path / name, text)


def _study_record(study: StudyConfig, catalog: Catalog, compute: Compute, calibrated: Calibrated) -> dict[str, Any]:
    """Return the resolved study as study.json holds it."""
    notes = [*catalog.guessed]
    if study.split.val == "test":
        notes.append(
            "Validation images are the test images: what stopped and chose also reports, so scores are optimistic; "
            "split: {val: 0.15} takes others."
        )
    set_aside = int((catalog.images["status"] == "set_aside").sum())
    if set_aside:
        notes.append(f"Set aside: {plural(set_aside, 'image')}; catalog.csv says why, and check: what is.")
    return {
        "name": study.name,
        "metric": study.metric,
        "metric_given": "metric" in study.model_fields_set,
        "data": study.data,
        "study": study_record(study),
        "fingerprint": study_fingerprint(study),
        "classes": list(catalog.classes),
        "reading": {"bands": list(catalog.reading.bands), "bits": catalog.reading.bits},
        "copies": {"likeness": ALIKE, "one_picture": SAME, "bits": RADIUS, "nearest": NEAREST},
        "device": str(compute.device),
        "dtype": compute.precision,
        "threads": torch.get_num_threads(),
        "engines": {label: found.as_record() for label, found in _labelled(calibrated).items()},
        "notes": notes,
    }


def _splits(splits: Mapping[int | None, pd.Series], jobs: Iterable[Job]) -> pd.DataFrame:
    """Return a row an image (and fold): its split, and per regime and seed what it is used for."""
    tables = []
    by_fold: dict[int | None, dict[tuple[str, int], Job]] = {}
    for job in jobs:
        by_fold.setdefault(job.cell.fold, {})[job.cell.regime, job.cell.seed] = job
    for fold, chosen in by_fold.items():
        split = splits[fold]
        table = pd.DataFrame({"id": split.index, "split": split.to_numpy(), "fold": fold})
        for (regime, seed), job in chosen.items():
            use = dict.fromkeys(job.selection.validation, "validation") | dict.fromkeys(job.selection.train, "train")
            table[f"{regime}.s{seed}"] = table["id"].map(use).fillna("")
        tables.append(table)
    return pd.concat(tables, ignore_index=True)
