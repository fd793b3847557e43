import time
from collections import Counter
from dataclasses import replace

import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.support.pictures import catalog
from unfreeze.config.schema import SplitConfig
from unfreeze.data.catalog import Catalog
from unfreeze.data.quality import findings
from unfreeze.data.split import draw_split, is_same_split, with_share
from unfreeze.errors import UserError

LABELS = ("a", "b", "c")


def images(counts: dict[str, int], **more: str) -> list[dict[str, str]]:
    return [{"sha256": f"{label}{n}", "label": label, **more} for label, count in counts.items() for n in range(count)]


def table(catalogued: Catalog, drawn: pd.Series) -> pd.DataFrame:
    return catalogued.images.set_index("id").assign(split=drawn)


def counts(catalogued: Catalog, drawn: pd.Series) -> dict[tuple[str, str], int]:
    rows = table(catalogued, drawn)
    return Counter(zip(rows["label"], rows["split"], strict=True))


def message(rows: list[dict[str, str]], split: SplitConfig, fold: int | None = None) -> str:
    with pytest.raises(UserError) as caught:
        draw_split(catalog(rows), split, fold)
    return str(caught.value)


@st.composite
def many(draw, smallest: int = 12):
    """Images of three classes with duplicates, some across classes, and groups of images of one class."""
    salt = draw(st.integers(0, 10**6))
    rows = []
    for label in LABELS:
        for number in range(draw(st.integers(smallest, smallest + 20))):
            group = draw(st.sampled_from(["", "", f"{salt}-{label}-{number // 3}"]))
            rows.append({"sha256": f"{salt}-{label}-{number}", "label": label, "group": group})
    for copied in draw(st.lists(st.sampled_from(rows), max_size=5)):
        rows.append({**copied, "label": draw(st.sampled_from(LABELS)), "group": ""})
    return rows


def drawn_or_skipped(catalogued: Catalog, split: SplitConfig, fold: int | None = None) -> pd.Series:
    try:
        return draw_split(catalogued, split, fold)
    except UserError:  # groups and copies left a class with too few clusters
        assume(False)
        raise


def clusters_straddle(rows: pd.DataFrame) -> bool:
    grouped = rows[rows["group"] != ""]
    return bool(
        (rows.groupby("sha256")["split"].nunique() > 1).any() or (grouped.groupby("group")["split"].nunique() > 1).any()
    )


splits = st.builds(SplitConfig, test=st.floats(0.05, 0.5), val=st.one_of(st.floats(0.05, 0.4), st.just("test")))


@settings(deadline=None, max_examples=20)
@given(rows=many(), split=splits)
def test_clusters_never_straddle_and_each_class_is_in_each_split(rows, split):
    catalogued = catalog(rows)
    drawn = drawn_or_skipped(catalogued, split)
    assert not clusters_straddle(table(catalogued, drawn))
    wanted = {"train", "test"} | ({"validation"} if split.val != "test" else set())
    assert set(counts(catalogued, drawn)) == {(label, pool) for label in LABELS for pool in wanted}


@settings(deadline=None, max_examples=20)
@given(rows=many(), position=st.integers(0, 10**6), label=st.sampled_from(LABELS))
def test_the_order_of_the_images_does_not_matter(rows, position, label):
    first = catalog([{**row, "id": str(number)} for number, row in enumerate(rows)])
    second = catalog([{**row, "id": str(number)} for number, row in reversed(list(enumerate(rows)))])
    split = SplitConfig(test=0.3, val=0.3)
    drawn = drawn_or_skipped(first, split)
    assert dict(draw_split(second, split)) == dict(drawn)


def test_adding_an_image_moves_no_other():
    rows = [{"sha256": f"{n}", "label": LABELS[n % 3], "id": f"{n}"} for n in range(1000)]
    before = draw_split(catalog(rows), SplitConfig())
    for new in range(20):
        more = [*rows, {"sha256": f"new{new}", "label": LABELS[new % 3], "id": "new"}]
        after = draw_split(catalog(more), SplitConfig())
        assert (after.drop("new") == before).all()


