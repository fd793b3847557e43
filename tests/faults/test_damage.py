"""A file that is not as it was written is noticed before it is used, and what it held is made again."""

import itertools
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from PIL import Image

from tests.support.damage import damaged
from tests.support.finished import CLOCK, ends
from tests.support.stops import Stopped, Stops
from tests.support.worlds import tiny_study, write_photographs
from unfreeze import Study
from unfreeze.cli.app import main
from unfreeze.data import scan_cache as states
from unfreeze.data.formats.reading import Reading
from unfreeze.data.scan_cache import ScanCache, read_lines, state_of
from unfreeze.events import Warned
from unfreeze.explain import explain
from unfreeze.report.sections import best_model
from unfreeze.storage import array_store as rowstore
from unfreeze.storage.array_store import ArrayStore
from unfreeze.storage.cache import entries
from unfreeze.storage.records import Altered, is_accepted, read_json, read_table
from unfreeze.storage.shards import MissingRows
from unfreeze.storage.study_dir import StudyDir
from unfreeze.study.run import run_study
from unfreeze.train import checkpoint as saving

DIVERGING = {"train": "all", "optimizer": {"name": "sgd", "lr": 1e30}}
Damage = Callable[[bytes], bytes]
STRATEGIES = {"head": {"train": "head"}, "bad": DIVERGING}
CELL = "head.small.s0"
REGIMES = {"small": {"train_per_class": 5, "val_per_class": 2, "augment": "flip_crop", "views": 2}}
RECORDS = ["study.json", "plan.json", "environment.json", "shared.json"]
CELL_FILES = [
    "cell.json", "history.csv", "logits.safetensors", "model.safetensors", "ranking.safetensors", "result.json",
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A finished study, one of whose cells diverged, with a cache of its own; two of its pictures are nearly alike."""
    folder = tmp_path_factory.mktemp("damage")
    circles = write_photographs(folder / "photographs") / "circle"
    with Image.open(circles / "000.png") as picture:
        picture.putpixel((5, 5), (0, 0, 0))
        picture.save(circles / "alike.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNFREEZE_CACHE", str(folder / "cache"))
        patch.setattr(states, "SETTLED", -1e9)  # so that the states of files are remembered at once
        run(folder, Stops())
        yield folder


def run(folder: Path, told: Stops) -> None:
    study = Study(**tiny_study(folder, strategies=STRATEGIES, regimes=REGIMES))
    run_study(study.config, folder / "out", told, workers=0)


def tried(path: Path, notices: Callable[[], bool]) -> int:
    """Damage a file in every way; return how often, all of them noticed."""
    content, count = path.read_bytes(), 0
    try:
        for altered in damaged(content):
            path.write_bytes(altered)
            assert notices(), (path.name, count)
            count += 1
    finally:
        path.write_bytes(content)
    return count


def is_altered(path: Path) -> bool:
    try:
        read_json(path)
    except Altered:
        return True
    return False


@pytest.mark.parametrize("name", RECORDS)
def test_a_damaged_record_is_noticed(name: str, folder: Path) -> None:
    assert tried(folder / "out" / name, lambda: is_altered(folder / "out" / name)) >= 320


@pytest.mark.parametrize("name", ["catalog.csv", "splits.csv"])
def test_a_damaged_table_is_noticed(name: str, folder: Path) -> None:
    files = read_json(folder / "out" / "study.json")["files"]
    assert is_accepted(folder / "out" / name, files)
    assert tried(folder / "out" / name, lambda: not is_accepted(folder / "out" / name, files)) >= 320


@pytest.mark.parametrize("name", CELL_FILES)
def test_a_damaged_file_of_a_finished_cell_is_noticed(name: str, folder: Path) -> None:
    store, result = StudyDir(folder / "out"), folder / "out" / "cells" / CELL / "result.json"
    content = result.read_bytes()
    assert store.set_aside_altered([{"cell": CELL}]) == []

    def notices() -> bool:
        found = store.set_aside_altered([{"cell": CELL}]) == [CELL] and not result.exists()
        result.with_name("result.json.altered").unlink()
        if name != "result.json":
            result.write_bytes(content)
        return found

    assert tried(result.with_name(name), notices) >= 320


def test_a_damaged_record_of_a_diverged_cell_is_noticed(folder: Path) -> None:
    store, error = StudyDir(folder / "out"), folder / "out" / "cells" / "bad.small.s0" / "error.json"

    def notices() -> bool:
        found = store.set_aside_altered([{"cell": "bad.small.s0"}]) == ["bad.small.s0"] and not error.exists()
        error.with_name("error.json.altered").unlink()
        return found

    assert tried(error, notices) >= 320


@pytest.mark.parametrize("name", ["explain.json", "01.webp", "01-cam.webp"])
def test_a_damaged_explanation_of_the_best_model_is_noticed(name: str, folder: Path) -> None:
    """By the run that would keep it, and by the report that would show it."""
    store = StudyDir(folder / "out")
    path = next(path for path in sorted((store.path / "explain").iterdir()) if path.name.endswith(name))
    assert explain._is_current(store, CELL)
    assert best_model._explained(store, CELL)
    assert tried(path, lambda: not explain._is_current(store, CELL) and not best_model._explained(store, CELL)) >= 320


def stores(folder: Path) -> list[ArrayStore]:
    found = entries(folder / "cache")
    assert {entry.kind for entry in found} == {"activations", "pixels"}
    return [ArrayStore(entry.path, entry.identity, read_json(entry.path / "entry.json")["dtype"]) for entry in found]


@pytest.mark.parametrize("kind", [".rows", ".manifest"])
def test_a_damaged_shard_is_noticed(kind: str, folder: Path) -> None:
    store = stores(folder)[0]
    shard = next(path for path in store.folder.iterdir() if path.suffix == kind)
    manifest = shard.with_suffix(".manifest")
    rows, kept = sorted(store.held()), {path: path.read_bytes() for path in (manifest, manifest.with_suffix(".rows"))}

    def notices() -> bool:
        told: list[int] = []
        try:
            store.open(rows, told.append)
        except MissingRows:
            pass
        for path, content in kept.items():
            path.with_name(path.name + ".altered").unlink(missing_ok=True)
            if path != shard:
                path.write_bytes(content)
        return bool(told)

    assert tried(shard, notices) >= 320


def test_a_damaged_record_of_whose_an_entry_of_the_cache_is_is_noticed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By those who list entries, and by the run that uses it, which would write it anew."""
    shutil.copytree(folder / "cache" / "pixels", tmp_path / "pixels")
    (whole,) = entries(tmp_path)
    store, written = ArrayStore(whole.path, whole.identity, "uint8"), list[Path]()
    monkeypatch.setattr(rowstore, "write_json", lambda path, record: written.append(path))
    store.write_record()
    assert whole.identity and not written

    def notices() -> bool:
        written.clear()
        store.write_record()
        (found,) = entries(tmp_path)
        return found.identity == {} and written == [whole.path / "entry.json"]

    assert tried(whole.path / "entry.json", notices) >= 320


def remembered(folder: Path, name: str) -> Path:
    (path,) = (folder / "cache" / "looks").glob(f"{name}-*.jsonl")
    return path


ASKED = Reading(bits=None)
"""How a study reads files whose bits are not said yet."""


def test_a_damaged_line_of_remembered_looks_is_noticed(folder: Path) -> None:
    path = remembered(folder, "[0-9a-f]" * 16)
    whole = ScanCache(path.parent, ASKED).infos
    assert len(whole) == 37

    def notices() -> bool:
        found = ScanCache(path.parent, ASKED).infos
        return len(found) < 37 and all(whole[sha256] == look for sha256, look in found.items())

    assert tried(path, notices) >= 320


def test_a_damaged_line_of_remembered_states_of_files_is_noticed(folder: Path) -> None:
    path = remembered(folder, "states-2")
    states = [state_of(photograph) for photograph in sorted((folder / "photographs").rglob("*.png"))]
    assert len(states) == 37
    assert all(map(ScanCache(path.parent, ASKED).unchanged, states))
    assert tried(path, lambda: not any(map(ScanCache(path.parent, ASKED).unchanged, states))) >= 320


def test_a_damaged_line_of_remembered_copies_is_noticed(folder: Path) -> None:
    path = remembered(folder, "copies-*")
    key = path.name.rpartition("-")[0]
    ((_, ((_, _, likeness),)),) = read_lines(path.parent, key)
    assert likeness > 0.9
    assert tried(path, lambda: not list(read_lines(path.parent, key))) >= 320


def test_damaged_calibrations_are_noticed(folder: Path) -> None:
    for path in (folder / "cache" / "calibrations").iterdir():
        assert tried(path, lambda path=path: is_altered(path)) >= 320


def zero_byte(content: bytes) -> bytes:
    return b""


def half_written(content: bytes) -> bytes:
    return content[: len(content) // 2]


def zero_tailed(content: bytes) -> bytes:
    return content[: len(content) // 2] + bytes(len(content) - len(content) // 2)


DAMAGES = (zero_byte, half_written, zero_tailed)


def kind_of(path: Path) -> str:
    """Tell what a file of a study or of the cache is; those whose names differ in numbers alone are of one kind."""
    name = path.suffix if path.suffix in (".webp", ".rows", ".manifest") else path.name
    place = next((part for part in ("activations", "pixels", "looks", "calibrations") if part in path.parts), "")
    return f"{place} {re.sub(r'[0-9a-f]{8,}', 'N', name)}".strip()


OUT_KINDS = {
    "study.json", "plan.json", "environment.json", "shared.json", "catalog.csv", "splits.csv", "results.csv",
    "comparisons.csv", "check.html", "cell.json", "history.csv", "logits.safetensors", "model.safetensors",
    "ranking.safetensors", "result.json",
    "error.json", "explain.json", ".webp",
}  # fmt: skip
CACHE_KINDS = {
    "activations .rows", "activations .manifest", "activations entry.json", "pixels .rows", "pixels .manifest",
    "pixels entry.json", "looks N-N.jsonl", "looks copies-N-N.jsonl", "looks states-2-N.jsonl",
    "calibrations N.json",
}  # fmt: skip
NEW_STUDIES_READ = (b'"choice": {', b'"pytorch": {')
"""What is in calibrations by which a study chooses its engine; one that has chosen does not read them."""


def one_of_each_kind(folder: Path) -> dict[str, Path]:
    """Return a file of each kind that holds something and that a study reads which is there, by kind.

    The event log is none: a run appends to it, and only who watches reads it.
    """
    files = {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
    files = {path: content for path, content in files.items() if path.parent.name != "events"}
    return {
        kind_of(path): path
        for path, content in files.items()
        if content and not ("calibrations" in path.parts and any(key in content for key in NEW_STUDIES_READ))
    }


@pytest.mark.parametrize(
    "damages",
    [
        DAMAGES,
        *(pytest.param((one,), marks=pytest.mark.slow, id=one.__name__) for one in DAMAGES),
    ],
)
def test_whatever_file_is_damaged_the_next_run_ends_with_the_same_results(
    damages: Sequence[Damage], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of the study and one of the cache at a time, and a cell that has to run again, so that both are read.

    Several ways of damage take turns.
    """
    expected = ends(folder / "out")
    table = read_table(folder / "out" / "results.csv").drop(columns=CLOCK)
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    monkeypatch.setenv("UNFREEZE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("tests.support.worlds.write_photographs", lambda photographs: photographs)
    out, cache = tmp_path / "out", tmp_path / "cache"
    assert one_of_each_kind(out).keys() == OUT_KINDS
    assert one_of_each_kind(cache).keys() == CACHE_KINDS
    kinds = itertools.zip_longest(sorted(OUT_KINDS), sorted(CACHE_KINDS))
    for (kind, other), damage in zip(kinds, itertools.cycle(damages), strict=False):
        paths = [one_of_each_kind(out)[kind], *([one_of_each_kind(cache)[other]] if other else [])]
        (out / "cells" / CELL / "result.json").unlink(missing_ok=True)
        before = {path: path.read_bytes() for path in paths if path.exists()}
        for path, content in before.items():
            path.write_bytes(damage(content))
        told = Stops()
        run_study(settings(folder), out, told, workers=0)
        assert ends(out) == expected, paths
        assert read_table(out / "results.csv").drop(columns=CLOCK).equals(table), paths
        for path, content in before.items():
            if path.suffix == ".jsonl":  # what its lines held is in a file of another name
                path.unlink()
            assert not path.exists() or path.read_bytes() != damage(content), path  # made anew, or set aside
            assert kind_of(path) in one_of_each_kind(tmp_path)
        altered = "chunks of the cache were damaged" in " ".join(
            event.text for event in told.events if isinstance(event, Warned)
        )
        assert altered == (other is not None and other.endswith((".rows", ".manifest"))), other


@pytest.mark.parametrize(
    "damage", [half_written, *(pytest.param(one, marks=pytest.mark.slow) for one in (zero_byte, zero_tailed))]
)
def test_a_cell_with_a_damaged_training_state_starts_again(
    damage: Damage, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNFREEZE_CACHE", str(folder / "cache"))
    monkeypatch.setattr(saving, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(saving, "SHARE", 1e9)
    expected = ends(folder / "out")
    with pytest.raises(Stopped):
        run_study(settings(folder), tmp_path / "stopped", Stops(after=5), workers=0)
    state = tmp_path / "stopped" / "running" / f"{CELL}.safetensors"
    state.write_bytes(damage(state.read_bytes()))
    told = Stops()
    run_study(settings(folder), tmp_path / "stopped", told, workers=0)
    assert told.warnings == [f"{CELL}: its training state was damaged, so it starts again"]
    assert told.resumed == []
    assert ends(tmp_path / "stopped") == expected


def settings(folder: Path) -> object:
    return Study(**tiny_study(folder, strategies=STRATEGIES, regimes=REGIMES)).config


def test_a_damaged_finished_cell_runs_again_and_that_is_said(folder: Path) -> None:
    model = folder / "out" / "cells" / CELL / "model.safetensors"
    content = model.read_bytes()
    model.write_bytes(content[:-1])
    told = Stops()
    run(folder, told)
    words = f"{CELL}: a file of this finished cell was altered or lost, so it runs again"
    assert Warned(words) in told.events
    assert model.read_bytes() == content
    assert not list((folder / "out").rglob("*.altered"))


def test_a_report_leaves_a_damaged_cell_out_and_says_so(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    shutil.copytree(folder / "out", out)
    (out / "cells" / CELL / "logits.safetensors").write_bytes(b"")
    assert main(["report", str(out)]) == 0
    words = "a file of this cell is damaged or missing, so the cell is left out; unfreeze run computes it again"
    assert capsys.readouterr().err == f"warning: {CELL}: {words}\n"
    assert read_table(out / "results.csv")["status"].tolist() == ["missing", "diverged"]
