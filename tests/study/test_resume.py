"""A stopped run resumes to the same files, bit for bit but for times."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.finished import ends
from tests.support.stops import Stopped, Stops
from tests.support.studies import (
    ANEW,
    BACK,
    BANK,
    EARLY,
    EARLY_TWO,
    EPOCHS,
    FRESH,
    GROUP,
    ONE,
    OVERSAMPLED,
    PLAIN,
    SCRATCH,
    SIZES,
    TUNED,
    TWO,
)  # fmt: skip
from tests.support.worlds import tiny_study
from unfreeze import Study
from unfreeze.events import Event
from unfreeze.study.run import run_study

STUDIES: dict[str, dict[str, Any]] = {
    "one phase, dropout": {"strategies": ONE, "regimes": FRESH},
    "two phases, AdamW": {"strategies": TWO, "regimes": FRESH},
    "a phase that freezes again, BatchNorm training": {"strategies": BACK, "regimes": FRESH},
    "fresh weights, SGD": {"strategies": ANEW, "regimes": PLAIN},
    "candidates, one diverges": {"strategies": TUNED, "regimes": PLAIN},
    "candidates on two streams": {"strategies": SIZES, "regimes": BANK},
    "early stopping": {"strategies": EARLY, "regimes": BANK},
    "early stopping in two phases": {"strategies": EARLY_TWO, "regimes": PLAIN},
    "from scratch, channels-last": {"strategies": SCRATCH, "regimes": FRESH},
    "lock-step, plain": {"strategies": GROUP, "regimes": PLAIN},
    "lock-step, bank": {"strategies": GROUP, "regimes": BANK},
    "lock-step, fresh": {"strategies": GROUP, "regimes": FRESH},
    "epochs of examples": {"strategies": GROUP, "regimes": EPOCHS},
    "oversampled": {"strategies": ONE, "regimes": OVERSAMPLED},
    "auroc, not defined": {"strategies": TUNED, "regimes": PLAIN, "metric": "auroc"},
}
QUICK = ("candidates on two streams", "lock-step, bank")
"""Those that are tried by default, with lock-step on fresh views below; the others take minutes together."""


def run(folder: Path, out: Path, stops: Callable[[Event], None], **values: Any) -> None:
    run_study(Study(**tiny_study(folder, **values)).config, out, stops, workers=0)


def stopped(folder: Path, out: Path, after: int, **values: Any) -> bool:
    """Run until so many steps are done; tell whether there were so many."""
    try:
        run(folder, out, Stops(after), **values)
    except Stopped:
        return True
    return False


def check(name: str, folder: Path, chosen: Callable[[int], list[int]]) -> None:
    """Stop a study after some of its steps, each time in a directory of its own, and let it go on to its end."""
    study = STUDIES[name]
    whole = Stops()
    run(folder, folder / "whole", whole, **study)
    expected = ends(folder / "whole")
    assert any(path.endswith("result.json") for path in expected)
    for after in chosen(whole.steps):
        out = folder / f"stopped-{after}"
        assert stopped(folder, out, after, **study)
        assert list(out.rglob("running/*.safetensors")), after
        on = Stops()
        run(folder, out, on, **study)
        assert ends(out) == expected, after
        assert on.steps == whole.steps - after
        assert not on.warnings
        assert on.resumed


@pytest.mark.parametrize("name", QUICK)
def test_a_run_that_is_stopped_ends_as_if_it_never_was(name: str, tmp_path: Path) -> None:
    check(name, tmp_path, lambda steps: [steps // 2, steps - 1])


@pytest.mark.slow
@pytest.mark.parametrize("name", STUDIES)
def test_a_run_that_is_stopped_after_any_step_ends_as_if_it_never_was(name: str, tmp_path: Path) -> None:
    check(name, tmp_path, lambda steps: list(range(steps)))


def test_a_run_that_is_stopped_at_every_step_ends_as_if_it_never_was(tmp_path: Path) -> None:
    study = {"strategies": GROUP, "regimes": FRESH}
    run(tmp_path, tmp_path / "whole", Stops(), **study)
    out, times = tmp_path / "stopped", 0
    while stopped(tmp_path, out, 1, **study):
        times += 1
    assert times > 8
    assert ends(out) == ends(tmp_path / "whole")
