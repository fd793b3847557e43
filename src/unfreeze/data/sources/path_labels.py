"""Find labels in paths by ``labels_from``, and suggest it for folders without class folders; check class names."""

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
"""Value of ``labels_from`` for the start of a file name up to its first digit: ``american_bulldog_10.jpg``."""

_LAST_WORD = r"([^\W\d_]+)\.\w+$"
_FIRST_WORD = r"([^\W\d_][^/._ -]*)[._ -][^/]*$"
_SUFFIX = r"\.([^/.]+)$"
_SEPARATORS = " ._-()[]#+,~"
_SHOWN = 3


def label_finder(labels_from: str) -> Callable[[str], str]:
    """Return the function that finds the label in a path, or "".

    Args:
        labels_from: ``NAME``, or a regular expression searched in the posix path, whose first group (or whole match) is
            the label.

    Raises:
        UserError: it is not a regular expression.
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
    """Return the start of the file name up to its first digit, without separators at its end."""
    stem = posixpath.splitext(posixpath.basename(path))[0]
    return re.match(r"\D*", stem)[0].strip(_SEPARATORS)  # type: ignore[index]  # which also matches an empty string


def set_labels_from(labels_from: str) -> str:
    """Return the setting of ``labels_from`` as a message prints it."""
    return as_setting("labels_from", labels_from)


def level(depth: int) -> str:
    """Return the expression for the name of the folder at a depth; 0 are the folders right in the data."""
    return "^" + "[^/]+/" * depth + "([^/]+)/"


def hint(paths: Sequence[str]) -> str:
    """Return the ``labels_from`` that fit file names outside of class folders as text, "" if none is plausible."""
    for labels_from, where in ((NAME, "begin with"), (_LAST_WORD, "end in")):
        if suggestion := _suggestion(paths, labels_from, where):
            return suggestion
    suffixes = {posixpath.splitext(path)[1].lower() for path in paths}
    readings = [_suggestion(paths, _FIRST_WORD, "begin with")]
    readings += [] if suffixes & PICTURES else [_suggestion(paths, _SUFFIX, "have as suffixes")]
    return "; or ".join(filter(None, readings))


def _suggestion(paths: Sequence[str], labels_from: str, where: str) -> str:
    find = label_finder(labels_from)
    counts = Counter(find(path) for path in paths)
    named = len(paths) - counts.pop("", 0)
    # A class has several pictures; some files may have no label.
    if not (2 <= len(counts) <= named / 2 and min(counts.values()) > 1):
        return ""
    most = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:_SHOWN]
    listed = [f"{label} ({count})" for label, count in most]
    more = [f"{len(counts) - _SHOWN} more"] if len(counts) > _SHOWN else []
    return f"if the classes are what the file names {where}, {', '.join(listed + more)}: {set_labels_from(labels_from)}"


def check_names(what: str, where: Path, names: Collection[str]) -> None:
    """Refuse class names that are not UTF-8, or that some file system or report could not tell apart.

    Args:
        what: "class folder" or "label".
        where: the folder or file that contains them.
        names: names of all classes.
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
