"""Labels that paths say: ``labels_from`` of a study, and which one would suit where no class folders are."""

import os
import posixpath
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from unfreeze.data.fixes import as_setting
from unfreeze.data.sources.tree import PICTURES
from unfreeze.errors import UserError

NAME = "name"
"""The word for what a file's name begins with, up to its first digit: of ``american_bulldog_10.jpg`` the breed."""

_LAST_WORD = r"([^\W\d_]+)\.\w+$"
_FIRST_WORD = r"([^\W\d_][^/._ -]*)[._ -][^/]*$"
_SUFFIX = r"\.([^/.]+)$"
_SEPARATORS = " ._-()[]#+,~"
_SHOWN = 3


def label_finder(labels_from: str) -> Callable[[str], str]:
    """Return what finds the label that a path says, "" where it says none.

    Args:
        labels_from: ``NAME``, or a regular expression that is searched in the posix path: its first group, or the whole
            match where it has none, is the label.

    Raises:
        UserError: it is neither.
    """
    if labels_from == NAME:
        return leading_name
    try:
        pattern = re.compile(labels_from)
    except re.error as error:
        raise UserError(
            f"labels_from: {labels_from}: {error}",
            "the word name, or a regular expression such as (cat|dog)",
            "correct the expression, for example --set labels_from=name",
        ) from error

    def find(path: str) -> str:
        match = pattern.search(path)
        return "" if match is None else (match.group(1 if pattern.groups else 0) or "").strip()

    return find


def leading_name(path: str) -> str:
    """Return what the file's name begins with, up to its first digit and without separators at its end."""
    stem = posixpath.splitext(posixpath.basename(path))[0]
    return re.match(r"\D*", stem)[0].strip(_SEPARATORS)  # type: ignore[index]  # which matches nothing, too


def set_labels_from(labels_from: str) -> str:
    """Return the setting of ``labels_from`` as a message prints it."""
    return as_setting("labels_from", labels_from)


def level(depth: int) -> str:
    """Return the expression for the name of the folder at a depth, 0 for those in the data's own folder."""
    return "^" + "[^/]+/" * depth + "([^/]+)/"


def hint(paths: Sequence[str]) -> str:
    """Return how names of files that lie in no class folders could say their classes, "" if nothing plausible does."""
    for labels_from, where in ((NAME, "begin with"), (_LAST_WORD, "end in")):
        if way := _way(paths, labels_from, where):
            return way
    suffixes = {posixpath.splitext(path)[1].lower() for path in paths}
    readings = [_way(paths, _FIRST_WORD, "begin with")]
    readings += [] if suffixes & PICTURES else [_way(paths, _SUFFIX, "have as suffixes")]
    return "; or ".join(filter(None, readings))


def _way(paths: Sequence[str], labels_from: str, where: str) -> str:
    find = label_finder(labels_from)
    counts = Counter(find(path) for path in paths)
    named = len(paths) - counts.pop("", 0)
    # A class has several pictures, and a folder without names that say it may lie beside.
    if not (2 <= len(counts) <= named / 2 and min(counts.values()) > 1):
        return ""
    most = sorted(counts.items(), key=lambda one: (-one[1], one[0]))[:_SHOWN]
    listed = [f"{label} ({count})" for label, count in most]
    more = [f"{len(counts) - _SHOWN} more"] if len(counts) > _SHOWN else []
    return f"if the classes are what the file names {where}, {', '.join(listed + more)}: {set_labels_from(labels_from)}"


def check_names(what: str, where: Path, names: Collection[str]) -> None:
    """Refuse names of classes that are not UTF-8, or that some file system or report could not tell apart.

    Args:
        what: "class folder" or "label".
        where: the folder or file that they are in.
        names: of all classes.
    """
    seen: dict[str, str] = {}
    for name in sorted(names):
        if any("\udc80" <= character <= "\udcff" for character in name):
            raise UserError(
                f"the {what} {os.fsencode(name)!r} in {where} has a name that is not UTF-8",
                "class names in UTF-8",
                f"rename the {what.split()[-1]}",
            )
        twin = seen.setdefault(" ".join(unicodedata.normalize("NFC", name).casefold().split()), name)
        if twin != name:
            raise UserError(
                f"the {what}s {twin!a} and {name!a} in {where} differ only in case, white space or Unicode form",
                "class names that differ in more than that",
                "rename one of them, or merge the two",
            )