@settings(deadline=None, max_examples=20)
@given(rows=many(smallest=30), new=st.integers(0, 10**6), label=st.sampled_from(LABELS))
def test_adding_an_image_moves_no_other_but_its_cluster(rows, new, label):
    numbered = [{**row, "id": str(number)} for number, row in enumerate(rows)]
    split = SplitConfig(test=0.4, val=0.3)
    before = drawn_or_skipped(catalog(numbered), split)
    copied = rows[new % len(rows)]
    joined = {copied["group"]} - {""}
    added = {"sha256": f"new{new}", "label": label, "id": "new", "group": copied["group"]}
    after = drawn_or_skipped(catalog([*numbered, added]), split)
    others = [row["id"] for row in numbered if row["group"] not in joined]
    linked = {row["sha256"] for row in numbered if row["group"] in joined}
    assert all(after[name] == before[name] for name in others if numbered[int(name)]["sha256"] not in linked)


def test_the_catalog_is_left_as_it_is():
    catalogued = catalog(images({"a": 20, "b": 20}))
    before = catalogued.images.copy()
    draw_split(catalogued, SplitConfig())
    pd.testing.assert_frame_equal(catalogued.images, before)


def test_shares_are_of_all_images():
    drawn = draw_split(catalog(images({"a": 10_000, "b": 10_000})), SplitConfig(test=0.3, val=0.2))
    shares = drawn.value_counts(normalize=True)
    assert abs(shares["test"] - 0.3) < 0.01
    assert abs(shares["validation"] - 0.2) < 0.01


def test_a_larger_test_share_holds_the_smaller_one():
    catalogued = catalog(images({"a": 200, "b": 200}))
    small, large = (draw_split(catalogued, SplitConfig(test=test)) for test in (0.1, 0.3))
    assert set(small.index[small == "test"]) < set(large.index[large == "test"])


def test_the_split_of_an_image_is_fixed_for_ever():
    drawn = draw_split(catalog(images({"a": 12, "b": 12})), SplitConfig())
    short = {"train": "r", "validation": "v", "test": "t"}
    assert "".join(short[value] for value in drawn) == GOLDEN


@settings(deadline=None, max_examples=12)
@given(salt=st.integers(0, 10**6), test=st.floats(0.01, 0.9), count=st.integers(3, 5))
def test_three_images_a_class_are_enough(salt, test, count):
    rows = [{"sha256": f"{salt}-{label}-{n}", "label": label} for label in LABELS for n in range(count)]
    catalogued = catalog(rows)
    drawn = draw_split(catalogued, SplitConfig(test=test, val=min(0.15, 0.95 - test)))
    assert set(counts(catalogued, drawn)) == {(label, p) for label in LABELS for p in ("train", "validation", "test")}


@settings(deadline=None, max_examples=12)
@given(rows=many(), folds=st.integers(2, 5), val=st.sampled_from([0.1, 0.3, "test"]))
def test_folds_partition_the_images(rows, folds, val):
    catalogued = catalog(rows)
    split = SplitConfig(folds=folds, val=val)
    tested: Counter[str] = Counter()
    for fold in range(folds):
        drawn = drawn_or_skipped(catalogued, split, fold)
        assert not clusters_straddle(table(catalogued, drawn))
        pools = {"train", "test"} | ({"validation"} if val != "test" else set())
        assert set(counts(catalogued, drawn)) == {(label, pool) for label in LABELS for pool in pools}
        tested.update(drawn.index[drawn == "test"])
    assert tested == Counter(catalogued.images["id"])


def test_each_fold_validates_on_other_images():
    catalogued = catalog(images({"a": 1000, "b": 1000}))
    pools = [draw_split(catalogued, SplitConfig(folds=5), fold) for fold in range(5)]
    validated = sum((drawn == "validation").astype(int) for drawn in pools)
    assert abs(validated.sum() / 2000 - 5 * 0.15) < 0.03
    assert validated.max() == 1  # 0.15 / (1 - 0.2) is less than a fifth, so that no two folds share one
    again = draw_split(catalogued, SplitConfig(folds=5), 3, earlier=dict(pools[0]))  # as an earlier version drew it
    assert list(again) == list(pools[0])


@pytest.mark.parametrize(("folds", "count"), [(2, 4), (3, 3), (5, 5), (10, 10)])
def test_as_many_images_as_folds_are_enough(folds, count):
    for salt in range(10):
        rows = [{"sha256": f"{salt}-{label}-{n}", "label": label} for label in "ab" for n in range(count)]
        catalogued = catalog(rows)
        for fold in range(folds):
            drawn = draw_split(catalogued, SplitConfig(folds=folds), fold)
            assert len(counts(catalogued, drawn)) == 6


def test_only_used_images_are_drawn():
    rows = images({"a": 3, "b": 3}) + [{"sha256": "", "label": "a", "status": "set_aside", "id": "bad"}]
    assert "bad" not in draw_split(catalog(rows), SplitConfig()).index


