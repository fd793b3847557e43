"""``unfreeze cache``: what studies share on this machine."""

import shutil
import time
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Look at, tidy or empty what studies share on this machine.")

OWN = ("activations", "pixels")
"""What studies make and can make again. The folder may hold more, data sets for one: that is never touched."""
UNFINISHED = ".tmp"


@app.command()
def ls() -> None:
    """List what the cache holds, with sizes and ages."""
    from unfreeze.cli import screen

    folder, entries = _entries()
    if not entries:
        typer.echo(f"the cache {folder} is empty")
        return
    made = screen.table("entry", "size", "age", numbers=("size", "age"))
    sizes = [_size(entry) for entry in entries]
    for entry, size in zip(entries, sizes, strict=True):
        made.add_row(entry.name, _bytes(size), _age(time.time() - entry.lstat().st_mtime))
    console = screen.stdout()
    console.print(f"{folder}\n")
    screen.show(console, made)
    console.print(f"{_bytes(sum(sizes))} in all")


@app.command()
def gc() -> None:
    """Delete what was never finished: temporary files of runs that were killed."""
    folder, entries = _entries()
    unfinished = [path for entry in entries for path in _unfinished(entry)]
    freed = sum(_size(path) for path in unfinished)
    for path in unfinished:
        _delete(path)
    if unfinished:
        typer.echo(f"deleted {len(unfinished)} unfinished entries of {folder}: {_bytes(freed)}")
    else:
        typer.echo(f"nothing to delete: {folder} holds nothing unfinished")


@app.command()
def clear(yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False) -> None:
    """Delete what studies computed and can compute again."""
    folder, entries = _entries()
    if not entries:
        typer.echo(f"the cache {folder} is empty")
        return
    size = _bytes(sum(_size(entry) for entry in entries))
    names = " and ".join(entry.name for entry in entries)
    if not yes and not typer.confirm(f"Delete {names}, {size}, of {folder}?"):
        typer.echo("nothing was deleted")
        return
    for entry in entries:
        _delete(entry)
    typer.echo(f"deleted {names} of {folder}: {size}")


def _entries() -> tuple[Path, list[Path]]:
    from unfreeze.data.sources import cache_folder

    folder = cache_folder()
    return folder, [folder / name for name in OWN if (folder / name).is_dir() and not (folder / name).is_symlink()]


def _unfinished(entry: Path) -> list[Path]:
    if entry.name.endswith(UNFINISHED):
        return [entry]
    if not entry.is_dir() or entry.is_symlink():
        return []
    return [path for inner in sorted(entry.iterdir()) for path in _unfinished(inner)]


def _size(path: Path) -> int:
    """Return the bytes of a file or folder; links are not followed."""
    if path.is_dir() and not path.is_symlink():
        return sum(_size(inner) for inner in path.iterdir())
    return path.lstat().st_size


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _bytes(size: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def _age(seconds: float) -> str:
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= length:
            count = int(seconds // length)
            return f"{count} {unit}" if count == 1 else f"{count} {unit}s"
    return "just now"
