"""Golden runs: tiny studies of every kind end with the numbers that they ended with before.

Byte for byte where processor, versions and threads are those that the kept tables were made with; elsewhere texts and
whole numbers are equal, and numbers with a fraction within ``golden.TOLERANCE``, for kernels differ by processor.
Where numbers are meant to change: ``python -m tests.support.golden make tests/support/golden``.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import golden, golden_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    golden_world.draw_world(folder)
    return folder


ALWAYS = ("strategies", "tune", "folds", "killed")
"""Run by ``make test``: most of what can be set. The others are run by ``make test-long``."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name not in ALWAYS)) for name in golden_world.STUDIES]
)
def test_study_ends_with_its_golden_numbers(name: str, world: Path, tmp_path: Path) -> None:
    golden.run(name, world, tmp_path / name)
    found, kept = golden.tables(tmp_path / name), golden.read_tables(golden.GOLDEN / name)
    conditions, now = golden.read_conditions(golden.GOLDEN), golden.conditions()
    others = [key for key in now if now[key] != conditions.get(key)]
    differences = golden.differences(kept, found, golden.TOLERANCE if others else None)
    how = f"compared within {golden.TOLERANCE}: other {', '.join(others)}" if others else "compared byte for byte"
    assert not differences, "\n".join([how, f"{len(differences)} differences", *differences[:20]])


def test_every_study_has_golden_numbers_and_no_others() -> None:
    assert {path.name for path in golden.GOLDEN.iterdir() if path.is_dir()} == set(golden_world.STUDIES)
    for name in golden_world.STUDIES:
        assert set(golden.read_tables(golden.GOLDEN / name)) == {
            "results.csv",
            "comparisons.csv",
            "splits.csv",
            "history.csv",
            "arrays.csv",
        }
    assert sum(path.stat().st_size for path in golden.GOLDEN.rglob("*")) < 1_000_000


KEPT = {"a.csv": "cell,epochs,loss,numbers,note\nhead,3,1.25,0.5 -2e-05,about 90 images\n"}


@pytest.mark.parametrize(
    ("change", "exact", "near"),
    [
        (lambda text: text, 0, 0),
        (lambda text: text.replace("1.25", "1.2500001"), 1, 0),
        (lambda text: text.replace("1.25", "1.251"), 1, 1),
        (lambda text: text.replace("1.25", "nan"), 1, 1),
        (lambda text: text.replace("1.25", ""), 1, 1),
        (lambda text: text.replace("-2e-05", "-3e-05"), 1, 0),
        (lambda text: text.replace("0.5 -2e-05", "0.5"), 1, 1),
        (lambda text: text.replace("3", "4"), 1, 1),
        (lambda text: text.replace("90", "91"), 1, 1),
        (lambda text: text.replace("head", "tail").replace("1.25", "1.3"), 2, 2),
        (lambda text: text.replace("loss", "lost"), 1, 1),
        (lambda text: text + "last,3,1.25,0.5,\n", 1, 1),
        (lambda text: text.replace("head", '"head"'), 1, 0),
    ],
)
def test_what_counts_as_a_difference(change: Callable[[str], str], exact: int, near: int) -> None:
    found = {name: change(text) for name, text in KEPT.items()}
    assert len(golden.differences(KEPT, found)) == exact
    assert len(golden.differences(KEPT, found, golden.TOLERANCE)) == near


def test_a_table_that_is_missing_is_a_difference() -> None:
    assert golden.differences(KEPT, {}, golden.TOLERANCE) == ["a.csv: only in one of them"]
