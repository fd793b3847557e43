"""A process that decodes files for ``data.workers``: a line of JSON in, a line of JSON and some bytes out.

Asked: a list of [path, bytes, time of change in ns], as the asker has just read the file. Answered, in the same order:
a list of [true, mode, [width, height], reason, [format, several], null or the sketch without what is drawn], or
[false, reason] for a file that is not as it was; after the line what is drawn of all, one after another. It ends when
nobody can ask any more.
"""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from PIL import Image

from unfreeze.data.decode import Undecodable, check_unchanged, open_regular, quiet_pillow
from unfreeze.data.sketch import Seen, decoded

READY = b"ready\n"
"""Said once, when everything is imported."""
_KEPT_BLOCKS = 4  # of Pillow's, of 16 MiB at most: fresh memory for each picture takes longer than to decode it


def main() -> None:
    """Answer until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # which is the asker's to heed
    Image.core.set_blocks_max(_KEPT_BLOCKS)  # type: ignore[attr-defined]
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a decoder's library may print is no answer
    answers.write(READY)
    answers.flush()
    with quiet_pillow():
        for asked in sys.stdin.buffer:
            lines, drawn = [], []
            for path, *before in json.loads(asked):
                found = _seen(path, *before)
                if isinstance(found, str):
                    lines.append([False, found])
                else:
                    lines.append([True, *found[:-1], found.sketch and found.sketch[:-1]])
                    drawn += [found.sketch.drawn] if found.sketch else []
            answers.write(json.dumps(lines).encode() + b"\n" + b"".join(drawn))
            answers.flush()


def _seen(path: str, *before: Any) -> Seen | str:
    """Return what a file tells, or why it could not be read as it was."""
    try:
        with open_regular(Path(path)) as file:
            check_unchanged(file, before)  # so that it still is what was hashed
            seen, _ = decoded(file)
            check_unchanged(file, before)
            return seen
    except Undecodable as error:
        return error.reason
