"""A process that decodes files for ``data.workers``: a line of JSON in, a line of JSON out.

Asked: a list of [path, sha256, bytes, time of change in ns], as the asker has just read the file. Answered: a list of
``look_values``, in the same order. It ends when nobody can ask any more.
"""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from PIL import Image

from unfreeze.data.decode import Undecodable, check_unchanged, open_regular, quiet_pillow
from unfreeze.data.look import Look, decoded, look_values

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
            answers.write(json.dumps([look_values(_look(*task)) for task in json.loads(asked)]).encode() + b"\n")
            answers.flush()


def _look(path: str, sha256: str, *before: Any) -> Look:
    try:
        with open_regular(Path(path)) as file:
            check_unchanged(file, before)  # so that it still is what was hashed
            look, _ = decoded(file, sha256, before[0])
            check_unchanged(file, before)
            return look
    except Undecodable as error:
        return Look(reason=error.reason)
