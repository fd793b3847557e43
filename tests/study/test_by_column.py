"""Test scores by a column of the data."""

import shutil
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from tests.support.worlds import tiny_study, write_photographs
from unfreeze import Results, Study
from unfreeze.cli.app import main
from unfreeze.errors import UserError
from unfreeze.events import Warned
from unfreeze.storage.records import read_table, read_tensors

HEAD = {"strategies": {"head": {"train": "head"}}, "regimes": {"all": {}}}


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Results:
    monkeypatch.setenv("UNFREEZE_CACHE", str(tmp_path / "cache"))
    root = write_photographs(tmp_path / "photographs", per_class=20)
    lines = ["path,label,site"]
    for number, path in enumerate(sorted(root.rglob("*.png"))):
        lines.append(f"{path.relative_to(root).as_posix()},{path.parent.name},{('north', 'south')[number % 2]}")
    (root / "images.csv").write_text("\n".join(lines))
    study = tiny_study(tmp_path, data=str(root / "images.csv"), **HEAD)
    return Study(**study).run(tmp_path / "out", workers=0)


def test_scores_apart_add_up_to_the_whole(results):
    apart, whole = results.by("site"), results.table.iloc[0]
    assert apart["value"].tolist() == ["north", "south"]
    assert apart["images"].sum() == whole["n_test"]
    mean = (apart["accuracy"] * apart["images"]).sum() / apart["images"].sum()
    assert mean == pytest.approx(whole["test_accuracy"])
    assert set(apart["test"]) == {"test"}


def test_a_study_directory_may_be_text(results):
    assert Results(str(results.path)).table.equals(results.table)


def test_the_command_writes_them(results, capsys):
    assert main(["report", str(results.path), "--by", "site"]) == 0
    assert f"by site: {results.path / 'by_site.csv'}" in capsys.readouterr().out
    assert pd.read_csv(results.path / "by_site.csv")["value"].tolist() == ["north", "south"]


def test_a_column_that_is_not_there(results):
    with pytest.raises(UserError) as caught:
        results.by("camera")
    assert str(caught.value) == (
        "--by camera: the data has no such column\n  expected: one of site\n  fix:      for example --by site"
    )


def test_a_test_set_with_one_class_is_scored_under_that_class(tmp_path, monkeypatch):
    """Of a folder with the last class alone, the number of that class is not counted anew."""
    monkeypatch.setenv("UNFREEZE_CACHE", str(tmp_path / "cache"))
    write_photographs(tmp_path / "photographs")
    others = write_photographs(tmp_path / "others", per_class=8, seed=1)
    for label in ("circle", "square"):
        shutil.rmtree(others / label)
    study = tiny_study(tmp_path, tests={"site": str(others)}, **HEAD, epochs=20)
    results = Study(**study).run(tmp_path / "out", workers=0)
    row = results.table.iloc[0]
    logits, about = read_tensors(results.path / "cells" / row["cell"] / "logits.safetensors")
    rows = read_table(results.path / "catalog.csv").set_index("id")
    assert set(rows.loc[about["ids"]["site"], "label"]) == {"triangle"}
    right = logits["site"].argmax(axis=1) == 2
    assert row["test_site_accuracy"] == pytest.approx(right.mean())
    assert right.mean() > 0.5  # so that another number would not do as well


@pytest.mark.parametrize("folds", [None, 2])
def test_copies_in_two_folds_of_the_data_matter_where_they_are_used(tmp_path, monkeypatch, folds):
    monkeypatch.setenv("UNFREEZE_CACHE", str(tmp_path / "cache"))
    root = write_photographs(tmp_path / "photographs")
    lines = ["path,label,fold"]
    for number, path in enumerate(sorted(root.rglob("*.png"))):
        lines.append(f"{path.relative_to(root).as_posix()},{path.parent.name},{number % 2}")
    Image.open(root / "circle/000.png").save(root / "again.bmp")
    (root / "images.csv").write_text("\n".join([*lines, "again.bmp,circle,1"]))
    told: list[str] = []
    study = tiny_study(tmp_path, data=str(root / "images.csv"), **HEAD, split={"folds": folds})
    Study(**study).run(
        tmp_path / "out", workers=0, emit=lambda event: told.append(event.text) if isinstance(event, Warned) else None
    )
    leak = (
        "1 picture has copies in two splits that the data gives, so test scores are optimistic; "
        "first again.bmp and circle/000.png"
    )
    assert told == ([] if folds is None else [leak])
    regimes = "regimes: {all: {}}\nstrategies: {head: {train: head}}\n"
    (tmp_path / "study.yaml").write_text(
        f"data: photographs/images.csv\nbackbone: test_resnet\nsplit: {{folds: {folds or 'null'}}}\n{regimes}"
    )
    monkeypatch.chdir(tmp_path)
    assert main(["check", "study.yaml"]) == 0
    assert ("Related images in several splits" in Path("check.html").read_text("utf-8")) == (folds is not None)
