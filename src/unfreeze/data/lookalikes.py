"""Judge images that look or are named alike: scenes of a fixed camera, label conflicts, augmented copies by file name.

``data.duplicates`` compares pictures; what their labels and names say about the result is decided here.
"""

import posixpath
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pandas as pd

from unfreeze.data.duplicates import SAME, cluster_numbers
from unfreeze.data.unusable import CONFLICT

Likeness = Mapping[tuple[str, str], float]
"""Correlation of near duplicates by the sha256 of both, the smaller one first."""

MIN_SCENE = 10
"""Fewest distinct pictures in a scene. One picture has eight orientations, so fewer may be copies of one."""

MAX_COPY_RATE = 0.25
"""Largest share of a class's pairs of images that may be copies before its large clusters count as scenes.

Four different pictures in equally many copies give this share.
"""


def picture_keys(images: pd.DataFrame) -> pd.Series:
    """Return a key per distinct picture: the hash of its pixels, or of the file where it was not decoded."""
    return images["pixels"].where(images["pixels"] != "", images["sha256"])


# --- scenes ---


def separate_scenes(images: pd.DataFrame) -> list[tuple[int, ...]]:
    """Find scenes and remove their images from their clusters, in place; copies with the same pixels stay together.

    Pictures of a fixed camera all look alike. If two images of a class, drawn at random, are copies more often than
    ``MAX_COPY_RATE``, the class could not be split; its clusters of ``MIN_SCENE`` or more pictures are then scenes, in
    which the label is what differs.

    Args:
        images: rows of a catalog, indexed 0..n-1.

    Returns:
        The row positions of each scene.
    """
    hashed = images[(images["status"] == "used") & (images["sha256"] != "")]
    keys = picture_keys(hashed)
    cluster = hashed["cluster"].where(hashed["cluster"] != "", keys)
    sizes = keys.groupby(cluster).nunique()
    large = set(sizes.index[sizes >= MIN_SCENE])
    if not large:
        return []
    main = pd.DataFrame({"label": hashed["label"], "key": keys, "cluster": cluster})[hashed["source"] == ""]
    counts = main.drop_duplicates(["label", "key"]).groupby(["label", "cluster"]).size()
    copy_rate = (counts**2).groupby("label").sum() / counts.groupby("label").sum() ** 2
    names = sorted({name for label, name in counts.index if copy_rate[label] > MAX_COPY_RATE and name in large})
    is_copied = keys.duplicated(keep=False)
    exact_cluster = hashed["sha256"].groupby(keys).transform("min").str[:16]
    scenes = []
    for name in names:
        rows = hashed.index[cluster == name]
        images.loc[rows, "cluster"] = exact_cluster[rows].where(is_copied[rows], "")
        scenes.append(tuple(rows))
    return scenes


def within_clusters(likeness: Likeness, images: pd.DataFrame) -> dict[tuple[str, str], float]:
    """Return the likeness of those near duplicates that are in the same cluster."""
    cluster = dict(zip(images["sha256"], images["cluster"], strict=True))
    return {
        (first, second): value
        for (first, second), value in likeness.items()
        if cluster.get(first) and cluster.get(first) == cluster.get(second)
    }


_GROUP_EXAMPLES = (
    (r"(\d{4}[-_]?\d\d[-_]?\d\d)", 10),  # a date
    (r"(\d+)\d\.\w+$", 10),  # runs of ten consecutive numbers
    (r"(\d+)\.\w+$", 4),
    (r"([^/]+)\.\w+$", 1),
)
"""Expressions for ``split.group``, best first, and how many groups each class should have."""


def suggest_group(paths: Sequence[str], labels: Sequence[str]) -> str:
    """Return an expression for ``split.group`` that matches all paths by a date, a number or a name in them."""
    for pattern, min_groups in _GROUP_EXAMPLES:
        matches = [re.search(pattern, path) for path in paths]
        groups: dict[str, set[str]] = {}
        for match, label in zip(matches, labels, strict=True):
            groups.setdefault(label, set()).add(match.group(1) if match else "")
        if all(matches) and min(map(len, groups.values())) >= min_groups:
            return pattern
    return "([^/]+)$"


# --- label conflicts ---


