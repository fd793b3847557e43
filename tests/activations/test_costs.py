"""Cost model of stored activations, and the choice of what to store within a budget."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from unfreeze.activations.costs import PrefixCost, Storable, choose, seconds_of, start_of

STAGES = 4
CHAINS = tuple((low, high) for high in range(2, STAGES + 1) for low in range(1, high))


@st.composite
def prefix_costs(draw: st.DrawFn) -> PrefixCost:
    chains = draw(st.sets(st.sampled_from(CHAINS)))
    engine = draw(st.floats(0, 1))
    flops = tuple(draw(st.lists(st.integers(0, 10**9), min_size=STAGES, max_size=STAGES)))
    return PrefixCost(engine, engine * 2, draw(st.floats(0, 5)), STAGES, flops, tuple(sorted(chains)))


@st.composite
def storables(draw: st.DrawFn) -> list[Storable]:
    keys = draw(
        st.lists(
            st.tuples(st.sampled_from("ab"), st.sampled_from(["plain", "flip"]), st.integers(1, STAGES)),
            max_size=7,
            unique=True,
        )
    )
    found = []
    for prefix, view, cut in keys:
        rows = draw(st.integers(1, 1000))
        draws = rows * draw(st.integers(1, 20))
        found.append(
            Storable(prefix, view, cut, rows, draws, rows * draw(st.integers(1, 10**6)), draw(st.integers(0, rows)))
        )
    return found


def total(all_of: list[Storable], stored: tuple[Storable, ...], costs: dict[str, PrefixCost], view: float) -> float:
    return sum(seconds_of(one, stored, costs[one.prefix], view) for one in all_of)  # type: ignore[index]


@given(storables(), prefix_costs(), prefix_costs(), st.floats(0, 0.1), st.integers(0, 10**9))
def test_the_choice_fits_the_budget_and_never_costs_more_than_storing_nothing(
    given_: list[Storable], a: PrefixCost, b: PrefixCost, view: float, budget: int
) -> None:
    costs = {"a": a, "b": b}
    chosen = choose(given_, costs, view, budget)
    assert sum(one.bytes for one in chosen) <= budget
    assert set(chosen) <= set(given_)
    nothing = total(given_, (), costs, view)
    assert total(given_, chosen, costs, view) <= nothing * (1 + 1e-9) + 1e-9


FEW_ROWS = [Storable("a", "flip", 1, 3, 3, 3), Storable("a", "flip", 2, 1, 1, 2), Storable("a", "flip", 3, 3, 3, 3)]
COSTLY_FIRST = PrefixCost(1.0, 2.0, 0.0, 4, (1, 0, 0, 0), ((1, 2), (1, 3), (2, 3)))


@given(storables(), prefix_costs(), st.floats(0, 0.1))
@example(FEW_ROWS, COSTLY_FIRST, 0.0)
def test_without_a_limit_only_activations_that_cost_time_are_not_stored(
    given_: list[Storable], cost: PrefixCost, view: float
) -> None:
    """As where a deeper cut would start from few rows of its own next to many of a shallower one."""
    costs = {"a": cost, "b": cost}
    chosen = choose(given_, costs, view, 10**18)
    for one in set(given_) - set(chosen):
        assert total(given_, (*chosen, one), costs, view) > total(given_, chosen, costs, view)


@given(storables(), prefix_costs())
def test_nothing_is_stored_with_a_budget_of_0(given_: list[Storable], cost: PrefixCost) -> None:
    assert choose(given_, {"a": cost, "b": cost}, 0.01, 0) == ()


COST = PrefixCost(1.0, 2.0, 0.5, 4, (1, 1, 1, 1), CHAINS)


def test_activations_that_save_most_per_byte_are_stored() -> None:
    often = Storable("a", "plain", 4, 10, 1000, 100)
    seldom = Storable("a", "flip", 4, 10, 20, 100)
    assert choose([seldom, often], {"a": COST}, 0.0, 150) == (often,)
    assert choose([seldom, often], {"a": COST}, 0.0, 200) == (seldom, often)


def test_a_deeper_cut_starts_from_the_deepest_stored_one_of_the_same_views() -> None:
    cuts = {cut: Storable("a", "plain", cut, 10, 100, 100) for cut in (1, 2, 4)}
    other = Storable("a", "flip", 2, 10, 100, 100)
    assert start_of(cuts[4], [cuts[1], cuts[2], other], CHAINS) == cuts[2]
    assert start_of(cuts[4], [cuts[1], cuts[2]], [(1, 4)]) == cuts[1]
    assert start_of(cuts[4], [other], CHAINS) is None


def test_seconds_of_stored_live_and_chained_activations() -> None:
    shallow, deep = Storable("a", "plain", 2, 6, 100, 100), Storable("a", "plain", 4, 10, 100, 100)
    assert seconds_of(deep, [], COST, 0.1) == pytest.approx(0.5 + 100 * 1.1)
    assert seconds_of(deep, [deep], COST, 0.1) == pytest.approx(0.5 + 10 * 1.1)
    assert seconds_of(deep, [deep, shallow], COST, 0.1) == pytest.approx(0.5 + 6 * 0.5 + 4 * 1.1)
    held = Storable("a", "plain", 4, 10, 100, 100, held=10)
    assert seconds_of(held, [held], COST, 0.1) == 0.0
