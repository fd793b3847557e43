"""Formatted numbers and counts."""

import pytest

from unfreeze.text import mean_count_text, plural


@pytest.mark.parametrize(("mean", "text"), [(8.0, "8"), (23 / 3, "about 8"), (1234.5, "about 1,234"), (2e3, "2,000")])
def test_a_rounded_mean_is_marked(mean: float, text: str) -> None:
    assert mean_count_text(mean) == text


def test_a_count_has_its_noun() -> None:
    assert [plural(1, "class", "classes"), plural(1600, "class", "classes"), plural(0, "seed")] == [
        "1 class", "1,600 classes", "0 seeds",
    ]  # fmt: skip
