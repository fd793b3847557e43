"""Views: what the network sees of an image, plain or augmented.

A resize and a crop are one call here: Pillow resamples only the wanted part of the resized picture (its filters
antialias and look beyond the part's edge), so a view costs its own size even for a picture of 1 x 10,000 pixels.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import InterpolationMode, v2

from unfreeze.data.decode import Undecodable, decode
from unfreeze.errors import UserError
from unfreeze.streams import stream_seed

AUGMENTATIONS = ("none", "flip_crop", "article", "trivial", "rand")
_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}

ROTATION, SHIFT, ZOOM = 20.0, 0.1, 0.1
"""Bounds of `article`: degrees, share of the picture's side, share of the scale."""


@dataclass(frozen=True)
class Preprocessing:
    """How a picture becomes a network's input; comes with the weights, but for the first two.

    Attributes:
        image_size: S, the side of the square input in pixels.
        resize: crop (shorter side to round(S / crop_share), then the centre), squash (to S x S), or pad (longer side
            to S, the rest in the mean colour).
        mean, std: of the channels R, G, B, of values in [0, 1].
        interpolation: bilinear or bicubic, antialiased.
        crop_share: share of the shorter side that the centre crop keeps, in (0, 1].
    """

    image_size: int
    resize: Literal["crop", "squash", "pad"]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str
    crop_share: float

    @property
    def mean_colour(self) -> tuple[int, int, int]:
        """The mean as an 8-bit colour, with which pictures are padded."""
        red, green, blue = (round(255 * value) for value in self.mean)
        return red, green, blue


class ViewDataset(Dataset[tuple[Tensor, int]]):
    """Views of images by (index, view number); picklable, and without state that drawing changes.

    An augmented view is a pure function of (seed, key, view number), whatever was drawn before and in which worker.

    - `none`: the plain view; the view number does not matter.
    - `flip_crop`: a random S x S part of the resized picture (squash and pad: reflected by S // 8 on each side first),
      mirrored half the time.
    - `article`: the family of Keras's ImageDataGenerator: rotation up to 20 degrees, shift up to 10 % and, for each
      axis, zoom up to 10 %, either way, mirrored half the time; beyond the picture, the mean colour.
    - `trivial`: flip_crop, then TrivialAugmentWide (Müller and Hutter 2021).
    - `rand`: flip_crop, then RandAugment (Cubuk et al. 2020) as torchvision sets it.

    Args:
        paths: image files.
        keys: the images' sha256, the same number.
        preprocessing: size, resizing and normalisation.
        augment: one of `AUGMENTATIONS`.
        seed: of the stream "augment".
    """

    def __init__(
        self, paths: Sequence[Path], keys: Sequence[str], preprocessing: Preprocessing, augment: str, seed: int
    ) -> None:
        if len(paths) != len(keys):
            raise ValueError(f"{len(paths)} paths and {len(keys)} keys")
        if augment not in AUGMENTATIONS or preprocessing.interpolation not in _FILTERS:
            raise ValueError(f"unknown augmentation {augment!r} or interpolation {preprocessing.interpolation!r}")
        self.paths, self.keys = list(paths), list(keys)
        self.preprocessing, self.augment, self.seed = preprocessing, augment, seed
        self._policy = _policy(augment, preprocessing)
        self._mean = 255 * torch.tensor(preprocessing.mean).view(3, 1, 1)
        self._std = 255 * torch.tensor(preprocessing.std).view(3, 1, 1)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.paths)

    def __getitem__(self, draw: tuple[int, int]) -> tuple[Tensor, int]:
        """Return (view, index) for draw (index, view number); the view is float32, (3, S, S), normalised.

        Raises:
            UserError: the file is gone or can no longer be decoded whole.
        """
        index, view = draw
        try:
            picture = decode(self.paths[index])
        except Undecodable as error:
            raise UserError(
                f"{self.paths[index]}: {error.reason}",
                "the image as it was when the study began",
                "restore the file, or begin a new study without it",
            ) from error
        if self.augment == "none":
            return self._normalised(plain(picture, self.preprocessing)), index
        with torch.random.fork_rng(devices=[]):
            # torch.manual_seed would also seed the accelerators, whose state fork_rng then does not restore.
            torch.default_generator.manual_seed(stream_seed(self.seed, "augment", self.keys[index], view))
            return self._normalised(self._augmented(picture)), index

    def _augmented(self, picture: Image.Image) -> Image.Image:
        flip = bool(torch.rand(()) < 0.5)
        if self.augment == "article":
            picture = _jitter(picture, self.preprocessing)
        else:
            picture = _random_crop(picture, self.preprocessing)
        if flip:
            picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return picture if self._policy is None else self._policy(picture)

    def _normalised(self, picture: Image.Image) -> Tensor:
        planes = np.stack([np.asarray(plane) for plane in picture.split()])  # faster than turning the axes
        return torch.from_numpy(planes).float().sub_(self._mean).div_(self._std)


