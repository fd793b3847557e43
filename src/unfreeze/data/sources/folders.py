"""Folders of class folders, and folders of given splits; nothing is ever written to them."""

import os
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from unfreeze.data.sources.near import near
from unfreeze.data.sources.source import SPLIT_NAMES, Ignored, Item, Source
from unfreeze.errors import UserError

FOLDERS = "a folder of class folders, or a folder with train/, val/ and test/ of class folders"
_LINK = "link to a folder"
_CLUTTER = {"__macosx", "thumbs.db", "desktop.ini"}


@dataclass(frozen=True)
class _Tree:
    """What lies under a root: posix paths relative to it, folders without a trailing slash."""

    files: list[str]
    folders: list[str]
    ignored: list[tuple[str, str]]


def _scan(root: Path, follow: bool) -> _Tree:
    """List a folder tree.

    Args:
        root: the folder.
        follow: also links to folders and out of the root; without it only links to files within the root are followed.
    """
    tree = _Tree([], [], [])
    real_root = os.path.realpath(root)
    waiting: list[tuple[str, tuple[str, ...]]] = [("", (real_root,))]  # and the real folders around, the nearest last
    while waiting:
        prefix, around = waiting.pop()
        try:
            with os.scandir(around[-1]) as entries:
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
            reason = _unwanted(entry, is_folder, around, follow)
            if is_folder:
                if reason:
                    tree.ignored.append((f"{prefix}{entry.name}/", reason))
                else:
                    tree.folders.append(f"{prefix}{entry.name}")
                    waiting.append((f"{prefix}{entry.name}/", (*around, os.path.realpath(entry.path))))
            elif reason:
                tree.ignored.append((f"{prefix}{entry.name}", reason))
            else:
                tree.files.append(f"{prefix}{entry.name}")
    return tree


def _unwanted(entry: os.DirEntry[str], is_folder: bool, around: tuple[str, ...], follow: bool) -> str:
    """Return why a directory entry is ignored, or ""."""
    if entry.name.startswith(".") or entry.name.lower() in _CLUTTER:
        return "hidden"
    target = os.path.realpath(entry.path) if is_folder or entry.is_symlink() else ""
    if is_folder:
        if target in around:
            return "link to a folder around it" if follow else _LINK
        # The parent's path is real; a link, or a junction on Windows, leads elsewhere.
        return "" if follow or target == entry.path else _LINK
    if entry.is_symlink():
        if not os.path.exists(target):
            return "broken link"
        if not follow and not target.startswith(os.path.join(around[0], "")):
            return "link out of the folder"
    return "" if entry.is_file() else "not a regular file"


def read_folder(root: Path, follow: bool = False) -> Source:
    """Read a folder of class folders, or of split folders with class folders in them; ``follow``: see ``_scan``."""
    tree = _scan(root, follow)
    splits = _split_folders(root, tree)
    depth = 1 if splits else 0
    items: list[Item] = []
    ignored = [Ignored(path, reason) for path, reason in tree.ignored]
    for path in tree.files:
        parts = path.split("/")
        if splits and parts[0] not in splits and len(parts) > 1:
            ignored.append(Ignored(path, "not in a split's folder"))
        elif len(parts) < depth + 2:
            ignored.append(Ignored(path, "not in a class folder"))
        else:
            items.append(Item(path, parts[depth], splits.get(parts[0], ""), ""))
    parted = [folder.split("/") for folder in tree.folders]
    classes = {parts[depth] for parts in parted if len(parts) == depth + 1 and (not splits or parts[0] in splits)}
    links = sorted(path.rstrip("/") for path, reason in tree.ignored if reason == _LINK)
    _check_classes(root, classes, parted, [link for link in links if link.count("/") <= depth])
    return Source({"": root}, tuple(items), tuple(ignored), tuple(sorted(classes)))


def _split_folders(root: Path, tree: _Tree) -> dict[str, str]:
    """Map split folders to splits where train and one more are there with folders in them; else all are classes.

    Raises:
        UserError: some are there that hold folders only, as splits do, but not train and one more.
    """
    with_folders = {folder.split("/")[0] for folder in tree.folders if "/" in folder}
    found = {name: SPLIT_NAMES[name.lower()] for name in with_folders if name.lower() in SPLIT_NAMES}
    if "train" in found.values() and len(set(found.values())) > 1:
        return found
    with_files = {path.split("/")[0] for path in tree.files if path.count("/") == 1}
    halves = sorted(set(found) - with_files)
    if halves and len({folder.split("/")[0] for folder in tree.folders}) > 1:
        lacking = "no val/ or test/" if "train" in found.values() else "no train/"
        raise UserError(
            f"{root} has {' and '.join(f'{name}/' for name in halves)} with folders in, but {lacking}",
            FOLDERS,
            f"add {lacking.removeprefix('no ')}, or put the class folders alone into one folder",
        )
    return {}


def _check_classes(root: Path, classes: set[str], folders: list[list[str]], links: list[str]) -> None:
    """Refuse fewer than two classes, and class names that some file system or report could not tell apart."""
    follow = f", or follow links to folders ({', '.join(links)}): --set check.follow_symlinks=true" if links else ""
    if not classes:
        raise UserError(f"{root} holds no class folders", FOLDERS, f"put the images into one folder per class{follow}")
    if len(classes) == 1:
        (only,) = classes
        inner = sum(len(parts) == 2 and parts[0] == only for parts in folders)
        hint = f"; if the {inner} folders in {only} are the classes, give {root / only}" if inner > 1 else ""
        raise UserError(
            f"{root} holds one class only: {only}",
            "at least two class folders",
            f"add a folder for each class{hint}{follow}",
        )
    check_names("class folder", root, classes)


def check_names(what: str, where: Path, names: set[str]) -> None:
    """Refuse names of classes that are not UTF-8, or differ only in case or Unicode form.

    Args:
        what: "class folder" or "label".
        where: the folder or file that they are in.
        names: of all classes.
    """
    seen: dict[str, str] = {}
    for name in sorted(names):
        if any("\udc80" <= character <= "\udcff" for character in name):
            raise UserError(
                f"the {what} {os.fsencode(name)!r} in {where} has a name that is not UTF-8",
                "class names in UTF-8",
                f"rename the {what.split()[-1]}",
            )
        twin = seen.setdefault(unicodedata.normalize("NFC", name).casefold(), name)
        if twin != name:
            raise UserError(
                f"the {what}s {twin!a} and {name!a} in {where} differ only in case or Unicode form",
                "class names that differ in more than that",
                "rename one of them, or merge the two",
            )


def read_test_folder(name: str, root: Path, classes: tuple[str, ...], follow: bool = False) -> Source:
    """Read a further test set: class folders whose names are classes of the main data; ``follow``: see ``_scan``."""
    tree = _scan(root, follow)
    unknown = sorted({folder for folder in tree.folders if "/" not in folder} - set(classes))
    if unknown:
        close = [(label, near(label, classes)) for label in unknown]
        hint = ", ".join(f"{label} to {match[0]}" for label, match in close if match)
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
