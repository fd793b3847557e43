"""List a folder tree: its pictures and folders, and what is ignored with the reason. Nothing is written."""

import os
import posixpath
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from unfreeze.data.unusable import RAW_SUFFIXES
from unfreeze.errors import UserError

PICTURES = frozenset(
    ".jpg .jpeg .jpe .jfif .jif .png .apng .webp .gif .bmp .dib .tif .tiff .heic .heif .hif .avif .jp2 .j2k .j2c .jpx "
    ".jxl .svg .psd .dcm .dicom .dic .ppm .pgm .pbm .pnm".split()
) | frozenset(RAW_SUFFIXES)
"""Suffixes of pictures. Such a file counts as data whatever its content, so that damaged files are reported."""

LITTER = "system files"
LINK_OUT = "link out of the folder"
LINK_TO_FOLDER = "link to a folder"
POINTER = "Git LFS pointer"
HIDDEN = "hidden"
CLOUD = "stand-in for a file in iCloud"
BESIDE = "raw or HEIC file beside its photograph"
VOLUME = "volume of slices"
_VOLUMES = (".nii", ".nii.gz", ".mha", ".mhd", ".nrrd", ".mgz")
_READ = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp")

_LITTER = frozenset(
    "@eadir #recycle #snapshot @tmp @recycle @recently-snapshot lost+found $recycle.bin recycler recycled "
    "~snapshot .snapshot .snapshots .zfs "
    ".trash .trashes .thumbnails .thumbs .spotlight-v100 .fseventsd .temporaryitems .documentrevisions-v100 "
    ".appledouble .appledb .appledesktop __macosx .ipynb_checkpoints __pycache__ .ds_store .localized .directory "
    ".nomedia .picasa.ini picasa.ini .picasaoriginals thumbs.db ehthumbs.db ehthumbs_vista.db desktop.ini "
    ".dropbox .dropbox.cache .dropbox.attr .syncthing .stfolder .stversions .@__thumb .sync zbthumbnail.info".split()
) | {"system volume information", "icon\r", "network trash folder", "temporary items"}

_LITTER_STARTS = ("._", ".trash-", ".fuse_hidden", ".nfs0")

_STARTS = (
    (0, b"\xff\xd8\xff"), (0, b"\x89PNG\r\n\x1a\n"), (0, b"GIF87a"), (0, b"GIF89a"), (0, b"II*\0"), (0, b"MM\0*"),
    (0, b"II+\0"), (0, b"MM\0+"), (8, b"WEBPVP8"), (4, b"ftyphei"), (4, b"ftyphev"), (4, b"ftypmif1"),
    (4, b"ftypmsf1"), (4, b"ftypavi"), (0, b"\0\0\0\x0cjP  "), (0, b"\xff\x4f\xff\x51"), (0, b"\xff\x0a"),
    (0, b"\0\0\0\x0cJXL "), (128, b"DICM"),
)  # fmt: skip

_THUMBNAILS = frozenset((".thm",))  # of a video or a raw file beside it, as JPEG
_BMP_HEADERS = frozenset((12, 40, 52, 56, 64, 108, 124))  # bytes: "BM" alone begins many a text
_POINTER_START = b"version https://git-lfs"
_FIRST = 132  # bytes
_SUFFIX = re.compile(r"\.\w{1,12}", re.ASCII)


@dataclass(frozen=True)
class Tree:
    """Content of a folder as posix paths relative to it, folders without a trailing slash; "" is the folder itself.

    Attributes:
        pictures: files that count as pictures.
        folders: all folders that were entered.
        ignored: path (of a folder with a trailing slash) and reason.
        links: target of each link that is not followed, by its path.
        followed: real path of each picture that is a link, by its path.
        inside: names of the folders in each folder.
        direct, below: number of pictures right in each folder, and in it and all folders below.
        others: number of ignored files and links in each folder and all folders below, without system files.
    """

    pictures: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    ignored: list[tuple[str, str]] = field(default_factory=list)
    links: dict[str, str] = field(default_factory=dict)
    followed: dict[str, str] = field(default_factory=dict)
    inside: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    direct: Counter[str] = field(default_factory=Counter)
    below: Counter[str] = field(default_factory=Counter)
    others: Counter[str] = field(default_factory=Counter)

    def within(self, folder: str) -> list[str]:
        """Return the paths of the folders in a folder, sorted."""
        return sorted(join(folder, name) for name in self.inside.get(folder, ()))


def join(folder: str, name: str) -> str:
    """Return the path of a name in a folder; the root folder is ""."""
    return f"{folder}/{name}" if folder else name


def around(path: str) -> Iterable[str]:
    """Yield the folders around a path, from its own up to the root, which is ""."""
    while path:
        path = posixpath.dirname(path)
        yield path


