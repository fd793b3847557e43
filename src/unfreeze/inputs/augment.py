"""Plain and augmented views of images, the input of a network; each augmentation is one entry.

Every view is made from the image's base picture (see `unfreeze.inputs.preprocess`) and from nothing else. torch is
imported when a view is made, so that the names of augmentations are known without it.
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
"""Version of the views; increase it whenever a view of the same base picture gets other pixels."""

ROTATION, SHIFT, ZOOM = 20.0, 0.1, 0.1
"""Largest changes of `article`: degrees, share of the picture's side, share of the scale."""


@dataclass(frozen=True)
class Preprocessing:
    """How a picture becomes a network's input; all but the first two come with the weights.

    Attributes:
        image_size: side S of the square input in pixels.
        resize: crop (shorter side to round(S / crop_share), then an S x S part), squash (to S x S), or pad (longer
            side to S, the rest in the mean colour).
        mean, std: of the channels R, G, B, for values in [0, 1].
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
        """How the base pictures of the views are made."""
        return BaseTransform(self.image_size, self.resize, self.interpolation, self.crop_share)

    @property
    def mean_colour(self) -> tuple[int, int, int]:
        """The mean as an 8-bit colour, used for padding."""
        red, green, blue = (round(255 * value) for value in self.mean)
        return red, green, blue


class ViewDataset:
    """Views of images by (index, view number), for a DataLoader; picklable and without state.

    A view is a pure function of (seed, key, view number) and the base picture, in any order and any worker. Threads may
    draw views at the same time, except with `trivial` and `rand`, which use PyTorch's global generator.

    Args:
        pictures: base pictures made as `preprocessing.base` says.
        keys: the images' keys, one per picture.
        preprocessing: size, resizing and normalisation.
        augment: a name in `AUGMENTATIONS`; with `none`, seed, key and view number are ignored.
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
        if self._base.size(wide, high) != (wide, high):  # its views would be wrong without an error
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
    """Return the plain view of a base picture, uint8 (S, S, 3); it may share memory with the base picture."""
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
    """Apply a torchvision transform, which uses PyTorch's global generator, with the state of this generator."""
    import torch

    with torch.random.fork_rng(devices=[]):
        # torch.manual_seed would also seed accelerators, whose state fork_rng does not restore here.
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
    """Return positions start to start + size - 1, reflected at the edges 0 and size - 1."""
    return size - 1 - np.abs(size - 1 - np.abs(np.arange(start, start + size)))


def _jitter(base: np.ndarray, preprocessing: Preprocessing, generator: torch.Generator) -> np.ndarray:
    """Rotate, shift and zoom about the centre."""
    import torch

    size = preprocessing.image_size
    picture = Image.fromarray(base if preprocessing.resize == "crop" else plain(base, preprocessing))
    angle, right, down, across, along = (2 * torch.rand(5, dtype=torch.float64, generator=generator) - 1).tolist()
    cosine, sine = math.cos(math.radians(ROTATION * angle)), math.sin(math.radians(ROTATION * angle))
    across, along = 1 + ZOOM * across, 1 + ZOOM * along
    # Pillow needs the inverse map: from a position in the view to one in the picture.
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
"""Maps a base picture and a generator, the only source of randomness, to a view, uint8 (S, S, 3). Picklable."""


def _none(preprocessing: Preprocessing) -> Augmentation:
    """The plain view.

    Crop: the centre S x S of the base picture. Squash: the base picture. Pad: the base picture in the centre, the rest
    in the mean colour.
    """
    return partial(_plain, preprocessing)


def _plain(preprocessing: Preprocessing, base: np.ndarray, generator: torch.Generator) -> np.ndarray:
    return plain(base, preprocessing)


def _flip_crop(preprocessing: Preprocessing) -> Augmentation:
    """A random S x S part of the base picture, mirrored half the time.

    Squash and pad: a part of the plain view, extended by reflection by S // 8 on each side.
    """
    return partial(_mirrored_half_the_time, _random_crop, preprocessing)


def _article(preprocessing: Preprocessing) -> Augmentation:
    """Transforms as in Keras's ImageDataGenerator, mirrored half the time, with the mean colour outside of the picture.

    Rotation by up to 20 degrees, shift by up to 10 % and, for each axis, zoom by up to 10 %, in both directions, of the
    base picture about its centre (squash and pad: of the plain view).
    """
    return partial(_mirrored_half_the_time, _jitter, preprocessing)


def _trivial(preprocessing: Preprocessing) -> Augmentation:
    """flip_crop, then TrivialAugmentWide (Müller and Hutter 2021)."""
    from torchvision.transforms import InterpolationMode, v2

    fill = list(preprocessing.mean_colour)
    policy = v2.TrivialAugmentWide(interpolation=InterpolationMode.BILINEAR, fill=fill)
    return partial(_cropped_and_transformed, preprocessing, policy)


def _rand(preprocessing: Preprocessing) -> Augmentation:
    """flip_crop, then RandAugment (Cubuk et al. 2020) with torchvision's defaults."""
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
