"""What is stored fits the budget, and never costs a study seconds."""

from hypothesis import given
from hypothesis import strategies as st

from unfreeze.activations.costs import PrefixCost, Storable, choose, seconds_of

COST = PrefixCost(0.1, 0.2, 1.0, 5, (10, 20, 30, 20, 20), ((3, 5), (2, 3), (2, 5)))
storables = st.lists(
    st.builds(
        lambda view, cut, rows, repeats, size: Storable("p", view, cut, rows, rows * repeats, rows * size),
        st.sampled_from(["plain", "bank"]),
        st.sampled_from([2, 3, 5]),
        st.integers(1, 500),
        st.integers(1, 50),
        st.integers(1, 100),
    ),
    max_size=6,
    unique_by=lambda one: (one.view, one.cut),
)


@given(storables, st.integers(0, 100_000))
def test_what_is_stored_fits_and_saves(found: list[Storable], budget: int) -> None:
    stored = choose(found, {"p": COST}, 0.001, budget)
    assert sum(one.bytes for one in stored) <= budget

    def total(chosen: tuple[Storable, ...]) -> float:
        return sum(seconds_of(one, chosen, COST, 0.001) for one in found)

    assert total(stored) <= total(()) + 1e-9


def test_with_room_for_all_everything_is_stored_and_the_deeper_cut_starts_from_the_shallower_one() -> None:
    low, high = Storable("p", "plain", 3, 100, 1000, 10_000), Storable("p", "plain", 5, 100, 1000, 1_000)
    stored = choose([low, high], {"p": COST}, 0.0, 20_000)
    assert stored == (low, high)
    assert seconds_of(high, stored, COST, 0.0) == 1.0 + 100 * COST.seconds(3, 5)
    assert choose([low, high], {"p": COST}, 0.0, 5_000) == (high,)
