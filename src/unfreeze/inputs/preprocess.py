"""Base pictures: images decoded, turned upright and resized once, from which all views are made."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import PIL
from PIL import Image

from unfreeze.data.catalog import Catalog, rows_of
from unfreeze.data.decode import DECODE_RULES, load_partly, to_rgb
from unfreeze.data.formats.reading import read_key
from unfreeze.data.image_file import check_unchanged, digest, open_regular, quiet_pillow, stamp
from unfreeze.data.scan import in_threads
from unfreeze.data.unusable import Undecodable
from unfreeze.errors import UserError
from unfreeze.storage.array_store import ArrayStore, entry
from unfreeze.storage.shards import Rows

BASE_FORMAT = 1
"""Version of base pictures; increase it whenever `base_picture` returns other pixels."""

LONGEST = 4
"""Largest aspect ratio of a `crop` base picture."""

_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


@dataclass(frozen=True)
class BaseTransform:
    """How base pictures are made.

    Attributes:
        image_size: side S of the network's square input in pixels.
        resize: crop (shorter side to round(S / crop_share), only the middle of very long pictures), squash (to S x S),
            or pad (longer side to S; the view is padded later, in the mean colour of the weights).
        interpolation: bilinear or bicubic, antialiased.
        crop_share: share of the shorter side that the centre crop keeps, in (0, 1]; used only by crop.

    Raises:
        ValueError: the interpolation is unknown.
    """

    image_size: int
    resize: Literal["crop", "squash", "pad"]
    interpolation: str
    crop_share: float

    def __post_init__(self) -> None:
        if self.interpolation not in _FILTERS:
            raise ValueError(f"unknown interpolation {self.interpolation!r}")

    @property
    def side(self) -> int:
        """The fixed side in pixels: the shorter one for crop, the longer one for pad, both for squash."""
        return round(self.image_size / self.crop_share) if self.resize == "crop" else self.image_size

    def identity(self) -> dict[str, Any]:
        """Return everything that the pixels depend on except the image, as JSON data."""
        return {
            "format": [BASE_FORMAT, DECODE_RULES],
            "pillow": PIL.__version__,
            "resize": self.resize,
            "side": self.side,
            "interpolation": self.interpolation,
        }

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Return (width, height) of the base picture of an upright picture of this size."""
        if self.resize == "squash":
            return self.side, self.side
        wide, high = self._resized(width, height)
        if self.resize == "pad":
            return wide, high
        return min(wide, LONGEST * self.side), min(high, LONGEST * self.side)

    def _resized(self, width: int, height: int) -> tuple[int, int]:
        """Return the size to which the whole picture is resized; crop may keep only its middle."""
        scale = self.side / (min if self.resize == "crop" else max)(width, height)
        least = self.side if self.resize == "crop" else 1
        return max(least, round(width * scale)), max(least, round(height * scale))


def base_picture(picture: Image.Image, base: BaseTransform) -> Image.Image:
    """Return the base picture, 8-bit RGB, of an upright 8-bit RGB picture.

    If only the middle is kept, only that is resized, so that a picture of 1 x 10,000 pixels costs no more than others.
    """
    wide, high = base.size(*picture.size)
    if base.resize != "crop":
        return picture.resize((wide, high), _FILTERS[base.interpolation])
    whole_wide, whole_high = base._resized(*picture.size)
    left, top = (whole_wide - wide) // 2, (whole_high - high) // 2
    across, down = picture.width / whole_wide, picture.height / whole_high
    # Rounding may exceed the picture slightly, which Pillow refuses.
    right, bottom = min((left + wide) * across, picture.width), min((top + high) * down, picture.height)
    box = (left * across, top * down, right, bottom)
    return picture.resize((wide, high), _FILTERS[base.interpolation], box=box)


class Pictures(Protocol):
    """Base pictures by index, uint8 (height, width, 3), possibly read-only; picklable."""

    def __len__(self) -> int:
        """Return the number of pictures."""
        ...

    def __getitem__(self, index: int) -> np.ndarray:
        """Return the base picture of one image."""
        ...


