"""What lies beside photographs and is none of its own: masks that share their names, and the same pictures again."""

import filecmp
import posixpath
import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from unfreeze.data.sources.tree import Tree

ALIKE = 0.9
"""The share of names from which on a folder holds the same as another."""

_MASK = re.compile(
    r"(?<![^\W_])(?:masks?|segmentations?|seg|ground[ _-]?truth|gt|annotations?|labels?|trimap|depth|saliency|heatmap|"
    r"edges?|contours?)(?=\d*\b|[\W_]|crop)"
)

_NUMBER = re.compile(r"^[\W_]*\d+$")
_SAMPLE = 5  # pictures that are opened
_MODES = frozenset(("1", "L", "P", "I", "I;16", "F"))
_COLOURS = 16  # of a mask in colour, looked at in 64 x 64 pixels


def masks_beside(root: Path, tree: Tree) -> dict[str, str]:
    """Return masks among the pictures of a folder, and the photograph of each: ``1_mask.png`` beside ``1.png``.

    Some of them are opened: a photograph of a mask has many colours.
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
                bare = next((one for one in _without_word(_stem(path)) if one in photographs), None)
                if bare is not None:
                    found[path] = photographs[bare]
    return found if all(_has_few_colours(root / path) for path in sampled(list(found))) else {}


def sampled(paths: Sequence[str]) -> Sequence[str]:
    """Return a few of many, evenly."""
    return paths[:: max(1, -(-len(paths) // _SAMPLE))]


def stems_in(tree: Tree, folder: str) -> set[str]:
    """Return the names without suffix of the pictures below a folder, with the folders within it."""
    start = f"{folder}/"
    return {posixpath.splitext(path[len(start) :])[0] for path in tree.pictures if path.startswith(start)}


def holds_again(root: Path, holder: str, held: str, names: Mapping[str, Collection[str]]) -> bool:
    """Tell whether a folder has nearly all pictures of another, by their names and some by their bytes.

    Args:
        root: what both folders lie in.
        holder, held: the folders.
        names: of the pictures in each folder.
    """
    shared = sorted(set(names[holder]) & set(names[held]))
    return len(shared) >= max(2, ALIKE * len(names[held])) and all(
        _same_bytes(root / holder / name, root / held / name) for name in sampled(shared)
    )


def _same_bytes(one: Path, other: Path) -> bool:
    try:
        return filecmp.cmp(one, other, shallow=False)
    except OSError:
        return False  # the data check says why it cannot be read


def drawn(root: Path, tree: Tree, folder: str) -> bool:
    """Tell whether the pictures below a folder have few colours, as masks have and photographs have not."""
    paths = [path for path in sorted(tree.pictures) if path.startswith(f"{folder}/")]
    return all(_has_few_colours(root / path) for path in sampled(paths))


def _stem(path: str) -> str:
    return posixpath.splitext(posixpath.basename(path))[0].lower()


def _bare(stem: str) -> str:
    """Return a name without separators at its ends, and those within it made one."""
    return re.sub(r"[\W_]+", "_", stem).strip("_")


def _without_word(stem: str) -> list[str]:
    """Return what is left of a mask's name without the word that says it, and without a number at its end, too."""
    left = []
    for found in _MASK.finditer(stem):
        before, after = stem[: found.start()], stem[found.end() :]
        left += [_bare(before + after)] + ([_bare(before)] if _NUMBER.match(after) else [])
    return [one for one in left if one]


def _has_few_colours(path: Path) -> bool:
    try:
        with Image.open(path) as picture:
            if picture.mode in _MODES:
                return True
            picture.draft("RGB", (64, 64))
            return picture.convert("RGB").resize((64, 64), Image.Resampling.NEAREST).getcolors(_COLOURS) is not None
    except (OSError, ValueError, UnidentifiedImageError, Image.DecompressionBombError):
        return False
