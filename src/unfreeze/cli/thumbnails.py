"""Small pictures of what a check found, for its page."""

import base64
import io
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unfreeze.data.catalog import Catalog
    from unfreeze.data.check import Finding

SIDE = 200  # pixels of the longer side
EACH, ALL = 24, 1200
"""Pictures that one finding, and the whole page, may show; some 5 KB each."""


def thumbnails(catalog: "Catalog", found: "list[Finding]") -> tuple[list[dict[str, Any]], int]:
    """Return each finding with its pictures, and how many images the page leaves out."""
    from unfreeze.data.check import path_of

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
    from unfreeze.data.unfit import Undecodable

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
