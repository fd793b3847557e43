"""Leave out folders and pictures that are not data: masks, further copies of the classes, unlabelled images."""

import os
import posixpath
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from unfreeze.data.sources.beside import ALIKE, drawn, holds_again, masks_beside, sampled, stems_in
from unfreeze.data.sources.path_labels import level, set_labels_from
from unfreeze.data.sources.source import split_of
from unfreeze.data.sources.tree import Tree, around
from unfreeze.text import plural

UNLABELLED = "unlabelled"
MASKS = "masks or annotations, no photographs"
AGAIN = "the classes once more"
STORE = "what links lead to"
OUTSIDE_SPLITS = "not in a split's folder"

_CONTAINERS = frozenset(
    "images image imgs img photos photo pictures picture pics jpegimages jpg jpeg data dataset rgb raw original "
    "originals input inputs files samples all classes".split()
)

_MASKS = frozenset(
    "segmentations segmentation segmented segs seg masks mask annotations annotation labels label groundtruth gt "
    "trimaps trimap depth thumbnails thumbs saliency edges heatmaps bboxes boxes".split()
)

_UNLABELLED_NAME = re.compile(
    r"[\W_]*(?:seg[ _-])?(?:pred|predict|unlabell?ed|unsorted|unclassified|unannotated|untagged|no[ _-]?labels?|inbox|"
    r"to[ _-]?(?:do|label|sort|classify|annotate)|submission)s?[\W_]*",
    re.IGNORECASE,
)

_FEW = 8  # most sibling folders whose pictures' names are compared
_MASK_MODES = frozenset(("1", "L", "P"))
SHOWN = 3


@dataclass
class TreeReading:
    """State while a folder tree is read: folders left out so far, and sentences on what was guessed."""

    root: Path
    tree: Tree
    left_out: dict[str, str] = field(default_factory=dict)
    no_classes: set[str] = field(default_factory=set)
    guessed: list[str] = field(default_factory=list)

    def live(self, folder: str) -> list[str]:
        """Return the folders in a folder that contain pictures and are not left out, sorted."""
        return [inner for inner in self.tree.within(folder) if self.tree.below[inner] and inner not in self.left_out]

    def opened(self, folder: str) -> list[str]:
        """Return those of them that contain pictures only in folders."""
        return [inner for inner in self.live(folder) if not self.tree.direct[inner] and self.live(inner)]

    def leave_out(self, folder: str, reason: str, sentence: str) -> None:
        """Leave a folder out, and add the sentence that reports it."""
        self.left_out[folder] = reason
        self.guessed.append(sentence)

    def count(self, folder: str) -> str:
        """Return the number of pictures in a folder and all folders below, as text."""
        return plural(self.tree.below[folder], "picture")


def depth_of(folder: str) -> int:
    """Return the depth of a folder's content, 0 for that of the root."""
    return folder.count("/") + bool(folder)


def name_of(path: str) -> str:
    """Return the last part of a path."""
    return posixpath.basename(path)


def listed(folders: Iterable[str], slash: str = "/") -> str:
    """Return the first few folder names and the number of further ones, as text."""
    names = [f"{name}{slash}" for name in folders]
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def _word(folder: str) -> str:
    return re.sub(r"[\W_\d]+", "", name_of(folder)).lower()


def is_familiar(folder: str) -> bool:
    """Tell whether a folder's name cannot be a class: a split, its parent's name, or ``images``."""
    parent = name_of(posixpath.dirname(folder))
    return bool(split_of(name_of(folder))) or _word(folder) in _CONTAINERS or name_of(folder) == parent


def is_flat(reading: TreeReading, folder: str) -> bool:
    """Tell whether a folder contains pictures but no class folders; ``images/`` within it is not one."""
    while len(inside := reading.live(folder)) == 1 and is_familiar(inside[0]) and not reading.tree.direct[folder]:
        (folder,) = inside
    return not inside


def leave_out_beside(reading: TreeReading, folder: str) -> None:
    """Leave out folders next to class or split folders that are neither."""
    _report_folders_without_pictures(reading, folder)
    _leave_out_store(reading, folder)
    _leave_out_masks(reading, folder)
    _leave_out_again(reading, folder)
    _leave_out_copies(reading, folder)
    _leave_out_unlabelled(reading, folder)


def _report_folders_without_pictures(reading: TreeReading, folder: str) -> None:
    tree = reading.tree
    without = [
        child
        for child in tree.within(folder)
        if tree.others[child] and not tree.below[child] and not any(link.startswith(f"{child}/") for link in tree.links)
    ]
    new = [child for child in without if child not in reading.no_classes]
    reading.no_classes.update(new)
    if new:
        holds = "contains files but no pictures, so it is not a class" if len(new) == 1 else (
            "contain files but no pictures, so they are not classes"
        )  # fmt: skip
        reading.guessed.append(f"{listed(new)} {holds}; put pictures into it to make it one")


