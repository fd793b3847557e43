"""Forecast a study before it runs: shared work, seconds and disk, from hashes and headers alone."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from unfreeze.activations.calibrate import IMAGES
from unfreeze.activations.keys import PrefixKey
from unfreeze.config.schema import StudyConfig
from unfreeze.data.catalog import Catalog, paths_of, preview_catalog
from unfreeze.data.decode import decode
from unfreeze.data.image_file import quiet_pillow
from unfreeze.data.sources.source import Source
from unfreeze.data.summary import NothingUsable
from unfreeze.data.unusable import Undecodable
from unfreeze.events import Emit, Scanning, Warned
from unfreeze.model.summary import StageInfo
from unfreeze.study.activation_plan import ActivationPlan
from unfreeze.study.cache_plan import plan_activations, plan_activations_on_disk
from unfreeze.study.calibrations import calibrate
from unfreeze.study.disk import DiskEstimate, estimate_writes, reserved
from unfreeze.study.prepare import PreparedStudy, open_study, prepare
from unfreeze.train.device import settings_restored


@dataclass(frozen=True)
class Forecast:
    """The plan of shared work of a study that has not run, the stages it names, and what the study still writes."""

    shared: ActivationPlan
    stages: Mapping[PrefixKey, Sequence[StageInfo]]
    writes: DiskEstimate


def forecast(study: StudyConfig, source: Source, out: Path, emit: Emit) -> Forecast:
    """Plan the shared work of all of a study's cells as a run that starts now would, had none of them run.

    What an earlier run fixed counts: the split that it drew, its engines and its number of threads.

    Files are hashed and headers read where they may have changed; only the few images of the calibration are decoded.
    What is measured is remembered in the cache, so the run does not measure it again. Images that turn out to be
    damaged count until a run has decoded them. Torch's settings stay as they were.

    Args:
        study: what would run.
        source: its files.
        out: the study directory, whether or not it is there.
        emit: is called with progress and warnings.

    Raises:
        UserError: weights that cannot be loaded, a regime that the data cannot give, no image that can be decoded.
    """
    with settings_restored():  # what is measured is measured as a run would
        opened = open_study(study, source, out, emit)
        scan_cache = opened.cache / "looks" if opened.cache else None
        catalog = preview_catalog(
            source,
            study.split.group,
            scan_cache,
            study.check,
            progress=lambda done, total: emit(Scanning(done, total)),
        )
        return _forecast(prepare(opened, catalog, emit, decoded=False), emit)


def _forecast(prepared: PreparedStudy, emit: Emit) -> Forecast:
    opened = prepared.opened
    training = next(iter(prepared.cells.values())).selection.train
    sample = list(islice(_decodable(prepared.catalog, training), IMAGES))
    if not sample:
        raise NothingUsable(
            f"data: {opened.config.data}: none of its images can be decoded",
            "images that are whole",
            "run unfreeze check, which lists the files",
        )
    needed = estimate_writes(opened.store, opened.plan, opened.files, prepared.cells)
    with tempfile.TemporaryDirectory() as elsewhere:  # stays empty but for what was measured
        calibrated = calibrate(prepared, sample, opened.cache or Path(elsewhere), opened.engines, emit)
        if opened.cache is None:
            shared = plan_activations(prepared, calibrated, Path(elsewhere), 0)
        else:
            reserve = reserved(opened.cache, opened.store.path, needed)
            shared, _, warnings = plan_activations_on_disk(prepared, calibrated, opened.cache, reserve)
            for warning in warnings:
                emit(Warned(warning))
    return Forecast(shared, calibrated.stages, needed)


def _decodable(catalog: Catalog, ids: Sequence[str]) -> Iterator[str]:
    """Yield the images that can be decoded."""
    for name, path in zip(ids, paths_of(catalog, ids), strict=True):
        try:
            with quiet_pillow():
                decode(path, reading=catalog.reading)
        except Undecodable:
            continue
        yield name
