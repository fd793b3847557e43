"""What a study will share and take, told before it runs: the run's own plan, from hashes and headers alone."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch

from unfreeze.activations.calibrate import IMAGES
from unfreeze.activations.keys import PrefixKey
from unfreeze.config.schema import StudyConfig
from unfreeze.data.catalog import Catalog, glance, paths_of
from unfreeze.data.decode import decode, quiet_pillow
from unfreeze.data.sources.source import Source
from unfreeze.data.summary import NothingUsable, split_notes
from unfreeze.data.unusable import Undecodable
from unfreeze.events import Emit, Scanning, Warned
from unfreeze.model.backbone import Backbone
from unfreeze.model.summary import StageInfo
from unfreeze.storage.cache import usable_cache
from unfreeze.storage.study_dir import StudyDir
from unfreeze.study.activation_plan import ActivationPlan
from unfreeze.study.disk import DiskEstimate, reserved, writes
from unfreeze.study.images import draw_splits, make_jobs, refuse_lone_batches, since_last_run
from unfreeze.study.network_plan import BackboneKey, make_plan, weight_hashes
from unfreeze.study.prepare import calibrate_study, share, share_on_disk, works_of
from unfreeze.study.record import engines_fixed, first_fixed
from unfreeze.train.device import pick, settings_restored


@dataclass(frozen=True)
class Foreseen:
    """The plan of shared work of a study that has not run, what names its stages, and what it still writes."""

    shared: ActivationPlan
    stages: Mapping[PrefixKey, Sequence[StageInfo]]
    writes: DiskEstimate


def foresee(study: StudyConfig, source: Source, out: Path, emit: Emit) -> Foreseen:
    """Plan the shared work of all of a study's cells as a run that starts now would, had none of them run.

    What an earlier run fixed counts: the split that it drew, its engines and its number of threads.

    Files are hashed and headers read where they may have changed; only the few images of the calibration are decoded.
    What is measured is remembered in the cache, so the run does not measure it again. Images that turn out to be
    damaged count until a run has decoded them.

    Args:
        study: what would run.
        source: its files.
        out: the study directory, whether or not it is there.
        emit: is told how far the files are, what is measured, and what is wrong with the cache.

    Raises:
        UserError: weights that are not to be had, a regime that the data cannot give, no image that can be decoded.
    """
    with settings_restored():  # what is measured is measured as a run would
        return _foresee(study, source, out, emit)


def _foresee(study: StudyConfig, source: Source, out: Path, emit: Emit) -> Foreseen:
    def progress(done: int, total: int) -> None:
        emit(Scanning(done, total))

    store = StudyDir(out)
    before = first_fixed(store, emit)
    if "threads" in before:
        torch.set_num_threads(int(before["threads"]))
    compute = pick(study.device, study.precision)
    backbones: dict[BackboneKey, Backbone] = {}
    plan = make_plan(study, len(source.classes), backbones)
    cache = usable_cache(lambda text: emit(Warned(text)))
    catalog = glance(source, study.split.group, progress, looks=cache / "looks" if cache else None, check=study.check)
    since = since_last_run(store, before, study, catalog)
    catalog = since.catalog
    for warning in [*split_notes(catalog, study.split, since.drawn.get(None)), *since.warnings]:
        emit(Warned(warning))
    splits = draw_splits(study, catalog, plan, since.drawn)
    jobs = make_jobs(study, catalog, plan, splits, weight_hashes(backbones), compute)
    refuse_lone_batches(jobs, backbones)
    works = works_of(jobs, plan)
    sample = list(islice(_whole(catalog, next(iter(jobs.values())).selection.train), IMAGES))
    if not sample:
        raise NothingUsable(
            f"data: {study.data}: none of its images can be decoded",
            "images that are whole",
            "look at the files, which unfreeze check lists",
        )
    with tempfile.TemporaryDirectory() as elsewhere:  # stays empty but for what was measured
        folder = cache or Path(elsewhere)
        calibrated = calibrate_study(
            study, plan, works, backbones, catalog, sample, compute, folder, engines_fixed(before, compute), emit
        )
        needed = writes(store, plan, len(source.items), jobs, works)
        if cache:
            reserve = reserved(cache, out, needed)
            shared, _, warnings = share_on_disk(study, works, calibrated, catalog, cache, reserve)
            for warning in warnings:
                emit(Warned(warning))
        else:
            shared = share(study, works, calibrated, catalog, folder, 0)
        return Foreseen(shared, calibrated.stages, needed)


def _whole(catalog: Catalog, ids: Sequence[str]) -> Iterator[str]:
    """Give the images that can be decoded."""
    for name, path in zip(ids, paths_of(catalog, ids), strict=True):
        try:
            with quiet_pillow():
                decode(path, reading=catalog.reading)
        except Undecodable:
            continue
        yield name
