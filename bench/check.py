"""The data check: what it costs, what it finds of planted copies, and how it grows (docs/data.md).

    python bench/check.py [--data FOLDER] [--only time,large,planted,pairing,many]

`time`: a first and a second check against two processes that do nothing but decode the same files, five times in
turn. `large`: the same for 600 of them, enlarged to 512 x 683, 768 x 1024 and 1200 x 1600 pixels. `planted`: 100 copies
of each kind among as many pictures, as they are and shrunk. `pairing`: the search for near duplicates alone, from
25,000 to 100,000 made-up pictures. `many`: a manifest of 100,000 small files, with its peak of memory. Prints one line
for each.
"""

import argparse
import io
import multiprocessing
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from unfreeze.data.catalog import build_catalog
from unfreeze.data.duplicates import find_near_duplicates, propose_pairs
from unfreeze.data.image_hash import image_stats
from unfreeze.data.sources import open_source

PLANTED, MANY = 100, 100_000
SHRUNK = (0, 96, 64, 32)  # pixels of the longer side, 0 as they are
ENLARGED, LARGE = 600, ((512, 683), (768, 1024), (1200, 1600))


def decode(path: str) -> int:
    with Image.open(path) as picture:
        return picture.convert("RGB").width


def bare(paths: list[str]) -> float:
    started = time.perf_counter()
    with multiprocessing.Pool(2) as pool:
        for _ in pool.imap_unordered(decode, paths, chunksize=16):
            pass
    return time.perf_counter() - started


def checked(data: Path, cache: Path) -> float:
    started = time.perf_counter()
    build_catalog(open_source(str(data), {}, Path.cwd()), scan_cache=cache)
    return time.perf_counter() - started


def measure_time(data: Path) -> None:
    paths = [str(path) for path in sorted(data.rglob("*")) if path.is_file()]
    bare(paths)  # the files come into memory
    rows = []
    for _ in range(5):
        with tempfile.TemporaryDirectory() as cache:
            rows.append((bare(paths), checked(data, Path(cache)), checked(data, Path(cache))))
    loop, first, second = (statistics.median(column) for column in zip(*rows, strict=True))
    ratios = [one[1] / one[0] for one in rows]
    print(
        f"time, {len(paths)} files: bare loop {loop:.2f} s, first check {first:.2f} s "
        f"({statistics.median(ratios):.2f} times, {min(ratios):.2f} to {max(ratios):.2f}), second {second:.2f} s "
        f"({second / first:.2f} of the first)"
    )


def measure_large(data: Path) -> None:
    paths = sorted(path for path in data.rglob("*") if path.is_file())
    for size in LARGE:
        with tempfile.TemporaryDirectory() as folder:
            for number, path in enumerate(random.Random(0).sample(paths, ENLARGED)):
                (there := Path(folder) / path.parent.name).mkdir(exist_ok=True)
                with Image.open(path) as picture:
                    picture.convert("RGB").resize(size).save(there / f"{number}.jpg", quality=90)
            print(f"{size[0]} x {size[1]} pixels: ", end="")
            measure_time(Path(folder))


def jpeg(picture: Image.Image, quality: int) -> Image.Image:
    written = io.BytesIO()
    picture.save(written, "JPEG", quality=quality)
    return Image.open(io.BytesIO(written.getvalue())).convert("RGB")


def cropped(picture: Image.Image, left: float, right: float) -> Image.Image:
    width, height = picture.size
    return picture.crop((round(left * width), round(left * height), round(right * width), round(right * height)))