def plain(picture: Image.Image, preprocessing: Preprocessing) -> Image.Image:
    """Return the plain view, S x S, 8-bit RGB, of an RGB picture."""
    size = preprocessing.image_size
    if preprocessing.resize != "crop":
        return _whole(picture, preprocessing)
    width, height = _resized(picture, preprocessing)
    return _part(picture, preprocessing, ((width - size) // 2, (height - size) // 2), (size, size))


def _policy(augment: str, preprocessing: Preprocessing) -> v2.Transform | None:
    fill = list(preprocessing.mean_colour)
    if augment == "trivial":
        return v2.TrivialAugmentWide(interpolation=InterpolationMode.BILINEAR, fill=fill)
    if augment == "rand":
        return v2.RandAugment(interpolation=InterpolationMode.BILINEAR, fill=fill)
    return None


def _resized(picture: Image.Image, preprocessing: Preprocessing) -> tuple[int, int]:
    """Return (width, height) of the picture resized for `crop`: its shorter side becomes round(S / crop_share)."""
    shorter = round(preprocessing.image_size / preprocessing.crop_share)
    scale = shorter / min(picture.size)
    return max(shorter, round(picture.width * scale)), max(shorter, round(picture.height * scale))


def _part(
    picture: Image.Image, preprocessing: Preprocessing, corner: tuple[int, int], size: tuple[int, int]
) -> Image.Image:
    """Return the part at `corner` (left, top) of the picture resized for `crop`, without resizing the rest."""
    width, height = _resized(picture, preprocessing)
    across, down = picture.width / width, picture.height / height
    (left, top), (wide, high) = corner, size
    # At the far edges rounding may exceed the picture by a hair, which Pillow refuses.
    right, bottom = min((left + wide) * across, picture.width), min((top + high) * down, picture.height)
    return picture.resize(size, _FILTERS[preprocessing.interpolation], box=(left * across, top * down, right, bottom))


def _whole(picture: Image.Image, preprocessing: Preprocessing) -> Image.Image:
    """Return the picture squashed to S x S, or fitted into S x S with the rest in the mean colour."""
    size, method = preprocessing.image_size, _FILTERS[preprocessing.interpolation]
    if preprocessing.resize == "squash":
        return picture.resize((size, size), method)
    scale = size / max(picture.size)
    width, height = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    canvas = Image.new("RGB", (size, size), preprocessing.mean_colour)
    canvas.paste(picture.resize((width, height), method), ((size - width) // 2, (size - height) // 2))
    return canvas


def _random_crop(picture: Image.Image, preprocessing: Preprocessing) -> Image.Image:
    size = preprocessing.image_size
    if preprocessing.resize == "crop":
        width, height = _resized(picture, preprocessing)
        return _part(picture, preprocessing, (_below(width - size + 1), _below(height - size + 1)), (size, size))
    margin = size // 8
    pixels = np.asarray(_whole(picture, preprocessing))
    columns, rows = _reflected(_below(2 * margin + 1) - margin, size), _reflected(_below(2 * margin + 1) - margin, size)
    return Image.fromarray(pixels[rows][:, columns])


def _reflected(start: int, size: int) -> np.ndarray:
    """Return positions start to start + size - 1, those outside 0 to size - 1 reflected at the edge pixels."""
    return size - 1 - np.abs(size - 1 - np.abs(np.arange(start, start + size)))


def _jitter(picture: Image.Image, preprocessing: Preprocessing) -> Image.Image:
    """Rotate, shift and zoom about the centre."""
    size = preprocessing.image_size
    if preprocessing.resize == "crop":
        # Beyond twice the view's size, nothing of the resized picture can come into view.
        width, height = _resized(picture, preprocessing)
        wide, high = min(width, 2 * size), min(height, 2 * size)
        picture = _part(picture, preprocessing, ((width - wide) // 2, (height - high) // 2), (wide, high))
    else:
        picture = _whole(picture, preprocessing)
    angle, right, down, across, along = (2 * torch.rand(5, dtype=torch.float64) - 1).tolist()
    cosine, sine = math.cos(math.radians(ROTATION * angle)), math.sin(math.radians(ROTATION * angle))
    across, along = 1 + ZOOM * across, 1 + ZOOM * along
    # Pillow asks for the way back: from a place in the view to a place in the picture.
    a, b, d, e = cosine * across, -sine * along, sine * across, cosine * along
    x, y = size / 2 + SHIFT * size * right, size / 2 + SHIFT * size * down
    back = (a, b, picture.width / 2 - a * x - b * y, d, e, picture.height / 2 - d * x - e * y)
    return picture.transform(
        (size, size), Image.Transform.AFFINE, back, Image.Resampling.BILINEAR, fillcolor=preprocessing.mean_colour
    )


def _below(bound: int) -> int:
    """Draw an integer from 0 to bound - 1 from torch's global generator."""
    return int(torch.randint(bound, ()))
