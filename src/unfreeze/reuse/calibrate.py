"""Choose the engine of a prefix from a few real images, in a few seconds; once for a study."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import combinations, pairwise

import torch
from torch import Tensor

from unfreeze.model.backbone import Backbone
from unfreeze.model.network import Frozen
from unfreeze.reuse import engines
from unfreeze.reuse.engines import Settings
from unfreeze.reuse.engines.failed import EngineFailed
from unfreeze.reuse.prefix import TOLERANCE, Calibration, Prefix

IMAGES = 8


def pytorch_seconds(backbone: Backbone, cut: int, images: Tensor, device: torch.device) -> float:
    """Return PyTorch's seconds for one image up to a cut, channels-last."""
    return _pytorch(Frozen([stage.module for stage in backbone.stages[:cut]]), images.to(device))[1]


def calibrate(
    backbone: Backbone,
    cuts: Sequence[int],
    images: Tensor,
    precision: str,
    dtype: str,
    offers: Sequence[Settings],
    device: torch.device,
) -> Calibration:
    """Measure every engine on the deepest cut, take the fastest within tolerance, and try which cuts chain.

    Args:
        backbone: pretrained.
        cuts: numbers of frozen stages in the study, above 0.
        images: (n, 3, S, S) float32, real and normalised; ``IMAGES`` of them are enough.
        precision: "float32" or "bfloat16".
        dtype: in which rows are kept.
        offers: engines to try.
        device: where the study runs.
    """
    stages = Frozen([stage.module for stage in backbone.stages[: max(cuts)]])
    reference, seconds_pytorch = _pytorch(stages, images.to(device))
    best: Calibration | None = None
    refused: dict[str, str] = {}
    working = set[object]()
    for settings in offers:
        if settings["name"] in working:  # in settings offered before these
            continue
        label = f"{settings['name']}, batch {settings['batch']}"
        try:
            if settings["name"] == "pytorch" and precision == "float32":  # the reference itself
                found, seconds, build = reference, seconds_pytorch, 0.0
            else:
                found, seconds, build = _measured(settings, stages, images, device)
        except EngineFailed as failure:
            refused[label] = str(failure)
            continue
        working.add(settings["name"])
        error = float((found - reference).norm() / reference.norm().clamp_min(1e-30))
        if not error <= TOLERANCE[precision]:
            refused[label] = f"relative error {error:.1e} against PyTorch, above {TOLERANCE[precision]:g}"
        elif best is None or seconds < best.seconds:
            best = Calibration(settings, error, seconds, seconds_pytorch, build)
    if best is None:
        raise RuntimeError(f"no engine computes {backbone.name} within tolerance: {refused}")
    chains = _chains(Prefix(backbone, best, dtype, device), sorted(set(cuts)), images)
    return replace(best, chains=chains, refused=refused)


def _chains(prefix: Prefix, cuts: Sequence[int], images: Tensor) -> tuple[tuple[int, int], ...]:
    """Return the pairs of cuts where the way over the shallower one changes no bit."""
    if len(cuts) < 2:
        return ()
    if prefix.calibration.engine["name"] == "pytorch" and prefix.dtype == "float32":
        return tuple(combinations(cuts, 2))  # stage by stage either way, which loading the backbone has checked
    rows = {cut: prefix.run(images, 0, cut) for cut in cuts}
    near = [pair for pair in pairwise(cuts) if torch.equal(prefix.run(rows[pair[0]], *pair), rows[pair[1]])]
    # A way over several equal links is equal; others are not tried, each would be one more network to build.
    return tuple(
        (low, high)
        for low, high in combinations(cuts, 2)
        if all(link in near for link in pairwise([cut for cut in cuts if low <= cut <= high]))
    )


def _measured(settings: Settings, stages: Frozen, images: Tensor, device: torch.device) -> tuple[Tensor, float, float]:
    """Return an engine's output for the images, its seconds a row where requests are full, and those of building it."""
    began = time.perf_counter()
    engine = engines.build(settings, stages, tuple(images.shape[1:]), device)
    build = time.perf_counter() - began
    count = max(len(images), int(settings["batch"]))
    found, seconds = _timed(lambda: engine(images[torch.arange(count) % len(images)]), count)
    return found[: len(images)].cpu(), seconds, build


def _pytorch(stages: Frozen, images: Tensor) -> tuple[Tensor, float]:
    stages.to(images.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    rows = images.contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        found, seconds = _timed(lambda: stages(rows), len(rows))
    return found.float().cpu(), seconds


def _timed(run: Callable[[], Tensor], rows: int) -> tuple[Tensor, float]:
    """Return the result and the seconds a row of the best of two runs after a first, which allocates and tunes."""
    found, best = run(), float("inf")
    for _ in range(2):
        _wait()
        started = time.perf_counter()
        found = run()
        _wait()
        best = min(best, time.perf_counter() - started)
    return found, best / rows


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