def set_conflicts_aside(images: pd.DataFrame, likeness: Likeness) -> None:
    """Set aside, in place, all images of a picture with several labels, since any of the labels may be right."""
    for rows in find_conflicts(images, likeness):
        images.loc[rows, "status"] = "set_aside"
        images.loc[rows, "reason"] = f"{CONFLICT}: {' and '.join(sorted(set(images.loc[rows, 'label'])))}"


def find_conflicts(images: pd.DataFrame, likeness: Likeness) -> list[list[int]]:
    """Return the row positions of images that show one picture under several labels, a list per picture.

    Images show one picture if their pixels are equal or if their likeness, measured directly, is at least
    ``duplicates.SAME``. Less similar pictures may show different things, so only their split is kept together. If
    ``alike_across_labels`` finds that labels mark differences too small to compare, only equal pixels count.

    Args:
        images: rows of a catalog, indexed 0..n-1.
        likeness: of near duplicates.
    """
    return _conflicts(images, {} if alike_across_labels(images, likeness) else likeness)


def alike_across_labels(images: pd.DataFrame, likeness: Likeness) -> list[int]:
    """Return the rows of images nearly equal to one with another label if that is most of all images, else none.

    Most labels are not wrong, so such labels mark what a comparison does not see: a small defect in pictures of a fixed
    camera, or the direction in which a picture was turned.
    """
    disputed = sorted(row for rows in _conflicts(images, likeness) for row in rows)
    total = (images["status"] != "ignored").sum()
    return disputed if len(disputed) >= MIN_SCENE and 2 * len(disputed) > total else []


def _conflicts(images: pd.DataFrame, likeness: Likeness) -> list[list[int]]:
    copied = images[(images["cluster"] != "") & (images["status"] != "ignored")]
    keys = picture_keys(copied)
    rows_of: dict[str, list[int]] = {}
    for row, key in zip(copied.index, keys, strict=True):
        rows_of.setdefault(key, []).append(row)
    label_of = dict(zip(copied.index, copied["label"], strict=True))
    key_of = dict(zip(copied["sha256"], keys, strict=True))
    position = {key: number for number, key in enumerate(rows_of)}
    labels = [{label_of[row] for row in rows} for rows in rows_of.values()]
    pairs = [(number, number) for number, names in enumerate(labels) if len(names) > 1]
    for (one, other), value in likeness.items():
        if value >= SAME and one in key_of and other in key_of:
            first, second = position[key_of[one]], position[key_of[other]]
            if len(labels[first] | labels[second]) > 1:
                pairs.append((first, second))
    disputed = sorted({number for pair in pairs for number in pair})
    component = cluster_numbers(len(labels), pairs)
    rows_by_number = list(rows_of.values())
    found: dict[int, list[int]] = {}
    for number in disputed:
        found.setdefault(component[number], []).extend(rows_by_number[number])
    return sorted(sorted(rows) for rows in found.values())


# --- file names of augmented copies, which may be turned, cut or coloured so that no comparison finds them ---

_WORDS = (
    r"(?:new)?-?\d+ ?deg(?:rees|flip..)?",
    r"rot(?:ated?|ation)?[ _-]?-?\d*",
    r"(?:[hv]|hor\w*|vert\w*)?[ _-]?flip(?:ped)?[ _-]?(?:\w\w?|hor\w*|vert\w*)?",
    r"mirror(?:ed)?",
    r"transposed?",
    r"aug(?:ment(?:ed|ation)?)?[ _-]?\d*",
    r"(?:gauss(?:ian)?[ _-]?)?(?:nois[ey]|blur(?:red)?)[ _-]?\d*",
    r"(?:bright|dark)(?:er|ness)?[ _-]?\d*",
    r"(?:contrast|saturat(?:ed|ion)|hue|colou?r|sharp(?:ened)?|jitter)[ _-]?\d*",
    r"(?:crop(?:ped)?|zoom(?:ed)?|shear(?:ed)?|shift(?:ed)?|scaled?|translated?)[ _-]?\d*",
    r"copy[ _-]?\d*",
)
"""Words that tools append after a space, dot, underscore or dash: ``leaf.jpg`` becomes ``leaf_90deg.jpg``."""

_ENDINGS = (
    r"\.rf\.[0-9a-f]{8,}",  # Roboflow
    r"[_-][0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}",  # Augmentor
    r" ?\(\d+\)",  # a second file of the same name
)
"""Endings that follow a name directly."""

