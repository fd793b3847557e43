"""Plan of shared activations: predicted work, and the reasons why cells do not reuse more."""

from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from tests.support.finished import computed
from tests.support.reuse import BANK, FRESH, HEAD, LAST, NO_ROOM, PHASES, PLAIN, run
from tests.support.worlds import tiny_study
from unfreeze.activations.costs import PrefixCost
from unfreeze.activations.keys import prefix_of
from unfreeze.config.schema import StudyConfig
from unfreeze.data.catalog import build_catalog
from unfreeze.data.sources import open_source
from unfreeze.study import lockstep as grouping
from unfreeze.study.activation_plan import ActivationPlan, CacheState, PlanCosts, plan_shared, why_not
from unfreeze.study.cell import CellSpec
from unfreeze.study.images import cell_specs, draw_splits
from unfreeze.study.lockstep import reads_of_study
from unfreeze.study.network_plan import make_plan
from unfreeze.train.device import pick
from unfreeze.train.step_cost import StepCost

RATES = [1e-3 * number for number in range(1, 9)]
EIGHT = HEAD | {"tune": {"optimizer.lr": RATES}}
TRAIN, VALIDATION, POOL, TEST, EPOCHS = 15, 5, 7, 7, 2
VIEW, ROW = 0.25, 8.0
"""Seconds of a picture, and of all frozen stages on it."""


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNFREEZE_CACHE", str(tmp_path / "cache"))


def specs_of(folder: Path, **values: Any) -> list[CellSpec]:
    study = StudyConfig.model_validate(tiny_study(folder, **values))
    catalog = build_catalog(open_source(study.data, study.tests, Path.cwd()))
    plan = make_plan(study, len(catalog.classes), weights=True)
    splits = draw_splits(study, catalog, plan, {})
    return list(cell_specs(study, catalog, plan, splits, pick("cpu", "float32")).values())


def shared(found: list[CellSpec], budget: int = 0, chains: tuple[tuple[int, int], ...] = ()) -> ActivationPlan:
    """Plan with costs that are easily added up: each of the five stages takes a fifth of ROW, and training nothing."""
    free = defaultdict(lambda: StepCost(0.0, 0.0, step=0.0))
    prefix = PrefixCost(ROW, ROW, 0.0, 5, (1, 1, 1, 1, 1), chains)
    prefixes = {prefix_of(network.strategy): prefix for spec in found for network in spec.networks.values()}
    sizes = defaultdict(lambda: 10)
    return plan_shared(found, PlanCosts(prefixes, free, 0.0, VIEW), CacheState(budget, "some", sizes, {}, 0, 27, 0))


def forwards(found: list[CellSpec]) -> int:
    """Rows that frozen stages are predicted to compute where nothing is stored."""
    counts = [reads.counts for reads in reads_of_study(found)]
    return sum(sum(each.activations.values()) + sum(each.live.values()) for each in counts)


@pytest.mark.parametrize("regimes", [PLAIN, BANK, FRESH], ids=["plain", "bank", "fresh"])
def test_eight_candidates_in_lock_step_take_what_one_takes(tmp_path: Path, regimes: dict[str, Any]) -> None:
    one, eight = (specs_of(tmp_path, strategies={"head": each}, regimes=regimes) for each in (HEAD, EIGHT))
    assert forwards(one) == forwards(eight) == EPOCHS * (TRAIN + VALIDATION) + POOL + TEST
    (before,), (after,) = shared(one).cells.values(), shared(eight).cells.values()
    assert before.seconds == after.seconds == pytest.approx(forwards(one) * (VIEW + ROW) + 0.3)
    draws, more = ([key.draws for key in shared(found).activations] for found in (one, eight))
    assert draws == more
    assert [key.seconds for key in shared(one, 10**9).activations] == [
        p.seconds for p in shared(eight, 10**9).activations
    ]


@pytest.mark.parametrize("regimes", [PLAIN, BANK, FRESH], ids=["plain", "bank", "fresh"])
def test_cells_in_lock_step_share_their_work_in_equal_parts(tmp_path: Path, regimes: dict[str, Any]) -> None:
    one = specs_of(tmp_path, strategies={"head": HEAD}, regimes=regimes)
    two = specs_of(tmp_path, strategies={"head": HEAD, "tuned": EIGHT}, regimes=regimes)
    together = EPOCHS * (TRAIN + VALIDATION)
    assert forwards(two) == forwards(one) + POOL + TEST  # each cell predicts for itself at its end
    seconds = [cell.seconds for cell in shared(two).cells.values()]
    assert seconds == [pytest.approx((together / 2 + POOL + TEST) * (VIEW + ROW) + 0.3)] * 2


