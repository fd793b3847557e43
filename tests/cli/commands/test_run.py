"""``unfreeze run`` and ``unfreeze report``: output, files and exit codes."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from tests.support.command_images import understood
from unfreeze.study import group

QUICK = ["--set", "image_size=32", "--set", "strategies={all: {train: all}}", "--set", "epochs=1"]
QUICK += ["--set", "weights=none", "--set", "regimes={full: {}}"]


def test_a_finished_study_has_nothing_to_run(unfreeze, study):
    code, said, told = unfreeze("run", "study.yaml")
    assert code == 0
    first = understood(study / "photos")
    lines = told.removeprefix(first).splitlines()
    assert lines[:3] == [
        "read 36 image files",
        "2 cells to run",
        "[0/2] scratch.few.s0: started, 18 examples to train on",
    ]
    assert [line.split(":")[0] for line in lines[3:]] == [
        *["[0/2] scratch.few.s0"] * 2,
        "[1/2] scratch.few.s0",
        *["[1/2] sgd.few.s0"] * 3,
        "[2/2] sgd.few.s0",
    ]
    assert "strategy   regime   cells   epochs" in said
    assert "Test accuracy" in said
    assert said.endswith("\nreport: runs/study/report.html\n")
    written = sorted(path.name for path in Path("runs/study").iterdir())
    assert {"report.html", "results.csv", "study.yaml", "plan.json", "cells"} <= set(written)

    results = Path("runs/study/results.csv").read_bytes()
    code, said_again, told = unfreeze("run", "study.yaml")
    assert (code, told) == (0, first + "read 36 image files\n2 cells, all finished: nothing to run\n")
    predicted = re.compile(r"about [^,]+, predicted")  # anew at each run
    said, said_again = (predicted.sub("predicted", text) for text in (said, said_again))
    assert said_again == f"2 cells, all finished: nothing to run\n\n{said}"
    assert Path("runs/study/results.csv").read_bytes() == results


def test_json_is_the_only_output_on_stdout(unfreeze, study):
    code, said, told = unfreeze("run", "study.yaml", "--json", "--out", "here", "--seeds", "0,3", "--set", "epochs=1")
    assert code == 0
    record = json.loads(said)
    cells = ["scratch.few.s0", "sgd.few.s0", "scratch.few.s3", "sgd.few.s3"]
    assert list(record) == [
        "study", "directory", "cells", "failed", "left", "warnings", "findings", "check_page", "headline",
        "results", "report", "recommended", "answer", "conclusions", "layout",
    ]  # fmt: skip
    assert record["layout"] == {
        "kind": "class folders", "classes": ["blue", "green", "red"], "splits": None, "ignored": {}, "guessed": [],
    }  # fmt: skip
    assert (record["study"], record["directory"], record["report"]) == ("study", "here", "here/report.html")
    assert (record["cells"], record["failed"], record["left"]) == (cells, [], [])
    table = pd.read_csv("here/results.csv")
    assert [row["cell"] for row in record["results"]] == table["cell"].tolist() == cells
    assert [row["test_metric"] for row in record["results"]] == table["test_metric"].tolist()
    assert record["results"][0]["fold"] is None
    assert record["headline"].endswith(".")
    assert "\n4 cells to run\n" in told


def test_a_failed_cell_stops_no_other_and_alone_runs_again(unfreeze, study, monkeypatch):
    real = group.finish_cell

    def fail_once(job, *rest):
        if job.cell.strategy == "scratch":
            raise ValueError("no [luck] today")
        return real(job, *rest)

    monkeypatch.setattr(group, "finish_cell", fail_once)
    code, said, told = unfreeze("run", "study.yaml")
    assert code == 3
    assert "[1/2] scratch.few.s0: failed: ValueError: no [luck] today\n" in told
    assert "failed: scratch.few.s0: ValueError: no [luck] today\n" in said
    assert "Run the same command again to retry 1 failed cell.\n" in said
    assert "0/1" in said and "1/1" in said
    assert pd.read_csv("runs/study/results.csv")["status"].tolist() == ["failed", "finished"]
    (model,) = Path("runs/study").rglob("model.safetensors")
    written = model.stat().st_mtime_ns

    monkeypatch.setattr(group, "finish_cell", real)
    code, said, told = unfreeze("run", "study.yaml")
    assert code == 0
    assert "\n2 cells, 1 already finished: 1 to run\n" in told
    assert "failed" not in said
    assert model.stat().st_mtime_ns == written
    assert len(list(Path("runs/study").rglob("model.safetensors"))) == 2


def test_cells_skipped_because_of_the_time_limit(unfreeze, study):
    code, said, told = unfreeze("run", "study.yaml", "--time", "0s")
    assert code == 0
    *_, planned, skipped = told.splitlines()
    assert planned == "2 cells to run"
    assert skipped.removeprefix("skipped because of the time limit: ") in (
        "sgd.few.s0, scratch.few.s0",
        "scratch.few.s0, sgd.few.s0",
    )
    assert "No cell has finished yet, so there is nothing to compare.\n" in said
    assert "2 cells did not fit into the time limit; run the same command without --time to finish.\n" in said


def test_warnings_are_repeated_at_the_end(unfreeze, study):
    code, said, told = unfreeze("run", "study.yaml", "--set", "regimes.few.train_per_class=10", "--set", "epochs=1")
    assert code == 0
    short = [line for line in told.splitlines() if line.startswith("warning: ")]
    assert short[0].endswith("of 10 training images")
    assert all(line in said.splitlines() for line in short)


@pytest.mark.parametrize("target", ["photos", "photos/", "./photos"])
def test_a_folder_is_a_study_named_after_it(unfreeze, study, target):
    code, said, _ = unfreeze("plan", target, "--backbone", "test_resnet", *QUICK, "--json")
    assert code == 0
    record = json.loads(said)
    assert record["study"] == "photos"
    assert [cell["cell"] for cell in record["cells"]] == ["all.full.s0", "all.full.s1"]


def test_a_folder_runs(unfreeze, study):
    code, said, _ = unfreeze("run", "photos", "--backbone", "test_resnet", *QUICK, "--seeds", "1")
    assert code == 0
    assert said.endswith("\nreport: runs/photos/report.html\n")
    assert not Path("runs/photos/study.yaml").exists()  # none was given; study.json has it all


def test_a_preset_under_a_study_file(unfreeze, folder, study):
    Path("mine.yaml").write_text("data: photos\nbackbone: test_resnet\nimage_size: 64\nseeds: 1\n")
    code, said, _ = unfreeze("plan", "mine.yaml", "--preset", "quick", "--json")
    assert code == 0
    assert {cell["strategy"] for cell in json.loads(said)["cells"]} == {"head", "last_quarter", "fine_tune"}


def test_report_is_rebuilt(unfreeze, study):
    assert unfreeze("run", "study.yaml", "--set", "epochs=1")[0] == 0
    files = Path("runs/study/report.html"), Path("runs/study/results.csv")
    before = [file.read_bytes() for file in files]
    for file in files:
        file.unlink()
    assert unfreeze("report", "runs/study") == (0, "report: runs/study/report.html\n", "")
    assert unfreeze("report", "runs/study", "--out", "runs") == (
        2,
        "",
        "unfreeze: --out runs is a directory\n"
        "  expected: a file for the page\n"
        "  fix:      give a file in it: --out runs/report.html\n",
    )
    assert [file.read_bytes() for file in files] == before


def test_a_run_prints_the_worst_findings_and_the_path_of_the_page(unfreeze, study):
    for name, copy in (("red/0", "red/again"), ("blue/3", "blue/again"), ("green/5", "blue/other")):
        Image.open(f"photos/{name}.png").save(f"photos/{copy}.bmp")
    Path("photos/red/broken.png").write_bytes(b"no picture")
    more = ("--set", "check.max_set_aside=0.2", "--set", "epochs=1", "--set", "strategies={all: {train: all}}")
    code, said, told = unfreeze("run", "study.yaml", *more)
    assert code == 0
    block = (
        "findings in the data, worst first:\n"
        "  error: One picture with several labels (2 images): 2 images, the same pixels, labelled blue and green\n"
        "  warning: Files that cannot be read (1 image): {reason}\n"
        "  warning: Identical images (2 findings, 4 images): for example 2 images, the same pixels, all blue, "
        "first blue/3.png\n"
        "  5 findings with images: runs/study/check.html\n"
    )
    reason = re.search(r"Files that cannot be read \(1 image\): (.*)\n", told)
    assert block.format(reason=reason[1]) in told
    assert block.format(reason=reason[1]) + "\nreport: " in said
    assert "blue/other.bmp" in Path("runs/study/check.html").read_text()
    code, said, _ = unfreeze("run", "study.yaml", *more, "--json")
    record = json.loads(said)
    assert record["check_page"] == "runs/study/check.html"
    assert [(one["kind"], one["severity"], one["findings"], one["count"]) for one in record["findings"]] == [
        ("label_conflict", "error", 1, 2),
        ("unreadable", "warning", 1, 1),
        ("exact_duplicate", "warning", 2, 4),
    ]
    assert record["findings"][0]["note"] == "2 images, the same pixels, labelled blue and green"


def test_a_run_prints_no_findings_if_all_are_notes(unfreeze, study):
    code, said, told = unfreeze("run", "study.yaml", "--json", "--set", "epochs=1")
    assert code == 0 and "findings in the data" not in told
    record = json.loads(said)
    assert {one["severity"] for one in record["findings"]} == {"note"}  # the pictures are small
    assert record["check_page"] is None and not Path("runs/study/check.html").exists()
