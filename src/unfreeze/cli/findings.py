"""The worst findings of a data check in a few lines, and where all of them are shown."""

from typing import TYPE_CHECKING, Any

from unfreeze.events import Checked

if TYPE_CHECKING:
    from collections.abc import Iterator


WORST = 3
"""Kinds of findings that a run names."""


def worst(event: Checked) -> list[dict[str, Any]]:
    """Return the worst kinds of findings, see ``Checked``."""
    return list(event.findings[:WORST])


def found_lines(event: Checked) -> "Iterator[str]":
    """Give what is said of them: a line each with its counts, then where all are shown; nothing of notes alone.

    What is not printable in a name is spelled out.
    """
    from unfreeze.cli.tables import one_line
    from unfreeze.report.check_page import TITLES
    from unfreeze.text import plural

    if not event.has_page:
        return
    yield "found in the data, the worst first:"
    for kind in worst(event):
        counts = [plural(kind["findings"], "finding")] * (kind["findings"] > 1)
        counts += [plural(kind["count"], "image")] * bool(kind["count"])
        counted = f" ({', '.join(counts)})" if counts else ""
        example = "" if kind["findings"] == 1 else "for one "
        yield one_line(f"  {kind['severity']}: {TITLES[kind['kind']]}{counted}: {example}{kind['note']}")
    yield f"  look at {plural(sum(kind['findings'] for kind in event.findings), 'finding')}: {event.page}"
