"""The worst findings of a data check in a few lines, and thumbnails for its page."""

import base64
import io
from typing import TYPE_CHECKING, Any

from unfreeze.events import Checked

if TYPE_CHECKING:
    from collections.abc import Iterator

    from unfreeze.data.quality import Finding


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
    from unfreeze.data.quality import path_of

    first = f", first {path_of(event.catalog, found[0].rows[0])}" if found[0].rows else ""
    return f"{found[0].note}{first if len(found) > 1 else ''}"


def found_lines(event: Checked) -> "Iterator[str]":
    """Give what is said of them: a line each with its counts, then where all are shown; nothing of notes alone.

    What is not printable in a name is spelled out.
    """
    from unfreeze.cli.tables import one_line
    from unfreeze.report.check_page import TITLES
    from unfreeze.text import plural

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


if TYPE_CHECKING:
    from unfreeze.data.catalog import Catalog
    from unfreeze.data.quality import Finding


SIDE = 200  # pixels of the longer side


EACH, ALL = 24, 1200
"""Pictures that one finding, and the whole page, may show; some 5 KB each."""


def thumbnails(catalog: "Catalog", found: "list[Finding]") -> tuple[list[dict[str, Any]], int]:
    """Return each finding with its pictures, and how many images the page leaves out."""
    from unfreeze.data.quality import path_of

    shown, room, left_out = [], ALL, 0
    for one in found:
        rows = one.rows[: min(EACH, room)]
        room -= len(rows)
        left_out += len(one.rows) - len(rows)
        pictures = [
            {
                "path": path_of(catalog, row),
                "label": catalog.images["label"].iloc[row],
                "lines": _lines(catalog, row),
                "picture": _picture(catalog, row),
            }
            for row in rows
        ]
        more = len(one.rows) - len(rows)
        shown.append({"kind": one.kind, "severity": one.severity, "note": one.note, "pictures": pictures, "more": more})
    return shown, left_out


def _lines(catalog: "Catalog", row: int) -> list[str]:
    """Return what is told below a picture: its size and split, what is odd about its file, why it is set aside."""
    image = catalog.images.iloc[row]
    size = f"{image['width']} x {image['height']}" if image["width"] else ""
    aside = f"set aside: {image['reason']}" if image["reason"] else ""
    first = " · ".join(part for part in (size, image["given_split"]) if part)
    return [line for line in (first, image["note"], aside) if line]


def _picture(catalog: "Catalog", row: int) -> str:
    """Return a small JPEG as a data URI; "" where the file cannot be decoded."""
    from unfreeze.data.decode import decode, quiet_pillow
    from unfreeze.data.unusable import Undecodable

    image = catalog.images.iloc[row]
    try:
        with quiet_pillow():
            picture = decode(catalog.roots[image["source"]] / image["path"], at_least=SIDE, reading=catalog.reading)
    except Undecodable:
        return ""
    picture.thumbnail((SIDE, SIDE))
    written = io.BytesIO()
    picture.save(written, "JPEG", quality=75)
    return "data:image/jpeg;base64," + base64.b64encode(written.getvalue()).decode()
