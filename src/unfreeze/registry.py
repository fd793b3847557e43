"""Registry of named entries of one kind, such as optimisers."""

from collections import UserDict
from typing import TypeVar

Entry = TypeVar("Entry")


class Registry(UserDict[str, Entry]):
    """Entries of one kind by name, in the order of registration.

    Each is registered where it is implemented.

    Args:
        kind: what messages call an entry, for example "optimiser".
    """

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def register(self, name: str, entry: Entry) -> None:
        """Add an entry.

        Raises:
            ValueError: the name is already registered.
        """
        if name in self:
            raise ValueError(f"{self.kind} {name!r} is already registered; choose another name")
        self[name] = entry

    def __missing__(self, name: str) -> Entry:
        """Raise an error that lists the entries; names in a study are checked earlier, when it is loaded."""
        raise KeyError(f"unknown {self.kind} {name!r}; known are {', '.join(self)}")
