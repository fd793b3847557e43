"""SIGINT and SIGTERM while a command runs: the work stops at once, what is finished stays."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import typer

SIGINT_CODE, SIGTERM_CODE = 130, 143
GOES_ON = "interrupted; the same command goes on from here"


class Terminated(BaseException):
    """SIGTERM came; not an Exception, so that no cell takes it for its own failure."""


@contextmanager
def resumable() -> Iterator[None]:
    """Turn SIGINT and SIGTERM into one line and exit code 130 or 143; SIGTERM's handler is put back afterwards."""
    process = os.getpid()

    def stop(number: int, frame: FrameType | None) -> None:
        if os.getpid() != process:  # a forked worker: its parent says what has to be said
            os._exit(SIGTERM_CODE)
        raise Terminated

    in_main_thread = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, stop) if in_main_thread else None
    try:
        yield
    except KeyboardInterrupt:
        raise _end(SIGINT_CODE) from None
    except Terminated:
        raise _end(SIGTERM_CODE) from None
    finally:
        if in_main_thread:
            signal.signal(signal.SIGTERM, before)


def _end(code: int) -> typer.Exit:
    print(GOES_ON, file=sys.stderr, flush=True)
    return typer.Exit(code)