KINDS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "same pixels": lambda picture: picture.copy(),
    "half the size": lambda picture: picture.resize((picture.width // 2, picture.height // 2)),
    "JPEG quality 50": lambda picture: jpeg(picture, 50),
    "5 % brighter": lambda picture: ImageEnhance.Brightness(picture).enhance(1.05),
    "5 % darker": lambda picture: ImageEnhance.Brightness(picture).enhance(0.95),
    "1 % cropped all round": lambda picture: cropped(picture, 0.01, 0.99),
    "2 % cropped all round": lambda picture: cropped(picture, 0.02, 0.98),
    "3 % cropped all round": lambda picture: cropped(picture, 0.03, 0.97),
    "3 % cropped, one corner": lambda picture: cropped(picture, 0.0, 0.97),
    "3 % cropped, one side": lambda picture: picture.crop((0, 0, round(0.97 * picture.width), picture.height)),
    "3 % cropped, two opposite sides": lambda picture: picture.crop(
        (0, round(0.03 * picture.height), picture.width, round(0.97 * picture.height))
    ),
    "mirrored": ImageOps.mirror,
    "upside down": ImageOps.flip,
    "turned by 90 degrees": lambda picture: picture.transpose(Image.Transpose.ROTATE_90),
    "turned by 180 degrees": lambda picture: picture.transpose(Image.Transpose.ROTATE_180),
    "turned by 270 degrees": lambda picture: picture.transpose(Image.Transpose.ROTATE_270),
    "turned by 90 degrees and mirrored": lambda picture: picture.transpose(Image.Transpose.TRANSPOSE),
    "turned by 270 degrees and mirrored": lambda picture: picture.transpose(Image.Transpose.TRANSVERSE),
    "turned by 90 degrees, JPEG quality 50": lambda picture: jpeg(picture.transpose(Image.Transpose.ROTATE_90), 50),
    "turned by 90 degrees, 3 % cropped all round": lambda picture: cropped(
        picture.transpose(Image.Transpose.ROTATE_90), 0.03, 0.97
    ),
}


def arrays(seen: list) -> tuple[np.ndarray, np.ndarray]:
    hashes = np.array([one.hashes for one in seen], np.uint64)
    return hashes, np.frombuffer(b"".join(one.thumbnail for one in seen), np.uint8).reshape(-1, 16, 16)


def pairs_of(pictures: list[Image.Image]) -> set[tuple[int, int]]:
    seen = [image_stats(picture) for picture in pictures]
    same = {
        (one, other) for other in range(len(seen)) for one in range(other) if seen[one].pixels == seen[other].pixels
    }
    return same | set(find_near_duplicates(*arrays(seen), pictures.__getitem__))


def measure_planted(data: Path) -> None:
    paths = sorted(path for path in data.rglob("*") if path.is_file())
    photographs = [Image.open(path).convert("RGB") for path in random.Random(0).sample(paths, PLANTED)]
    for side in SHRUNK:
        originals = [ImageOps.contain(picture, (side, side)) if side else picture for picture in photographs]
        alone = pairs_of(originals)
        for kind, change in KINDS.items():
            found = pairs_of(originals + [change(picture) for picture in originals])
            planted = {(number, PLANTED + number) for number in range(PLANTED)}
            false = {pair for pair in found - planted if (pair[0] % PLANTED, pair[1] % PLANTED) not in alone}
            size = f"{side} pixels, " if side else ""
            print(
                f"planted, {size}{kind}: {len(found & planted)} of {PLANTED} found, {len(false)} other pairs",
                flush=True,
            )


def measure_pairing() -> None:
    for count in (25_000, 50_000, 100_000):
        generator = np.random.default_rng(0)
        hashes = generator.integers(0, 2**64, (count, 10), np.uint64)
        copies = hashes[: count // 100].copy()
        copies ^= np.uint64(1) << generator.integers(0, 64, copies.shape).astype(np.uint64)
        hashes[-len(copies) :] = copies
        started = time.perf_counter()
        found = len(propose_pairs(hashes))
        print(
            f"pairing, {count:,} pictures: {time.perf_counter() - started:.1f} s, {found:,} pairs proposed", flush=True
        )


def write_many(folder: Path, count: int) -> Path:
    """Write small JPEGs, all different, and a manifest of them."""
    generator = np.random.default_rng(0)
    lines = ["path,label"]
    for number in range(count):
        if number % 1000 == 0:
            (folder / str(number // 1000)).mkdir()
        coarse = generator.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        path = f"{number // 1000}/{number}.jpg"
        Image.fromarray(coarse).resize((32, 32), Image.Resampling.BICUBIC).save(folder / path)
        lines.append(f"{path},{'ab'[number % 2]}")
    (folder / "images.csv").write_text("\n".join(lines))
    return folder / "images.csv"


def measure_many() -> None:
    with tempfile.TemporaryDirectory() as folder:
        manifest = write_many(Path(folder), MANY)
        command = [sys.executable, __file__, "--one", str(manifest)]
        env = os.environ | {"UNFREEZE_CACHE": folder + "/cache"}
        print(subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout.strip())


def check_one(manifest: Path) -> None:
    started = time.perf_counter()
    catalog = build_catalog(open_source(str(manifest), {}, Path.cwd()), scan_cache=Path(os.environ["UNFREEZE_CACHE"]))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    seconds = time.perf_counter() - started
    copies = int((catalog.images["cluster"] != "").sum())
    print(f"many, {len(catalog.images):,} files: {seconds:.0f} s, {peak / 1e6:.0f} MB at most, {copies} with copies")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/trashnet"))
    parser.add_argument("--only", default="time,large,planted,pairing,many")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        check_one(asked.one)
        return
    only = asked.only.split(",")
    if "time" in only:
        measure_time(asked.data)
    if "large" in only:
        measure_large(asked.data)
    if "planted" in only:
        measure_planted(asked.data)
    if "pairing" in only:
        measure_pairing()
    if "many" in only:
        measure_many()


if __name__ == "__main__":
    main()
