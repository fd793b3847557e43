"""Numbers as people read them."""

import pytest

from unfreeze.text import change_text, difference_text, mean_count_text, small_pool_text


@pytest.mark.parametrize("value", [0.0, -0.0, 4e-4, -4e-4])
def test_a_change_that_rounds_to_nothing_has_no_sign(value: float) -> None:
    assert change_text("accuracy", value) == "0.0 points"
    assert change_text("log_loss", value) == "0.000"


def test_a_difference_has_its_sign_and_interval() -> None:
    assert difference_text("accuracy", 0.0125, -0.0041, 0.02) == "+1.2 points (-0.4 to +2.0)"
    assert difference_text("log_loss", -0.0125, -0.02, -0.0001) == "-0.013 (-0.020 to 0.000)"


@pytest.mark.parametrize(("mean", "text"), [(8.0, "8"), (23 / 3, "about 8"), (1234.5, "about 1,234"), (2e3, "2,000")])
def test_a_mean_of_images_is_a_whole_number_and_says_so_if_it_was_none(mean: float, text: str) -> None:
    assert mean_count_text(mean) == text


@pytest.mark.parametrize(
    ("metric", "images", "smallest", "can_fold", "said"),
    [
        ("accuracy", 200, 20, True, ""),
        (
            "accuracy", 37, 5, True,
            "validation has 37 images (5 in the smallest class): one image is 2.7 points; "
            "--set split.folds=5 validates on others in each of five turns",
        ),
        (
            "balanced_accuracy", 2000, 19, False,
            "validation has 2,000 images (19 in the smallest class): one image is 0.1 points; more images tell more",
        ),
        (
            "log_loss", 37, 5, False,
            "validation has 37 images (5 in the smallest class): one image weighs 2.7 %; more images tell more",
        ),
        (
            "accuracy", 1, 1, False,
            "validation has 1 image (1 in the smallest class): one image is 100.0 points; more images tell more",
        ),
    ],
)  # fmt: skip
def test_few_validation_images_are_said(metric: str, images: int, smallest: int, can_fold: bool, said: str) -> None:
    assert small_pool_text(metric, images, smallest, can_fold) == said
