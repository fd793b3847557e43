"""Read folders as data: class folders, split folders, and folders whose paths contain the labels."""

import posixpath
import shlex
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path, PurePosixPath

from unfreeze.data.fixes import as_setting, check_command, move_command, slices_as_png
from unfreeze.data.sources.layout import FOLDERS, Layout, understand
from unfreeze.data.sources.left_out import MASKS, OUTSIDE_SPLITS, UNLABELLED, depth_of, name_of
from unfreeze.data.sources.path_labels import check_names, hint, label_finder, level
from unfreeze.data.sources.source import Ignored, Item, Source, split_of
from unfreeze.data.sources.tree import (
    CLOUD,
    HIDDEN,
    LINK_OUT,
    LINK_TO_FOLDER,
    POINTER,
    VOLUME,
    Tree,
    around,
    pictures_in,
    scan,
)
from unfreeze.data.tables.read import IN_FOLDERS
from unfreeze.errors import UserError
from unfreeze.text import near, plural

NO_CLASS = "not in a class folder"
HIDDEN_PICTURES = "hidden folder with pictures"
FOLLOW = as_setting("check.follow_symlinks", True)
_ARCHIVES = {".zip": "zipfile", ".tar": "tarfile", ".tar.gz": "tarfile", ".tgz": "tarfile", ".tar.xz": "tarfile"}
_SHOWN = 3


def read_folder(root: Path, follow: bool = False, labels_from: str | None = None) -> Source:
    """Read a folder of class folders, or of split folders with class folders in them.

    Args:
        root: the folder.
        follow: see ``scan``.
        labels_from: see ``label_finder``; the names of folders are then not used as classes.

    Raises:
        UserError: there are no pictures, fewer than two classes, class names that are too similar, a class with only
            links that are not followed, more than one way to read the folder, or a path without a label.
    """
    tree = scan(root, follow)
    _refuse_no_pictures(root, tree)
    if labels_from is not None:
        return _by_paths(root, tree, labels_from)
    layout = understand(root, tree)
    items: list[Item] = []
    ignored = []
    for path in tree.pictures:
        label, split, reason = _place(path, layout)
        if reason:
            ignored.append(Ignored(path, reason))
        else:
            items.append(Item(path, label, split, ""))
    hidden = _hidden_classes(root, tree, layout)
    ignored += [Ignored(path, HIDDEN_PICTURES if path in hidden else reason) for path, reason in tree.ignored]
    classes = _classes(tree, layout)
    _check_classes(root, classes, tree, layout, list(hidden.values()))
    _refuse_links_alone(root, tree, items, classes)
    kind = "split folders" if layout.names else "class folders"
    guessed = (*layout.guessed, *hidden.values(), *_report_cloud_files(root, tree), *_report_links(tree))
    return Source({"": root}, tuple(items), tuple(ignored), tuple(sorted(classes)), kind, layout.names, guessed)


def _place(path: str, layout: Layout) -> tuple[str, str, str]:
    """Return a picture's label and split, and the reason if it has none."""
    reason = next((layout.left_out[folder] for folder in around(path) if folder in layout.left_out), "")
    if reason or path in layout.masks:
        return "", "", reason or MASKS
    part = next((part for part in layout.parts if not part or path.startswith(f"{part}/")), None)
    if part is None:
        return "", "", NO_CLASS
    inner = path[len(part) + bool(part) :].split("/")
    if len(inner) < 2:
        return "", "", NO_CLASS
    if not layout.inner:
        return inner[0], layout.parts[part], ""
    split = layout.inner.get(inner[1], "") if len(inner) > 2 else ""
    return inner[0], split, "" if split else OUTSIDE_SPLITS


def _classes(tree: Tree, layout: Layout) -> set[str]:
    """Return the names of class folders, with empty ones: a run reports that they lack images."""
    folders = [folder for part in layout.parts for folder in tree.within(part)]
    return {name_of(folder) for folder in folders if folder not in layout.left_out and folder not in layout.no_classes}


