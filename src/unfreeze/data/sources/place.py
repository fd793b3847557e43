"""Where what studies share lies."""

import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import platformdirs

from unfreeze.errors import UserError


def cache_folder() -> Path:
    """Return the folder for what studies share: $UNFREEZE_CACHE, else the platform's cache folder."""
    given = os.environ.get("UNFREEZE_CACHE")
    return Path(given).expanduser() if given else platformdirs.user_cache_path("unfreeze")


def usable_cache(warn: Callable[[str], None]) -> Path | None:
    """Return the folder of the cache; where nothing can be written there, None, and the reason is told."""
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        warn(
            f"the cache {folder} cannot be written to ({error.strerror or error}), so all images are read anew each "
            "time and frozen stages run live; name another folder in UNFREEZE_CACHE"
        )
        return None


def refuse_inside(out: Path, what: str, expected: str, mend: str, data: Iterable[str]) -> None:
    """Refuse to write into a folder of images.

    Raises:
        UserError: ``out`` lies in one of the folders that ``data`` names.
    """
    for folder in (Path(name) for name in data if Path(name).is_dir()):
        if out.resolve().is_relative_to(folder.resolve()):
            raise UserError(
                f"the {what} {out} lies in the images' folder {folder}",
                f"{expected} outside of it, since nothing is ever written there",
                f"give another with {mend}",
            )
