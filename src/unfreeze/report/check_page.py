"""Write the page of a data check: its findings, with pictures of the images concerned."""

import base64
import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from unfreeze.data.catalog import Catalog
from unfreeze.data.decode import decode
from unfreeze.data.image_file import quiet_pillow
from unfreeze.data.quality import Finding, path_of
from unfreeze.data.unusable import Undecodable
from unfreeze.events import Checked
from unfreeze.report.templating import asset, environment
from unfreeze.storage.atomic import write_text

TITLES = {
    "unreadable": "Files that cannot be read",
    "label_conflict": "One picture with several labels",
    "split_leak": "Related images in several splits",
    "small_class": "Small classes",
    "exact_duplicate": "Identical images",
    "near_duplicate": "Near duplicates",
    "imbalance": "Imbalanced classes",
    "odd_size": "Unusual sizes",
    "outlier": "Outliers",
}
"""Heading of each kind of finding."""

SIDE = 200
"""Pixels of the longer side of a picture."""

EACH, ALL = 24, 1200
"""Most pictures of one finding, and of the page; each takes about 5 kB."""


def check_of_run(name: str, catalog: Catalog, found: Sequence[Finding], page: Path) -> Checked:
    """Return the findings of a run's data check as an event; write the page unless all findings are notes.

    Args:
        name: of the study.
        catalog: the images.
        found: the findings, the worst first.
        page: path of the page.
    """
    kinds: dict[str, list[Finding]] = {}
    for finding in found:
        kinds.setdefault(finding.kind, []).append(finding)
    checked = Checked(tuple(_kind_record(catalog, alike) for alike in kinds.values()), page)
    if checked.has_page:
        write_check_page(page, name, catalog, found)
    return checked


def _kind_record(catalog: Catalog, alike: Sequence[Finding]) -> dict[str, Any]:
    """Return the event's record of the findings of one kind."""
    first, note = alike[0], alike[0].note
    if len(alike) > 1 and first.rows:
        note += f", first {path_of(catalog, first.rows[0])}"
    return {
        "kind": first.kind,
        "severity": first.severity,
        "findings": len(alike),
        "count": len({row for finding in alike for row in finding.rows}),
        "note": note,
    }


def write_check_page(path: Path, name: str, catalog: Catalog, found: Sequence[Finding]) -> Path:
    """Write the page of a data check and return its path.

    Args:
        path: of the page.
        name: of the data.
        catalog: the images.
        found: the findings, the worst first.
    """
    shown, left_out = thumbnails(catalog, found)
    summary = summary_of(catalog)
    sections: dict[str, list[dict[str, Any]]] = {}
    for finding in shown:
        sections.setdefault(finding["kind"], []).append(finding)
    template = environment().get_template("check.html.j2")
    most = max(summary["classes"].values(), default=0)
    write_text(
        path,
        template.render(
            name=name, summary=summary, sections=sections, titles=TITLES, left_out=left_out, most=max(1, most),
            ignored=_ignored(catalog),
            css=Markup(asset("report.css") + asset("check.css")),  # noqa: S704 - our own files
        ),
    )  # fmt: skip
    return path


def summary_of(catalog: Catalog) -> dict[str, Any]:
    """Return the number of files by status, and of used images by class."""
    counts = Counter(catalog.images["status"])
    return {
        "images": len(catalog.images),
        "used": counts["used"],
        "set_aside": counts["set_aside"],
        "ignored": counts["ignored"],
        "classes": {
            label: int(count)
            for label, count in catalog.images.query("status == 'used' and source == ''")["label"]
            .value_counts()
            .reindex(list(catalog.classes), fill_value=0)
            .items()
        },
    }


def _ignored(catalog: Catalog) -> str:
    """Return the reasons why files and folders are ignored, with the number and the first of each."""
    ignored = catalog.images[catalog.images["status"] == "ignored"]
    first = {reason: path_of(catalog, rows[0]) for reason, rows in ignored.groupby("reason").groups.items()}
    counts = Counter(ignored["reason"]).most_common()
    return ", ".join(f"{count:,} {reason} (first {first[reason]})" for reason, count in counts)


def thumbnails(catalog: Catalog, found: Sequence[Finding]) -> tuple[list[dict[str, Any]], int]:
    """Return each finding with its pictures, and the number of images that the page does not show."""
    shown, room, left_out = [], ALL, 0
    for finding in found:
        rows = finding.rows[: min(EACH, room)]
        more = len(finding.rows) - len(rows)
        room -= len(rows)
        left_out += more
        pictures = [
            {
                "path": path_of(catalog, row),
                "label": catalog.images["label"].iloc[row],
                "lines": _lines(catalog, row),
                "picture": _picture(catalog, row),
            }
            for row in rows
        ]
        about = {"kind": finding.kind, "severity": finding.severity, "note": finding.note}
        shown.append({**about, "pictures": pictures, "more": more})
    return shown, left_out


def _lines(catalog: Catalog, row: int) -> list[str]:
    """Return the lines below a picture: size and split, the note on its file, the reason for setting it aside."""
    image = catalog.images.iloc[row]
    size = f"{image['width']} x {image['height']}" if image["width"] else ""
    aside = f"set aside: {image['reason']}" if image["reason"] else ""
    first = " · ".join(part for part in (size, image["given_split"]) if part)
    return [line for line in (first, image["note"], aside) if line]


def _picture(catalog: Catalog, row: int) -> str:
    """Return a small JPEG as a data URI; "" where the file cannot be decoded."""
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
