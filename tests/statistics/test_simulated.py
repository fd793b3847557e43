"""Over 1,000 simulated studies: intervals hold what they should, and a study is seldom wrong anywhere."""

import pytest

from tests.support.simulated import WORLDS, measure

SLOW = pytest.mark.slow
SIZES = [
    (3, 150), pytest.param(3, 400, marks=SLOW), (5, 150), pytest.param(5, 500, marks=SLOW),
    pytest.param(10, 200, marks=SLOW),
]  # fmt: skip


@pytest.mark.parametrize(("seeds", "images"), SIZES)
@pytest.mark.parametrize("name", ["seeds vary by 3.5 points", "known differences"])
def test_intervals_hold_the_truth(name: str, seeds: int, images: int) -> None:
    found = measure(WORLDS[name], seeds, images)
    assert found.wrong <= 0.07
    assert 0.92 <= found.covered if seeds == 3 else 0.93 <= found.covered <= 0.97


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("seeds do not matter", marks=SLOW),
        "seeds vary by 9 points",
        pytest.param("seeds vary by 9 points in one strategy, else 2", marks=SLOW),
        pytest.param("two strategies, one regime", marks=SLOW),
        pytest.param("six strategies, one regime", marks=SLOW),
    ],
)
def test_they_do_whatever_seeds_are_like(name: str) -> None:
    few, more = measure(WORLDS[name], 3, 200), measure(WORLDS[name], 5, 200)
    assert few.wrong <= 0.07 and more.wrong <= 0.07
    assert few.covered >= 0.92 and 0.93 <= more.covered <= 0.97


def test_simultaneous_intervals_still_find_something() -> None:
    assert measure(WORLDS["known differences"], 5, 400, studies=200).found > 0.45


def test_intervals_over_images_alone_and_a_bootstrap_do_not() -> None:
    found = measure(WORLDS["seeds vary by 9 points"], 3, 400, studies=300, bootstrap=True)
    assert found.covered_images < 0.65
    assert found.covered_bootstrap < 0.88
    assert found.covered >= 0.92
