"""``unfreeze demo``: its images, and as a slow test the demo itself."""

import json
from pathlib import Path

import pytest
from PIL import Image

from unfreeze.data.sources.digits import write_digits
from unfreeze.errors import UserError


def test_digits_are_deterministic_and_repaired(tmp_path):
    assert write_digits(tmp_path / "a") == 1797
    files = sorted((tmp_path / "a").rglob("*.png"))
    assert len(files) == 1797
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == list("0123456789")
    with Image.open(files[0]) as image:
        assert (image.size, image.mode, image.getextrema()) == ((64, 64), "L", (0, 247))
    content = files[0].read_bytes()
    times = files[1].stat().st_mtime_ns
    files[0].write_bytes(content[:50])
    write_digits(tmp_path / "a")
    assert files[0].read_bytes() == content
    assert files[1].stat().st_mtime_ns == times


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError) as caught:
        write_digits(tmp_path / "file")
    assert str(caught.value) == (
        f"cannot write {tmp_path}/file/0/0000.png: Not a directory\n"
        "  expected: a directory that can be written to, with room on its disk\n"
        "  fix:      give another directory with --out DIR, or free space and run the same command again"
    )


@pytest.mark.slow
def test_the_demo(unfreeze, folder):
    code, said, _ = unfreeze("demo", "--json")
    assert code == 0
    record = json.loads(said)
    assert len(record["cells"]) == 12
    assert record["headline"].startswith("Use fine_tune with images_40: best mean validation accuracy ")
    for regime in ("images_10", "images_40"):
        rows = [row for row in record["results"] if row["regime"] == regime]
        scores = {
            name: sum(row["test_metric"] for row in rows if row["strategy"] == name) / 2
            for name in ("scratch", "head", "fine_tune")
        }
        assert scores["fine_tune"] > scores["head"]
        assert scores["fine_tune"] > scores["scratch"]
    assert Path(record["report"]).is_file()
