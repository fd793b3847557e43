"""Measure what frozen stages and training steps of a study cost on this machine."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from unfreeze.activations.calibrate import IMAGES, FrozenWork, calibrated_prefix
from unfreeze.activations.costs import PrefixCost
from unfreeze.activations.engine import Settings
from unfreeze.activations.keys import PrefixKey, label_of, prefix_of
from unfreeze.activations.prefix import Calibration, Prefix
from unfreeze.activations.reads import all_reads
from unfreeze.data.catalog import Catalog, keys_of, paths_of
from unfreeze.events import Emit, Preparing
from unfreeze.inputs.augment import Preprocessing, ViewDataset
from unfreeze.inputs.preprocess import DecodedPictures
from unfreeze.model.cuts import feed_cuts
from unfreeze.model.summary import StageInfo
from unfreeze.storage.measurements import Measurements
from unfreeze.study.activation_plan import PlanCosts
from unfreeze.study.cell import CellSpec
from unfreeze.study.lockstep import reads_of_study
from unfreeze.study.network_plan import Plan, preprocessings, strategies_of
from unfreeze.study.prepare import PreparedStudy
from unfreeze.train.device import machine
from unfreeze.train.step_cost import SECONDS_PER_FLOP, TimedStep, step_cost


@dataclass(frozen=True)
class Calibrations:
    """Networks of a study with the engines of their frozen stages, and measured costs.

    Attributes:
        prefixes: frozen networks with their engines, of strategies that freeze something.
        calibrations: of these prefixes.
        preprocessing, stages: of every strategy, by prefix.
        costs: in seconds.
        seconds: taken by the calibration.
    """

    prefixes: Mapping[PrefixKey, Prefix]
    calibrations: Mapping[PrefixKey, Calibration]
    preprocessing: Mapping[PrefixKey, Preprocessing]
    stages: Mapping[PrefixKey, Sequence[StageInfo]]
    costs: PlanCosts
    seconds: float


def calibrate(
    prepared: PreparedStudy, sample: Sequence[str], folder: Path, engines: Mapping[str, Settings], emit: Emit
) -> Calibrations:
    """Choose engines and measure costs, in a few seconds; measurements of this machine are remembered.

    Args:
        prepared: the study.
        sample: ids of a few training images.
        folder: of the cache, or another one for measurements.
        engines: that the study has been using, see ``OpenedStudy.engines``.
        emit: is called with progress.
    """
    began = time.perf_counter()
    plan, catalog, compute = prepared.opened.plan, prepared.catalog, prepared.opened.compute
    preprocessing, measurements = preprocessings(plan), Measurements(folder, machine(compute))
    stages = {
        prefix_of(network.strategy): network.stages
        for networks in plan.candidates.values()
        for network in networks.values()
    }
    images = {key: partial(_sample, catalog, sample, made) for key, made in preprocessing.items()}
    prefixes = _calibrated_prefixes(prepared, images, measurements, engines, emit)
    costs = {key: _prefix_cost(prefix.calibration, max(cuts), stages[key]) for key, (prefix, cuts) in prefixes.items()}
    speeds = [cost.pytorch / max(1, sum(cost.flops[: cost.deepest])) for cost in costs.values()]
    speed = max(speeds, default=SECONDS_PER_FLOP)
    steps = {
        step.network: step_cost(step, partial(plan.backbone, step.strategy, 0), measurements, compute, speed)
        for step in _timed_steps(plan, len(catalog.classes))
    }
    decode, view = _picture_seconds(catalog, sample, next(iter(preprocessing.values())))
    return Calibrations(
        prefixes={key: prefix for key, (prefix, _) in prefixes.items()},
        calibrations={key: prefix.calibration for key, (prefix, _) in prefixes.items()},
        preprocessing=preprocessing,
        stages=stages,
        costs=PlanCosts(costs, steps, decode, view),
        seconds=time.perf_counter() - began,
    )


def _calibrated_prefixes(
    prepared: PreparedStudy,
    images: Mapping[PrefixKey, Callable[[], Tensor]],
    measurements: Measurements,
    engines: Mapping[str, Settings],
    emit: Emit,
) -> dict[PrefixKey, tuple[Prefix, list[int]]]:
    """Return each frozen network with its engine, and the cuts at which phases start; ``images`` returns a sample."""
    opened = prepared.opened
    cuts, kinds, rows = _cuts_of(opened.plan), strategies_of(opened.plan), _rows_of(list(prepared.cells.values()))
    found = dict[PrefixKey, tuple[Prefix, list[int]]]()
    emit(Preparing("measuring backbones and their engines", 0, len(cuts)))
    for done, (key, mine) in enumerate(sorted(cuts.items()), 1):
        backbone = opened.plan.backbone(kinds[key], 0)
        precision, device = opened.compute.precision, opened.compute.device
        work = FrozenWork(backbone, mine, rows.get(key, 0), opened.config.activations, precision, device)
        found[key] = calibrated_prefix(work, images[key], measurements, engines.get(label_of(key, images))), mine
        emit(Preparing("measuring backbones and their engines", done, len(cuts)))
    return found


def _prefix_cost(found: Calibration, deepest: int, stages: Sequence[StageInfo]) -> PrefixCost:
    flops = tuple(stage.flops for stage in stages)
    return PrefixCost(found.seconds, found.seconds_pytorch, found.build, deepest, flops, found.chains)


def _cuts_of(plan: Plan) -> dict[PrefixKey, list[int]]:
    """Return the cuts, above 0, at which some phase's inputs begin, by prefix."""
    found: dict[PrefixKey, set[int]] = {}
    for networks in plan.candidates.values():
        for network in networks.values():
            mine = {cut for cut in feed_cuts(network.cuts) if cut}
            if mine:
                found.setdefault(prefix_of(network.strategy), set()).update(mine)
    return {key: sorted(cuts) for key, cuts in found.items()}


def _rows_of(specs: Sequence[CellSpec]) -> dict[PrefixKey, int]:
    """Return how many rows frozen stages compute, by prefix: each stored row once, a live row at every read."""
    counts: dict[PrefixKey, int] = {}
    for key, rows in all_reads(spec.reads for spec in specs).rows.items():
        counts[key.prefix] = counts.get(key.prefix, 0) + len(rows)
    for reads in reads_of_study(specs):
        for (prefix, _), count in reads.counts.live.items():
            counts[prefix] = counts.get(prefix, 0) + count
    return counts


def _timed_steps(plan: Plan, classes: int) -> list[TimedStep]:
    """Return the step to time for each network: of the phase that trains most of it; FLOPs scale it to the others."""
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
    views.pictures = pictures  # a list of arrays has pictures by index, too
    for index in range(len(ids)):
        _ = views[index, 0]
    points.append(time.perf_counter())
    return (points[1] - points[0]) / len(ids), (points[2] - points[1]) / len(ids)
