"""A process that hashes and decodes files for ``data.workers``: lines of JSON in, lines of JSON out.

Asked first: a list of paths. Answered, in the same order: a list of [sha256, bytes, "", state], see ``data.states``, or
of ["", 0, reason, ""] for one that cannot be read. Asked then: a list of the places, in that list, of those that are to
be decoded. Answered: a list of [true, mode, [width, height], reason, [format, several], null or the likeness, peak], or
of [false, reason] for a file that is not as it was hashed. It ends when nobody can ask any more. How files are read is
its only argument.
"""

import contextlib
import json
import os
import signal
import sys
from collections.abc import Iterator
from io import BufferedReader, BufferedWriter
from typing import Any

from PIL import Image

from unfreeze.data.decode import check_unchanged, digest, open_regular, quiet_pillow, stamp
from unfreeze.data.likeness import as_values
from unfreeze.data.reading import Reading
from unfreeze.data.sketch import Seen, decoded
from unfreeze.data.states import state
from unfreeze.data.unfit import Undecodable

READY = b"ready\n"
"""Said once, when everything is imported."""
_KEPT_BLOCKS = 4  # of Pillow's, of 16 MiB at most: fresh memory for each picture takes longer than to decode it


def main() -> None:
    """Answer until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # which is the asker's to heed
    Image.core.set_blocks_max(_KEPT_BLOCKS)  # type: ignore[attr-defined]
    reading = Reading.from_text(sys.argv[1])
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a decoder's library may print is no answer
    answers.write(READY)
    answers.flush()
    with quiet_pillow(), _until_nobody_listens():
        for asked in sys.stdin.buffer:
            with contextlib.ExitStack() as opened:
                hashed = [_hashed(path, opened) for path in json.loads(asked)]
                _say(answers, [told for told, _ in hashed])
                wanted = [hashed[place][1] for place in json.loads(sys.stdin.buffer.readline() or "[]")]
                found = [_seen(file[0], file[1], reading) for file in wanted if file is not None]
            _say(answers, [[False, one] if isinstance(one, str) else [True, *_values(one)] for one in found])


@contextlib.contextmanager
def _until_nobody_listens() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        os._exit(0)  # at an orderly end Python would try once more, and complain


def _say(answers: BufferedWriter, line: list[list[Any]]) -> None:
    answers.write(json.dumps(line).encode() + b"\n")
    answers.flush()


def _hashed(path: str, opened: contextlib.ExitStack) -> tuple[list[Any], tuple[BufferedReader, os.stat_result] | None]:
    """Return what is to be told of a file, and the open file with its stamp; None where it cannot be read."""
    try:
        file = opened.enter_context(open_regular(path))
        before = stamp(file)
        told = state(before)
        return [digest(file), before.st_size, "", told], (file, before)
    except Undecodable as error:
        return ["", 0, error.reason, ""], None


def _values(seen: Seen) -> list[Any]:
    return [*seen[:4], seen.likeness and as_values(seen.likeness), seen.peak]


def _seen(file: BufferedReader, before: os.stat_result, reading: Reading) -> Seen | str:
    """Return what an open file tells, or why it could not be read as it was hashed."""
    try:
        seen, _ = decoded(file, reading)
        check_unchanged(file, before)
        return seen
    except Undecodable as error:
        return error.reason
