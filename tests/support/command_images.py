"""Tiny data for the command line: noisy squares in a few colours."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {"blue": (60, 60, 200), "green": (60, 200, 60), "red": (200, 60, 60)}


def understood(photos: Path | str, counts: Mapping[str, int] | None = None) -> str:
    """What every command says first of such photos, 12 a class unless ``counts`` says otherwise."""
    counts = counts or dict.fromkeys(sorted(COLOURS), 12)
    least, most = (choose(counts, key=lambda label: counts[label]) for choose in (min, max))
    each = f"{counts[least]} ({least}) to {counts[most]} ({most})" if counts[least] < counts[most] else counts[most]
    return (
        f"data: {photos}: class folders, {sum(counts.values())} files in {len(counts)} classes, {each} a class\n"
        f"classes: {', '.join(counts)}\n"
        "split: drawn: 20% test, 15% validation, the rest training\n"
    )


def write_photos(folder: Path, counts: Mapping[str, int] | int = 12) -> Path:
    """Write so many 24 x 24 PNG files a class, each different."""
    if isinstance(counts, int):
        counts = dict.fromkeys(COLOURS, counts)
    random = np.random.default_rng(0)
    for label, count in counts.items():
        (folder / label).mkdir(parents=True)
        colour = np.array(COLOURS.get(label, (128, 128, 128)))
        for number in range(count):
            pixels = np.clip(colour + random.normal(0, 50, (24, 24, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{number}.png")
    return folder
