"""Folders as tools, cameras, laboratories and downloads leave them: each function builds one, and says who has it."""

import json
import zipfile
from collections.abc import Iterable
from pathlib import Path
from zlib import crc32

import numpy as np
from PIL import Image

COLOURS = ((200, 70, 60), (60, 190, 70), (70, 80, 200), (190, 180, 60), (170, 70, 180), (60, 180, 190))
FORMS = {".png": "PNG", ".bmp": "BMP"}


def picture(path: Path, colour: int, size: int = 24) -> None:
    """A noisy square in one of six colours; its path seeds the noise, so that no two pictures are alike."""
    random = np.random.default_rng(crc32(str(path).encode()))
    pixels = np.clip(np.array(COLOURS[colour % 6]) + random.normal(0, 45, (size, size, 3)), 0, 255)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path, FORMS.get(path.suffix.lower(), "JPEG"))


def pictures(folder: Path, names: Iterable[str], colour: int) -> None:
    """So many pictures of one colour in a folder."""
    for name in names:
        picture(folder / name, colour)


def mask(path: Path) -> None:
    """A black picture with a white disc, as people draw around an organ or a defect."""
    random = np.random.default_rng(crc32(str(path).encode()))
    rows, columns = np.mgrid[:24, :24]
    at, radius = random.integers(8, 16, 2), random.integers(3, 7)
    path.parent.mkdir(parents=True, exist_ok=True)
    inside = (rows - at[0]) ** 2 + (columns - at[1]) ** 2 < radius**2
    Image.fromarray(np.where(inside, 255, 0).astype(np.uint8)).save(path)


def masks_in_each_class(root: Path) -> None:
    """COVID-19 Radiography Database: within each class, images/ and masks/, and an Excel list beside it."""
    for colour, name in enumerate(("COVID", "Normal", "Viral Pneumonia")):
        for number in range(1, 13):
            picture(root / name / "images" / f"{name}-{number}.png", colour)
            mask(root / name / "masks" / f"{name}-{number}.png")
        (root / f"{name}.metadata.xlsx").write_bytes(b"PK\x03\x04")
    (root / "README.md.txt").write_text("Please cite ...")


def masks_among_the_images(root: Path) -> None:
    """Breast ultrasound (BUSI): 'benign (1).png' beside 'benign (1)_mask.png', some with a second mask."""
    for colour, name in enumerate(("benign", "malignant", "normal")):
        for number in range(1, 13):
            picture(root / name / f"{name} ({number}).png", colour)
            mask(root / name / f"{name} ({number})_mask.png")
    mask(root / "benign" / "benign (4)_mask_1.png")


def labels_in_names_of_splits(root: Path) -> None:
    """Edge Impulse's export: training/ and testing/ with 'LABEL.name.id.jpg', and info.labels."""
    for split, count in (("training", 12), ("testing", 4)):
        for colour, name in enumerate(("lamp", "plant", "unknown")):
            names = [f"{name}.{crc32(f'{split}{n}{name}'.encode()):08x}.ingestion-7d{n:02}.jpg" for n in range(count)]
            pictures(root / split, names, colour)
    (root / "info.labels").write_text(json.dumps({"version": 1, "files": []}))
    (root / "README.txt").write_text("This is a dataset exported from Edge Impulse")


def defects_in_test_only(root: Path) -> None:
    """MVTec AD and its kin: good parts to train on, good and broken ones to test on, ground_truth/ with masks."""
    pictures(root / "train/good", [f"{n:03}.png" for n in range(20)], 0)
    for colour, name in enumerate(("good", "broken_large", "contamination")):
        pictures(root / "test" / name, [f"{n:03}.png" for n in range(6)], colour)
        for number in range(6 if colour else 0):
            mask(root / "ground_truth" / name / f"{number:03}_mask.png")
    (root / "license.txt").write_text("CC BY-NC-SA")


def spanish_splits(root: Path) -> None:
    """A course in Spanish: entrenamiento/, validacion/ and prueba/."""
    for split, count in (("entrenamiento", 12), ("validacion", 4), ("prueba", 4)):
        for colour, name in enumerate(("gato", "perro")):
            pictures(root / split / name, [f"{split[:3]}{n}.jpg" for n in range(count)], colour)


def training_in_parts(root: Path) -> None:
    """A download in parts, each unpacked where it lay: train_part1/, train_part2/, train_part3/ and test/."""
    for part in range(1, 4):
        for colour, name in enumerate(("crack", "sound")):
            pictures(root / f"train_part{part}" / name, [f"{part}{n:03}.jpg" for n in range(5)], colour)
    for colour, name in enumerate(("crack", "sound")):
        pictures(root / "test" / name, [f"9{n:03}.jpg" for n in range(5)], colour)


