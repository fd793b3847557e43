"""Find the class folders of a folder tree and the folders that are splits; refuse a tree with several readings."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from unfreeze.data.fixes import as_setting, move_command
from unfreeze.data.sources.left_out import (
    OUTSIDE_SPLITS,
    SHOWN,
    TreeReading,
    depth_of,
    is_familiar,
    is_flat,
    leave_out_beside,
    leave_out_masks_inside,
    listed,
    masks_among,
    name_of,
)
from unfreeze.data.sources.path_labels import hint, level, set_labels_from
from unfreeze.data.sources.source import split_of
from unfreeze.data.sources.tree import Tree, join
from unfreeze.errors import UserError

FOLDERS = "a folder of class folders, or a folder with train/, val/ and test/ of class folders"


@dataclass(frozen=True)
class Layout:
    """How a folder tree is read; folders are posix paths relative to its root, which is "".

    Attributes:
        parts: folders that contain class folders, with the split of each, or "".
        inner: split by the name of a folder within class folders; empty if class folders contain no splits.
        names: split by the path, or within class folders the name, of each folder that names one.
        left_out: folders that are not read, with the reason.
        masks: pictures that are masks of others in the same folder.
        no_classes: folders next to class folders that contain files, but no pictures.
        guessed: sentences, each with the setting to change what was guessed.
    """

    parts: Mapping[str, str]
    inner: Mapping[str, str]
    names: Mapping[str, str]
    left_out: Mapping[str, str]
    masks: Collection[str]
    no_classes: Collection[str]
    guessed: tuple[str, ...]


def understand(root: Path, tree: Tree) -> Layout:
    """Find the class folders of a tree that contains pictures.

    Raises:
        UserError: there is more than one way to read the tree, or none.
    """
    reading = TreeReading(root, tree)
    base = _unwrapped(reading, "", any_name=True)
    names, parts = _splits_on_top(reading, base)
    inner = {} if parts else _splits_inside(reading, base)
    parts = parts or {base: ""}
    if not inner:
        for part in parts:
            leave_out_masks_inside(reading, part)
            _refuse_repeated(reading, part)
            _report_inner_folders(reading, part)
    masks = masks_among(reading, parts)
    return Layout(parts, inner, names or inner, reading.left_out, masks, reading.no_classes, tuple(reading.guessed))


def _unwrapped(reading: TreeReading, folder: str, any_name: bool) -> str:
    """Return the folder that contains the class or split folders: this one, or the only one within it, repeatedly.

    Args:
        reading: the tree.
        folder: where to start.
        any_name: whether the folder within may have any name; else only a split's, its parent's, or ``images``.
    """
    first, fork = folder, None
    while True:
        leave_out_beside(reading, folder)
        inside = reading.live(folder)
        if len(inside) != 1 or inside != reading.opened(folder):
            break
        (only,) = inside
        if not is_familiar(only):
            nothing_else = all(
                reading.tree.below[inner] or inner in reading.no_classes for inner in reading.tree.within(folder)
            )
            if not (any_name and nothing_else and _opens(reading, only)):
                break
        if fork is None and sum(reading.tree.below[inner] > 0 for inner in reading.tree.within(folder)) > 1:
            fork = folder
        folder = only
    if any_name and folder != first:
        reading.guessed.append(
            f"all labelled pictures are in {folder}/, so the folders in it are read and not those around it"
            + (f"; if those are the classes: {set_labels_from(level(depth_of(fork)))}" if fork is not None else "")
        )
    return folder


def _opens(reading: TreeReading, folder: str) -> bool:
    """Tell whether a folder, or the chain of single folders in it, ends in several folders without own pictures."""
    while len(inside := reading.live(folder)) == 1 and not reading.tree.direct[folder]:
        (folder,) = inside
    return len(inside) > 1 and not reading.tree.direct[folder]


# --- splits ---


def _splits_on_top(reading: TreeReading, base: str) -> tuple[dict[str, str], dict[str, str]]:
    """Return the split of each split folder, and of the folder in it that contains its class folders; none without.

    Raises:
        UserError: there are split folders, but not train and another one; or all folders are named like splits and
            contain no class folders.
    """
    live = reading.live(base)
    named = {child: split for child in live if (split := split_of(name_of(child)))}
    inner = {child: _unwrapped(reading, child, any_name=False) for child in named}
    splits = {child: split for child, split in named.items() if not is_flat(reading, child)}
    if "train" in splits.values() and len(set(splits.values())) > 1:
        for child in live:
            if child not in splits:
                reading.left_out[child] = OUTSIDE_SPLITS
        others = [child for child in live if child not in splits]
        if others:
            reading.guessed.append(
                f"{listed(splits)} are splits, so the content of {listed(others)} is not used; to use it, move it into "
                "class folders of one of them"
            )
        return splits, {inner[child]: split for child, split in splits.items()}
    halves = [child for child in splits if not reading.tree.direct[child]]
    if halves and len(live) > 1:
        _refuse_half(reading, base, halves, splits)
    if named and len(named) == len(live) and not splits:
        raise _no_class_folders(reading, named)
    return {}, {}


def _refuse_half(reading: TreeReading, base: str, halves: Sequence[str], splits: Mapping[str, str]) -> None:
    lacking = "no val/ or test/" if "train" in splits.values() else "no train/"
    depth = depth_of(base)
    raise UserError(
        f"{reading.root} has {' and '.join(f'{half}/' for half in halves)} with folders, but {lacking}",
        FOLDERS,
        f"add {lacking.removeprefix('no ')}; if the folders in them are the classes, to draw new splits from all: "
        f"{set_labels_from(level(depth + 1))}; if they are classes themselves: {set_labels_from(level(depth))}",
    )


def _no_class_folders(reading: TreeReading, folders: Collection[str]) -> UserError:
    suggestion = hint([path for path in reading.tree.pictures if "/" in path])
    return UserError(
        f"{reading.root}: {listed(folders)} contain{'s' * (len(folders) == 1)} pictures but no class folders",
        FOLDERS,
        (f"{suggestion}; else " if suggestion else "")
        + "put the pictures into one folder per class, or list their paths and labels in a .csv file",
    )


def _splits_inside(reading: TreeReading, base: str) -> dict[str, str]:
    """Return the split by the name of each split folder within the class folders; none without.

    Raises:
        UserError: only some classes have split folders, or the splits contain folders that could be classes.
    """
    live = reading.live(base)
    found: dict[str, dict[str, str]] = {}
    for child in live:
        inside = {name_of(deeper): split_of(name_of(deeper)) for deeper in reading.live(child)}
        if any(inside.values()) and not reading.tree.direct[child]:
            found[child] = {name: split for name, split in inside.items() if split}
    names = {name: split for inside in found.values() for name, split in inside.items()}
    if "train" not in names.values() or len(set(names.values())) < 2:
        return {}
    depth = depth_of(base)
    without = [child for child in live if child not in found]
    if without:
        raise UserError(
            f"{reading.root}: {listed(found)} contain{'s' * (len(found) == 1)} {listed(names)}, but {listed(without)} "
            f"do{'es' * (len(without) == 1)} not",
            "splits in every class folder, or in none",
            f"add {listed(join(child, name) for child in without for name in names)}; or draw the split from all "
            f"pictures of the classes {listed(map(name_of, live), '')}: {set_labels_from(level(depth))}",
        )
    groups = {join(child, name): reading.live(join(child, name)) for child, inside in found.items() for name in inside}
    if _repeated({group: [name_of(child) for child in inside] for group, inside in groups.items() if inside}):
        raise _ambiguous(reading, found, groups, (depth, depth + 2))
    return names


# --- the same folder names in several folders ---


def _repeated(groups: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the names that several groups share if most names are shared: such groups are hardly classes."""
    counts = Counter(name for names in groups.values() for name in set(names))
    shared = {name for name, count in counts.items() if count > 1}
    if len(shared) < 2 or 2 * len(shared) < len(counts) or any(not shared & set(names) for names in groups.values()):
        return []
    return sorted(shared)


