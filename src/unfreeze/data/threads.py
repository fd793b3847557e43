"""A function over many items in threads, with few results waiting."""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")


Result = TypeVar("Result")


_AHEAD = 4
"""Items begun or waiting per thread: one slow item does not stop the others, and memory stays bounded."""


def cores() -> int:
    """Return how many cores there are."""
    return os.cpu_count() or 1


def in_threads(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int | None
) -> Generator[Result, None, None]:
    """Yield function(item) for each item, in order; to be closed, so that an interrupt waits for few items only.

    Args:
        function: called in the threads, several at a time.
        items: taken in the caller's thread, a few ahead of the results.
        workers: threads, by default one per core.
    """
    workers = workers or cores()
    waiting = deque[Future[Result]]()
    pool = ThreadPoolExecutor(workers)
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) >= _AHEAD * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
