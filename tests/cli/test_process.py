"""The program as a process: signals, terminals, and closed pipes."""

import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from unfreeze.cli.app import main

RESUMABLE = "interrupted; run the same command again to resume"
PROGRAM = [sys.executable, "-c", "import sys; from unfreeze.cli import main; sys.exit(main())"]
LONG = ["run", "study.yaml", "--set", "strategies.sgd.epochs=100000"]

posix = pytest.mark.skipif(os.name != "posix", reason="signals and terminals of POSIX")


def wait_for(path: Path, text: str, process: subprocess.Popen) -> None:
    end = time.monotonic() + 300  # on a machine that does other work, too
    while text not in path.read_text():
        assert process.poll() is None, path.read_text()
        assert time.monotonic() < end, path.read_text()
        time.sleep(0.05)


@posix
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)]
)
def test_an_interrupt_is_one_line_and_saves_the_state(study, unfreeze, number, code):
    log = study / "log"
    with log.open("w") as file:
        process = subprocess.Popen(
            [*PROGRAM, *LONG], stdout=subprocess.PIPE, stderr=file, text=True, start_new_session=True
        )
        wait_for(log, "sgd.few.s0: epoch 2:", process)
        assert unfreeze("run", "study.yaml") == (
            2,
            "",
            f"unfreeze: runs/study is being run by process {process.pid} on {platform.node()}\n"
            "  expected: one run at a time in a study directory\n"
            "  fix:      wait for it, stop it, or give another --out DIR\n",
        )
        if number == signal.SIGINT:  # Ctrl-C reaches the processes that read images, too
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        said, _ = process.communicate(timeout=30)
    assert process.returncode == code
    assert said == ""
    lines = log.read_text().splitlines()
    assert lines[-1] == RESUMABLE
    assert "Traceback" not in log.read_text()
    assert not list(Path("runs").rglob("*.tmp"))
    assert {path.stem for path in Path("runs").rglob("running/*.safetensors")} == {"sgd.few.s0"}


def children(process: subprocess.Popen) -> list[int]:
    """Return the processes that run cells for another one."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if f"PPid:\t{process.pid}\n" in (path / "status").read_text():
                found += [int(path.name)] if b"unfreeze.worker" in (path / "cmdline").read_bytes() else []
        except OSError:  # it has just ended
            pass
    return found


def living(numbers: list[int]) -> list[int]:
    return [number for number in numbers if Path(f"/proc/{number}").exists()]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="looks for processes as Linux shows them")
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_processes_that_run_cells_end_with_the_run(study, unfreeze, number):
    log = study / "log"
    with log.open("w") as file:
        process = subprocess.Popen(
            [*PROGRAM, *LONG, "--set", "strategies.scratch.epochs=100000", "--parallel", "2"],
            stdout=subprocess.PIPE,
            stderr=file,
            text=True,
            start_new_session=True,
        )
        wait_for(log, "scratch.few.s0: epoch 2:", process)
        wait_for(log, "sgd.few.s0: epoch 2:", process)
        mine = children(process)
        began = time.monotonic()
        if number == signal.SIGINT:  # Ctrl-C reaches all of them
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        process.communicate(timeout=30)
        assert time.monotonic() - began < 10
    assert len(mine) == 2
    if number == signal.SIGKILL:
        end = time.monotonic() + 5
        while living(mine):
            assert time.monotonic() < end
            time.sleep(0.05)
    else:
        assert not living(mine)
        assert process.returncode == 128 + number
        assert log.read_text().splitlines()[-1] == RESUMABLE
        states = [path.stem for path in Path("runs").rglob("running/*.safetensors")]
        assert set(states) == {"scratch.few.s0", "sgd.few.s0"}
        assert "Traceback" not in log.read_text()  # of a killed run a thread of multiprocessing's may leave one
    assert not list(Path("runs").rglob("*.tmp"))


@posix
def test_a_live_display_on_a_terminal(study):
    import pty

    mine, its = pty.openpty()
    subprocess.run(["stty", "rows", "24", "cols", "80"], stdin=its, check=True)
    process = subprocess.Popen(
        [*PROGRAM, "run", "study.yaml", "--set", "epochs=5"],
        stdin=its,
        stdout=its,
        stderr=its,
        env=os.environ | {"TERM": "xterm-256color"},
    )
    os.close(its)
    written = b""
    while True:
        try:
            part = os.read(mine, 65536)
        except OSError:  # Linux says so when the other side is closed
            break
        if not part:
            break
        written += part
    os.close(mine)
    assert process.wait(timeout=30) == 0
    text = written.decode()
    assert "reading images" in text or "starting" in text
    assert "sgd.few.s0" in text
    assert "valid." in text
    assert "of 2 cells" in text
    assert "epoch 1:" not in text  # no plain lines
    assert text.rstrip().endswith("report: runs/study/report.html")
    assert "\x1b[?25h" in text  # the cursor is back


@posix
def test_a_pipe_that_closes_is_no_error(study):
    for number in range(2000):
        (study / "photos" / "red" / f"{number:060}.png").touch()
    many = ["check", "photos", "--json"]  # lists all of them: more than a pipe holds
    process = subprocess.Popen([*PROGRAM, *many], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "{\n"
    process.stdout.close()
    complaint = process.stderr.read()
    process.stderr.close()
    process.wait(timeout=60)
    assert complaint == ""


def test_a_bug_keeps_its_traceback(study, monkeypatch):
    def broken(*_):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("unfreeze.study.network_plan.make_plan", broken)
    with pytest.raises(ZeroDivisionError):
        main(["plan", "study.yaml"])