def _refuse_repeated(reading: TreeReading, part: str) -> None:
    groups = {child: reading.live(child) for child in reading.opened(part)}
    if _repeated({child: [name_of(inside) for inside in groups[child]] for child in groups}):
        depth = depth_of(part)
        raise _ambiguous(reading, groups, groups, (depth, depth + 1))


def _ambiguous(
    reading: TreeReading, outer: Iterable[str], inner: Mapping[str, Sequence[str]], depths: tuple[int, int]
) -> UserError:
    outer = list(outer)
    names = _repeated({group: [name_of(child) for child in inside] for group, inside in inner.items() if inside})
    ours, theirs = listed(map(name_of, outer), ""), listed(names, "")
    return UserError(
        f"{reading.root}: each of {listed(outer)} contains folders {theirs}, so either could be the classes",
        FOLDERS,
        f"if {theirs} are the classes: {set_labels_from(level(depths[1]))}, or give only one folder: "
        f"{reading.root / outer[0]}; "
        f"if {ours} are the classes: {set_labels_from(level(depths[0]))}{_as_splits(reading, outer)}",
    )


def _as_splits(reading: TreeReading, folders: Sequence[str]) -> str:
    """Return commands that rename two or three folders to splits, the largest one to train."""
    by_size = sorted(folders, key=lambda child: -reading.tree.below[child])
    if not 2 <= len(by_size) <= SHOWN or any(split_of(name_of(child)) for child in by_size):
        return ""
    moves = [
        move_command(reading.root / child, (reading.root / child).with_name(name))
        for child, name in zip(by_size, ("train", "test", "val"), strict=False)
    ]
    return f"; if they are splits, rename them: {' && '.join(moves)}"


def _report_inner_folders(reading: TreeReading, part: str) -> None:
    """Report that folders within class folders belong to their class, and what else they may be."""
    live = reading.live(part)
    opened = [child for child in reading.opened(part) if len(reading.live(child)) > 1]
    inner = [deeper for child in opened for deeper in reading.live(child)]
    if len(opened) == 1 and len(live) > 1:
        (child,) = opened
        reading.guessed.append(
            f"the folders in {child}/ ({listed(map(name_of, inner), '')}) belong to the class {name_of(child)};"
            f" if they are the classes, give {reading.root / child}"
        )
    elif len(opened) > 1:
        within = level(depth_of(part) + 1)
        group = as_setting("split.group", within)
        belong = f"if one is a patient, clip, slide or day, whose pictures must stay together: {group}; "
        reading.guessed.append(
            f"the folders within the classes ({listed(map(name_of, inner), '')}) belong to them; "
            # A group must be found in every path.
            f"{belong if len(reading.opened(part)) == len(live) else ''}if they are the classes: "
            f"{set_labels_from(within)}"
        )
