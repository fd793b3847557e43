"""Numbers as people read them."""

import pytest

from unfreeze.results.words import change_text, difference_text


@pytest.mark.parametrize("value", [0.0, -0.0, 4e-4, -4e-4])
def test_a_change_that_rounds_to_nothing_has_no_sign(value: float) -> None:
    assert change_text("accuracy", value) == "0.0 points"
    assert change_text("log_loss", value) == "0.000"


def test_a_difference_has_its_sign_and_interval() -> None:
    assert difference_text("accuracy", 0.0125, -0.0041, 0.02) == "+1.2 points (-0.4 to +2.0)"
    assert difference_text("log_loss", -0.0125, -0.02, -0.0001) == "-0.013 (-0.020 to 0.000)"
