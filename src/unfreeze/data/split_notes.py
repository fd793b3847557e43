"""What a run does with the splits that the data gives, in sentences: which is the test set, and what is left out."""

from collections.abc import Mapping

import pandas as pd

from unfreeze.config.study import SplitConfig
from unfreeze.data.catalog import Catalog
from unfreeze.data.check import path_of
from unfreeze.data.splits import LEFT_OUT, TEST, TRAIN, VALIDATION, given_pools


def split_notes(catalog: Catalog, split: SplitConfig, earlier: Mapping[str, str] | None = None) -> list[str]:
    """Return a sentence on the test set that data with two splits gets, and one on copies of test images.

    Args:
        catalog: the images.
        split: of the study.
        earlier: see ``splits.given_pools``.
    """
    images = catalog.images.reset_index(drop=True)
    images = images[(images["status"] == "used") & (images["source"] == "")]
    images = images.assign(pool=given_pools(images, split, earlier))
    return [*_two(images, split), *_left_out(images, catalog)]


def _two(images: pd.DataFrame, split: SplitConfig) -> list[str]:
    if set(images["given_split"]) != {TRAIN, VALIDATION} or split.val == "given":
        return []
    second = images[images["given_split"] == VALIDATION]
    given = f"besides training images the data gives one split, {VALIDATION} ({len(second):,} images)"
    if TEST not in set(second["pool"]):
        return [
            f"{given}: it stays what the first run of this study took it for, and nothing is left to test on; "
            "give another --out DIR to make it the test set"
        ]
    if split.val == TEST:
        return [f"{given}: it is the test set, on which split.val: test validates, too"]
    return [
        f"{given}: it is the test set, and validation images are drawn from the training images; "
        "--set split.val=given validates on it, with nothing left to test on"
    ]


def _left_out(images: pd.DataFrame, catalog: Catalog) -> list[str]:
    left = images[images["pool"] == LEFT_OUT]
    if left.empty:
        return []
    tested = images[images["pool"] == TEST]
    row = left.index[0]
    alike = tested["sha256"] == left["sha256"].iloc[0]
    if left["cluster"].iloc[0]:
        alike |= tested["cluster"] == left["cluster"].iloc[0]
    first, other = path_of(catalog, row), path_of(catalog, tested.index[alike][0])
    same = left["sha256"].isin(set(tested["sha256"])) | left["pixels"].isin(set(tested["pixels"]) - {""})
    others = "" if same.all() else "; --set check.near_duplicates=ignore leaves out only those with the same pixels"
    are = "image is a copy of a test image" if len(left) == 1 else "images are copies of test images"
    return [
        f"{len(left):,} training or validation {are} and left out (left_out in splits.csv): {first} of {other}"
        + (" is the first" if len(left) > 1 else "")
        + others
    ]
