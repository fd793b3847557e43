"""Learning curves: fit, extrapolation with intervals, and augmentation in images per class."""

import math

import numpy as np
import pandas as pd
import pytest

from unfreeze.statistics.augmentation import BEYOND, NO_CURVE, augmentation_table, twins
from unfreeze.statistics.learning_curve import COLUMNS, curves_table, fit_power_law, learning_curves, series_of
from unfreeze.statistics.predictions import Prediction, Predictions

SIZES = (5, 10, 20, 40, 80)
REGIMES = {f"plain_{size}": {"train_per_class": size, "augment": "none"} for size in SIZES}
REGIMES |= {"turned_10": {"train_per_class": 10, "augment": "article"}}
REGIMES |= {"turned_80": {"train_per_class": 80, "augment": "article"}}


LATENT = np.sort(np.array([0.7, 0.3]) @ np.random.default_rng(0).uniform(size=(2, 20000)))
"""Ease of images: a part common to all cells, and a part of one cell."""


def world(
    draw: int, seeds: int = 5, images: int = 300, sizes: tuple[int, ...] = SIZES, metric: str = "accuracy"
) -> tuple[Predictions, pd.DataFrame]:
    """Simulate an error of 0.05 + 0.6 n^-0.5 with an effect of seeds; augmentation counts as twice the images."""
    generator = np.random.default_rng(draw)
    ease, labels = generator.uniform(size=images), np.arange(images) % 2
    ids = np.array([f"i{n}" for n in range(images)])
    cells, rows = [], []
    for regime, settings in REGIMES.items():
        size = int(str(settings["train_per_class"]))
        if size not in sizes:
            continue
        worth = size if settings["augment"] == "none" else 2 * size
        for seed in range(seeds):
            error = 0.05 + 0.6 * worth**-0.5 + generator.normal(0, 0.01)
            own = 0.7 * ease + 0.3 * generator.uniform(size=images)
            right = own > np.quantile(LATENT, error)
            logits = np.zeros((images, 2), np.float32)
            logits[np.arange(images), np.where(right, labels, 1 - labels)] = 2.0
            cell = f"head.{regime}.s{seed}"
            cells.append(Prediction(cell, "head", regime, seed, None, "test", ids, labels, logits, ids))
            rows.append({"cell": cell, "strategy": "head", "regime": regime, "seed": seed, "fold": None})
            rows[-1] |= {"status": "finished", "chosen": "", "n_train": 2 * size}
    recipes = tuple(dict.fromkeys(one.recipe for one in cells))
    return Predictions(metric, ("a", "b"), 1, tuple(cells), recipes), pd.DataFrame(rows)


@pytest.mark.parametrize("parameters", [(0.05, 0.6, 0.5), (0.0, 0.9, 0.3), (0.2, 0.0, 0.02), (0.1, 2.0, 1.9)])
def test_the_fit_recovers_a_power_law(parameters: tuple[float, float, float]) -> None:
    a, b, c = parameters
    sizes = np.array(SIZES, dtype=np.float64)
    errors = a + b * sizes**-c
    fit = fit_power_law(sizes, errors)
    np.testing.assert_allclose(fit[0] + fit[1] * sizes ** -fit[2], errors, atol=2e-3)
    assert (fit >= 0).all()


def test_a_growing_error_gives_a_flat_curve() -> None:
    fit = fit_power_law(np.array([1.0, 2.0, 4.0]), np.array([0.1, 0.2, 0.3]))
    assert fit[:2].tolist() == pytest.approx([0.2, 0.0])


@pytest.mark.parametrize("studies", [20, pytest.param(60, marks=pytest.mark.slow)])
def test_intervals_beyond_the_largest_size_contain_the_truth(studies: int) -> None:
    """Sweeps of 5 to 40 images per class predict the score at 80, and the effect of doubling."""
    held = []
    for draw in range(studies):
        predictions, results = world(draw, sizes=SIZES[:-1])
        (curve,) = [one for one in learning_curves(predictions, results, REGIMES) if one.series == "plain"]
        assert curve.sizes.tolist() == [5, 10, 20, 40]
        truth = {size: 0.95 - 0.6 * size**-0.5 for size in (40, 80)}
        _, low, high = curve.at(80)
        gain, gain_low, gain_high = curve.doubling()
        assert gain_low <= gain <= gain_high and gain >= 0
        held.append((low <= truth[80] <= high, gain_low <= truth[80] - truth[40] <= gain_high))
    assert np.mean(held, axis=0).min() >= 0.9


