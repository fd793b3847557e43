"""The page of a data check: what is a copy of what, side by side, and everything else that is worth a look."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from unfreeze.report.templating import asset, environment
from unfreeze.storage.atomic import write_text

TITLES = {
    "unreadable": "Files that cannot be read",
    "label_conflict": "One picture under two labels",
    "split_leak": "The same picture in two splits",
    "small_class": "Small classes",
    "exact_duplicate": "The same pixels twice",
    "near_duplicate": "Nearly the same picture",
    "imbalance": "Uneven classes",
    "odd_size": "Odd sizes",
    "outlier": "Unlike the others",
}
"""A heading for each kind of finding."""


def write_check_page(
    path: Path,
    name: str,
    summary: Mapping[str, Any],
    shown: Sequence[Mapping[str, Any]],
    left_out: int,
    ignored: str = "",
) -> Path:
    """Write the page.

    Args:
        path: the file.
        name: of the data.
        summary: images, used, set_aside, ignored: numbers of files; classes: used images by class.
        shown: findings, the worst first: kind, severity, note, more (images not shown), pictures (path, label,
            lines below it, picture: a data URI or "").
        left_out: images that the page does not show.
        ignored: why files and folders are ignored.
    """
    sections: dict[str, list[Mapping[str, Any]]] = {}
    for one in shown:
        sections.setdefault(one["kind"], []).append(one)
    template = environment().get_template("check.html.j2")
    most = max(summary["classes"].values(), default=0)
    write_text(
        path,
        template.render(
            name=name, summary=summary, sections=sections, titles=TITLES, left_out=left_out, most=max(1, most),
            ignored=ignored,
            css=Markup(asset("report.css") + asset("check.css")),  # noqa: S704 - our own files
        ),
    )  # fmt: skip
    return path
