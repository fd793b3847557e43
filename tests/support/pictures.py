"""Small pictures, folders and catalogs for the tests of data/."""

import hashlib
import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from unfreeze.data.catalog import COLUMNS, Catalog


def smooth(width: int = 48, height: int = 32) -> np.ndarray:
    """A picture without sharp edges and without symmetry, uint8, (height, width, 3)."""
    down, across = np.mgrid[0:height, 0:width]
    red = 40 + 200 * across / width
    green = 220 - 180 * down / height
    blue = 60 + 60 * (across / width + down / height)
    return np.stack([red, green, blue], axis=2).round().astype(np.uint8)


def save(path: Path, number: int = 0) -> Path:
    """Write a small PNG whose content depends on the number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, format="PNG")
    return path


def shas(paths: Sequence[Path]) -> list[str]:
    """The sha256 of each file's content."""
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]


def folder(root: Path, counts: Mapping[str, int]) -> Path:
    """Write a folder of class folders, each picture different."""
    number = 0
    for label, count in counts.items():
        (root / label).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            save(root / label / f"{index:03}.png", number)
            number += 1
    return root


def png(width: int, height: int, depth: int, colour: int, rows: bytes, **chunks: bytes) -> bytes:
    """A PNG put together by hand; rows are packed pixels, each led by the filter byte 0."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    extra = b"".join(chunk(kind.encode(), content) for kind, content in chunks.items())
    body = chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def catalog(rows: Sequence[Mapping[str, str]]) -> Catalog:
    """A catalog of files that do not exist; each row gives at least sha256 and label."""
    defaults = {"path": "", "group": "", "given_split": "", "source": "", "reason": "", "mode": "RGB", "status": "used"}
    defaults |= {"cluster": "", "pixels": "", "phash": "", "given_fold": "", "note": ""}
    table = [{"width": 8, "height": 6, **defaults, **row} for row in rows]
    for number, row in enumerate(table):
        row.setdefault("id", f"{row['sha256']}.{row['label']}.{number}")
    images = pd.DataFrame(table, columns=list(COLUMNS))
    classes = tuple(sorted({row["label"] for row in rows}))
    return Catalog(images, {"": Path("nowhere")}, classes)
