"""Write files and folders that appear whole or not at all.

New content is written into a temporary folder next to its place, synced and renamed; then the parent folder is synced.
No lock is needed: temporary folders of killed processes are deleted by age.
"""

import contextlib
import errno
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from unfreeze.errors import UserError

TEMPORARY = ".tmp"

FINAL_NAME = re.compile(r"\A\.(.+)\.[0-9a-f]{8}\.tmp\Z")
"""Temporary name; the group is the final one, for messages."""

NO_ROOM = frozenset({errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)})
"""Errors for a full disk, an exhausted quota, or a file longer than this process may write."""

OCCUPIED = frozenset({errno.ENOTEMPTY, errno.EEXIST, errno.EACCES})
"""Errors of renaming a folder to that of a folder with files; Windows denies access."""

OLD_SECONDS = 24 * 3600.0
"""Age by the clock of the file system from which no living process uses a temporary file."""


class DiskFull(UserError):
    """The disk has no room for a file; its previous content is unchanged.

    Args:
        path: the file.
        given, expected, fix: see ``UserError``.
    """

    def __init__(self, path: Path, given: str, expected: str, fix: str) -> None:
        self.path = path
        super().__init__(given, expected, fix)


@contextlib.contextmanager
def replacing(path: Path, size: int = 0) -> Iterator[Path]:
    """Yield a temporary path; on a clean exit the file written there becomes ``path``, durably and at once.

    Args:
        path: the file.
        size: its size in bytes for the error if there is no room, 0 if unknown.

    Raises:
        DiskFull: there is no room.
        UserError: the directory cannot be written to.
    """
    with writing(path, size), _temporary_folder(path) as folder:
        temporary = folder / path.name
        yield temporary
        temporary.chmod(folder.stat().st_mode & 0o666)  # libraries may create files that only their owner can read
        _sync(temporary)
        temporary.replace(path)
        _sync_folder(path.parent)


@contextlib.contextmanager
def new_folder(path: Path, is_done: Callable[[], bool]) -> Iterator[Path]:
    """Yield a temporary folder; on a clean exit it becomes ``path`` by one rename.

    Args:
        path: the folder.
        is_done: tells whether an existing folder already has this content. It then stays, and the new one is dropped;
            any other folder is replaced.

    Raises:
        DiskFull: there is no room.
        UserError: the directory cannot be written to.
    """
    with contextlib.ExitStack() as stack:
        with writing(path):
            folder = stack.enter_context(_temporary_folder(path))
        yield folder
        with writing(path):
            while not _renamed(folder, path) and not is_done():
                delete(path)
            _sync_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    """Write text as UTF-8, durably; bytes of file names that are not UTF-8 are kept."""
    content = text.encode("utf-8", "surrogateescape")
    with replacing(path, len(content)) as temporary:
        temporary.write_bytes(content)


def make_folder(folder: Path) -> None:
    """Create a folder and its parents, durably."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for each in missing:
        _sync_folder(each.parent)


def delete(folder: Path) -> bool:
    """Delete a folder; it is renamed first, so that no other process sees a part of it.

    Returns:
        Whether it existed.
    """
    gone = _temporary_name(folder)
    try:
        folder.rename(gone)
    except FileNotFoundError:  # another process was faster
        return False
    shutil.rmtree(gone, ignore_errors=True)
    return True


def time_of(folder: Path) -> float | None:
    """Return the time by the clock of a folder's file system, None if the folder cannot be written.

    On a network volume it may differ from the time of this machine.
    """
    probe = _temporary_name(folder / "time")
    try:
        probe.touch()
        return probe.stat().st_mtime
    except OSError:
        return None
    finally:
        with contextlib.suppress(OSError):
            probe.unlink()


def old_ones(folder: Path, paths: Iterable[Path]) -> list[Path]:
    """Return the files below a folder that are so old that no living process writes them."""
    paths = list(paths)
    now = time_of(folder) if paths else None
    return [] if now is None else [path for path in paths if _written_before(path, now - OLD_SECONDS)]


def remove_leftovers(folder: Path) -> None:
    """Delete old temporary files below a folder."""
    paths = [
        Path(parent, name)
        for parent, folders, files in os.walk(folder)  # unlike rglob, it bears folders that others delete meanwhile
        for name in (*folders, *files)
        if name.startswith(".") and name.endswith(TEMPORARY)
    ]
    _remove_old(folder, sorted(paths))


def remove_leftovers_of(path: Path) -> None:
    """Delete old temporary files of one file."""
    with contextlib.suppress(OSError):  # the folder does not exist yet, or cannot be read
        names = [each.name for each in path.parent.iterdir()]
        temporary = [name for name in names if name.startswith(f".{path.name}.") and name.endswith(TEMPORARY)]
        _remove_old(path.parent, [path.with_name(name) for name in sorted(temporary)])


def _remove_old(folder: Path, paths: Iterable[Path]) -> None:
    for path in old_ones(folder, paths):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                path.unlink()


def _written_before(path: Path, time: float) -> bool:
    try:
        return path.lstat().st_mtime < time
    except OSError:  # it is gone
        return False


def _temporary_name(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}{TEMPORARY}")


@contextlib.contextmanager
def _temporary_folder(path: Path) -> Iterator[Path]:
    """Create an empty folder next to a path, and delete it at the end if it still exists."""
    folder = _temporary_name(path)
    make_folder(path.parent)
    try:
        folder.mkdir()
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _renamed(folder: Path, path: Path) -> bool:
    """Rename a folder unless a folder with files has that name; return whether it was renamed."""
    try:
        folder.rename(path)
    except OSError as error:
        if error.errno not in OCCUPIED or path.is_file():  # asked once: others move folders away and put new ones there
            raise
        return False  # it existed; another process may have moved it away since
    return True


@contextlib.contextmanager
def writing(path: Path, size: int = 0) -> Iterator[None]:
    """Convert an error of the file system to a ``UserError`` that names the file."""
    try:
        yield
    except OSError as error:
        raise _unwritable(path, error, size) from error


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sync_folder(folder: Path) -> None:
    if os.name == "posix":  # Windows cannot sync a directory
        _sync(folder)


def _unwritable(path: Path, error: OSError, size: int) -> UserError:
    path = Path(*(FINAL_NAME.sub(r"\1", part) for part in path.parts))
    if error.errno in NO_ROOM:
        return DiskFull(
            path,
            f"cannot write {path}{f' of {size:,} bytes' if size else ''}: {error.strerror}",
            "a directory with room on its disk",
            "free space and run the same command again, which resumes from what is finished, or give another "
            "directory with --out DIR",
        )
    return UserError(
        f"cannot write {path}: {error.strerror or error}",
        "a directory that can be written to, with room on its disk",
        "give another directory with --out DIR, or free space and run the same command again",
    )
