"""What came, went and changed its label since a study last looked at its data, and what of that it may use."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import count

import numpy as np
import pandas as pd

from unfreeze.data.catalog import Catalog
from unfreeze.data.split import TEST
from unfreeze.data.unusable import CONFLICT

TIED_TO_TEST = "new, but a copy of a test image or of its group: the test set stays as it was"
"""The reason why a new image is set aside."""

Drawn = Mapping[int | None, Mapping[str, str]]
"""What a study drew before: train, validation or test by fold (None without folds) and image id."""

_KNOWN_BY = ("source", "path", "label")

_ALIKE = (
    lambda was, now: was == now,
    lambda was, now: was[:2] == now[:2],
    lambda was, now: was[2] == now[2],
    lambda was, now: True,
)
"""Whether a file is one that was there before, by ``_KNOWN_BY``, the surest first."""

MOVED = 0.9
"""Share of a class's images with one other label from which on the class was renamed, and not its images relabelled."""


@dataclass(frozen=True)
class DatasetChanges:
    """What changed.

    Attributes:
        new, removed, relabelled: paths of images that are new, gone, or have another label; a renamed file is none of
            them, nor is an image whose class was renamed.
        classes: sentences on classes that were renamed, or became one.
    """

    new: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    relabelled: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()

    def as_record(self) -> dict[str, list[str]]:
        """Return what changed as study.json holds it."""
        return {
            "new": list(self.new),
            "removed": list(self.removed),
            "relabelled": list(self.relabelled),
            "classes": list(self.classes),
        }

    @property
    def words(self) -> str:
        """Say what changed: "class cat is now called kitty: 120 images; 200 new, 5 removed"; "" if nothing did."""
        counted = (("new", self.new), ("removed", self.removed), ("relabelled", self.relabelled))
        images = ", ".join(f"{len(paths):,} {word}" for word, paths in counted if paths)
        return "; ".join([*self.classes, *[images] * bool(images)])


def keep_ids(before: pd.DataFrame, catalog: Catalog) -> Catalog:
    """Return the catalog in which each file has the id that it had before, also among several of one content.

    Which of those is numbered first depends on their paths, so that a new copy would take over an old one's id, and so
    its place in the test set. A file of a content that was there is known by its path and label, else by its path, else
    by its label; else it is an old one renamed and relabelled, or, where there are more of them than before, new.

    Args:
        before: the images of an earlier catalog.
        catalog: of now.
    """
    images = catalog.images
    # A content that has one file, and had one, has an id that says nothing else.
    numbered = before.loc[before["id"] != before["sha256"].str[:16], "sha256"]
    several = {*numbered, *images.loc[images["sha256"].duplicated(), "sha256"]} - {""}
    before = before[before["sha256"].isin(several)]
    unclaimed: dict[str, list[tuple[str, tuple[str, str, str]]]] = {}
    for name, sha256, *who in before[["id", "sha256", *_KNOWN_BY]].itertuples(index=False):
        unclaimed.setdefault(sha256, []).append((name, (who[0], who[1], who[2])))
    known = {sha256: {name for name, _ in files} for sha256, files in unclaimed.items()}
    ids, now = list(images["id"]), images[["sha256", *_KNOWN_BY]].to_numpy()
    open_rows = {row: now[row] for row in np.flatnonzero(images["sha256"].isin(known))}
    for alike in _ALIKE:
        for row, (sha256, *who) in list(open_rows.items()):
            found = next((one for one in unclaimed[sha256] if alike(one[1], tuple(who))), None)
            if found is not None:
                ids[row] = found[0]
                unclaimed[sha256].remove(found)
                del open_rows[row]
    for row, (sha256, *_) in open_rows.items():
        ids[row] = next(name for number in count(2) if (name := f"{sha256[:16]}-{number}") not in known[sha256])
        known[sha256].add(ids[row])
    return replace(catalog, images=images.assign(id=ids))


def changes(before: pd.DataFrame, now: pd.DataFrame) -> DatasetChanges:
    """Compare two catalogs' images by content (by id, of which copies have one each); unread files count nowhere."""
    old, new = (images[(images["sha256"] != "") & (images["status"] != "ignored")] for images in (before, now))
    was = new["id"].map(dict(zip(old["id"], old["label"], strict=True)))
    known = was.notna()
    moved = _moved(new[known & (new["source"] == "")]["label"], was)
    relabelled = known & (new["label"] != was) & (new["label"] != was.map(moved))
    return DatasetChanges(
        tuple(new.loc[~known, "path"]),
        tuple(old.loc[~old["id"].isin(list(new["id"])), "path"]),
        tuple(new.loc[relabelled, "path"]),
        _class_words(moved, was[known], new.loc[known, "label"]),
    )


def _moved(labels: pd.Series, was: pd.Series) -> dict[str, str]:
    """Return the new name of each class of which nearly all images that are still there have one other label."""
    moved = {}
    for name, now in labels.groupby(was):
        most = now.value_counts()
        if most.index[0] != name and most.iloc[0] >= MOVED * len(now):
            moved[str(name)] = str(most.index[0])
    return moved


def _class_words(moved: Mapping[str, str], was: pd.Series, now: pd.Series) -> tuple[str, ...]:
    told = []
    for name in dict.fromkeys(moved.values()):
        sources = [one for one, target in moved.items() if target == name]
        count = int((was.isin(sources) & (now == name)).sum())
        several = len(sources) > 1
        which = f"class{'es' * several} {' and '.join(sources)} {'are' if several else 'is'} now"
        if name not in moved and (was == name).any():
            became = f"part of {name}"
        else:
            became = f"one class, {name}" if several else f"called {name}"
        told.append(f"{which} {became}: {count:,} image{'s' * (count != 1)}")
    return tuple(told)


def keep_what_was_drawn(catalog: Catalog, drawn: Drawn, labels: Mapping[str, str]) -> Catalog:
    """Return the catalog in which new images cannot change what was drawn.

    A new image is set aside if a copy of it, or one of its group, is a test image in any fold; and where a new copy
    has another label than the images that the study had, the new one is set aside and not those. Nor are those set
    aside if two of them are found to be copies that were not before, by rules of finding them that have changed since.

    Args:
        catalog: of now.
        drawn: before.
        labels: of before, by image id; those whose images may not be kept with another label beside them are left out.
    """
    images = catalog.images.copy()
    earlier = set[str]().union(*drawn.values())
    tested = {name for split in drawn.values() for name, pool in split.items() if pool == TEST}
    conflict = images["reason"].str.startswith(CONFLICT)
    old = images["id"].isin(earlier)
    steady = images["label"] == images["id"].map(labels)
    used_before = images[conflict & old].assign(steady=steady).groupby("cluster")
    kept = used_before["steady"].all() | (used_before["label"].nunique() == 1)
    settled = conflict & old & images["cluster"].isin(list(kept.index[kept]))
    images.loc[settled, ["status", "reason"]] = "used", ""
    fresh = (images["status"] == "used") & ~old & (images["source"] == "") & (images["given_split"] == "")
    for column in ("cluster", "group"):
        tied = set(images.loc[images["id"].isin(tested) & (images[column] != ""), column])
        rows = fresh & images[column].isin(tied)
        images.loc[rows, "status"], images.loc[rows, "reason"] = "set_aside", TIED_TO_TEST
    return replace(catalog, images=images)
