"""Sentences on the splits that the data gives."""

import pytest

from tests.support.pictures import catalog
from unfreeze.config.schema import SplitConfig
from unfreeze.data.summary import split_notes

GIVEN = "besides training images the data gives one split, validation (4 images)"


def rows(**parts: int) -> list[dict[str, str]]:
    return [
        {"sha256": f"{split}{label}{n}", "label": label, "given_split": split, "path": f"{split}/{label}/{n}.png"}
        for split, count in parts.items()
        for label in "ab"
        for n in range(count)
    ]


@pytest.mark.parametrize(
    ("val", "said"),
    [
        (
            0.15,
            f"{GIVEN}: it is the test set, and validation images are drawn from the training images; "
            "--set split.val=given validates on it, without a test set",
        ),
        ("test", f"{GIVEN}: it is the test set, and with split.val: test the validation set, too"),
        ("given", ""),
    ],
)
def test_a_single_split_next_to_training_is_reported(val, said):
    assert split_notes(catalog(rows(train=9, validation=2)), SplitConfig(val=val)) == ([said] if said else [])


def test_validation_images_of_an_earlier_run_are_reported():
    catalogued = catalog(rows(train=9, validation=2))
    earlier = dict(zip(catalogued.images["id"], catalogued.images["given_split"], strict=True))
    assert split_notes(catalogued, SplitConfig(), earlier) == [
        f"{GIVEN}: it is used as in the first run of this study, and there is no test set; "
        "give another --out DIR to make it the test set"
    ]


@pytest.mark.parametrize(
    "found",
    [rows(train=9, test=2), rows(train=9, validation=2, test=2), [{"sha256": f"{n}", "label": "a"} for n in "ab"]],
)
def test_nothing_is_said_where_everything_is_what_it_is_called(found):
    assert split_notes(catalog(found), SplitConfig()) == []


def test_copies_of_test_images_are_counted_and_the_first_is_named():
    found = rows(train=9, test=2)
    found[3]["sha256"] = found[-1]["sha256"]
    assert split_notes(catalog(found), SplitConfig()) == [
        "1 training or validation image is a copy of a test image and left out (left_out in splits.csv): "
        "train/a/3.png of test/b/1.png"
    ]
    found[5]["cluster"] = found[-2]["cluster"] = "c"
    assert split_notes(catalog(found), SplitConfig()) == [
        "2 training or validation images are copies of test images and left out (left_out in splits.csv): "
        "train/a/3.png of test/b/1.png is the first; "
        "--set check.near_duplicates=ignore leaves out only those with the same pixels"
    ]
