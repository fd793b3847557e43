"""Summarise a study's images and their split, from catalog.csv and splits.csv; find groups that the split tears apart.

``data.quality`` judges what the data itself says about splits, before one is drawn. This judges the split that the
study uses, which may tear groups apart for other reasons: a test set stays as drawn while the data grows.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from unfreeze.metrics import IMBALANCED, imbalance
from unfreeze.storage.records import read_table
from unfreeze.storage.study_dir import StudyDir
from unfreeze.text import plural

_LEFT_OUT = "left_out"
"""The split of images that no cell uses, as named in splits.csv."""

Count = tuple[str, int, int, str]
"""A kind of finding, how many there are, how many images they concern, and a note."""


@dataclass(frozen=True)
class DataSummary:
    """Numbers about a study's images.

    Attributes:
        counts: findings by kind, the most important first.
        classes: number of used images per class, main data only, largest first.
        splits: number of used images per split (of the first fold).
        given: whether the data itself gives the splits.
        split_groups: number of groups (copies, or images that the study groups) on both sides of the test split.
    """

    counts: tuple[Count, ...]
    classes: dict[str, int]
    splits: dict[str, int]
    given: bool
    split_groups: int

    @property
    def is_imbalanced(self) -> bool:
        """Whether accuracy alone hides errors in small classes."""
        return self.imbalance >= IMBALANCED

    @property
    def imbalance(self) -> float:
        """Number of images of the largest class over that of the smallest; 1 without classes."""
        return imbalance(self.classes.values())


def read_data_summary(study: StudyDir) -> DataSummary:
    """Read catalog.csv and splits.csv; without a catalog the summary is empty."""
    columns = ("id", "label", "status", "reason", "cluster", "group", "source", "pixels", "given_split")
    catalog = _read(study, "catalog.csv", columns)
    splits = _read(study, "splits.csv", ("id", "split", "fold"))
    used = catalog[catalog["status"] == "used"]
    first_fold = splits.drop_duplicates("id") if splits.empty else splits[splits["fold"] == splits["fold"].iloc[0]]
    main = used[used["source"] == ""]
    split_groups, images = _split_groups(used, splits)
    counts = [*_reasons(catalog, "set_aside"), *_copies(used), *_reasons(catalog, "ignored")]
    left_out = int((first_fold["split"] == _LEFT_OUT).sum())
    if left_out:
        counts.insert(0, ("left out", left_out, left_out, "copies of test images, given for training or validation"))
    if split_groups:
        counts.insert(0, ("leaks", split_groups, images, "groups with images on both sides of the test split"))
    return DataSummary(
        counts=tuple(counts),
        classes={str(label): int(count) for label, count in main["label"].value_counts().items()},
        splits={
            str(split).replace(_LEFT_OUT, "left out"): int(count)
            for split, count in first_fold["split"].value_counts(sort=False).items()
        },
        given=bool((main["given_split"] != "").any()),
        split_groups=split_groups,
    )


def leading_metric(record: Mapping[str, Any], imbalance: float) -> str:
    """Return the metric that leads the answer: balanced accuracy if classes are imbalanced and accuracy is the default.

    Args:
        record: study.json; records without ``metric_given`` count as if the metric had been chosen.
        imbalance: number of images of the largest class over that of the smallest.
    """
    metric = str(record["metric"])
    is_chosen = record.get("metric_given", True)
    return "balanced_accuracy" if metric == "accuracy" and not is_chosen and imbalance >= IMBALANCED else metric


def leak_text(data: DataSummary) -> str:
    """Return a warning about groups on both sides of the test split; "" where there are none."""
    if not data.split_groups:
        return ""
    groups = plural(data.split_groups, "group of copies or related images", "groups of copies or related images")
    verb = "is" if data.split_groups == 1 else "are"
    return f"{groups} {verb} on both sides of the test split, so test scores are optimistic."


def _read(study: StudyDir, name: str, columns: tuple[str, ...]) -> pd.DataFrame:
    path = study.path / name
    table = read_table(path) if path.is_file() else pd.DataFrame()
    table = table.reindex(columns=list(columns)).astype(object)
    return table.where(table.notna(), "").astype(str)


def _reasons(catalog: pd.DataFrame, status: str) -> list[Count]:
    """Count the files of a status by the first part of their reason."""
    files = catalog[catalog["status"] == status]
    reasons = Counter(str(reason).split(":")[0] or "no reason given" for reason in files["reason"])
    return [(status.replace("_", " "), count, count, reason) for reason, count in reasons.most_common()]


def _copies(used: pd.DataFrame) -> list[Count]:
    """Count clusters of identical images, clusters of near duplicates, and groups that the study names."""
    clusters = used[used["cluster"] != ""].groupby("cluster")["pixels"].agg(["size", "nunique", "min"])
    clusters = clusters[clusters["size"] > 1]
    identical = (clusters["nunique"] == 1) & (clusters["min"] != "")
    as_one = "counted as one in every interval"
    counts = [
        ("copies", len(sizes), int(sizes.sum()), f"{kind}; {as_one}")
        for kind, sizes in (
            ("identical pixels", clusters.loc[identical, "size"]),
            ("near duplicates", clusters.loc[~identical, "size"]),
        )
        if len(sizes)
    ]
    groups = used.loc[used["group"] != "", "group"]
    if len(groups):
        counts.append(("groups", groups.nunique(), len(groups), f"named by the study; {as_one}"))
    return counts


def _split_groups(used: pd.DataFrame, splits: pd.DataFrame) -> tuple[int, int]:
    """Count the groups with images on both sides of the test split of any fold, and those images."""
    groups: set[tuple[str, str]] = set()
    images: set[str] = set()
    for _, fold in splits.groupby("fold"):
        is_test = fold[fold["split"] != _LEFT_OUT].set_index("id")["split"] == "test"
        known = used[used["id"].isin(is_test.index)]
        for column in ("cluster", "group"):
            named = known[known[column] != ""]
            sides = named["id"].map(is_test).groupby(named[column]).nunique()
            torn = set(sides[sides > 1].index)
            groups |= {(column, name) for name in torn}
            images |= set(named.loc[named[column].isin(torn), "id"])
    return len(groups), len(images)
