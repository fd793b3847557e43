"""Lines of JSON in a folder of the cache, by which it is remembered what was found out once.

Each file is written once, whole, under a name of its own, and all of a key are read. Each line begins with a checksum:
one that is not as it was written, or cannot be read, counts as not there.
"""

import hashlib
import json
import uuid
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from unfreeze.durable import replacing
from unfreeze.errors import UserError


class Unremembered(UserError):
    """What was found out cannot be kept in the cache; whoever has no cache finds it out again."""


def write_lines(folder: Path, key: str, lines: Iterable[Sequence[Any]]) -> None:
    """Write lists of JSON data, a line each, durably, into a file of the folder with a name of its own.

    Raises:
        Unremembered: the folder cannot be written to, or the disk is full.
    """
    try:
        with replacing(folder / f"{key}-{uuid.uuid4().hex}.jsonl") as temporary:
            with temporary.open("wb") as file:
                file.writelines(map(_line, lines))
    except UserError as error:
        raise Unremembered(
            error.given,
            "a cache folder that can be written to, with room on its disk",
            "set UNFREEZE_CACHE to another folder, or free space and run the same command again",
        ) from error


def read_lines(folder: Path | None, key: str) -> Iterator[list[Any]]:
    """Yield the lists that were written under a key, of each file in its order; none where there is no folder."""
    for path in [] if folder is None else sorted(folder.glob(f"{key}-*.jsonl")):
        try:
            lines = path.read_bytes().splitlines(keepends=True)
        except OSError:  # then it is found out again
            continue
        for line in lines:
            if line[:2] == b'["' and line[18:21] == b'", ' and line[2:18] == _digits(line[21:]):
                yield json.loads(line.decode())[1:]


def _line(values: Sequence[Any]) -> bytes:
    """Return a list as a line of JSON, with 16 hex digits over all that follows them in front of its values."""
    rest = json.dumps(values)[1:].encode() + b"\n"
    return b'["' + _digits(rest) + b'", ' + rest


def _digits(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=8).hexdigest().encode()
