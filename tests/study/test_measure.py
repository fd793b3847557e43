"""What is measured is remembered, and an engine that was chosen once goes on."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import timm
import torch

from tests.support.kept import KEPT
from unfreeze.config.parse import read_study
from unfreeze.config.resolve import candidates
from unfreeze.model import adapters
from unfreeze.model.backbone import Backbone, load_backbone
from unfreeze.reuse import engines
from unfreeze.reuse.calibrate import NoEngine, Reference
from unfreeze.reuse.engines import Settings
from unfreeze.reuse.prefix import Calibration, Prefix
from unfreeze.store import read_json
from unfreeze.study import measure
from unfreeze.study.forecast import Calibrated
from unfreeze.study.needs import PrefixKey
from unfreeze.study.record import engine_warnings
from unfreeze.study.shared import Costs
from unfreeze.train.device import pick

CPU = pick("cpu", "float32")


@dataclass
class Machine:
    """A machine on which PyTorch takes a second a row and the last engine offered wins; it notes what it was asked.

    As with ResNet-18, the first stages have no convolution for Winograd's way.
    """

    backbone: Backbone
    cache: Path
    asked: list[list[str]] = field(default_factory=list)

    def calibrate(self, backbone: Backbone, cuts: Sequence[int], *rest: Any) -> Prefix:
        offered: Sequence[Settings] = rest[4]
        self.asked.append([str(settings["name"]) for settings in offered])
        able = [settings for settings in offered if settings["name"] != "winograd" or min(cuts) > 1]
        if not able:
            error = NoEngine("no engine")
            error.refused = {"winograd, batch 16": "winograd: no large 3 x 3 convolution"}
            raise error
        fastest = [settings for settings in able if settings["name"] != "pytorch"] or able
        return Prefix(backbone, Calibration(fastest[-1], 0.0, 0.1, 1.0, 0.0), "float32", CPU.device)

    def engine(self, cuts: Sequence[int], rows: int, fixed: Settings | None = None) -> str:
        return str(self.calibration(cuts, rows, fixed).engine["name"])

    def calibration(self, cuts: Sequence[int], rows: int, fixed: Settings | None = None) -> Calibration:
        found = measure.prefix_calibration(
            self.cache,
            self.backbone,
            f"sha up to {max(cuts)}",
            cuts,
            lambda: torch.zeros(1),
            "float32",
            rows,
            CPU,
            fixed,
        )
        return found.calibration


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine(load_backbone("test_resnet", "none", 32, 0), tmp_path)
    monkeypatch.setattr(measure, "pytorch_reference", lambda *_: Reference(torch.zeros(1), 1.0))
    monkeypatch.setattr(measure, "calibrate", made.calibrate)
    return made


def test_the_same_prefix_is_measured_once(machine: Machine) -> None:
    assert [machine.engine([5], 100) for _ in range(3)] == ["winograd"] * 3
    assert machine.asked == [["ncnn", "openvino", "openvino", "winograd", "pytorch"]]


def test_an_engine_that_was_chosen_goes_on_for_other_cuts_and_fewer_rows(machine: Machine) -> None:
    machine.engine([5], 100)
    assert machine.engine([4, 5], 100) == machine.engine([3], 2) == "winograd"
    assert machine.asked[1:] == [["winograd"], ["winograd"]]


def test_little_work_in_pytorch_binds_nobody(machine: Machine) -> None:
    assert machine.engine([5], 2) == "pytorch"
    assert machine.engine([5], 100) == "winograd"
    assert [len(names) for names in machine.asked] == [1, 5]


def test_a_study_keeps_the_engine_that_it_fixed(machine: Machine) -> None:
    machine.engine([5], 100)
    (pytorch,) = [
        one for one in engines.offers(CPU.device, "float32", torch.get_num_threads()) if one["name"] == "pytorch"
    ]
    assert [machine.engine([5], 100, fixed=pytorch) for _ in range(2)] == ["pytorch"] * 2
    assert machine.asked[1:] == [["pytorch"]]


ALL = ["ncnn", "openvino", "openvino", "winograd", "pytorch"]


def test_an_engine_that_was_chosen_for_other_cuts_gives_way_where_it_cannot_go_on(machine: Machine) -> None:
    assert machine.engine([5], 100) == "winograd"
    assert machine.engine([1, 5], 100) == "openvino"
    assert machine.asked == [ALL, ["winograd"], ALL]
    assert machine.engine([1], 100) == machine.engine([5], 100) == machine.engine([1, 5], 100) == "openvino"
    assert machine.asked[3:] == [["openvino"], ["openvino"]]


def named(name: str) -> Settings:
    offered = engines.offers(CPU.device, "float32", torch.get_num_threads())
    return next(one for one in offered if one["name"] == name)


def test_an_engine_that_a_study_fixed_gives_way_to_the_one_chosen_last_where_it_cannot_go_on(machine: Machine) -> None:
    assert machine.engine([1, 5], 100, fixed=named("winograd")) == "openvino"
    assert machine.asked == [["winograd"], ALL]
    found = machine.calibration([1, 4], 100, fixed=named("winograd"))
    assert machine.asked[2:] == [["winograd"], ["openvino"]]
    assert found.refused == {"winograd, batch 16": "winograd: no large 3 x 3 convolution"}


def test_an_engine_that_is_not_offered_any_more_gives_way_to_the_one_chosen_last(machine: Machine) -> None:
    machine.engine([5], 100)
    assert machine.engine([4, 5], 100, fixed={**named("openvino"), "version": "0.1"}) == "winograd"
    assert machine.asked == [ALL, ["winograd"]]


def test_a_study_says_which_kernel_an_engine_was_told_to_take() -> None:
    key, before = PrefixKey("test_resnet", "none", 32, "crop"), {**named("openvino"), "threads": 2}
    before.pop("pointwise", None)
    found = Calibration({**before, "pointwise": "jit_avx2_1x1"}, 0.0, 0.1, 1.0, 0.0)
    calibrated = Calibrated({}, {key: found}, {}, {key: ()}, Costs({}, {}, 0.0, 0.0), 0.0)
    (said,) = engine_warnings({key.label: before}, calibrated, "float32")
    words = f"openvino {before['version']} (float32, 2 threads"
    assert f"used {words}), which is not there any more; frozen stages now run on {words}, jit_avx2_1x1)." in said


def test_a_study_says_that_its_engine_gives_way_and_why() -> None:
    key, fixed = PrefixKey("test_resnet", "none", 32, "crop"), {**named("winograd"), "threads": 2}
    now = "pytorch " + torch.__version__ + " (float32, 1 thread)"

    def said(refused: dict[str, str]) -> list[str]:
        found = Calibration({**named("pytorch"), "threads": 1}, 0.0, 0.1, 1.0, 0.0, refused=refused)
        calibrated = Calibrated({}, {key: found}, {}, {key: ()}, Costs({}, {}, 0.0, 0.0), 0.0)
        return engine_warnings({key.label: fixed}, calibrated, "float32")

    text = (
        f"test_resnet, 32 pixels: the study used winograd {fixed['version']} (float32, 2 threads), which {{}}; frozen "
        f"stages now run on {now}. Finished cells keep their numbers, stored activations are computed anew, and new "
        "cells may differ in the last digits; another --out chooses for all of them"
    )
    assert said({}) == [text.format("is not there any more")]
    reason = "winograd: no large 3 x 3 convolution"
    assert said({"winograd, batch 16": reason}) == [text.format(f"cannot compute all of its frozen stages ({reason})")]


@pytest.mark.parametrize(
    ("module", "name", "value"),
    [(timm, "__version__", "0.1"), (torch, "__version__", "0.1"), (adapters, "STAGE_RULES", 0)],
    ids=["timm", "torch", "rules"],
)
def test_stages_that_may_compute_something_else_are_measured_anew(
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
    assert machine.engine([5], 100) == "winograd"
    assert len(machine.asked) == 2


def test_a_step_is_measured_under_the_key_that_it_always_had() -> None:
    """As computed at 0.1.0; another key would measure every step again."""
    large = {"pool": "flatten", "hidden": [8], "dropout": [0.5]}
    values = {"data": "x", "backbone": "resnet18", "regimes": {"r": {}}}
    values["strategies"] = {
        "a": {"train": "head"},
        "b": {"train": {"last": 1}, "head": large, "optimizer": "sgd", "batch_norm": "train"}
        | {"image_size": 64, "batch_size": 8},
    }
    study = read_study(values=values)
    assert measure.step_key(candidates(study, "a")[""], 5, 0, 5, 3) == "db28228374f42b9d"
    assert measure.step_key(candidates(study, "b")[""], 4, 0, 0, 10) == "2d99dca7127668f6"


def test_what_was_measured_at_0_1_0_is_recalled(monkeypatch: pytest.MonkeyPatch) -> None:
    records = [read_json(path) for path in (KEPT / "cache" / "calibrations").iterdir()]
    (record,) = (record for record in records if "prefix" in record["key"])
    about, engine = record["key"]["prefix"], record["found"]["engine"]
    here = {name: value for name, value in record["key"].items() if name not in ("prefix", "engine")}
    monkeypatch.setattr(measure, "machine", lambda compute: here)
    monkeypatch.setattr(engines, "offers", lambda *asked: [engine])
    backbone: Any = SimpleNamespace(
        name=about["backbone"], image_size=about["size"], weights=SimpleNamespace(sha256="other")
    )

    def images() -> torch.Tensor:
        raise AssertionError("measured again")

    found = measure.prefix_calibration(
        KEPT / "cache", backbone, about["sha256"], about["cuts"], images, about["dtype"], 100, CPU, engine
    )
    assert found.calibration.as_record() == record["found"] | {"refused": {}}