def _hidden_classes(root: Path, tree: Tree, layout: Layout) -> dict[str, str]:
    """Return a sentence on each hidden folder with pictures next to class folders, by its path."""
    found = {}
    for path, reason in sorted(tree.ignored):
        folder = path.rstrip("/")
        if reason == HIDDEN and folder != path and posixpath.dirname(folder) in layout.parts:
            count = pictures_in(root / folder)
            if count:
                found[path] = (
                    f"{path} is hidden, so its {count:,} picture{'s are' if count > 1 else ' is'} not used; rename it "
                    f"to make it a class: {_rename(root, folder)}"
                )
    return found


def _rename(root: Path, hidden: str) -> str:
    """Return the command that makes a hidden folder visible."""
    old = root / hidden
    return move_command(old, old.with_name("dot-" + old.name.lstrip(".")))


def _check_classes(root: Path, classes: set[str], tree: Tree, layout: Layout, hidden: Sequence[str]) -> None:
    """Refuse fewer than two classes, and class names that some file system or report could not tell apart."""
    depth = max(map(depth_of, layout.parts))
    links = sorted(link for link, _ in _links(tree, LINK_TO_FOLDER) if link.count("/") <= depth)
    further = [f"follow links to folders ({', '.join(links)}): {FOLLOW}"] if links else []
    further += hidden
    if len(classes) < 2:
        suggestion = hint([path for path in tree.pictures if _place(path, layout)[2] in ("", NO_CLASS)])
        further += [suggestion] if suggestion else []
        tables = _tables(tree)
        further += [f"if a table lists the pictures: {check_command(root / tables[0])}"] if tables else []
    more = "".join(f"; or {fix}" for fix in further)
    if not classes:
        raise UserError(f"{root} holds no class folders", FOLDERS, f"put the images into one folder per class{more}")
    if len(classes) == 1:
        (only,) = classes
        raise UserError(
            f"{root} holds one class only: {only}", "at least two class folders", f"add a folder for each class{more}"
        )
    check_names("class folder", root, classes)


# --- no pictures, or only links ---


def _refuse_no_pictures(root: Path, tree: Tree) -> None:
    """Refuse a folder without pictures, with what it contains instead and the fix for that."""
    if tree.pictures:
        return
    counts = Counter(reason for _, reason in tree.ignored)
    linked = _links(tree, LINK_OUT) + _links(tree, LINK_TO_FOLDER)
    if linked:
        raise _only_links(root, f"{root} holds no pictures but links", linked)
    listed = ", ".join(f"{count:,} {reason}" for reason, count in counts.most_common(_SHOWN))
    fix = "correct the path, or put pictures (JPEG, PNG, WebP, GIF, BMP, TIFF) into one folder per class"
    if tables := _tables(tree):
        fix = f"give the table, if it lists or contains pictures: {check_command(root / tables[0])}"
    if counts[POINTER]:
        fix = f"download the pictures: git -C {shlex.quote(str(root))} lfs pull"
    if counts[VOLUME]:
        fix = f"save the relevant slices as PNG files in one folder per class{_slices(root, tree)}"
    if counts[CLOUD]:
        fix = f"download the pictures: {_download(root)}"
    packed = [path for path, _ in tree.ignored if path.lower().endswith(tuple(_ARCHIVES))]
    if packed:
        first, into = root / packed[0], root / posixpath.dirname(packed[0])
        module = next(module for suffix, module in _ARCHIVES.items() if packed[0].lower().endswith(suffix))
        more = f", and likewise the other {len(packed) - 1:,}" if len(packed) > 1 else ""
        fix = f"unpack them: python -m {module} -e {shlex.quote(str(first))} {shlex.quote(str(into))}{more}"
    hidden = [path for path, reason in tree.ignored if reason == HIDDEN and pictures_in(root / path)]
    if hidden:
        fix = f"rename hidden folders: {_rename(root, hidden[0])}"
    if not tree.folders and not tree.ignored:
        raise UserError(f"{root} holds no class folders", FOLDERS, fix)
    raise UserError(f"{root} holds no pictures" + (f": {listed}" if listed else ""), FOLDERS, fix)