def given_split(**parts: int) -> list[dict[str, str]]:
    return [
        {"sha256": f"{split}-{label}-{n}", "label": label, "given_split": split}
        for split, count in parts.items()
        for label in "ab"
        for n in range(count)
    ]


@pytest.mark.parametrize("val", [0.15, "test"])
def test_given_splits_are_kept(val):
    catalogued = catalog(given_split(train=3, validation=2, test=1))
    drawn = draw_split(catalogued, SplitConfig(val=val))
    assert list(drawn) == list(catalogued.images["given_split"])


def test_the_second_of_two_given_splits_is_the_test_set_whatever_it_is_called():
    rows = given_split(train=2000, validation=10)
    catalogued = catalog(rows)
    drawn = draw_split(catalogued, SplitConfig(test=0.2, val=0.2))
    assert set(drawn[catalogued.images["given_split"].to_numpy() == "validation"]) == {"test"}
    assert abs((drawn == "validation").sum() / 4000 - 0.25) < 0.02
    called_test = catalog([{**row, "given_split": row["given_split"].replace("validation", "test")} for row in rows])
    assert list(draw_split(called_test, SplitConfig(test=0.2, val=0.2))) == list(drawn)


def test_given_validation_images_validate_where_that_is_asked_for():
    drawn = draw_split(catalog(given_split(train=3, validation=2)), SplitConfig(val="given"))
    assert drawn.value_counts().to_dict() == {"train": 6, "validation": 4}
    drawn = draw_split(catalog(given_split(train=3, validation=2, test=1)), SplitConfig(val="given"))
    assert drawn.value_counts().to_dict() == {"train": 6, "validation": 4, "test": 2}


def test_validation_on_the_second_of_two_given_splits():
    drawn = draw_split(catalog(given_split(train=3, validation=2)), SplitConfig(val="test"))
    assert drawn.value_counts().to_dict() == {"train": 6, "test": 4}


@pytest.mark.parametrize(
    ("rows", "said"),
    [(given_split(train=3, test=2), "gives test and train"), (images({"a": 9, "b": 9}), "gives no splits")],
)
def test_given_validation_images_that_are_not_there(rows, said):
    assert message(rows, SplitConfig(val="given")) == (
        f"split.val: given: the data {said}\n"
        "  expected: validation images in a folder of their own, or named in a column\n"
        "  fix:      draw them: --set split.val=0.15"
    )


def test_a_small_given_test_set_stays():
    catalogued = catalog(given_split(train=30, test=1))
    drawn = draw_split(catalogued, SplitConfig())
    assert list(drawn == "test") == list(catalogued.images["given_split"] == "test")


@pytest.mark.parametrize("column", ["sha256", "cluster"])
def test_copies_of_test_images_leave_the_other_given_splits(column):
    rows = given_split(train=6, validation=4, test=3)
    for copy, original in ((0, -1), (13, -1), (7, -2)):  # of training a and validation a, and of training b
        rows[copy][column] = rows[original][column] = f"same{original}"
    drawn = draw_split(catalog(rows), SplitConfig())
    assert drawn.value_counts().to_dict() == {"train": 10, "validation": 7, "test": 6, "left_out": 3}
    assert [drawn.iloc[number] for number in (0, 13, 7)] == ["left_out"] * 3


def test_validation_is_not_drawn_from_copies_of_test_images():
    rows = given_split(train=40, validation=9)
    for number in range(10):
        rows[number]["cluster"] = rows[-1]["cluster"] = "c"
    drawn = draw_split(catalog(rows), SplitConfig(val=0.4))
    assert set(drawn.iloc[:10]) == {"left_out"}
    assert set(drawn.iloc[10:80]) == {"train", "validation"}


def test_images_of_one_group_stay_where_they_are_given():
    rows = given_split(train=6, validation=4, test=3)
    rows[0]["group"] = rows[-1]["group"] = "g"
    catalogued = catalog(rows)
    assert list(draw_split(catalogued, SplitConfig())) == list(catalogued.images["given_split"])


def test_a_class_whose_training_images_are_all_copies_of_test_images():
    rows = given_split(train=3, test=3)
    for row in rows:
        row["cluster"] = "c" if row["label"] == "b" else ""
    assert message(rows, SplitConfig()) == (
        "all train images of b are copies of test images\n"
        "  expected: train images that are not test images, too\n"
        "  fix:      add others; if they only look similar, count only images with the same pixels as copies: "
        "--set check.near_duplicates=ignore"
    )


