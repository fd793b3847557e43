"""Pictures that look like photographs to a perceptual hash, and copies of them as they turn up in the wild."""

import io
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageOps
from sklearn.datasets import load_sample_images

from tests.support.pictures import save


def photo(number: int, width: int = 128, height: int = 96) -> Image.Image:
    """A picture of its own for each number: large soft shapes, small ones, and a camera's noise."""
    generator = np.random.default_rng(number)
    layers = np.zeros((height, width, 3))
    for cells, weight in ((4, 60), (9, 40), (24, 20)):
        coarse = generator.normal(size=(cells, cells, 3)).clip(-2, 2)
        for channel in range(3):
            layer = Image.fromarray(coarse[..., channel].astype(np.float32))
            layers[..., channel] += weight * np.asarray(layer.resize((width, height), Image.Resampling.BICUBIC))
    layers += 128 + generator.normal(scale=3, size=layers.shape)
    return Image.fromarray(layers.clip(0, 255).astype(np.uint8))


def shot(camera: int, number: int, defect: bool) -> Image.Image:
    """What a fixed camera takes: moved by a pixel or two, with noise, and perhaps a scratch."""
    generator = np.random.default_rng([camera, number, defect])
    left, top = generator.integers(0, 3, 2).tolist()
    picture = photo(1000 + camera, 131, 99).crop((left, top, left + 128, top + 96))
    if defect:
        x, y = generator.integers(20, 70, 2).tolist()
        ImageDraw.Draw(picture).line([(x, y), (x + 9, y + 5)], fill=(30, 30, 30), width=1)
    return Image.fromarray((np.asarray(picture) + generator.normal(0, 3, (96, 128, 3))).clip(0, 255).astype(np.uint8))


def shots(root: Path, counts: Mapping[tuple[str, int], int]) -> Path:
    """Write so many pictures of each label and camera."""
    for (label, camera), count in counts.items():
        (root / label).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            shot(camera, number, label == "defect").save(root / label / f"{camera}_{number:03}.png")
    return root


def leaves(number: int) -> Image.Image:
    """A picture of fine detail alone: of two copies, the same single pixels show different things."""
    generator = np.random.default_rng(number)
    picture = Image.new("RGB", (1000, 800), (20, 40, 15))
    draw = ImageDraw.Draw(picture)
    light = generator.uniform(0.3, 1, (4, 5))
    for x, y, size, shade in zip(*generator.uniform(0, 1, (4, 3000)), strict=True):
        green = (60 + 160 * shade) * light[int(4 * y), int(5 * x)]
        left, top, wide = 1000 * x, 800 * y, 4 + 12 * size
        draw.ellipse((left, top, left + wide, top + wide / 2), fill=(int(green / 2), int(green), int(green / 4)))
    return picture


def parts_of_photographs() -> list[Image.Image]:
    """24 parts of 284 x 213 pixels, which overlap, of the two photographs that scikit-learn brings."""
    photographs = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    corners = [(left, top) for top in range(0, 214, 106) for left in range(0, 320, 80)]
    return [one.crop((left, top, left + 284, top + 213)) for one in photographs for left, top in corners]


def jpeg(picture: Image.Image, quality: int) -> Image.Image:
    written = io.BytesIO()
    picture.save(written, "JPEG", quality=quality)
    return Image.open(io.BytesIO(written.getvalue())).convert("RGB")


def cropped(
    picture: Image.Image, left: float = 0.03, top: float = 0.03, right: float = 0.97, bottom: float = 0.97
) -> Image.Image:
    """Return the part between these shares of its sides."""
    width, height = picture.size
    return picture.crop((round(left * width), round(top * height), round(right * width), round(bottom * height)))


COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "half the size": lambda picture: picture.resize((picture.width // 2, picture.height // 2)),
    "JPEG at quality 50": lambda picture: jpeg(picture, 50),
    "5 % brighter": lambda picture: ImageEnhance.Brightness(picture).enhance(1.05),
    "5 % darker": lambda picture: ImageEnhance.Brightness(picture).enhance(0.95),
    "3 % cropped": cropped,
    "mirrored": ImageOps.mirror,
}
TURNED: dict[str, Callable[[Image.Image], Image.Image]] = {
    way.name.lower(): lambda picture, way=way: picture.transpose(way)
    for way in Image.Transpose
    if way is not Image.Transpose.FLIP_LEFT_RIGHT
}
"""The other orientations, in the order of ``Image.Transpose``: upside down, by 90, 180 and 270 degrees, and so on."""


def cut_jpegs(root: Path, count: int = 1) -> list[Path]:
    """Class folders of JPEGs, with some cut in half; and a cut PNG, of which nothing can be shown."""
    for number in range(12):
        path = root / "ab"[number % 2] / f"{number:02}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        photo(number, 96, 64).save(path, quality=90)
    cut = [root / "a" / f"{2 * number:02}.jpg" for number in range(count)]
    for path in cut:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    save(root / "b/cut.png", 99)
    (root / "b/cut.png").write_bytes((root / "b/cut.png").read_bytes()[:90])
    return cut
