"""Cross-fitting: which half selects for which, by which rule, and that it removes the optimism of selection."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from unfreeze.config.schema import EarlyStopping, Monitor
from unfreeze.metrics import METRICS, score
from unfreeze.statistics.crossfit import CandidateEpochs, cross_fitted, halves, restored_epoch
from unfreeze.train.early_stopping import StoppingState, after_epoch

HALF = np.array([True, True, True, True, False, False, False, False])
LABELS = np.array([0, 1, 0, 1, 0, 1, 0, 1])


def logits_of(*right: str) -> NDArray[np.float32]:
    """Logits (epochs, images, 2) from one text per epoch, with + for each image that is right."""
    logits = np.zeros((len(right), len(LABELS), 2), dtype=np.float32)
    for epoch, text in enumerate(right):
        for image, sign in enumerate(text):
            logits[epoch, image, LABELS[image] if sign == "+" else 1 - LABELS[image]] = 1
    return logits


def candidate(logits: NDArray[np.floating], *train_loss: float) -> CandidateEpochs:
    return CandidateEpochs(logits, np.array(train_loss or [0.0] * len(logits)))


def test_halves_depend_on_the_key_alone_and_are_about_equal() -> None:
    keys = [f"cluster {number % 500}" for number in range(1000)]
    half = halves(keys)
    assert half.dtype == np.bool_ and 400 < half.sum() < 600
    assert (half[:500] == half[500:]).all()
    assert (halves(keys[::-1])[::-1] == half).all()
    assert halves(["cluster 0", "cluster 1", "cluster 2", "\udcff"]).tolist() == [False, False, True, True]
    assert halves([]).shape == (0,)


def test_each_half_is_predicted_by_the_candidate_that_the_other_selects() -> None:
    one, other = logits_of("++++----"), logits_of("----++++")
    found = cross_fitted({"one": candidate(one), "other": candidate(other)}, LABELS, HALF, None, "accuracy")
    assert found is not None and found.dtype == np.float32
    # The first half selects `one`, which is wrong on the second: neither candidate is better than chance.
    assert score("accuracy", found, LABELS) == 0
    assert (found[HALF] == other[0][HALF]).all() and (found[~HALF] == one[0][~HALF]).all()


def test_among_equals_the_first_candidate_is_selected() -> None:
    first, second, worse = logits_of("+++-+++-"), logits_of("++-+++-+"), logits_of("++--++--")
    found = cross_fitted(
        {"worse": candidate(worse), "first": candidate(first), "second": candidate(second)},
        LABELS,
        HALF,
        None,
        "accuracy",
    )
    assert found is not None and (found == first[0]).all()


@pytest.mark.parametrize("stopping", [None, EarlyStopping(monitor="val_accuracy", restore_best=False)])
def test_without_restored_weights_the_last_epoch_is_selected(stopping: EarlyStopping | None) -> None:
    logits = logits_of("++++++++", "+-+-+-+-")
    found = cross_fitted({"one": candidate(logits)}, LABELS, HALF, stopping, "accuracy")
    assert found is not None and (found == logits[1]).all()


def test_each_half_restores_its_own_best_epoch() -> None:
    logits = logits_of("++--+---", "++++----", "++++++++", "---+++++")
    found = cross_fitted({"one": candidate(logits)}, LABELS, HALF, EarlyStopping(monitor="val_accuracy"), "accuracy")
    assert found is not None
    assert (found[HALF] == logits[2][HALF]).all()  # the second half is best at the third epoch
    assert (found[~HALF] == logits[1][~HALF]).all()  # the first one is already at the second


def test_an_improvement_by_min_delta_does_not_count() -> None:
    logits = logits_of("++--++--", "+++-+++-", "++++++++")
    stopping = EarlyStopping(monitor="val_accuracy", min_delta=0.25)
    found = cross_fitted({"one": candidate(logits)}, LABELS, HALF, stopping, "accuracy")
    assert found is not None and (found == logits[2]).all()


def test_the_loss_of_a_half_is_the_mean_cross_entropy_of_its_images() -> None:
    logits = logits_of("++++++++", "+++++++-")
    logits[0] *= 0.1  # correct with low confidence, so the loss is larger
    logits[1, :, :] *= 20
    found = cross_fitted({"one": candidate(logits)}, LABELS, HALF, EarlyStopping(monitor="val_loss"), "accuracy")
    assert found is not None
    assert (found[~HALF] == logits[1][~HALF]).all()  # the first half has no error at the second epoch
    assert (found[HALF] == logits[0][HALF]).all()  # the second half has one, with high confidence


def test_the_metric_is_monitored_in_its_own_direction() -> None:
    logits = logits_of("++++++++", "++++++++")
    logits[1] *= 5
    stopping = EarlyStopping(monitor="val_metric")
    found = cross_fitted({"one": candidate(logits)}, LABELS, HALF, stopping, "log_loss")
    assert found is not None and (found == logits[1]).all()
    found = cross_fitted({"a": candidate(logits[:1]), "b": candidate(logits[1:])}, LABELS, HALF, None, "log_loss")
    assert found is not None and (found == logits[1]).all()


def test_the_training_loss_selects_the_same_epoch_for_both_halves() -> None:
    logits = logits_of("++++----", "----++++", "++++++++")
    found = cross_fitted(
        {"one": candidate(logits, 0.5, 0.2, 0.3)}, LABELS, HALF, EarlyStopping(monitor="train_loss"), "accuracy"
    )
    assert found is not None and (found == logits[1]).all()


def test_candidates_may_have_different_numbers_of_epochs_in_half_precision() -> None:
    short, long = logits_of("++++++++").astype(np.float16), logits_of("--------", "+-------", "-+------")
    found = cross_fitted({"long": candidate(long), "short": candidate(short)}, LABELS, HALF, None, "accuracy")
    assert found is not None and found.dtype == np.float32 and (found == short[0]).all()


@pytest.mark.parametrize("half", [np.ones(8, dtype=np.bool_), np.zeros(8, dtype=np.bool_)])
def test_an_empty_half_selects_nothing(half: NDArray[np.bool_]) -> None:
    assert cross_fitted({"one": candidate(logits_of("++++++++"))}, LABELS, half, None, "accuracy") is None


def test_a_metric_that_is_undefined_on_a_half_selects_nothing() -> None:
    lacking = np.array([True, False] * 4)  # all of one class
    logits = {"one": candidate(logits_of("++++++++"))}
    assert cross_fitted(logits, LABELS, lacking, None, "auroc") is None
    assert cross_fitted(logits, LABELS, HALF, None, "auroc") is not None


def test_a_candidate_with_undefined_logits_is_never_selected() -> None:
    broken, good = logits_of("++++++++"), logits_of("+-+-+-+-")
    broken[0, :, 0] = math.nan
    found = cross_fitted({"broken": candidate(broken), "good": candidate(good)}, LABELS, HALF, None, "accuracy")
    assert found is not None and (found == good[0]).all()
    assert cross_fitted({"broken": candidate(broken)}, LABELS, HALF, None, "accuracy") is None


@pytest.mark.parametrize("metric", ["accuracy", "log_loss"])
@pytest.mark.parametrize("monitor", ["val_loss", "val_accuracy", "val_metric", "train_loss"])
def test_the_restored_epoch_is_that_of_training(monitor: Monitor, metric: str) -> None:
    """The rule is implemented twice, because neither module may import the other."""
    generator = np.random.default_rng(0)
    rising = monitor == "val_accuracy" or (monitor == "val_metric" and METRICS[metric].higher_is_better)
    for min_delta in (0.0, 0.1):
        settings = EarlyStopping(monitor=monitor, min_delta=min_delta)
        for _ in range(200):
            values = generator.integers(0, 9, size=12) / 8
            values[generator.random(12) < 0.3] = math.nan
            state = StoppingState()
            for epoch, value in enumerate(values, 1):
                state = after_epoch(state, settings, metric, value, epoch)
            assert restored_epoch(values.tolist(), rising, min_delta) + 1 == (state.best_epoch or 12)


@pytest.mark.parametrize(("candidates", "stopping"), [(200, None), (4, EarlyStopping(monitor="val_accuracy"))])
def test_random_labels_are_scored_at_chance(candidates: int, stopping: EarlyStopping | None) -> None:
    """200 candidates, or 4 of 50 epochs; 60 images; 500 repetitions: the mean's standard error is 0.3 points."""
    generator = np.random.default_rng(1)
    images, choices, repetitions = 60, 200, 500
    half = halves([f"image {number}" for number in range(images)])
    logits = generator.standard_normal((candidates, choices // candidates, images, 2), dtype=np.float32)
    every = {str(number): candidate(one) for number, one in enumerate(logits)}
    cross, same = [], []
    for _ in range(repetitions):
        labels = generator.integers(0, 2, size=images)
        found = cross_fitted(every, labels, half, stopping, "accuracy")
        cross.append(found is not None and (found.argmax(axis=1) == labels).mean())
        same.append((logits.argmax(axis=-1) == labels).mean(axis=-1).max())
    assert np.mean(cross) == pytest.approx(0.5, abs=0.01)
    assert np.mean(same) > 0.65  # selection and score on the same images
