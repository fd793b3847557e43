"""A few seconds of measuring before a study: which engine, what a training step costs; remembered on this machine."""

import json
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from unfreeze.config.identity import fingerprint, head_record
from unfreeze.config.resolve import Strategy
from unfreeze.errors import UserError
from unfreeze.model.adapters import stage_versions
from unfreeze.model.backbone import Backbone, own_copy
from unfreeze.model.fitting import NoRoom, fitted
from unfreeze.model.head import build_head
from unfreeze.model.network import build_network
from unfreeze.reuse import engines
from unfreeze.reuse.calibrate import NoEngine, Reference, calibrate, pytorch_reference
from unfreeze.reuse.costs import StepCost
from unfreeze.reuse.engines import Settings
from unfreeze.reuse.prefix import Calibration, Prefix
from unfreeze.store import read_json, write_json
from unfreeze.streams import stream_seed
from unfreeze.study.plan import NetworkPlan
from unfreeze.train.device import Compute
from unfreeze.train.optimizer import build_optimizer

RULES = 3
"""Counts up whenever something comes to be measured, or written down, otherwise."""

STEP_SECONDS = 0.7
"""A measured step takes about so long at most: fewer examples are taken than the batch has where it would be more."""

FLOPS_GUESSED = 1e11
"""Of a processor that nothing has been measured on yet; only says how many examples to try."""


def processor() -> str:
    """Return the processor's name."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def machine(compute: Compute) -> dict[str, Any]:
    """Return what measured seconds depend on beside the network."""
    device = torch.cuda.get_device_name() if compute.device.type == "cuda" else str(compute.device)
    return {
        "processor": processor(),
        "device": device,
        "precision": compute.precision,
        "threads": torch.get_num_threads(),
        "stages": stage_versions(),
    }


def prefix_calibration(
    cache: Path,
    backbone: Backbone,
    prefix_sha256: str,
    cuts: Sequence[int],
    images: Callable[[], torch.Tensor],
    dtype: str,
    rows: int,
    compute: Compute,
    fixed: Settings | None,
) -> Prefix:
    """Return a prefix that knows how it is computed and what that costs, measured or remembered.

    Args:
        cache: the folder of the cache; small records lie in ``calibrations``.
        backbone: pretrained.
        prefix_sha256: of the tensors up to the deepest cut.
        cuts: of the study, above 0.
        images: gives a few real ones, (n, 3, S, S) float32.
        dtype: in which rows are kept.
        rows: that the study computes; for few of them it is not worth trying engines that take long to make.
        compute: device and precision.
        fixed: the engine that the study has been using. If there is none, or it cannot compute these stages, it is the
            one that was chosen on this machine before, and after that the fastest.

    Raises:
        UserError: no engine computes these stages.
    """
    about = {"backbone": backbone.name, "sha256": prefix_sha256, "size": backbone.image_size, "rules": RULES}
    reference: list[Reference] = []

    def look() -> dict[str, Any]:
        reference.append(pytorch_reference(backbone, max(cuts), images(), compute.device))
        return {"seconds": reference[0].seconds}

    def measure(offered: Sequence[Settings]) -> Prefix:
        if not reference:
            look()
        return calibrate(backbone, cuts, images(), reference[0], compute.precision, dtype, offered, compute.device)

    def key(engine: Settings) -> dict[str, Any]:
        return {"prefix": {"cuts": sorted(cuts), "dtype": dtype, **about}, "engine": dict(engine), **machine(compute)}

    offered = engines.offers(compute.device, compute.precision, torch.get_num_threads())
    choice = {"choice": {**about, "sha256": backbone.weights.sha256}, **machine(compute)}

    def take(chosen: Sequence[Settings]) -> Prefix:
        found = _recalled(cache, key(chosen[0])) if len(chosen) == 1 else None
        if found is not None:
            return Prefix(backbone, Calibration.from_record(found), dtype, compute.device)
        prefix = measure(chosen)
        _remember(cache, key(prefix.calibration.engine), prefix.calibration.as_record())
        if len(chosen) == len(offered):
            _remember(cache, choice, dict(prefix.calibration.engine))
        return prefix

    # Stored rows belong to an engine: one that was chosen once, for whatever cuts, goes on where it can.
    own, last = dict(fixed or {}), _recalled(cache, choice)
    refused: dict[str, str] = {}
    for settings in sorted((one for one in offered if dict(one) in (own, last)), key=lambda one: dict(one) != own):
        try:
            prefix = take([settings])
            break
        except NoEngine as error:  # a cut that no other study had, or images on which it is less exact
            refused |= error.refused
    else:
        pytorch = {"pytorch": {"cut": max(cuts), **about}, **machine(compute)}
        frozen_seconds = rows * _remembered(cache, pytorch, look)["seconds"]
        prefix = take([settings for settings in offered if engines.worth_trying(settings, frozen_seconds)])
    prefix.calibration = replace(prefix.calibration, refused={**refused, **(prefix.calibration.refused or {})})
    return prefix


def step_cost(
    cache: Path,
    backbone: Callable[[], Backbone],
    network: NetworkPlan,
    phase: int,
    start: int,
    classes: int,
    compute: Compute,
    seconds_per_flop: float | None,
) -> StepCost:
    """Return the seconds of one phase's training steps, measured on random inputs or remembered.

    Where not even two images fit into the device's memory, they are guessed from the network's operations; whether it
    can be trained at all is for its cells to find out.

    Args:
        cache: the folder of the cache.
        backbone: gives it; it is not changed.
        network: one candidate's.
        phase: its number.
        start: number of stages that the inputs have passed.
        classes: of the head.
        compute: device and precision.
        seconds_per_flop: as measured on the frozen stages; None if nothing was.
    """
    key = step_key(network.strategy, network.cuts[phase], phase, start, classes)

    look = sum(stage.flops for stage in network.stages[start:]) + network.head.flops
    flops = look + 2 * (sum(stage.flops for stage in network.stages[network.cuts[phase] :]) + network.head.flops)
    pace = seconds_per_flop or 1 / FLOPS_GUESSED

    def measure() -> dict[str, Any]:
        at_most = max(2, int(STEP_SECONDS / (max(1, flops) * pace)))
        count = min(network.strategy.batch_size, at_most)

        def attempt(rows: int) -> StepCost:
            return _step(backbone(), network.strategy, network.cuts[phase], phase, start, classes, compute, rows)

        cost = fitted(attempt, count, compute.device, least=min(2, count))[0]
        return {"example": cost.example, "update": cost.update, "look": cost.look}

    try:
        record = _remembered(cache, {"step": key, "rules": RULES, **machine(compute)}, measure)
    except NoRoom:
        return StepCost(flops * pace, 0.0, look * pace)
    return StepCost(example=record["example"], update=record["update"], look=record["look"])


def step_key(strategy: Strategy, cut: int, phase: int, start: int, classes: int) -> str:
    """Return what the cost of a phase's steps depends on; learning rates, say, do not count."""
    settings = strategy.phases[phase]
    return fingerprint(
        strategy.backbone.name, strategy.image_size, head_record(strategy.head), strategy.batch_size,
        settings.optimizer.name, settings.batch_norm, cut, start, classes,
    )  # fmt: skip


