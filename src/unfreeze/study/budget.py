"""Durations as the command line takes them."""

from unfreeze.config.units import seconds_of
from unfreeze.errors import UserError


def parse_duration(text: str) -> float:
    """Return seconds of a duration such as 90s, 30m, 1h30m or 2d.

    Raises:
        UserError: it is none.
    """
    try:
        return seconds_of(text)
    except ValueError as error:
        given = f"time {text!r} is no duration"
        raise UserError(given, "a number with s, m, h or d", "for example --time 30m or --time 1h30m") from error