def test_the_same_study_gives_the_same_curve() -> None:
    first, second = (curves_table(learning_curves(*world(0), REGIMES)) for _ in range(2))
    pd.testing.assert_frame_equal(first, second)
    assert list(first.columns) == list(COLUMNS)
    (row,) = first.to_dict("records")
    assert (row["strategy"], row["series"], row["sizes"], row["seeds"]) == ("head", "plain", "5, 10, 20, 40, 80", 5)
    assert (row["largest"], row["doubled"], row["basis"]) == (80, 160, "seeds and images")
    assert row["gain"] == pytest.approx(row["at_doubled"] - row["at_largest"])


def test_a_log_loss_falls_and_one_seed_covers_images_only() -> None:
    (curve,) = learning_curves(*world(0, seeds=1, metric="log_loss"), REGIMES)
    assert curve.seeds == 1
    assert curve.doubling()[0] <= 0
    assert curves_table([curve])["basis"].tolist() == ["images only"]


def test_two_sizes_give_no_curve_by_default() -> None:
    assert learning_curves(*world(0, sizes=(5, 80)), REGIMES) == []
    assert curves_table([]).empty


def test_a_series_shares_all_settings_but_the_amount_of_data() -> None:
    assert series_of({"train_per_class": 5, "strict": True, "augment": "none", "views": "fresh"}) == "plain"
    assert series_of({"augment": "article", "balance": "weights"}) == "article, balance weights"


def test_augmentation_in_images_per_class() -> None:
    predictions, results = world(3, images=2000)
    history = pd.DataFrame({"cell": [], "candidate": [], "epoch": [], "examples": [], "val_metric": []})
    curves = learning_curves(predictions, results, REGIMES)
    table = augmentation_table(predictions, results, history, REGIMES, curves).set_index("augmented")
    ten, eighty = table.loc["turned_10"], table.loc["turned_80"]
    assert (ten["plain"], ten["images_per_class"], ten["seeds"], ten["reading"]) == ("plain_10", 10, 5, "")
    assert ten["low"] < 0.6 * (10**-0.5 - 20**-0.5) < ten["high"]
    assert ten["equivalent_low"] < 20 < ten["equivalent_high"] and ten["equivalent_low"] < ten["equivalent"]
    assert (eighty["reading"], eighty["measured_to"]) == (BEYOND, 80)
    assert eighty["equivalent_low"] < 160 < eighty["equivalent_high"]
    without = augmentation_table(predictions, results, history, REGIMES, [])
    assert set(without["reading"]) == {NO_CURVE} and without["equivalent"].isna().all()


def test_augmentation_at_equal_examples_by_hand() -> None:
    predictions, results = world(0, seeds=2, sizes=(10,))
    courses = {
        "head.plain_10.s0": [(100, 0.5), (200, 0.6)],
        "head.plain_10.s1": [(100, 0.5), (200, 0.6)],
        "head.turned_10.s0": [(150, 0.4), (300, 0.9)],
        "head.turned_10.s1": [(200, 0.7), (400, 0.9)],
    }
    rows = [
        {"cell": cell, "candidate": "", "epoch": epoch, "examples": examples, "val_metric": value}
        for cell, course in courses.items()
        for epoch, (examples, value) in enumerate(course, 1)
    ]
    (row,) = augmentation_table(predictions, results, pd.DataFrame(rows), REGIMES, []).to_dict("records")
    assert row["examples"] == 200
    assert row["difference_equal_examples"] == pytest.approx((-0.2 + 0.1) / 2)
    half = 12.706 * 0.15 * math.sqrt(2) / math.sqrt(2)
    assert row["high_equal_examples"] - row["difference_equal_examples"] == pytest.approx(half, rel=1e-3)


def test_twins_differ_in_augmentation_and_what_goes_with_it() -> None:
    regimes = {
        "a": {"train_per_class": 5, "augment": "none", "examples_per_epoch": None},
        "b": {"train_per_class": 5, "augment": "rand", "examples_per_epoch": 200},
        "c": {"train_per_class": 9, "augment": "rand", "examples_per_epoch": None},
    }
    assert twins(regimes) == [("a", "b")]
