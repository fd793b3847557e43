"""Summarise the worst findings of a data check in a few lines."""

from typing import TYPE_CHECKING, Any

from unfreeze.events import Checked

if TYPE_CHECKING:
    from collections.abc import Iterator


WORST = 3
"""Number of kinds of findings that a run lists."""


def worst(event: Checked) -> list[dict[str, Any]]:
    """Return the worst kinds of findings of a check."""
    return list(event.findings[:WORST])


def found_lines(event: Checked) -> "Iterator[str]":
    """Yield a line for each of the worst kinds of findings, then the path of the page; nothing where all are notes.

    Unprintable characters in names are escaped.
    """
    from unfreeze.cli.tables import one_line
    from unfreeze.report.check_page import TITLES
    from unfreeze.text import plural

    if not event.has_page:
        return
    yield "findings in the data, worst first:"
    for kind in worst(event):
        counts = [plural(kind["findings"], "finding")] * (kind["findings"] > 1)
        counts += [plural(kind["count"], "image")] * bool(kind["count"])
        counted = f" ({', '.join(counts)})" if counts else ""
        example = "" if kind["findings"] == 1 else "for example "
        yield one_line(f"  {kind['severity']}: {TITLES[kind['kind']]}{counted}: {example}{kind['note']}")
    yield f"  {plural(sum(kind['findings'] for kind in event.findings), 'finding')} with images: {event.page}"
