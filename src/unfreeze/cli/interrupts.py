"""Handle SIGINT and SIGTERM while a command runs: keep finished work and say in one line how to resume.

The first signal ends the work at its next event between two steps, where training saves its state: an exception at an
arbitrary place would break the communication with loader processes. If no such event comes in time, or at a second
signal, the work ends where it is.
"""

import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import typer

RESUMABLE = "interrupted; run the same command again to resume"
REPEATABLE = "interrupted; no file is incomplete; run the same command again to start over"

PATIENCE = 7.0
"""Seconds to wait for a safe point, where the state is saved; after that the work ends where it is."""

LIMIT = 9.0
"""Seconds after which the process ends in any case."""

AT_ONCE = 1.0
"""Seconds that a second signal leaves for clean-up."""

Check = Callable[[], None]
"""Called at safe points; raises ``Interrupted`` if a signal has come."""


class Interrupted(BaseException):
    """A signal has come; not an Exception, so that it is not taken for a failed cell."""

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(number)


@dataclass
class _Pending:
    """A signal that has come, the message for it, and timers that end the process if the work does not."""

    message: str
    number: int = 0
    timers: list[threading.Timer] = field(default_factory=list)

    def check(self) -> None:
        if self.number:
            raise Interrupted(self.number)

    def leave(self, number: int) -> None:
        """Print the message and end the process immediately."""
        os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, f"{self.message}\n".encode())
        os._exit(128 + number)

    def later(self, seconds: float, do: Callable[[int], Any]) -> None:
        timer = threading.Timer(seconds, do, [self.number])
        timer.daemon = True
        timer.start()
        self.timers.append(timer)

    def forget(self) -> None:
        for timer in self.timers:
            timer.cancel()


def resumable(work: Callable[[Check], None], message: str = RESUMABLE, anywhere: bool = False) -> None:
    """Do work that SIGINT and SIGTERM end with one line and exit code 130 or 143; then restore their handlers.

    Args:
        work: called with a function that it calls at each safe point.
        message: the line.
        anywhere: every point is safe, so a signal ends the work at once.

    Raises:
        typer.Exit: the work was interrupted.
    """
    number = _interrupted_by(work, message, anywhere)
    if number:
        gc.collect()  # frees the frames of the work and its loaders, whose processes then end before this one
        print(message, file=sys.stderr, flush=True)
        raise typer.Exit(128 + number)


def _interrupted_by(work: Callable[[Check], None], message: str, anywhere: bool) -> int:
    """Return the number of the signal that ended the work, or 0; on return the exception and its frames are freed."""
    process, pending, began = os.getpid(), _Pending(message), 0.0

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal began
        if os.getpid() != process:  # in a process forked to read images, which its parent ends
            return
        if pending.number:
            if time.monotonic() - began < PATIENCE:  # a second signal from outside, not from ``_again``
                pending.later(AT_ONCE, pending.leave)
            raise Interrupted(pending.number)
        pending.number, began = number, time.monotonic()
        pending.later(LIMIT, pending.leave)
        if anywhere:
            raise Interrupted(number)
        pending.later(PATIENCE, _again)

    before = _install(stop)
    try:
        work(pending.check)
        pending.check()
    except Interrupted as end:
        return end.number
    except KeyboardInterrupt:
        return signal.SIGINT
    finally:
        pending.forget()
        for number, handler in before.items():
            signal.signal(number, handler)
    return 0


def _again(number: int) -> None:
    """Send the signal once more, to the main thread, to wake it from a blocking call."""
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(threading.main_thread().ident or 0, number)
    else:
        signal.raise_signal(number)


def _install(stop: Callable[[int, FrameType | None], None]) -> dict[int, Any]:
    """Set the handlers and return the previous ones; ignored signals (nohup) and other threads are left alone."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    wanted = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) is not signal.SIG_IGN]
    return {number: signal.signal(number, stop) for number in wanted}
