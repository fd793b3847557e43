"""One thread a test process, and a cache of its own.

Tiny networks gain nothing from more threads, and threads that wait for a busy core lose a lot. What studies keep goes
to a folder that is deleted at the end, never to the user's cache. No example of a property has a deadline: a busy core
is no defect.
"""

import atexit
import os
import tempfile

from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")
_CACHE = tempfile.TemporaryDirectory(prefix="unfreeze-tests-", ignore_cleanup_errors=True)
atexit.register(_CACHE.cleanup)
os.environ["UNFREEZE_CACHE"] = _CACHE.name

settings.register_profile("patient", deadline=None)
settings.load_profile("patient")
