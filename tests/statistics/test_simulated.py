"""Coverage in simulated studies: intervals contain the true difference, and few studies are wrong anywhere."""

import pytest

from tests.support.simulated import WORLDS, measure

SLOW = pytest.mark.slow
FEW, MANY = 400, 1000
"""Simulated studies of a fast and of a slow test."""

SIZES = [
    (3, 150, FEW),
    (5, 150, FEW),
    pytest.param(3, 400, MANY, marks=SLOW),
    pytest.param(5, 500, MANY, marks=SLOW),
    pytest.param(10, 200, MANY, marks=SLOW),
]


@pytest.mark.parametrize(("seeds", "images", "studies"), SIZES)
@pytest.mark.parametrize("name", ["seeds vary by 3.5 points", "known differences"])
def test_intervals_contain_the_true_difference(name: str, seeds: int, images: int, studies: int) -> None:
    found = measure(WORLDS[name], seeds, images, studies)
    assert found.wrong <= 0.07
    assert found.covered >= 0.92 if seeds == 3 else 0.93 <= found.covered <= 0.97


@pytest.mark.parametrize(
    ("name", "studies"),
    [
        ("seeds vary by 9 points", FEW),
        *(
            pytest.param(name, MANY, marks=SLOW)
            for name in (
                "seeds do not matter",
                "seeds vary by 9 points in one strategy, else 2",
                "two strategies, one regime",
                "six strategies, one regime",
            )
        ),
    ],
)
def test_coverage_does_not_depend_on_the_variation_between_seeds(name: str, studies: int) -> None:
    few, more = measure(WORLDS[name], 3, 200, studies), measure(WORLDS[name], 5, 200, studies)
    assert few.wrong <= 0.07 and more.wrong <= 0.07
    assert few.covered >= 0.92 and 0.93 <= more.covered <= 0.97


def test_simultaneous_intervals_find_large_differences() -> None:
    assert measure(WORLDS["known differences"], 5, 400, studies=100).found > 0.45


def test_intervals_over_images_alone_and_a_bootstrap_undercover() -> None:
    found = measure(WORLDS["seeds vary by 9 points"], 3, 400, studies=150, bootstrap=True)
    assert found.covered_images < 0.65
    assert found.covered_bootstrap < 0.88
    assert found.covered >= 0.92
