"""Choose the inference engine of a frozen prefix by its speed and error on a few real images."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import combinations, groupby, pairwise
from operator import itemgetter
from typing import Any, NamedTuple

import torch
from torch import Tensor

from unfreeze.activations import engines
from unfreeze.activations.engine import Engine, EngineFailed, Settings, last_line
from unfreeze.activations.prefix import TOLERANCE, Calibration, Prefix
from unfreeze.errors import UserError
from unfreeze.model.backbone import Backbone
from unfreeze.model.memory import OutOfMemory, halve_until_fits, memory_error
from unfreeze.model.network import Frozen, frozen_state, tensors_hash
from unfreeze.storage.measurements import Measurements

IMAGES = 8

CLEARLY = 0.9
"""An engine replaces a preferred one only if it takes less than this share of its time, since timings are noisy."""


class Reference(NamedTuple):
    """Output of PyTorch in float32 for a few images, and its seconds per image, channels-last."""

    rows: Tensor
    seconds: float


class NoEngine(UserError):
    """No engine computes the frozen stages; ``refused`` holds the reason by engine."""

    refused: Mapping[str, str] = {}


def pytorch_reference(backbone: Backbone, cut: int, images: Tensor, device: torch.device) -> Reference:
    """Run the first ``cut`` stages in PyTorch.

    Raises:
        UserError: not even one image fits into the device's memory.
    """
    stages = Frozen([stage.module for stage in backbone.stages[:cut]])

    def attempt(rows: int) -> Reference:
        stages.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        parts = [part.to(device).contiguous(memory_format=torch.channels_last) for part in images.split(rows)]
        with torch.inference_mode():
            found, seconds = _timed(lambda: torch.cat([stages(part).float() for part in parts]), len(images))
        return Reference(found.cpu(), seconds)

    try:
        return halve_until_fits(attempt, len(images), device)[0]
    except OutOfMemory:
        pass
    raise memory_error(f"frozen stages of {backbone.name}", backbone.image_size, "float32", device)


@dataclass(frozen=True)
class FrozenWork:
    """Work of a study with the frozen stages of one backbone.

    Attributes:
        backbone: the pretrained backbone.
        cuts: numbers of frozen stages, above 0.
        rows: number of rows to compute; for few rows, only PyTorch is worth building.
        dtype: type in which rows are stored.
        precision: requested precision of the engine, "float32" or "bfloat16".
        device: device that it runs on.
    """

    backbone: Backbone
    cuts: Sequence[int]
    rows: int
    dtype: str
    precision: str
    device: torch.device


def calibrate(work: FrozenWork, images: Tensor, reference: Reference, offers: Sequence[Settings]) -> Prefix:
    """Choose an engine within tolerance at the deepest cut, and find out which cuts chain.

    The first engine is chosen unless a later one is clearly faster (see ``CLEARLY``). An engine of another precision
    than requested is chosen only if no other is within tolerance.

    Args:
        work: the work to do.
        images: (n, 3, S, S) float32, real and normalised; ``IMAGES`` of them are enough.
        reference: PyTorch's output for these images at the deepest cut.
        offers: settings of the engines to try, the preferred one first.

    Returns:
        The prefix with its calibration, its engine ready to run.

    Raises:
        NoEngine: no engine is within tolerance at every cut.
        UserError: a number does not fit into float16.
    """
    able, refused = _tried(work, images, reference, offers)
    able = [tried for tried in able if tried[0].engine["precision"] == work.precision] or able
    while able:
        chosen = able[0]
        for other in able[1:]:
            chosen = other if other[0].seconds < CLEARLY * chosen[0].seconds else chosen
        calibration, engine = chosen
        prefix = Prefix(work.backbone, calibration, work.dtype, work.device, {(0, max(work.cuts)): engine})
        try:
            chains = _chains(prefix, sorted(set(work.cuts)), images)
        except EngineFailed as failure:  # at a shallower cut
            refused[engine_label(calibration.engine)] = str(failure)
            able.remove(chosen)
            continue
        prefix.calibration = replace(calibration, chains=chains, refused=refused)
        prefix.forwards = 0
        return prefix
    listed = "; ".join(f"{label}: {reason}" for label, reason in refused.items())
    failed = NoEngine(
        f"no engine computes the frozen stages of {work.backbone.name} in {work.precision} ({listed})",
        f"a relative error of {TOLERANCE[work.precision]:g} at most",
        "use other weights, or another backbone",
    )
    failed.refused = refused
    raise failed


def _tried(
    work: FrozenWork, images: Tensor, reference: Reference, offers: Sequence[Settings]
) -> tuple[list[tuple[Calibration, Engine]], dict[str, str]]:
    """Return the engines within tolerance at the deepest cut with their timings, and why others were refused."""
    stages = Frozen([stage.module for stage in work.backbone.stages[: max(work.cuts)]])
    able, refused = list[tuple[Calibration, Engine]](), dict[str, str]()
    for _, group in groupby(offers, key=itemgetter("name", "precision")):
        settings, engine, build, not_built = _build(list(group), stages, tuple(images.shape[1:]), work.device)
        refused |= not_built
        if engine is None:
            continue
        if settings["name"] == "pytorch" and settings["precision"] == "float32":  # the reference itself
            found, seconds = reference
        else:
            found, seconds = _measured(settings, engine, images)
        error = float((found - reference.rows).norm() / reference.rows.norm().clamp_min(1e-30))
        if error <= TOLERANCE[work.precision]:
            able.append((Calibration(settings, error, seconds, reference.seconds, build), engine))
        else:
            limit = f"{TOLERANCE[work.precision]:g}"
            refused[engine_label(settings)] = f"relative error {error:.1e} against PyTorch, above {limit}"
    return able, refused


def _chains(prefix: Prefix, cuts: Sequence[int], images: Tensor) -> tuple[tuple[int, int], ...]:
    """Return the pairs of cuts whose deeper rows, computed from the shallower ones, are the same bit for bit."""
    if len(cuts) < 2:
        return ()
    engine = prefix.calibration.engine
    if (engine["name"], engine["precision"], prefix.dtype) == ("pytorch", "float32", "float32"):
        return tuple(combinations(cuts, 2))  # stage by stage either way, which loading the backbone has checked
    rows = {cut: prefix.run(images, 0, cut) for cut in cuts}
    near = [pair for pair in pairwise(cuts) if _links(prefix, pair, rows)]
    # A way over several equal links is equal; others are not tried, each would be one more network to build.
    return tuple(
        (low, high)
        for low, high in combinations(cuts, 2)
        if all(link in near for link in pairwise([cut for cut in cuts if low <= cut <= high]))
    )


def _links(prefix: Prefix, pair: tuple[int, int], rows: Mapping[int, Tensor]) -> bool:
    """Return whether the deeper cut's rows, computed from the shallower one's, are the same bit for bit."""
    try:
        return torch.equal(prefix.run(rows[pair[0]], *pair), rows[pair[1]])
    except EngineFailed:  # the engine runs both from the image, but not the stages in between
        return False


class _Built(NamedTuple):
    """An engine built with the first settings that work, its build time, and why other settings were refused."""

    settings: Settings
    engine: Engine | None
    seconds: float
    refused: dict[str, str]


def _build(group: Sequence[Settings], stages: Frozen, shape: tuple[int, ...], device: torch.device) -> _Built:
    refused: dict[str, str] = {}
    for settings in group:
        began = time.perf_counter()
        try:
            engine = engines.build(settings, stages, shape, device)
            if device.type != "cpu":
                engine(torch.zeros(1, *shape))  # pads to a whole batch, to find out whether memory suffices
        except EngineFailed as failure:
            refused[engine_label(settings)] = str(failure)
        except (
            OSError,
            ImportError,
            RuntimeError,
        ) as error:  # for example a full disk or a missing library: another engine may work
            refused[engine_label(settings)] = f"{settings['name']}: {last_line(error)}"
        else:
            return _Built(settings, engine, time.perf_counter() - began, refused)
    return _Built(group[-1], None, 0.0, refused)


def engine_label(settings: Settings) -> str:
    """Return the name of an engine and its batch, for messages about refused engines."""
    return f"{settings['name']}, batch {settings['batch']}"


def _measured(settings: Settings, engine: Engine, images: Tensor) -> tuple[Tensor, float]:
    """Return an engine's output for the images, and its seconds per row with a full request for every thread."""
    requests = 1 if engines.kind_of(settings).shares_batch else int(settings["threads"])
    count = max(len(images), int(settings["batch"]) * requests)
    rows = images[torch.arange(count) % len(images)]
    found, seconds = _timed(lambda: engine(rows), count)
    return found[: len(images)].cpu(), seconds


