"""Fit the stored activations into the cache's budget and the free disk space."""

from pathlib import Path

from unfreeze.activations.keys import ActivationKey
from unfreeze.activations.reads import all_reads
from unfreeze.activations.store import MANIFEST_BYTES, activation_store
from unfreeze.config.schema import StudyConfig
from unfreeze.config.units import bytes_of
from unfreeze.data.catalog import Catalog, used_keys
from unfreeze.inputs.preprocess import picture_bytes, pixel_store
from unfreeze.storage.array_store import ArrayStore
from unfreeze.storage.cache import obtainable
from unfreeze.storage.shards import Row
from unfreeze.study.activation_plan import ActivationPlan, CacheState, plan_shared
from unfreeze.study.calibrations import Calibrations
from unfreeze.study.disk import disk_budget
from unfreeze.study.network_plan import bases_of
from unfreeze.study.prepare import PreparedStudy
from unfreeze.text import bytes_text


def plan_activations(prepared: PreparedStudy, calibrated: Calibrations, cache: Path, budget: int) -> ActivationPlan:
    """Plan the activations to store in a cache of ``budget`` bytes, and predict seconds and bytes."""
    catalog, specs = prepared.catalog, list(prepared.cells.values())
    asked = prepared.opened.config.budget.disk
    words = asked if budget == bytes_of(asked) else f"{asked}, of which {bytes_text(budget)} is available"
    used = catalog.images[catalog.images["status"] == "used"]
    pixel_bytes = pixels = pixels_missing = 0
    for base in bases_of(calibrated.preprocessing):
        count = used["sha256"].nunique()
        pixel_bytes += picture_bytes(catalog, used["id"].tolist(), base) + count * MANIFEST_BYTES
        pixels += count
        pixels_missing += len(pixel_store(cache, base).missing([(sha, 0) for sha in used_keys(catalog)]))
    total = all_reads(spec.reads for spec in specs)
    held = dict[ActivationKey, int]()
    for key, rows in total.rows.items():
        held[key] = len(rows) - len(_stores(calibrated, cache, key)[0].missing(list(rows)))
    bytes_per_row = {
        (key.prefix, key.cut): calibrated.prefixes[key.prefix].bytes_per_row(key.cut) for key in total.rows
    }
    state = CacheState(budget, words, bytes_per_row, held, pixel_bytes, pixels, pixels_missing)
    return plan_shared(specs, calibrated.costs, state)


def _stores(calibrated: Calibrations, cache: Path, key: ActivationKey) -> list[ArrayStore]:
    """Return a key's entries in the cache: for the present number of rows at once, and the calibrated one."""
    prefix, made = calibrated.prefixes[key.prefix], calibrated.preprocessing[key.prefix]
    return [
        activation_store(cache, prefix, key.cut, made, key.augment, key.seed, engine_batch)
        for engine_batch in dict.fromkeys((prefix.batch, int(prefix.calibration.engine["batch"])))
    ]


def needed_rows(
    shared: ActivationPlan, calibrated: Calibrations, catalog: Catalog, cache: Path
) -> dict[ArrayStore, set[Row]]:
    """Return the rows of the cache that a study reads, whether or not they are there, by entry."""
    pictures = {(sha, 0) for sha in used_keys(catalog)} if shared.pixel_bytes else set()
    found = {pixel_store(cache, base): pictures for base in bases_of(calibrated.preprocessing)}
    for key, rows in shared.stored_work.rows.items():  # the same weights under two names have one entry
        for store in _stores(calibrated, cache, key):
            found.setdefault(store, set()).update(rows)
    return found


def plan_activations_on_disk(
    prepared: PreparedStudy, calibrated: Calibrations, cache: Path, reserve: int
) -> tuple[ActivationPlan, int, list[str]]:
    """Plan the activations to store where there may be less room than the study's budget.

    The cache's disk may have less, and entries that cannot be deleted now may take up some of the budget.

    Returns:
        The plan, the bytes that the whole cache may have, and warnings if too little room leaves something unstored.
    """
    study, catalog = prepared.opened.config, prepared.catalog
    asked, budget = bytes_of(study.budget.disk), disk_budget(study, cache, reserve)
    shared = plan_activations(prepared, calibrated, cache, budget)
    wanted = plan_activations(prepared, calibrated, cache, asked) if budget < asked else shared
    warnings = []
    if shared.bytes < wanted.bytes:
        warnings.append(
            f"the disk of the cache {cache} has too little room: {bytes_text(shared.bytes)} of "
            f"{bytes_text(wanted.bytes)} are stored, and the rest is computed again and again; free space "
            "there, or name another folder in UNFREEZE_CACHE"
        )
    fits = shared
    while True:
        keep = {store.folder: rows for store, rows in needed_rows(fits, calibrated, catalog, cache).items()}
        room = obtainable(cache, budget, keep)
        if fits.bytes_missing <= room:
            break
        fits = plan_less(prepared, calibrated, cache, fits, room)
    if fits is not shared:
        warnings.append(less_stored(study, shared, fits))
    return fits, budget, warnings


def plan_less(
    prepared: PreparedStudy, calibrated: Calibrations, cache: Path, shared: ActivationPlan, room: int
) -> ActivationPlan:
    """Plan again, where only ``room`` bytes may be written beside the rows of a plan that the cache holds."""
    return plan_activations(prepared, calibrated, cache, shared.bytes - shared.bytes_missing + room)


def less_stored(study: StudyConfig, shared: ActivationPlan, fits: ActivationPlan) -> str:
    """Return the warning that only part of a plan fits beside what stays in the cache."""
    return (
        f"the disk budget of {study.budget.disk} has room for {bytes_text(fits.bytes)} of the "
        f"{bytes_text(shared.bytes)} that this study would store, and the rest is computed again and again; what "
        "other running studies use stays, and so do files that hold rows of this study beside others: run it when they "
        "have ended, or raise budget: disk"
    )
