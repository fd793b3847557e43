"""One thread a test process: tiny networks gain nothing from more, and threads that wait for a busy core lose a lot."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