def _timed(run: Callable[[], Tensor], rows: int) -> tuple[Tensor, float]:
    """Return the result, and the seconds per row of the faster of two runs; the first one allocates and tunes."""
    found, first = _once(run)
    _, second = _once(run)
    return found, min(first, second) / rows


def _once(run: Callable[[], Tensor]) -> tuple[Tensor, float]:
    _wait()
    started = time.perf_counter()
    found = run()
    _wait()
    return found, time.perf_counter() - started


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    elif torch.backends.mps.is_available():
        torch.mps.synchronize()


def calibrated_prefix(
    work: FrozenWork, images: Callable[[], Tensor], measurements: Measurements, fixed: Settings | None
) -> Prefix:
    """Return a calibrated prefix; earlier measurements of this machine are reused.

    Stored rows depend on the engine, so an engine once chosen is used for other cuts too, if it can compute them.

    Args:
        work: the work to do.
        images: returns a few real images, (n, 3, S, S) float32.
        measurements: measurements of this machine.
        fixed: engine that the study already uses. Without one, or if it cannot compute these stages, the engine last
            chosen on this machine is used, and after that the one that ``calibrate`` chooses.

    Raises:
        UserError: no engine computes these stages.
    """
    backbone, cuts = work.backbone, sorted(work.cuts)
    offered = engines.offers(work.device, work.precision, torch.get_num_threads())
    about = {"backbone": backbone.name, "size": backbone.image_size}
    choice = {"choice": {**about, "sha256": backbone.weights.sha256}}
    about["sha256"] = tensors_hash(frozen_state(backbone, cuts[-1]))
    given, refused = cache(images), dict[str, str]()

    @cache
    def reference() -> Reference:
        return pytorch_reference(backbone, cuts[-1], given(), work.device)

    def key(engine: Settings) -> dict[str, Any]:
        return {"prefix": {**about, "cuts": cuts, "dtype": work.dtype}, "engine": dict(engine)}

    def take(tried: Sequence[Settings]) -> Prefix:
        found = measurements.recall(key(tried[0])) if len(tried) == 1 else None
        if found is not None:
            return Prefix(backbone, Calibration.from_record(found), work.dtype, work.device)
        made = calibrate(replace(work, cuts=cuts), given(), reference(), tried)
        measurements.remember(key(made.calibration.engine), made.calibration.as_record())
        if len(tried) == len(offered):
            measurements.remember(choice, made.calibration.engine)
        return made

    before = [settings for settings in (dict(fixed or {}), measurements.recall(choice)) if settings in offered]
    for settings in before:
        try:
            prefix = take([settings])
            break
        except NoEngine as error:  # a new cut, or images on which it is less exact
            refused |= error.refused
    else:
        pytorch = {"pytorch": {**about, "cut": cuts[-1]}}
        seconds = work.rows * measurements.once(pytorch, lambda: {"seconds": reference().seconds})["seconds"]
        prefix = take([settings for settings in offered if engines.kind_of(settings).worth_seconds <= seconds])
    prefix.calibration = replace(prefix.calibration, refused={**refused, **(prefix.calibration.refused or {})})
    return prefix
