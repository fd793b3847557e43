"""What is measured is remembered, and an engine that was chosen once goes on."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from unfreeze.model.backbone import Backbone, load_backbone
from unfreeze.reuse import engines
from unfreeze.reuse.calibrate import Reference
from unfreeze.reuse.engines import Settings
from unfreeze.reuse.prefix import Calibration, Prefix
from unfreeze.study import measure
from unfreeze.train.device import pick

CPU = pick("cpu", "float32")


@dataclass
class Machine:
    """A machine on which PyTorch takes a second a row and the last engine offered wins; it notes what it was asked."""

    backbone: Backbone
    cache: Path
    asked: list[list[str]] = field(default_factory=list)

    def calibrate(self, backbone: Backbone, cuts: Sequence[int], *rest: Any) -> Prefix:
        offered: Sequence[Settings] = rest[4]
        self.asked.append([str(settings["name"]) for settings in offered])
        fastest = [settings for settings in offered if settings["name"] != "pytorch"] or offered
        return Prefix(backbone, Calibration(fastest[-1], 0.0, 0.1, 1.0, 0.0), "float32", CPU.device)

    def engine(self, cuts: Sequence[int], rows: int, fixed: Settings | None = None) -> str:
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
        return str(found.calibration.engine["name"])


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


def test_an_altered_record_is_measured_again(machine: Machine) -> None:
    machine.engine([5], 100)
    for path in (machine.cache / "calibrations").iterdir():
        path.write_bytes(path.read_bytes()[:-40])
    assert machine.engine([5], 100) == "winograd"
    assert len(machine.asked) == 2
