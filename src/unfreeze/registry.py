"""Registries: entries of one kind by name, each registered in the module that implements it."""

from collections import UserDict
from typing import TypeVar

Entry = TypeVar("Entry")


class Registry(UserDict[str, Entry]):
    """Entries of one kind by name, in the order of registration.

    Args:
        kind: what an entry is, for messages: "optimiser".
    """

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def register(self, name: str, entry: Entry) -> None:
        """Add an entry.

        Raises:
            ValueError: the name is taken.
        """
        if name in self:
            raise ValueError(f"{self.kind} {name!r} is registered already; choose another name")
        self[name] = entry

    def __missing__(self, name: str) -> Entry:
        """Name the entries that there are; a study's names are checked when it is loaded, so users never see this."""
        raise KeyError(f"unknown {self.kind} {name!r}; known are {', '.join(self)}")
