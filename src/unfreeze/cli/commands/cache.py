"""``unfreeze cache``: list, tidy or clear the cache that all studies share."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unfreeze.text import bytes_text

if TYPE_CHECKING:
    from unfreeze.storage.cache import Entry


app = typer.Typer(no_args_is_help=True, help="List, tidy or clear the cache that all studies share.")

KEPT = "20GB"
"""Size that gc reduces the cache to: the default disk budget of a study."""


@app.command()
def ls() -> None:
    """List the cache entries with their size and last use."""
    from unfreeze.cli import tables
    from unfreeze.storage import cache

    folder = _folder()
    entries, records = cache.entries(folder), _records(folder)
    if not entries and not records:
        typer.echo(f"the cache {folder} is empty")
        return
    table = tables.new_table("kind", "of", "size", "rows", "last used", "in use", numbers=("size", "rows", "last used"))
    for entry in entries:
        age = _age(time.time() - entry.last_used)
        use = "yes" if entry.in_use else ""
        table.add_row(entry.kind, _words(entry), bytes_text(entry.bytes), f"{entry.rows:,}", age, use)
    for path in records:
        table.add_row(path.name, "records of studies", bytes_text(cache.folder_bytes(path)), "", "", "")
    console = tables.stdout()
    console.print(f"{folder}\n")
    tables.show(console, table)
    console.print(f"{bytes_text(_used(folder))} in all")


@app.command()
def gc() -> None:
    """Delete unfinished and damaged data, and old entries beyond 20GB.

    The least recently used entries are deleted first. Entries that a running study uses are kept.
    """
    from unfreeze.config.units import bytes_of
    from unfreeze.storage import cache
    from unfreeze.text import plural

    folder = _folder()
    tidied = cache.tidy(folder)
    before, used = len(cache.entries(folder)), cache.used_bytes(folder)
    cache.make_room(folder, 0, bytes_of(KEPT), {})
    evicted = before - len(cache.entries(folder))
    freed = sum(tidied) + used - cache.used_bytes(folder)
    if tidied or evicted:
        parts = [f"{plural(len(tidied), 'leftover')}"] * bool(tidied)
        parts += [f"{evicted:,} least recently used {'entry' if evicted == 1 else 'entries'}"] * bool(evicted)
        typer.echo(f"deleted {' and '.join(parts)} of {folder}: {bytes_text(freed)}")
    else:
        typer.echo(f"nothing to delete: {folder} holds nothing unfinished that is a day old and no more than {KEPT}")


@app.command()
def clear(yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False) -> None:
    """Delete all cache entries except those in use.

    Studies compute them again when they need them.
    """
    from unfreeze.storage import cache

    folder = _folder()
    before = _used(folder)
    names = [path.name for name in cache.KINDS if (path := folder / name).is_dir() and not path.is_symlink()]
    names += [path.name for path in _records(folder)]
    if not names:
        typer.echo(f"the cache {folder} is empty")
        return
    if not yes and not typer.confirm(f"Delete {_listed(names)}, {bytes_text(before)}, of {folder}?"):
        typer.echo("nothing was deleted")
        return
    cache.clear(folder)
    typer.echo(f"deleted {_listed(names)} of {folder}: {bytes_text(before - _used(folder))}")
    for entry in cache.entries(folder):
        typer.echo(f"kept, since a running study uses it: {entry.kind} of {_words(entry)}, {bytes_text(entry.bytes)}")


def _folder() -> Path:
    from unfreeze.storage.cache import cache_folder

    return cache_folder()


def _records(folder: Path) -> list[Path]:
    from unfreeze.storage.cache import RECORDS

    return [path for name in RECORDS if (path := folder / name).is_dir() and not path.is_symlink()]


def _used(folder: Path) -> int:
    from unfreeze.storage import cache

    return cache.used_bytes(folder) + sum(cache.folder_bytes(path) for path in _records(folder))


def _words(entry: "Entry") -> str:
    """Describe what an entry holds (backbone, cut, size and view), or return its label where it has no description."""
    about = entry.identity.get("about")
    return ", ".join(str(value) for value in about.values()) if isinstance(about, dict) and about else entry.label


def _listed(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _age(seconds: float) -> str:
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= length:
            count = int(seconds // length)
            return f"{count} {unit}" if count == 1 else f"{count} {unit}s"
    return "just now"