def _tables(tree: Tree) -> list[str]:
    return sorted(path for path, _ in tree.ignored if path.lower().endswith(IN_FOLDERS))


def _download(root: Path) -> str:
    """Return the command that downloads files from iCloud, on a Mac."""
    return f"find {shlex.quote(str(root))} -name '*.icloud' -exec brctl download {{}} \\;"


def _slices(root: Path, tree: Tree) -> str:
    names = [path.lower() for path, reason in tree.ignored if reason == VOLUME]
    nifti = {suffix for suffix in (".nii", ".nii.gz") if any(name.endswith(suffix) for name in names)}
    return f"; the middle slices of NIfTI files: {slices_as_png(root, nifti)}" if nifti else ""


def _report_cloud_files(root: Path, tree: Tree) -> list[str]:
    count = sum(reason == CLOUD for _, reason in tree.ignored)
    if not count:
        return []
    files = plural(count, "file is", "files are")
    return [f"{files} only in iCloud and not used; to download them: {_download(root)}"]


def _links(tree: Tree, reason: str) -> list[tuple[str, str]]:
    """Return the links that are not followed for a reason, with their targets, sorted."""
    ignored = {path.rstrip("/") for path, why in tree.ignored if why == reason}
    return sorted((path, target) for path, target in tree.links.items() if path in ignored)


def _only_links(root: Path, given: str, links: Sequence[tuple[str, str]]) -> UserError:
    first, target = links[0]
    places = {posixpath.dirname(target) for _, target in links}
    store = posixpath.commonpath(places)
    shared = "/".join(PurePosixPath(store).parts[1:])
    where = f"all lead into {store}" if shared else f"they lead to {len(places):,} folders"
    return UserError(
        f"{given} (first {first} -> {target})",
        "pictures in the folder, or the setting to follow links out of it",
        f"{where}: follow them with {FOLLOW}, or copy the pictures into the folder",
    )


def _refuse_links_alone(root: Path, tree: Tree, items: Sequence[Item], classes: Collection[str]) -> None:
    """Refuse classes whose folders contain links that are not followed, but no pictures."""
    links = _links(tree, LINK_OUT)
    filled = {item.label for item in items}
    lacking = {
        label: [link for link in links if label in link[0].split("/")[:-1]] for label in sorted(set(classes) - filled)
    }
    lacking = {label: found for label, found in lacking.items() if found}
    if lacking:
        listed = ", ".join(f"{label} ({len(found)})" for label, found in list(lacking.items())[:_SHOWN])
        more = f" and {len(lacking) - _SHOWN} more" if len(lacking) > _SHOWN else ""
        raise _only_links(
            root,
            f"{root}: all pictures of {listed}{more} are links out of the folder",
            [link for found in lacking.values() for link in found],
        )


def _report_links(tree: Tree) -> list[str]:
    links = _links(tree, LINK_OUT) + _links(tree, LINK_TO_FOLDER)
    if not links:
        return []
    are = plural(len(links), "link is", "links are")
    return [f"{are} not followed (first {links[0][0]} -> {links[0][1]}); to follow: {FOLLOW}"]


# --- labels in paths ---