def archives_not_unpacked(root: Path) -> None:
    """A shared drive's folder: one zip file a class, downloaded and not unpacked."""
    for colour, name in enumerate(("mug", "plate")):
        pictures(root / "x" / name, [f"{n}.jpg" for n in range(4)], colour)
        with zipfile.ZipFile(root / f"{name}-20240301T101112Z-001.zip", "w") as packed:
            for path in sorted((root / "x" / name).iterdir()):
                packed.write(path, f"{name}/{path.name}")
                path.unlink()
        (root / "x" / name).rmdir()
    (root / "x").rmdir()


def snapshots_of_the_server(root: Path) -> None:
    """A share on a file server: the classes, its snapshots and a backup with the classes once more, its waste bin."""
    for colour, name in enumerate(("ok", "scratch")):
        for where in (".", "#snapshot/daily.0", "~snapshot/hourly.2024-03-01_0905", "Backup/2024-03-01/parts"):
            for number in range(10):
                picture(root / name / f"{number}.bmp", colour)
                to = root / where / name / f"{number}.bmp"
                to.parent.mkdir(parents=True, exist_ok=True)
                to.write_bytes((root / name / f"{number}.bmp").read_bytes())
        picture(root / "@Recently-Snapshot" / name / "0.bmp", colour)
        picture(root / "@Recycle" / name / "old.bmp", colour)


def not_yet_sorted(root: Path) -> None:
    """Someone who is still labelling: class folders beside _unsorted/, with more pictures than any class."""
    for colour, name in enumerate(("daisy", "rose", "tulip")):
        pictures(root / name, [f"{name}{n}.jpg" for n in range(10)], colour)
    for number in range(30):
        picture(root / "_unsorted" / f"IMG_{number:04}.jpg", number)


def camera_cards(root: Path) -> None:
    """A memory card copied whole into each class: DCIM/100CANON, 101CANON, MISC, and thumbnails of videos."""
    for colour, name in enumerate(("beech", "oak")):
        for number in range(12):
            picture(root / name / "DCIM" / f"{100 + number // 6}CANON" / f"IMG_{number:04}.JPG", colour)
        (root / name / "DCIM/CANONMSC").mkdir()
        (root / name / "DCIM/CANONMSC/M0100.CTG").write_bytes(b"x")
        (root / name / "MISC").mkdir()
        (root / name / "DCIM/100CANON/MVI_0099.MP4").write_bytes(b"x")
        picture(root / name / "DCIM/100CANON/MVI_0099.THM", colour)


def albums_taken_out(root: Path) -> None:
    """Google Takeout: albums below 'Google Photos', .json beside each picture, the same pictures by year."""
    (root / "Takeout").mkdir(parents=True)
    (root / "Takeout/archive_browser.html").write_text("<html>")
    base = root / "Takeout/Google Photos"
    for colour, name in enumerate(("Bees", "Wasps")):
        for number in range(12):
            file = f"IMG_2023{colour}{number:02}.jpg"
            picture(base / name / file, colour)
            year = base / "Photos from 2023"
            year.mkdir(exist_ok=True)
            (year / file).write_bytes((base / name / file).read_bytes())
            for folder in (base / name, year):
                (folder / f"{file}.supplemental-metadata.json").write_text("{}")
        (base / name / "metadata.json").write_text("{}")


def copies_of_folders(root: Path) -> None:
    """Explorer's and Finder's copies of a folder: 'cat - Copy', 'dog copy', 'dog (1)'."""
    for colour, name in enumerate(("cat", "dog")):
        pictures(root / name, [f"{name}{n}.jpg" for n in range(10)], colour)
    for name, copy in (("cat", "cat - Copy"), ("dog", "dog copy"), ("dog", "dog (1)")):
        (root / copy).mkdir()
        for path in sorted((root / name).iterdir())[:8]:
            (root / copy / path.name).write_bytes(path.read_bytes())


def frames_of_clips(root: Path) -> None:
    """Action videos cut into frames (UCF101): CLASS/v_CLASS_g01_c01/frame0001.jpg."""
    for colour, name in enumerate(("Archery", "Biking")):
        for clip in range(1, 5):
            for frame in range(5):
                picture(root / name / f"v_{name}_g{clip:02}_c01" / f"frame{frame:04}.jpg", colour)


def depth_beside_colour(root: Path) -> None:
    """Depth cameras: in each class an object's colour, depth and mask picture by suffix (RGB-D Object Dataset)."""
    for colour, name in enumerate(("apple", "ball")):
        for number in range(1, 9):
            stem = f"{name}_1_1_{number}"
            picture(root / name / f"{name}_1" / f"{stem}_crop.png", colour)
            mask(root / name / f"{name}_1" / f"{stem}_maskcrop.png")
            at = root / name / f"{name}_1" / f"{stem}_depthcrop.png"
            Image.fromarray(np.random.default_rng(number).integers(400, 900, (24, 24)).astype(np.uint16)).save(at)
            (at.parent / f"{stem}_loc.txt").write_text("1,1")