def _leave_out_store(reading: TreeReading, folder: str) -> None:
    """Leave out ``blobs/``, the link targets of other folders in the cache layout of model hubs."""
    if not reading.tree.followed:
        return
    live = reading.live(folder)
    root = os.path.realpath(reading.root)
    for store in live:
        start = os.path.join(root, store, "")
        links = {link: real for link, real in reading.tree.followed.items() if real.startswith(start)}
        linking, targets = [], set[str]()
        for other in live:
            found = [real for link, real in links.items() if link.startswith(f"{other}/")]
            if other != store and len(found) == reading.tree.below[other]:
                linking.append(other)
                targets.update(found)
        if len(targets) >= ALIKE * reading.tree.below[store] and (len(linking) > 1 or any(map(reading.live, linking))):
            reading.leave_out(
                store,
                STORE,
                f"{store}/ ({reading.count(store)}) contains the targets of links in {listed(linking)} and is not "
                f"used; to use it instead, give {reading.root / store}",
            )


def _leave_out_masks(reading: TreeReading, folder: str) -> None:
    live, opened = reading.live(folder), reading.opened(folder)
    photos = [child for child in opened if _word(child) not in _MASKS and not split_of(name_of(child))]
    for child in live:
        if _word(child) not in _MASKS and (len(opened) > _FEW or child not in opened):
            continue
        beside = [other for other in photos if other != child]
        if _word(child) in _MASKS:
            names = {name_of(inside) for inside in reading.live(child)}
            shared = [
                other
                for other in beside
                if len(names & {name_of(inside) for inside in reading.live(other)}) > 1
                or (is_flat(reading, child) and _word(other) in _CONTAINERS)
            ]
            shared += [other for other in live if _has_masks_of(reading, other, child)]
        else:
            shared = [other for other in beside if _are_masks_of(reading, child, other)]
        if shared:
            reading.leave_out(
                child,
                MASKS,
                f"{child}/ ({reading.count(child)}) seems to contain masks or annotations of {shared[0]}/ and is not "
                f"used; to use it instead, give {reading.root / child}",
            )
            photos = [other for other in photos if other != child]


def _has_masks_of(reading: TreeReading, photos: str, masks: str) -> bool:
    """Tell whether two folders contain pictures of the same names, and the second is named and looks like masks.

    ``mask`` and ``no_mask`` may be classes; neither of them has the name of a folder of photographs.
    """
    if photos == masks or _word(photos) in _MASKS or _word(masks) not in _MASKS:
        return False
    if not (reading.tree.direct[photos] and reading.tree.direct[masks]):
        return False
    ours, theirs = ({_bare(stem) for stem in stems_in(reading.tree, child)} for child in (masks, photos))
    if len(ours & theirs) < ALIKE * len(ours) or not drawn(reading.root, reading.tree, masks):
        return False
    return _word(photos) in _CONTAINERS or not drawn(reading.root, reading.tree, photos)


def _bare(stem: str) -> str:
    """Return a picture's name without a word for masks at its end."""
    return re.sub(r"[\W_]*(?:mask|seg|gt|label)s?$", "", stem, flags=re.IGNORECASE)


def leave_out_masks_inside(reading: TreeReading, part: str) -> None:
    """Leave out ``masks/`` next to ``images/`` in class folders."""
    found = {}
    for class_folder in reading.live(part):
        inside = reading.live(class_folder)
        for masks in inside:
            if any(_has_masks_of(reading, photos, masks) for photos in inside):
                found[masks] = class_folder
    if found:
        count = sum(reading.tree.below[masks] for masks in found)
        names = sorted({name_of(masks) for masks in found})
        reading.left_out.update(dict.fromkeys(found, MASKS))
        reading.guessed.append(
            f"{listed(names)} in {listed(dict.fromkeys(found.values()))} ({plural(count, 'picture')}) "
            f"{'seems' if len(names) == 1 else 'seem'} to contain masks or annotations and "
            f"{'is' if len(names) == 1 else 'are'} not used; to use all pictures: "
            f"{set_labels_from(level(depth_of(part)))}"
        )


def masks_among(reading: TreeReading, parts: Collection[str]) -> Collection[str]:
    """Return the masks in the same folders as their photographs, and report them."""
    found = {
        mask: photograph
        for mask, photograph in masks_beside(reading.root, reading.tree).items()
        if not any(folder in reading.left_out for folder in around(mask))
    }
    if found:
        mask, photograph = next(iter(sorted(found.items())))
        seem = plural(len(found), "picture seems to be a mask", "pictures seem to be masks")
        reading.guessed.append(
            f"{seem} of other pictures in the same folder and {'is' if len(found) == 1 else 'are'} not used (first "
            f"{mask} of {name_of(photograph)}); to use all pictures: "
            f"{set_labels_from(level(max(map(depth_of, parts))))}"
        )
    return found.keys()


