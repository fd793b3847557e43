"""Entry point of slots: `python -P -m unfreeze.worker`, see `slots`.

The first line of its standard input is a list: the kind of work, the file for its answers, and the payload.
"""

import json
import os
import signal

from unfreeze.slots import Parent, leave


def main() -> None:
    """Do the work that the first line asks for, until the parent asks no more."""
    for number in (signal.SIGINT, signal.SIGTERM):  # Ctrl-C reaches this process as well; the parent handles it
        signal.signal(number, lambda *_: None)
    os.dup2(2, 1)  # what a library prints is not part of the parent's output
    lines = os.fdopen(os.dup(0), "rb")
    first = lines.readline()
    if not first.endswith(b"\n"):  # the parent was killed
        return
    kind, log, payload = json.loads(first)
    parent = Parent(lines, log)
    try:
        if kind == "cells":
            from unfreeze.study.executors.slot_cells import run_cells

            run_cells(payload, parent)
        elif kind == "decode":
            from unfreeze.data.decode_pool import decode

            decode(payload, parent)
        else:
            raise ValueError(f"{kind!r} is not a kind of work")
    except Exception as error:
        parent.tell(broken=f"failed: {type(error).__name__}: {error}")
        raise
    leave(0)


if __name__ == "__main__":
    main()
