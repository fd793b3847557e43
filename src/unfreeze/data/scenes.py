"""Pictures that are alike since a camera stands still: no copies, though a comparison of pictures says so."""

import re
from collections.abc import Mapping, Sequence

import pandas as pd

LEAST = 10
"""Distinct pictures of a scene at least: one picture has eight orientations."""

CHANCE = 0.25
"""Two images of a class are copies of each other as often where it cannot be divided: as of four pictures in all."""

_EXAMPLES = (
    (r"(\d{4}[-_]?\d\d[-_]?\d\d)", 10),  # a date
    (r"(\d+)\d\.\w+$", 10),  # ten that were numbered in a row
    (r"(\d+)\.\w+$", 4),
    (r"([^/]+)\.\w+$", 1),
)
"""Expressions for ``split.group``, and how many groups each class should have of them, the best first."""


def set_scenes_apart(images: pd.DataFrame) -> list[tuple[int, ...]]:
    """Take the images of scenes out of their clusters, in place, but for copies with the same pixels.

    Where two images of a class, drawn at random, are copies of each other more often than by ``CHANCE``, nothing could
    be drawn from it that was not a copy of the rest. So its clusters of ``LEAST`` or more pictures are scenes: a label
    is what differs between their images, and not what they look like.

    Args:
        images: of a catalog, indexed 0..n-1.

    Returns:
        The positions of each scene's images.
    """
    read = images[(images["status"] == "used") & (images["sha256"] != "")]
    shown = pictures(read)
    joined = read["cluster"].where(read["cluster"] != "", shown)
    many = shown.groupby(joined).nunique()
    large = set(many.index[many >= LEAST])
    if not large:
        return []
    main = pd.DataFrame({"label": read["label"], "shown": shown, "joined": joined})[read["source"] == ""]
    counts = main.drop_duplicates(["label", "shown"]).groupby(["label", "joined"]).size()
    of_class = counts.groupby("label")
    crowded = (counts**2).groupby("label").sum() / of_class.sum() ** 2 > CHANCE
    found = sorted({name for label, name in counts.index if crowded[label] and name in large})
    copied = shown.duplicated(keep=False)
    named = read["sha256"].groupby(shown).transform("min").str[:16]
    scenes = []
    for name in found:
        rows = read.index[joined == name]
        images.loc[rows, "cluster"] = named[rows].where(copied[rows], "")
        scenes.append(tuple(rows))
    return scenes


def pictures(images: pd.DataFrame) -> pd.Series:
    """Return what tells pictures apart: the hash of their pixels, or of their content where they were not decoded."""
    return images["pixels"].where(images["pixels"] != "", images["sha256"])


def within(likeness: Mapping[tuple[str, str], float], images: pd.DataFrame) -> dict[tuple[str, str], float]:
    """Return the likeness of those near duplicates that are in one cluster."""
    cluster = dict(zip(images["sha256"], images["cluster"], strict=True))
    return {
        (one, other): value
        for (one, other), value in likeness.items()
        if cluster.get(one) and cluster.get(one) == cluster.get(other)
    }


def example_group(paths: Sequence[str], labels: Sequence[str]) -> str:
    """Return an expression for ``split.group`` that matches all paths, by a date, a number or a name in them."""
    for text, least in _EXAMPLES:
        found = [re.search(text, path) for path in paths]
        groups: dict[str, set[str]] = {}
        for match, label in zip(found, labels, strict=True):
            groups.setdefault(label, set()).add(match.group(1) if match else "")
        if all(found) and min(map(len, groups.values())) >= least:
            return text
    return "([^/]+)$"
