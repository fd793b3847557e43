"""Choice of an engine: its tolerance, its speed, and its batch where memory is short."""

from typing import Any

import pytest
import torch
from torch import Tensor

from unfreeze.activations import calibrate as calibrating
from unfreeze.activations import engines
from unfreeze.activations.calibrate import FrozenWork, NoEngine, Reference, calibrate, pytorch_reference
from unfreeze.activations.engine import Engine, Settings
from unfreeze.activations.prefix import Calibration, Prefix
from unfreeze.errors import UserError
from unfreeze.model.backbone import Backbone, load_backbone
from unfreeze.model.network import Frozen

CPU = torch.device("cpu")
OFFERS = engines.offers(CPU, "float32", 2)


@pytest.fixture(scope="module")
def resnet() -> Backbone:
    return load_backbone("test_resnet", "none", 32, seed=0)


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(11, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def frozen(backbone: Backbone) -> Frozen:
    return Frozen([stage.module for stage in backbone.stages])


def test_float32_replaces_a_precision_that_loses_too_much(
    resnet: Backbone, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    offers = [one for one in engines.offers(CPU, "bfloat16", 2) if one["name"] == "pytorch"]
    assert [one["precision"] for one in offers] == ["bfloat16", "float32"]
    reference = pytorch_reference(resnet, 5, images[:8], CPU)
    found = calibrate(
        FrozenWork(resnet, [3, 5], 0, "float32", "bfloat16", CPU), images[:8], reference, offers
    ).calibration
    assert found.engine == offers[0]
    monkeypatch.setitem(calibrating.TOLERANCE, "bfloat16", 1e-5)
    found = calibrate(
        FrozenWork(resnet, [3, 5], 0, "float32", "bfloat16", CPU), images[:8], reference, offers
    ).calibration
    assert (found.engine, found.error) == (offers[1], 0.0)
    assert found.refused is not None and "above 1e-05" in found.refused["pytorch, batch 32"]


def test_weights_that_give_nan_are_rejected_with_the_error_of_every_engine() -> None:
    backbone = load_backbone("test_resnet", "none", 32, seed=0)
    with torch.no_grad():
        next(backbone.stages[0].module.parameters()).fill_(float("nan"))
    rows, pytorch = torch.zeros(2, 3, 32, 32), OFFERS[-1]
    reference = pytorch_reference(backbone, 1, rows, CPU)
    with pytest.raises(NoEngine) as caught:
        calibrate(FrozenWork(backbone, [1], 0, "float32", "float32", CPU), rows, reference, [pytorch])
    assert str(caught.value) == (
        "no engine computes the frozen stages of test_resnet in float32 (pytorch, batch 32: relative error nan against "
        "PyTorch, above 0.0001)\n"
        "  expected: a relative error of 0.0001 at most\n"
        "  fix:      use other weights, or another backbone"
    )
    assert caught.value.refused == {"pytorch, batch 32": "relative error nan against PyTorch, above 0.0001"}


@pytest.mark.parametrize(("second", "chosen"), [(0.95, 0), (0.85, 1)])
def test_an_engine_replaces_a_preferred_one_only_if_it_is_clearly_faster(
    resnet: Backbone, images: Tensor, monkeypatch: pytest.MonkeyPatch, second: float, chosen: int
) -> None:
    rows, offers = frozen(resnet)(images), [OFFERS[0], OFFERS[-1]]
    monkeypatch.setattr(engines, "build", lambda *_: frozen(resnet))
    monkeypatch.setattr(calibrating, "_measured", lambda *_: (rows, 1.0))  # OpenVINO's; PyTorch's is the reference's
    found = calibrate(
        FrozenWork(resnet, [5], 0, "float32", "float32", CPU), images, Reference(rows, second), offers
    ).calibration
    assert found.engine == offers[chosen]
    assert found.seconds_pytorch == second


def test_an_engine_is_timed_with_a_full_request_for_every_thread(
    resnet: Backbone, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    batched = next(settings for settings in OFFERS if settings["batch"] == 8)
    built = engines.build(batched, frozen(resnet), (3, 32, 32), CPU)
    monkeypatch.setattr(engines, "build", lambda *_: lambda rows: asked.append(len(rows)) or built(rows))
    reference = pytorch_reference(resnet, 5, images[:8], CPU)
    calibrate(FrozenWork(resnet, [5], 0, "float32", "float32", CPU), images[:8], reference, [batched])
    assert set(asked) == {16}


def test_the_largest_pytorch_batch_that_fits_into_memory_is_chosen(
    resnet: Backbone, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = engines.build

    def short(settings: Settings, *rest: Any) -> Engine:
        if int(settings["batch"]) > 8:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return build(settings, *rest)

    monkeypatch.setattr(engines, "build", short)
    offers = engines.offers(torch.device("meta"), "float32", 2)
    reference = pytorch_reference(resnet, 5, images[:8], CPU)
    prefix = calibrate(FrozenWork(resnet, [5], 0, "float32", "float32", CPU), images[:8], reference, offers)
    assert prefix.calibration.engine["batch"] == prefix.batch == 8
    assert list(prefix.calibration.refused or {}) == ["pytorch, batch 32", "pytorch, batch 16"]
    assert torch.equal(prefix.run(images, 0, 5)[:8].float(), prefix.run(images[:8], 0, 5))


def test_frozen_stages_use_a_smaller_batch_where_memory_is_short(
    resnet: Backbone, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = Prefix(resnet, Calibration(OFFERS[-1], 0.0, 0.0, 0.0, 0.0), "float32", CPU)
    whole, forward, fits, error = prefix.run(images, 0, 4), Frozen.forward, 4, torch.OutOfMemoryError("no")

    def short(stages: Frozen, rows: Tensor) -> Tensor:
        if len(rows) > fits:
            raise error
        return forward(stages, rows)

    monkeypatch.setattr(Frozen, "forward", short)
    assert float((prefix.run(images, 0, 4) - whole).abs().max()) < 1e-5
    assert prefix.batch == 4
    assert torch.equal(prefix.run(images[:1], 0, 4), prefix.run(images, 0, 4)[:1])
    fits, error = 0, RuntimeError("CUDA error: device-side assert triggered")
    with pytest.raises(RuntimeError, match=r"^CUDA error: device-side assert triggered$"):
        prefix.run(images, 0, 4)
    error = torch.OutOfMemoryError("no")
    with pytest.raises(UserError) as caught:
        prefix.run(images, 0, 4)
    assert caught.value.given == (
        "the memory of cpu is too small for frozen stages of test_resnet with one image of 32 pixels at a time, in "
        "float32"
    )
    with pytest.raises(UserError, match=r"^the memory of cpu is too small for frozen stages of test_resnet "):
        pytorch_reference(resnet, 5, images[:8], CPU)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_with_little_memory_gets_a_smaller_batch_when_it_is_calibrated() -> None:
    device = torch.device("cuda")
    backbone = load_backbone("test_resnet", "none", 512, seed=0)
    rows = torch.randn(8, 3, 512, 512, generator=torch.Generator().manual_seed(0))
    offers = engines.offers(device, "float32", 2)
    reference = pytorch_reference(backbone, 5, rows, device)
    whole = calibrate(FrozenWork(backbone, [5], 0, "float32", "float32", device), rows, reference, offers)
    assert whole.calibration.engine["batch"] == 32
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    whole.run(rows[:1], 0, 5)  # padded to 32
    peak, total = torch.cuda.max_memory_reserved(), torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(0.2 * peak / total)
    try:
        short = calibrate(FrozenWork(backbone, [5], 0, "float32", "float32", device), rows, reference, offers)
        found = short.run(rows, 0, 5)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert short.calibration.engine["batch"] < 32
    assert float((found - whole.run(rows, 0, 5)).norm() / found.norm()) < 1e-4
