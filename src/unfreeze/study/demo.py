"""The demo's images: scikit-learn's handwritten digits, written out as a folder of class folders."""

from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from unfreeze.store import replacing

SIDE = 64
"""Pixels a side of a written image; the digits have 8."""


def write_digits(folder: Path) -> int:
    """Write the 1,797 digits (UCI, Alpaydin and Kaynak 1998) as grey PNG files 64 pixels square; return their number.

    What is there already stays: the same files are written by every call.

    Raises:
        UserError: the folder cannot be written to.
    """
    digits = load_digits()
    for number, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        path = folder / str(label) / f"{number:04d}.png"
        if not path.exists():
            grey = np.round(pixels * (255 / 16)).astype(np.uint8)  # 8 x 8, values 0 to 16
            image = Image.fromarray(grey).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
            with replacing(path) as temporary:
                image.save(temporary, format="PNG")
    return len(digits.target)
