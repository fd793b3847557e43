"""Write scikit-learn's handwritten digits as a folder of class folders, for the demo."""

import io
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from unfreeze.errors import UserError

SIDE = 64
"""Pixels per side of a written image; the digits have 8."""


def write_digits(folder: Path) -> int:
    """Write the 1,797 digits (UCI, Alpaydin and Kaynak 1998) as grey PNG files 64 pixels square; return their number.

    A file that is there with the right bytes stays as it is; one that an interrupt left incomplete is repaired.

    Raises:
        UserError: the folder cannot be written to.
    """
    digits = load_digits()
    for number, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        grey = np.round(pixels * (255 / 16)).astype(np.uint8)  # 8 x 8, values 0 to 16
        written = io.BytesIO()
        Image.fromarray(grey).resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(written, format="PNG")
        _keep(folder / str(label) / f"{number:04d}.png", written.getvalue())
    return len(digits.target)


def _keep(path: Path, content: bytes) -> None:
    """Write a file unless it has this content; it is not synced, since there are thousands of small files."""
    try:
        if not path.is_file() or path.read_bytes() != content:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror or error}",
            "a directory that can be written to, with room on its disk",
            "give another directory with --out DIR, or free space and run the same command again",
        ) from error
