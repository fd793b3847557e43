"""From cells to the plan of shared work: calibrate, look what the cache holds, decide, predict."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from unfreeze.activations.calibrate import IMAGES, FrozenWork, calibrated_prefix
from unfreeze.activations.costs import PrefixCost
from unfreeze.activations.engine import Settings
from unfreeze.activations.keys import ActivationKey, PrefixKey, label_of, prefix_of
from unfreeze.activations.prefix import Calibration, Prefix
from unfreeze.activations.store import MANIFEST_BYTES, activation_store
from unfreeze.config.resolve import Strategy
from unfreeze.config.schema import StudyConfig
from unfreeze.config.units import bytes_of
from unfreeze.data.catalog import Catalog, keys_of, paths_of, used_keys
from unfreeze.events import Emit, Preparing
from unfreeze.inputs.augment import Preprocessing, ViewDataset
from unfreeze.inputs.preprocess import BaseTransform, DecodedPictures, picture_bytes, pixel_store
from unfreeze.model.backbone import Backbone, load_backbone
from unfreeze.model.cuts import feed_cuts
from unfreeze.model.summary import StageInfo
from unfreeze.storage.array_store import ArrayStore
from unfreeze.storage.cache import obtainable, used_bytes
from unfreeze.storage.measurements import Measurements
from unfreeze.storage.shards import Row
from unfreeze.study.activation_plan import ActivationPlan, PlanCosts, plan_shared
from unfreeze.study.cell import CellSpec
from unfreeze.study.disk import SPARE, free_bytes
from unfreeze.study.lockstep import CellWork, lots_of_study
from unfreeze.study.network_plan import BackboneKey, Plan
from unfreeze.study.reads import together
from unfreeze.text import bytes_text
from unfreeze.train.device import Compute, machine
from unfreeze.train.step_cost import SECONDS_PER_FLOP, TimedStep, step_cost


@dataclass(frozen=True)
class Calibrations:
    """What a study's networks are, how their frozen stages are computed, and what everything costs.

    Attributes:
        prefixes: the frozen networks with their engines; of strategies that freeze something.
        calibrations: of these.
        preprocessing, stages: of every strategy, by prefix.
        costs: in seconds.
        seconds: that calibrating took.
    """

    prefixes: Mapping[PrefixKey, Prefix]
    calibrations: Mapping[PrefixKey, Calibration]
    preprocessing: Mapping[PrefixKey, Preprocessing]
    stages: Mapping[PrefixKey, Sequence[StageInfo]]
    costs: PlanCosts
    seconds: float


def backbone_of(strategy: Strategy, backbones: Mapping[BackboneKey, Backbone], seed: int) -> Backbone:
    """Return a strategy's backbone, not to be changed; random weights are drawn for the seed."""
    name, weights, size = strategy.backbone.name, strategy.backbone.weights, strategy.image_size
    return load_backbone(name, weights, size, seed) if weights == "none" else backbones[name, weights, size]


def preprocessings(plan: Plan, backbones: Mapping[BackboneKey, Backbone]) -> dict[PrefixKey, Preprocessing]:
    """Return how pictures are prepared, by prefix, for every strategy."""
    found = {}
    for key, strategy in _strategies_of(plan).items():
        weights = backbone_of(strategy, backbones, 0).weights
        found[key] = Preprocessing(
            image_size=strategy.image_size,
            resize=strategy.resize,
            mean=weights.mean,
            std=weights.std,
            interpolation=weights.interpolation,
            crop_share=weights.crop_share,
        )
    return found


def _strategies_of(plan: Plan) -> dict[PrefixKey, Strategy]:
    """Return, by prefix, one strategy that uses it."""
    return {
        prefix_of(network.strategy): network.strategy
        for networks in reversed(list(plan.candidates.values()))
        for network in reversed(list(networks.values()))
    }


def works_of(jobs: Mapping[str, CellSpec], plan: Plan) -> list[CellWork]:
    """Return the cells as the plan of shared work sees them."""
    return [CellWork(job, plan.candidates[job.cell.strategy]) for job in jobs.values()]