def test_candidates_that_do_not_fit_into_memory_together_pass_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = specs_of(tmp_path, strategies={"head": EIGHT}, regimes=FRESH)
    monkeypatch.setattr(grouping, "LOCKSTEP_BYTES", 4 * grouping.training_bytes(next(iter(found[0].networks.values()))))
    assert forwards(found) == 2 * EPOCHS * (TRAIN + VALIDATION) + POOL + TEST


def test_fresh_views_at_two_cuts_are_one_picture_and_one_way_through_the_stages(tmp_path: Path) -> None:
    found = specs_of(tmp_path, strategies={"head": HEAD, "last": LAST}, regimes=FRESH)
    apart, chained = (sum(cell.seconds for cell in shared(found, 0, each).cells.values()) for each in ((), ((4, 5),)))
    training = EPOCHS * TRAIN
    assert apart - chained == pytest.approx(training * ROW * 4 / 5)
    own = (EPOCHS * VALIDATION + POOL + TEST) * (2 * VIEW + ROW + ROW * 4 / 5)
    assert chained == pytest.approx(training * (VIEW + ROW) + own + 2 * 0.3)


def test_what_is_predicted_is_what_is_computed(tmp_path: Path) -> None:
    strategies = {"tuned": HEAD | {"tune": {"optimizer.lr": RATES[:2]}}, "last": LAST, "phases": PHASES}
    asked = {"strategies": strategies, "regimes": {"fresh": FRESH["small"], "plain": PLAIN["small"]}}
    assert computed(run(tmp_path, **asked, budget=NO_ROOM)) == forwards(specs_of(tmp_path, **asked))


def reasons(folder: Path, **strategy: Any) -> list[str]:
    (work,) = specs_of(folder, strategies={"one": strategy}, regimes=PLAIN)
    return list(why_not(work, False, "20GB"))


def test_stages_that_an_earlier_phase_trained_are_not_reused_and_the_plan_says_why(tmp_path: Path) -> None:
    both = {"phases": [{"train": "all", "epochs": 1}, {"train": "head", "epochs": 1}]}
    assert reasons(tmp_path, **both) == [
        "phase 1 trains everything, so it runs from pixels",
        "phase 2 freezes stages that phase 1 has trained, so it runs from pixels",
    ]
    last = {"phases": [{"train": {"last": 2}, "epochs": 1}, {"train": "head", "epochs": 1}]}
    assert reasons(tmp_path, **last) == [
        "phase 2 freezes stages that phase 1 has trained, so it begins after layer2, as that one does"
    ]
    assert reasons(tmp_path, **PHASES) == ["phase 2 trains everything, so it runs from pixels"]
    assert reasons(tmp_path, **HEAD) == []


def test_a_reason_of_some_candidates_names_them(tmp_path: Path) -> None:
    everything, train, rates = "everything trains, so there is no frozen work to reuse", ["all", "head"], [0.1, 0.2]

    def tuned(tune: dict[str, Any]) -> list[str]:
        return reasons(tmp_path, train="all", tune=tune)

    assert tuned({"train": train}) == tuned({"train": train[::-1]}) == [f"candidate train=all: {everything}"]
    assert tuned({"train": train, "optimizer.lr": rates}) == [
        f"candidates train=all,optimizer.lr=0.1 and train=all,optimizer.lr=0.2: {everything}"
    ]
    assert tuned({"train": train, "optimizer.lr": RATES}) == [f"8 of 16 candidates: {everything}"]
    assert tuned({"optimizer.lr": rates}) == [everything]


def test_fresh_views_and_a_small_disk_are_reasons_too(tmp_path: Path) -> None:
    regime = FRESH["small"]
    strategies = {"head": HEAD, "all": {"train": "all"}}
    head, everything = specs_of(tmp_path, strategies=strategies, regimes={"small": regime})
    assert list(why_not(head, True, "1KB")) == [
        "augment: flip_crop draws new views in every epoch (views: fresh), so the frozen stages see training images "
        "live",
        "some activations do not fit into the disk budget of 1KB, so they are computed live",
    ]
    assert list(why_not(everything, False, "1KB")) == ["everything trains, so there is no frozen work to reuse"]
