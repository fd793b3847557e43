"""Compare pictures of folders by name and content: masks that share names with photographs, and repeated pictures."""

import filecmp
import posixpath
import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from unfreeze.data.sources.tree import Tree

ALIKE = 0.9
"""Share of common names from which two folders contain the same pictures."""

_MASK = re.compile(
    r"(?<![^\W_])(?:masks?|segmentations?|seg|ground[ _-]?truth|gt|annotations?|labels?|trimap|depth|saliency|heatmap|"
    r"edges?|contours?)(?=\d*\b|[\W_]|crop)"
)

_NUMBER = re.compile(r"^[\W_]*\d+$")
_SAMPLE = 5  # pictures that are opened
_MODES = frozenset(("1", "L", "P", "I", "I;16", "F"))
_COLOURS = 16  # most colours of a mask, at 64 x 64 pixels


def masks_beside(root: Path, tree: Tree) -> dict[str, str]:
    """Return the photograph of each mask in the same folder: ``1.png`` for ``1_mask.png``.

    A few are opened to tell masks from photographs, for example of face masks, which have many colours.
    """
    folders = defaultdict(list)
    for path in tree.pictures:
        folders[posixpath.dirname(path)].append(path)
    found: dict[str, str] = {}
    for paths in folders.values():
        named = [path for path in paths if _MASK.search(_stem(path))]
        if named and len(named) < len(paths):
            photographs = {_bare(_stem(path)): path for path in sorted(set(paths) - set(named))}
            for path in named:
                bare = next((name for name in _without_word(_stem(path)) if name in photographs), None)
                if bare is not None:
                    found[path] = photographs[bare]
    return found if all(_has_few_colours(root / path) for path in sampled(list(found))) else {}


def sampled(paths: Sequence[str]) -> Sequence[str]:
    """Return a few paths, evenly spaced."""
    return paths[:: max(1, -(-len(paths) // _SAMPLE))]


def stems_in(tree: Tree, folder: str) -> set[str]:
    """Return the paths of the pictures below a folder, relative to it and without suffix."""
    start = f"{folder}/"
    return {posixpath.splitext(path[len(start) :])[0] for path in tree.pictures if path.startswith(start)}


def holds_again(root: Path, holder: str, held: str, names: Mapping[str, Collection[str]]) -> bool:
    """Tell whether a folder contains nearly all pictures of another, by name, and for a few by content.

    Args:
        root: folder around both.
        holder, held: the folders.
        names: names of the pictures in each folder.
    """
    shared = sorted(set(names[holder]) & set(names[held]))
    return len(shared) >= max(2, ALIKE * len(names[held])) and all(
        _same_bytes(root / holder / name, root / held / name) for name in sampled(shared)
    )


def _same_bytes(one: Path, other: Path) -> bool:
    try:
        return filecmp.cmp(one, other, shallow=False)
    except OSError:
        return False  # the data check reports why it cannot be read


def drawn(root: Path, tree: Tree, folder: str) -> bool:
    """Tell whether the pictures below a folder have few colours, like masks and unlike photographs."""
    paths = [path for path in sorted(tree.pictures) if path.startswith(f"{folder}/")]
    return all(_has_few_colours(root / path) for path in sampled(paths))


def _stem(path: str) -> str:
    return posixpath.splitext(posixpath.basename(path))[0].lower()


def _bare(stem: str) -> str:
    """Return a name with single underscores as separators, and none at its ends."""
    return re.sub(r"[\W_]+", "_", stem).strip("_")


def _without_word(stem: str) -> list[str]:
    """Return a mask's possible names without the word for masks, also without a number after it."""
    names = []
    for found in _MASK.finditer(stem):
        before, after = stem[: found.start()], stem[found.end() :]
        names += [_bare(before + after)] + ([_bare(before)] if _NUMBER.match(after) else [])
    return [name for name in names if name]


def _has_few_colours(path: Path) -> bool:
    try:
        with Image.open(path) as picture:
            if picture.mode in _MODES:
                return True
            picture.draft("RGB", (64, 64))
            return picture.convert("RGB").resize((64, 64), Image.Resampling.NEAREST).getcolors(_COLOURS) is not None
    except (OSError, ValueError, UnidentifiedImageError, Image.DecompressionBombError):
        return False