def _remembered(cache: Path, key: dict[str, Any], measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    found = _recalled(cache, key)
    if found is None:
        found = measure()
        _remember(cache, key, found)
    return found


def _recalled(cache: Path, key: dict[str, Any]) -> dict[str, Any] | None:
    """Return what was measured under a key, None if it was not or cannot be read."""
    try:
        record = read_json(_record(cache, key))
        return dict(record["found"]) if record.get("key") == json.loads(json.dumps(key)) else None
    except (OSError, UserError, KeyError):
        return None


def _remember(cache: Path, key: dict[str, Any], found: dict[str, Any]) -> None:
    try:
        write_json(_record(cache, key), {"key": key, "found": found})
    except UserError:
        pass  # a cache that cannot be written to costs a few seconds the next time


def _record(cache: Path, key: dict[str, Any]) -> Path:
    return cache / "calibrations" / f"{fingerprint(key)}.json"


def _step(
    backbone: Backbone,
    strategy: Strategy,
    cut: int,
    phase: int,
    start: int,
    classes: int,
    compute: Compute,
    count: int,
) -> StepCost:
    backbone = own_copy(backbone, cut)
    head = build_head(strategy.head, backbone, classes, 0)
    settings = strategy.phases[phase]
    network = build_network(backbone, head, cut, settings.batch_norm, None, start)
    network.to(compute.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = build_optimizer([*network.suffix.stages, head], settings.optimizer)
    shape = backbone.stages[start - 1].output_shape if start else (3, backbone.image_size, backbone.image_size)
    generator = torch.Generator().manual_seed(stream_seed(0, "order", "measure"))
    inputs = compute.move(torch.randn(count, *shape, generator=generator), start < len(backbone.stages))
    labels = torch.arange(count, device=compute.device) % classes

    def forward() -> torch.Tensor:
        with compute.forward_pass():
            return cross_entropy(network(inputs).float(), labels)

    seconds = []
    with torch.random.fork_rng(devices=[]):  # dropout draws
        for _ in range(2):  # the first one allocates and chooses kernels
            network.train()
            points = [_now(compute)]
            forward().backward()
            points.append(_now(compute))
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            points.append(_now(compute))
            network.eval()
            with torch.inference_mode():
                forward()
            points.append(_now(compute))
            seconds = [end - begin for begin, end in zip(points[:-1], points[1:], strict=True)]
    training, update, look = seconds
    return StepCost(training / count, update, look / count)


def _now(compute: Compute) -> float:
    if compute.device.type == "cuda":
        torch.cuda.synchronize()
    elif compute.device.type == "mps":
        torch.mps.synchronize()
    return time.perf_counter()
