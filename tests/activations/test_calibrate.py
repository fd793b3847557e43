"""Calibrations are remembered, and an engine once chosen is used again."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor

from unfreeze.activations import calibrate as calibrating
from unfreeze.activations import engines
from unfreeze.activations.calibrate import FrozenWork, NoEngine, Reference, calibrated_prefix
from unfreeze.activations.engine import Settings
from unfreeze.activations.keys import PrefixKey
from unfreeze.activations.prefix import Calibration, Prefix
from unfreeze.model import adapters
from unfreeze.model.backbone import Backbone, load_backbone
from unfreeze.storage.measurements import Measurements
from unfreeze.study.activation_plan import PlanCosts
from unfreeze.study.calibrations import Calibrations
from unfreeze.study.record import engine_warnings
from unfreeze.train.device import machine as machine_of
from unfreeze.train.device import pick

CPU = pick("cpu", "float32")
ALL = ["openvino", "openvino", "pytorch"]
REFUSED = {"openvino, batch 8": "openvino, batch 8: no such operation"}


@dataclass
class Machine:
    """A machine on which PyTorch takes a second a row and the first engine offered wins; it notes what it was asked.

    OpenVINO cannot run the first stage alone.
    """

    backbone: Backbone
    cache: Path
    asked: list[list[str]] = field(default_factory=list)

    def calibrate(self, work: FrozenWork, images: Tensor, reference: Any, offered: Sequence[Settings]) -> Prefix:
        self.asked.append([str(settings["name"]) for settings in offered])
        able = [settings for settings in offered if settings["name"] == "pytorch" or min(work.cuts) > 1]
        if not able:
            error = NoEngine("no engine")
            error.refused = REFUSED
            raise error
        return Prefix(work.backbone, Calibration(able[0], 0.0, 0.1, 1.0, 0.0), "float32", CPU.device)

    def engine(self, cuts: Sequence[int], rows: int, fixed: Settings | None = None) -> str:
        return str(self.calibration(cuts, rows, fixed).engine["name"])

    def calibration(self, cuts: Sequence[int], rows: int, fixed: Settings | None = None) -> Calibration:
        work = FrozenWork(self.backbone, cuts, rows, "float32", "float32", CPU.device)
        found = calibrated_prefix(work, lambda: torch.zeros(1), Measurements(self.cache, machine_of(CPU)), fixed)
        return found.calibration


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine(load_backbone("test_resnet", "none", 32, 0), tmp_path)
    monkeypatch.setattr(calibrating, "pytorch_reference", lambda *_: Reference(torch.zeros(1), 1.0))
    monkeypatch.setattr(calibrating, "calibrate", made.calibrate)
    return made


def test_the_same_prefix_is_measured_once(machine: Machine) -> None:
    assert [machine.engine([5], 100) for _ in range(3)] == ["openvino"] * 3
    assert machine.asked == [ALL]


def test_a_chosen_engine_is_used_for_other_cuts_and_fewer_rows(machine: Machine) -> None:
    machine.engine([5], 100)
    assert machine.engine([4, 5], 100) == machine.engine([3], 2) == "openvino"
    assert machine.asked[1:] == [["openvino"], ["openvino"]]


def test_pytorch_chosen_for_little_work_is_not_remembered(machine: Machine) -> None:
    assert machine.engine([5], 2) == "pytorch"
    assert machine.engine([5], 100) == "openvino"
    assert [len(names) for names in machine.asked] == [1, 3]


def test_a_study_keeps_its_engine(machine: Machine) -> None:
    machine.engine([5], 100)
    (pytorch,) = [
        one for one in engines.offers(CPU.device, "float32", torch.get_num_threads()) if one["name"] == "pytorch"
    ]
    assert [machine.engine([5], 100, fixed=pytorch) for _ in range(2)] == ["pytorch"] * 2
    assert machine.asked[1:] == [["pytorch"]]


def test_a_chosen_engine_is_replaced_if_it_cannot_run_other_cuts(machine: Machine) -> None:
    assert machine.engine([5], 100) == "openvino"
    assert machine.engine([1, 5], 100) == "pytorch"
    assert machine.asked == [ALL, ["openvino"], ALL]
    assert machine.engine([1], 100) == machine.engine([5], 100) == machine.engine([1, 5], 100) == "pytorch"
    assert machine.asked[3:] == [["pytorch"], ["pytorch"]]


def named(name: str) -> Settings:
    offered = engines.offers(CPU.device, "float32", torch.get_num_threads())
    return next(one for one in offered if one["name"] == name)


def test_the_engine_of_a_study_is_replaced_by_the_last_chosen_one_if_it_fails(machine: Machine) -> None:
    assert machine.engine([1, 5], 100, fixed=named("openvino")) == "pytorch"
    assert machine.asked == [["openvino"], ALL]
    found = machine.calibration([1, 4], 100, fixed=named("openvino"))
    assert machine.asked[2:] == [["openvino"], ["pytorch"]]
    assert found.refused == REFUSED


def test_an_engine_that_is_no_longer_offered_is_replaced_by_the_last_chosen_one(machine: Machine) -> None:
    machine.engine([5], 100)
    assert machine.engine([4, 5], 100, fixed={**named("openvino"), "version": "0.1"}) == "openvino"
    assert machine.asked == [ALL, ["openvino"]]


def said(before: Settings, refused: dict[str, str]) -> str:
    """Return what a study says that ran on an engine before and runs on PyTorch now, after its label."""
    key = PrefixKey("test_resnet", "none", 32, "crop")
    found = Calibration({**named("pytorch"), "threads": 1}, 0.0, 0.1, 1.0, 0.0, refused=refused)
    calibrated = Calibrations({}, {key: found}, {}, {key: ()}, PlanCosts({}, {}, 0.0, 0.0), 0.0)
    (text,) = engine_warnings({key.label: before}, calibrated, "float32")
    label, _, rest = text.partition(": ")
    assert label == "test_resnet, 32 pixels"
    return rest


NOW = (
    f"using pytorch {torch.__version__} (float32, 1 thread) from now on. Finished cells keep their numbers, "
    "activations are computed again for the others, whose numbers may differ in the last digits; another --out "
    "computes all cells with one engine"
)


def test_a_study_warns_that_its_engine_is_replaced_and_why() -> None:
    fixed = {**named("openvino"), "version": "1", "threads": 2}
    used = "this study used openvino 1 (float32, 2 threads), which"
    assert said(fixed, {}) == f"{used} is not available any more; {NOW}"
    why = "cannot compute all of its frozen stages (openvino, batch 8: no such operation)"
    assert said(fixed, REFUSED) == f"{used} {why}; {NOW}"


@pytest.mark.parametrize(
    "before",
    [{"name": "ncnn"}, {"name": "winograd", "batch": 16}, {"name": "openvino", "pointwise": "jit_avx2_1x1"}],
    ids=lambda before: before["name"],
)
def test_a_study_warns_that_an_engine_of_earlier_versions_is_not_supported(before: Settings) -> None:
    fixed = {"version": "1", "precision": "float32", "batch": 8, "threads": 2, "kernels": "AVX2", **before}
    kernel = f", {before['pointwise']}" if "pointwise" in before else ""
    used = f"this study used {before['name']} 1 (float32, 2 threads{kernel}), which is no longer supported"
    assert said(fixed, {}) == f"{used}; {NOW}"


@pytest.mark.parametrize(
    ("module", "name", "value"),
    [(timm, "__version__", "0.1"), (torch, "__version__", "0.1"), (adapters, "STAGE_RULES", 0)],
    ids=["timm", "torch", "rules"],
)
def test_stages_of_other_versions_are_measured_again(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, module: Any, name: str, value: Any
) -> None:
    machine.engine([5], 100)
    monkeypatch.setattr(module, name, value)
    machine.engine([5], 100)
    assert machine.asked == [ALL, ALL]


def test_an_altered_record_is_measured_again(machine: Machine) -> None:
    machine.engine([5], 100)
    for path in (machine.cache / "calibrations").iterdir():
        path.write_bytes(path.read_bytes()[:-40])
    assert machine.engine([5], 100) == "openvino"
    assert len(machine.asked) == 2
