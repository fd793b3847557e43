"""Food-101 (Bossard et al. 2014) with its official split, as torchvision lays it down."""

from unfreeze.data.sources.place import cache_folder
from unfreeze.data.sources.source import Item, Source
from unfreeze.errors import UserError


def read_food101() -> Source:
    """Read the official split of Food-101 (Bossard et al. 2014): 750 training and 250 test images in each class."""
    cache = cache_folder()
    root = cache / "food-101"
    lists = {split: root / "meta" / f"{split}.txt" for split in ("train", "test")}
    if not (root / "images").is_dir() or not all(path.is_file() for path in lists.values()):
        raise UserError(
            f"data: food101: it is not in {cache}",
            f"{root} with images/, meta/train.txt and meta/test.txt",
            f'get it once (5 GB): python -c "from torchvision.datasets import Food101; Food101({str(cache)!r}, '
            'download=True)"; or set UNFREEZE_CACHE to the folder that holds food-101',
        )
    items = tuple(
        Item(f"images/{line}.jpg", line.split("/")[0], split, "")
        for split, path in lists.items()
        for line in path.read_text(encoding="utf-8").split()
    )
    return Source({"": root}, items, (), tuple(sorted({item.label for item in items})))
