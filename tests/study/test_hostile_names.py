"""Hostile class names stay text: no markup, no formula, no path, no broken record."""

import csv
import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tests.support.page import Page
from tests.support.worlds import tiny_study
from unfreeze import Results, Study
from unfreeze.cli.app import main
from unfreeze.storage.records import read_json, read_table

LABELS = [
    "<img src=x onerror=alert(1)>",
    "</script><script>alert(2)</script>",
    "../../evil",
    "/etc/passwd",
    "\u202eright to left",
    "new\nline\r\tand more",
    "=cmd|' /C calc'!A0",
    "@SUM(A1:A9)",
    "long " + "x" * 10_000,
    "{{ 7 * 7 }}{% raw %}",
    "\"'&lt;`",
]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    folder = tmp_path_factory.mktemp("hostile")
    random, rows = np.random.default_rng(0), []
    (folder / "photographs").mkdir()
    for number, label in enumerate(LABELS):
        for index in range(6):
            pixels = random.integers(0, 200, (24, 24, 3)) + 5 * number
            Image.fromarray(pixels.astype(np.uint8)).save(folder / "photographs" / f"{number}-{index}.png")
            rows.append([f"photographs/{number}-{index}.png", label, label])
    pd.DataFrame(rows, columns=["path", "label", "site"]).to_csv(folder / "images.csv", index=False)
    asked = {"data": str(folder / "images.csv"), "regimes": {"full": {}}, "strategies": {"head": {"train": "head"}}}
    return Study(**tiny_study(folder, **asked, split={"test": 0.3})).run(folder / "out", workers=0)


@pytest.mark.usefixtures("with_report")
def test_the_report_shows_them_as_text(results: Results) -> None:
    source = (results.path / "report.html").read_bytes().decode()
    page = Page(source)
    scripts = [tag for tag, _ in page.tags].count("script")
    assert scripts == len(page.scripts)
    assert not [script for script in page.scripts if script.startswith("alert(")]
    assert not [tag for tag, attributes in page.tags if any(name.startswith("on") for name in attributes)]
    assert not [one for tag, one in page.tags if tag == "img" and not str(one["src"]).startswith("data:")]
    for label in (LABELS[0], LABELS[2], LABELS[9]):  # of the last, a template would make 49
        assert label in page.text
    figures = [script for script in page.scripts if script.lstrip().startswith("{")]
    assert figures
    for script in figures:
        json.loads(script)


def test_tables_hold_no_formula_and_give_every_name_back(results: Results) -> None:
    labels = [label.strip() for label in LABELS]
    assert sorted(set(read_table(results.path / "catalog.csv")["label"])) == sorted(labels)
    assert main(["report", str(results.path), "--by", "site"]) == 0
    tables = sorted(results.path.rglob("*.csv"))
    assert {"catalog.csv", "by_site.csv", "comparisons.csv"} <= {table.name for table in tables}
    for table in tables:
        with table.open(encoding="utf-8", newline="") as file:
            csv.field_size_limit(10**6)
            for row in csv.reader(file):
                assert not [field for field in row if field.startswith(("=", "@", "\t", "\r"))], table
    assert set(read_table(results.path / "by_site.csv")["value"]) <= set(labels)


def test_records_are_json_and_no_name_became_a_path(results: Results) -> None:
    for record in results.path.rglob("*.json"):
        json.loads(record.read_bytes().decode())
    assert read_json(results.path / "study.json")["classes"] == sorted(label.strip() for label in LABELS)
    outside = {path.name for path in results.path.parent.iterdir()}
    assert outside == {"photographs", "images.csv", "weights.safetensors", "out"}
    names = {path.name for path in results.path.rglob("*")}
    assert not [name for name in names if "evil" in name or "passwd" in name or "<" in name or "=" in name]
