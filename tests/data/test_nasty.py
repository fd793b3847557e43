"""The data check of malicious and damaged files: each has its expected result; nothing blocks, runs or is written."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import ImageFile

from tests.support.nasty import bomb_reason, bombs, names, write_pack
from tests.support.pictures import save
from tests.support.watched import tree, within
from unfreeze.data import image_file
from unfreeze.data.catalog import Catalog, build_catalog
from unfreeze.data.sources import open_source

LEAST = 60
"""Files in the pack."""


def reasons(catalog: Catalog) -> dict[str, str]:
    return dict(zip(catalog.images["path"], catalog.images["reason"], strict=True))


def test_each_file_of_the_nasty_pack_ends_as_it_must(tmp_path, monkeypatch):
    root = tmp_path / "pack"
    expected = write_pack(root)
    assert len(expected) >= LEAST
    before = tree(root)
    monkeypatch.setattr(subprocess, "Popen", None)  # no Ghostscript, no anything
    catalog = within(60, lambda: build_catalog(open_source(str(root), {}, tmp_path)))
    images = catalog.images
    words = images["reason"].where(images["status"] != "used", "used: " + images["note"]).str.removesuffix(": ")
    assert dict(zip(images["path"], words, strict=True)) == expected
    counts = images["status"].value_counts()
    assert counts["used"] + counts["set_aside"] + counts["ignored"] == len(images) == len(expected)
    used = images[images["status"] == "used"]
    assert (used["label"] == used["path"].str.split("/").str[0]).all()
    assert catalog.classes == ("a", "b")
    turned = images[images["path"].str.startswith("a/exif")]
    assert len(turned) == 8 and turned["pixels"].nunique() == 1 and turned["cluster"].nunique() == 1
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False
    assert tree(root) == before


MEASURED = """
import resource, sys, time
from pathlib import Path
from unfreeze.data.decode import Undecodable, decode
from unfreeze.data.image_file import quiet_pillow
with quiet_pillow():
    for path in sorted(Path(sys.argv[1]).iterdir()):
        before, begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
        try:
            decode(path)
        except Undecodable as error:
            grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
            print(path.name, grown, time.process_time() - begun, error.reason, sep="|")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is counted in KiB on Linux alone")
def test_bombs_take_neither_memory_nor_time(tmp_path):
    for name, content in bombs().items():
        (tmp_path / name).write_bytes(content)
    done = subprocess.run([sys.executable, "-c", MEASURED, str(tmp_path)], capture_output=True, text=True, check=True)
    told = [line.split("|") for line in done.stdout.splitlines()]
    assert [name for name, *_ in told] == sorted(bombs())
    for name, grown, seconds, reason in told:
        assert int(grown) < 64 * 1024, name
        assert float(seconds) < 5, name
        assert reason == bomb_reason(name)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no named pipes in folders")
@pytest.mark.parametrize("follow", [False, True])
def test_pipes_and_devices_never_block(tmp_path, follow):
    for label in "ab":
        (tmp_path / "p" / label).mkdir(parents=True)
        os.mkfifo(tmp_path / "p" / label / "pipe.png")
        (tmp_path / "p" / label / "zero.png").symlink_to("/dev/zero")
        (tmp_path / "p" / label / "0").symlink_to("/dev/zero")
        save(tmp_path / "p" / label / "picture.png", ord(label))
    source = open_source("p", {}, tmp_path, follow_symlinks=follow)
    images = within(5, lambda: build_catalog(source)).images
    assert set(images.loc[images["path"].str.endswith("picture.png"), "status"]) == {"used"}
    assert set(images.loc[~images["path"].str.endswith("picture.png"), "status"]) == {"ignored"}
    manifest = "path,label\np/a/pipe.png,a\n/dev/zero,b\np/b/pipe.png,b\n"
    (tmp_path / "m.csv").write_text(manifest, encoding="utf-8")
    images = within(5, lambda: build_catalog(open_source("m.csv", {}, tmp_path))).images
    assert set(images["reason"]) == {"not a regular file"}
    assert set(images["status"]) == {"set_aside"}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no named pipes in folders")
def test_a_file_that_became_a_pipe_after_it_was_listed_blocks_nobody(tmp_path):
    write_pack(tmp_path / "pack")
    source = open_source("pack", {}, tmp_path)
    for name in ("b/0.png", "a/cmyk.jpg"):
        (tmp_path / "pack" / name).unlink()
        os.mkfifo(tmp_path / "pack" / name)
    found = reasons(within(60, lambda: build_catalog(source)))
    assert found["b/0.png"] == found["a/cmyk.jpg"] == "not a regular file"


def test_a_file_without_permissions_is_set_aside(tmp_path, monkeypatch):
    write_pack(tmp_path / "pack")

    def refusing(path, *args):  # as the system would, were this not root perhaps
        if Path(path).name == "0.png":
            raise PermissionError(13, "Permission denied")
        return open(path, *args)

    monkeypatch.setattr(image_file, "open", refusing, raising=False)
    found = reasons(build_catalog(open_source("pack", {}, tmp_path)))
    assert found["b/0.png"] == "cannot be read: permission denied"


def test_the_names_are_as_hard_as_they_say():
    assert len(set(names())) == len(names())
    assert max(map(len, names())) == 255
