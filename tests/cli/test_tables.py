"""Results table: no digit is lost at any width."""

import io

import pandas as pd
import pytest
from rich.console import Console

from unfreeze.cli.tables import show, summary
from unfreeze.statistics.tables import RESULT_COLUMNS


@pytest.fixture
def results() -> pd.DataFrame:
    rows = [
        {
            "cell": f"{strategy}.{regime}.s{seed}", "strategy": strategy, "regime": regime, "seed": seed,
            "status": "finished" if (strategy, seed) != ("head", 1) else "failed", "epochs": 50,
            "val_metric": 0.5 + seed / 10, "test_metric": 0.4 + seed / 7, "seconds_per_epoch": 75.0,
            "seconds_total": 4000.0,
        }
        for strategy in ("fine_tune_slowly", "head")
        for regime in ("images_10", "images_40_augmented")
        for seed in (0, 1)
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=list(RESULT_COLUMNS)).astype({"val_metric": float, "test_metric": float})


def printed(results: pd.DataFrame, width: int, terminal: bool = True) -> list[str]:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=width, color_system=None)
    show(console, summary(results, "accuracy", console))
    return console.file.getvalue().splitlines()


def test_a_wide_terminal_shows_everything(results):
    assert [line.rstrip() for line in printed(results, 130)] == [
        "accuracy, mean and standard deviation over seeds",
        "strategy           regime                cells   epochs     validation            test   an epoch     a cell",
        "─" * 108,
        "fine_tune_slowly   images_10               2/2       50   55.0 % ± 7.1   47.1 % ± 10.1    1.2 min   66.7 min",
        "fine_tune_slowly   images_40_augmented     2/2       50   55.0 % ± 7.1   47.1 % ± 10.1    1.2 min   66.7 min",
        "head               images_10               1/2       50         50.0 %          40.0 %    1.2 min   66.7 min",
        "head               images_40_augmented     1/2       50         50.0 %          40.0 %    1.2 min   66.7 min",
        "",
    ]


def test_the_title_names_folds_where_there_are_folds(results):
    results["fold"] = [0, 1] * 4
    assert printed(results, 130)[0].rstrip() == "accuracy, mean and standard deviation over seeds and folds"


@pytest.mark.parametrize("width", [80, 90, 100])
def test_a_narrow_terminal_loses_no_digit(results, width):
    lines = printed(results, width)
    assert max(map(len, lines)) <= width
    assert sum("55.0 % ± 7.1   47.1 % ± 10.1" in line for line in lines) == 2
    assert sum("50.0 %" in line and "40.0 %" in line for line in lines) == 2


def test_a_table_overflows_where_numbers_do_not_fit(results):
    assert any("55.0 % ± 7.1   47.1 % ± 10.1" in line for line in printed(results, 30))


def test_additional_test_sets_have_columns(results):
    results["test_site_b_accuracy"] = results["test_site_b_metric"] = 0.25
    lines = printed(results, 1000, terminal=False)
    assert "site_b" in lines[1]
    assert "25.0 % ± 0.0" in lines[3]
    assert not any(line.endswith(" ") for line in lines)