def test_what_an_earlier_run_validated_on_stays_validation():
    rows = given_split(train=20, validation=9)
    earlier = {f"{row['sha256']}.{row['label']}.{number}": row["given_split"] for number, row in enumerate(rows)}
    grown = [*rows, {"sha256": "new", "label": "a", "given_split": "validation"}]
    drawn = draw_split(catalog(grown), SplitConfig(), earlier=earlier)
    assert list(drawn) == [row["given_split"] for row in grown]


def test_what_was_drawn_of_two_given_splits_is_drawn_again():
    catalogued = catalog(given_split(train=20, validation=9))
    drawn = draw_split(catalogued, SplitConfig())
    again = draw_split(catalogued, SplitConfig(), earlier=dict(drawn))
    assert list(again) == list(drawn)


def test_copies_that_an_earlier_run_trained_on_stay_except_those_of_new_test_images():
    rows = given_split(train=6, validation=4, test=3)
    rows[0]["cluster"] = rows[-1]["cluster"] = "old"
    earlier = {f"{row['sha256']}.{row['label']}.{number}": row["given_split"] for number, row in enumerate(rows)}
    assert "left_out" not in set(draw_split(catalog(rows), SplitConfig(), earlier=earlier))
    rows[1]["cluster"] = "new"
    rows.append({"sha256": "new", "label": "a", "given_split": "test", "cluster": "new"})
    drawn = draw_split(catalog(rows), SplitConfig(), earlier=earlier)
    assert list(drawn.index[drawn == "left_out"]) == ["train-a-1.a.1"]


@pytest.mark.parametrize(
    ("count", "given", "share"),
    [(666, False, 0.25), (667, False, 0.15), (533, True, 0.25), (534, True, 0.15)],
)
def test_a_small_pool_gets_a_larger_share_for_validation(count, given, share):
    assert with_share(SplitConfig(val="auto"), count, given) == SplitConfig(val=share)
    assert with_share(SplitConfig(val=0.3), count, given) == SplitConfig(val=0.3)


