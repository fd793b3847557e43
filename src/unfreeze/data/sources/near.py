"""What somebody may have meant."""

import difflib
from collections.abc import Iterable


def near(name: str, names: Iterable[str]) -> list[str]:
    """Return the one of some names that is most like a name, if any is."""
    return difflib.get_close_matches(name, list(names), n=1)
