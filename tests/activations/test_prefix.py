"""Frozen prefix: its cuts, chained cuts, and rows in float16."""

import json
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from unfreeze.activations import engines
from unfreeze.activations.calibrate import FrozenWork, calibrate, pytorch_reference
from unfreeze.activations.engine import Settings
from unfreeze.activations.prefix import Calibration, Prefix
from unfreeze.errors import UserError
from unfreeze.model.backbone import Backbone, load_backbone

CPU = torch.device("cpu")
CUTS = (2, 3, 4)


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return load_backbone("test_resnet", "none", 64, 0)


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(8, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def offers(name: str) -> list[Settings]:
    return [settings for settings in engines.offers(CPU, "float32", 1) if settings["name"] == name]


def unmeasured(**values: object) -> Calibration:
    return replace(Calibration(offers("pytorch")[0], 0.0, 0.0, 0.0, 0.0), **values)  # type: ignore[arg-type]


@pytest.mark.parametrize(("engine", "dtype"), [("pytorch", "float32"), ("pytorch", "float16"), ("openvino", "float32")])
def test_rows_of_chained_cuts_are_the_same_bit_for_bit(
    backbone: Backbone, images: Tensor, engine: str, dtype: str
) -> None:
    cuts = CUTS if engine == "pytorch" else CUTS[1:]  # each more takes the others two networks
    reference = pytorch_reference(backbone, max(cuts), images, CPU)
    prefix = calibrate(FrozenWork(backbone, cuts, 0, dtype, "float32", CPU), images, reference, offers(engine)[:1])
    found = prefix.calibration
    assert found.engine == offers(engine)[0]
    assert prefix.forwards == 0
    assert found.error < 1e-4
    for low, high in found.chains:
        assert torch.equal(prefix.run(prefix.run(images, 0, low), low, high), prefix.run(images, 0, high))
    if (engine, dtype) == ("pytorch", "float32"):
        assert found.chains == ((2, 3), (2, 4), (3, 4))


def test_starts_are_the_chained_cuts_deepest_first_and_the_image(backbone: Backbone) -> None:
    prefix = Prefix(backbone, unmeasured(chains=((2, 3), (2, 4), (3, 4))), "float32", CPU)
    assert [prefix.starts(cut) for cut in CUTS] == [(0,), (2, 0), (3, 2, 0)]


def test_a_calibration_equals_its_record(backbone: Backbone, images: Tensor) -> None:
    reference = pytorch_reference(backbone, max(CUTS), images, CPU)
    found = calibrate(
        FrozenWork(backbone, CUTS, 0, "float32", "float32", CPU), images, reference, offers("pytorch")
    ).calibration
    assert Calibration.from_record(json.loads(json.dumps(found.as_record()))) == found


def test_float16_rows_are_the_float32_rows_rounded(backbone: Backbone, images: Tensor) -> None:
    whole, half = (Prefix(backbone, unmeasured(), dtype, CPU) for dtype in ("float32", "float16"))
    found = half.run(images, 0, 3)
    assert found.dtype == torch.float16
    assert torch.equal(found, whole.run(images, 0, 3).half())
    assert half.bytes_per_row(3) * 2 == whole.bytes_per_row(3) == 4 * whole.run(images, 0, 3)[0].numel()


def test_shapes_and_number_of_forwards(backbone: Backbone, images: Tensor) -> None:
    prefix = Prefix(backbone, unmeasured(), "float32", CPU)
    assert prefix.shape(0) == (3, 64, 64)
    assert tuple(prefix.run(images, 0, 4).shape[1:]) == prefix.shape(4)
    prefix.run(images[:3], 0, 2)
    assert prefix.forwards == 11


class Large(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.full_like(x, -70000.0)


def test_a_number_too_large_for_float16_is_rejected(backbone: Backbone, images: Tensor) -> None:
    stages = (replace(backbone.stages[0], module=Large()), *backbone.stages[1:])
    changed = replace(backbone, stages=stages)
    Prefix(changed, unmeasured(), "float32", CPU).run(images, 0, 1)
    with pytest.raises(UserError) as caught:
        Prefix(changed, unmeasured(), "float16", CPU).run(images, 0, 1)
    assert str(caught.value) == (
        "activations: float16, but test_resnet gives numbers up to 7e+04\n"
        "  expected: numbers below 65504\n"
        "  fix:      set activations: float32"
    )


def test_the_hash_depends_only_on_the_stages_before_the_cut(backbone: Backbone) -> None:
    other = load_backbone("test_resnet", "none", 64, 0)
    with torch.no_grad():
        next(other.stages[3].module.parameters()).view(-1)[0] += 1
    mine, changed = (Prefix(one, unmeasured(), "float32", CPU) for one in (backbone, other))
    assert [mine.sha256(cut) == changed.sha256(cut) for cut in (1, 3, 4, 5)] == [True, True, False, False]
