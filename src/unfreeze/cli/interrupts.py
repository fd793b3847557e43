"""SIGINT and SIGTERM while a command runs: what is finished stays, and one line says that the command goes on.

An exception in the middle of anything would leave half-spoken sentences between this process and those that read
images for it, which they complain about. So the first signal ends the work at its next event; if none comes in time,
or at a second signal, it ends where it stands.
"""

import gc
import os
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import Any

import typer

GOES_ON = "interrupted; the same command goes on from here"
PATIENCE = 2.0
"""Seconds to wait for the next event."""

Check = Callable[[], None]
"""To be called where the work can end well; raises if it has to."""


class Interrupted(BaseException):
    """A signal came; not an Exception, so that no cell takes it for its own failure."""

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(number)


@dataclass
class _Pending:
    number: int = 0
    timer: threading.Timer | None = None

    def check(self) -> None:
        if self.number:
            raise Interrupted(self.number)


def resumable(work: Callable[[Check], None]) -> None:
    """Do work that SIGINT and SIGTERM end with one line and exit code 130 or 143; their handlers are put back after.

    Args:
        work: is given what to call where it can end well.

    Raises:
        typer.Exit: the work was interrupted.
    """
    number = _interrupted_by(work)
    if number:
        gc.collect()  # with the frames of the work its loaders go, and end their processes before this one ends
        print(GOES_ON, file=sys.stderr, flush=True)
        raise typer.Exit(128 + number)


def _interrupted_by(work: Callable[[Check], None]) -> int:
    """Return the number of the signal that ended the work, or 0; the exception and its frames are gone then."""
    process, pending = os.getpid(), _Pending()

    def stop(number: int, frame: FrameType | None) -> None:
        if os.getpid() != process:  # a process forked to read images: this one ends it
            return
        if pending.number:
            raise Interrupted(pending.number)
        pending.number = number
        pending.timer = threading.Timer(PATIENCE, _again, [number])
        pending.timer.daemon = True
        pending.timer.start()

    before = _install(stop)
    try:
        work(pending.check)
        pending.check()
    except Interrupted as end:
        return end.number
    except KeyboardInterrupt:
        return signal.SIGINT
    finally:
        if pending.timer:
            pending.timer.cancel()
        for number, handler in before.items():
            signal.signal(number, handler)
    return 0


def _again(number: int) -> None:
    """Send the signal once more, to the main thread itself, so that it wakes from whatever it waits for."""
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(threading.main_thread().ident or 0, number)
    else:
        signal.raise_signal(number)


def _install(stop: Callable[[int, FrameType | None], None]) -> dict[int, Any]:
    """Set the handlers and return those before; what is ignored (nohup) stays so, and so do other threads' handlers."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    wanted = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) is not signal.SIG_IGN]
    return {number: signal.signal(number, stop) for number in wanted}
