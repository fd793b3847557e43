"""Calibration and its tolerance; float16; what is not frozen is refused. Row by row: test_rows_alone."""

import pytest
import torch
from torch import Tensor

from unfreeze.model.backbone import Backbone, load_backbone
from unfreeze.model.network import Frozen
from unfreeze.reuse import engines
from unfreeze.reuse.calibrate import calibrate
from unfreeze.reuse.prefix import Calibration, Prefix

CPU = torch.device("cpu")
REFUSED = r"^not wholly frozen, so not reused: stages\.1\.0\.bn1"
OFFERS = engines.offers(CPU, "float32", 2)


@pytest.fixture(scope="module")
def resnet() -> Backbone:
    return load_backbone("test_resnet", "none", 32, seed=0)


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(11, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def frozen(backbone: Backbone) -> Frozen:
    return Frozen([stage.module for stage in backbone.stages])


def test_what_is_not_wholly_frozen_is_refused_with_the_reason(resnet: Backbone) -> None:
    stages = frozen(resnet)
    engines.refuse_unfrozen(stages)
    stages.stages[1][0].bn1.weight.requires_grad_(True)
    with pytest.raises(
        ValueError, match=r"^not wholly frozen, so not reused: stages\.1\.0\.bn1\.weight takes a gradient$"
    ):
        engines.build(OFFERS[0], stages, (3, 32, 32), CPU)
    stages = frozen(resnet)
    stages.stages[1][0].bn1.train()
    with pytest.raises(ValueError, match=REFUSED + " is in training mode$"):
        engines.build(OFFERS[0], stages, (3, 32, 32), CPU)


def test_calibration_keeps_to_the_tolerance_and_tries_which_cuts_chain(resnet: Backbone, images: Tensor) -> None:
    found = calibrate(resnet, [3, 5], images[:8], "float32", "float32", OFFERS[:1], CPU)
    assert found.engine == OFFERS[0]
    assert found.error < 1e-4
    prefix = Prefix(resnet, found, "float32", CPU)
    equal = torch.equal(prefix.run(prefix.run(images, 0, 3), 3, 5), prefix.run(images, 0, 5))
    assert (found.chains == ((3, 5),)) == equal
    assert prefix.starts(5) == ((3, 0) if equal else (0,))


def test_float16_halves_rows_and_refuses_what_does_not_fit(resnet: Backbone, images: Tensor) -> None:
    prefix = Prefix(resnet, Calibration(OFFERS[-1], 0.0, 0.0, 0.0, 0.0), "float16", CPU)
    rows = prefix.run(images, 0, 4)
    assert rows.dtype == torch.float16
    assert prefix.bytes_per_row(4) == rows[0].numel() * 2
    with pytest.raises(FloatingPointError, match=r"do not fit into float16; say activations: float32$"):
        prefix.run(images * 1e9, 0, 4)
