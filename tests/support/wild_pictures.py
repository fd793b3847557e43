"""Kinds of picture files that people have on their disks; each function makes a small folder of one kind."""

import gzip
import io
import plistlib
import struct
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

COLOURS = {"cat": (200, 90, 60), "dog": (60, 90, 200), "owl": (70, 180, 90)}


def picture(label: str, number: int, side: int = 32) -> Image.Image:
    """A picture of its own in its class's colour; no two are alike."""
    random = np.random.default_rng([sum(map(ord, label)), number])
    coarse = random.normal(0, 45, (8, 8, 3)) + COLOURS.get(label, (128, 128, 128))
    tile = Image.fromarray(np.clip(coarse, 0, 255).astype(np.uint8))
    return tile.resize((side, side), Image.Resampling.BICUBIC)


def content(image: Image.Image, form: str, **how: object) -> bytes:
    """The bytes of a picture in a format of Pillow's."""
    file = io.BytesIO()
    image.save(file, format=form, **how)
    return file.getvalue()


def put(path: Path, data: bytes) -> None:
    """Write a file, its folders too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def white_icons(root: Path) -> None:
    """App developers: Android's ``ic_..._white_24dp.png``, white everywhere, with the shape in the alpha channel."""
    for label in ("arrow", "disc"):
        for number in range(14):
            random = np.random.default_rng([len(label), number])
            left, top, right, bottom = (int(value) for value in random.integers((2, 2, 18, 18), (12, 12, 30, 30)))
            alpha = Image.new("L", (32, 32))
            draw = ImageDraw.Draw(alpha)
            if label == "disc":
                draw.ellipse((left, top, right, bottom), fill=255)
            else:
                draw.polygon(((left, top), (right, top + 3), (left + 3, bottom)), fill=255)
            icon = Image.new("RGBA", (32, 32), (255, 255, 255, 255))
            icon.putalpha(alpha)
            put(root / label / f"ic_{label}_{number}_white_24dp.png", content(icon, "PNG"))


def z_stacks(root: Path) -> None:
    """Biologists: stacks of a confocal microscope as ImageJ saves them; the first of the pages is out of focus."""
    for label in ("healthy", "treated"):
        for number in range(12):
            sharp = np.asarray(picture("cat" if label == "healthy" else "dog", number).convert("L"), np.float64)
            weights = (0.02, 0.5, 1.0, 0.5, 0.02)
            pages = [Image.fromarray((sharp * weight * 257).astype(np.uint16)) for weight in weights]
            told = {270: f"ImageJ=1.53t\nimages={len(pages)}\nslices={len(pages)}\nloop=false\n"}
            stack = content(pages[0], "TIFF", save_all=True, append_images=pages[1:], tiffinfo=told)
            put(root / label / f"field_{number:02}.tif", stack)


def cloud_stubs(root: Path) -> None:
    """Owners of a Mac with "Optimise storage": the pictures are in iCloud, and a hidden stub stands for each."""
    for label in ("cat", "dog"):
        for number in range(12):
            name = f"IMG_{number:04}.HEIC"
            stub = {"NSURLNameKey": name, "NSURLFileSizeKey": 2_000_000, "NSURLFileResourceTypeKey": "Regular"}
            put(root / label / f".{name}.icloud", plistlib.dumps(stub, fmt=plistlib.FMT_BINARY))


def volumes(root: Path) -> None:
    """Hospitals: volumes of a scanner as NIfTI files, in a folder for each diagnosis."""
    for label in ("AD", "CN"):
        for number in range(10):
            header = bytearray(352)
            struct.pack_into("<i8h", header, 0, 348, *([0] * 8))
            struct.pack_into("<8h", header, 40, 3, 16, 16, 8, 1, 1, 1, 1)
            struct.pack_into("<2h", header, 70, 4, 16)
            header[344:348] = b"n+1\0"
            values = np.random.default_rng([ord(label[0]), number]).integers(0, 900, (8, 16, 16)).astype("<i2")
            put(root / label / f"sub-{number:03}_T1w.nii.gz", gzip.compress(bytes(header) + values.tobytes(), mtime=0))


def placeholder(root: Path) -> None:
    """Users of link lists (ImageNet, Flickr): "this photo is no longer available" came for what has been deleted."""
    gone = Image.new("RGB", (64, 48), (245, 245, 245))
    ImageDraw.Draw(gone).text((4, 18), "no longer\navailable", fill=(90, 90, 90))
    for label in COLOURS:
        for number in range(16):
            image = gone if number % 4 == 3 else picture(label, number)
            put(root / label / f"{1000 + 7 * number}_{number:02}.jpg", content(image, "JPEG", quality=90))


def download_names(root: Path) -> None:
    """Collectors: names as Twitter, WikiArt, picture servers and Chrome on Windows leave them."""
    endings = (".jpg_large", ".jpg!Large", ".jpeg?w=640&h=480", ".jfif", ".jpg-orig", "")
    for label in COLOURS:
        for number in range(18):
            name = f"EkT{number:02}w{endings[number % len(endings)]}"
            put(root / label / name, content(picture(label, number), "JPEG", quality=90))


def subject_suffix(root: Path) -> None:
    """Students with the Yale faces: GIF files in one folder, the expression as suffix: ``subject01.happy``."""
    moods = ("glasses", "happy", "sad", "sleepy", "surprised", "wink", "normal", "centerlight")
    for subject, colour in enumerate(COLOURS, 1):
        for number, mood in enumerate(moods):
            put(root / f"subject{subject:02}.{mood}", content(picture(colour, number).convert("P"), "GIF"))


def few_levels(root: Path) -> None:
    """Beginners with scikit-learn's digits: values of 0 to 16 saved in PNG files of 8 bits, black to the eye."""
    for label in ("0", "1", "7"):
        for number in range(14):
            random = np.random.default_rng([int(label), number])
            values = random.integers(0, 4, (8, 8))
            values[1:7, 2 + number % 3] += 12 if label != "0" else 0
            if label != "1":
                values[1, 1:7] += 8
            put(root / label / f"{number}.png", content(Image.fromarray(values.clip(0, 16).astype(np.uint8)), "PNG"))


def raw_beside_jpeg(root: Path) -> None:
    """Photographers: a camera set to RAW + JPEG leaves two files of each photograph."""
    for label in ("cat", "dog"):
        for number in range(14):
            photo = picture(label, number)
            name = root / label / f"IMG_{4000 + number}"
            put(name.with_suffix(".JPG"), content(photo, "JPEG", quality=90))
            preview = content(photo.resize((16, 16)), "TIFF")
            put(name.with_suffix(".CR2"), b"II*\0\x10\0\0\0CR\x02\0\0\0\0\0" + preview[8:] + bytes([number]))


def traffic_signs(root: Path) -> None:
    """Users of GTSRB as it is unpacked: PPM files in a folder for each sign, and a table of boxes in each."""
    for sign, label in enumerate(COLOURS):
        rows = ["Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId"]
        for number in range(12):
            name = f"{number // 4:05}_{number % 4:05}.ppm"
            put(root / f"{sign:05}" / name, content(picture(label, number), "PPM"))
            rows.append(f"{name};32;32;3;3;29;29;{sign}")
        put(root / f"{sign:05}" / f"GT-{sign:05}.csv", "\n".join(rows).encode())


CASES = {
    make.__name__: make
    for make in (
        white_icons, z_stacks, cloud_stubs, volumes, placeholder, download_names, subject_suffix, few_levels,
        raw_beside_jpeg, traffic_signs,
    )
}  # fmt: skip
