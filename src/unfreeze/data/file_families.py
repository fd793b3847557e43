"""File names that differ by what tools append to augmented copies: ``leaf.jpg`` and ``leaf_90deg.jpg``.

Such copies may be turned, cut or coloured so that no comparison of pictures finds them.
"""

import posixpath
import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd

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
"""What follows a space, a dot or a dash."""

_ENDS = (
    r"\.rf\.[0-9a-f]{8,}",  # Roboflow
    r"[_-][0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}",  # Augmentor
    r" ?\(\d+\)",  # a second file of one name
)
"""What needs none of these before it."""

_SUFFIXES = (*(rf"[ _.-]+{word}" for word in _WORDS), *_ENDS)

_SERIES = len(_SUFFIXES)
"""The last one numbers a series, too, and says nothing where no file has the name without it. Counted from 1."""

_END = re.compile(rf"(?:{'|'.join(f'({one})' for one in _SUFFIXES)})$", re.IGNORECASE)
_EXTENSIONS = (r"\.\w+$", r"(?:\.\w+)?$")

NAMES = 5
"""Names that several files have, at least: fewer may be chance."""

SHARE = 0.1
"""Share of the images that they have at least."""

MOST = 50
"""Images of one name at most, on the average: more are a series, such as of the disease black_rot_1, black_rot_2, …"""


class FileFamilies(NamedTuple):
    """Images whose names differ by suffixes alone.

    Attributes:
        rows: their positions in the catalog.
        names: how many names there are without suffixes.
        suffixes: as they stand, the most frequent first, three at most.
        group: the regular expression for ``split.group`` that keeps the images of each name together.
    """

    rows: tuple[int, ...]
    names: int
    suffixes: tuple[str, ...]
    group: str


def families(used: pd.DataFrame) -> FileFamilies | None:
    """Return the images whose names differ by suffixes; None if they are few, kept together already, or in groups.

    Args:
        used: images of a catalog that are used, indexed by position.
    """
    main = used[used["source"] == ""]
    if (main["group"] != "").any():
        return None
    ends = [_suffixes(path) for path in main["path"]]
    kinds = _kinds(ends)
    group = next(
        (text for text in _expressions(kinds) if used["path"].map(re.compile(text).search).notna().all()), None
    )
    if not kinds or group is None:
        return None
    names = main["path"].str.extract(group, expand=False)
    of_name = main["cluster"].groupby(names).agg(["size", "nunique", "first"])
    apart = of_name.index[(of_name["size"] > 1) & ((of_name["nunique"] > 1) | (of_name["first"] == ""))]
    told = names.isin(list(apart))
    if len(apart) < NAMES or not SHARE * len(main) <= told.sum() <= MOST * len(apart):
        return None
    shown = Counter(end for (_, found), take in zip(ends, told, strict=True) if take for _, end in found)
    return FileFamilies(tuple(main.index[told]), len(apart), tuple(end for end, _ in shown.most_common(3)), group)


def _suffixes(path: str) -> tuple[str, list[tuple[int, str]]]:
    """Return a path without its suffixes and extension, and which suffixes it had, from the last one to the first."""
    stem, _ = posixpath.splitext(path)
    found = []
    while (match := _END.search(stem)) and match.start() > stem.rfind("/") + 1:
        found.append((match.lastindex or 0, match.group()))
        stem = stem[: match.start()]
    return stem, found


def _kinds(ends: Sequence[tuple[str, list[tuple[int, str]]]]) -> list[int]:
    """Return which suffixes tell apart files that have the same name without them."""
    of_name: dict[str, list[set[int]]] = {}
    for stem, found in ends:
        of_name.setdefault("/".join(stem.split("/")[-2:]), []).append({kind for kind, _ in found})
    several = [
        kinds for kinds in of_name.values() if len(kinds) > 1 and (set() in kinds or set().union(*kinds) != {_SERIES})
    ]
    return sorted(set[int]().union(*(kind for kinds in several for kind in kinds)))


def _expressions(kinds: Sequence[int]) -> list[str]:
    """Return expressions whose first group is a path's last folder and name without suffixes, the shorter one first."""
    words = "|".join(_WORDS[kind - 1] for kind in kinds if kind <= len(_WORDS))
    ends = [_SUFFIXES[kind - 1] for kind in kinds if kind > len(_WORDS)]
    every = "|".join([rf"[ _.-]+(?:{words})"] * bool(words) + ends)
    return [rf"(?i)([^/]*/?[^/]+?)(?:{every})*{extension}" for extension in _EXTENSIONS]