@dataclass(frozen=True)
class DecodedPictures:
    """Base pictures made from files at each access, with the contents of their keys (``reading.content_key``)."""

    paths: Sequence[Path]
    keys: Sequence[str]
    base: BaseTransform

    def __len__(self) -> int:
        """Return the number of pictures."""
        return len(self.paths)

    def __getitem__(self, index: int) -> np.ndarray:
        """Return the base picture, uint8, (height, width, 3), read-only.

        Raises:
            UserError: the file is gone, does not have the content of its key, or can no longer be decoded whole.
        """
        with quiet_pillow():  # called from one thread of a process at a time
            return _made(self.base, (self.keys[index], self.paths[index]))[1]


@dataclass(frozen=True)
class StoredPictures:
    """Base pictures read from the pixel store; bit-equal to those of `DecodedPictures`."""

    rows: Rows

    def __len__(self) -> int:
        """Return the number of pictures."""
        return len(self.rows)

    def __getitem__(self, index: int) -> np.ndarray:
        """Return the base picture, uint8, (height, width, 3)."""
        return self.rows.read(index)


def pixel_store(cache: Path, base: BaseTransform) -> ArrayStore:
    """Return the cache's entry for base pictures: uint8, (height, width, 3), at rows (key, 0)."""
    side = {"crop": "shorter side", "pad": "longer side", "squash": "both sides"}[base.resize]
    about = {"size": f"{side} {base.side}", "view": f"base picture, {base.interpolation}"}
    label = f"{base.resize}-{base.side}-{base.interpolation}"
    return entry(cache, "pixels", label, {**base.identity(), "about": about}, "uint8")


def store_pictures(
    store: ArrayStore,
    paths: Sequence[Path],
    keys: Sequence[str],
    progress: Callable[[int, int], None] | None = None,
    workers: int | None = None,
) -> None:
    """Decode images into a pixel store.

    Args:
        store: from `pixel_store`.
        paths: image files whose pictures are missing in the store.
        keys: their ``reading.content_key``; of several files with the same key the first is decoded.
        progress: called with (images done, images in total) after each image, in this thread.
        workers: threads, by default one per core.

    Raises:
        UserError: a file is gone, does not have the content of its key, or can no longer be decoded whole (finished
            pictures stay in the store); the cache cannot be written.
    """
    # The pixels depend only on the identity, which has the side of a crop and not image size and share.
    base = BaseTransform(
        store.identity["side"], store.identity["resize"], store.identity["interpolation"], crop_share=1.0
    )
    first: dict[str, Path] = {}
    for path, key in zip(paths, keys, strict=True):
        first.setdefault(key, path)
    made = in_threads(partial(_made, base), first.items(), workers)
    with quiet_pillow(), contextlib.closing(made), store.writer() as writer:
        for done, (key, pixels) in enumerate(made, 1):
            writer.add((key, 0), pixels)
            if progress is not None:
                progress(done, len(first))


def _made(base: BaseTransform, image: tuple[str, Path]) -> tuple[str, np.ndarray]:
    key, path = image
    try:
        with open_regular(path) as file:
            before = stamp(file)
            sha256, reading = read_key(key)
            if digest(file) != sha256:
                raise Undecodable("its content has changed")
            picture = base_picture(to_rgb(load_partly(file, reading=reading), reading), base)
            check_unchanged(file, before)
    except Undecodable as error:
        raise _altered(path, error.reason) from error
    return key, np.asarray(picture)


def picture_bytes(catalog: Catalog, ids: Sequence[str], base: BaseTransform) -> int:
    """Return the bytes of the base pictures of these images in a pixel store, each content counted once."""
    rows = rows_of(catalog, ids).drop_duplicates("sha256")
    sizes = (base.size(width, height) for width, height in zip(rows["width"], rows["height"], strict=True))
    return sum(3 * wide * high for wide, high in sizes)


def _altered(path: Path, what: str) -> UserError:
    return UserError(
        f"{path}: {what}",
        "the image as it was when the study began",
        "restore the file, or start a new study without it",
    )
