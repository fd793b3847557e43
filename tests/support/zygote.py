"""Runs commands of the program in processes of their own and kills them: after some seconds, or at a numbered step.

A process that has imported everything forks one for each command, so that a kill costs the command alone. Started as
``python -m tests.support.zygote``; reads jobs from stdin and answers on stdout, a line of JSON each.
"""

import contextlib
import errno
import functools
import importlib
import json
import os
import re
import resource
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

Steps = list[int]


def child(job: dict[str, Any]) -> int:
    """Run one command; files that are made, synced, renamed or deleted are counted as steps."""
    log = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.chdir(job["folder"])
    os.umask(job.get("umask", 0o022))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # tests may have been started where it is ignored
    os.environ["UNFREEZE_CACHE"] = str(Path(job["folder"]) / job["cache"])
    from unfreeze.cli.app import main
    from unfreeze.study import run
    from unfreeze.train import checkpoint as saving

    saving.SAVE_SECONDS, saving.SHARE, saving.END_SECONDS = job.get("save_seconds", 0.0), 1e9, 1e-9
    workers = job.get("workers", 0)
    run.default_workers = lambda: workers
    if "user" in job:
        main(job["before"])  # imports everything, which may lie where that user cannot read
        os.setgid(job["user"])
        os.setuid(job["user"])
    if "file_bytes" in job:
        resource.setrlimit(resource.RLIMIT_FSIZE, (job["file_bytes"], resource.RLIM_INFINITY))
    if "strike" in job:
        strike(*job["strike"], Path(job["log"]).with_suffix(".struck"))
    if "full_at" in job:
        steps = fill_disk(job["full_at"], job["for_good"])
    else:
        steps = count_steps(job.get("at"), job.get("tried"), Path(job["log"]).with_suffix(".kind"))
    imported = set(sys.modules)
    code = main(job["command"])
    if "user" not in job:
        Path(job["log"]).with_suffix(".steps").write_text(str(steps[0]))
        Path(job["log"]).with_suffix(".modules").write_text("\n".join(sys.modules.keys() - imported))
    return code


def strike(at: str, call: int, numbers: list[int], struck: Path) -> None:
    """Send this process signals at a call of a function, named MODULE:NAME, and note the time."""
    module, _, names = at.partition(":")
    *way, last = names.split(".")
    owner = functools.reduce(getattr, way, importlib.import_module(module))
    function, calls = getattr(owner, last), 0

    def counted(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            struck.write_text(str(time.monotonic()))
            for number in numbers:
                os.kill(os.getpid(), number)
            if len(numbers) > 1:  # the work does not come to where it would heed the first one
                time.sleep(30)
        return function(*arguments, **named)

    setattr(owner, last, counted)


def count_steps(kill_at: int | None, tried: list[str] | None, kind: Path) -> Steps:
    """Count the numbered steps from now on, and die just before one of them.

    Args:
        kill_at: the number of that step.
        tried: or its kind is none of these, nor what it does.
        kind: where its kind is written, then.
    """
    steps = [0]

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def step(*arguments: Any, **named: Any) -> Any:
            steps[0] += 1
            now = "" if tried is None else kind_of(function.__name__, *arguments, **named)
            if steps[0] == kill_at or (tried is not None and now not in tried and now.split()[0] not in tried):
                kind.write_text(now)
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **named)

        return step

    os.fsync = counted(os.fsync)
    shutil.rmtree = counted(shutil.rmtree)  # type: ignore[assignment]
    for name in ("replace", "rename", "unlink", "mkdir"):
        setattr(Path, name, counted(getattr(Path, name)))
    return steps


def kind_of(what: str, first: Any = "", *_: Any, **__: Any) -> str:
    """Say what a step does with what file; files whose names differ in numbers alone are of one kind."""
    path = os.readlink(f"/proc/self/fd/{first}") if isinstance(first, int) else str(first)
    if ".tmp" in path and what in ("mkdir", "fsync", "unlink", "rmtree"):  # of which one is like another
        return f"{what} what is temporary"
    name = re.sub(r"(\.[^.]*)?\.tmp$", "", Path(path).name).strip(".")
    return f"{what} {re.sub(r'[0-9a-f]{8,}|[0-9]+', 'N', name)}"


def fill_disk(full_at: int, for_good: bool) -> Steps:
    """Count what takes room on a disk from now on; at one of these steps, or from it on, there is none."""
    from unfreeze.storage import records as store
    from unfreeze.storage import shards

    steps = [0]

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def step(*arguments: Any, **named: Any) -> Any:
            steps[0] += 1
            if steps[0] == full_at or (for_good and steps[0] > full_at):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return function(*arguments, **named)

        return step

    make = Path.mkdir

    def mkdir(self: Path, *arguments: Any, **named: Any) -> None:
        (make if self.exists() else counted(make))(self, *arguments, **named)

    os.fsync = counted(os.fsync)
    Path.mkdir = mkdir  # type: ignore[method-assign]
    for name in ("write_bytes", "replace", "rename"):
        setattr(Path, name, counted(getattr(Path, name)))
    store.save_file = counted(store.save_file)
    shards.NewShard.append = counted(shards.NewShard.append)  # type: ignore[method-assign]
    return steps


def answer(job: dict[str, Any]) -> dict[str, Any]:
    began = time.monotonic()
    process = os.fork()
    if process == 0:
        code = 1
        try:
            code = child(job)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    for number, seconds in job.get("signals", []):
        time.sleep(max(0.0, began + seconds - time.monotonic()))
        os.kill(process, number)
    signalled = time.monotonic()
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    ended, struck = time.monotonic(), Path(job["log"]).with_suffix(".struck")
    if struck.exists():
        signalled = float(struck.read_text())
        struck.unlink()
    import_what_was(Path(job["log"]).with_suffix(".modules"))
    return {"code": code, "seconds": ended - began, "after_signal": ended - signalled}


def import_what_was(found: Path) -> None:
    """Import what a command that came to its end imported in its midst, so that the next ones need not."""
    if found.exists():
        for name in sorted(found.read_text().split()):
            with contextlib.suppress(Exception):  # a part that is made, not imported
                importlib.import_module(name)
        found.unlink()


def main() -> None:
    import unfreeze.cli.progress
    import unfreeze.cli.tables
    import unfreeze.report.page
    import unfreeze.study.api  # noqa: F401
    from unfreeze.report.templating import environment

    environment().get_template("report.html.j2")  # compiled once, not by each command
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)
    os._exit(0)  # there is nothing to tidy, and Python takes seconds over it


if __name__ == "__main__":
    main()
