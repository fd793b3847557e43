"""Slots: a script without a main guard, a slot that is killed, and a parent that is."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.worlds import write_photographs
from unfreeze import slots
from unfreeze.errors import UserError
from unfreeze.slots import Slot, end
from unfreeze.storage.atomic import DiskFull

posix = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")

WORK = """
import sys, time
import unfreeze.data.decode_pool as worker
from unfreeze.worker import main

def echo(told, parent):
    print("what a library prints")
    parent.tell(began=told)
    while (asked := parent.asked.get()) is not None:
        if asked == "stuck":
            parent.tell(stuck=True)
            time.sleep(600)
        if asked == "full":
            parent._log = open("/dev/full", "ab")
        parent.tell(answer=asked)
    parent.tell(saved=True)

worker.decode = echo
main()
"""

PARENT = """
import sys, time
from pathlib import Path
from unfreeze import slots
slots._COMMAND = ("-P", "-c", sys.argv[1])
found = [slots.Slot("decode", 1, Path(sys.argv[2]) / f"{number}.jsonl") for number in range(2)]
found[1].ask("stuck")
heard = []
while len(heard) < 3:
    heard += [answer for slot in found for answer in slot.heard()]
    time.sleep(0.01)
print(*(slot.process.pid for slot in found), flush=True)
time.sleep(600)
"""

SCRIPT = """
from pathlib import Path
from unfreeze.data import scan
from unfreeze.data.scan_cache import ScanCache
scan._MANY = 4
print("once")
infos = scan.scan_files(sorted(Path("pictures").rglob("*.png")), ScanCache(None), None, 2, None)
print(len(infos), {info.reason for info in infos})
"""


@pytest.fixture
def echoing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slots answer what they are asked."""
    monkeypatch.setattr(slots, "_COMMAND", ("-P", "-c", WORK))


def heard(slot: Slot, count: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    until = time.monotonic() + 120
    while len(found) < count:
        assert time.monotonic() < until, found
        found += slot.heard()
        time.sleep(0.01)
    return found


def living(numbers: list[int]) -> list[int]:
    def lives(number: int) -> bool:
        try:
            os.kill(number, 0)
        except ProcessLookupError:
            return False
        return "\nState:\tZ" not in Path(f"/proc/{number}/status").read_text()  # that nobody has waited for

    return [number for number in numbers if lives(number)]


def test_a_slot_answers_in_order_saves_and_leaves(tmp_path: Path, echoing: None) -> None:
    slot = Slot("decode", {"a": "\udcff"}, tmp_path / "log")
    for number in range(3):
        slot.ask([number])
    assert heard(slot, 4) == [{"began": {"a": "\udcff"}}, *({"answer": [number]} for number in range(3))]
    assert slot.ended() == ""
    slot.close()
    assert heard(slot, 1) == [{"saved": True}]
    slot.process.wait(timeout=60)
    assert slot.ended() == "ended with exit code 0"
    end([slot])


def test_a_slot_that_does_not_leave_is_killed(tmp_path: Path, echoing: None) -> None:
    stuck, willing = (Slot("decode", 0, tmp_path / name) for name in ("stuck", "willing"))
    stuck.ask("stuck")
    heard(stuck, 2)
    heard(willing, 1)
    end([stuck, willing], seconds=1.0)
    assert stuck.process.returncode not in (None, 0)
    lines = (tmp_path / "willing").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [{"began": 0}, {"saved": True}]


@posix
def test_the_death_of_one_slot_costs_the_others_nothing(tmp_path: Path, echoing: None) -> None:
    killed, other = (Slot("decode", 0, tmp_path / name) for name in ("killed", "other"))
    heard(killed, 1)
    os.kill(killed.process.pid, signal.SIGKILL)
    killed.process.wait(timeout=60)
    assert killed.ended() == "was ended by SIGKILL"
    killed.ask("anything")
    other.ask("something")
    assert heard(other, 2) == [{"began": 0}, {"answer": "something"}]
    end([killed, other], seconds=60)
    assert other.process.returncode == 0


def test_a_torn_last_line_is_left_until_it_is_whole(tmp_path: Path, echoing: None) -> None:
    slot = Slot("decode", 0, tmp_path / "log")
    heard(slot, 1)
    with (tmp_path / "log").open("a") as file:
        for written, whole in (('{"torn', []), ('": 1}\n{"a"', [{"torn": 1}]), (": 2}\n", [{"a": 2}])):
            file.write(written)
            file.flush()
            assert slot.heard() == whole
    end([slot], seconds=0)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a file that has no room")
def test_an_answer_without_room_is_a_full_disk(tmp_path: Path, echoing: None) -> None:
    slot = Slot("decode", 0, tmp_path / "log")
    slot.ask("full")
    slot.process.wait(timeout=120)
    with pytest.raises(DiskFull) as caught:
        slot.ended()
    end([slot])
    assert str(caught.value) == (
        f"cannot write {tmp_path / 'log'}\n"
        "  expected: a disk with room\n"
        "  fix:      free space and run the same command again"
    )


def test_a_python_that_cannot_be_started_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(UserError) as caught:
        Slot("decode", 0, tmp_path / "log")
    assert str(caught.value) == (
        f"{tmp_path / 'python'} cannot be started as a worker: [Errno 2] No such file or directory: "
        f"'{tmp_path / 'python'}'\n"
        "  expected: a Python that can start another one\n"
        "  fix:      free memory, or run the command with the Python that unfreeze is installed in"
    )


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="looks for processes as Linux shows them")
def test_a_killed_parent_leaves_no_process_behind(tmp_path: Path) -> None:
    """Neither one that waits to be asked nor one that does not come to where it could leave."""
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, WORK, str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert parent.stdout is not None
    with parent.stdout:
        mine = [int(number) for number in parent.stdout.readline().split()]
    assert living(mine) == mine
    assert len(mine) == 2
    parent.kill()
    parent.wait(timeout=60)
    until = time.monotonic() + 5
    while living(mine):
        assert time.monotonic() < until
        time.sleep(0.05)
    assert json.loads((tmp_path / "0.jsonl").read_text().splitlines()[-1]) == {"saved": True}


def test_a_script_without_a_main_guard_starts_slots(tmp_path: Path) -> None:
    write_photographs(tmp_path / "pictures", per_class=2)
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, env=os.environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "once\n6 {''}\n"
