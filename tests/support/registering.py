"""Entries that are registered for as long as a test runs."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

from unfreeze.registry import Registry

Entry = TypeVar("Entry")


@contextmanager
def temporarily(registry: Registry[Entry], name: str, entry: Entry) -> Iterator[None]:
    """Register an entry, and remove it at the end."""
    registry.register(name, entry)
    try:
        yield
    finally:
        del registry[name]