_SUFFIXES = (*(rf"[ _.-]+{word}" for word in _WORDS), *_ENDINGS)

_NUMBERED = len(_SUFFIXES)
"""Number, counted from 1, of the suffix ``(2)``: it also numbers a series, unless a file has the name without it."""

_LAST_SUFFIX = re.compile(rf"(?:{'|'.join(f'({suffix})' for suffix in _SUFFIXES)})$", re.IGNORECASE)
_EXTENSIONS = (r"\.\w+$", r"(?:\.\w+)?$")

MIN_NAMES = 5
"""Fewest names that several files share; fewer may be chance."""

MIN_SHARE = 0.1
"""Smallest share of the images that have such names."""

MAX_PER_NAME = 50
"""Most images per name on average; more are a numbered series: black_rot_1, black_rot_2, …"""


class FileFamilies(NamedTuple):
    """Images whose file names differ only by suffixes of augmented copies.

    Attributes:
        rows: row positions in the catalog.
        names: number of distinct names without suffixes.
        suffixes: up to three suffixes, the most frequent first.
        group: regular expression for ``split.group`` that keeps the images of each name together.
    """

    rows: tuple[int, ...]
    names: int
    suffixes: tuple[str, ...]
    group: str


def find_families(used: pd.DataFrame) -> FileFamilies | None:
    """Return images whose names differ only by suffixes; None if they are few, in one cluster each, or in groups.

    Args:
        used: used images of a catalog, indexed by row position.
    """
    main = used[used["source"] == ""]
    if (main["group"] != "").any():
        return None
    stems = [_without_suffixes(path) for path in main["path"]]
    kinds = _distinguishing(stems)
    group = next(
        (pattern for pattern in _expressions(kinds) if used["path"].map(re.compile(pattern).search).notna().all()), None
    )
    if not kinds or group is None:
        return None
    names = main["path"].str.extract(group, expand=False)
    by_name = main["cluster"].groupby(names).agg(["size", "nunique", "first"])
    separable = by_name.index[(by_name["size"] > 1) & ((by_name["nunique"] > 1) | (by_name["first"] == ""))]
    is_member = names.isin(list(separable))
    if len(separable) < MIN_NAMES or not MIN_SHARE * len(main) <= is_member.sum() <= MAX_PER_NAME * len(separable):
        return None
    suffixes = Counter(text for (_, found), member in zip(stems, is_member, strict=True) if member for _, text in found)
    most_common = tuple(text for text, _ in suffixes.most_common(3))
    return FileFamilies(tuple(main.index[is_member]), len(separable), most_common, group)


def _without_suffixes(path: str) -> tuple[str, list[tuple[int, str]]]:
    """Return a path without extension and suffixes, and the (number, text) of each suffix, last one first."""
    stem, _ = posixpath.splitext(path)
    found = []
    while (match := _LAST_SUFFIX.search(stem)) and match.start() > stem.rfind("/") + 1:
        found.append((match.lastindex or 0, match.group()))
        stem = stem[: match.start()]
    return stem, found


def _distinguishing(stems: Sequence[tuple[str, list[tuple[int, str]]]]) -> list[int]:
    """Return the numbers of the suffixes by which files of one name differ."""
    kinds_of: dict[str, list[set[int]]] = {}
    for stem, found in stems:
        kinds_of.setdefault("/".join(stem.split("/")[-2:]), []).append({kind for kind, _ in found})
    shared = [
        kinds
        for kinds in kinds_of.values()
        if len(kinds) > 1 and (set() in kinds or set().union(*kinds) != {_NUMBERED})
    ]
    return sorted(set[int]().union(*(kind for kinds in shared for kind in kinds)))


def _expressions(kinds: Sequence[int]) -> list[str]:
    """Return expressions whose first group is a path's last folder and its name without suffixes, shortest first."""
    words = "|".join(_WORDS[kind - 1] for kind in kinds if kind <= len(_WORDS))
    endings = [_SUFFIXES[kind - 1] for kind in kinds if kind > len(_WORDS)]
    suffix = "|".join([rf"[ _.-]+(?:{words})"] * bool(words) + endings)
    return [rf"(?i)([^/]*/?[^/]+?)(?:{suffix})*{extension}" for extension in _EXTENSIONS]
