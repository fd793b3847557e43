"""What the data check of a run found: the worst of it in a few lines, and the page that shows all."""

from typing import TYPE_CHECKING, Any

from unfreeze.study.events import Checked

if TYPE_CHECKING:
    from collections.abc import Iterator

    from unfreeze.data.check import Finding

WORST = 3
"""Kinds of findings that a run names."""


def worst(event: Checked) -> list[dict[str, Any]]:
    """Return the worst kinds of findings: kind, severity, findings (how many), count (of images), and a note."""
    kinds: dict[str, list[Finding]] = {}
    for one in event.findings:
        kinds.setdefault(one.kind, []).append(one)
    return [
        {
            "kind": kind,
            "severity": found[0].severity,
            "findings": len(found),
            "count": len({row for one in found for row in one.rows}),
            "note": _note(event, found),
        }
        for kind, found in list(kinds.items())[:WORST]
    ]


def is_told(event: Checked) -> bool:
    """Tell whether anything was found that is worth a line and a page: notes alone are not."""
    return any(one.severity != "note" for one in event.findings)


def _note(event: Checked, found: "list[Finding]") -> str:
    from unfreeze.data.check import path_of

    first = f", first {path_of(event.catalog, found[0].rows[0])}" if found[0].rows else ""
    return f"{found[0].note}{first if len(found) > 1 else ''}"


def found_lines(event: Checked) -> "Iterator[str]":
    """Give what is said of them: a line each with its counts, then where all are shown; nothing of notes alone.

    What is not printable in a name is spelled out.
    """
    from unfreeze.cli.screen import one_line
    from unfreeze.results.check_page import TITLES
    from unfreeze.results.words import plural

    if not is_told(event):
        return
    yield "found in the data, the worst first:"
    for one in worst(event):
        counts = [plural(one["findings"], "finding")] * (one["findings"] > 1)
        counts += [plural(one["count"], "image")] * bool(one["count"])
        counted = f" ({', '.join(counts)})" if counts else ""
        example = "" if one["findings"] == 1 else "for one "
        yield one_line(f"  {one['severity']}: {TITLES[one['kind']]}{counted}: {example}{one['note']}")
    yield f"  look at {plural(len(event.findings), 'finding')}: {event.page}"


def write_page(name: str, event: Checked) -> None:
    """Write the page of a study's data check, where anything is told of it."""
    from unfreeze.cli import check

    if is_told(event):
        check.write_page(event.page, name, event.catalog, list(event.findings))
