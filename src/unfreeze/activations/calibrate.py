"""Choose and time the inference engine of a frozen prefix on a few real images."""

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
from unfreeze.activations.engine import Engine, EngineFailed, Settings, gist
from unfreeze.activations.prefix import TOLERANCE, Calibration, Prefix
from unfreeze.errors import UserError
from unfreeze.model.backbone import Backbone
from unfreeze.model.memory import OutOfMemory, fitted, no_room
from unfreeze.model.network import Frozen, frozen_state, tensors_hash
from unfreeze.storage.measurements import Measurements

IMAGES = 8

CLEARLY = 0.9
"""An engine replaces one offered before it only if it takes less than this share of its time: timings are noisy."""


class Reference(NamedTuple):
    """PyTorch's float32 rows of a few images, and its seconds for one, channels-last."""

    rows: Tensor
    seconds: float


class NoEngine(UserError):
    """None of the engines that were tried computes the frozen stages; ``refused`` says of each why not."""

    refused: Mapping[str, str] = {}


def pytorch_reference(backbone: Backbone, cut: int, images: Tensor, device: torch.device) -> Reference:
    """Run the first ``cut`` stages in PyTorch.

    Raises:
        UserError: not even one image fits into the device's memory.
    """
    stages = Frozen([stage.module for stage in backbone.stages[:cut]])

    def attempt(rows: int) -> Reference:
        stages.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        some = [part.to(device).contiguous(memory_format=torch.channels_last) for part in images.split(rows)]
        with torch.inference_mode():
            found, seconds = _timed(lambda: torch.cat([stages(part).float() for part in some]), len(images))
        return Reference(found.cpu(), seconds)

    try:
        return fitted(attempt, len(images), device)[0]
    except OutOfMemory:
        pass
    raise no_room(f"frozen stages of {backbone.name}", backbone.image_size, "float32", device)


@dataclass(frozen=True)
class FrozenWork:
    """What a study computes with the frozen stages of one backbone.

    Attributes:
        backbone: pretrained.
        cuts: numbers of frozen stages, above 0.
        rows: how many it computes; for few of them it is not worth building an engine other than PyTorch.
        dtype: in which rows are kept.
        precision: of the engine, "float32" or "bfloat16".
        device: where it runs.
    """

    backbone: Backbone
    cuts: Sequence[int]
    rows: int
    dtype: str
    precision: str
    device: torch.device


def calibrate(work: FrozenWork, images: Tensor, reference: Reference, offers: Sequence[Settings]) -> Prefix:
    """Check and time every engine on the deepest cut, choose one within tolerance, and try which cuts chain.

    The engine offered first is chosen unless a later one is clearly faster (see ``CLEARLY``); one of another precision
    than that asked for only where no other is within tolerance.

    Args:
        work: what is computed.
        images: (n, 3, S, S) float32, real and normalised; ``IMAGES`` of them are enough.
        reference: of these images at the deepest cut.
        offers: engines to try, the preferred one first.

    Returns:
        The prefix with its calibration, its engine ready to run.

    Raises:
        NoEngine: no engine is within tolerance at every cut.
        UserError: a number does not fit into float16.
    """
    able, refused = _tried(work, images, reference, offers)
    able = [one for one in able if one[0].engine["precision"] == work.precision] or able
    while able:
        chosen = able[0]
        for one in able[1:]:
            chosen = one if one[0].seconds < CLEARLY * chosen[0].seconds else chosen
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
        "give other weights, or another backbone",
    )
    failed.refused = refused
    raise failed


def _tried(
    work: FrozenWork, images: Tensor, reference: Reference, offers: Sequence[Settings]
) -> tuple[list[tuple[Calibration, Engine]], dict[str, str]]:
    """Return the engines within tolerance at the deepest cut, each timed; and why the others are not among them."""
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
    """Return the pairs of cuts where the way over the shallower one changes no bit."""
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
    """Say whether the deeper cut's rows, computed from the shallower one's, are the same to the last bit."""
    try:
        return torch.equal(prefix.run(rows[pair[0]], *pair), rows[pair[1]])
    except EngineFailed:  # it runs both from the image, but not the stages between
        return False


class _Built(NamedTuple):
    """An engine in the first of its settings that works, and seconds of making it; why other settings do not work."""

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
                engine(torch.zeros(1, *shape))  # padded to a whole batch: is there memory for it?
        except EngineFailed as failure:
            refused[engine_label(settings)] = str(failure)
        except (OSError, ImportError, RuntimeError) as error:  # no room to convert, no such library: others can do it
            refused[engine_label(settings)] = f"{settings['name']}: {gist(error)}"
        else:
            return _Built(settings, engine, time.perf_counter() - began, refused)
    return _Built(group[-1], None, 0.0, refused)


def engine_label(settings: Settings) -> str:
    """Return an engine's name among those that were refused."""
    return f"{settings['name']}, batch {settings['batch']}"


def _measured(settings: Settings, engine: Engine, images: Tensor) -> tuple[Tensor, float]:
    """Return an engine's output for the images, and its seconds per row where every thread's request is full."""
    requests = 1 if engines.kind_of(settings).shares_batch else int(settings["threads"])
    count = max(len(images), int(settings["batch"]) * requests)
    rows = images[torch.arange(count) % len(images)]
    found, seconds = _timed(lambda: engine(rows), count)
    return found[: len(images)].cpu(), seconds


def _timed(run: Callable[[], Tensor], rows: int) -> tuple[Tensor, float]:
    """Return the result and the seconds per row of the better of two runs; the first allocates and tunes."""
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
    """Return a prefix whose engine is chosen and timed, now or on this machine before.

    Stored rows belong to an engine, so one that was chosen goes on for other cuts as long as it can compute them.

    Args:
        work: what is computed.
        images: returns a few real ones, (n, 3, S, S) float32.
        measurements: of this machine.
        fixed: the engine that the study has been using. If there is none, or it cannot compute these stages, it is the
            one that was chosen on this machine last, and after that the one that ``calibrate`` chooses.

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

    before = [one for one in (dict(fixed or {}), measurements.recall(choice)) if one in offered]
    for settings in before:
        try:
            prefix = take([settings])
            break
        except NoEngine as error:  # a cut that no other study had, or images on which it is less exact
            refused |= error.refused
    else:
        pytorch = {"pytorch": {**about, "cut": cuts[-1]}}
        seconds = work.rows * measurements.once(pytorch, lambda: {"seconds": reference().seconds})["seconds"]
        prefix = take([one for one in offered if engines.kind_of(one).worth_seconds <= seconds])
    prefix.calibration = replace(prefix.calibration, refused={**refused, **(prefix.calibration.refused or {})})
    return prefix
