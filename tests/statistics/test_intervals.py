"""Variance components, single and simultaneous intervals, Wilson's interval, verdicts, and sample sizes."""

import math

import numpy as np
import pytest
from scipy import stats
from scipy.stats import binomtest

from unfreeze.statistics.intervals import (
    FIRST_SEEDS,
    CrossedMean,
    by_unit,
    crossed_mean,
    degrees_of_freedom,
    half_width,
    helps_text,
    proportion_interval,
    sample_size_needed,
    simultaneous_intervals,
    verdict,
    wilson_interval,
)


def table(seed: float, image: float, rest: float, seeds: int = 4, images: int = 200, mean: float = 0.05) -> CrossedMean:
    """A table whose estimated variances are as given."""
    return CrossedMean(
        mean=np.array(mean),
        ms_seed=np.array(images * seed + rest),
        ms_image=np.array(seeds * image + rest),
        ms_rest=np.array(rest),
        seeds=seeds,
        images=images,
    )


def test_mean_squares_by_hand() -> None:
    """Rows 1 3 and 2 8: means 2 and 5 of seeds, 1.5 and 5.5 of images, 3.5 of all; the rest is +-1."""
    found = crossed_mean(np.array([[1.0, 3.0], [2.0, 8.0]]))
    assert (found.mean, found.ms_seed, found.ms_image, found.ms_rest) == (3.5, 9.0, 16.0, 4.0)
    assert (found.seed, found.image, found.rest) == (2.5, 6.0, 4.0)
    assert found.from_seeds + found.from_images == (9 + 16 - 4) / 4
    assert degrees_of_freedom(found) == pytest.approx(21**2 / (81 + 256 + 16))


def test_components_are_estimated_without_bias() -> None:
    generator = np.random.default_rng(0)
    studies, seeds, images = 4000, 3, 20
    values = 2 * generator.normal(size=(studies, seeds, 1)) + 3 * generator.normal(size=(studies, 1, images))
    found = crossed_mean(values + generator.normal(size=(studies, seeds, images)))
    variance = ((found.ms_seed + found.ms_image - found.ms_rest) / (seeds * images)).mean()
    assert variance == pytest.approx(4 / 3 + 9 / 20 + 1 / 60, rel=0.05)
    assert found.mean.var() == pytest.approx(variance, rel=0.08)


def test_variances_below_zero_count_as_zero() -> None:
    found = crossed_mean(np.array([[1.0, -1.0, 1.0, -1.0], [-1.0, 1.0, -1.0, 1.0]]))
    assert (found.seed, found.image, found.ms_seed, found.ms_image) == (0, 0, 0, 0)
    assert found.from_seeds == found.ms_rest / 8
    assert half_width(found) > 0


def test_at_one_seed_only_images_count() -> None:
    values = np.random.default_rng(1).normal(size=(1, 30))
    found = crossed_mean(values)
    assert math.isnan(found.ms_seed)
    expected = stats.t.ppf(0.975, 29) * values.std(ddof=1) / math.sqrt(30)
    assert half_width(found) == pytest.approx(expected)
    assert simultaneous_intervals([found], 2) == [None]


def test_one_image_has_no_interval() -> None:
    assert math.isnan(half_width(crossed_mean(np.array([[1.0], [0.0]]))))


def test_equal_values_have_the_floor_as_standard_error() -> None:
    found = crossed_mean(np.zeros((3, 50)))
    assert half_width(found) == 0
    assert half_width(found, floor=1 / 50) == pytest.approx(stats.t.ppf(0.975, 49) / 50)
    (part,) = simultaneous_intervals([found], 2, floor=1.0)
    assert part is not None and part.half >= half_width(found, floor=1 / 50)


def test_units_keep_the_mean_and_count_by_their_size() -> None:
    values = np.random.default_rng(2).normal(size=(2, 3, 7))
    units = ["a", "b", "a", "c", "c", "c", "d"]
    found = by_unit(values, units)
    assert found.shape == (2, 3, 4)
    np.testing.assert_allclose(found.mean(-1), values.mean(-1))
    by_hand = values.mean(-1) + 4 / 7 * (values[..., [0, 2]] - values.mean(-1, keepdims=True)).sum(-1)
    np.testing.assert_allclose(found[..., 0], by_hand)
    assert by_unit(values, range(7)) is not None and (by_unit(values, range(7)) == values).all()


def test_copies_of_an_image_do_not_make_an_interval_narrower() -> None:
    values = np.random.default_rng(3).normal(size=(3, 40))
    copied = by_unit(np.repeat(values, 5, axis=1), np.repeat(np.arange(40), 5))
    assert half_width(crossed_mean(copied)) == pytest.approx(half_width(crossed_mean(values)))


