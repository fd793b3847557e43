"""Find the labelled files of a study: folders of class folders, folders of given splits, Food-101.

Only names are read here; whether a file is an image is for the catalog to find out. Nothing is ever written.
"""

import difflib
import os
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import platformdirs

from unfreeze.errors import UserError

SPLIT_FOLDERS = {
    "train": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
}
_SUPPORTED = "a folder of class folders, a folder with train/, val/ and test/ of class folders, or food101"
_CLUTTER = {"__macosx", "thumbs.db", "desktop.ini"}


@dataclass(frozen=True)
class Item:
    """One labelled file.

    Attributes:
        path: posix path relative to the root of its source.
        label: name of its class.
        given_split: "" (to be drawn), train, validation or test.
        source: "" for the main data, else the name of a further test set.
    """

    path: str
    label: str
    given_split: str
    source: str


class Ignored(NamedTuple):
    """A file or folder (its path then ends with "/") that is not taken as data, and why."""

    path: str
    reason: str
    source: str = ""


@dataclass(frozen=True)
class Source:
    """All files of a study. `roots` maps each source's name ("" for the main data) to its folder."""

    roots: dict[str, Path]
    items: tuple[Item, ...]
    ignored: tuple[Ignored, ...]
    classes: tuple[str, ...]


def open_source(data: str, tests: Mapping[str, str], base: Path) -> Source:
    """List the files of the main data and of further test sets.

    Args:
        data: a folder, or "food101".
        tests: folders of class folders by name; each image in them is a test image.
        base: the folder that relative paths refer to.

    Raises:
        UserError: a folder is missing or unreadable, there are fewer than two classes, two class names differ only in
            case or Unicode form, a further test set has a class that the main data has not.
    """
    main = _food101() if data == "food101" else _folder(_resolve(data, base, "data"))
    roots, items, ignored = dict(main.roots), list(main.items), list(main.ignored)
    for name, value in tests.items():
        further = _test_folder(name, _resolve(value, base, f"tests.{name}"), main.classes)
        roots |= further.roots
        items += further.items
        ignored += further.ignored
    return Source(
        roots,
        tuple(sorted(items, key=lambda item: (item.source, item.path))),
        tuple(sorted(ignored, key=lambda entry: (entry.source, entry.path))),
        main.classes,
    )


def cache_folder() -> Path:
    """Return the folder for what studies share: $UNFREEZE_CACHE, else the platform's cache folder."""
    given = os.environ.get("UNFREEZE_CACHE")
    return Path(given).expanduser() if given else platformdirs.user_cache_path("unfreeze")


def _resolve(value: str, base: Path, key: str) -> Path:
    """Return the real path of an existing folder."""
    if value.startswith("hf:") or value.lower().endswith((".csv", ".parquet")):
        raise UserError(
            f"{key}: {value}",
            _SUPPORTED,
            "put the images into one folder per class; manifests and Hugging Face data sets cannot be read yet",
        )
    path = base / Path(value).expanduser()
    if path.is_dir():
        return path.resolve()
    what = "is a file" if path.exists() else "does not exist"
    near = [] if path.exists() or not path.parent.is_dir() else _near(path.name, os.listdir(path.parent))
    hint = f"; did you mean {path.parent / near[0]}?" if near else ""
    raise UserError(f"{key}: {value}: the folder {path} {what}", _SUPPORTED, f"correct the path{hint}")


def _near(name: str, names: Iterable[str]) -> list[str]:
    return difflib.get_close_matches(name, list(names), n=1)


@dataclass(frozen=True)
class _Tree:
    """What lies under a root: posix paths relative to it, folders without a trailing slash."""

    files: list[str]
    folders: list[str]
    ignored: list[tuple[str, str]]


def _scan(root: Path) -> _Tree:
    """List a folder tree. Links to folders are never followed, links to files only within the root."""
    tree = _Tree([], [], [])
    real_root = os.path.realpath(root)
    waiting = [""]
    while waiting:
        prefix = waiting.pop()
        try:
            with os.scandir(os.path.join(real_root, prefix)) as entries:
                found = list(entries)
        except OSError as error:
            if not prefix:
                raise UserError(
                    f"the folder {root} cannot be read: {error.strerror}",
                    "a readable folder",
                    "correct its permissions",
                ) from error
            tree.ignored.append((prefix, "folder cannot be read"))
            continue
        for entry in found:
            # Of a link that points at itself, DirEntry.is_dir would raise.
            is_folder = os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()
            reason = _unwanted(entry, is_folder, real_root)
            if is_folder:
                if reason:
                    tree.ignored.append((f"{prefix}{entry.name}/", reason))
                else:
                    tree.folders.append(f"{prefix}{entry.name}")
                    waiting.append(f"{prefix}{entry.name}/")
            elif reason:
                tree.ignored.append((f"{prefix}{entry.name}", reason))
            else:
                tree.files.append(f"{prefix}{entry.name}")
    return tree


