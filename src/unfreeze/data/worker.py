"""Reading files in a slot, see ``unfreeze.slots``: hashing each and decoding what is not known.

Asked: chunks, which are lists of paths. Told, chunk after chunk and in the order of its files: what a look at the file
gave, or the sha256 alone of a content whose look is known to the parent; and the state that the file was in.
"""

from collections.abc import Mapping
from typing import Any

from unfreeze.data.decode import check_unchanged, digest, open_regular, quiet_pillow, stamp
from unfreeze.data.look import Look, look_values, looks_at
from unfreeze.data.reading import Reading
from unfreeze.data.sketch import decoded
from unfreeze.data.states import state
from unfreeze.data.unfit import Undecodable
from unfreeze.slots import Parent


def decode(told: Mapping[str, Any], parent: Parent) -> None:
    """Look at files until the parent asks no more.

    Args:
        told: how files are read, and the sha256 of the contents that are known.
        parent: asks for files.
    """
    reading, known = Reading.from_text(told["reading"]), set(told["known"])
    parent.tell(ready=True)
    with quiet_pillow():
        while (paths := parent.asked.get()) is not None and not parent.leaving.is_set():
            parent.tell(found=[_look(path, reading, known) for path in paths])


def _look(path: str, reading: Reading, known: set[str]) -> tuple[list[Any] | str, str]:
    """Return what a look at a file gave, or its sha256 alone if that is known; and the state that the file was in."""
    try:
        with open_regular(path) as file:
            before = stamp(file)
            told, sha256 = state(before), digest(file)
            if sha256 in known:
                return sha256, told
            seen, _ = decoded(file, reading)
            check_unchanged(file, before)  # before anything is told of this sha256
    except Undecodable as error:
        return look_values(Look(reason=error.reason)), ""
    if not seen.reason:
        known.add(sha256)
    (look,) = looks_at([(sha256, before.st_size, seen)])
    return look_values(look), told
