"""The disk is full, at any moment: what was there stays, one message says what is needed, the same command goes on."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.finished import tables
from tests.support.killer import ONE, Killer
from tests.support.worlds import tiny_study
from unfreeze import Study
from unfreeze.errors import UserError
from unfreeze.events import BetweenSteps, Event, Warned
from unfreeze.storage.atomic import DiskFull
from unfreeze.study.run import run_study
from unfreeze.train import checkpoint as saving

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks processes, limits them, mounts")

NO_ROOM = "No space left on device"
NEVER = 10**9


@pytest.fixture(scope="module")
def whole(killer: Killer) -> tuple[dict[str, Any], int]:
    """What a run with room gives, and its steps that take room."""
    assert killer.run("whole", more=ONE, full_at=NEVER, for_good=False)["code"] == 0, killer.log("whole")
    return killer.results("whole"), killer.steps("whole")


def litter(killer: Killer, name: str) -> list[Path]:
    folders = killer.folder / name, killer.folder / f"cache-{name}"
    return [path for folder in folders for path in folder.rglob("*.tmp")]


def fill(killer: Killer, expected: dict[str, Any], step: int, for_good: bool) -> int:
    """Let the disk be full at a step, or from it on; the same command ends as if it never had been."""
    name = f"full-{step}-{for_good}"
    code = killer.run(name, more=ONE, full_at=step, for_good=for_good)["code"]
    log = killer.log(name)
    assert "Traceback" not in log, (name, log)
    assert code in ((2,) if for_good else (0, 2)), (name, log)
    assert code == 0 or f": {NO_ROOM}" in log.split("unfreeze: ")[-1], (name, log)
    assert not litter(killer, name), name
    assert killer.run(name, more=ONE)["code"] == 0, (name, killer.log(name))
    assert killer.results(name) == expected, name
    return code


@pytest.mark.slow
@pytest.mark.parametrize("for_good", [False, True])
def test_at_every_step_of_a_run(killer: Killer, whole: tuple[dict[str, Any], int], for_good: bool) -> None:
    expected, steps = whole
    codes = [fill(killer, expected, step, for_good) for step in range(1, steps + 1)]
    assert 2 in codes
    assert for_good or 0 in codes  # the cache alone was concerned, or a training state


@pytest.mark.slow
def test_a_limit_on_the_size_of_files(killer: Killer) -> None:
    """A real refusal of the system: a file may have so many bytes, which the model's exceeds."""

    assert killer.run("limited", more=ONE, file_bytes=200_000)["code"] == 2, killer.log("limited")
    model = Path("limited/cells/last.small.s0/model.safetensors")
    log = killer.log("limited")
    said = log[log.index("unfreeze: ") :].splitlines()
    assert said[0].startswith(f"unfreeze: cannot write {model} of 1,07")
    assert said[0].split(" bytes: ")[1].startswith("File too large (")
    assert said[1].startswith("  expected: room for what the study still writes: ")
    assert said[2].startswith("  fix:      free ")
    assert said[2].endswith(
        " on the disk of limited and run the same command again, which resumes from what is finished and from the last "
        "checkpoints"
    )
    assert not (killer.folder / model).exists()
    assert not litter(killer, "limited")
    assert killer.run("limited", more=ONE)["code"] == 0, killer.log("limited")
    assert killer.run("unlimited", more=ONE)["code"] == 0, killer.log("unlimited")
    assert killer.results("limited") == killer.results("unlimited")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 48 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"mounting is not allowed here: {mounted.stderr.decode().strip()}")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def ballast(disk: Path, leave: int = 0) -> Path:
    path = disk / "ballast"
    free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
    path.write_bytes(bytes(free - leave))
    return path


EARLY = {"all": {"train": "all", "early_stopping": {"patience": 2}}}


def test_a_disk_that_somebody_else_fills(tmp_path: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saving, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(saving, "SHARE", 1e9)
    warned: list[str] = []
    steps = 0

    def fills(event: Event) -> None:
        nonlocal steps
        if isinstance(event, Warned):
            warned.append(event.text)
        if isinstance(event, BetweenSteps):
            steps += 1
            if steps == 3:
                ballast(small_disk)

    def run(out: Path, told: Any = lambda event: None) -> None:
        run_study(Study(**tiny_study(tmp_path, strategies=EARLY)).config, out, told, workers=0)

    out = small_disk / "out"
    with pytest.raises(DiskFull) as caught:
        run(out, fills)
    assert caught.value.given.startswith("cannot write ")
    assert caught.value.given.endswith(f": {NO_ROOM} (0 bytes free)")
    assert len([text for text in warned if text.startswith("the state of training is not saved")]) == 1
    assert not list(out.rglob("*.tmp"))
    assert [path.name for path in (out / "running").iterdir()] == ["all.small.s0.safetensors"]
    (small_disk / "ballast").unlink()
    resumed: list[Event] = []
    run(out, resumed.append)
    assert any(type(event).__name__ == "CellResumed" for event in resumed)
    run(tmp_path / "whole")
    assert tables(out) == tables(tmp_path / "whole")


def test_a_disk_without_room_is_refused_before_anything_is_written(tmp_path: Path, small_disk: Path) -> None:
    ballast(small_disk, leave=5 * 10**6)
    study = Study(**tiny_study(tmp_path, strategies=EARLY))
    with pytest.raises(UserError) as caught:
        run_study(study.config, small_disk / "runs" / "out", lambda event: None, workers=0)
    assert caught.value.given.startswith(
        f"{small_disk}/runs/out is on a disk with 5.0 MB free, and the study may still"
    )
    assert [path.name for path in small_disk.iterdir()] == ["ballast"]


def test_a_cache_without_room_costs_the_store_and_not_the_study(
    tmp_path: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cache is on another disk than the study: what does not fit is computed, to the same numbers."""
    asked = tiny_study(tmp_path)
    whole = Study(**asked).run(tmp_path / "whole", workers=0)
    left = ballast(small_disk, leave=40_000)
    monkeypatch.setenv("UNFREEZE_CACHE", str(small_disk / "cache"))
    told: list[Event] = []
    run_study(Study(**asked).config, tmp_path / "out", told.append, workers=0)
    said = [event.text for event in told if isinstance(event, Warned) and "too little room" in event.text]
    assert len(said) == 1
    assert said[0].startswith(f"the disk of the cache {small_disk}/cache has too little room: ")
    assert tables(tmp_path / "out") == tables(whole.path)
    assert left.stat().st_size > 0