def calibrate_study(
    study: StudyConfig,
    plan: Plan,
    works: Sequence[CellWork],
    backbones: Mapping[BackboneKey, Backbone],
    catalog: Catalog,
    sample: Sequence[str],
    compute: Compute,
    cache: Path,
    fixed: Mapping[str, Settings],
    emit: Emit,
) -> Calibrations:
    """Measure for a few seconds what is not remembered of this machine.

    Args:
        study: gives the dtype of stored activations.
        plan: its networks.
        works: its cells.
        backbones: pretrained ones.
        catalog: the images.
        sample: ids of a few training images.
        compute: device and precision.
        cache: the folder of the cache.
        fixed: engines that the study has been using, see ``label_of``.
        emit: is told what is measured.
    """
    began = time.perf_counter()
    cuts, kinds, rows = _cuts_of(plan), _strategies_of(plan), _rows_of(works)
    preprocessing, measurements = preprocessings(plan, backbones), Measurements(cache, machine(compute))
    stages = {
        prefix_of(network.strategy): network.stages
        for networks in plan.candidates.values()
        for network in networks.values()
    }
    prefixes, costs = dict[PrefixKey, Prefix](), dict[PrefixKey, PrefixCost]()
    emit(Preparing("measuring backbones and their engines", 0, len(cuts)))
    for done, (key, mine) in enumerate(sorted(cuts.items()), 1):
        backbone = backbone_of(kinds[key], backbones, 0)
        work = FrozenWork(backbone, mine, rows.get(key, 0), study.activations, compute.precision, compute.device)
        images = partial(_sample, catalog, sample, preprocessing[key])
        prefixes[key] = calibrated_prefix(work, images, measurements, fixed.get(label_of(key, stages)))
        found, flops = prefixes[key].calibration, tuple(stage.flops for stage in stages[key])
        costs[key] = PrefixCost(found.seconds, found.seconds_pytorch, found.build, max(mine), flops, found.chains)
        emit(Preparing("measuring backbones and their engines", done, len(cuts)))
    speeds = [cost.pytorch / max(1, sum(cost.flops[: cost.deepest])) for cost in costs.values()]
    steps = {
        step.network: step_cost(
            step,
            partial(backbone_of, step.strategy, backbones, 0),
            measurements,
            compute,
            max(speeds, default=SECONDS_PER_FLOP),
        )
        for step in _timed_steps(plan, len(catalog.classes))
    }
    calibrations = {key: prefix.calibration for key, prefix in prefixes.items()}
    decode, view = _picture_seconds(catalog, sample, next(iter(preprocessing.values())))
    return Calibrations(
        prefixes,
        calibrations,
        preprocessing,
        stages,
        PlanCosts(costs, steps, decode, view),
        time.perf_counter() - began,
    )


def _cuts_of(plan: Plan) -> dict[PrefixKey, list[int]]:
    """Return the cuts, above 0, at which some phase's inputs begin, by prefix."""
    found: dict[PrefixKey, set[int]] = {}
    for networks in plan.candidates.values():
        for network in networks.values():
            mine = {cut for cut in feed_cuts(network.cuts) if cut}
            if mine:
                found.setdefault(prefix_of(network.strategy), set()).update(mine)
    return {key: sorted(cuts) for key, cuts in found.items()}


def _rows_of(works: Sequence[CellWork]) -> dict[PrefixKey, int]:
    """Return how many rows frozen stages compute, by prefix: each stored one once, and every live one."""
    needs = together(work.needs for work in works)
    found: dict[PrefixKey, int] = {}
    for piece, rows in needs.rows.items():
        found[piece.prefix] = found.get(piece.prefix, 0) + len(rows)
    for lot in lots_of_study(works):
        for (key, _), draws in lot.draws.live.items():
            found[key] = found.get(key, 0) + draws
    return found


def _timed_steps(plan: Plan, classes: int) -> list[TimedStep]:
    """Return for each network the phase that trains most of it: what is timed, and scaled to the others by FLOPs."""
    found = dict[str, TimedStep]()
    for networks in plan.candidates.values():
        for network in networks.values():
            for phase, start in enumerate(feed_cuts(network.cuts)):
                cut = network.cuts[phase]
                passed, trained = network.flops_after(start), network.flops_after(cut)
                step = TimedStep(network.strategy, phase, cut, start, classes, passed, trained)
                most = found.setdefault(step.network, step)
                if (trained, passed) > (most.trained, most.passed):
                    found[step.network] = step
    return list(found.values())


def _sample(catalog: Catalog, ids: Sequence[str], preprocessing: Preprocessing) -> Tensor:
    views = _plain_views(catalog, ids[:IMAGES], preprocessing)
    return torch.stack([views[index, 0][0] for index in range(len(views))])


def _plain_views(catalog: Catalog, ids: Sequence[str], preprocessing: Preprocessing) -> ViewDataset:
    shas = keys_of(catalog, ids)
    pictures = DecodedPictures(paths_of(catalog, ids), shas, preprocessing.base)
    return ViewDataset(pictures, shas, preprocessing, "none", 0)


def _picture_seconds(catalog: Catalog, ids: Sequence[str], preprocessing: Preprocessing) -> tuple[float, float]:
    """Return the seconds of decoding a file into its base picture, and of making a view of that."""
    ids = ids[:IMAGES]
    views = _plain_views(catalog, ids, preprocessing)
    _ = views[0, 0]
    points = [time.perf_counter()]
    pictures = [views.pictures[index] for index in range(len(ids))]
    points.append(time.perf_counter())
    views.pictures = pictures  # a list of arrays gives pictures by index, too
    for index in range(len(ids)):
        _ = views[index, 0]
    points.append(time.perf_counter())
    return (points[1] - points[0]) / len(ids), (points[2] - points[1]) / len(ids)


