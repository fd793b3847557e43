import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.pictures import catalog
from unfreeze.config.schema import RegimeConfig, SplitConfig
from unfreeze.data.split import draw_split
from unfreeze.data.subset import select
from unfreeze.errors import UserError


def pools(counts: dict[tuple[str, str], int]):
    """A catalog and its split from counts by (split, label), each split used as it is called."""
    rows = [
        {"sha256": f"{split}-{label}-{n}", "id": f"{split}-{label}-{n}", "label": label, "given_split": split}
        for (split, label), count in counts.items()
        for n in range(count)
    ]
    catalogued = catalog(rows)
    return catalogued, draw_split(catalogued, SplitConfig(val="given"))


def plenty(train: int = 20, validation: int = 8, test: int = 6):
    parts = {"train": train, "validation": validation, "test": test}
    return pools({(split, label): count for split, count in parts.items() for label in "abc"})


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 99), small=st.integers(1, 20), more=st.integers(0, 20))
def test_smaller_regimes_lie_within_larger_ones(seed, small, more):
    catalogued, split = plenty()
    first, second = (
        select(catalogued, split, RegimeConfig(train_per_class=k, val_per_class=k), seed) for k in (small, small + more)
    )
    assert set(first.train) <= set(second.train)
    assert set(first.validation) <= set(second.validation)
    assert first.tests == second.tests


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 99), count=st.integers(1, 19), new=st.integers(1, 5))
def test_new_images_only_join_in(seed, count, new):
    few, many = (select(*plenty(train), RegimeConfig(train_per_class=count), seed) for train in (20, 20 + new))
    fresh = {name for name in many.train if int(name.rsplit("-", 1)[1]) >= 20}
    assert set(many.train) - fresh <= set(few.train)


def test_ids_come_class_after_class_from_their_own_pool():
    catalogued, split = plenty()
    chosen = select(catalogued, split, RegimeConfig(train_per_class=3, val_per_class=2), 0)
    assert [name.rsplit("-", 1)[0] for name in chosen.train] == [f"train-{label}" for label in "abc" for _ in range(3)]
    assert [name.rsplit("-", 1)[0] for name in chosen.validation] == [
        f"validation-{label}" for label in "abc" for _ in range(2)
    ]
    assert len(chosen.tests["test"]) == 18
    assert chosen.warnings == ()


def test_seeds_choose_differently_but_the_test_set_stays():
    first, second = (select(*plenty(), RegimeConfig(train_per_class=3), seed) for seed in (0, 1))
    assert set(first.train) != set(second.train)
    assert set(first.tests["test"]) == set(second.tests["test"])
    assert first == select(*plenty(), RegimeConfig(train_per_class=3), 0)


def test_everything_is_taken_where_nothing_is_said():
    chosen = select(*plenty(), RegimeConfig(), 0)
    assert (len(chosen.train), len(chosen.validation), len(chosen.tests["test"])) == (60, 24, 18)


@pytest.mark.parametrize(
    ("fraction", "train", "expected"), [(0.25, 20, 5), (0.01, 20, 1), (0.07, 100, 7), (0.1, 25, 3), (1.0, 20, 20)]
)
def test_a_fraction_is_rounded_up_as_written(fraction, train, expected):
    chosen = select(*plenty(train), RegimeConfig(train_fraction=fraction), 0)
    assert len(chosen.train) == 3 * expected


def test_validation_on_test_takes_from_the_test_images():
    catalogued, split = plenty()
    chosen = select(catalogued, split, RegimeConfig(val_per_class=2), 0, validate_on_test=True)
    assert len(chosen.validation) == 6
    assert set(chosen.validation) < set(chosen.tests["test"])
    assert len(chosen.tests["test"]) == 18


def test_data_without_a_test_split_has_no_test_set():
    catalogued, split = pools({(part, label): 3 for part in ("train", "validation") for label in "ab"})
    assert select(catalogued, split, RegimeConfig(), 0).tests == {}


def test_further_test_sets_go_by_their_name():
    rows = [{"sha256": f"{label}{n}", "label": label} for label in "ab" for n in range(5)]
    rows += [{"sha256": "x", "id": "x", "label": "a", "source": "test_b"}]
    catalogued = catalog(rows)
    chosen = select(catalogued, draw_split(catalogued, SplitConfig()), RegimeConfig(), 0)
    assert set(chosen.tests) == {"test", "test_b"}
    assert chosen.tests["test_b"] == ("x",)


