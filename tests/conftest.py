"""Run tests in one thread, with a cache and a folder for temporary files of their own.

Tiny networks gain nothing from more threads, and threads that wait for a busy core lose a lot. What studies keep, and
what killed processes leave behind, goes to a folder that is deleted at the end, never to the user's cache. Property
tests have no deadline, which a busy core would miss.
"""

import atexit
import gc
import os
import tempfile
from pathlib import Path

from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())  # tmp_path of a test that failed is to be kept
_ROOM = tempfile.TemporaryDirectory(
    prefix="unfreeze-tests-", dir=os.environ["PYTEST_DEBUG_TEMPROOT"], ignore_cleanup_errors=True
)
atexit.register(_ROOM.cleanup)
for variable, name, mode in (("UNFREEZE_CACHE", "cache", 0o755), ("TMPDIR", "tmp", 0o1777)):
    (folder := Path(_ROOM.name) / name).mkdir()
    folder.chmod(mode)  # the system's folder for temporary files is everybody's too: some tests run as another user
    os.environ[variable] = str(folder)
Path(_ROOM.name).chmod(0o755)
tempfile.tempdir = os.environ["TMPDIR"]

settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


def pytest_collection_finish() -> None:
    """Keep imported modules out of garbage collections, which runs ask for wherever memory is short."""
    gc.collect()
    gc.freeze()
