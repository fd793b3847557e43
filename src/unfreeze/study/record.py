"""Write the record of a study: its settings, plan, images, splits and environment."""

import contextlib
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import pandas as pd
import torch

from unfreeze.activations import engines
from unfreeze.activations.batches import BatchSource
from unfreeze.activations.calibrate import engine_label
from unfreeze.activations.engine import Settings
from unfreeze.activations.keys import PrefixKey, label_of
from unfreeze.activations.prefix import Calibration
from unfreeze.config.identity import study_fingerprint, study_record
from unfreeze.config.schema import StudyConfig
from unfreeze.data.catalog import Catalog
from unfreeze.data.duplicates import ALIKE, NEAREST, RADIUS, SAME
from unfreeze.storage.array_store import ArrayStore
from unfreeze.storage.atomic import write_text
from unfreeze.storage.records import Altered, accepted, read_json, table_text, write_json
from unfreeze.storage.shards import Row
from unfreeze.storage.study_dir import StudyDir
from unfreeze.study.activation_plan import ActivationPlan, name_of
from unfreeze.study.calibrations import Calibrations
from unfreeze.study.cell import CellSpec
from unfreeze.study.prepare import PreparedStudy
from unfreeze.text import plural
from unfreeze.train.device import Compute, environment


def engine_warnings(fixed: Mapping[str, Settings], calibrated: Calibrations, precision: str) -> list[str]:
    """Return a warning for each engine that differs from the last run's, or from the study's precision."""
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
    """Return why an engine of the last run is not used any more."""
    edited = "pointwise" in settings  # until 0.1 OpenVINO's models were edited to take another kernel for some layers
    if edited or settings.get("name") not in engines.ENGINES:
        return "is no longer supported"
    reason = (found.refused or {}).get(engine_label(settings))
    return "is not available any more" if reason is None else f"cannot compute all of its frozen stages ({reason})"


def _labelled(calibrated: Calibrations) -> dict[str, Calibration]:
    return {label_of(key, calibrated.stages): found for key, found in calibrated.calibrations.items()}


def _engine_words(settings: Settings) -> str:
    threads = "1 thread" if settings.get("threads") == 1 else f"{settings.get('threads')} threads"
    kernels = f", {settings['pointwise']}" if "pointwise" in settings else ""
    return f"{settings.get('name')} {settings.get('version')} ({settings.get('precision')}, {threads}{kernels})"


def write_record(prepared: PreparedStudy, calibrated: Calibrations, plan: Mapping[str, Any], source_text: str) -> None:
    """Write the record of a study before its cells run.

    Args:
        prepared: the study.
        calibrated: has its engines.
        plan: the content of plan.json.
        source_text: the study file as given, kept as study.yaml.
    """
    opened, changed = prepared.opened, prepared.diff.changed
    store, last = opened.store, opened.last_record
    if source_text:
        write_text(store.path / "study.yaml", source_text)
    record = _study_record(opened.config, prepared.catalog, opened.compute, calibrated)
    record["notes"] += prepared.notes
    # A run that resumes after a crash sees no change: the list of the one before stays.
    record["changes"] = changed.as_record() if changed.words or "changes" not in last else last["changes"]
    tables = {
        "catalog.csv": table_text(prepared.catalog.images),
        "splits.csv": table_text(_splits(prepared.splits, prepared.cells.values())),
    }
    record["files"] = accepted(store.path, tables, last.get("files", {}))
    write_json(store.path / "study.json", record)
    write_json(store.path / "plan.json", plan)
    write_json(store.path / "environment.json", environment(opened.compute))
    for name, text in tables.items():
        write_text(store.path / name, text)


def _study_record(study: StudyConfig, catalog: Catalog, compute: Compute, calibrated: Calibrations) -> dict[str, Any]:
    """Return the resolved study in the form of study.json."""
    notes = [*catalog.guessed]
    if study.split.val == "test":
        notes.append(
            "Validation images are the test images: the same images choose and report, so scores are optimistic; "
            "split: {val: 0.15} takes others."
        )
    set_aside = int((catalog.images["status"] == "set_aside").sum())
    if set_aside:
        notes.append(f"Set aside: {plural(set_aside, 'image')}; catalog.csv gives the reason for each.")
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


def _splits(splits: Mapping[int | None, pd.Series], specs: Iterable[CellSpec]) -> pd.DataFrame:
    """Return splits.csv: one row per image (and fold) with its split, and its use by regime and seed."""
    tables = []
    by_fold: dict[int | None, dict[tuple[str, int], CellSpec]] = {}
    for spec in specs:
        by_fold.setdefault(spec.cell.fold, {})[spec.cell.regime, spec.cell.seed] = spec
    for fold, chosen in by_fold.items():
        split = splits[fold]
        table = pd.DataFrame({"id": split.index, "split": split.to_numpy(), "fold": fold})
        for (regime, seed), spec in chosen.items():
            use = dict.fromkeys(spec.selection.validation, "validation") | dict.fromkeys(spec.selection.train, "train")
            table[f"{regime}.s{seed}"] = table["id"].map(use).fillna("")
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def record_run_stats(
    store: StudyDir,
    shared: ActivationPlan,
    supply: BatchSource,
    needed: Mapping[ArrayStore, Collection[Row]],
    predicted: float,
    stages: Mapping[PrefixKey, Any],
    times: Mapping[str, float],
) -> None:
    """Add one run's measured cost of shared work, and the predicted one, to shared.json.

    Args:
        store: the study directory.
        shared: the plan.
        supply: counts what was computed.
        needed: rows of the plan, by entry of the cache.
        predicted: predicted seconds of the cells that ran, shared work included.
        stages: of each prefix.
        times: seconds of the parts of the run.
    """
    path = store.path / "shared.json"
    runs = []
    with contextlib.suppress(FileNotFoundError, Altered):  # what earlier runs took is for the report alone
        runs = read_json(path)["runs"]
    facts = supply.facts
    activations = [
        {"name": name_of(key, stages), "rows": facts.computed[key], "seconds": facts.seconds[key]}
        for key in facts.computed
    ]
    run = {
        "predicted_seconds": predicted,
        "seconds": dict(times),
        "pieces": activations,
        "forwards": sum(prefix.forwards for prefix in supply.prefixes.values()),
        "altered_chunks": facts.altered_chunks,
        "unstored": facts.unstored,
        "predicted_disk": shared.bytes,
        "disk": sum(one.bytes_of(rows) for one, rows in needed.items()),
    }
    runs = [*runs, run]
    write_json(path, {"forwards": sum(one["forwards"] for one in runs), "runs": runs})
