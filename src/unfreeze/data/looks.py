"""Looks, remembered by content in the cache, so that what a file tells is found out once."""

from pathlib import Path

import PIL

from unfreeze.config.identity import fingerprint
from unfreeze.data.decode import DECODE_RULES
from unfreeze.data.likeness import LIKENESS_RULES
from unfreeze.data.lines import read_lines, write_lines
from unfreeze.data.look import Look, look_from, look_values
from unfreeze.data.reading import USUAL, Reading

_FORMAT = 3
JUDGING_RULES = 1
"""Counts up whenever a file comes to be judged otherwise."""
_STATES = "states-2"
_TOGETHER = 256  # states in a line


class Remembered:
    """The looks kept in a folder of the cache, by sha256, and those that are to be added to it.

    Another version of Pillow, other rules of decoding and another way of reading have files of their own.

    Args:
        folder: the folder, made when the first look is kept; None remembers nothing.
        reading: how files are read.

    Attributes:
        looks: by sha256.
        states: the sha256 of what was read of files in these states.
    """

    def __init__(self, folder: Path | None, reading: Reading = USUAL) -> None:
        self._folder = folder
        rules = (_FORMAT, DECODE_RULES, JUDGING_RULES, LIKENESS_RULES, PIL.__version__)
        self._key = fingerprint(*rules, *reading.rules)
        self._fresh: dict[str, Look] = {}
        self._fresh_states: dict[str, str] = {}
        self.states: dict[str, str] = {}
        self.looks: dict[str, Look] = {}
        for look in map(look_from, read_lines(folder, self._key)):
            # What could be decoded once can be: then the trouble was the disk's or the memory's.
            if look.sha256 not in self.looks or not look.reason:
                self.looks[look.sha256] = look
        for (states,) in read_lines(folder, _STATES):
            self.states.update(states)

    def unread(self, state: str) -> Look | None:
        """Return the look at a file that is in a known state and fit for use; None of any other, which is to be read.

        Args:
            state: see ``data.states``.
        """
        look = self.looks.get(self.states.get(state, ""))
        return None if look is None or look.reason else look

    def keep(self, look: Look, state: str = "") -> None:
        """Take note of a look, to be written by `write`; one at a file whose content was not read says nothing.

        Args:
            look: the look.
            state: of the file, before it was read; "" where that says nothing.
        """
        if self._folder is None or not look.sha256:
            return
        if self.looks.get(look.sha256) != look:
            self._fresh[look.sha256] = self.looks[look.sha256] = look
        if state and self.states.get(state) != look.sha256:
            self._fresh_states[state] = self.states[state] = look.sha256

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
