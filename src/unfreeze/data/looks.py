"""Looks, remembered by content in the cache, so that what a file tells is found out once."""

import os
import stat
import time
from pathlib import Path

import PIL

from unfreeze.config.fingerprint import fingerprint
from unfreeze.data.decode import DECODE_RULES
from unfreeze.data.likeness import LIKENESS_RULES
from unfreeze.data.lines import read_lines, write_lines
from unfreeze.data.look import Look, look_from, look_values

SETTLED = 2.0
"""Seconds since a file's last change after which another change has another time, however coarse its file system's."""

_FORMAT = 3
_STATES = "states-1"
_TOGETHER = 256  # states in a line
_COARSE = 10_000_000  # nanoseconds to which FAT keeps times at best


class Remembered:
    """The looks kept in a folder of the cache, by sha256, and those that are to be added to it.

    Another version of Pillow, or other rules of decoding, have files of their own.

    Args:
        folder: the folder, made when the first look is kept; None remembers nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._key = fingerprint(_FORMAT, DECODE_RULES, LIKENESS_RULES, PIL.__version__)
        self._fresh: dict[str, Look] = {}
        self._fresh_states: dict[str, str] = {}
        self._states: dict[str, str] = {}
        self.looks: dict[str, Look] = {}
        for look in map(look_from, read_lines(folder, self._key)):
            # What could be decoded once can be: then the trouble was the disk's or the memory's.
            if look.sha256 not in self.looks or not look.reason:
                self.looks[look.sha256] = look
        for (states,) in read_lines(folder, _STATES):
            self._states.update(states)

    def unread(self, state: str) -> Look | None:
        """Return the look at a file that is in a known state and fit for use; None of any other, which is to be read.

        Args:
            state: what ``state_of`` gave.
        """
        look = self.looks.get(self._states.get(state, ""))
        return None if look is None or look.reason else look

    def keep(self, look: Look, state: str = "") -> None:
        """Take note of a look, to be written by `write`; one at a file whose content was not read says nothing.

        Args:
            look: the look.
            state: of the file, before it was read.
        """
        if self._folder is None or not look.sha256:
            return
        if self.looks.get(look.sha256) != look:
            self._fresh[look.sha256] = self.looks[look.sha256] = look
        if state and self._states.get(state) != look.sha256:
            self._fresh_states[state] = self._states[state] = look.sha256

    def write(self) -> None:
        """Write, durably, what was kept since the last time.

        Raises:
            Unremembered: the folder cannot be written to, or the disk is full.
        """
        if self._folder is None:
            return
        if self._fresh:
            write_lines(self._folder, self._key, map(look_values, self._fresh.values()))
            self._fresh = {}
        if self._fresh_states:
            states = list(self._fresh_states.items())
            parts = (states[low : low + _TOGETHER] for low in range(0, len(states), _TOGETHER))
            write_lines(self._folder, _STATES, ([dict(part)] for part in parts))
            self._fresh_states = {}


def state_of(path: Path) -> str:
    """Return what changes whenever a file does, as in git's index: its place, its size and the times of its changes.

    The time of the last change of anything (ctime) is nobody's to set, so that a file is not taken for unchanged whose
    other time was put back. "" where this would say nothing: of a file changed just now, whose next change may have the
    same time ("racy git" in git's documentation); of one that cannot be read; where the file system seems to keep no
    such time, or none so fine, as those of memory cards; and on Windows.
    """
    if os.name != "posix":
        return ""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # to open a pipe or a device could block
            return ""
        handle = os.open(path, os.O_RDONLY)  # at which a file system of a network asks anew what it knows of a file
        try:
            state = os.fstat(handle)
        finally:
            os.close(handle)
    except (OSError, ValueError):
        return ""
    coarse = state.st_mtime_ns == state.st_ctime_ns and state.st_ctime_ns % _COARSE == 0
    if coarse or not max(state.st_mtime, state.st_ctime) < time.time() - SETTLED:
        return ""
    times = f"{state.st_mtime_ns}:{state.st_ctime_ns}"
    return f"{state.st_dev}:{state.st_ino}:{state.st_size}:{times}:{path.absolute()}"
