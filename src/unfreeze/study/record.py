"""The record of a study in its directory: written by a run, and what of it binds the next one."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pandas as pd
import torch

from unfreeze.activations import engines
from unfreeze.activations.calibrate import engine_label
from unfreeze.activations.engine import Settings
from unfreeze.activations.keys import label_of
from unfreeze.activations.prefix import Calibration
from unfreeze.config.identity import regime_record, strategy_record, study_fingerprint, study_record
from unfreeze.config.schema import StudyConfig
from unfreeze.data.catalog import Catalog
from unfreeze.data.duplicates import ALIKE, NEAREST, RADIUS, SAME
from unfreeze.events import Emit, Warned
from unfreeze.storage.atomic import TEMPORARY, write_text
from unfreeze.storage.records import Altered, accepted, read_json, table_text, write_json
from unfreeze.storage.study_dir import StudyDir
from unfreeze.study.cell import CellSpec, weights_key
from unfreeze.study.environment import environment
from unfreeze.study.images import DatasetDiff
from unfreeze.study.prepare import Calibrations
from unfreeze.text import plural
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


def engine_warnings(fixed: Mapping[str, Settings], calibrated: Calibrations, precision: str) -> list[str]:
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


def _labelled(calibrated: Calibrations) -> dict[str, Calibration]:
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
    since: DatasetDiff,
    told: Sequence[str],
    before: Mapping[str, Any],
    plan: Mapping[str, Any],
    jobs: Mapping[str, CellSpec],
    compute: Compute,
    calibrated: Calibrations,
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


def _study_record(study: StudyConfig, catalog: Catalog, compute: Compute, calibrated: Calibrations) -> dict[str, Any]:
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


def _splits(splits: Mapping[int | None, pd.Series], jobs: Iterable[CellSpec]) -> pd.DataFrame:
    """Return a row an image (and fold): its split, and per regime and seed what it is used for."""
    tables = []
    by_fold: dict[int | None, dict[tuple[str, int], CellSpec]] = {}
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


SHOWN = 3
"""Differences that a warning spells out."""


def finished_otherwise(store: StudyDir, jobs: Mapping[str, CellSpec]) -> list[str]:
    """Return a sentence for each set of differences that finished cells have from what is planned now: what, which.

    Args:
        store: the study directory.
        jobs: the cells as planned, by id.
    """
    cells: dict[str, list[str]] = {}
    for name, job in jobs.items():
        if store.is_stale({"cell": name, "fingerprint": job.fingerprint}):
            cells.setdefault(_differences(store, name, job), []).append(name)
    return [
        f"finished with other settings or images ({differing}), so not part of this study now (another --out keeps "
        f"both): {', '.join(names)}"
        for differing, names in cells.items()
    ]


def left_over(store: StudyDir, planned: Sequence[str]) -> list[str]:
    """Return a sentence on the cells in the directory that the study does not have, nothing without any."""
    folders = [path for path in store.path.glob("cells/*") if path.suffix != TEMPORARY and path.is_dir()]
    names = {path.name for path in folders if any(path.iterdir())} | {path.stem for path in store.running.glob("*.*")}
    others = sorted(names.difference(planned))
    if not others:
        return []
    are, their = ("is", "its") if len(others) == 1 else ("are", "their")
    return [
        f"{plural(len(others), 'cell')} of an earlier version of the study {are} not part of it now; {their} files "
        f"stay in cells/ and running/: {', '.join(others)}"
    ]


def _differences(store: StudyDir, name: str, job: CellSpec) -> str:
    folder = store.cell(name)
    if not (folder / "cell.json").is_file():
        return "cell.json is lost"
    before = read_json(folder / "cell.json")
    candidates = {label: strategy_record(strategy) for label, strategy in job.candidates.items()}
    record = {"candidates": candidates, "regime_settings": regime_record(job.regime), "compute": job.compute}
    now = {part: settings for part, settings in record.items() if part in before}  # older versions wrote down less
    found = [
        f"{path} {_shown(was)}, now {_shown(wanted)}"
        for path, was, wanted in _differing(_settings(before), _settings(now))
    ]
    if before["weights"]["sha256"] not in [job.weights[weights_key(one)] for one in job.candidates.values()]:
        found.append("other initial weights")
    if before["data_fingerprint"] != job.data_fingerprint:
        found.append("other images")
    more = [f"and {len(found) - SHOWN} more"] if len(found) > SHOWN else []
    return "; ".join([*found[:SHOWN], *more]) or "in what is not written down"


def _settings(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a cell's settings as they are compared: of candidates the tuned values, and one for all; no weights."""
    labels = list(record["candidates"])
    first = record["candidates"][labels[0]]
    strategy = {"tune": " or ".join(labels) or "nothing"}
    strategy |= {**first, "backbone": first["backbone"]["name"]}
    regime = {f"regime's {name}": value for name, value in record["regime_settings"].items()}
    return strategy | regime | record.get("compute", {})


def _differing(was: Any, now: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield the paths at which two settings differ, with both values; None where there is nothing."""
    if isinstance(was, list) and isinstance(now, list) and len(was) == len(now):
        was, now = dict(enumerate(was)), dict(enumerate(now))
    if not (isinstance(was, dict) and isinstance(now, dict)):
        if was != now:
            yield path, was, now
        return
    for key in dict.fromkeys([*was, *now]):
        yield from _differing(was.get(key), now.get(key), f"{path}.{key}" if path else str(key))


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
