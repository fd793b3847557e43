"""What a power cut can leave: every file that is written is synced, renamed, and its folder synced, in this order."""

import ast
import os
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.support.worlds import tiny_study, write_photographs
from unfreeze import Study
from unfreeze.cli.app import main
from unfreeze.train import checkpoint as saving

PACKAGE = Path(__file__).parents[2] / "src" / "unfreeze"

NO_FILES = {
    ("report/check_page.py", "save"): "into memory",
    ("data/sources/digits.py", "save"): "into memory",
    ("data/sources/digits.py", "write_bytes"): "the demo's images, compared with what they should be at every start",
    ("storage/atomic.py", "touch"): "a file that tells the time by the file system, and is deleted",
    ("storage/cache.py", "touch"): "an empty mark of when an entry was used; its absence does no harm",
    ("storage/shards.py", "open"): "a temporary file that replacing() gave, for as long as the shard grows",
    ("storage/records.py", "to_csv"): "into memory",
    ("storage/event_log.py", "open"): "a log of events, of which a torn last line is left out",
    ("slots.py", "open"): "a log of answers, of which a torn last line is left out",
    ("slots.py", "touch"): "the same",
    ("study/group.py", "save"): "training states, by write_state",
}
"""Calls that look as if they wrote a file that lasts."""

MAKE_FILES = {"save_file", "save", "savez", "to_csv", "tofile", "write_html", "copyfile", "copy2"}


class Step(NamedTuple):
    what: str
    path: Path


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[Step]:
    """Note each folder that is made, each sync and each rename, by path."""
    steps: list[Step] = []
    make, sync, replace, rename = Path.mkdir, os.fsync, Path.replace, Path.rename

    def noted_make(self: Path, *arguments: Any, **named: Any) -> None:
        make(self, *arguments, **named)
        steps.append(Step("made", self.absolute()))

    def noted_sync(handle: int) -> None:
        sync(handle)
        steps.append(Step("synced", Path(os.readlink(f"/proc/self/fd/{handle}"))))

    def noted_replace(self: Path, target: Path) -> Path:
        steps.append(Step("renamed", self.absolute()))
        steps.append(Step("appeared", Path(target).absolute()))
        return replace(self, target)

    def noted_rename(self: Path, target: Path) -> Path:
        done = rename(self, target)
        steps.append(Step("folder renamed", self.absolute()))
        steps.append(Step("folder appeared", Path(target).absolute()))
        return done

    monkeypatch.setattr(Path, "mkdir", noted_make)
    monkeypatch.setattr(Path, "rename", noted_rename)
    monkeypatch.setattr(os, "fsync", noted_sync)
    monkeypatch.setattr(Path, "replace", noted_replace)
    return steps


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="asks Linux which file a descriptor belongs to")
def test_every_file_is_synced_renamed_and_its_folder_synced(
    recorded: list[Step], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path.resolve()
    monkeypatch.setenv("UNFREEZE_CACHE", str(folder / "cache"))
    monkeypatch.setattr(saving, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(saving, "SHARE", 1e9)
    monkeypatch.chdir(folder)
    regimes = {"small": {"train_per_class": 5, "val_per_class": 2, "augment": "flip_crop", "views": 2}}
    strategies = {
        "head": {"train": "head"},
        "bad": {"train": "all", "optimizer": {"name": "sgd", "lr": 1e30}},
    }
    study = Study(**tiny_study(folder, regimes=regimes, strategies=strategies))
    study.source_text = "name: tiny\n"
    study.run(folder / "out", workers=0)
    write_photographs(folder / "photos")
    assert main(["check", "photos"]) in (0, 1)
    assert main(["init", "photos"]) == 0
    assert main(["report", "out", "--out", "page.html"]) == 0
    assert main(["report", "out", "out"]) == 0

    appeared = [number for number, step in enumerate(recorded) if step.what == "appeared"]
    for number in appeared:
        temporary, target = recorded[number - 1].path, recorded[number].path
        before = [step for step in recorded[: number - 1] if step.path == temporary]
        assert [step.what for step in before] == ["synced"], target
        assert Step("made", temporary.parent) in recorded[: number - 1]
        assert temporary.parent.parent == target.parent
        assert recorded[number + 1] == Step("synced", target.parent), target  # at once, before anything else happens
    names = {path.suffix if path.is_relative_to(folder / "cache") else path.name for path in
             (recorded[number].path for number in appeared)}  # fmt: skip
    assert names >= {".rows", ".manifest", ".json", ".jsonl"}
    assert names >= {"study.yaml", "study.json", "plan.json", "environment.json", "shared.json", "catalog.csv"}
    assert names >= {"splits.csv", "cell.json", "history.csv", "logits.safetensors", "model.safetensors"}
    assert names >= {
        "result.json",
        "error.json",
        "results.csv",
        "report.html",
        "check.html",
        "head.small.s0.safetensors",
    }
    assert names >= {"comparisons.csv", "explain.json", "wrong-01.webp", "page.html", "report-side-by-side.html"}

    order = [recorded[number].path for number in appeared]
    out = folder / "out"
    folders = {
        recorded[number].path.name: number for number, step in enumerate(recorded) if step.what == "folder appeared"
    }
    assert folders.keys() == {"head.small.s0", "bad.small.s0"}
    for name, number in folders.items():
        temporary = recorded[number - 1].path
        assert temporary.parent == out / "cells"
        assert Step("made", temporary) in recorded
        assert recorded[number + 1] == Step("synced", out / "cells")
        inside = [at for at, step in enumerate(recorded) if temporary in step.path.parents]
        assert max(inside) < number, name  # all its files were there, and on disk
    head, bad = (recorded[folders[name] - 1].path for name in ("head.small.s0", "bad.small.s0"))
    cell = [path.name for path in order if path.parent == head]
    assert cell == [
        "history.csv",
        "cell.json",
        "logits.safetensors",
        "model.safetensors",
        "ranking.safetensors",
        "result.json",
    ]
    assert [path.name for path in order if path.parent == bad][-1] == "error.json"
    assert order.index(out / "study.json") < order.index(out / "catalog.csv") < order.index(out / "splits.csv")
    shards = [path for path in order if path.suffix in (".rows", ".manifest")]
    assert [path.with_suffix("") for path in shards[::2]] == [path.with_suffix("") for path in shards[1::2]]
    assert {path.suffix for path in shards[::2]} == {".rows"}
    first = recorded.index(Step("appeared", out / "study.yaml"))
    assert Step("synced", folder) in recorded[:first]  # so that the new folder is there, too


def writes(tree: ast.AST, inside: bool = False) -> list[tuple[str, int]]:
    """Return the calls outside of ``with replacing(...)`` that write files, by method and line."""
    found = []
    for node in ast.iter_child_nodes(tree):
        within = inside
        if isinstance(node, ast.With):
            within = inside or any("replacing(" in ast.unparse(item.context_expr) for item in node.items)
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            method = isinstance(node.func, ast.Attribute)
            modes = [value.value for value in ast.walk(node) if isinstance(value, ast.Constant)]
            opens = name in ("open", "fdopen", "TemporaryFile") and {"w", "wb", "a", "ab", "x", "xb", "w+"} & set(modes)
            made = name in MAKE_FILES or (method and name in ("write_text", "write_bytes", "touch"))
            if (opens or made) and not within:
                found.append((name, node.lineno))
        found += writes(node, within)
    return found


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_else_writes_files_that_last(path: Path) -> None:
    where = path.relative_to(PACKAGE).as_posix()
    assert [found for found in writes(ast.parse(path.read_text("utf-8"))) if (where, found[0]) not in NO_FILES] == []
