"""Views: what the network sees of an image, plain or augmented; augmentations are one entry each.

Every view starts from the image's base picture (see `unfreeze.inputs.preprocess`) and from nothing else of the image.
torch is imported where a view is made, so that names are known without it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image

from unfreeze.inputs.preprocess import BaseTransform, Pictures
from unfreeze.registry import Registry
from unfreeze.seeds import stream_seed

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torchvision.transforms import v2

VIEW_RULES = 1
"""Counts up whenever a view of the same base picture comes to have other pixels."""

ROTATION, SHIFT, ZOOM = 20.0, 0.1, 0.1
"""Bounds of `article`: degrees, share of the picture's side, share of the scale."""


@dataclass(frozen=True)
class Preprocessing:
    """How a picture becomes a network's input; comes with the weights, but for the first two.

    Attributes:
        image_size: S, the side of the square input in pixels.
        resize: crop (shorter side to round(S / crop_share), then an S x S part), squash (to S x S), or pad (longer
            side to S, the rest in the mean colour).
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
    def base(self) -> BaseTransform:
        """How the pictures are made from which the views start."""
        return BaseTransform(self.image_size, self.resize, self.interpolation, self.crop_share)

    @property
    def mean_colour(self) -> tuple[int, int, int]:
        """The mean as an 8-bit colour, with which pictures are padded."""
        red, green, blue = (round(255 * value) for value in self.mean)
        return red, green, blue


class ViewDataset:
    """Views of images by (index, view number), for a DataLoader; picklable, and drawing changes no state of it.

    A view is a pure function of (seed, key, view number) and the base picture, whatever was drawn before and in which
    worker. Threads may draw at the same time, but for `trivial` and `rand`, which borrow PyTorch's global generator.

    Args:
        pictures: base pictures made as `preprocessing.base` says.
        keys: the images' sha256, the same number.
        preprocessing: size, resizing and normalisation.
        augment: a name in `AUGMENTATIONS`; of `none`, seed, key and view number do not matter.
        seed: of the stream "augment".
    """

    def __init__(
        self, pictures: Pictures, keys: Sequence[str], preprocessing: Preprocessing, augment: str, seed: int
    ) -> None:
        if len(pictures) != len(keys):
            raise ValueError(f"{len(pictures)} pictures and {len(keys)} keys")
        import torch

        self.pictures, self.keys = pictures, list(keys)
        self.preprocessing, self.augment, self.seed = preprocessing, augment, seed
        self._base = preprocessing.base
        self._augmented = AUGMENTATIONS[augment](preprocessing)
        self._mean = 255 * torch.tensor(preprocessing.mean).view(3, 1, 1)
        self._std = 255 * torch.tensor(preprocessing.std).view(3, 1, 1)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.keys)

    def __getitem__(self, draw: tuple[int, int]) -> tuple[Tensor, int]:
        """Return (view, index) for draw (index, view number); the view is float32, (3, S, S), normalised.

        Raises:
            UserError: the pictures are decoded from files, and the file is gone or can no longer be decoded whole.
        """
        index, view = draw
        base = self.pictures[index]
        high, wide, _ = base.shape
        if self._base.size(wide, high) != (wide, high):  # a view of it would be wrong and look right
            raise ValueError(f"a picture of {wide} x {high} pixels was not made as {self._base}")
        import torch

        generator = torch.Generator()
        if self.augment != "none":
            generator.manual_seed(stream_seed(self.seed, "augment", self.keys[index], view))
        return self._normalised(self._augmented(base, generator)), index

    def _normalised(self, pixels: np.ndarray) -> Tensor:
        import torch

        size = self.preprocessing.image_size
        view = torch.empty(3, size, size)
        view.numpy()[...] = pixels.transpose(2, 0, 1)
        return view.sub_(self._mean).div_(self._std)


def plain(base: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    """Return the plain view, uint8, (S, S, 3), perhaps a part of the base picture's memory, of a base picture."""
    size, (high, wide, _) = preprocessing.image_size, base.shape
    if preprocessing.resize == "squash":
        return base
    top, left = abs(high - size) // 2, abs(wide - size) // 2
    if preprocessing.resize == "crop":
        return base[top : top + size, left : left + size]
    canvas = np.empty((size, size, 3), np.uint8)
    canvas[...] = preprocessing.mean_colour
    canvas[top : top + high, left : left + wide] = base
    return canvas


def _transformed(pixels: np.ndarray, policy: v2.Transform, generator: torch.Generator) -> np.ndarray:
    """Apply a transform of torchvision, which draws from PyTorch's global generator, as if it drew from this one."""
    import torch

    with torch.random.fork_rng(devices=[]):
        # torch.manual_seed would also seed the accelerators, whose state fork_rng then does not restore.
        torch.default_generator.set_state(generator.get_state())
        return np.asarray(policy(Image.fromarray(np.ascontiguousarray(pixels))))


def _random_crop(base: np.ndarray, preprocessing: Preprocessing, generator: torch.Generator) -> np.ndarray:
    size = preprocessing.image_size
    if preprocessing.resize == "crop":
        left, top = _below(base.shape[1] - size + 1, generator), _below(base.shape[0] - size + 1, generator)
        return base[top : top + size, left : left + size]
    margin = size // 8
    columns = _reflected(_below(2 * margin + 1, generator) - margin, size)
    rows = _reflected(_below(2 * margin + 1, generator) - margin, size)
    return plain(base, preprocessing)[rows][:, columns]


