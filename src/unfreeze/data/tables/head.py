"""Find the header of a table, its separator, and lines of titles or comments above it."""

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass

SEPARATORS = ",;\t|"

PICTURES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff", ".heic",
    ".heif", ".avif", ".jp2", ".jxl", ".dcm", ".ppm", ".pgm",
)  # fmt: skip
"""Suffixes of picture files."""

HEAD_LINES = 40
"""Lines among which the header is searched."""


@dataclass(frozen=True)
class Head:
    """Start of a table's rows.

    Attributes:
        above: number of lines before the header, or before the first row if there is none.
        separator: separator of fields.
        names: fields of the header, or of the first row if there is none.
        named: whether the line after those ``above`` is a header.
        in_comment: whether ``names`` are from a comment above.
    """

    above: int
    separator: str
    names: tuple[str, ...]
    named: bool
    in_comment: bool = False


def read_head(lines: Sequence[str], spaces: bool) -> Head:
    """Find the header among a table's first lines, at least one.

    Args:
        lines: the lines as text.
        spaces: whether fields may be separated by spaces.

    Raises:
        csv.Error: the header is not a line of a table.
    """
    comments = next((number for number, text in enumerate(lines) if not text.startswith("#")), 0)
    above = comments or _titles(lines)
    separator = _separator(lines[above], spaces)
    names = _fields(lines[above], separator)
    if comments == 1:
        first = _fields(lines[0], separator)
        if len(first) == len(names):
            return Head(0, separator, first, True)
        if len(inner := _fields(lines[0].lstrip("# "), separator)) == len(names):
            return Head(1, separator, inner, False, True)
    return Head(above, separator, names, not _is_row(names, comments > 0))


def _separator(first: str, spaces: bool) -> str:
    separator = max(SEPARATORS, key=first.count)
    # Lists of files, as other programs read them: images/1.jpg 3
    return " " if spaces and separator not in first else separator


def _fields(text: str, separator: str) -> tuple[str, ...]:
    return tuple(next(csv.reader([text], delimiter=separator, skipinitialspace=separator == " "), []))


def _titles(lines: Sequence[str]) -> int:
    """Count the lines with at most one field above the first line with several: titles of reports and spreadsheets."""
    separator = max(SEPARATORS, key=lambda sign: (sum(sign in text for text in lines), lines[0].count(sign)))
    for number, text in enumerate(lines):
        filled = [part.strip() for part in text.split(separator) if part.strip()]
        if len(filled) > 1:
            return number
        # A single word may be a header with too few names.
        if filled and not (separator in text or " " in filled[0] or filled[0].startswith("sep=")):
            return 0
    return 0


def _is_row(names: Sequence[str], commented: bool) -> bool:
    """Tell whether a line is a row and not a header: it names a picture, or is one name and the number of a class."""
    fields = [name.strip() for name in names]
    if any(field.lower().endswith(PICTURES) for field in fields):
        return True
    numbers = [field for field in fields if re.fullmatch(r"-?\d+(\.\d*)?", field)]
    # Distinct numbers may be the names of one-hot columns.
    return len(fields) - len(numbers) == 1 and (
        len(numbers) == 1 or len(set(numbers)) < len(numbers) or (commented and bool(numbers))
    )
