"""What the data check left in the study directory: counts of the catalog, and what may leak from training to test."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from unfreeze.metrics import UNEVEN, imbalance
from unfreeze.storage.records import read_table
from unfreeze.storage.study_dir import StudyDir
from unfreeze.text import plural

_LEFT_OUT = "left_out"
"""The split of images that no cell uses, as splits.csv calls it."""


@dataclass(frozen=True)
class DataSummary:
    """What the catalog and the splits say.

    Attributes:
        counts: kind of finding, groups or files, images, and a note, the weightiest first.
        classes: used images by class, main data only, largest first.
        splits: used images by split (of the first fold).
        given: whether the data says itself which image is for what.
        straddling: groups of copies, or groups that the study names, with images both for training and for testing.
    """

    counts: tuple[tuple[str, int, int, str], ...]
    classes: dict[str, int]
    splits: dict[str, int]
    given: bool
    straddling: int

    @property
    def uneven(self) -> bool:
        """Tell whether accuracy alone hides small classes."""
        return self.imbalance >= UNEVEN

    @property
    def imbalance(self) -> float:
        """Images of the largest class over those of the smallest; 1 without classes."""
        return imbalance(self.classes.values())


def read_data_summary(study: StudyDir) -> DataSummary:
    """Read catalog.csv and splits.csv; without a catalog nothing is known and all is empty."""
    columns = ("id", "label", "status", "reason", "cluster", "group", "source", "pixels", "given_split")
    catalog = _read(study, "catalog.csv", columns)
    splits = _read(study, "splits.csv", ("id", "split", "fold"))
    used = catalog[catalog["status"] == "used"]
    first = splits.drop_duplicates("id") if splits.empty else splits[splits["fold"] == splits["fold"].iloc[0]]
    main = used[used["source"] == ""]
    straddling, images = _straddling(used, splits)
    counts = [*_left_out(catalog, "set_aside"), *_copies(used), *_left_out(catalog, "ignored")]
    left = int((first["split"] == _LEFT_OUT).sum())
    if left:
        counts.insert(0, ("left out", left, left, "given for training or validation, but copies of test images"))
    if straddling:
        counts.insert(0, ("leaks", straddling, images, "belong together, yet lie on both sides of the test split"))
    return DataSummary(
        counts=tuple(counts),
        classes={str(label): int(count) for label, count in main["label"].value_counts().items()},
        splits={
            str(split).replace(_LEFT_OUT, "left out"): int(count)
            for split, count in first["split"].value_counts(sort=False).items()
        },
        given=bool((main["given_split"] != "").any()),
        straddling=straddling,
    )


def leading_metric(record: Mapping[str, Any], imbalance: float) -> str:
    """Return the metric that the answer leads with: where classes are uneven, accuracy only if the study asks for it.

    Args:
        record: study.json; of one that does not say whether its metric was asked for, it was.
        imbalance: images of the largest class over those of the smallest.
    """
    metric = str(record["metric"])
    asked = record.get("metric_given", True)
    return "balanced_accuracy" if metric == "accuracy" and not asked and imbalance >= UNEVEN else metric


def leak_text(found: DataSummary) -> str:
    """Warn of images that belong together on both sides of the test split; "" where there are none."""
    if not found.straddling:
        return ""
    groups = plural(found.straddling, "group")
    return f"{groups} of copies or of one group lie both in training and in test images, so test scores flatter."


def _read(study: StudyDir, name: str, columns: tuple[str, ...]) -> pd.DataFrame:
    path = study.path / name
    table = read_table(path) if path.is_file() else pd.DataFrame()
    table = table.reindex(columns=list(columns)).astype(object)
    return table.where(table.notna(), "").astype(str)


def _left_out(catalog: pd.DataFrame, status: str) -> list[tuple[str, int, int, str]]:
    files = catalog[catalog["status"] == status]
    reasons = Counter(str(reason).split(":")[0] or "no reason given" for reason in files["reason"])
    return [(status.replace("_", " "), count, count, reason) for reason, count in reasons.most_common()]


def _copies(used: pd.DataFrame) -> list[tuple[str, int, int, str]]:
    exact, near, images = 0, 0, Counter[str]()
    for _, group in used[used["cluster"] != ""].groupby("cluster"):
        if len(group) < 2:
            continue
        kind = (
            "the same pixels" if group["pixels"].nunique() == 1 and (group["pixels"] != "").all() else "nearly the same"
        )
        exact, near = exact + (kind == "the same pixels"), near + (kind != "the same pixels")
        images[kind] += len(group)
    found = []
    for kind, count in (("the same pixels", exact), ("nearly the same", near)):
        if count:
            found.append(("copies", count, images[kind], f"{kind}; counted as one in every interval"))
    named = used.loc[used["group"] != "", "group"]
    if len(named):
        found.append(("groups", named.nunique(), len(named), "named by the study; counted as one in every interval"))
    return found


def _straddling(used: pd.DataFrame, splits: pd.DataFrame) -> tuple[int, int]:
    """Count the groups whose images lie on both sides of the test split of any fold, and those images."""
    groups: set[tuple[str, str]] = set()
    images: set[str] = set()
    for _, own in splits.groupby("fold"):
        side = own[own["split"] != _LEFT_OUT].set_index("id")["split"] == "test"
        known = used[used["id"].isin(side.index)]
        for column in ("cluster", "group"):
            named = known[known[column] != ""]
            sides = named["id"].map(side).groupby(named[column]).nunique()
            torn = set(sides[sides > 1].index)
            groups |= {(column, name) for name in torn}
            images |= set(named.loc[named[column].isin(torn), "id"])
    return len(groups), len(images)
