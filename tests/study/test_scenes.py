"""A study of pictures from a fixed camera, which are alike without being copies."""

from pathlib import Path

import pytest

from tests.support.photos import shots
from tests.support.worlds import tiny_study
from unfreeze import Study
from unfreeze.events import Event, Warned
from unfreeze.storage.records import read_json, read_table


def test_pictures_of_a_fixed_camera_are_all_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNFREEZE_CACHE", str(tmp_path / "cache"))
    shots(tmp_path / "camera", {("ok", 0): 20, ("defect", 0): 20})
    asked = tiny_study(
        tmp_path, data=str(tmp_path / "camera"), strategies={"head": {"train": "head", "optimizer": {"lr": 1e-2}}}
    )
    assert len(Study(**asked).plan().cells) == 1
    for again in (False, True):
        events: list[Event] = []
        results = Study(**asked).run(tmp_path / "out", emit=events.append, workers=0)
        told = [event.text for event in events if isinstance(event, Warned)]
        assert [text[:36] for text in told] == ["40 images look like one picture, lab"], again
        assert results.table["status"].tolist() == ["finished"]
    assert read_table(results.path / "catalog.csv")["status"].tolist() == ["used"] * 40
    assert told[0] in read_json(results.path / "study.json")["notes"]