def _are_masks_of(reading: TreeReading, masks: str, photos: str) -> bool:
    """Tell whether two folders contain the same names, and only one of them pictures without colour."""
    if set(map(name_of, reading.live(masks))) != set(map(name_of, reading.live(photos))):
        return False
    ours, theirs = stems_in(reading.tree, masks), stems_in(reading.tree, photos)
    if len(ours & theirs) < ALIKE * max(len(ours), len(theirs)):
        return False
    return _without_colour(reading, masks) and not _without_colour(reading, photos)


def _without_colour(reading: TreeReading, folder: str) -> bool:
    paths = [path for path in sorted(reading.tree.pictures) if path.startswith(f"{folder}/")]
    modes = set()
    for path in sampled(paths):
        try:
            with Image.open(reading.root / path) as picture:
                modes.add(picture.mode)
        except (OSError, ValueError, UnidentifiedImageError, Image.DecompressionBombError):
            modes.add("")
    return modes <= _MASK_MODES


def _leave_out_again(reading: TreeReading, folder: str) -> None:
    live, opened = reading.live(folder), reading.opened(folder)
    splits = {split_of(name_of(child)) for child in opened} - {""}
    if "train" in splits and len(splits) > 1:
        opened = [child for child in opened if not split_of(name_of(child))]
    by_name = {name_of(child).casefold(): name_of(child) for child in live}
    found: dict[str, set[str]] = {}
    for child in opened:
        for names in _names_below(reading, child):
            same = {by_name[name] for name in names & by_name.keys()} - {name_of(child)}
            if len(same) > 1:
                found[child] = found.get(child, set()) | same
    for child, same in found.items():
        if not any(name_of(child) in others for others in found.values()):  # else they contain each other's names
            reading.leave_out(
                child,
                AGAIN,
                f"{child}/ ({reading.count(child)}) contains {listed(sorted(same), '')} again and is not used; to use "
                f"it instead of the folders next to it, give {reading.root / child}",
            )


def _names_below(reading: TreeReading, folder: str) -> Iterable[set[str]]:
    """Yield the names of sibling folders in a folder and in each folder below it: a backup may be nested."""
    waiting = [folder]
    while waiting:
        inside = reading.live(waiting.pop())
        if inside:
            yield {name_of(inner).casefold() for inner in inside}
        waiting += inside


def _leave_out_copies(reading: TreeReading, folder: str) -> None:
    """Leave out folders with the pictures of others: ``cat - Copy``, or ``all`` next to the classes."""
    live = reading.live(folder)
    names: dict[str, set[str]] = {child: set() for child in live if not reading.live(child)}
    for path in reading.tree.pictures:
        if (inside := posixpath.dirname(path)) in names:
            names[inside].add(name_of(path))
    by_name = {name_of(child).casefold(): child for child in names}
    half = sum(map(len, names.values())) / 2
    for child in names:
        held = [other for other in _named_in(child, by_name) if holds_again(reading.root, other, child, names)][:1]
        if not held and len(names) == len(live) > 2 and len(names[child]) >= ALIKE * half:
            others = [other for other in names if other != child]
            held = others if all(holds_again(reading.root, child, other, names) for other in others) else []
        if held:
            reading.leave_out(
                child,
                AGAIN,
                f"{child}/ ({reading.count(child)}) contains the pictures of {listed(map(name_of, held), '')} again "
                f"and is not used; if {name_of(child)} is a class of its own: "
                f"{set_labels_from(level(depth_of(folder)))}",
            )


def _named_in(folder: str, by_name: Mapping[str, str]) -> list[str]:
    """Return the folders whose names start or end a folder's name: ``cat`` for ``cat - Copy`` or ``Copy of cat``."""
    name = name_of(folder).casefold()
    parts = [part for at in range(1, len(name)) for part in (name[:at], name[at:])]
    return [by_name[part] for part in parts if part in by_name]


def _leave_out_unlabelled(reading: TreeReading, folder: str) -> None:
    """Leave out ``test/`` and similar folders without class folders next to labelled ones."""
    live = reading.live(folder)
    flat = [child for child in live if is_flat(reading, child)]
    if any(split_of(name_of(child)) == "train" for child in flat):
        return  # either all of them are classes, or none is
    labelled = [child for child in live if child not in flat]
    trains = any(split_of(name_of(child)) == "train" for child in labelled)
    kinds = ("test", "validation") if trains else ("test",)
    bare = [child for child in flat if split_of(name_of(child)) in kinds or _UNLABELLED_NAME.fullmatch(name_of(child))]
    rest = [child for child in live if child not in bare]
    if len(rest) < 2 and not any(is_familiar(child) for child in rest if child in labelled):
        return
    for child in bare:
        otherwise = f"if {name_of(child)} is a class: {set_labels_from(level(child.count('/')))}"
        if labelled:
            otherwise = "to use them, put them into class folders"
        reading.leave_out(
            child,
            UNLABELLED,
            f"{child}/ contains {reading.count(child)} without class folders: unlabelled, not used; {otherwise}",
        )
