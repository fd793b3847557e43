"""Find images that show one picture under several labels."""

from collections.abc import Mapping

import pandas as pd

from unfreeze.data.duplicates import SAME, clusters
from unfreeze.data.scenes import LEAST, pictures
from unfreeze.data.unusable import CONFLICT


def set_conflicts_aside(images: pd.DataFrame, likeness: Mapping[tuple[str, str], float]) -> None:
    """Set aside, in place, every image that has a copy with another label: nothing tells which label is right."""
    for rows in conflicts(images, likeness):
        images.loc[rows, "status"] = "set_aside"
        images.loc[rows, "reason"] = f"{CONFLICT}: {' and '.join(sorted(set(images.loc[rows, 'label'])))}"


def conflicts(images: pd.DataFrame, likeness: Mapping[tuple[str, str], float]) -> list[list[int]]:
    """Return the positions of images that show one picture under several labels, picture by picture.

    One picture are images with the same pixels, or two that were compared and are alike by ``duplicates.SAME``. Those
    that are less alike, or only by others between them, may well be photographs of two things. So may all that have not
    the same pixels, see ``likeness_without_labels``.

    Args:
        images: of a catalog, indexed 0..n-1.
        likeness: of near duplicates, see ``Catalog``.
    """
    return _conflicts(images, {} if likeness_without_labels(images, likeness) else likeness)


def likeness_without_labels(images: pd.DataFrame, likeness: Mapping[tuple[str, str], float]) -> list[int]:
    """Return the positions of images that are like one with another label, if they are most of all, else none.

    Nobody labels most of them wrongly: then labels say what likeness does not see, such as a small defect in pictures
    of some fixed cameras, or which way a picture was turned.
    """
    disputed = sorted(row for rows in _conflicts(images, likeness) for row in rows)
    seen = (images["status"] != "ignored").sum()
    return disputed if len(disputed) >= LEAST and 2 * len(disputed) > seen else []


def _conflicts(images: pd.DataFrame, likeness: Mapping[tuple[str, str], float]) -> list[list[int]]:
    copied = images[(images["cluster"] != "") & (images["status"] != "ignored")]
    shown = pictures(copied)
    rows_of: dict[str, list[int]] = {}
    for row, picture in zip(copied.index, shown, strict=True):
        rows_of.setdefault(picture, []).append(row)
    label_of = dict(zip(copied.index, copied["label"], strict=True))
    picture_of = dict(zip(copied["sha256"], shown, strict=True))
    places = {picture: place for place, picture in enumerate(rows_of)}
    labels = [{label_of[row] for row in rows} for rows in rows_of.values()]
    pairs = [(place, place) for place, names in enumerate(labels) if len(names) > 1]
    for (one, other), value in likeness.items():
        if value >= SAME and one in picture_of and other in picture_of:
            first, second = places[picture_of[one]], places[picture_of[other]]
            if len(labels[first] | labels[second]) > 1:
                pairs.append((first, second))
    disputed = sorted({place for pair in pairs for place in pair})
    joined = clusters(len(labels), pairs)
    every = list(rows_of.values())
    found: dict[int, list[int]] = {}
    for place in disputed:
        found.setdefault(joined[place], []).extend(every[place])
    return sorted(sorted(rows) for rows in found.values())
