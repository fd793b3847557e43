from pathlib import Path

import pandas as pd
import pytest

from tests.support.synthetic import ERROR, FAILED, write_study
from unfreeze.errors import UserError
from unfreeze.statistics.tables import (
    RESULT_COLUMNS,
    cell_errors,
    cell_warnings,
    chosen_history,
    history_table,
    results_table,
    summary_table,
)
from unfreeze.storage.records import read_json, read_table, write_json, write_table
from unfreeze.storage.study_dir import StudyDir

COLUMNS = (
    "cell strategy regime seed fold backbone image_size status chosen n_train n_val n_test epochs best_epoch "
    "train_accuracy train_loss val_accuracy val_loss test_accuracy test_loss val_metric test_metric seconds_per_epoch "
    "seconds_total seconds_shared params_total params_trained stopped_by"
).split()
ADDED = ["ranking_metric", "n_ranking", "flops_per_image", "seconds_per_image"]


def test_results_have_the_columns_of_results_csv_in_plan_order(study: StudyDir) -> None:
    table = results_table(study)
    assert list(table.columns) == [*RESULT_COLUMNS, *ADDED] == [*COLUMNS, *ADDED]
    assert list(table["cell"]) == [cell["cell"] for cell in study.planned_cells()]
    record = read_json(study.cell("head.small.s0") / "result.json")
    row = table.set_index("cell").loc["head.small.s0"]
    assert {name: row[name] for name in COLUMNS[12:27]} == {name: record[name] for name in COLUMNS[12:27]}
    assert (row["strategy"], row["regime"], row["seed"], row["status"], row["chosen"]) == (
        "head", "small", 0, "finished", "",
    )  # fmt: skip


def test_failed_and_missing_cells_keep_their_rows_and_get_no_numbers(tmp_path: Path) -> None:
    study = write_study(tmp_path)
    (study.cell("head.full.s0") / "result.json").unlink()
    table = results_table(study).set_index("cell")
    assert table["status"].value_counts().to_dict() == {"finished": 16, "failed": 1, "missing": 1}
    assert (table.loc[FAILED, "status"], table.loc["head.full.s0", "status"]) == ("failed", "missing")
    for cell in (FAILED, "head.full.s0"):
        assert table.loc[cell, COLUMNS[9:27]].isna().all()
        assert table.loc[cell, "backbone"] == "vgg16"


def test_further_test_sets_are_added_at_the_end(tmp_path: Path) -> None:
    study = write_study(tmp_path, seeds=1, failed=None)
    path = study.cell("head.small.s0") / "result.json"
    record = {name: value for name, value in read_json(path).items() if name != "format"}
    write_json(path, {**record, "test_site_b_accuracy": 0.5, "test_site_b_metric": 0.25})
    table = results_table(study)
    assert list(table.columns) == [*COLUMNS, "test_site_b_accuracy", "test_site_b_metric", *ADDED]
    assert table["test_site_b_metric"].dropna().to_list() == [0.25]
    assert "test_site_b_metric_mean" in summary_table(table).columns


def test_a_results_table_survives_its_file(study: StudyDir, tmp_path: Path) -> None:
    table = results_table(study)
    write_table(tmp_path / "results.csv", table)
    again = read_table(tmp_path / "results.csv")
    assert list(again.columns) == [*COLUMNS, *ADDED]
    pd.testing.assert_series_equal(again["test_metric"], table["test_metric"])


def test_history_names_the_cell_of_each_epoch(study: StudyDir) -> None:
    table = history_table(study)
    assert (
        list(table.columns)
        == (
            "cell strategy regime seed fold candidate phase epoch step examples lr train_loss train_accuracy val_loss "
            "val_accuracy seconds val_metric"
        ).split()
    )
    one = table[table["cell"] == "last_block.full.s1"]
    written = read_table(study.cell("last_block.full.s1") / "history.csv")
    assert set(zip(one["strategy"], one["regime"], one["seed"], strict=True)) == {("last_block", "full", 1)}
    assert one["val_loss"].to_list() == written["val_loss"].to_list()
    assert one["epoch"].to_list() == list(range(1, len(written) + 1))
    assert (table["cell"] == FAILED).sum() == 2  # the epochs before its failure


def test_history_of_a_study_that_has_not_started_is_empty(tmp_path: Path) -> None:
    write_json(tmp_path / "plan.json", {"cells": [], "networks": {}})
    assert history_table(StudyDir(tmp_path)).empty
    assert results_table(StudyDir(tmp_path)).empty


def test_chosen_history_holds_the_winning_candidate() -> None:
    results = pd.DataFrame({"cell": ["a", "b"], "chosen": ["1", ""]})
    history = pd.DataFrame({"cell": ["a", "a", "b"], "candidate": ["0", "1", ""], "epoch": [1, 1, 1]})
    assert chosen_history(results, history)[["cell", "candidate"]].values.tolist() == [["a", "1"], ["b", ""]]


def test_summary_is_mean_and_sample_deviation_of_finished_cells() -> None:
    results = pd.DataFrame({"cell": ["a", "b", "c", "d"], "strategy": "head", "regime": ["x", "x", "x", "y"]})
    results["status"] = ["finished", "finished", "failed", "finished"]
    for column in COLUMNS[12:25]:
        results[column] = [0.25, 0.75, None, 1.0]
    table = summary_table(results)
    assert table[["strategy", "regime", "cells", "finished"]].values.tolist() == [
        ["head", "x", 3, 2],
        ["head", "y", 1, 1],
    ]
    assert table["test_metric_mean"].to_list() == [0.5, 1.0]
    assert table["test_metric_std"].to_list()[0] == pytest.approx(0.125**0.5)
    assert table["test_metric_std"].isna().to_list() == [False, True]


def test_errors_and_warnings_by_cell(study: StudyDir) -> None:
    assert cell_errors(study) == {FAILED: ERROR}
    ((warning, cells),) = cell_warnings(study).items()
    assert warning.endswith("has 77 training images, fewer than the 80 asked for")
    assert len(cells) == 12


def test_a_directory_without_a_study_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        results_table(StudyDir(tmp_path))
    assert str(error.value) == (
        f"{tmp_path} does not contain a study: plan.json is missing\n"
        "  expected: a directory that 'unfreeze run' wrote\n"
        "  fix:      give the directory that --out named, by default runs/NAME"
    )