def test_the_variance_between_seeds_is_pooled_only_where_that_makes_it_larger() -> None:
    calm, wild = table(0.0001, 0.1, 0.1, seeds=3), table(0.01, 0.1, 0.1, seeds=3)
    parts = simultaneous_intervals([calm, wild, wild], recipes=3)
    alone = calm.from_seeds * 3
    assert [part.borrowed for part in parts if part] == [2, 2, 2]
    assert parts[0] is not None and parts[0].seed_variance == pytest.approx((2 * wild.from_seeds * 3 + 2 * alone) / 4)
    assert parts[1] is not None and parts[1].seed_variance == wild.from_seeds * 3
    pair = simultaneous_intervals([wild], recipes=2)[0]  # a single comparison has no others to pool with
    assert pair is not None and (pair.borrowed, pair.seed_variance) == (0, wild.from_seeds * 3)


def test_simultaneous_intervals_are_at_least_as_wide_as_single_ones() -> None:
    generator = np.random.default_rng(4)
    family = [crossed_mean(generator.normal(size=(seeds, 30))) for seeds in (2, 3, 5, 10)]
    for one, part in zip(family, simultaneous_intervals(family, 5), strict=True):
        assert part is not None and part.half >= half_width(one)


def test_the_expected_half_width_at_the_same_size_is_the_half_width() -> None:
    (part,) = simultaneous_intervals([table(0.0004, 0.1, 0.2)], 2)
    assert part is not None and part.half_width_at(4, 200) == pytest.approx(part.half)


@pytest.mark.parametrize(
    ("metric", "difference", "half", "words"),
    [
        ("accuracy", 0.05, 0.04, "better"),
        ("accuracy", -0.05, 0.04, "worse"),
        ("log_loss", -0.05, 0.04, "better"),
        ("log_loss", 0.05, 0.04, "worse"),
        ("accuracy", 0.01, 0.02, "no difference found"),
        ("accuracy", 0.01, 0.03, "too little to tell"),
        ("log_loss", 0.01, 0.05, "no difference found"),
        ("accuracy", 0.5, math.nan, "too little to tell"),
        ("accuracy", math.nan, 0.1, "too little to tell"),
    ],
)
def test_verdicts(metric: str, difference: float, half: float, words: str) -> None:
    assert verdict(metric, difference, half) == words


def test_the_sample_size_needed_is_the_smallest_that_gives_a_verdict() -> None:
    (part,) = simultaneous_intervals([table(0.00001, 0.1, 0.2, mean=0.03)], 2)
    assert part is not None and part.half > 0.03
    seeds, images = sample_size_needed("accuracy", 0.03, part)
    assert seeds is None and images is not None  # 200 images alone leave more than 3 points
    assert part.half_width_at(4, images) < 0.03 <= part.half_width_at(4, int(images * 0.98))
    (part,) = simultaneous_intervals([table(0.0025, 0.01, 0.02, mean=0.06)], 2)
    assert part is not None
    seeds, _ = sample_size_needed("accuracy", 0.06, part)
    assert seeds is not None and part.half_width_at(seeds, 200) < 0.06 <= part.half_width_at(seeds - 1, 200)


def test_seeds_and_images_needed_as_text() -> None:
    assert helps_text("accuracy", 0.1, None) == FIRST_SEEDS
    (images,) = simultaneous_intervals([table(0.00001, 0.1, 0.0)], 2)
    assert helps_text("accuracy", 0.03, images) == "about 450 test images (now 200); more seeds alone would not do"
    (seeds,) = simultaneous_intervals([table(0.0025, 0.01, 0.02)], 2)
    assert (
        helps_text("accuracy", 0.06, seeds, "test group")
        == "about 6 seeds (now 4); more test groups alone would not do"
    )
    (both,) = simultaneous_intervals([table(0.0003, 0.04, 0.04)], 2)
    seeds_for, images_for = sample_size_needed("accuracy", 0.03, both)
    assert seeds_for is not None and images_for is not None
    assert helps_text("accuracy", 0.03, both).startswith(f"about {seeds_for} seeds (now 4) or about ")
    assert helps_text("accuracy", 0.03, both).endswith(" test images (now 200)")
    (neither,) = simultaneous_intervals([table(0.01, 0.4, 0.0)], 2)
    assert helps_text("accuracy", 0.0, neither) == (
        "more seeds and more test images: neither 50 seeds nor 100,000 test images alone would do"
    )


@pytest.mark.parametrize(("hits", "images"), [(0, 1), (1, 1), (3, 10), (10, 10), (487, 507)])
def test_wilson_of_independent_images_is_scipys(hits: int, images: int) -> None:
    values = (np.arange(images) < hits).astype(np.float64)
    expected = binomtest(hits, images).proportion_ci(method="wilson")
    assert proportion_interval(values, np.arange(images).astype(str)) == pytest.approx((expected.low, expected.high))


def test_wilson_with_groups_uses_the_design_effect() -> None:
    values, units = np.repeat([1.0, 0.0, 1.0, 1.0, 0.0, 1.0], 20), np.repeat(list("abcdef"), 20)
    low, high = proportion_interval(values, units)
    expected = binomtest(4, 6).proportion_ci(method="wilson")
    assert low < expected.low and high > expected.high  # six groups, and a t quantile
    low, high = proportion_interval(np.ones(120), units)
    assert (low < binomtest(6, 6).proportion_ci(method="wilson").low) and high == 1


def test_wilson_of_nothing_is_undefined() -> None:
    assert all(map(math.isnan, wilson_interval(math.nan, 0)))
