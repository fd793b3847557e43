"""Tables that hold their pictures themselves."""

import base64
import json

import numpy as np
import pytest
from PIL import Image

from tests.support.pictures import save
from tests.support.tables import after, refused, source
from unfreeze.data.catalog import build_catalog

PIXELS = np.random.default_rng(0).integers(0, 256, (4, 192)).astype(np.uint8)


@pytest.mark.parametrize(("count", "shape"), [(64, (8, 8)), (192, (8, 8, 3))])
def test_pixels_in_columns_are_written_by_a_command(tmp_path, count, shape):
    lines = ["label," + ",".join(f"pixel{number}" for number in range(count))]
    lines += [f"{number % 2},{','.join(map(str, PIXELS[number, :count]))}" for number in range(4)]
    error = refused(tmp_path, "\n".join(lines))
    assert error.given == (
        f"data: {tmp_path}/images.csv: pixel0 to pixel{count - 1} are {count} columns of numbers: the pictures are in "
        "the table itself, which names no files"
    )
    found = after(error)
    assert [item.label for item in found.items] == ["0", "1", "0", "1"]
    for number, item in enumerate(found.items):
        assert (np.array(Image.open(item.path)) == PIXELS[number, :count].reshape(shape)).all()


@pytest.mark.parametrize("start", ["data:image/png;base64,", ""])
def test_base64_is_written_by_a_command(tmp_path, start):
    files = [save(tmp_path / "made" / f"{number}.png", number).read_bytes() for number in range(4)]
    lines = [
        json.dumps({"image": start + base64.b64encode(file).decode(), "label": "ab"[number % 2]})
        for number, file in enumerate(files)
    ]
    error = refused(tmp_path, "\n".join(lines), "annotated.jsonl")
    assert error.given == (
        f"data: {tmp_path}/annotated.jsonl: image holds pictures as base64: the pictures are in the table itself, "
        "which names no files"
    )
    catalog = build_catalog(after(error))
    assert catalog.images["status"].tolist() == ["used"] * 4
    assert [(tmp_path / "annotated_images" / f"{number}.png").read_bytes() for number in range(4)] == files


def test_numbers_beside_files_are_no_pictures(tmp_path):
    lines = ["image,label," + ",".join(f"f{number}" for number in range(64))]
    for number in range(4):
        save(tmp_path / f"{number}.png", number)
        lines.append(f"{number}.png,{'ab'[number % 2]},{','.join(map(str, PIXELS[number, :64]))}")
    assert source(tmp_path, "\n".join(lines)).classes == ("a", "b")
