"""The tables of ``unfreeze plan`` about shared work: what is computed once, who reuses it, what everything takes."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from unfreeze.cli.screen import table
from unfreeze.results.shared_work import built_from, reuse_text
from unfreeze.results.words import bytes_text, plural, seconds_text

ROWS = 20
"""A table has about so many; what is beyond is summed up in its last row."""

NAMED = 2
"""Up to so many cells are named one by one."""


def pieces(record: Mapping[str, Any]) -> Table:
    """What frozen stages compute once: how much it is, what it is built from, whether it is stored, for which cells.

    Args:
        record: as ``study.shared.as_record`` gives it.
    """
    made = table(
        "computed once", "rows", "size", "built from", "stored", "for", "time", numbers=("rows", "size", "time")
    )
    shared, pixels = record["shared"], record["predictions"]["pixel_bytes"]
    if pixels:
        made.add_row("decoded pictures", "", bytes_text(pixels), "files", "yes", "all cells", "")
    shown = shared if len(shared) <= ROWS else shared[: ROWS - 1]
    for one in shown:
        made.add_row(
            one["name"],
            f"{one['rows']:,}",
            bytes_text(one["bytes"]),
            built_from(one),
            _stored(one),
            _cells(one["cells"]),
            seconds_text(one["seconds"]),
        )
    rest = shared[len(shown) :]
    if rest:
        made.add_row(
            f"{len(rest):,} more",
            f"{sum(one['rows'] for one in rest):,}",
            bytes_text(sum(one["bytes"] for one in rest)),
            "",
            f"{sum(one['stored'] for one in rest):,} of them",
            plural(len({cell for one in rest for cell in one["cells"]}), "cell"),
            seconds_text(sum(one["seconds"] for one in rest)),
        )
    return made


def _stored(one: Mapping[str, Any]) -> str:
    if not one["stored"]:
        return f"no: {one['why_not']}"
    if one["held"] == one["rows"]:
        return "yes, is there already"
    return f"yes, {one['held']:,} rows are there already" if one["held"] else "yes"


def _cells(cells: Sequence[str]) -> str:
    return ", ".join(cells) if len(cells) <= NAMED else plural(len(cells), "cell")


def reuse(record: Mapping[str, Any], cells: Sequence[Mapping[str, Any]]) -> Table:
    """What cells take from that or why they do not, cells of a strategy that do alike in one row.

    Args:
        record: as ``study.shared.as_record`` gives it.
        cells: the plan's records of cells.
    """
    made = table("cells", "reuse", "time", "each alone", numbers=("time", "each alone"))
    of = {cell["cell"]: cell for cell in cells}
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for one in record["reuse"]:
        groups.setdefault((of[one["cell"]]["strategy"], reuse_text(one)), []).append(one)
    listed = list(groups.items())
    shown = listed if len(listed) <= ROWS else listed[: ROWS - 1]
    for (strategy, text), alike in shown:
        regimes = dict.fromkeys(of[one["cell"]]["regime"] for one in alike)
        made.add_row(f"{strategy} x {', '.join(regimes)} ({plural(len(alike), 'cell')})", text, *_times(alike))
    rest = [one for _, alike in listed[len(shown) :] for one in alike]
    if rest:
        made.add_row(f"{plural(len(rest), 'more cell')}", "see --json", *_times(rest))
    return made


def _times(cells: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    return (
        seconds_text(sum(one["seconds"] for one in cells)),
        seconds_text(sum(one["seconds_alone"] for one in cells)),
    )


def prediction(record: Mapping[str, Any]) -> str:
    """Say what the whole study is predicted to take."""
    found = record["predictions"]
    return (
        f"predicted: {seconds_text(found['seconds'])}, {bytes_text(found['disk'])} of disk; every cell alone in plain "
        f"PyTorch {seconds_text(found['seconds_alone'])}, {found['ratio']:.1f} times as long\n"
        f"written to {found['directory']}: up to {bytes_text(found['directory_bytes'])}, "
        f"{bytes_text(found['models_bytes'])} of it for models and predictions; "
        f"{bytes_text(found['directory_free'])} are free there"
    )