def test_few_classes_get_a_warning_each():
    counts = {(part, label): 9 for part in ("train", "validation", "test") for label in "abc"}
    catalogued, split = pools({**counts, ("train", "b"): 4, ("validation", "c"): 1})
    chosen = select(catalogued, split, RegimeConfig(train_per_class=6, val_per_class=2), 0)
    assert len(chosen.train) == 16
    assert chosen.warnings == (
        "class b gives 4 of 6 training images",
        "class c gives 1 of 2 validation images",
    )


def test_many_short_classes_share_a_line():
    catalogued, split = pools({(part, label): 2 for part in ("train", "validation", "test") for label in "abcdef"})
    assert select(catalogued, split, RegimeConfig(train_per_class=80), 0).warnings == (
        "6 classes give fewer than 80 training images: a 2, b 2, c 2, d 2, e 2, f 2",
    )


def message(counts: dict[tuple[str, str], int], regime: RegimeConfig, validate_on_test: bool = False) -> str:
    with pytest.raises(UserError) as caught:
        select(*pools(counts), regime, 0, validate_on_test)
    return str(caught.value)


def test_a_strict_shortfall():
    counts = {(part, label): 9 for part in ("train", "validation", "test") for label in "abc"}
    counts |= {("train", "b"): 4, ("train", "c"): 5}
    assert message(counts, RegimeConfig(train_per_class=6, strict=True)) == (
        "too few training images for a strict regime: b 4, c 5\n"
        "  expected: 6 training images of each class\n"
        "  fix:      add images, lower the regime's number, or remove strict from the regime"
    )


def test_a_strict_regime_with_enough_images_says_nothing():
    chosen = select(*plenty(), RegimeConfig(train_per_class=20, val_per_class=8, strict=True), 0)
    assert chosen.warnings == ()


def test_a_class_missing_from_a_given_split():
    counts = {(part, label): 2 for part in ("train", "validation", "test") for label in "abc"}
    del counts["train", "a"], counts["validation", "b"], counts["test", "b"]
    assert message(counts, RegimeConfig()) == (
        "a has no training image, b has no validation image\n"
        "  expected: at least one image of each class in each split: training, validation\n"
        "  fix:      add images there, or remove these classes"
    )


@pytest.mark.parametrize(
    ("classes", "missing", "said"),
    [
        ("abc", "b", "no test image of b: its recall is not known"),
        ("abcdefgh", "bcdefgh", "no test image of b, c, d, e, f and 2 more: their recall is not known"),
    ],
)
def test_a_class_missing_from_the_test_images_only(classes, missing, said):
    counts = {(part, label): 2 for part in ("train", "validation", "test") for label in classes}
    for label in missing:
        del counts["test", label]
    chosen = select(*pools(counts), RegimeConfig(), 0)
    assert len(chosen.tests["test"]) == 2 * (len(classes) - len(missing))
    assert chosen.warnings == (f"{said}, and AUROC is not defined; add some to the test images to know it",)
    with pytest.raises(UserError, match="^b has no test image"):
        select(*pools(counts), RegimeConfig(), 0, validate_on_test=True)


def test_copies_of_test_images_are_in_no_pool():
    rows = [
        {"sha256": f"{split}{label}{n}", "id": f"{split}{label}{n}", "label": label, "given_split": split}
        for split in ("train", "validation", "test")
        for label in "ab"
        for n in range(3)
    ]
    rows[0]["cluster"] = rows[-1]["cluster"] = "c"
    catalogued = catalog(rows)
    chosen = select(catalogued, draw_split(catalogued, SplitConfig()), RegimeConfig(), 0)
    assert set(chosen.tests) == {"test"}
    assert "traina0" not in {*chosen.train, *chosen.validation}
    assert len(chosen.train) == 5


def test_validation_on_test_without_test():
    counts = {(part, label): 2 for part in ("train", "validation") for label in "ab"}
    assert message(counts, RegimeConfig(), validate_on_test=True) == (
        "a has no test image, b has no test image\n"
        "  expected: at least one image of each class in each split: training, test\n"
        "  fix:      add images there, or remove these classes"
    )
