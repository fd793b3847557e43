"""Read Food-101 (Bossard et al. 2014) with its official split, from the cache or an unpacked folder."""

from pathlib import Path

from unfreeze.data.sources.source import Ignored, Item, Source, SourceKind
from unfreeze.data.sources.tree import scan
from unfreeze.errors import UserError
from unfreeze.storage.cache import cache_folder

_LISTS = {"meta/train.txt": "train", "meta/test.txt": "test"}


def read_food101() -> Source:
    """Read the official split of Food-101 in the cache: 750 training and 250 test images in each class."""
    cache = cache_folder()
    root = cache / "food-101"
    if not (root / "images").is_dir() or not all((root / name).is_file() for name in _LISTS):
        raise UserError(
            f"data: food101: Food-101 is not in {cache}",
            f"{root} with images/, meta/train.txt and meta/test.txt",
            f'download it once (5 GB): python -c "from torchvision.datasets import Food101; Food101({str(cache)!r}, '
            'download=True)"; or set UNFREEZE_CACHE to the folder that holds food-101',
        )
    return read_lists(root)


def unpacked_in(folder: Path) -> Path | None:
    """Return the folder with the images and lists of Food-101, this one or food-101 in it; None if there is none."""
    for root in (folder, folder / "food-101"):
        lists = [root / name for name in _LISTS]
        if (root / "images").is_dir() and all(path.is_file() for path in lists):
            with lists[0].open(encoding="utf-8", errors="replace") as text:
                first = text.readline().strip()
            if first.count("/") == 1 and (root / "images" / f"{first}.jpg").is_file():
                return root
    return None


def read_lists(root: Path, follow: bool = False) -> Source:
    """Read images/ with the split in meta/train.txt and meta/test.txt; pictures in neither list are ignored."""
    items = tuple(
        Item(f"images/{line}.jpg", line.split("/")[0], split, "")
        for name, split in _LISTS.items()
        for row in (root / name).read_text(encoding="utf-8", errors="replace").splitlines()
        if (line := row.strip())
    )
    listed = {item.path for item in items}
    tree = scan(root / "images", follow)
    ignored = [Ignored(f"images/{path}", reason) for path, reason in tree.ignored]
    ignored += [Ignored(f"images/{path}", "in no list") for path in tree.pictures if f"images/{path}" not in listed]
    classes = tuple(sorted({item.label for item in items}))
    return Source({"": root}, items, tuple(ignored), classes, "Food-101", _LISTS)


FOOD101 = SourceKind("food101", lambda request: read_food101(), word="food101", classes=101)