def _by_paths(root: Path, tree: Tree, labels_from: str) -> Source:
    find = label_finder(labels_from)
    labels = {path: find(path) for path in tree.pictures}
    named = {path for path, label in labels.items() if label}
    with_labels = {posixpath.dirname(path) for path in named}
    missed = sorted(path for path in labels if path not in named and posixpath.dirname(path) in with_labels)
    if missed or not named:
        first = missed[0] if missed else min(labels)
        count = len(missed) if named else len(labels)
        raise UserError(
            f"labels_from: {labels_from}: no label is found in {count:,} of {len(labels):,} paths, first {first}",
            "the word name, or an expression that matches all paths in a folder or none",
            f"widen the expression, or remove labels_from if class folders give the labels{_suggested(tree)}",
        )
    classes = set(labels.values()) - {""}
    if len(classes) < 2:
        raise UserError(
            f"labels_from: {labels_from} finds one class only: {', '.join(classes)}",
            "at least two classes",
            f"put the part that differs into the group of the expression{_suggested(tree)}",
        )
    check_names("label", root, classes)
    depth, names = _split_level(named)
    items = [
        Item(path, labels[path], names.get(path.split("/")[depth], "") if names else "", "") for path in sorted(named)
    ]
    unlabelled = [path for path in tree.pictures if path not in named]
    ignored = [Ignored(path, reason) for path, reason in tree.ignored]
    ignored += [Ignored(path, UNLABELLED) for path in unlabelled]
    guessed = _report_links(tree)
    if unlabelled:
        folders = sorted({posixpath.dirname(path) for path in unlabelled})
        shown = ", ".join(f"{folder}/" for folder in folders[:_SHOWN])
        more = f" and {len(folders) - _SHOWN} more" if len(folders) > _SHOWN else ""
        guessed.insert(
            0,
            f"no label is found in the {len(unlabelled):,} paths in {shown}{more}, so they count as unlabelled; "
            "to use them, widen the expression in labels_from",
        )
    kind = "labels in paths"
    return Source({"": root}, tuple(items), tuple(ignored), tuple(sorted(classes)), kind, names, tuple(guessed))


def _suggested(tree: Tree) -> str:
    suggestion = hint(tree.pictures)
    return f"; {suggestion}" if suggestion else "; for example --set labels_from=name"


def _split_level(paths: Collection[str]) -> tuple[int, dict[str, str]]:
    """Return the depth at which all folders are splits, among them train, and the split of each by its name."""
    folders = [path.split("/")[:-1] for path in paths]
    for depth in range(min(map(len, folders))):
        names = {name: split_of(name) for name in {parts[depth] for parts in folders}}
        if all(names.values()) and "train" in names.values() and len(set(names.values())) > 1:
            return depth, dict(sorted(names.items()))
    return 0, {}


# --- further test sets ---


def read_test_folder(
    name: str, root: Path, classes: tuple[str, ...], follow: bool = False, labels_from: str | None = None
) -> Source:
    """Read a further test set, whose classes are classes of the main data; see ``read_folder`` for the arguments.

    Raises:
        UserError: there are no pictures in class folders, or there is a class that the main data lacks.
    """
    tree = scan(root, follow)
    find = label_finder(level(0) if labels_from is None else labels_from)
    labels = {path: find(path) for path in tree.pictures}
    unknown = sorted(set(labels.values()) - {"", *classes})
    if unknown:
        close = [(label, near(label, classes)) for label in unknown]
        renamed = ", ".join(f"{label} to {match[0]}" for label, match in close if match)
        raise UserError(
            f"tests.{name}: {root} has class folders that the main data lacks: {', '.join(unknown)}",
            f"folders named like the classes of the main data: {', '.join(classes)}",
            "rename the folders" + (f" ({renamed})" if renamed else "") + " or remove them",
        )
    if not any(labels.values()):
        raise UserError(
            f"tests.{name}: {root} holds no class folders with files", "a folder of class folders", "correct the path"
        )
    ignored = [Ignored(path, reason, name) for path, reason in tree.ignored]
    ignored += [Ignored(path, NO_CLASS, name) for path, label in labels.items() if not label]
    items = tuple(Item(path, label, "", name) for path, label in labels.items() if label)
    return Source({name: root}, items, tuple(ignored), classes)
