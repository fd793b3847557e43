"""Ten kinds of picture files: what was said of each before and what is said now, and that the advice works."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.support.wild_pictures import CASES, COLOURS, content, picture
from unfreeze.data import fixes as convert

Say = Callable[..., tuple[int, str, str]]


@dataclass(frozen=True)
class Case:
    """What is said of a folder.

    Attributes:
        before: what commit d6bbf66 did.
        classes, ignored, guessed: as ``check --json`` has them; ``{root}`` stands for the folder.
        used, found: images that are used, and the findings, kind and count.
        refused: the text of the refusal, where there is one.
    """

    before: str
    classes: tuple[str, ...] = ()
    ignored: dict[str, int] = field(default_factory=dict)
    guessed: tuple[str, ...] = ()
    used: int = 0
    found: tuple[tuple[str, int], ...] = ()
    refused: str = ""


FOLDERS = "a folder of class folders, or a folder with train/, val/ and test/ of class folders"
FORMS = "pictures: JPEG, PNG, WebP, GIF, BMP or TIFF"
FIRST_WORD, SUFFIX = r"([^\W\d_][^/._ -]*)[._ -][^/]*$", r"\.([^/.]+)$"
EXPECTED = {
    "white_icons": Case(
        "exit 0; all set aside as one picture with two labels",
        refused="{root}: nothing usable in 28 files: 28 white all over, its shape is in the transparency "
        f"(first arrow/ic_arrow_0_white_24dp.png)\n  expected: {FORMS}\n"
        "  fix:      --set check.bands=[3] reads that",
    ),
    "z_stacks": Case(
        "a note that all are blank, another that only the first page is used, which is out of focus",
        classes=("healthy", "treated"),
        guessed=(
            "24 images of more than 8 bits have no value above 1,110: 11 bits count, so 2,047 is white in all of them "
            "(--set check.bits=11 fixes that, --set check.bits=16 makes 65,535 white)",
            "24 files have several pages or frames, and the first alone is used (first healthy/field_00.tif); to use "
            "all: {pages} and on {root}-pages: --set 'split.group=(.+)[.]page'",
        ),
        used=24,
        found=(("outlier", 24),),
    ),
    "cloud_stubs": Case(
        "exit 0; 24 hidden, cat and dog have 0 usable images",
        refused="{root} holds no pictures: 24 stand-in for a file in iCloud\n"
        f"  expected: {FOLDERS}\n"
        "  fix:      download the pictures: find {root} -name '*.icloud' -exec brctl download {{}} \\;",
    ),
    "volumes": Case(
        "exit 0; 20 not an image",
        refused="{root} holds no pictures: 20 volume of slices\n"
        f"  expected: {FOLDERS}\n"
        "  fix:      save the relevant slices as PNG files in one folder per class; the middle slices of NIfTI files: "
        "{slices}",
    ),
    "placeholder": Case(
        "the same: 12 set aside, since one picture has three labels",
        classes=tuple(COLOURS),
        used=36,
        found=(("label_conflict", 12),),
    ),
    "download_names": Case("all read; nothing said of what was understood", classes=tuple(COLOURS), used=54),
    "subject_suffix": Case(
        "put the images into one folder per class",
        refused=f"{{root}} holds no class folders\n  expected: {FOLDERS}\n"
        "  fix:      put the images into one folder per class; or if the classes are what the file names begin with, "
        "subject01 (8), subject02 (8), subject03 (8): "
        f"--set labels_from='{FIRST_WORD}' (in a study file: labels_from: '{FIRST_WORD}'); or if the classes are what "
        "the file names have as suffixes, centerlight (3), glasses (3), happy (3), 5 more: "
        f"--set labels_from='{SUFFIX}' (in a study file: labels_from: '{SUFFIX}')",
    ),
    "few_levels": Case(
        "a note that all are blank",
        classes=("0", "1", "7"),
        guessed=(
            "42 pictures are almost black, as where values use few of 8 bits (first 0/0.png); to make the largest "
            "value of all of them white: {scaled} and use {root}-scaled",
        ),
        used=42,
        found=(("odd_size", 42), ("outlier", 42)),
    ),
    "raw_beside_jpeg": Case(
        "28 of 56 set aside as damaged, so that a run stops",
        classes=("cat", "dog"),
        ignored={"raw or HEIC file beside its photograph": 28},
        used=28,
    ),
    "traffic_signs": Case(
        "exit 0; 39 not an image, the tables among them",
        refused="{root}: nothing usable in 36 files: 36 ppm is not supported (first 00000/00000_00000.ppm)\n"
        f"  expected: {FORMS}\n"
        "  fix:      convert them: {png} and then: unfreeze check {root}-png",
    ),
}


def filled(text: str, root: Path) -> str:
    """Put the folder and the commands into a text."""
    commands = {
        "pages": convert.pages_as_png(root, {".tif"}),
        "slices": convert.slices_as_png(root, {".nii.gz"}),
        "scaled": convert.scaled(root, {".png"}),
        "png": convert.as_png(root, {".ppm"}),
    }
    return text.format(root=root, **commands)


@pytest.mark.parametrize("name", CASES)
def test_what_is_understood(name: str, unfreeze: Say, tmp_path: Path) -> None:
    case, root = EXPECTED[name], tmp_path / "data"
    CASES[name](root)
    code, said, complaint = unfreeze("check", str(root), "--json")
    if case.refused:
        assert (code, said, complaint) == (2, "", f"unfreeze: {filled(case.refused, root)}\n")
        for command in (["init"], ["plan"], ["run", "--out", "out"]):
            assert unfreeze(command[0], str(root), *command[1:])[0] == 2, command
        return
    told = json.loads(said)
    assert code == 0
    assert told["layout"] == {
        "kind": "class folders",
        "classes": list(case.classes),
        "splits": None,
        "ignored": case.ignored,
        "guessed": [filled(one, root) for one in case.guessed],
    }
    assert told["used"] == case.used
    assert [(one["kind"], len(one["images"])) for one in told["findings"]] == list(case.found)


# --- what is advised works ---


def checked(unfreeze: Say, root: Path, *more: str) -> dict[str, Any]:
    code, said, complaint = unfreeze("check", str(root), "--json", *more)
    assert (code, complaint) == (0, "")
    return json.loads(said)


def does(command: str, tools: Path, **more: str) -> None:
    """Run a command that was advised, where ``python`` is this one and ``tools`` come first."""
    tools.mkdir(exist_ok=True)
    (tools / "python").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
    (tools / "pip").write_text("#!/bin/sh\nexit 0\n")
    for tool in tools.iterdir():
        tool.chmod(0o755)
    path = f"{tools}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(["/bin/sh", "-c", command], check=True, env=os.environ | {"PATH": path} | more)  # noqa: S603


def advised(text: str, begin: str, end: str = "$") -> str:
    return re.search(re.escape(begin) + "(.*?)" + end, text.replace("\n", "\0"))[1].strip("\0")  # type: ignore[index]


def test_alpha_is_read_where_it_is_the_shape(unfreeze: Say, tmp_path: Path) -> None:
    root = tmp_path / "data"
    CASES["white_icons"](root)
    setting = re.search(r"--set (check\.bands=\S+)", unfreeze("check", str(root))[2])[1]  # type: ignore[index]
    assert checked(unfreeze, root, "--set", setting)["used"] == 28


def test_pages_become_pictures(unfreeze: Say, tmp_path: Path) -> None:
    root = tmp_path / "it's data"
    CASES["z_stacks"](root)
    text = checked(unfreeze, root)["layout"]["guessed"][1]
    does(advised(text, "to use all: ", " and on "), tmp_path / "tools")
    group = shlex.split(text.rpartition("--set ")[2])[0]
    pages = checked(unfreeze, Path(f"{root}-pages"), "--set", group)
    assert (pages["images"], pages["layout"]["guessed"]) == (120, [])


def test_stand_ins_are_downloaded(unfreeze: Say, tmp_path: Path) -> None:
    root, tools = tmp_path / "data", tmp_path / "tools"
    CASES["cloud_stubs"](root)
    command = advised(unfreeze("check", str(root))[2], "download the pictures: ")
    tools.mkdir()
    (tools / "brctl").write_text('#!/bin/sh\ncase "$2" in *0000*) exit 0;; esac\nmv "$2" "${2%.icloud}.jpg"\n')
    does(command, tools)
    for number, path in enumerate(sorted(root.glob("*/.*.jpg"))):
        path.unlink()
        path.with_name(path.name[1:]).write_bytes(content(picture(path.parent.name, number), "JPEG"))
    assert checked(unfreeze, root)["layout"]["guessed"] == [
        f"2 files are only in iCloud and not used; to download them: {command}"
    ]


def test_slices_become_pictures(unfreeze: Say, tmp_path: Path) -> None:
    root, tools = tmp_path / "data", tmp_path / "tools"
    CASES["volumes"](root)
    tools.mkdir()
    (tools / "nibabel.py").write_text(
        "import gzip, numpy\n"
        "class load:\n"
        "    def __init__(self, path): self.path = path\n"
        "    def get_fdata(self):\n"
        "        values = numpy.frombuffer(gzip.decompress(self.path.read_bytes())[352:], '<i2')\n"
        "        return values.reshape(8, 16, 16).T.astype(float)\n"
    )
    does(advised(unfreeze("check", str(root))[2], "NIfTI files: "), tools, PYTHONPATH=str(tools))
    assert checked(unfreeze, Path(f"{root}-slices"))["used"] == 20


def test_names_say_the_labels_in_both_ways(unfreeze: Say, tmp_path: Path) -> None:
    root = tmp_path / "data"
    CASES["subject_suffix"](root)
    ways = re.findall(r"--set (labels_from='.*?') \(in", unfreeze("check", str(root))[2])
    told = [checked(unfreeze, root, "--set", *shlex.split(way))["layout"]["classes"] for way in ways]
    assert [len(one) for one in told] == [3, 8]


def test_few_levels_are_scaled_alike(unfreeze: Say, tmp_path: Path) -> None:
    root = tmp_path / "data"
    CASES["few_levels"](root)
    (text,) = checked(unfreeze, root)["layout"]["guessed"]
    does(advised(text, "of them white: ", " and use "), tmp_path / "tools")
    told = checked(unfreeze, Path(f"{root}-scaled"))
    assert (told["used"], told["layout"]["guessed"]) == (42, [])
    assert "outlier" not in {one["kind"] for one in told["findings"]}


def test_pixmaps_are_converted(unfreeze: Say, tmp_path: Path) -> None:
    root = tmp_path / "data"
    CASES["traffic_signs"](root)
    does(advised(unfreeze("check", str(root))[2], "convert them: ", " and then: "), tmp_path / "tools")
    assert checked(unfreeze, Path(f"{root}-png"))["used"] == 36
