"""Every engine computes a row independently of its neighbours, and rejects stages that could change."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from unfreeze.activations import engines
from unfreeze.activations.engine import Engine, EngineFailed, Settings
from unfreeze.model.backbone import Backbone, load_backbone
from unfreeze.model.network import Frozen

CPU = torch.device("cpu")
NETWORKS = ("test_resnet", "test_vit", "test_efficientnet")
SIZE = 64


@dataclass(frozen=True)
class Built:
    """An engine with 19 rows, their output by PyTorch and their output by the engine."""

    engine: Engine
    rows: Tensor
    reference: Tensor
    outputs: Tensor


def stages_of(backbone: Backbone, start: int, stop: int) -> Frozen:
    return Frozen([stage.module for stage in backbone.stages[start:stop]])


def offered() -> list[Settings]:
    return engines.offers(CPU, "float32", 2)


def label(settings: Settings) -> str:
    return f"{settings['name']}-{settings['batch']}"


REFUSED = {
    ("test_vit", "openvino-8"): "^openvino, batch 8: ",  # a tracer's constants hold the batch of the trace
}
PAIRS = [(name, settings) for name in NETWORKS for settings in offered() if (name, label(settings)) not in REFUSED]


@pytest.fixture(scope="module", params=PAIRS, ids=lambda pair: f"{pair[0]}-{label(pair[1])}")
def built(request: pytest.FixtureRequest) -> Built:
    name, settings = request.param
    backbone = load_backbone(name, "none", SIZE, 0)
    stages = stages_of(backbone, 0, len(backbone.stages) - 1)
    rows = torch.randn(19, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    reference = stages(rows)
    engine = engines.build(settings, stages, tuple(rows.shape[1:]), CPU)
    return Built(engine, rows, reference, engine(rows))


@pytest.mark.parametrize(("name", "engine"), REFUSED)
def test_a_network_that_an_engine_cannot_run_is_rejected(name: str, engine: str) -> None:
    backbone = load_backbone(name, "none", 64, 0)
    settings = next(settings for settings in offered() if label(settings) == engine)
    with pytest.raises(EngineFailed, match=REFUSED[name, engine]):
        engines.build(settings, stages_of(backbone, 0, len(backbone.stages)), (3, 64, 64), CPU)


def test_a_row_alone_equals_that_row_among_others(built: Built) -> None:
    assert built.outputs.shape == built.reference.shape
    for index in (0, 7, 8, 18):
        assert torch.equal(built.engine(built.rows[index : index + 1])[0], built.outputs[index])


def test_the_output_of_a_row_does_not_depend_on_its_position(built: Built) -> None:
    order = torch.randperm(len(built.rows), generator=torch.Generator().manual_seed(2))
    assert torch.equal(built.engine(built.rows[order]), built.outputs[order])


def test_an_incomplete_last_batch(built: Built) -> None:
    for count in (2, 8, 9, 17):
        assert torch.equal(built.engine(built.rows[:count]), built.outputs[:count]), count


def test_more_rows_than_a_batch(built: Built) -> None:
    many = torch.cat([built.rows] * 2)  # 38: above PyTorch's batch of 32
    assert torch.equal(built.engine(many), torch.cat([built.outputs] * 2))


def test_rows_are_contiguous_float32_without_a_graph_and_may_be_trained_on(built: Built) -> None:
    assert built.outputs.dtype == torch.float32
    assert built.outputs.is_contiguous()
    assert not built.outputs.requires_grad
    assert not built.outputs.is_inference()


def test_outputs_equal_those_of_pytorch_within_tolerance(built: Built) -> None:
    assert float((built.outputs - built.reference).norm() / built.reference.norm()) < 1e-4


def test_openvino_outputs_do_not_depend_on_the_number_of_threads() -> None:
    settings = next(settings for settings in offered() if settings["name"] == "openvino")
    backbone = load_backbone("test_resnet", "none", 64, 0)
    stages = stages_of(backbone, 0, len(backbone.stages))
    rows = torch.randn(11, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    found = [engines.build({**settings, "threads": threads}, stages, (3, 64, 64), CPU)(rows) for threads in (1, 2)]
    assert torch.equal(*found)


def test_the_same_engine_is_offered_in_the_same_settings() -> None:
    assert offered() == offered()
    assert {settings["name"] for settings in offered()} == {"openvino", "pytorch"}
    assert all(settings["version"] and settings["precision"] == "float32" for settings in offered())


def test_only_pytorch_is_offered_for_other_devices_than_the_cpu() -> None:
    found = [(one["name"], one["batch"]) for one in engines.offers(torch.device("meta"), "float32", 2)]
    assert found == [("pytorch", batch) for batch in (32, 16, 8, 4, 2, 1)]  # as many as its memory has room for


def small() -> Frozen:
    return Frozen([nn.Sequential(nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.Dropout(0.5))])


@pytest.mark.parametrize("settings", offered(), ids=label)
def test_stages_with_a_trainable_parameter_are_rejected(settings: Settings) -> None:
    stages = small()
    next(stages.parameters()).requires_grad_(True)
    with pytest.raises(ValueError) as caught:  # noqa: PT011, the whole message is below
        engines.build(settings, stages, (8, 8, 8), CPU)
    assert str(caught.value) == "not wholly frozen, so not reused: stages.0.0.weight takes a gradient"


@pytest.mark.parametrize("settings", offered(), ids=label)
def test_stages_with_a_module_in_training_mode_are_rejected(settings: Settings) -> None:
    stages = small()
    next(module for module in stages.modules() if isinstance(module, nn.BatchNorm2d)).train()
    with pytest.raises(ValueError) as caught:  # noqa: PT011, the whole message is below
        engines.build(settings, stages, (8, 8, 8), CPU)
    assert str(caught.value) == "not wholly frozen, so not reused: stages.0.1 is in training mode"


def test_a_prefix_in_training_mode_is_rejected() -> None:
    stages = small()
    stages.training = True
    with pytest.raises(ValueError) as caught:  # noqa: PT011, the whole message is below
        engines.refuse_unfrozen(stages)
    assert str(caught.value) == "not wholly frozen, so not reused: the prefix is in training mode"


@pytest.mark.parametrize("settings", offered(), ids=label)
def test_dropout_and_batchnorm_are_in_inference_mode(settings: Settings) -> None:
    stages = small()
    rows = torch.randn(5, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    before = {name: tensor.clone() for name, tensor in stages.state_dict().items()}
    engine = engines.build(settings, stages, (8, 8, 8), CPU)
    assert torch.equal(engine(rows), engine(rows))
    assert all(torch.equal(tensor, before[name]) for name, tensor in stages.state_dict().items())
