"""Run work that may block for ever, and fail once its time is over."""

import threading
from collections.abc import Callable


def within(seconds: float, work: Callable[[], object]) -> object:
    """Return what some work returns; it fails where that takes longer, which a pipe may do for ever."""
    found: list[object] = []
    thread = threading.Thread(target=lambda: found.append(work()), daemon=True)
    thread.start()
    thread.join(seconds)
    assert found, f"not done after {seconds} s"
    return found[0]