def _reflected(start: int, size: int) -> np.ndarray:
    """Return positions start to start + size - 1, those outside 0 to size - 1 reflected at the edge pixels."""
    return size - 1 - np.abs(size - 1 - np.abs(np.arange(start, start + size)))


def _jitter(base: np.ndarray, preprocessing: Preprocessing, generator: torch.Generator) -> np.ndarray:
    """Rotate, shift and zoom about the centre."""
    import torch

    size = preprocessing.image_size
    picture = Image.fromarray(base if preprocessing.resize == "crop" else plain(base, preprocessing))
    angle, right, down, across, along = (2 * torch.rand(5, dtype=torch.float64, generator=generator) - 1).tolist()
    cosine, sine = math.cos(math.radians(ROTATION * angle)), math.sin(math.radians(ROTATION * angle))
    across, along = 1 + ZOOM * across, 1 + ZOOM * along
    # Pillow asks for the way back: from a place in the view to a place in the picture.
    a, b, d, e = cosine * across, -sine * along, sine * across, cosine * along
    x, y = size / 2 + SHIFT * size * right, size / 2 + SHIFT * size * down
    back = (a, b, picture.width / 2 - a * x - b * y, d, e, picture.height / 2 - d * x - e * y)
    return np.asarray(
        picture.transform(
            (size, size), Image.Transform.AFFINE, back, Image.Resampling.BILINEAR, fillcolor=preprocessing.mean_colour
        )
    )


def _below(bound: int, generator: torch.Generator) -> int:
    """Draw an integer from 0 to bound - 1."""
    import torch

    return int(torch.randint(bound, (), generator=generator))


def _mirrored_half_the_time(
    make: Callable[[np.ndarray, Preprocessing, torch.Generator], np.ndarray],
    preprocessing: Preprocessing,
    base: np.ndarray,
    generator: torch.Generator,
) -> np.ndarray:
    import torch

    flip = bool(torch.rand((), generator=generator) < 0.5)  # drawn first
    pixels = make(base, preprocessing, generator)
    return pixels[:, ::-1] if flip else pixels


def _cropped_and_transformed(
    preprocessing: Preprocessing, policy: v2.Transform, base: np.ndarray, generator: torch.Generator
) -> np.ndarray:
    return _transformed(_mirrored_half_the_time(_random_crop, preprocessing, base, generator), policy, generator)


Augmentation = Callable[[np.ndarray, "torch.Generator"], np.ndarray]
"""Takes a base picture and a generator, the only source of chance; returns a view, uint8, (S, S, 3). Picklable."""


def _none(preprocessing: Preprocessing) -> Augmentation:
    """The plain view.

    For crop the centre S x S of the base picture, for squash the base picture, for pad the base picture in the middle,
    the rest in the mean colour.
    """
    return partial(_plain, preprocessing)


def _plain(preprocessing: Preprocessing, base: np.ndarray, generator: torch.Generator) -> np.ndarray:
    return plain(base, preprocessing)


def _flip_crop(preprocessing: Preprocessing) -> Augmentation:
    """A random S x S part of the base picture, mirrored half the time.

    For squash and pad it is a part of the plain view, reflected by S // 8 on each side.
    """
    return partial(_mirrored_half_the_time, _random_crop, preprocessing)


def _article(preprocessing: Preprocessing) -> Augmentation:
    """The family of Keras's ImageDataGenerator, mirrored half the time; beyond the picture, the mean colour.

    Rotation up to 20 degrees, shift up to 10 % and, for each axis, zoom up to 10 %, either way, of the base picture
    about its centre (squash and pad: of the plain view).
    """
    return partial(_mirrored_half_the_time, _jitter, preprocessing)


def _trivial(preprocessing: Preprocessing) -> Augmentation:
    """flip_crop, then TrivialAugmentWide (Müller and Hutter 2021)."""
    from torchvision.transforms import InterpolationMode, v2

    fill = list(preprocessing.mean_colour)
    policy = v2.TrivialAugmentWide(interpolation=InterpolationMode.BILINEAR, fill=fill)
    return partial(_cropped_and_transformed, preprocessing, policy)


def _rand(preprocessing: Preprocessing) -> Augmentation:
    """flip_crop, then RandAugment (Cubuk et al. 2020) as torchvision sets it."""
    from torchvision.transforms import InterpolationMode, v2

    fill = list(preprocessing.mean_colour)
    policy = v2.RandAugment(interpolation=InterpolationMode.BILINEAR, fill=fill)
    return partial(_cropped_and_transformed, preprocessing, policy)


AUGMENTATIONS: Registry[Callable[[Preprocessing], Augmentation]] = Registry("augmentation")
"""Builders of augmentations."""
AUGMENTATIONS.register("none", _none)
AUGMENTATIONS.register("flip_crop", _flip_crop)
AUGMENTATIONS.register("article", _article)
AUGMENTATIONS.register("trivial", _trivial)
AUGMENTATIONS.register("rand", _rand)