def bases_of(calibrated: Mapping[PrefixKey, Preprocessing]) -> list[BaseTransform]:
    """Return the distinct kinds of base pictures."""
    return list({str(made.base.identity()): made.base for made in calibrated.values()}.values())


def disk_budget(study: StudyConfig, cache: Path, reserve: int = 0) -> int:
    """Return the bytes that the cache may have in all: the study's budget, or what its disk has room for.

    Args:
        study: gives the budget.
        cache: the folder of the cache.
        reserve: bytes that stay free on its disk.
    """
    return min(bytes_of(study.budget.disk), used_bytes(cache) + int(max(0, free_bytes(cache) - reserve) / SPARE))


def share(
    study: StudyConfig,
    works: Sequence[CellWork],
    calibrated: Calibrations,
    catalog: Catalog,
    cache: Path,
    budget: int,
) -> ActivationPlan:
    """Decide what is stored in a cache of so many bytes, and predict."""
    asked = study.budget.disk
    words = asked if budget == bytes_of(asked) else f"{asked}, of which {bytes_text(budget)} are to be had"
    used = catalog.images[catalog.images["status"] == "used"]
    pixel_bytes = pixels = pixels_missing = 0
    for base in bases_of(calibrated.preprocessing):
        count = used["sha256"].nunique()
        pixel_bytes += picture_bytes(catalog, used["id"].tolist(), base) + count * MANIFEST_BYTES
        pixels += count
        pixels_missing += len(pixel_store(cache, base).missing([(sha, 0) for sha in used_keys(catalog)]))
    total = together(work.needs for work in works)
    held = dict[ActivationKey, int]()
    for piece, rows in total.rows.items():
        held[piece] = len(rows) - len(_stores(calibrated, cache, piece)[0].missing(list(rows)))
    bytes_per_row = {
        (piece.prefix, piece.cut): calibrated.prefixes[piece.prefix].bytes_per_row(piece.cut) for piece in total.rows
    }
    return plan_shared(works, calibrated.costs, bytes_per_row, held, pixel_bytes, pixels, pixels_missing, budget, words)


def _stores(calibrated: Calibrations, cache: Path, piece: ActivationKey) -> list[ArrayStore]:
    """Return a piece's entry in the cache; where memory has got short, that of as many rows at once as before, too."""
    prefix, made = calibrated.prefixes[piece.prefix], calibrated.preprocessing[piece.prefix]
    return [
        activation_store(cache, prefix, piece.cut, made, piece.augment, piece.seed, at_once)
        for at_once in dict.fromkeys((prefix.batch, int(prefix.calibration.engine["batch"])))
    ]


def needed_rows(
    shared: ActivationPlan, calibrated: Calibrations, catalog: Catalog, cache: Path
) -> dict[ArrayStore, set[Row]]:
    """Return the entries of the cache that a study uses, with the rows of its own in each, held or not."""
    pictures = {(sha, 0) for sha in used_keys(catalog)} if shared.pixel_bytes else set()
    found = {pixel_store(cache, base): pictures for base in bases_of(calibrated.preprocessing)}
    for piece, rows in shared.rows().items():  # of two pieces with the same weights under two names one entry has all
        for store in _stores(calibrated, cache, piece):
            found.setdefault(store, set()).update(rows)
    return found


def share_on_disk(
    study: StudyConfig, works: Sequence[CellWork], calibrated: Calibrations, catalog: Catalog, cache: Path, reserve: int
) -> tuple[ActivationPlan, int, list[str]]:
    """Decide what is stored where there may be less room than the study's budget.

    The cache's disk may have less, and some of the budget may be taken by what cannot be deleted now.

    Returns:
        The plan, the bytes that the cache may have in all, and what to say if less is stored for want of room.
    """
    asked, budget = bytes_of(study.budget.disk), disk_budget(study, cache, reserve)
    shared = share(study, works, calibrated, catalog, cache, budget)
    wanted = share(study, works, calibrated, catalog, cache, asked) if budget < asked else shared
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
        fits = share_less(study, works, calibrated, catalog, cache, fits, room)
    if fits is not shared:
        warnings.append(taken(study, shared, fits))
    return fits, budget, warnings


def share_less(
    study: StudyConfig,
    works: Sequence[CellWork],
    calibrated: Calibrations,
    catalog: Catalog,
    cache: Path,
    shared: ActivationPlan,
    room: int,
) -> ActivationPlan:
    """Decide anew what is stored, where only ``room`` bytes may be written beside what the cache has of a plan."""
    return share(study, works, calibrated, catalog, cache, shared.bytes - shared.bytes_missing + room)


def taken(study: StudyConfig, shared: ActivationPlan, fits: ActivationPlan) -> str:
    """Say that of what a plan would store only some fits beside what stays in the cache."""
    return (
        f"the disk budget of {study.budget.disk} has room for {bytes_text(fits.bytes)} of the "
        f"{bytes_text(shared.bytes)} that this study would store, and the rest is computed again and again; what "
        "other running studies use stays, and so do files that hold rows of this study beside others: run it when they "
        "have ended, or raise budget: disk"
    )
