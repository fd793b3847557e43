"""Make docs/check.png: a small folder of real photographs with everything in it that a check finds, and its page.

    python bench/check_picture.py FOLDER [check.png]

The photographs are parts of the two that come with scikit-learn, "china.jpg" (flickr.com/photos/danielbuechele) and
"flower.jpg" (flickr.com/photos/vultilion), both under the Creative Commons licence CC BY 2.0. The picture of the page
needs Playwright and Chromium.
"""

import io
import sys
from pathlib import Path

from PIL import Image, ImageOps
from sklearn.datasets import load_sample_images

from unfreeze.cli.app import main

COLUMNS, ROWS = 5, 3


def write(root: Path) -> None:
    """Write the folder."""
    parts: dict[str, list[Image.Image]] = {}
    for label, pixels in zip(("temple", "flower"), load_sample_images().images, strict=True):
        (root / label).mkdir(parents=True)
        wide, high = pixels.shape[1] // COLUMNS, pixels.shape[0] // ROWS
        boxes = [(wide * (n % COLUMNS), high * (n // COLUMNS)) for n in range(COLUMNS * ROWS)]
        parts[label] = [Image.fromarray(pixels[y : y + high, x : x + wide]) for x, y in boxes]
        for number, part in enumerate(parts[label]):
            part.save(root / label / f"{number:02}.jpg", quality=92)
    temple, flower = parts["temple"], parts["flower"]
    Image.open(root / "temple/06.jpg").save(root / "temple/06 (1).png")  # the same pixels, stored anew
    ImageOps.mirror(temple[7]).save(root / "temple/07-mirrored.jpg", quality=90)
    flower[7].resize((flower[7].width // 2, flower[7].height // 2)).save(root / "flower/07-small.jpg", quality=90)
    Image.open(root / "flower/12.jpg").save(root / "temple/from-flower.png")  # one picture, two labels
    upright = [part.transpose(Image.Transpose.ROTATE_90) for part in (temple[11], flower[1], flower[6])]
    upright[0].convert("L").save(root / "temple/grey.jpg")
    upright[1].save(root / "flower/animation.webp", save_all=True, append_images=upright[2:])
    upright[2].save(root / "flower/screenshot.jpg", format="PNG")
    whole = (root / "temple/08.jpg").read_bytes()
    (root / "temple/cut-short.jpg").write_bytes(whole[: len(whole) // 2])
    (root / "flower/page.jpg").write_text("<html>Not found</html>", encoding="utf-8")


def photograph(page: Path, picture: Path) -> None:
    """Take a picture of the top of a page."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as running:
        browser = running.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        view = browser.new_page(viewport={"width": 1280, "height": 2234}, color_scheme="light")
        view.goto(page.resolve().as_uri())
        shot = Image.open(io.BytesIO(view.screenshot())).convert("RGB")
        browser.close()
    shot.quantize(256).save(picture, optimize=True)  # a third of the bytes


if __name__ == "__main__":
    root = Path(sys.argv[1])
    write(root / "photos")
    if code := main(["check", str(root / "photos"), "--out", str(root / "check.html")]):
        sys.exit(code)
    if sys.argv[2:]:
        photograph(root / "check.html", Path(sys.argv[2]))