@pytest.mark.parametrize(("count", "share"), [(300, 0.25), (700, 0.15)])
def test_an_automatic_share_is_drawn_as_that_share(count, share):
    catalogued = catalog(images({"a": count // 2, "b": count // 2}))
    drawn = draw_split(catalogued, SplitConfig(val="auto"))
    assert list(drawn) == list(draw_split(catalogued, SplitConfig(val=share)))
    folded = draw_split(catalogued, SplitConfig(val="auto", folds=4), 2)
    assert list(folded) == list(draw_split(catalogued, SplitConfig(val=share, folds=4), 2))


@pytest.mark.parametrize(
    ("before", "now", "same"),
    [
        ({"test": 0.2, "val": 0.15, "group": None, "folds": None}, {}, True),
        ({}, {"val": 0.15}, True),  # a record that lacks what has come since
        ({"val": 0.15}, {"val": "auto"}, True),  # as drawn: presets said 0.15 before
        ({"val": "auto"}, {"val": "auto"}, True),
        ({"val": "auto"}, {"val": 0.15}, False),
        ({"val": "test"}, {"val": "auto"}, False),
        ({"val": 0.15, "test": 0.3}, {"val": "auto"}, False),
    ],
)
def test_settings_that_ask_for_what_was_drawn(before, now, same):
    assert is_same_split(before, SplitConfig(**now)) == same


def test_validation_is_drawn_from_a_given_train():
    rows = given_split(train=2000, test=10)
    rows[1]["sha256"] = rows[0]["sha256"]
    catalogued = catalog(rows)
    drawn = draw_split(catalogued, SplitConfig(test=0.2, val=0.2))
    assert (drawn == "test").sum() == 20
    assert abs((drawn == "validation").sum() / 4000 - 0.25) < 0.02
    assert drawn.iloc[0] == drawn.iloc[1]
    assert set(draw_split(catalogued, SplitConfig(val="test"))) == {"train", "test"}


def test_further_test_sets_are_only_tested():
    rows = images({"a": 5, "b": 5}) + images({"a": 1}, source="site_b")
    drawn = draw_split(catalog(rows), SplitConfig())
    assert drawn.iloc[-1] == "test_site_b"
    assert set(drawn.iloc[:-1]) == {"train", "validation", "test"}


def test_too_few_images():
    rows = images({"a": 9, "b": 2, "c": 4})
    rows[-1]["sha256"] = rows[-2]["sha256"] = rows[-3]["sha256"]
    assert message(rows, SplitConfig()) == (
        "too few images in 2 of 3 classes: b has 2, c has 2 "
        "(copies of one picture, and the images of one group, count once)\n"
        "  expected: at least 3 in each class: one each for train and validation and test\n"
        "  fix:      add images to these classes, or remove their folders"
    )


def test_an_empty_class_and_one_of_a_single_image_are_named():
    empty = replace(catalog(images({"a": 9, "b": 1})), classes=("a", "b", "empty"))
    with pytest.raises(UserError) as caught:
        draw_split(empty, SplitConfig())
    assert str(caught.value) == (
        "too few images in 2 of 3 classes: b has 1, empty has 0 "
        "(copies of one picture, and the images of one group, count once)\n"
        "  expected: at least 3 in each class: one each for train and validation and test\n"
        "  fix:      add images to these classes, or remove their folders"
    )


def test_ten_thousand_small_classes_take_seconds():
    rows = [{"sha256": f"{c}-{n}", "id": f"{c}-{n}", "label": f"c{c}"} for c in range(10_000) for n in range(4)]
    catalogued = catalog(rows)
    begun = time.process_time()  # other processes may keep this one waiting
    drawn = draw_split(catalogued, SplitConfig())
    assert sum(one.kind == "small_class" for one in findings(catalogued)) == 10_000
    assert time.process_time() - begun < 15
    assert len(counts(catalogued, drawn)) == 3 * 10_000


def test_two_images_are_enough_where_validation_is_test():
    assert set(draw_split(catalog(images({"a": 2, "b": 2})), SplitConfig(val="test"))) == {"train", "test"}
    assert message(images({"a": 2, "b": 1}), SplitConfig(val="test")) == (
        "too few images in 1 of 2 classes: b has 1 (copies of one picture, and the images of one group, count once)\n"
        "  expected: at least 2 in each class: one each for train and test\n"
        "  fix:      add images to these classes, or remove their folders"
    )


def test_too_few_images_in_a_given_train():
    rows = [row for row in given_split(train=2, test=2) if row["sha256"] != "train-b-1"]
    assert message(rows, SplitConfig()) == (
        "too few images in 1 of 2 classes: b has 1 (copies of one picture, and the images of one group, count once)\n"
        "  expected: at least 2 in each class: one each for train and validation\n"
        "  fix:      add images to these classes, or remove their folders"
    )


def test_too_few_images_for_the_folds():
    assert message(images({"a": 9, "b": 4}), SplitConfig(folds=5), 0) == (
        "too few images in 1 of 2 classes: b has 4 (copies of one picture, and the images of one group, count once)\n"
        "  expected: at least 5 in each class: enough for 5 folds\n"
        "  fix:      add images to these classes, or remove their folders"
    )


def test_groups_of_many_classes_that_leave_a_split_empty():
    # The Fano plane: any two of the seven groups share a class, so no three pools can have each class thrice.
    lines = ["124", "235", "346", "457", "561", "672", "713"]
    rows = [
        {"sha256": f"{label}{group}", "label": label, "group": group}
        for label, line in zip("abcdefg", lines, strict=True)
        for group in line
    ]
    assert message(rows, SplitConfig()) == (
        "groups and copies cannot be kept together: no validation image of a, no validation image of b, "
        "no validation image of c, no validation image of e, no test image of e\n"
        "  expected: an image of each class in each of train, validation, test\n"
        "  fix:      make the groups smaller, or remove these classes"
    )


def test_folds_of_data_with_its_own_split():
    assert message(given_split(train=9, test=9), SplitConfig(folds=3), 0) == (
        "split.folds: 3: the data already gives test, train\n"
        "  expected: folds of data that gives no splits\n"
        "  fix:      remove folds from the study, "
        "or give data without train, validation and test in folders or a column"
    )


def test_folds_that_leave_nothing_to_train_on():
    assert message(images({"a": 9, "b": 9}), SplitConfig(folds=2, val=0.6), 0) == (
        "split.val: 0.6 with folds: 2 leaves nothing to train on\n"
        "  expected: a share of all images below 0.5\n"
        "  fix:      lower val or raise folds"
    )


@pytest.mark.parametrize(("folds", "fold"), [(None, 0), (3, None), (3, 3), (3, -1)])
def test_a_fold_that_does_not_exist(folds, fold):
    with pytest.raises(ValueError, match=f"^fold {fold} is not one of folds: {folds}$"):
        draw_split(catalog(images({"a": 9, "b": 9})), SplitConfig(folds=folds), fold)


GOLDEN = "trtrrrrrvtrrrrvtrtrrrrrr"
