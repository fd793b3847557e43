"""The report as a page: one safe file, its sections, its figures, and its tables."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest

from tests.support.page import Page
from tests.support.synthetic import FAILED, MARKUP, REGIMES, STRATEGIES, shared_results, write_study
from unfreeze.report.figures import grid_figures, seconds_figure
from unfreeze.report.page import study_size, write_report
from unfreeze.report.sections.shared_work import shared_work
from unfreeze.statistics.study_results import read_study_results, record_of
from unfreeze.storage.records import read_json, read_tensors, write_json, write_tensors
from unfreeze.storage.study_dir import StudyDir

SECTIONS = ["answer", "grid", "data", "cost", "inside", "how"]


@pytest.fixture(scope="module")
def page(report: Path) -> Page:
    return Page(report.read_text(encoding="utf-8"))


def test_one_file_under_six_megabytes(report: Path) -> None:
    assert [path.name for path in report.parent.iterdir()] == ["report.html"]
    assert report.stat().st_size < 6_000_000


def test_nothing_is_requested_from_outside(page: Page) -> None:
    for tag, attributes in page.tags:
        assert tag not in ("link", "iframe", "object", "embed", "base", "form"), tag
        assert not {name for name in attributes if name.startswith("on")}
        assert (attributes.get("src") or "data:").startswith("data:")
        assert (attributes.get("href") or "#").startswith("#")
    (policy,) = [a["content"] for tag, a in page.tags if tag == "meta" and a.get("http-equiv")]
    assert policy is not None and policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy.split(";")[1]


def test_names_are_text_never_markup(page: Page, report: Path) -> None:
    source = report.read_text(encoding="utf-8")
    assert MARKUP not in source
    assert MARKUP in page.text
    assert "<b>of</b> epoch 3" in page.text  # an error's text
    assert [tag for tag, _ in page.tags].count("script") == 3
    assert len(page.scripts) == 3


def test_figures_are_plain_json_without_nan(page: Page) -> None:
    def refuse(name: str) -> None:
        raise AssertionError(name)

    figures = json.loads(page.scripts[0], parse_constant=refuse)
    assert list(figures)[:10] == [f"grid-{number}" for number in range(9)] + ["seconds"]
    shown = {attributes["data-figure"] for _, attributes in page.tags if "data-figure" in attributes}
    assert shown == set(figures)


def test_sections_come_in_order_and_hold_every_cell(page: Page) -> None:
    assert [a["id"] for tag, a in page.tags if tag in ("header", "section")] == SECTIONS
    text = page.words
    for strategy in STRATEGIES:
        for regime in REGIMES:
            assert f"{strategy} {regime}" in text
    for row in shared_results().table.itertuples():
        assert f"{row.strategy} {row.regime} Close" in text
    assert text.count("Every run") == 9
    assert text.count(" failed RuntimeError: the loss is not a number") == 1
    assert FAILED in text


def test_the_answer_and_the_notes_come_first(page: Page) -> None:
    top = re.sub(r"\s+", " ", page.text[: page.text.index("Open a recipe")])
    assert "Use head with full mean validation accuracy 90.8 % on 60 images; last_block with full reaches " in top
    assert "Test accuracy 88.8 % 95 % interval 80.7 to 93.7; 2 seeds, 120 test images" in top
    assert "The images that stopped the training also report the score, as in the article." in top
    assert f"1 cell failed: {FAILED} (RuntimeError: the loss is not a number after step 12 <b>of</b> epoch 3)" in top
    assert "has 77 training images, fewer than the 80 asked for (12 cells)" in top


def test_test_images_are_counted_over_all_folds() -> None:
    results = pd.DataFrame(
        {"strategy": "head", "regime": "full", "seed": [0, 0, 1, 1], "fold": [0, 1, 0, 1], "n_test": [13, 15, 13, 15]}
    ).astype({"fold": "Int64", "n_test": "Int64"})
    whole = results.assign(fold=pd.NA).astype({"fold": "Int64"})
    assert study_size({"classes": ["a", "b"]}, results)[-1] == "28 test images"
    assert study_size({"classes": ["a", "b"]}, whole)[-1] == "15 test images"


def test_strategies_show_their_stages_in_each_phase(page: Page) -> None:
    text = re.sub(r"\s+", " ", page.text[page.text.index("The strategies") : page.text.index("To reproduce")])
    assert "Phase 1: " in text and "Phase 2: " in text
    assert text.count("block5 frozen 512 × 2 × 2 7.1 M params") == 2  # head, and the first phase of last_block
    assert text.count("block5 trained 512 × 2 × 2 7.1 M params") == 1
    assert text.count("block5 new 512 × 2 × 2 7.1 M params") == 1
    assert "13,380,102 of 21,015,366 parameters train" in text
    assert "Linear 2048 to 1024, Linear 1024 to 6" in text


def test_a_study_that_has_not_run_has_a_report_with_its_plan(tmp_path: Path) -> None:
    study = write_study(tmp_path, seeds=1, failed=None)
    for path in (study.path / "cells").glob("*/*"):
        path.unlink()
    (study.path / "environment.json").unlink()
    add_shared_work(study)
    page = Page(write_report(read_study_results(study)).read_text(encoding="utf-8"))
    assert "No cell has finished yet, so there is nothing to compare." in page.text
    assert "9 cells have not run yet; repeat the run command to resume." in page.text
    assert page.text.count("not run") > 9
    assert json.loads(page.scripts[0]) == {}
    text = page.words[page.words.index("What was computed once") : page.words.index("The strategies")]
    assert "vgg16, 128 pixels, after block5 600 1.5 MB after block4 3 – –" in text
    assert "vgg16, 128 pixels, after block4 600 1.5 MB not stored: others save more 3 – –" in text
    assert "No run has recorded its time yet." in text
    assert "Disk: predicted 2.0 MB; 500.0 kB of it for decoded images." in text
    assert "training every cell separately in plain PyTorch takes 6.7 min, 10.0 times as long as the study." in text
    assert (
        "Frozen stages of vgg16, 128 pixels: openvino 2025.4 (float32), relative error against PyTorch 3e-06." in text
    )
    why = "reuses nothing: everything trains, so there is no frozen work to reuse."
    assert f"scratch with small, small_augmented and full: {why}" in text
    assert "chunk" not in text


def test_a_metric_other_than_accuracy_and_no_test_set(tmp_path: Path) -> None:
    study = write_study(tmp_path, seeds=1, failed=None, metric="log_loss")
    for path in (study.path / "cells").glob("*/result.json"):
        result = {name: value for name, value in read_json(path).items() if name != "format"}
        write_json(path, {**result, "test_accuracy": None, "test_loss": None, "test_metric": None, "n_test": 0})
        logits, about = read_tensors(path.parent / "logits.safetensors")
        write_tensors(path.parent / "logits.safetensors", {"validation": logits["validation"]}, about)
    text = Page(write_report(read_study_results(study)).read_text(encoding="utf-8")).text
    assert "Validation log loss" in text
    assert "there are no test images, and this score was used for selection, so it is optimistic" in text


def test_grid_figures_share_their_axes_and_mark_the_best_epoch() -> None:
    results = shared_results().table
    figures = grid_figures(results, shared_results().history)
    assert list(figures) == [(strategy, regime) for strategy in STRATEGIES for regime in REGIMES]
    for axis in ("xaxis", "xaxis2", "yaxis", "yaxis2"):
        assert len({figure.layout[axis].range for figure in figures.values()}) == 1
    rings = [trace for trace in figures["head", "full"].data if trace.mode == "markers"]
    best = results.set_index("cell")["best_epoch"]
    assert [trace.x[0] for trace in rings[::2]] == [best["head.full.s0"], best["head.full.s1"]]


def test_a_diverged_loss_leaves_a_gap_and_makes_the_axis_logarithmic() -> None:
    history = shared_results().history.copy()
    history.loc[3, "train_loss"], history.loc[4, "train_loss"] = 900.0, float("inf")
    figure = grid_figures(shared_results().table, history)["scratch", "small"]
    assert figure.layout.yaxis2.type == "log"
    losses, _ = (trace.y for trace in figure.data if trace.legendgroup == "train" and trace.yaxis == "y2")
    assert losses[3:5] == (900.0, None)


def test_seconds_figure_escapes_names_and_is_none_without_numbers() -> None:
    results = shared_results().table
    figure = seconds_figure(results.assign(strategy=MARKUP + "%{x}"))
    assert figure is not None
    text = json.dumps(figure.to_plotly_json())
    assert "<img" not in text and "&lt;img" in text and "&#37;{x}" in text
    assert seconds_figure(results.assign(status="failed")) is None


def test_grid_figures_show_the_chosen_of_tuned_candidates() -> None:
    results, history = shared_results().table, shared_results().history
    own = history["cell"] == "head.small.s0"
    tuned = pd.concat([history.assign(candidate=history["candidate"].mask(own, "lr=0.01")),
                       history[own].assign(candidate="lr=0.1", val_accuracy=0.01)])  # fmt: skip
    chosen = results.assign(chosen=results["chosen"].mask(results["cell"] == "head.small.s0", "lr=0.01"))
    figure = grid_figures(chosen, tuned)["head", "small"]
    curves = [trace.y for trace in figure.data if trace.legendgroup == "validation" and trace.yaxis == "y"]
    assert len(curves) == 2 and len(curves[0]) == own.sum() and min(curves[0]) > 0.01


def add_shared_work(study: StudyDir) -> None:
    """Say in its plan and study.json that the heads share one piece of work, and that one does not fit."""
    plan = {name: value for name, value in read_json(study.path / "plan.json").items() if name != "format"}
    heads = [cell["cell"] for cell in plan["cells"] if cell["strategy"] == "head"]
    piece = {"name": "vgg16, 128 pixels, after block5", "rows": 600, "bytes": 1_500_000, "held": 0, "stored": True}
    piece |= {"why_not": "", "built_from": "vgg16, 128 pixels, after block4", "cells": heads, "seconds": 30.0}
    large = {**piece, "name": "vgg16, 128 pixels, after block4", "stored": False, "why_not": "others save more"}
    reuse = [
        {"cell": cell["cell"], "seconds": 1.0, "seconds_alone": 10.0}
        | {"reuses": [piece["name"]] if cell["cell"] in heads else []}
        | {"why_not": ["everything trains, so there is no frozen work to reuse"] * (cell["strategy"] == "scratch")}
        for cell in plan["cells"]
    ]
    told = {"seconds": 40.0, "seconds_alone": 400.0, "ratio": 10.0, "disk": 2_000_000, "pixel_bytes": 500_000}
    write_json(study.path / "plan.json", {**plan, "shared": [large, piece], "reuse": reuse, "predictions": told})
    record = {name: value for name, value in read_json(study.path / "study.json").items() if name != "format"}
    engine = {"name": "openvino", "version": "2025.4", "precision": "float32", "threads": 2}
    write_json(
        study.path / "study.json", {**record, "engines": {"vgg16, 128 pixels": {"engine": engine, "error": 3e-6}}}
    )


def test_what_was_computed_once_is_set_against_the_prediction(tmp_path: Path) -> None:
    study = write_study(tmp_path, seeds=1, failed=None)
    add_shared_work(study)
    run = {
        "predicted_seconds": 20.0,
        "seconds": {"scan": 3.0, "calibration": 2.0, "cells": 22.0, "total": 28.0},
        "pieces": [{"name": "vgg16, 128 pixels, after block5", "rows": 300, "seconds": 4.0}],
        "altered_chunks": 0,
        "predicted_disk": 2_000_000,
        "disk": 2_010_000,
    }
    before = {**run, "seconds": {"scan": 3.0, "calibration": 2.0, "total": 27.0}}  # cells were timed alone
    write_json(study.path / "shared.json", {"runs": [before, {**run, "altered_chunks": 1}]})
    shown = shared_work(*(record_of(study.path / name) for name in ("study.json", "plan.json", "shared.json")))
    assert shown is not None
    (stored,) = [one for one in shown.activations if one.stored]
    assert (stored.cells, stored.computed, stored.seconds) == (3, 600, 8.0)
    text = " ".join(shown.sentences)
    assert (
        "Time: predicted 40 s, measured 44 s (+10.0 %), plus 6.0 s for scanning the images and 4.0 s for timing the "
        "networks, in 2 runs." in text
    )
    assert "Disk: predicted 2.0 MB, measured 2.0 MB (+0.5 %)" in text
    assert "1 stored chunk was unreadable or altered, and was computed again." in text
