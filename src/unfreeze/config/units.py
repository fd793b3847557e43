"""Parse durations, sizes and pixel counts."""

import contextlib
import re
from typing import Any

from unfreeze.errors import UserError

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_BYTES = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


def seconds_of(text: str) -> float:
    """Return the seconds of a duration such as 90s, 30m, 1h30m or 2d.

    >>> seconds_of("1h30m")
    5400.0

    Raises:
        ValueError: it is not a duration.
    """
    parts = re.findall(r"(\d+(?:\.\d+)?)\s*([smhd])", text)
    if not parts or re.sub(r"\d+(?:\.\d+)?\s*[smhd]|\s", "", text):
        raise ValueError(f"{text!r} is not a duration; write a number with s, m, h or d, for example 30m or 1h30m")
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)


def bytes_of(text: str) -> int:
    """Return the bytes of a size such as 500MB or 20GB, in powers of ten.

    >>> bytes_of("1.5GB")
    1500000000

    Raises:
        ValueError: it is not a size.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?B)\s*", text)
    if not found:
        raise ValueError(f"{text!r} is not a size; write a number with MB, GB or TB, for example 20GB")
    return round(float(found[1]) * _BYTES[found[2]])


def pixels_of(value: Any) -> int:
    """Return a number of pixels, written as a whole number or in millions, such as 120M.

    >>> pixels_of("120M")
    120000000

    Raises:
        ValueError: it is not a number, or not between 1 and 1,000 million.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(M?)\s*", str(value))
    count = 0
    if found and not isinstance(value, bool):
        with contextlib.suppress(OverflowError):  # more digits than a float can hold
            count = round(float(found[1]) * (10**6 if found[2] else 1))
    if not 1 <= count <= 10**9:
        raise ValueError(f"{value!r} is not a number of pixels up to 1000M; write it in millions, for example 120M")
    return count


def parse_duration(text: str) -> float:
    """Return the seconds of the option --time; see ``seconds_of``.

    Raises:
        UserError: it is not a duration.
    """
    try:
        return seconds_of(text)
    except ValueError as error:
        given = f"time {text!r} is not a duration"
        raise UserError(given, "a number with s, m, h or d", "for example --time 30m or --time 1h30m") from error
