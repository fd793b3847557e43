"""Durable writes: a file appears whole or not at all.

Unique temporary file in the same directory, fsync, rename, fsync of the directory. A temporary file is locked by its
writer, so that those of the dead can be told from those of the living and deleted.
"""

import contextlib
import errno
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from unfreeze.errors import UserError

if os.name == "posix":
    import fcntl

TEMPORARY = ".tmp"
NO_ROOM = frozenset({errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)})
"""Errors that say that a disk is full, a quota used up, or a file longer than this process may write."""
FORGOTTEN = 24 * 3600.0
"""Seconds after which a temporary file is nobody's, where a writer cannot hold a lock on it."""


class DiskFull(UserError):
    """There is no room for a file, whose former content is still there; so it would be with the files that follow.

    Args:
        path: the file.
        given, expected, mend: as of any mistake.
    """

    def __init__(self, path: Path, given: str, expected: str, mend: str) -> None:
        self.path = path
        super().__init__(given, expected, mend)


@contextlib.contextmanager
def replacing(path: Path, size: int = 0) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on a clean exit its bytes become ``path``, durably and at once.

    Args:
        path: the file.
        size: bytes that it will have, 0 if nobody knows; said where there is no room for them.

    Raises:
        DiskFull: there is no room.
        UserError: the directory cannot be written to.
    """
    try:
        make_folder(path.parent)
        handle, temporary = _make_temporary(path)
    except OSError as error:
        raise _unwritable(path, error, size) from error
    try:
        if os.name != "posix":  # Windows renames no open file
            os.close(handle)
        yield temporary
        _open_to_umask(temporary)
        _sync(temporary)
        temporary.replace(path)
        if os.name == "posix":  # Windows has no handle on a directory to sync
            _sync(path.parent)
    except OSError as error:
        raise _unwritable(path, error, size) from error
    finally:
        temporary.unlink(missing_ok=True)
        if os.name == "posix":
            os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Write text as UTF-8, durably; the bytes of file names that are not UTF-8 stay as they are."""
    content = text.encode("utf-8", "surrogateescape")
    with replacing(path, len(content)) as temporary:
        temporary.write_bytes(content)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, durably."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for each in missing if os.name == "posix" else ():
        _sync(each.parent)


def _make_temporary(path: Path) -> tuple[int, Path]:
    """Make an empty temporary file beside ``path``, open and claimed."""
    while True:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=TEMPORARY, dir=path.parent)
        if os.name != "posix":
            return handle, Path(name)
        if _claim(handle) is not False and Path(name).exists():
            return handle, Path(name)
        os.close(handle)  # before it was claimed, another process took it for that of a dead one
        Path(name).unlink(missing_ok=True)


def _claim(handle: int) -> bool | None:
    """Mark an open temporary file as some living process's, until it is closed.

    Returns:
        Whether it was free; None where the file system has no locks.
    """
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def time_without_locks(folder: Path) -> float | None:
    """Return the time by a folder's file system if file locks there keep nobody out, None where they do.

    Some network file systems grant every lock, or none. There nothing but its age tells what is nobody's any more.
    Locks that hold within one machine only, on a volume of several, are taken for locks.
    """
    if os.name != "posix":  # Windows has locks everywhere
        return None
    try:
        first, name = tempfile.mkstemp(prefix=".locks.", suffix=TEMPORARY, dir=folder)
    except OSError:  # nothing can be written there, or deleted
        return None
    handles = [first]
    try:
        handles.append(os.open(name, os.O_RDWR))
        claims = [_claim(handle) for handle in handles]
        return None if False in claims else os.fstat(first).st_mtime
    except FileNotFoundError:  # another process took it for litter, which only a lock tells
        return None
    finally:
        for handle in handles:
            os.close(handle)
        Path(name).unlink(missing_ok=True)


def is_forgotten(path: Path, now: float) -> bool:
    """Tell whether a file is so old that it is nobody's, where locks do not tell."""
    try:
        return path.stat().st_mtime + FORGOTTEN < now
    except OSError:  # it is gone
        return False


def remove_leftovers(folder: Path) -> None:
    """Delete the temporary files below a folder whose writers are dead; those of the living are left to them.

    Where locks do not tell who lives, those that are a day old are deleted.
    """
    _remove_unheld(folder, sorted(folder.rglob(f".*{TEMPORARY}")))


def remove_leftovers_of(path: Path) -> None:
    """Delete the temporary files of one file whose writers are dead, as ``remove_leftovers`` does."""
    with contextlib.suppress(OSError):  # the folder is not there yet, or only its owner may look into it
        names = [each.name for each in path.parent.iterdir()]
        left = [name for name in names if name.startswith(f".{path.name}.") and name.endswith(TEMPORARY)]
        _remove_unheld(path.parent, [path.with_name(name) for name in sorted(left)])


def _remove_unheld(folder: Path, left: Sequence[Path]) -> None:
    now = time.time() if os.name != "posix" else time_without_locks(folder) if left else None
    for path in left:
        with contextlib.suppress(OSError):
            if now is None:
                _remove_unclaimed(path)
            elif is_forgotten(path, now):
                path.unlink()


def _remove_unclaimed(path: Path) -> None:
    handle = os.open(path, os.O_RDWR)
    try:
        if _claim(handle):
            path.unlink()  # while it is claimed: else its maker could claim it in between
    finally:
        os.close(handle)


def _open_to_umask(path: Path) -> None:
    """Give a temporary file (made for its owner only) the permissions of any new file, so that a team can read it."""
    umask = os.umask(0)
    os.umask(umask)
    path.chmod(0o666 & ~umask)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _unwritable(path: Path, error: OSError, size: int) -> UserError:
    if error.errno in NO_ROOM:
        return DiskFull(
            path,
            f"cannot write {path}{f' of {size:,} bytes' if size else ''}: {error.strerror}",
            "a directory with room on its disk",
            "free space and run the same command again, which goes on from what is finished, or give another "
            "directory with --out DIR",
        )
    return UserError(
        f"cannot write {path}: {error.strerror or error}",
        "a directory that can be written to, with room on its disk",
        "give another directory with --out DIR, or free space and run the same command again",
    )