def _unwanted(entry: os.DirEntry[str], is_folder: bool, root: str) -> str:
    """Return why a directory entry is ignored, or ""."""
    if entry.name.startswith(".") or entry.name.lower() in _CLUTTER:
        return "hidden"
    if is_folder:
        # The parent's path is real; a link, or a junction on Windows, leads elsewhere.
        return "" if os.path.realpath(entry.path) == entry.path else "link to a folder"
    if entry.is_symlink():
        target = os.path.realpath(entry.path)
        if not os.path.exists(target):
            return "broken link"
        if not target.startswith(os.path.join(root, "")):
            return "link out of the folder"
    return "" if entry.is_file() else "not a regular file"


def _folder(root: Path) -> Source:
    """Read a folder of class folders, or of split folders with class folders in them."""
    tree = _scan(root)
    splits = _split_folders(tree)
    depth = 1 if splits else 0
    items: list[Item] = []
    ignored = [Ignored(path, reason) for path, reason in tree.ignored]
    for path in tree.files:
        parts = path.split("/")
        if len(parts) < depth + 2:
            ignored.append(Ignored(path, "not in a class folder"))
        elif splits and parts[0] not in splits:
            ignored.append(Ignored(path, "not in a split's folder"))
        else:
            items.append(Item(path, parts[depth], splits.get(parts[0], ""), ""))
    parted = [folder.split("/") for folder in tree.folders]
    classes = {parts[depth] for parts in parted if len(parts) == depth + 1 and (not splits or parts[0] in splits)}
    _check_classes(root, classes, parted)
    return Source({"": root}, tuple(items), tuple(ignored), tuple(sorted(classes)))


def _split_folders(tree: _Tree) -> dict[str, str]:
    """Map split folders to splits where train and one more are there with folders in them; else all are classes."""
    with_folders = {folder.split("/")[0] for folder in tree.folders if "/" in folder}
    found = {name: SPLIT_FOLDERS[name.lower()] for name in with_folders if name.lower() in SPLIT_FOLDERS}
    return found if "train" in found.values() and len(set(found.values())) > 1 else {}


def _check_classes(root: Path, classes: set[str], folders: list[list[str]]) -> None:
    """Refuse fewer than two classes, and class names that some file system or report could not tell apart."""
    if not classes:
        raise UserError(f"{root} holds no class folders", _SUPPORTED, "put the images into one folder per class")
    if len(classes) == 1:
        (only,) = classes
        inner = sum(len(parts) == 2 and parts[0] == only for parts in folders)
        hint = f"; if the {inner} folders in {only} are the classes, give {root / only}" if inner > 1 else ""
        raise UserError(
            f"{root} holds one class only: {only}", "at least two class folders", f"add a folder for each class{hint}"
        )
    seen: dict[str, str] = {}
    for name in sorted(classes):
        if any("\udc80" <= character <= "\udcff" for character in name):
            raise UserError(
                f"the class folder {os.fsencode(name)!r} in {root} has a name that is not UTF-8",
                "class names in UTF-8",
                "rename the folder",
            )
        twin = seen.setdefault(unicodedata.normalize("NFC", name).casefold(), name)
        if twin != name:
            raise UserError(
                f"the class folders {twin!a} and {name!a} in {root} differ only in case or Unicode form",
                "class names that differ in more than that",
                "rename one of them, or merge the two",
            )


def _test_folder(name: str, root: Path, classes: tuple[str, ...]) -> Source:
    """Read a further test set: class folders whose names are all classes of the main data."""
    tree = _scan(root)
    unknown = sorted({folder for folder in tree.folders if "/" not in folder} - set(classes))
    if unknown:
        near = [(label, _near(label, classes)) for label in unknown]
        hint = ", ".join(f"{label} to {match[0]}" for label, match in near if match)
        raise UserError(
            f"tests.{name}: {root} has class folders that the main data has not: {', '.join(unknown)}",
            f"folders named as the classes of the main data: {', '.join(classes)}",
            "rename the folders" + (f" ({hint})" if hint else "") + " or take them away",
        )
    inside = [path for path in tree.files if "/" in path]
    if not inside:
        raise UserError(
            f"tests.{name}: {root} holds no class folders with files", "a folder of class folders", "correct the path"
        )
    ignored = [Ignored(path, reason, name) for path, reason in tree.ignored]
    ignored += [Ignored(path, "not in a class folder", name) for path in tree.files if "/" not in path]
    items = tuple(Item(path, path.split("/")[0], "", name) for path in inside)
    return Source({name: root}, items, tuple(ignored), classes)


def _food101() -> Source:
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
