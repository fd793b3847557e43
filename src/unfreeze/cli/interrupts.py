"""SIGINT and SIGTERM while a command runs: what is finished stays, and one line says that the command goes on.

An exception in the middle of anything would leave half-spoken sentences between this process and those that read
images for it, which they complain about. So the first signal ends the work at its next event between two steps, where
training saves its state; if none comes in time, or at a second signal, it ends where it stands.
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

GOES_ON = "interrupted; the same command goes on from here"
BEGINS_ANEW = "interrupted, with no file half written; the same command begins anew"

PATIENCE = 7.0
"""Seconds to wait until the work stands well and has saved its state; then it ends where it stands."""

LIMIT = 9.0
"""Seconds after which the process ends, whatever it does."""

AT_ONCE = 1.0
"""Seconds that a second signal leaves for putting things away."""

Check = Callable[[], None]
"""To be called where the work can end well; raises if it has to."""


class Interrupted(BaseException):
    """A signal came; not an Exception, so that no cell takes it for its own failure."""

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(number)


@dataclass
class _Pending:
    """A signal that came, what is said of it, and what happens if the work does not end of itself."""

    said: str
    number: int = 0
    timers: list[threading.Timer] = field(default_factory=list)

    def check(self) -> None:
        if self.number:
            raise Interrupted(self.number)

    def leave(self, number: int) -> None:
        """End the process here and now."""
        os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, f"{self.said}\n".encode())
        os._exit(128 + number)

    def later(self, seconds: float, do: Callable[[int], Any]) -> None:
        timer = threading.Timer(seconds, do, [self.number])
        timer.daemon = True
        timer.start()
        self.timers.append(timer)

    def forget(self) -> None:
        for timer in self.timers:
            timer.cancel()


def resumable(work: Callable[[Check], None], said: str = GOES_ON, anywhere: bool = False) -> None:
    """Do work that SIGINT and SIGTERM end with one line and exit code 130 or 143; their handlers are put back after.

    Args:
        work: is given what to call where it can end well.
        said: the line.
        anywhere: the work can end well wherever it stands, so it does at once.

    Raises:
        typer.Exit: the work was interrupted.
    """
    number = _interrupted_by(work, said, anywhere)
    if number:
        gc.collect()  # with the frames of the work its loaders go, and end their processes before this one ends
        print(said, file=sys.stderr, flush=True)
        raise typer.Exit(128 + number)


def _interrupted_by(work: Callable[[Check], None], said: str, anywhere: bool) -> int:
    """Return the number of the signal that ended the work, or 0; the exception and its frames are gone then."""
    process, pending, began = os.getpid(), _Pending(said), 0.0

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal began
        if os.getpid() != process:  # a process forked to read images: this one ends it
            return
        if pending.number:
            if time.monotonic() - began < PATIENCE:  # asked again, by someone
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
