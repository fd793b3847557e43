"""SIGINT and SIGTERM while a command runs: the work stops at once, what is finished stays."""

import gc
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType

import typer

SIGINT_CODE, SIGTERM_CODE = 130, 143
GOES_ON = "interrupted; the same command goes on from here"


class Terminated(BaseException):
    """SIGTERM came; not an Exception, so that no cell takes it for its own failure."""


def resumable(work: Callable[[], None]) -> None:
    """Do work that SIGINT and SIGTERM end with one line and exit code 130 or 143; SIGTERM's handler is put back after.

    Raises:
        typer.Exit: the work was interrupted.
    """
    code = _interrupted_by(work)
    if code:
        gc.collect()  # with the frames of the work its loaders go, and end their processes before this one ends
        print(GOES_ON, file=sys.stderr, flush=True)
        raise typer.Exit(code)


def _interrupted_by(work: Callable[[], None]) -> int:
    """Return the exit code of the signal that ended the work, or 0; the exception and its frames are gone then."""
    process = os.getpid()

    def stop(number: int, frame: FrameType | None) -> None:
        if os.getpid() != process:  # a forked worker: its parent says what has to be said
            os._exit(SIGTERM_CODE)
        raise Terminated

    in_main_thread = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, stop) if in_main_thread else None
    try:
        work()
    except KeyboardInterrupt:
        return SIGINT_CODE
    except Terminated:
        return SIGTERM_CODE
    finally:
        if in_main_thread:
            signal.signal(signal.SIGTERM, before)
    return 0