def scan(root: Path, follow: bool) -> Tree:
    """List a folder tree.

    Files without the suffix of a picture are recognised by their first bytes.

    Args:
        root: the folder.
        follow: whether links to folders and out of the root are followed, too; links to files within the root are.

    Raises:
        UserError: the root cannot be read.
    """
    tree = Tree()
    waiting: list[tuple[str, tuple[str, ...]]] = [
        ("", (os.path.realpath(root),))
    ]  # with the real paths of the folders around it
    while waiting:
        folder, real = waiting.pop()
        try:
            with os.scandir(real[-1]) as entries:
                found = list(entries)
        except OSError as error:
            if not folder:
                raise UserError(
                    f"the folder {root} cannot be read: {error.strerror}",
                    "a readable folder",
                    "correct its permissions",
                ) from error
            tree.ignored.append((f"{folder}/", "folder cannot be read"))
            continue
        for entry in found:
            # Of a link that points at itself, DirEntry.is_dir would raise.
            is_folder = os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()
            path = join(folder, entry.name)
            reason = _unwanted(entry, is_folder, real, follow) or ("" if is_folder else _no_picture(entry))
            if reason:
                tree.ignored.append((path + "/" * is_folder, reason))
                if reason in (LINK_OUT, LINK_TO_FOLDER):
                    tree.links[path] = os.path.realpath(entry.path)
            elif is_folder:
                tree.folders.append(path)
                waiting.append((path, (*real, os.path.realpath(entry.path))))
            else:
                tree.pictures.append(path)
                if entry.is_symlink():
                    tree.followed[path] = os.path.realpath(entry.path)
    _leave_out_raw(tree)
    _count(tree)
    return tree


def _leave_out_raw(tree: Tree) -> None:
    """Ignore raw camera files and HEIC files next to the same photograph in a supported format."""
    stems = {stem.lower() for stem, suffix in map(posixpath.splitext, tree.pictures) if suffix.lower() in _READ}
    beside = []
    for path in tree.pictures:
        stem, suffix = posixpath.splitext(path)
        if suffix.lower() in (*RAW_SUFFIXES, ".heic", ".heif") and stem.lower() in stems:
            beside.append(path)
    if beside:
        tree.pictures[:] = sorted(set(tree.pictures) - set(beside))
        tree.ignored.extend((path, BESIDE) for path in beside)


def _count(tree: Tree) -> None:
    for listed in (tree.pictures, tree.folders, tree.ignored):
        listed.sort()  # the file system lists them in any order
    for folder in tree.folders:
        tree.inside[posixpath.dirname(folder)].append(posixpath.basename(folder))
    for path in tree.pictures:
        tree.direct[posixpath.dirname(path)] += 1
        tree.below.update(around(path))
    for path, reason in tree.ignored:
        if reason not in (LITTER, HIDDEN, CLOUD):
            tree.others.update(around(path.rstrip("/")))


def _unwanted(entry: os.DirEntry[str], is_folder: bool, real: tuple[str, ...], follow: bool) -> str:
    """Return why a directory entry is ignored, or ""."""
    name = entry.name.lower()
    if name in _LITTER or name.startswith(_LITTER_STARTS):
        return LITTER
    if name.startswith(".") and name.endswith(".icloud"):
        return CLOUD
    if name.startswith("."):
        return HIDDEN
    target = os.path.realpath(entry.path) if is_folder or entry.is_symlink() else ""
    if is_folder:
        if target in real:
            return "link to a folder around it" if follow else LINK_TO_FOLDER
        # The parent's path is real, so a different path means a link, or a junction on Windows.
        return "" if follow or target == entry.path else LINK_TO_FOLDER
    if entry.is_symlink():
        if not os.path.exists(target):
            return "broken link"
        if not follow and not target.startswith(os.path.join(real[0], "")):
            return LINK_OUT
    return "" if entry.is_file() else "not a regular file"


def _no_picture(entry: os.DirEntry[str]) -> str:
    """Return why a file is not a picture, or "" if it may be one."""
    suffix = posixpath.splitext(entry.name)[1].lower()
    if suffix in PICTURES:
        return ""
    if suffix in _THUMBNAILS:
        return f"no picture: {suffix}"
    try:
        with open(entry.path, "rb") as file:
            first = file.read(_FIRST)
    except OSError:
        return ""  # the data check reports why it cannot be read
    if _is_picture(first):
        return ""
    if first.startswith(_POINTER_START):
        return POINTER
    if entry.name.lower().endswith(_VOLUMES):
        return VOLUME
    return f"no picture: {suffix if _SUFFIX.fullmatch(suffix) else 'no suffix'}"


def _is_picture(first: bytes) -> bool:
    if any(first.startswith(mark, at) for at, mark in _STARTS):
        return True
    return first.startswith(b"BM") and int.from_bytes(first[14:18], "little") in _BMP_HEADERS


def pictures_in(folder: Path) -> int:
    """Count the files with a picture's suffix in a folder and below it; links are not followed."""
    return sum(posixpath.splitext(name)[1].lower() in PICTURES for _, _, names in os.walk(folder) for name in names)
