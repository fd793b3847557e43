"""Compare a catalog with that of a study's last run: what is new, removed or relabelled, and what of it is used."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import count

import numpy as np
import pandas as pd

from unfreeze.data.catalog import Catalog
from unfreeze.data.split import TEST
from unfreeze.data.unusable import CONFLICT
from unfreeze.text import plural

TIED_TO_TEST = "new, but a copy of a test image or of its group: the test set stays as it was"
"""Reason why a new image is set aside."""

Drawn = Mapping[int | None, Mapping[str, str]]
"""Splits that a study drew before: train, validation or test by fold (None without folds) and image id."""

_KNOWN_BY = ("source", "path", "label")

_IS_SAME = (
    lambda was, now: was == now,
    lambda was, now: was[:2] == now[:2],
    lambda was, now: was[2] == now[2],
    lambda was, now: True,
)
"""Whether a file is an earlier one of the same content, judged by ``_KNOWN_BY``, the surest test first."""

RENAMED = 0.9
"""Smallest share of a class's images with one and the same new label for the class to count as renamed.

Below it, the images count as relabelled.
"""


@dataclass(frozen=True)
class DatasetChanges:
    """Differences between two catalogs.

    Attributes:
        new, removed, relabelled: paths of images that are new, gone, or have another label, without renamed files and
            images of renamed classes.
        classes: sentences on classes that were renamed or merged.
    """

    new: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    relabelled: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()

    def as_record(self) -> dict[str, list[str]]:
        """Return the changes as JSON data for study.json."""
        return {
            "new": list(self.new),
            "removed": list(self.removed),
            "relabelled": list(self.relabelled),
            "classes": list(self.classes),
        }

    @property
    def words(self) -> str:
        """The changes as text: "class cat is now called kitty: 120 images; 200 new, 5 removed"; "" without any."""
        counted = (("new", self.new), ("removed", self.removed), ("relabelled", self.relabelled))
        images = ", ".join(f"{len(paths):,} {word}" for word, paths in counted if paths)
        return "; ".join([*self.classes, *[images] * bool(images)])


def keep_ids(before: pd.DataFrame, catalog: Catalog) -> Catalog:
    """Return the catalog with the ids that its files had before, also among several files of one content.

    Files of one content are numbered by path, so that a new copy would take over the id of an old one, and with it a
    place in the test set. Such a file is recognised by path and label, else by path, else by label; else it is an old
    file that was renamed and relabelled, or a new one if there are more files than before.

    Args:
        before: images of an earlier catalog.
        catalog: the current catalog.
    """
    images = catalog.images
    # If a content has and had only one file, its id is the same.
    numbered = before.loc[before["id"] != before["sha256"].str[:16], "sha256"]
    several = {*numbered, *images.loc[images["sha256"].duplicated(), "sha256"]} - {""}
    before = before[before["sha256"].isin(several)]
    unclaimed: dict[str, list[tuple[str, tuple[str, str, str]]]] = {}
    for name, sha256, *key in before[["id", "sha256", *_KNOWN_BY]].itertuples(index=False):
        unclaimed.setdefault(sha256, []).append((name, (key[0], key[1], key[2])))
    known = {sha256: {name for name, _ in files} for sha256, files in unclaimed.items()}
    ids, now = list(images["id"]), images[["sha256", *_KNOWN_BY]].to_numpy()
    open_rows = {row: now[row] for row in np.flatnonzero(images["sha256"].isin(known))}
    for is_same in _IS_SAME:
        for row, (sha256, *key) in list(open_rows.items()):
            found = next((file for file in unclaimed[sha256] if is_same(file[1], tuple(key))), None)
            if found is not None:
                ids[row] = found[0]
                unclaimed[sha256].remove(found)
                del open_rows[row]
    for row, (sha256, *_) in open_rows.items():
        ids[row] = next(name for number in count(2) if (name := f"{sha256[:16]}-{number}") not in known[sha256])
        known[sha256].add(ids[row])
    return replace(catalog, images=images.assign(id=ids))


def changes(before: pd.DataFrame, now: pd.DataFrame) -> DatasetChanges:
    """Compare the images of two catalogs by id, that is by content; files that were not read are left out."""
    old, new = (images[(images["sha256"] != "") & (images["status"] != "ignored")] for images in (before, now))
    was = new["id"].map(dict(zip(old["id"], old["label"], strict=True)))
    known = was.notna()
    renamed = _renamed(new[known & (new["source"] == "")]["label"], was)
    relabelled = known & (new["label"] != was) & (new["label"] != was.map(renamed))
    return DatasetChanges(
        tuple(new.loc[~known, "path"]),
        tuple(old.loc[~old["id"].isin(list(new["id"])), "path"]),
        tuple(new.loc[relabelled, "path"]),
        _class_sentences(renamed, was[known], new.loc[known, "label"]),
    )


def _renamed(labels: pd.Series, was: pd.Series) -> dict[str, str]:
    """Return the new name of each class of which nearly all remaining images have the same other label."""
    renamed = {}
    for name, now in labels.groupby(was):
        counts = now.value_counts()
        if counts.index[0] != name and counts.iloc[0] >= RENAMED * len(now):
            renamed[str(name)] = str(counts.index[0])
    return renamed


def _class_sentences(renamed: Mapping[str, str], was: pd.Series, now: pd.Series) -> tuple[str, ...]:
    sentences = []
    for name in dict.fromkeys(renamed.values()):
        sources = [source for source, target in renamed.items() if target == name]
        count = int((was.isin(sources) & (now == name)).sum())
        several = len(sources) > 1
        which = f"class{'es' * several} {' and '.join(sources)} {'are' if several else 'is'} now"
        if name not in renamed and (was == name).any():
            became = f"part of {name}"
        else:
            became = f"one class, {name}" if several else f"called {name}"
        sentences.append(f"{which} {became}: {plural(count, 'image')}")
    return tuple(sentences)


def keep_what_was_drawn(catalog: Catalog, drawn: Drawn, labels: Mapping[str, str]) -> Catalog:
    """Set new images aside that would change the splits that were drawn; return the new catalog.

    A new image is set aside if a copy of it, or an image of its group, is a test image in any fold. If a new copy has
    another label than the study's images, only the new one is set aside. Images that the study had stay in use even if
    two of them are now found to be copies, by rules that have changed since.

    Args:
        catalog: the current catalog.
        drawn: the earlier splits.
        labels: earlier labels by image id, without images that may not be kept next to a copy with another label.
    """
    images = catalog.images.copy()
    earlier = set[str]().union(*drawn.values())
    tested = {name for split in drawn.values() for name, pool in split.items() if pool == TEST}
    conflict = images["reason"].str.startswith(CONFLICT)
    old = images["id"].isin(earlier)
    same_label = images["label"] == images["id"].map(labels)
    old_conflicts = images[conflict & old].assign(same_label=same_label).groupby("cluster")
    kept = old_conflicts["same_label"].all() | (old_conflicts["label"].nunique() == 1)
    restored = conflict & old & images["cluster"].isin(list(kept.index[kept]))
    images.loc[restored, ["status", "reason"]] = "used", ""
    new = (images["status"] == "used") & ~old & (images["source"] == "") & (images["given_split"] == "")
    for column in ("cluster", "group"):
        tied = set(images.loc[images["id"].isin(tested) & (images[column] != ""), column])
        rows = new & images[column].isin(tied)
        images.loc[rows, "status"], images.loc[rows, "reason"] = "set_aside", TIED_TO_TEST
    return replace(catalog, images=images)
